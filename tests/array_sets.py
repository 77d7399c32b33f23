"""Small sets in the files of arrays that benchmarks publish: an image is all of one grey level."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat
from small_sets import NAMES, TRUTH

LEVELS = [level for _, level in sorted(TRUTH)]
LABELS = [NAMES.index(label) for label, _ in sorted(TRUTH)]


def pixels(size: int) -> NDArray[np.uint8]:
    """Images [image, row, column, 3] of `TRUTH`."""
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in LEVELS])


def cifar10(root: Path, protocol: int = 2) -> str:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    data = pixels(32).transpose(0, 3, 1, 2).reshape(len(LEVELS), -1)
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        held = {b"data": data, b"labels": LABELS, b"filenames": [b"a.png"] * len(LABELS)}
        (folder / name).write_bytes(pickle.dumps(held, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(NAMES)}, protocol))
    (root / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b")
    return str(root)


def cifar100(root: Path) -> str:
    root.mkdir()
    data = pixels(32).transpose(0, 3, 1, 2).reshape(len(LEVELS), -1)
    coarse = [label // 2 for label in LABELS]
    for name in ("train", "test"):
        held = {"data": data, "fine_labels": LABELS, "coarse_labels": coarse}
        (root / name).write_bytes(pickle.dumps(held, 2))
    names = {"fine_label_names": list(NAMES), "coarse_label_names": ["pet", "bird"]}
    (root / "meta").write_bytes(pickle.dumps(names, 2))
    return str(root)


def cifar10_binary(root: Path) -> str:
    root.mkdir()
    data = pixels(32).transpose(0, 3, 1, 2).reshape(len(LEVELS), -1)
    records = np.column_stack([np.array(LABELS, np.uint8), data]).tobytes()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (root / f"{name}.bin").write_bytes(records)
    (root / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return str(root)


def stl10(root: Path) -> str:
    root.mkdir()
    for split in ("train", "test"):
        stored = pixels(96).transpose(0, 3, 2, 1)
        (root / f"{split}_X.bin").write_bytes(stored.tobytes())
        (root / f"{split}_y.bin").write_bytes(bytes(label + 1 for label in LABELS))
    (root / "class_names.txt").write_text("\n".join(NAMES))
    return str(root)


def mnist(root: Path, dot: str = "-", ending: str = "") -> str:
    root.mkdir(parents=True)
    images = struct.pack(">iiii", 2051, len(LEVELS), 28, 28) + pixels(28)[..., 0].tobytes()
    labels = struct.pack(">ii", 2049, len(LABELS)) + bytes(LABELS)
    for split in ("train", "t10k"):
        for name, data in ((f"images{dot}idx3", images), (f"labels{dot}idx1", labels)):
            packed = gzip.compress(data) if ending else data
            (root / f"{split}-{name}-ubyte{ending}").write_bytes(packed)
    return str(root)


def svhn(root: Path) -> str:
    root.mkdir()
    numbers = np.array([[label or 10] for label in LABELS], np.uint8)
    for split in ("train", "test"):
        savemat(root / f"{split}_32x32.mat", {"X": np.moveaxis(pixels(32), 0, -1), "y": numbers})
    return str(root)


def npz(root: Path, images: str = "{}_images", labels: str = "{}_labels") -> str:
    root.mkdir()
    held = {
        form.format(split): data
        for split in ("train", "test")
        for form, data in ((images, pixels(28)), (labels, np.array(LABELS)[:, None]))
    }
    np.savez(root / "some.npz", **held)
    return str(root / "some.npz")
