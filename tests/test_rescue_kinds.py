"""A blend is written as its adapted model was kept, and loads wherever that one did."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forms_on_disk import FORMS, TOWER, Form, Place, adapter_in_the_hub, adapter_on
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import driftscope as ds
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import TEXT, Blend
from driftscope.errors import ModelError
from driftscope.rescuing.kinds import HUB_LAYOUT, Chosen, write_like

READ = [one for one in FORMS if not one.refused and one.name != "state dict at another image size"]


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def base(tiny_clip: Path) -> VisionLanguageModel:
    return ds.load(tiny_clip)


@pytest.fixture
def place(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place.within(tmp_path, tiny_clip, monkeypatch)


def loaded(source: Path | str, base: VisionLanguageModel) -> VisionLanguageModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ds.load(source, like=base)


def written(
    base: VisionLanguageModel, source: Path | str, folder: Path, *, by_depth: bool = False
) -> tuple[str, Blend]:
    """What it was written as, and the blend, which stands at the strengths."""
    blend = Blend(base, loaded(source, base))
    strengths = blend.linear_in_depth(0.7) if by_depth else blend.uniform(0.5)
    folder.mkdir()
    told = write_like(Chosen(base, source, blend, strengths), folder)
    blend.set(strengths)
    return told, blend


def is_the_blend(folder: Path | str, base: VisionLanguageModel, blend: Blend) -> None:
    found = loaded(folder, base).embed_images(pixels())
    torch.testing.assert_close(found, blend.model.embed_images(pixels()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", READ, ids=lambda form: form.name)
def test_every_form_gives_a_model_that_loads_where_the_form_did(
    form: Form, place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = form.make(place)
    told, blend = written(base, source, tmp_path / "out", by_depth=READ.index(form) % 2 == 0)
    is_the_blend(tmp_path / "out", base, blend)
    if "open_clip" in form.name and not form.name.startswith("hf-hub"):
        assert told.endswith("of open_clip")
        assert "visual.proj" in load_file(tmp_path / "out" / "open_clip_model.safetensors")


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModel"])
def test_a_lora_stays_one_with_the_strength_in_its_alpha(
    kind: str, place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = adapter_on(kind, TOWER if kind == "CLIPModel" else ["q_proj", "v_proj"])(place)
    told, _ = written(base, source, tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "adapter_config.json").read_text())
    assert told == "a LoRA scaled as a whole"
    assert config["lora_alpha"] == 0.5 * 8
    told, blend = written(base, source, tmp_path / "depth", by_depth=True)
    config = json.loads((tmp_path / "depth" / "adapter_config.json").read_text())
    assert told == "a LoRA scaled by layer"
    strengths = blend.linear_in_depth(0.7)
    layer = "encoder.layers.1.self_attn.q_proj"
    (found,) = [one for name, one in config["alpha_pattern"].items() if name.endswith(layer)]
    assert found == pytest.approx(8 * strengths["block 2 attention"])
    if kind == "CLIPModel":  # peft itself reads it, without driftscope
        peft = PeftModel.from_pretrained(CLIPModel.from_pretrained(place.base), tmp_path / "depth")
        values = base.normalise(pixels())
        expected = blend.model.embed_images(pixels())
        with torch.no_grad():
            found = peft.get_image_features(pixel_values=values).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def by_row(blend: Blend) -> dict:
    """A strength drawn for every row of what moved in the image tower."""
    generator = torch.Generator().manual_seed(1)
    return {
        group: {n: torch.rand(blend.delta.before[n].shape[:1], generator=generator) for n in names}
        for group, names in blend.delta.groups.items()
        if group != TEXT
    }


@pytest.mark.parametrize("form", READ, ids=lambda form: form.name)
def test_every_form_holds_strengths_of_rows(
    form: Form, place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = form.make(place)
    blend = Blend(base, loaded(source, base))
    strengths = by_row(blend)
    (tmp_path / "out").mkdir()
    write_like(Chosen(base, source, blend, strengths), tmp_path / "out")
    blend.set(strengths)
    is_the_blend(tmp_path / "out", base, blend)


def test_a_lora_with_strengths_of_rows_stays_one_for_peft(
    place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = adapter_on("CLIPModel", TOWER)(place)
    blend = Blend(base, loaded(source, base))
    strengths = by_row(blend)
    (tmp_path / "out").mkdir()
    told = write_like(Chosen(base, source, blend, strengths), tmp_path / "out")
    assert told == "a LoRA scaled by row"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 8
    peft = PeftModel.from_pretrained(CLIPModel.from_pretrained(place.base), tmp_path / "out")
    with torch.no_grad():
        found = peft.get_image_features(pixel_values=base.normalise(pixels())).pooler_output
    expected = blend.set(strengths).embed_images(pixels())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - loaded(source, base).embed_images(pixels())).abs().max() > 1e-3


def as_pickle(tensors: dict, folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")


def in_half(tensors: dict, folder: Path) -> None:
    halves = {name: one.bfloat16() for name, one in tensors.items()}
    save_file(halves, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("kept", [as_pickle, in_half])
def test_a_lora_stays_one_however_its_weights_were_kept(
    kept: Callable[[dict, Path], None], place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = adapter_on("CLIPModel", TOWER)(place)
    kept(load_file(Path(source) / "adapter_model.safetensors"), Path(source))
    blend = Blend(base, loaded(source, base))
    strengths = by_row(blend)
    (tmp_path / "out").mkdir()
    told = write_like(Chosen(base, source, blend, strengths), tmp_path / "out")
    assert told == "a LoRA scaled by row"
    blend.set(strengths)
    is_the_blend(tmp_path / "out", base, blend)


def test_a_lora_of_the_hub_stays_one(
    place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    source, _ = adapter_in_the_hub(place)
    told, blend = written(base, source, tmp_path / "out")
    assert told == "a LoRA scaled as a whole"
    is_the_blend(tmp_path / "out", base, blend)


@pytest.mark.parametrize("more", [{"use_dora": True}, {"bias": "lora_only"}])
def test_an_adapter_that_cannot_hold_strengths_becomes_a_plain_model_and_says_so(
    more: dict, place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=TOWER, **more)
    model = get_peft_model(CLIPModel.from_pretrained(place.base), lora)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.1)
    model.save_pretrained(place.folder)
    told, blend = written(base, place.folder, tmp_path / "out")
    assert told == f"{HUB_LAYOUT}, as its adapter cannot hold these strengths"
    is_the_blend(tmp_path / "out", base, blend)


def test_what_was_trained_whole_beside_a_lora_is_blended_too(
    place: Place, base: VisionLanguageModel, tmp_path: Path
) -> None:
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=TOWER, modules_to_save=["visual_projection"]
    )
    model = get_peft_model(CLIPModel.from_pretrained(place.base), lora)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.05)
    model.save_pretrained(place.folder)
    told, blend = written(base, place.folder, tmp_path / "out")
    assert told.startswith("a LoRA")
    is_the_blend(tmp_path / "out", base, blend)


def test_an_adapter_on_another_base_is_refused(place: Place, other_tiny_clip: Path) -> None:
    source, _ = adapter_on("CLIPModel", TOWER)(place)
    with pytest.raises(ModelError, match="was adapted from another model"):
        ds.rescue(ds.load(other_tiny_clip), source, "terrain", "concepts100")
