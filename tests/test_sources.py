"""Every form on disk gives the embeddings of the library that wrote it, or is refused well."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from forms_on_disk import FORMS, Form, Place
from huggingface_hub import constants

import driftscope as ds
from driftscope.errors import ModelError, NoteWarning

MEAN, STD = 0.5, 0.25  # of the tiny model's preprocessor


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)


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
            expected = embed((pixels().float() / 255 - MEAN) / STD)
        if not model.has_own_pixels:
            model = ds.VisionLanguageModel(
                model.module, None, model.image_size, base.mean, base.std, model.source
            )
        found = model.embed_images(pixels())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, base.embed_images(pixels()), atol=1e-3)
    assert "".join(capfd.readouterr()) == ""
