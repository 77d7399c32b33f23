"""The embedded image world: a zero-shot benchmark and two target datasets.

Nothing is downloaded or stored: every image is rendered on demand and depends only on the set
(name, split, seed) and its index. `concepts100` shows what the mini model was pretrained on,
`terrain` plays EuroSAT's part and `stars` Pets'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data.framing import Framing
from driftscope.data.pixels import resized
from driftscope.data.rendering import (
    BACKGROUND_COLOURS,
    FILL_TONES,
    IMAGE_SIZE,
    OBJECT_COLOURS,
    SHAPE_DISTANCES,
    Draws,
    render_objects,
    render_stars,
)
from driftscope.data.terrain import TERRAIN_PAINTERS, render_terrain
from driftscope.errors import DataError, did_you_mean

RENDERER_VERSION = 1
"""Raised whenever any image changes, so that records of other images are told apart."""

COLOURS = tuple(OBJECT_COLOURS)
SHAPES = tuple(SHAPE_DISTANCES)
FILLS = tuple(FILL_TONES)
BACKGROUNDS = tuple(BACKGROUND_COLOURS)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "fill": FILLS,
    "background": BACKGROUNDS,
}
"""The four things that are true of every object image, with their possible values."""

_RENDER_CHUNK = 64

Pixels = UInt8[Tensor, "image 3 height width"]


def stream_number(*parts: object) -> int:
    """A random stream's number from what it is for."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class ProceduralSpec:
    """What a set is, apart from its split and seed."""

    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    paint: Callable[[Draws, Int64[Tensor, " image"]], Pixels]


@dataclass(frozen=True)
class ProceduralSet:
    """A split of a procedural dataset: labels now, images when asked for.

    Made by `load_procedural`. Classes are balanced and in a fixed shuffled order. The image of
    an index does not depend on the batch it is rendered in, its order or the thread count.
    """

    name: str
    split: str
    seed: int = 0
    image_size: int = IMAGE_SIZE

    def __len__(self) -> int:
        return self._spec.sizes[self.split]

    @property
    def _spec(self) -> ProceduralSpec:
        return PROCEDURAL_SETS[self.name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their label numbers."""
        return self._spec.class_names

    @cached_property
    def labels(self) -> Int64[Tensor, " image"]:
        """The class of every image: balanced to within one image, in a shuffled order."""
        order = Draws(stream_number(self.fingerprint, "order"), torch.arange(len(self))).uniform()
        return order.flatten().argsort(stable=True) % len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any image or label may have changed."""
        identity = (RENDERER_VERSION, self.name, self.split, len(self), self.seed)
        return hashlib.sha256("|".join(map(str, identity)).encode()).hexdigest()[:16]

    def render(self, indices: Sequence[int] | Int64[Tensor, " image"]) -> Pixels:
        """Images by index, in the order asked for.

        Raises:
            DataError: if an index is outside the set.
        """
        wanted = torch.as_tensor(indices, dtype=torch.long).reshape(-1)
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise DataError(
                f"Images {int(wanted.min())} to {int(wanted.max())} were asked of "
                f"{self.name}/{self.split}, which holds images 0 to {len(self) - 1}."
            )
        return in_chunks(
            wanted, lambda chunk: self._spec.paint(self.draws(chunk), self.labels[chunk])
        )

    def pixels(
        self, indices: Sequence[int] | Int64[Tensor, " image"], size: int | Framing
    ) -> Pixels:
        """Images by index at a model's input size."""
        return resized(self.render(indices), size)

    def draws(self, indices: Int64[Tensor, " image"]) -> Draws:
        """The random numbers that images are drawn with."""
        return Draws(stream_number(self.fingerprint, "images"), indices)


def in_chunks(
    indices: Int64[Tensor, " image"], paint: Callable[[Int64[Tensor, " row"]], Pixels]
) -> Pixels:
    """Few images at a time, so that intermediate pictures stay in the processor's cache."""
    if not len(indices):
        return torch.empty(0, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    starts = range(0, len(indices), _RENDER_CHUNK)
    return torch.cat([paint(indices[start : start + _RENDER_CHUNK]) for start in starts])


def load_procedural(name: str, split: str, seed: int = 0) -> ProceduralSet:
    """A split of one of `PROCEDURAL_SETS`; other seeds give other images of the same kind.

    Raises:
        DataError: if there is no such set or split.
    """
    if name not in PROCEDURAL_SETS:
        raise DataError(
            f"There is no procedural dataset {name!r}; {did_you_mean(name, PROCEDURAL_SETS)}."
        )
    splits = PROCEDURAL_SETS[name].sizes
    if split not in splits:
        raise DataError(
            f"The dataset {name!r} has no split {split!r}; {did_you_mean(split, splits)}."
        )
    return ProceduralSet(name, split, seed)


# --- the sets ---------------------------------------------------------------------------------


def _paint_concepts(draws: Draws, labels: Int64[Tensor, " image"]) -> Pixels:
    fills, backgrounds = _surroundings(draws)
    colours, shapes = labels // len(SHAPES), labels % len(SHAPES)
    return render_objects(draws, colours, shapes, fills, backgrounds)


def _surroundings(draws: Draws) -> tuple[Int64[Tensor, " image"], Int64[Tensor, " image"]]:
    return draws.integers(len(FILLS)), draws.integers(len(BACKGROUNDS))


def concept_surroundings(concepts: ProceduralSet) -> Int64[Tensor, "image 2"]:
    """Fill and background of every image of a concepts100 set, which its labels leave open."""
    return torch.stack(_surroundings(concepts.draws(torch.arange(len(concepts)))), dim=1)


def _paint_stars(draws: Draws, labels: Int64[Tensor, " image"]) -> Pixels:
    return render_stars(draws, points=3 + labels // 2, stout=labels % 2 == 1)


PROCEDURAL_SETS: dict[str, ProceduralSpec] = {
    "concepts100": ProceduralSpec(
        class_names=tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
        sizes={"test": 5000},
        paint=_paint_concepts,
    ),
    "terrain": ProceduralSpec(
        class_names=tuple(TERRAIN_PAINTERS),
        sizes={"train": 2000, "test": 1000},
        paint=render_terrain,
    ),
    "stars": ProceduralSpec(
        class_names=tuple(
            f"{build} {points}-pointed star"
            for points in ("three", "four", "five", "six", "seven", "eight")
            for build in ("slender", "stout")
        ),
        sizes={"train": 2400, "test": 1200},
        paint=_paint_stars,
    ),
}
