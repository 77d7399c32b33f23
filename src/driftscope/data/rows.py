"""Images that stay where they are stored until some of them are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PixelRows:
    """Some images of a stored array, such as one on disk that all processes map and share.

    Indexing by positions, a slice or a number gathers what is asked for; nothing else is read or
    copied. Iterating gives image after image. `is_mirrored` shows them left to right.
    """

    stored: UInt8[Tensor, "stored 3 size size"]
    rows: Int64[Tensor, " image"]
    is_mirrored: bool = False

    @classmethod
    def of(cls, pixels: PixelSource) -> PixelRows:
        """All of some images."""
        if isinstance(pixels, PixelRows):
            return pixels
        return cls(pixels, torch.arange(len(pixels)))

    def __len__(self) -> int:
        """How many images."""
        return len(self.rows)

    def __iter__(self) -> Iterator[UInt8[Tensor, "3 size size"]]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, positions: Tensor | slice | int) -> UInt8[Tensor, "... 3 size size"]:
        """The images at these positions, on the device where they are stored."""
        rows = self.rows[positions]
        if rows.ndim:
            found = self.stored.index_select(0, rows.to(self.stored.device))
        else:
            found = self.stored[int(rows)]
        return found.flip(-1) if self.is_mirrored else found

    @property
    def shape(self) -> tuple[int, ...]:
        """Image, 3, size, size."""
        return (len(self), *self.stored.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Unsigned bytes."""
        return self.stored.dtype

    @property
    def nbytes(self) -> int:
        """What these images take when gathered."""
        return len(self) * self.stored[:1].nbytes

    def select(self, positions: Sequence[int] | Int64[Tensor, " image"]) -> PixelRows:
        """Some of these images, left where they are."""
        return replace(self, rows=self.rows[torch.as_tensor(positions, dtype=torch.int64)])

    def mirrored(self) -> PixelRows:
        """The same images, left to right."""
        return replace(self, is_mirrored=not self.is_mirrored)

    def gathered(self) -> UInt8[Tensor, "image 3 size size"]:
        """All of them as one tensor: the stored array itself where that is what it holds."""
        if not self.is_mirrored and torch.equal(self.rows, torch.arange(len(self.stored))):
            return self.stored
        return self[:]


PixelSource = UInt8[Tensor, "image 3 size size"] | PixelRows
"""Images in memory, or left where they are stored: both are indexed, cut and counted alike."""

GPU_SHARE = 0.5
"""How much of a GPU's free memory pixels may take; the model and its activations need theirs."""


def resident(pixels: PixelRows, device: torch.device) -> PixelRows:
    """The images on the GPU as a whole if they fit, else where they are.

    Resident, an epoch copies nothing from host to device: batches are gathered on the device.
    Images that stay behind are gathered and copied batch by batch by whoever uses them.
    """
    if device.type != "cuda":
        return pixels
    free, _total = torch.cuda.mem_get_info(device)
    if pixels.nbytes > GPU_SHARE * free:
        return pixels
    try:
        return PixelRows.of(pixels.gathered().to(device))
    except torch.OutOfMemoryError:  # another process took the memory since it was counted
        return pixels
