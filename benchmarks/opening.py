"""What opening a dataset costs: listing many files, and reading few images of a large table.

    python benchmarks/opening.py --files 1300000 --megabytes 400

Three figures: listing a folder of 1,000 classes, three images of one parquet file that is one row
group, and leaving unreadable images out of a parquet file (one row group against many).
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from driftscope.data import EncodedSet, open_dataset
from driftscope.data.splits import balanced_subset

NUM_CLASSES = 1000


def main() -> None:
    """Makes the data in a temporary folder, and prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        per_class = options.files // NUM_CLASSES
        _empty_files(root / "classes", per_class)
        count, seconds = _timed(lambda: len(open_dataset(root / "classes", "test")))
        print(f"listing {count:,} files of {NUM_CLASSES:,} classes: {seconds:.1f} s")
        images = _pictures(options.megabytes)
        labels = [index % 10 for index in range(len(images))]
        _write(root / "one.parquet", images, labels, len(images))
        _, seconds = _timed(lambda: _few(root / "one.parquet"))
        print(f"three of {len(images)} images of {options.megabytes} MB in one row group: "
              f"{seconds:.2f} s")  # fmt: skip
        few = images[:300]
        for rows in (len(few), 10):
            _write(root / "bad.parquet", few, labels[: len(few)], rows)
            _, seconds = _timed(lambda: _readable(root / "bad.parquet"))
            print(f"which of {len(few)} images can be read, {rows} in a row group: {seconds:.2f} s")


def _empty_files(root: Path, per_class: int) -> None:
    for number in range(NUM_CLASSES):
        folder = root / f"class{number:04}x"
        folder.mkdir(parents=True)
        for image in range(per_class):
            (folder / f"{image}.jpg").touch()


def _pictures(megabytes: int) -> list[bytes]:
    """Noise, which does not pack: about 200 kB each."""
    random = np.random.default_rng(0)
    images = []
    total = 0
    while total < megabytes * 1_000_000:
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (260, 260, 3), dtype=np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
        total += len(images[-1])
    return images


def _write(file: Path, images: list[bytes], labels: list[int], rows: int) -> None:
    parquet.write_table(pa.table({"image": images, "label": labels}), file, row_group_size=rows)


def _few(file: Path) -> None:
    images = open_dataset(file, "test")
    assert images.labels is not None
    images.pixels(balanced_subset(images.labels, 3), 224)


def _readable(file: Path) -> None:
    images = open_dataset(file, "test")
    assert isinstance(images, EncodedSet)
    images.readable()


def _timed(work: Callable[[], object]) -> tuple[object, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


if __name__ == "__main__":
    main()
