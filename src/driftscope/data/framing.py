"""How an image becomes the square that a model reads: resized by which filter, cut or squashed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
    """What an image preprocessor does to an image's shape.

    By itself a number of pixels stands for CLIP's way: the short side is resized to it by the
    bicubic filter, and the centre square is cut out.

    Attributes:
        size: the side of the square that the model reads.
        margin: how many pixels longer the resized side is than the square that is cut from it.
        squashes: whether both sides are resized alike, whatever the image's shape.
        resample: Pillow's name of the filter, such as `bicubic`.
    """

    size: int
    margin: int = 0
    squashes: bool = False
    resample: str = "bicubic"

    @classmethod
    def of(cls, size: int | Framing) -> Framing:
        """A framing as it is; of a size CLIP's."""
        return size if isinstance(size, Framing) else cls(size)

    @property
    def is_usual(self) -> bool:
        """Whether a number of pixels says it all."""
        return self == Framing(self.size)

    @property
    def text(self) -> str:
        """A part of a file name: different framings have different ones."""
        if self.is_usual:
            return f"{self.size}px"
        shape = "squashed" if self.squashes else "cut"
        return f"{self.size}px-of-{self.size + self.margin}-{shape}-{self.resample}"

    @property
    def described(self) -> str:
        """In words, after "images are"."""
        side = self.size + self.margin
        way = f"squashed to {side}×{side}" if self.squashes else f"resized to short side {side}"
        keeps_all = self.squashes and not self.margin
        cut = "" if keeps_all else f", the centre {self.size}×{self.size} cut out"
        return f"{way} by the {self.resample} filter{cut}"

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that an image is resized to, before the square is cut from it."""
        side = self.size + self.margin
        if self.squashes:
            return side, side
        long = side * max(width, height) // min(width, height)
        return (side, long) if width <= height else (long, side)

    def at(self, size: int) -> Framing:
        """The same way to a square of another side."""
        return Framing(size, round(self.margin * size / self.size), self.squashes, self.resample)
