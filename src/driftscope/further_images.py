"""Images that are embedded beside the probe set, each image once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.data import PixelRows, PixelSource


@dataclass(frozen=True)
class Further:
    """Images that are embedded beside the probe set, which may hold some of them.

    Attributes:
        rest: those that are not in the probe set, each once.
        places: of every image, its place in the probe set followed by `rest`.
    """

    rest: PixelRows
    places: Int64[Tensor, " image"]

    def embeddings(self, of_probe: Tensor | None, of_rest: Tensor | None) -> Tensor:
        """One row an image, taken from those of the probe set and of the rest."""
        known = [part for part in (of_probe, of_rest) if part is not None]
        return torch.cat(known)[self.places]


def beyond(probe_pixels: Tensor, pixels: PixelSource) -> Further:
    """Which images are not in the probe set; under the published protocol it is part of them."""
    place_of: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(probe_pixels)):
        place_of.setdefault(digest, index)
    rest, places, num_places = [], [], len(probe_pixels)
    for index, digest in enumerate(_digests(pixels)):
        if digest not in place_of:
            place_of[digest] = num_places
            num_places += 1
            rest.append(index)
        places.append(place_of[digest])
    return Further(PixelRows.of(pixels).select(rest), torch.tensor(places))


def _digests(pixels: PixelSource) -> list[bytes]:
    return [
        hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()
        for image in pixels
    ]
