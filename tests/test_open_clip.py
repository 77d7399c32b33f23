"""open_clip checkpoints give the embeddings that open_clip gives.

open_clip needs torchvision, which does not load beside this project's CPU torch; so its forward is
written out here, and compared with the installed open_clip only where there is one.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from forms_on_disk import Place, open_clip_folder
from openai_clip import openai_clip
from random_models import random_pixels
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import driftscope as ds
from driftscope.errors import ModelError
from driftscope.sources.live import find_target, from_target
from driftscope.sources.open_clip import convert_open_clip, load_open_clip
from driftscope.sources.open_clip.names import SIZES, Size
from driftscope.sources.open_clip.weights import TowerFacts

WIDTH, TEXT_WIDTH, EMBED, LAYERS, PATCH, GRID = 128, 64, 32, 2, 8, 4
VOCABULARY, CONTEXT, HEAD_DIM = 60, 16, 64
TINY = Size(WIDTH, LAYERS, PATCH, GRID * PATCH)


def open_clip_state(seed: int = 0) -> dict[str, Tensor]:
    """A random state dict with open_clip's names and shapes (class CLIP, a plain ViT)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.1) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    state = {
        "logit_scale": torch.tensor(math.log(100.0)),
        "text_projection": normal(TEXT_WIDTH, EMBED),
        "positional_embedding": normal(CONTEXT, TEXT_WIDTH),
        "token_embedding.weight": normal(VOCABULARY, TEXT_WIDTH),
        "visual.proj": normal(WIDTH, EMBED),
        "visual.class_embedding": normal(WIDTH),
        "visual.positional_embedding": normal(GRID**2 + 1, WIDTH),
        "visual.conv1.weight": normal(WIDTH, 3, PATCH, PATCH),
    }
    norms = {"visual.ln_pre": WIDTH, "visual.ln_post": WIDTH, "ln_final": TEXT_WIDTH}
    for prefix, width in (("visual.", WIDTH), ("", TEXT_WIDTH)):
        for layer in range(LAYERS):
            block = f"{prefix}transformer.resblocks.{layer}."
            norms |= {f"{block}ln_1": width, f"{block}ln_2": width}
            for name, rows, columns in (
                ("attn.in_proj_", 3 * width, width),
                ("attn.out_proj.", width, width),
                ("mlp.c_fc.", 4 * width, width),
                ("mlp.c_proj.", width, 4 * width),
            ):
                state[f"{block}{name}weight"] = normal(rows, columns)
                state[f"{block}{name}bias"] = normal(rows)
    for name, width in norms.items():
        state[f"{name}.weight"] = 1 + normal(width)
        state[f"{name}.bias"] = normal(width)
    return state


# ------------------------------------------------------------- open_clip's forward, written out


def activation(x: Tensor, kind: str) -> Tensor:
    return x * torch.sigmoid(1.702 * x) if kind == "quick_gelu" else functional.gelu(x)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def transformer(
    x: Tensor, state: dict[str, Tensor], prefix: str, kind: str, causal: bool
) -> Tensor:
    tokens, width = x.shape[1:]
    mask = torch.full((tokens, tokens), float("-inf")).triu(1) if causal else None
    for layer in range(LAYERS):
        block = f"{prefix}transformer.resblocks.{layer}."
        y = norm(x, state, f"{block}ln_1").transpose(0, 1)
        attended, _ = functional.multi_head_attention_forward(
            y, y, y, width, width // HEAD_DIM,
            state[f"{block}attn.in_proj_weight"], state[f"{block}attn.in_proj_bias"],
            None, None, False, 0.0,
            state[f"{block}attn.out_proj.weight"], state[f"{block}attn.out_proj.bias"],
            attn_mask=mask, need_weights=False,
        )  # fmt: skip
        x = x + attended.transpose(0, 1)
        y = norm(x, state, f"{block}ln_2")
        y = functional.linear(y, state[f"{block}mlp.c_fc.weight"], state[f"{block}mlp.c_fc.bias"])
        y = activation(y, kind)
        x = x + functional.linear(
            y, state[f"{block}mlp.c_proj.weight"], state[f"{block}mlp.c_proj.bias"]
        )
    return x


def encode_image(pixels: Tensor, state: dict[str, Tensor], kind: str) -> Tensor:
    x = (
        functional.conv2d(pixels, state["visual.conv1.weight"], stride=PATCH)
        .flatten(2)
        .transpose(1, 2)
    )
    cls = state["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([cls, x], dim=1) + state["visual.positional_embedding"]
    x = transformer(norm(x, state, "visual.ln_pre"), state, "visual.", kind, causal=False)
    return norm(x[:, 0], state, "visual.ln_post") @ state["visual.proj"]


def encode_text(tokens: Tensor, state: dict[str, Tensor], kind: str) -> Tensor:
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]
    x = norm(transformer(x, state, "", kind, causal=True), state, "ln_final")
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ state["text_projection"]


def random_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(3, 3, GRID * PATCH, GRID * PATCH, generator=generator)
    tokens = torch.randint(2, VOCABULARY - 2, (3, CONTEXT), generator=generator)
    tokens[:, 0] = VOCABULARY - 2
    for row, length in enumerate((5, 9, CONTEXT)):
        tokens[row, length - 1] = VOCABULARY - 1
        tokens[row, length:] = 0  # open_clip pads with 0
    return pixels, tokens


# ------------------------------------------------------------- conversion


def converted_state(state: dict[str, Tensor], kind: str = "gelu") -> tuple[Any, dict[str, Tensor]]:
    return convert_open_clip(state, TowerFacts(kind), TowerFacts(kind))


@pytest.mark.parametrize("kind", ["gelu", "quick_gelu"])
def test_the_converted_model_gives_open_clips_embeddings(kind: str) -> None:
    from transformers import CLIPModel

    state = open_clip_state()
    config, converted = converted_state(state, kind)
    model = CLIPModel(config).eval()
    model.load_state_dict(converted, strict=True)
    pixels, tokens = random_inputs()
    with torch.no_grad():
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=tokens).pooler_output
    torch.testing.assert_close(images, encode_image(pixels, state, kind), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(texts, encode_text(tokens, state, kind), atol=2e-5, rtol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(100.0, rel=1e-5)


def test_the_activation_matters() -> None:
    state = open_clip_state()
    pixels, _ = random_inputs()
    gelu, quick = (encode_image(pixels, state, kind) for kind in ("gelu", "quick_gelu"))
    assert (gelu - quick).abs().max() > 1e-3


def test_the_written_out_forward_is_the_installed_open_clips() -> None:
    model_module = pytest.importorskip(
        "open_clip.model", reason="open_clip is not installed", exc_type=ImportError
    )
    model = model_module.CLIP(
        embed_dim=EMBED,
        vision_cfg={
            "layers": LAYERS,
            "width": WIDTH,
            "patch_size": PATCH,
            "image_size": TINY.image_size,
        },
        text_cfg={
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "width": TEXT_WIDTH,
            "heads": TEXT_WIDTH // HEAD_DIM,
            "layers": LAYERS,
        },
    ).eval()
    state = open_clip_state()
    model.load_state_dict(state)
    pixels, tokens = random_inputs()
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(tokens)
    torch.testing.assert_close(images, encode_image(pixels, state, "gelu"), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(texts, encode_text(tokens, state, "gelu"), atol=2e-5, rtol=1e-5)


def test_other_spellings_of_the_same_weights_convert_alike() -> None:
    state = open_clip_state()
    _, expected = converted_state(state)
    text_names = (
        "positional_embedding",
        "text_projection",
        "token_embedding",
        "transformer",
        "ln_final",
    )
    custom_text = {
        f"text.{name}" if name.startswith(text_names) else name: t for name, t in state.items()
    }
    distributed = {f"module.{name}": tensor for name, tensor in state.items()}
    half = {name: tensor.half().float() for name, tensor in state.items()}
    with_facts = state | {"input_resolution": torch.tensor(32)}
    for spelling in (custom_text, distributed, with_facts):
        _, converted = converted_state(spelling)
        assert converted.keys() == expected.keys()
        assert all(converted[name].equal(expected[name]) for name in expected)
    stored_in_half = {name: tensor.half() for name, tensor in state.items()}
    _, converted = converted_state(stored_in_half)
    _, expected = converted_state(half)
    assert all(converted[name].dtype == torch.float32 for name in converted)
    assert all(converted[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("extra", "missing", "message"),
    [
        ("visual.attn_pool.query", None, "not .*visual.attn_pool.query"),
        ("visual.transformer.resblocks.0.ls_1.gamma", None, "ls_1.gamma"),
        ("text_decoder.ln_final.bias", None, "text_decoder"),
        (None, "visual.conv1.weight", "holds no open_clip ViT"),
        (None, "visual.ln_pre.bias", "lacks visual.ln_pre.bias"),
        (None, "visual.proj", "lacks visual.proj"),
        (None, "transformer.resblocks.0.mlp.c_proj.bias", "lacks transformer.resblocks.0"),
    ],
)
def test_other_architectures_and_torn_checkpoints_are_refused(
    extra: str | None, missing: str | None, message: str
) -> None:
    state = open_clip_state()
    if extra:
        state[extra] = torch.ones(1)
    if missing:
        del state[missing]
    with pytest.raises(ModelError, match=message):
        converted_state(state)


# ------------------------------------------------------------- files


@pytest.fixture
def tiny_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for the tiny geometry, so that files can be tested without 600 MB of weights."""
    monkeypatch.setitem(SIZES, "ViT-B-32", TINY)
    return "ViT-B-32"


@pytest.mark.parametrize("kind", [".safetensors", ".pt", ".bin", "training checkpoint"])
def test_files_load_to_the_same_model(kind: str, tmp_path: Path, tiny_name: str) -> None:
    state = open_clip_state()
    if kind == ".safetensors":
        path = tmp_path / "open_clip_model.safetensors"
        save_file(state, path)
    else:
        is_checkpoint = kind == "training checkpoint"
        path = tmp_path / ("epoch_1.pt" if is_checkpoint else f"weights{kind}")
        torch.save({"epoch": 1, "state_dict": state} if is_checkpoint else state, path)
    model = load_open_clip(path, tiny_name)
    pixels, _ = random_inputs()
    with torch.no_grad():
        images = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(images, encode_image(pixels, state, "gelu"), atol=2e-5, rtol=1e-5)
    assert not model.training
    assert model.config.vision_config.hidden_act == "gelu"


def test_the_quickgelu_names_choose_that_activation(tmp_path: Path, tiny_name: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(open_clip_state(), path)
    model = load_open_clip(path, f"{tiny_name}-quickgelu")
    assert model.config.vision_config.hidden_act == "quick_gelu"
    assert model.config.text_config.hidden_act == "quick_gelu"


def test_a_name_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(open_clip_state(), path)
    with pytest.raises(ModelError, match=r"not a ViT-L-14 .*: it has 2 blocks of width 128"):
        load_open_clip(path, "ViT-L-14")


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'ViT-B-32'"):
        load_open_clip(tmp_path / "weights.pt", "ViT-B32")


class Payload:
    """What a malicious pickle would hold: an object that is no tensor."""


@pytest.mark.parametrize("content", ["pickle", "no weights", "garbage", "nothing"])
def test_files_that_are_not_safe_tensors_are_refused(
    content: str, tmp_path: Path, tiny_name: str
) -> None:
    path = tmp_path / "weights.pt"
    if content == "pickle":
        torch.save({"state_dict": Payload()}, path)
    elif content == "no weights":
        torch.save({"state_dict": {"epoch": 3}}, path)
    elif content == "garbage":
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"weights\.pt"):
        load_open_clip(path, tiny_name)


# ------------------------------------------------------------- OpenAI's own package, in memory


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def test_openais_own_vit_is_converted_to_what_it_computes() -> None:
    model = openai_clip()
    read = from_target(find_target(nn.Sequential(model)))
    assert (read.image_size, read.mean[0]) == (32, pytest.approx(0.48145466))
    pixels, generator = random_pixels(4, size=32), torch.Generator().manual_seed(2)
    texts = torch.randint(1, 58, (4, CONTEXT), generator=generator)
    texts[:, 9], texts[:, 10:] = 59, 0
    with torch.no_grad():
        image, text = model.encode_image(read.normalise(pixels)), model.encode_text(texts)
        embedded = read.plain.get_text_features(input_ids=texts).pooler_output
    torch.testing.assert_close(read.embed_images(pixels), image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedded, text, rtol=1e-4, atol=1e-5)
    assert read.plain.config.vision_config.hidden_act == "quick_gelu"


@pytest.mark.parametrize("form", ["ViT", "ResNet", "tower"])
def test_openais_own_models_in_training_are_monitored(form: str) -> None:
    before = openai_clip("ViT" if form == "tower" else form)
    after = moved(copy.deepcopy(before))
    pixels = random_pixels(8, size=before.visual.input_resolution)
    watched = nn.Sequential(after.visual, nn.Linear(32, 3)) if form == "tower" else after
    seen = ds.Monitor(before, pixels, echo=None).observe(watched, step=1)
    values = from_target(find_target(before)).normalise(pixels)
    with torch.no_grad():
        own = [one.encode_image(values) for one in (before, after)]
    expected = 1 - float(functional.cosine_similarity(*own).mean())
    assert seen.drift.embedding_drift == pytest.approx(expected, rel=1e-3)
    assert len(seen.drift.weight_drift_per_layer) == (4 if form == "ResNet" else 3)
    assert (seen.drift.delta_entropy_pct is None) == (form == "ResNet")


@pytest.mark.skipif(find_spec("open_clip") is not None, reason="it would read the texts")
def test_how_texts_are_cleaned_does_not_decide_how_images_are_read(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.within(tmp_path, tiny_clip, monkeypatch)
    folder, embed = open_clip_folder()(place)
    said = json.loads((Path(folder) / "open_clip_config.json").read_text())
    said["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (Path(folder) / "open_clip_config.json").write_text(json.dumps(said))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_clip / file, folder)
    model, pixels = ds.load(folder), random_pixels(4, size=32)
    with torch.no_grad():
        expected = embed(model.normalise(pixels))
    torch.testing.assert_close(model.embed_images(pixels), expected, rtol=1e-4, atol=1e-5)
    assert model.tokenizer is None  # open_clip cleans, and is not here
