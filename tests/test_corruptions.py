from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from random_models import random_pixels

from driftscope.data import Framing
from driftscope.data.corruptions import CORRUPTIONS, corrupt
from driftscope.data.pixels import to_model_size
from driftscope.errors import DataError
from driftscope.transfer import CorruptedTest, corrupted_tests


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return random_pixels(6, size=64)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [28, 56, 224])
def test_every_corruption_changes_images_of_any_size_and_keeps_their_form(
    name: str, size: int
) -> None:
    clean = random_pixels(2, size=size)
    before = clean.clone()
    made = corrupt(clean, name)
    assert (made.shape, made.dtype) == (clean.shape, torch.uint8)
    assert torch.equal(clean, before)
    assert not torch.equal(made, clean)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severe_is_further_from_the_clean_image(name: str, pixels: torch.Tensor) -> None:
    distances = [
        (corrupt(pixels, name, severity).float() - pixels.float()).abs().mean().item()
        for severity in range(1, 6)
    ]
    assert distances[0] > 0
    assert distances[4] > distances[2] > distances[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_every_time_whatever_else_drew_random_numbers(
    name: str, pixels: torch.Tensor
) -> None:
    state = torch.get_rng_state()
    first = corrupt(pixels, name)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(corrupt(pixels, name), first)
    assert torch.equal(corrupt(pixels[:2], name), first[:2])


def test_contrast_keeps_a_share_of_the_distance_to_the_mean() -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[..., 4:] = 200
    made = corrupt(image, "contrast", 1)
    assert made.unique().tolist() == [60, 140]


def test_impulse_noise_sets_its_share_of_values_to_black_or_white() -> None:
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    made = corrupt(grey, "impulse_noise", 5)
    assert made.unique().tolist() == [0, 128, 255]
    assert (made != 128).float().mean().item() == pytest.approx(0.27, abs=0.02)
    assert (made == 255).float().mean().item() == pytest.approx(0.135, abs=0.02)


def test_gaussian_noise_has_its_deviation() -> None:
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    assert corrupt(grey, "gaussian_noise", 1).float().std().item() == pytest.approx(
        0.08 * 255, rel=0.03
    )


def test_blur_and_pixels_keep_a_plain_image_plain() -> None:
    grey = torch.full((1, 3, 56, 56), 90, dtype=torch.uint8)
    for name in ("motion_blur", "pixelate", "contrast"):
        assert corrupt(grey, name).unique().tolist() == [90]


def test_pixelated_images_are_made_of_blocks(pixels: torch.Tensor) -> None:
    made = corrupt(pixels, "pixelate", 5)
    assert made[0, 0, 0].unique_consecutive().numel() <= 16


def test_an_unknown_corruption_or_severity_is_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="did you mean 'spatter'"):
        corrupt(pixels, "splatter")
    for severity in (0, 6):
        with pytest.raises(DataError, match="1 to 5"):
            corrupt(pixels, "contrast", severity)


def write_splits(folder: Path, levels: dict[str, int], names: str = "ab") -> str:
    """A list of splits, each of two images of one level, one a class."""
    lines = ["path,label,split"]
    for split, level in levels.items():
        for name in names:
            Image.new("RGB", (8, 8), (level,) * 3).save(folder / f"{split}-{name}.png")
            lines.append(f"{split}-{name}.png,{name},{split}")
    (folder / "list.csv").write_text("\n".join(lines))
    return str(folder / "list.csv")


def corrupted(
    dataset: str,
    corruptions: list[str],
    class_names: tuple[str, ...] = ("a", "b"),
    framing: int | Framing = 8,
    **options: bool,
) -> Iterator[CorruptedTest]:
    clean = torch.full((2, 3, 8, 8), 20, dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    return corrupted_tests(
        dataset,
        corruptions,
        clean,
        labels,
        class_names=class_names,
        framing=Framing.of(framing),
        **options,
    )


def test_shipped_corrupted_splits_are_preferred_over_made_ones(tmp_path: Path) -> None:
    dataset = write_splits(tmp_path, {"train": 10, "test": 20, "spatter": 30})
    shipped, made = corrupted(dataset, ["spatter", "impulse_noise"])
    assert (shipped.made, shipped.severity) == ("shipped", None)
    assert shipped.pixels[:].unique().tolist() == [30]
    assert shipped.labels.tolist() == [0, 1]
    assert (made.made, made.severity) == ("generated", 3)


def test_shipped_splits_are_read_one_at_a_time_and_only_those_asked_for(tmp_path: Path) -> None:
    dataset = write_splits(tmp_path, {"test": 20, "contrast": 25, "spatter": 30, "pixelate": 35})
    for split in ("spatter", "pixelate"):
        (tmp_path / f"{split}-a.png").write_bytes(b"broken")
    tests = corrupted(dataset, ["contrast", "spatter"])
    assert next(tests).pixels[:].unique().tolist() == [25]
    with pytest.raises(DataError, match=r"spatter-a\.png"):
        next(tests)


@pytest.mark.parametrize("framing", [Framing(8, 4), Framing(8, squashes=True, resample="lanczos")])
def test_shipped_splits_are_framed_as_the_model_reads_its_test_images(
    tmp_path: Path, framing: Framing
) -> None:
    dataset = write_splits(tmp_path, {"test": 20, "contrast": 25})
    ramp = torch.arange(12 * 24 * 3, dtype=torch.uint8).reshape(12, 24, 3)
    for name in "ab":
        Image.fromarray(ramp.numpy()).save(tmp_path / f"contrast-{name}.png")
    (shipped,) = corrupted(dataset, ["contrast"], framing=framing)
    own = to_model_size(Image.fromarray(ramp.numpy()), framing)
    assert torch.equal(shipped.pixels[:], torch.stack([own, own]))
    assert not torch.equal(own, to_model_size(Image.fromarray(ramp.numpy()), 8))


def test_unreadable_images_of_a_shipped_split_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = write_splits(tmp_path, {"test": 20, "contrast": 25})
    (tmp_path / "contrast-a.png").write_bytes(b"broken")
    (shipped,) = corrupted(dataset, ["contrast"], skip_bad_images=True)
    assert shipped.labels.tolist() == [1]
    assert "1 images cannot be read and are left out" in str(shipped.notes)


def test_a_dataset_pinned_to_one_split_ships_no_other(tmp_path: Path) -> None:
    dataset = write_splits(tmp_path, {"test": 20, "contrast": 25})
    (contrast,) = corrupted(f"{dataset}?split=test", ["contrast"])
    assert contrast.made == "generated"


def test_a_shipped_split_of_other_classes_is_refused(tmp_path: Path) -> None:
    dataset = write_splits(tmp_path, {"test": 20, "contrast": 25})
    with pytest.raises(DataError, match=r"the split contrast of .* other classes"):
        next(corrupted(dataset, ["contrast"], class_names=("b", "a")))


def test_no_corruption_asked_for_is_none_made(pixels: torch.Tensor) -> None:
    assert list(corrupted("nowhere", [])) == []
