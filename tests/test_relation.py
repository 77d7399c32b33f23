"""Two models are one before and one after adaptation only if they compute one function."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_clip
from test_open_clip import open_clip_state
from torch import nn
from torch.nn.utils import prune
from transformers import CLIPConfig, CLIPModel

import driftscope as ds
from driftscope import sources
from driftscope.backbones.clip import Clip
from driftscope.backbones.relation import check_same_function
from driftscope.comparison import compare
from driftscope.errors import CaptureError, ModelError
from driftscope.sources import open_clip


def configured(folder: Path, tower: str, **changes: Any) -> Path:
    """The model folder with a changed configuration of one tower."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[tower] |= changes
    path.write_text(json.dumps(config))
    return folder


def preprocessed(folder: Path, **changes: Any) -> Path:
    """The model folder with a changed preprocessor configuration."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.fixture
def other(tiny_clip: Path, tmp_path: Path) -> Path:
    """A second folder of the same weights."""
    return Path(shutil.copytree(tiny_clip, tmp_path / "other"))


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "relu"}, "activation"),
        ({"num_attention_heads": 1}, "number of attention heads"),
        ({"layer_norm_eps": 0.1}, "layer norm epsilon"),
    ],
)
def test_the_same_weights_as_another_function_are_refused_by_name(
    tower: str,
    change: dict[str, Any],
    named: str,
    tiny_clip: Path,
    other: Path,
    coloured_images: Path,
) -> None:
    configured(other, tower, **change)
    side = "image" if tower == "vision_config" else "text"
    with pytest.raises(ModelError, match=rf"the {side} tower's {named} is .* in one and"):
        compare(tiny_clip, other, coloured_images)


def test_another_end_of_a_text_is_refused_but_an_older_spelling_of_the_same_is_not(
    tiny_clip: Path, other: Path, coloured_images: Path
) -> None:
    configured(other, "text_config", eos_token_id=5)
    with pytest.raises(ModelError, match="pools at is 3 in one and 5 in the other"):
        compare(tiny_clip, other, coloured_images)
    facts = (
        CLIPConfig(text_config={"vocab_size": 100, "eos_token_id": 99}),
        CLIPConfig(text_config={"vocab_size": 100, "eos_token_id": 2}),
    )
    assert Clip().text_facts(facts[0]) == Clip().text_facts(facts[1])


def test_the_monitor_refuses_a_training_of_another_function(
    tiny_clip: Path, other: Path, coloured_images: Path
) -> None:
    model = CLIPModel.from_pretrained(configured(other, "vision_config", hidden_act="relu"))
    with pytest.raises(ModelError, match="the image tower's activation"):
        ds.Monitor(str(tiny_clip), str(coloured_images), every=1).step(model, step=1)


def test_a_live_model_is_asked_and_not_its_configuration(
    tiny_clip: Path, coloured_images: Path
) -> None:
    """What somebody has set in the configuration since it was made changes no function."""
    monitor = ds.Monitor(str(tiny_clip), str(coloured_images), echo=None)
    model: Any = CLIPModel.from_pretrained(tiny_clip)
    told = {"hidden_act": "relu", "num_attention_heads": 8, "layer_norm_eps": 0.1}
    model.config.vision_config.update(told)
    seen = monitor.observe(model, step=1)
    assert seen.drift is not None
    assert seen.drift.embedding_drift == pytest.approx(0, abs=1e-7)
    model.vision_model.encoder.layers[0].mlp.activation_fn = nn.GELU(approximate="tanh")
    with pytest.raises(ModelError, match="activation"):
        monitor.observe(model, step=2)
    gelus = [{"mlp.act.approximate": one, "mlp.act": "GELU"} for one in ("none", "tanh")]
    with pytest.raises(ModelError, match=r"approximate is none in one and tanh"):
        check_same_function(*gelus, "a", "b")


def test_weights_that_are_computed_before_every_forward_are_read(
    tiny_clip: Path, coloured_images: Path
) -> None:
    monitor = ds.Monitor(str(tiny_clip), str(coloured_images), echo=None)
    model: Any = CLIPModel.from_pretrained(tiny_clip)
    layers = model.vision_model.encoder.layers
    nn.utils.parametrizations.spectral_norm(layers[0].mlp.fc1)
    nn.utils.weight_norm(layers[0].mlp.fc2)
    prune.l1_unstructured(layers[1].mlp.fc1, "weight", 0.3)
    kept = {name: one.clone() for name, one in model.state_dict().items()}
    plain = CLIPModel.from_pretrained(tiny_clip)
    layers[0].mlp.fc1.eval()
    with torch.no_grad():
        plain.vision_model.encoder.layers[0].mlp.fc1.weight.copy_(layers[0].mlp.fc1.weight)
        plain.vision_model.encoder.layers[1].mlp.fc1.weight.copy_(layers[1].mlp.fc1.weight)
    model.train()
    expected, seen = (monitor.observe(one, step=1).drift for one in (plain, model))
    assert expected is not None
    assert seen is not None
    assert seen.weight_drift == pytest.approx(expected.weight_drift, rel=1e-5)
    assert seen.embedding_drift == pytest.approx(expected.embedding_drift, rel=1e-4)
    assert all(torch.equal(kept[name], one) for name, one in model.state_dict().items())


def test_tokens_that_are_no_patches_are_not_read_as_such(
    tiny_clip: Path, coloured_images: Path
) -> None:
    model: Any = CLIPModel.from_pretrained(tiny_clip)
    model.vision_model.embeddings = _Prompted(model.vision_model.embeddings)
    monitor = ds.Monitor(str(tiny_clip), str(coloured_images), echo=None)
    with pytest.raises(ModelError, match="a copy of the module from before its training"):
        monitor.observe(model, step=1)
    with pytest.raises(CaptureError, match=r"20 tokens where the image has 16 patches"):
        ds.Monitor(copy.deepcopy(model), str(coloured_images), echo=None)


class _Prompted(nn.Module):
    """Embeddings with prompts behind the CLS token."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.prompts = embeddings, nn.Parameter(torch.ones(1, 4, 32))

    def forward(self, pixels: torch.Tensor, **named: Any) -> torch.Tensor:
        tokens = self.embeddings(pixels, **named)
        prompts = self.prompts.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)


def test_another_normalisation_of_its_own_is_refused_by_name(
    tiny_clip: Path, other: Path, coloured_images: Path
) -> None:
    preprocessed(other, image_mean=[0.4, 0.5, 0.5])
    with pytest.raises(ModelError, match=r"image_mean is 0\.5, 0\.5, 0\.5 .* 0\.4, 0\.5, 0\.5"):
        compare(tiny_clip, other, coloured_images)


def test_an_open_clip_file_says_nothing_of_pixels_so_the_pretrained_ones_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_open_clip import TINY

    monkeypatch.setitem(open_clip.SIZES, "ViT-B-32", TINY)
    torch.save(open_clip_state(), tmp_path / "epoch_1.pt")
    assert not ds.load(f"open_clip:ViT-B-32:{tmp_path / 'epoch_1.pt'}").has_own_pixels


def test_the_way_out_of_another_activation_of_an_open_clip_file_is_its_suffix() -> None:
    from driftscope.backbones.relation import check_same_function

    what = "the image tower's activation"
    with pytest.raises(ModelError, match="-quickgelu"):
        check_same_function({what: "quick_gelu"}, {what: "gelu"}, "a", "open_clip:ViT-B-32:b.pt")


# ---------------------------------------------------------------- live modules


def test_a_projection_beside_the_image_tower_is_the_one_that_embeds(
    tiny_clip: Path, coloured_images: Path
) -> None:
    from transformers import CLIPModel, CLIPVisionModel

    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision_model = CLIPVisionModel.from_pretrained(tiny_clip)
            width = self.vision_model.config.hidden_size
            self.visual_projection = nn.Linear(width, 16, bias=False)

    training, whole = Training(), CLIPModel.from_pretrained(tiny_clip)
    whole.visual_projection.load_state_dict(training.visual_projection.state_dict())
    scalars = [
        ds.Monitor(str(tiny_clip), str(coloured_images), every=1).step(model, step=1).scalars()  # type: ignore[union-attr]
        for model in (training, whole)
    ]
    assert scalars[0]["embedding_drift"] == pytest.approx(scalars[1]["embedding_drift"], rel=1e-4)
    assert scalars[0]["embedding_drift"] > 0.01
    training.other = nn.ModuleDict({"visual_projection": nn.Linear(2, 2)})
    with pytest.raises(ModelError, match="2 projections stand beside the image tower"):
        ds.Monitor(str(tiny_clip), str(coloured_images), every=1).step(training, step=1)


def test_code_in_a_model_folder_is_neither_run_nor_asked_for(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "unheard", "auto_map": {"AutoConfig": "configuration_x.X"}})
    )
    (tmp_path / "configuration_x.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ModelError, match="Python code, which driftscope never runs"):
        ds.load(tmp_path)
    assert not ran.exists()


def test_a_text_that_does_not_end_as_the_text_tower_asks_is_refused(tmp_path: Path) -> None:
    """transformers pools such a text at its first token, so all class names would be alike."""
    model = ds.load(
        configured(make_tiny_clip(tmp_path / "clip", seed=0), "text_config", eos_token_id=5)
    )
    with pytest.raises(
        ModelError, match="pools at the token 5, and the tokenizer ends a text without"
    ):
        model.embed_texts(["a cat", "a dog"])


@pytest.mark.parametrize("number", [None, [3, 5]])
def test_a_text_tower_that_pools_at_no_single_token_is_refused(
    tmp_path: Path, number: object
) -> None:
    clip = make_tiny_clip(tmp_path / "clip", seed=0)
    model = ds.load(configured(clip, "text_config", eos_token_id=number))
    with pytest.raises(ModelError, match="one number is right"):
        model.embed_texts(["a cat"])


def test_images_are_compared_where_texts_do_not_end_as_the_text_tower_asks(
    tmp_path: Path, coloured_images: Path
) -> None:
    mini = Path(sources.__file__).parent / "mini"
    models = [shutil.copytree(mini, tmp_path / name) for name in ("before", "after")]
    before, after = (configured(one, "text_config", eos_token_id=5) for one in models)
    found = compare(before, after, coloured_images)
    assert found.drift.embedding_drift == pytest.approx(0, abs=1e-6)
    assert "pools at the token 5" in found.unmeasured["text_kl_nats"]
    with pytest.raises(ModelError, match="pools at the token 5"):
        compare(before, after, coloured_images, transfer=str(coloured_images))
