"""A folder's preprocessor configuration is followed as transformers follows it, or refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import save_family
from PIL import Image

import driftscope as ds
from driftscope.backbones.relation import check_same_pixels
from driftscope.comparison import compare
from driftscope.data import Framing
from driftscope.data.pixels import resized, to_model_size
from driftscope.errors import ModelError, NoteWarning

SIZE = 32
SQUARE = {"height": SIZE, "width": SIZE}
USUAL = {"size": {"shortest_edge": SIZE}, "crop_size": SQUARE}
SQUASHED = {"do_center_crop": False, "size": SQUARE}
FROM_48 = {"size": {"shortest_edge": 48}, "crop_size": SQUARE}


@pytest.fixture
def other(tiny_clip: Path, tmp_path: Path) -> Path:
    """A second folder of the same weights."""
    return Path(shutil.copytree(tiny_clip, tmp_path / "other"))


def preprocessed(folder: Path, **settings: Any) -> Path:
    """The model folder with another preprocessor configuration."""
    usual = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**usual, **settings}))
    return folder


def photograph(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("size", [(80, 64), (33, 61), (20, 20), (32, 32)], ids=str)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIP", {**USUAL, "do_normalize": False}),
        ("CLIP", {**USUAL, "do_rescale": False}),
        ("CLIP", {**USUAL, "rescale_factor": 1 / 128}),
        ("CLIP", {**USUAL, "image_mean": 0.5, "image_std": 0.25}),
        ("CLIP", {**USUAL, "do_normalize": False, "image_mean": None, "image_std": None}),
        ("CLIP", {**USUAL, "do_normalize": None}),
        ("CLIP", {**USUAL, "do_rescale": 0}),
        ("CLIP", {**SQUASHED, "do_center_crop": None}),
        ("CLIP", SQUASHED),
        ("CLIP", {**USUAL, "resample": 2}),
        ("CLIP", {**USUAL, "resample": 1}),
        ("CLIP", {**USUAL, "resample": 0}),
        ("CLIP", FROM_48),
        ("CLIP", {**FROM_48, "resample": 2, "size": 48, "crop_size": SIZE}),
        ("CLIP", {"size": {"height": 48, "width": 48}, "crop_size": SQUARE, "do_rescale": False}),
        ("Siglip", {"size": SQUARE}),
        ("ViT", {"size": SQUARE}),
        ("DeiT", {"size": {"height": 36, "width": 36}, "crop_size": SQUARE}),
        ("Bit", FROM_48),
    ],
    ids=str,
)
def test_pixels_are_those_of_the_folders_own_preprocessor(
    kind: str, settings: dict[str, Any], size: tuple[int, int], other: Path
) -> None:
    folder = preprocessed(other, image_processor_type=f"{kind}ImageProcessor", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoteWarning)
        model = ds.load(folder)
    processor = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(folder)
    expected = processor(images=[photograph(*size)], return_tensors="pt")["pixel_values"]
    found = model.normalise(to_model_size(photograph(*size), model.framing)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"size": SQUARE}, None], ids=["not named", "no file"])
@pytest.mark.parametrize(("family", "kind"), [("SigLIP", "Siglip"), ("ViT", "ViT")])
def test_where_no_processor_is_named_it_is_the_familys(
    family: str, kind: str, settings: dict[str, Any] | None, tmp_path: Path
) -> None:
    """As AutoImageProcessor takes it; without a file as the class makes them by itself."""
    folder = save_family(family, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    if settings is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoteWarning)
        model = ds.load(folder)
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(size=SQUARE)
    expected = processor(images=[photograph(80, 64)], return_tensors="pt")["pixel_values"]
    found = model.normalise(to_model_size(photograph(80, 64), model.framing)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SQUASHED, "squashed to 32×32"),
        ({**USUAL, "resample": 2}, "bilinear"),
        (FROM_48, "short side 48"),
        ({"size": 224, "crop_size": 224}, "makes images of 224 pixels"),
    ],
)
def test_another_framing_than_clips_is_told(
    settings: dict[str, Any], said: str, other: Path
) -> None:
    with pytest.warns(NoteWarning, match=said):
        ds.load(preprocessed(other, **settings))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"do_resize": False}, "do_resize False"),
        ({"do_resize": None}, "do_resize None"),
        ({"size": {"shortest_edge": 32}, "do_center_crop": False}, "do_center_crop False"),
        ({"size": {"shortest_edge": 32}, "do_center_crop": None}, "do_center_crop None"),
        ({"rescale_factor": None}, "rescale_factor None"),
        ({"image_mean": [float("nan")] * 3}, "image_mean nan"),
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"size": {"height": 32, "width": 64}}, "64"),
        ({"size": 16, "crop_size": 32}, "a crop of 32 pixels from 16"),
        ({"resample": 77}, "resample 77"),
        ({"do_pad": True}, "do_pad"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"image_mean": None}, "image_mean"),
        ({"image_mean": "0.5"}, "image_mean"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": {"r": 1}}, "image_mean"),
        ({"rescale_factor": -1}, "rescale_factor"),
    ],
    ids=str,
)
def test_what_is_not_followed_is_refused_by_name(
    settings: dict[str, Any], named: str, other: Path
) -> None:
    with pytest.raises(ModelError, match=named):
        ds.load(preprocessed(other, **settings))


def test_a_usual_preprocessor_is_not_told_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ds.load("mini").mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_processor_is_one_sentence(file: str, content: str, other: Path) -> None:
    (other / file).write_text(content)
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        ds.load(other)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_a_panorama_is_framed_as_the_whole_of_it_would_be(resample: str) -> None:
    framing = Framing(24, margin=8, resample=resample)
    image = photograph(900, 40)  # more than eight times as long as high
    whole = image.resize(framing.resized(*image.size), Image.Resampling[resample.upper()])
    left, top = (whole.width - 24) // 2, (whole.height - 24) // 2
    expected = np.asarray(whole.crop((left, top, left + 24, top + 24))).astype(int)
    found = to_model_size(image, framing).permute(1, 2, 0).numpy().astype(int)
    assert abs(found - expected).max() <= (0 if resample == "nearest" else 2)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_square_tensors_are_framed_as_images_are(resample: str) -> None:
    framing = Framing(24, margin=8, resample=resample)
    image = photograph(40, 40)
    tensor = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None]
    difference = resized(tensor, framing)[0].int() - to_model_size(image, framing).int()
    assert difference.abs().max() <= 2


def test_a_comparison_reads_the_pixels_that_the_preprocessor_makes(
    other: Path, coloured_images: Path
) -> None:
    folder = preprocessed(other, **SQUASHED, resample=2)
    with pytest.warns(NoteWarning, match="squashed"):
        found = compare(folder, folder, coloured_images / "test")
    with pytest.warns(NoteWarning, match="squashed"):
        model = ds.load(folder)
    photos = ds.open_dataset(coloured_images / "test")
    by_hand = ds.read(model, photos.pixels(range(len(photos)), model.framing))
    assert torch.equal(found.reading_adapted.embeddings, by_hand.embeddings)
    cut = ds.read(model, photos.pixels(range(len(photos)), model.image_size))
    assert not torch.equal(cut.embeddings, by_hand.embeddings)


@pytest.mark.filterwarnings("ignore::driftscope.errors.NoteWarning")
def test_two_framings_of_their_own_are_refused_by_name(tiny_clip: Path, other: Path) -> None:
    cut, squashed = ds.load(tiny_clip), ds.load(preprocessed(other, **SQUASHED))
    with pytest.raises(ModelError, match="squashed to 32×32"):
        check_same_pixels(cut, squashed)


@pytest.mark.filterwarnings("ignore::driftscope.errors.NoteWarning")
def test_an_exported_model_keeps_its_framing(other: Path, tmp_path: Path) -> None:
    from driftscope.adapt import export_merged

    model = ds.load(preprocessed(other, **FROM_48, resample=2))
    export_merged(model, tmp_path / "exported")
    assert ds.load(tmp_path / "exported").framing == model.framing
