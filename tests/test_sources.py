"""Every form on disk gives the embeddings of the library that wrote it, or is refused well."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from forms_on_disk import FORMS, TOWER, Form, Place, at_another_size, embed_by, moved
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

import driftscope as ds
from driftscope.comparison import compare
from driftscope.errors import ModelError, NoteWarning
from driftscope.report.html import write_compare_report

MEAN, STD = 0.5, 0.25  # of the tiny model's preprocessor


def pixels(size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def base(tiny_clip: Path) -> ds.VisionLanguageModel:
    return ds.load(tiny_clip)


@pytest.fixture
def place(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "form").mkdir()
    return Place(tmp_path / "form", tiny_clip, cache)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_read_as_its_library_does_or_refused_in_one_sentence(
    form: Form, place: Place, base: ds.VisionLanguageModel, capfd: pytest.CaptureFixture[str]
) -> None:
    source, embed = form.make(place)
    capfd.readouterr()
    if form.refused:
        with pytest.raises(ModelError, match=form.refused) as refusal:
            ds.load(source, like=base)
        assert "\n" not in str(refusal.value)
        assert "weights_only" not in str(refusal.value)
    else:
        assert embed is not None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", NoteWarning)
            model = ds.load(source, like=base)
        with torch.no_grad():
            expected = embed((pixels(model.image_size).float() / 255 - MEAN) / STD)
        if not model.has_own_pixels:
            model = ds.VisionLanguageModel(
                model.module, None, model.image_size, base.mean, base.std, model.source
            )
        found = model.embed_images(pixels(model.image_size))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, base.embed_images(pixels()), atol=1e-3)
    assert "".join(capfd.readouterr()) == ""


def test_a_model_of_another_image_size_is_compared_where_that_means_something(
    place: Place, coloured_images: Path
) -> None:
    source, embed = at_another_size(place)
    assert embed is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoteWarning)
        found = compare(place.base, source, coloured_images / "test", transfer=coloured_images)
    photos = ds.open_dataset(coloured_images / "test")
    small, large = (photos.pixels(range(len(photos)), size) for size in (32, 64))
    with torch.no_grad():
        before = embed_by(place.pretrained())((small.float() / 255 - MEAN) / STD)
        after = embed((large.float() / 255 - MEAN) / STD)
    expected = 1 - torch.nn.functional.cosine_similarity(before, after).mean()
    assert found.drift.embedding_drift == pytest.approx(float(expected), abs=1e-5)
    assert found.drift.cka is not None
    assert found.drift.delta_entropy_pct is None
    assert "16 and 64 patches" in found.unmeasured["delta_entropy_pct"]
    assert any("32 pixels" in note and "of 64" in note for note in found.notes)
    score = found.transfer[str(coloured_images)]["adapted"]
    assert score["num_images"] == 24
    page = write_compare_report(found.to_dict(), found.overlay, place.folder / "report.html")
    assert "Head by head" not in page.read_text()


@pytest.mark.parametrize("pair", ["twins", "itself", "merge", "merge first"])
def test_adapters_of_one_base_are_compared(
    pair: str, place: Place, coloured_images: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "merged")]
    for seed, folder in enumerate(folders[:2], start=1):
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=TOWER)
        trained = moved(get_peft_model(place.pretrained(), lora), seed=seed)
        trained.save_pretrained(folder)
        if seed == 1:
            first = trained
    expected = 0.0
    if pair == "twins":
        photos = ds.open_dataset(coloured_images / "test")
        values = (photos.pixels(range(len(photos)), 32).float() / 255 - MEAN) / STD
        with torch.no_grad():
            own = [embed_by(one)(values) for one in (first, trained)]
        expected = 1 - float(torch.nn.functional.cosine_similarity(*own).mean())
        assert expected > 1e-3
    first.merge_and_unload().save_pretrained(folders[2])
    for file in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place.base / file, folders[2])
    a, b, merged = folders
    pairs = {"twins": (a, b), "itself": (a, a), "merge": (a, merged), "merge first": (merged, a)}
    found = compare(*pairs[pair], coloured_images / "test")
    assert found.drift.embedding_drift == pytest.approx(expected, abs=1e-5)


def test_what_a_source_lacks_and_where_it_comes_from_is_told(place: Place) -> None:
    made = {form.name: form.make for form in FORMS}
    for name, told in (
        ("CLIPVisionModel", "no image projection and no text tower"),
        ("adapter without a named base", "names no base"),
        ("classifier's state dict around the tower", "no text tower"),
        ("weights and their moving average", "not model_ema"),
        ("open_clip's epoch file, no name", "activation"),
    ):
        folder = place.folder / str(len(list(place.folder.iterdir())))
        folder.mkdir()
        source, _ = made[name](Place(folder, place.base, place.cache))
        with pytest.warns(NoteWarning, match=told):
            ds.load(source, like=ds.load(place.base))


@pytest.mark.parametrize("form", ["state dict alone, .pt", "CLIPForImageClassification"])
def test_what_needs_another_model_says_how_to_give_it(form: str, place: Place) -> None:
    source, _ = next(one for one in FORMS if one.name == form).make(place)
    with pytest.raises(ModelError, match=r"second model.*like=MODEL"):
        ds.load(source)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_encoder_without_texts_lends_its_configuration_too(prefix: str, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=64, image_size=32, patch_size=8, num_labels=3)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "before")
    tuned = ViTForImageClassification(config).eval()
    state = {prefix + name: one for name, one in tuned.state_dict().items()}
    torch.save({"model": state}, tmp_path / "x.pt")
    before = ds.load(tmp_path / "before")
    with pytest.warns(NoteWarning, match=r"classifier\.bias of .* is not used \(2 such"):
        model = ds.load(tmp_path / "x.pt", like=before)
    with torch.no_grad():
        expected = tuned.vit(before.normalise(pixels())).last_hidden_state[:, 0]
    torch.testing.assert_close(model.embed_images(pixels()), expected, rtol=1e-4, atol=1e-5)
    torch.save(
        {
            name: one
            for name, one in state.items()
            if "layers.1" not in name and "layer.1" not in name
        },
        tmp_path / "half.pt",
    )
    with pytest.raises(ModelError, match="not complete"):
        ds.load(tmp_path / "half.pt", like=before)
