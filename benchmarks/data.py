"""How fast images reach a model: the first epoch, later epochs, and a PIL-per-item DataLoader.

    python benchmarks/data.py [--images 400] [--size 224] [--rounds 3] [--source FOLDER]

Without --source, photograph-like JPEGs of 500×375 pixels are made. All deliver shuffled uint8
batches of 64 at the model's size, each a copy of its pixels. The number of threads is torch's
(OMP_NUM_THREADS); the DataLoader runs in the process itself and with as many workers as there are
threads. All variants take turns, and the best of the rounds counts. On a busy machine set
OMP_WAIT_POLICY=PASSIVE, else threads that wait for each other spin, and trust the CPU time, which
hardly depends on the other programs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from driftscope.data import EncodedSet, PixelRows, open_dataset
from driftscope.data.cache import cache_folder
from driftscope.data.encoded import FilesOnDisk

BATCH = 64


class ItemByItem(Dataset[torch.Tensor]):
    """What a training script usually does: open, convert, resize and crop in __getitem__."""

    def __init__(self, files: tuple[Path, ...], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(self.files[index]).convert("RGB")
        scale = self.size / min(image.size)
        width, height = (int(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        square = image.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def make_photographs(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        grain = random.integers(-8, 8, smooth.shape)
        photograph = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        photograph.save(folder / f"{number:05}.jpg", quality=90)
    return folder


def epoch_of(pixels: PixelRows) -> Iterable[torch.Tensor]:
    order = torch.randperm(len(pixels))
    return (pixels[batch] for batch in torch.split(order, BATCH))


def opened(source: Path) -> EncodedSet:
    images = open_dataset(source, "train")
    assert isinstance(images, EncodedSet)
    assert isinstance(images.encoded, FilesOnDisk), "give a folder of images"
    return images


def measured(batches: Callable[[], Iterable[torch.Tensor]], count: int) -> tuple[float, float]:
    """Images a second by the clock; CPU milliseconds an image, of this process and its workers."""
    started, cpu_before = time.perf_counter(), sum(os.times()[:4])
    delivered = sum(len(batch) for batch in batches())
    assert delivered == count
    wall, cpu = time.perf_counter() - started, sum(os.times()[:4]) - cpu_before
    return count / wall, 1000 * cpu / count


def measure(source: Path, size: int, rounds: int) -> dict[str, dict[str, float]]:
    images = opened(source)
    files, count = images.encoded.files, len(images)
    everything = range(count)

    def first_epoch() -> Iterable[torch.Tensor]:
        shutil.rmtree(cache_folder(), ignore_errors=True)
        return epoch_of(opened(source).rows(everything, size))

    def reopened() -> Iterable[torch.Tensor]:
        return epoch_of(opened(source).rows(everything, size))

    kept: list[PixelRows] = []

    def later_epoch() -> Iterable[torch.Tensor]:
        kept[:] = kept or [opened(source).rows(everything, size)]
        return epoch_of(kept[0])

    def loader(workers: int) -> Callable[[], Iterable[torch.Tensor]]:
        items = ItemByItem(files, size)
        return lambda: DataLoader(items, batch_size=BATCH, shuffle=True, num_workers=workers)

    threads = torch.get_num_threads()
    variants: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
        "first_epoch": first_epoch,
        "first_epoch_of_a_later_process": reopened,
        "dataloader_0_workers": loader(0),
        f"dataloader_{threads}_workers": loader(threads),
        "later_epochs": later_epoch,
    }
    found = [{name: measured(one, count) for name, one in variants.items()} for _ in range(rounds)]
    return {
        name: {
            "images_per_second": round(max(one[name][0] for one in found), 1),
            "cpu_ms_per_image": round(min(one[name][1] for one in found), 2),
        }
        for name in variants
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DRIFTSCOPE_CACHE"] = str(Path(scratch) / "cache")
        source = options.source or make_photographs(Path(scratch) / "images", options.images)
        found = measure(source, options.size, options.rounds)
    settings = {"threads": torch.get_num_threads(), "size": options.size}
    print(json.dumps({**settings, **found}, indent=1))


if __name__ == "__main__":
    main()
