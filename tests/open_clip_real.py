"""open_clip itself against what driftscope makes of its models; run by `test_open_clip_real.py`.

Every model here is open_clip's own module, with small random weights, called by its own forward.
"""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from peft import LoraConfig, get_peft_model
from random_models import random_pixels
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

import driftscope as ds
from driftscope.errors import ModelError, NoteWarning
from driftscope.monitor.kept_models import keep_model
from driftscope.reference import make_reference
from driftscope.sources.live import find_target, from_target, live_model
from driftscope.sources.open_clip import converted, from_open_clip
from driftscope.sources.open_clip.names import (
    QUICK_SUFFIX,
    SIZES,
    USUAL_HEAD_WIDTH,
    activation_of,
    vision_head_width,
)
from driftscope.sources.preprocessor import OPENAI_MEAN, OPENAI_STD

VISION = {"layers": 3, "width": 128, "head_width": 64, "patch_size": 8, "image_size": 56}
TEXT = {"context_length": 16, "vocab_size": 43, "width": 128, "heads": 2, "layers": 2}
H_14 = {"layers": 1, "width": 160, "head_width": 80, "mlp_ratio": 0.5}
PLAIN = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


def model_of(
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    kind: Any = CLIP,
    **more: Any,
) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = {"vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}}
        return kind(embed_dim=64, **towers, **more).eval()


def inputs(side: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    texts = torch.randint(1, 42, (6, 16), generator=generator)
    texts[:, 9], texts[:, 10:] = 42, 0
    return torch.randn(6, 3, side, side, generator=generator), texts


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("visual" in name or "lora" in name):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    ("vision", "text", "more"),
    [
        ({}, {}, {}),
        ({}, {}, {"quick_gelu": True}),
        ({}, {}, {"kind": CustomTextCLIP}),
        (H_14, {}, {}),
        ({"head_width": 32}, {"heads": 4}, {}),
        ({"norm_kwargs": {"eps": 1e-2}}, {"norm_kwargs": {"eps": 1e-3}}, {}),
        ({}, {"width": 64, "heads": 1}, {}),
        ({}, {}, {"init_logit_bias": -10.0}),
        ({"act_kwargs": {"approximate": "tanh"}}, {}, {}),
        ({"pool_type": "avg"}, {}, {}),
        ({"pool_type": "avg", "final_ln_after_pool": True}, {}, {"quick_gelu": True}),
    ],
    ids=str,
)
def test_a_conversion_embeds_as_open_clip_does(
    vision: dict[str, Any], text: dict[str, Any], more: dict[str, Any]
) -> None:
    model = model_of(vision, text, **more)
    clip: Any = converted(model)
    pixels, texts = inputs()
    with torch.no_grad():
        pairs = (
            (model.encode_image(pixels), clip.get_image_features(pixel_values=pixels)),
            (model.encode_text(texts), clip.get_text_features(input_ids=texts)),
        )
    for own, ours in pairs:
        torch.testing.assert_close(ours.pooler_output, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("vision", "text"),
    [
        ({"no_ln_pre": True}, {}),
        ({"attentional_pool": True, "attn_pooler_queries": 4}, {}),
        ({"ls_init_value": 0.5}, {}),
        ({"qk_norm": True}, {}),
        ({}, {"no_causal_mask": True}),
        ({}, {"pool_type": "last"}),
        ({}, {"pool_type": "eos", "eos_id": 2}),
        ({}, {"proj_type": "none", "width": 64, "heads": 1}),
        ({}, {"proj_bias": True}),
        ({}, {"embed_cls": True}),
    ],
    ids=str,
)
def test_what_a_clip_of_transformers_has_not_is_refused(
    vision: dict[str, Any], text: dict[str, Any]
) -> None:
    kind = CustomTextCLIP if text.get("embed_cls") else CLIP
    with pytest.raises(ModelError) as refusal:
        converted(model_of(vision, text, kind))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("targets", [["attn"], ["c_fc", "c_proj"]], ids=str)
def test_lora_on_open_clips_layers_is_monitored(targets: list[str]) -> None:
    before = model_of()
    adapted = moved(get_peft_model(model_of(), LoraConfig(r=4, target_modules=targets)))
    pixels = random_pixels(12)
    seen = ds.Monitor(before, pixels, echo=None).observe(adapted, step=1)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (OPENAI_MEAN, OPENAI_STD))
    values = (pixels.float() / 255 - mean) / std
    with torch.no_grad():
        own = [one.encode_image(values) for one in (before, adapted.base_model.model)]
    expected = 1 - float(cosine_similarity(*own).mean())
    assert expected > 1e-4
    assert seen.scalars()["embedding_drift"] == pytest.approx(expected, rel=1e-3)


def test_a_mean_pooled_model_is_read_by_its_patches_and_kept_as_open_clip_keeps_it(
    tmp_path: Path,
) -> None:
    before, after = model_of({"pool_type": "avg"}), moved(model_of({"pool_type": "avg"}))
    pixels = random_pixels(12)
    seen = ds.Monitor(before, pixels, echo=None).observe(after, step=1)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (OPENAI_MEAN, OPENAI_STD))
    values = (pixels.float() / 255 - mean) / std
    with torch.no_grad():
        own = [one.encode_image(values) for one in (before, after)]
        block = after.visual.transformer.resblocks[0]
        tokens = block.ln_1(after.visual._embeds(values))
        _, maps = block.attn(tokens, tokens, tokens, average_attn_weights=False)
    expected = 1 - float(cosine_similarity(*own).mean())
    assert seen.scalars()["embedding_drift"] == pytest.approx(expected, rel=1e-3)
    rows = maps[:, :, 1:, 1:]
    row = (rows / rows.sum(dim=-1, keepdim=True)).mean(dim=2)
    entropy = -(row * row.log()).sum(dim=-1).mean(dim=0)
    reading = ds.read(from_open_clip(converted(after)), pixels)
    assert reading.entropy[0] == pytest.approx(entropy.tolist(), rel=1e-4)
    pretrained, target = from_open_clip(converted(before)), find_target(after)
    reference = make_reference(pretrained, pixels, vocabulary=None)
    keep_model(target, live_model(target, pretrained), reference, tmp_path / "stopped")
    kept = ds.load(tmp_path / "stopped")
    again = open_clip.create_model(f"local-dir:{tmp_path / 'stopped'}").eval()
    with torch.no_grad():
        torch.testing.assert_close(kept.embed_images(pixels), own[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again.encode_image(values), own[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again.encode_text(inputs()[1]), after.encode_text(inputs()[1]))


def _tower_in_a_classifier(model: Any) -> Any:
    return torch.nn.Sequential(model.visual, torch.nn.Linear(64, 3))


def _without_texts(model: Any) -> Any:
    del model.transformer
    return model


def _compiled_and_normed(model: Any) -> Any:
    torch.nn.utils.parametrizations.weight_norm(model.visual.transformer.resblocks[0].mlp.c_fc)
    model.visual = torch.compile(model.visual)
    return model


def _in_half_precision(model: Any) -> Any:
    open_clip.model.convert_weights_to_lp(model, torch.bfloat16)
    return model


MADE = (_tower_in_a_classifier, _without_texts, _compiled_and_normed, _in_half_precision)


@pytest.mark.parametrize("made", MADE)
def test_what_is_left_of_a_model_in_training_is_monitored(made: Any, tmp_path: Path) -> None:
    before, after, pixels = model_of(), moved(model_of()), random_pixels(12)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (OPENAI_MEAN, OPENAI_STD))
    with torch.no_grad():
        own = [one.encode_image((pixels.float() / 255 - mean) / std) for one in (before, after)]
    monitor = ds.Monitor(before, pixels, echo=None, out=tmp_path, keep_best=True)
    seen = monitor.observe(made(after), step=1, val_accuracy_pct=50.0)
    expected = 1 - float(cosine_similarity(*own).mean())
    # bfloat16 keeps 8 binary digits
    tolerance = {"abs": 0.01} if made is _in_half_precision else {"rel": 1e-3}
    assert seen.scalars()["embedding_drift"] == pytest.approx(expected, **tolerance)
    assert monitor.best_folder is not None
    kept = ds.load(monitor.best_folder)
    if made is not _in_half_precision:
        torch.testing.assert_close(kept.embed_images(pixels), own[1], rtol=1e-4, atol=1e-5)


def test_coca_is_read_by_its_own_forward() -> None:
    from open_clip.coca_model import CoCa

    pooled = {"attentional_pool": True, "attn_pooler_queries": 4, "output_tokens": True}
    texts = {**TEXT, "embed_cls": True, "output_tokens": True}
    sizes = {"text_cfg": texts, "vision_cfg": {**VISION, **pooled}, "multimodal_cfg": TEXT}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = CoCa(embed_dim=64, **sizes).eval()
    after, pixels = moved(copy.deepcopy(before)), random_pixels(12)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (OPENAI_MEAN, OPENAI_STD))
    with torch.no_grad():
        own = [one.encode_image((pixels.float() / 255 - mean) / std) for one in (before, after)]
    seen = ds.Monitor(before, pixels, echo=None).observe(after, step=1).scalars()
    expected = 1 - float(cosine_similarity(*own).mean())
    assert seen["embedding_drift"] == pytest.approx(expected, rel=1e-3)
    assert "delta_entropy_pct" not in seen


def test_images_that_are_no_squares_are_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match="no plain ViT CLIP of square images") as refusal:
        from_target(find_target(model_of({"image_size": [56, 64]})))
    assert "\n" not in str(refusal.value)


def test_lora_that_open_clips_attention_does_not_call_is_refused() -> None:
    lora = LoraConfig(r=4, target_modules=["out_proj"])
    adapted = moved(get_peft_model(model_of(), lora)).base_model.model
    plain, (pixels, _) = model_of(), inputs()
    with torch.no_grad():
        assert torch.equal(adapted.encode_image(pixels), plain.encode_image(pixels))
    with pytest.raises(ModelError, match="an adapter that it does not call"):
        converted(adapted)


@pytest.mark.parametrize("form", ["named file", "folder"])
def test_what_open_clip_saves_embeds_as_open_clip_does(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(model_of())
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    said = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    source = str(tmp_path)
    if form == "named file":
        monkeypatch.setitem(SIZES, "ViT-B-32", ds.sources.open_clip.names.Size(128, 3, 8, 56))
        source = f"open_clip:ViT-B-32:{tmp_path}"
    with pytest.warns(NoteWarning, match="squashed") if form == "folder" else nullcontext():
        loaded = ds.load(source)
    pixels = random_pixels(5)
    with torch.no_grad():
        own = model.encode_image(loaded.normalise(pixels))
    torch.testing.assert_close(loaded.embed_images(pixels), own, rtol=1e-4, atol=1e-5)
    if form == "folder":
        reloaded = open_clip.create_model(f"local-dir:{tmp_path}").eval()
        with torch.no_grad():
            torch.testing.assert_close(reloaded.encode_image(loaded.normalise(pixels)), own)
        assert loaded.mean == (0.5, 0.5, 0.5)
        assert loaded.framing.squashes


def test_every_plain_vit_of_open_clips_list_is_known_by_its_facts() -> None:
    plain = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        if not name.startswith("ViT-") or set(vision) - PLAIN or set(text) - PLAIN_TEXT:
            continue
        plain.append(name)
        size = SIZES[name.removesuffix(QUICK_SUFFIX)]
        assert (size.width, size.num_layers) == (vision["width"], vision["layers"]), name
        assert (size.patch_size, size.image_size) == (vision["patch_size"], vision["image_size"])
        assert vision_head_width(vision["width"]) == vision.get("head_width", 64), name
        assert text["width"] // text["heads"] == USUAL_HEAD_WIDTH, name
        assert (activation_of(name) == "quick_gelu") == config.get("quick_gelu", False), name
    assert len(plain) == 31
