"""Image folders: one folder a class, or flat and unlabeled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data.pixels import read_image, to_model_size
from driftscope.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class FolderSet:
    """Image files, in the order of their names; labels are the class folders, sorted."""

    name: str
    split: str
    files: tuple[Path, ...]
    class_names: tuple[str, ...] | None
    labels: Int64[Tensor, "image"] | None

    def __len__(self) -> int:
        """How many images."""
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Hash of every file's bytes, in order, with the class names."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=8)
        for file in self.files:
            digest.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
        return digest.hexdigest()

    def pixels(
        self, indices: Sequence[int] | Tensor, size: int
    ) -> UInt8[Tensor, "image 3 size size"]:
        """These images, decoded, resized and cropped to the model's square."""
        chosen = [self.files[int(index)] for index in indices]
        if not chosen:
            return torch.empty(0, 3, size, size, dtype=torch.uint8)
        return torch.stack([to_model_size(read_image(file), size) for file in chosen])

    def readable(self) -> tuple[FolderSet, list[str]]:
        """The set without the images that cannot be read, and why each was left out."""
        kept, problems = [], []
        for index, file in enumerate(self.files):
            try:
                read_image(file)
                kept.append(index)
            except DataError as error:
                problems.append(str(error))
        labels = self.labels[kept] if self.labels is not None else None
        return replace(
            self, files=tuple(self.files[index] for index in kept), labels=labels
        ), problems


def open_folder(folder: Path, split: str) -> FolderSet:
    """The images under a folder (under its `split` subfolder where it has one).

    Raises:
        DataError: not a folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; give the folder that holds the images")
    root = folder / split if (folder / split).is_dir() else folder
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and _images_in(path))
    flat = _images_in(root)
    if classes and flat:
        raise DataError(
            f"{root} holds both loose images ({flat[0].name}) and folders of images "
            f"({classes[0]}); give a flat folder, or one folder a class"
        )
    if flat:
        return FolderSet(str(folder), split, tuple(flat), None, None)
    if not classes:
        raise DataError(
            f"no images in {root}: looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and in "
            "its folders, one folder a class"
        )
    files = [
        (label, file) for label, name in enumerate(classes) for file in _images_in(root / name)
    ]
    return FolderSet(
        name=str(folder),
        split=split,
        files=tuple(file for _, file in files),
        class_names=tuple(classes),
        labels=torch.tensor([label for label, _ in files]),
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
