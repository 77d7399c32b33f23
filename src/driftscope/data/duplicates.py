"""Images that the model cannot tell apart, within a side and across sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from driftscope.data.rows import PixelSource

_LISTED = 20


@dataclass(frozen=True)
class Duplicates:
    """Pairs of equal images: positions within one side, or across two.

    `within` maps a side to pairs of positions in it, `across` two sides to pairs of a position
    in the first and one in the second. Of three equal images the first is paired with each
    other one.
    """

    within: dict[str, list[tuple[int, int]]]
    across: dict[tuple[str, str], list[tuple[int, int]]]

    def to_dict(self) -> dict[str, Any]:
        """For the record: counts, and the first pairs by position; empty entries left out."""
        named = {**self.within, **{"/".join(sides): pairs for sides, pairs in self.across.items()}}
        return {
            name: {"num_pairs": len(pairs), "pairs": [list(pair) for pair in pairs[:_LISTED]]}
            for name, pairs in named.items()
            if pairs
        }


def find_duplicates(sides: Mapping[str, PixelSource]) -> Duplicates:
    """Equal images by a hash of their pixels at the size the model sees.

    At that size two files that differ only in encoding, or outside the centre crop, are the same
    image: whatever the model learns of one it knows of the other.
    """
    positions = {name: _positions_by_digest(pixels) for name, pixels in sides.items()}
    return Duplicates(
        within={
            name: [(first, other) for first, *others in of_side.values() for other in others]
            for name, of_side in positions.items()
        },
        across={
            (one, other): [
                (position, there)
                for digest, found in positions[one].items()
                for there in positions[other].get(digest, [])
                for position in found[:1]
            ]
            for one, other in combinations(sides, 2)
        },
    )


def found_among(images: PixelSource, others: Iterable[PixelSource]) -> list[int]:
    """Positions of the images that are also among the others, which may come in any portions."""
    positions = _positions_by_digest(images)
    digests = {digest for portion in others for digest in _positions_by_digest(portion)}
    return sorted(place for digest in positions.keys() & digests for place in positions[digest])


def _positions_by_digest(pixels: PixelSource) -> dict[bytes, list[int]]:
    positions: dict[bytes, list[int]] = defaultdict(list)
    for position, image in enumerate(pixels):
        data = image.cpu().contiguous().numpy().data
        positions[hashlib.blake2b(data, digest_size=16).digest()].append(position)
    return dict(positions)
