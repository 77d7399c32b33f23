"""How fast images reach a model: the first epoch, later epochs, and a PIL-per-item DataLoader.

    python benchmarks/data.py [--images 400] [--size 224] [--source FOLDER]

Without --source, photograph-like JPEGs of 500×375 pixels are made. All three deliver shuffled
uint8 batches of 64 at the model's size, each a copy of its pixels. The number of threads is
torch's (OMP_NUM_THREADS); the DataLoader runs in the process itself and with as many workers as
there are threads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from driftscope.data import EncodedSet, open_dataset
from driftscope.data.pixels import decode, to_model_size

BATCH = 64


class ItemByItem(Dataset[torch.Tensor]):
    """What a training script usually does: open, convert, resize and crop in __getitem__."""

    def __init__(self, images: EncodedSet, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        data = next(self.images.encoded.read([index]))
        return to_model_size(decode(data, str(index)), self.size)


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


def epoch_of(pixels: torch.Tensor) -> Iterable[torch.Tensor]:
    order = torch.randperm(len(pixels))
    return (pixels[batch] for batch in torch.split(order, BATCH))


def images_per_second(batches: Callable[[], Iterable[torch.Tensor]], count: int) -> float:
    started = time.perf_counter()
    delivered = sum(len(batch) for batch in batches())
    assert delivered == count
    return count / (time.perf_counter() - started)


def measure(source: Path, size: int) -> dict[str, float]:
    def opened() -> EncodedSet:
        images = open_dataset(source, "train")
        assert isinstance(images, EncodedSet)
        return images

    count = len(opened())
    first = images_per_second(lambda: epoch_of(opened().pixels(range(count), size)), count)
    started = time.perf_counter()
    mapped = opened().pixels(range(count), size)
    reopened = time.perf_counter() - started
    later = images_per_second(lambda: epoch_of(mapped), count)
    threads = torch.get_num_threads()
    loaders = {
        f"dataloader_{workers}_workers": DataLoader(
            ItemByItem(opened(), size), batch_size=BATCH, shuffle=True, num_workers=workers
        )
        for workers in (0, threads)
    }
    return {
        "first_epoch": first,
        "later_epochs": later,
        "reopening_seconds": reopened,
        **{
            name: images_per_second(lambda loader=loader: loader, count)
            for name, loader in loaders.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DRIFTSCOPE_CACHE"] = str(Path(scratch) / "cache")
        source = options.source or make_photographs(Path(scratch) / "images", options.images)
        found = measure(source, options.size)
    print(
        json.dumps(
            {
                "threads": torch.get_num_threads(),
                "size": options.size,
                **{name: round(value, 3) for name, value in found.items()},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
