"""Pictures from signed distance functions: the drawing half of the procedural image world.

Everything is vectorised over a batch of images and yet bit-identical whatever the batch: the
random numbers are a hash of (stream, image index, draw), and per-pixel arithmetic uses only
operations that IEEE 754 rounds exactly (+, -, x, /, sqrt, floor, comparisons), never sin or
exp, whose last bit may depend on where in a vector register a pixel happens to lie. Functions
of an angle are evaluated once per image, in double precision.

Coordinates run from -1 to 1 over the picture, x to the right, y up; colours from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

IMAGE_SIZE = 56
PIXEL = 2.0 / IMAGE_SIZE

Plane = Float[Tensor, "image height width"]
"""One number a pixel; per-image scalars have the shape [image, 1, 1] and broadcast to it."""
Picture = Float[Tensor, "image 3 height width"]


class Draws:
    """Uniform random numbers of many images at once, each a pure function of its image's index.

    Successive calls give independent draws. A subset of the images sees the same numbers
    as the whole (`of`), so work can be grouped by class without changing any image.
    """

    def __init__(self, stream: int, indices: Int64[Tensor, " image"], *, first: int = 0) -> None:
        self._stream = stream
        self._indices = indices
        self._next = first

    def __len__(self) -> int:
        return len(self._indices)

    def of(self, rows: Int64[Tensor, " row"]) -> Draws:
        """The draws of some of the images, going on where this one stands."""
        return Draws(self._stream, self._indices[rows], first=self._next)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Plane:
        """One number an image in [low, high), shape [image, 1, 1]."""
        state = _scramble(self._indices ^ _scramble(torch.tensor(self._stream + self._next)))
        self._next += 1
        unit = _shift_right(_scramble(state), 11).double() * 2.0**-53
        return (low + (high - low) * unit).float().view(-1, 1, 1)

    def integers(self, count: int) -> Int64[Tensor, " image"]:
        """One integer an image in [0, count)."""
        return (self.uniform().double() * count).floor().long().view(-1).clamp_(max=count - 1)

    def angle(self, low: float = -math.pi, high: float = math.pi) -> tuple[Plane, Plane]:
        """Cosine and sine of one angle an image, in radians in [low, high)."""
        radians = self.uniform(low, high).double()
        return radians.cos().float(), radians.sin().float()


def _shift_right(values: Int64[Tensor, " image"], bits: int) -> Int64[Tensor, " image"]:
    """The logical (zero-filling) shift that int64 lacks."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _scramble(values: Tensor) -> Tensor:
    """The SplitMix64 output function (Steele et al. 2014), on wrapping int64."""
    values = values + -0x61C8864680B583EB
    values = (values ^ _shift_right(values, 30)) * -0x40A7B892E31B1A47
    values = (values ^ _shift_right(values, 27)) * -0x6B2FB644ECCEEE15
    return values ^ _shift_right(values, 31)


# --- coordinates, noise, colour --------------------------------------------------------------


@cache
def pixel_grid() -> tuple[Plane, Plane]:
    """x and y of the pixel centres, each [1, height, width]."""
    centres = (torch.arange(IMAGE_SIZE) + 0.5) * PIXEL - 1
    return centres.view(1, 1, -1).repeat(1, IMAGE_SIZE, 1), -centres.view(1, -1, 1).repeat(
        1, 1, IMAGE_SIZE
    )


def turned(x: Plane, y: Plane, angle: tuple[Plane, Plane]) -> tuple[Plane, Plane]:
    """Coordinates in a frame turned by an angle given as (cosine, sine)."""
    cosine, sine = angle
    return x * cosine + y * sine, y * cosine - x * sine


_LATTICE = 64


@cache
def _lattice(layer: int) -> Float[Tensor, " cell"]:
    """A fixed wrapping table of uniform numbers, flat [64 x 64]; layers are independent."""
    return Draws(0x5EED + layer, torch.arange(_LATTICE**2)).uniform().flatten()


def lattice_cell(column: Tensor, row: Tensor) -> Int64[Tensor, "image height width"]:
    """The number of a cell of the endless lattice of random numbers, from its whole coordinates."""
    return (row.long() & (_LATTICE - 1)) * _LATTICE + (column.long() & (_LATTICE - 1))


def at_cell(cell: Int64[Tensor, "image height width"], layer: int) -> Plane:
    """The random number of lattice cells, in [0, 1)."""
    return _lattice(layer).take(cell)


def smooth_noise(draws: Draws, x: Plane, y: Plane, cells: float | Plane) -> Plane:
    """Value noise in [0, 1] with about `cells` lattice cells per unit of length."""
    x = x * cells + draws.uniform(0, _LATTICE)
    y = y * cells + draws.uniform(0, _LATTICE)
    column, row = x.floor(), y.floor()
    s, t = _ease(x - column), _ease(y - row)
    left, low = column.long(), row.long()
    corners = [lattice_cell(left + right, low + up) for up in (0, 1) for right in (0, 1)]
    low_left, low_right, high_left, high_right = (at_cell(cell, layer=0) for cell in corners)
    near = low_left * (1 - s) + low_right * s
    return near * (1 - t) + (high_left * (1 - s) + high_right * s) * t


def pixel_noise(draws: Draws) -> Plane:
    """Independent uniform noise in [-1, 1], one number a pixel."""
    x, y = pixel_grid()
    column = ((x + 1) / PIXEL).floor() + draws.integers(_LATTICE).view(-1, 1, 1)
    row = ((y + 1) / PIXEL).floor() + draws.integers(_LATTICE).view(-1, 1, 1)
    return at_cell(lattice_cell(column, row), layer=1) * 2 - 1


def _ease(t: Plane) -> Plane:
    return t * t * (3 - 2 * t)


def wave(phase: Plane) -> Plane:
    """A smooth periodic wave in [0, 1] of period 1, lowest at integers."""
    return _ease(1 - (2 * (phase - phase.floor()) - 1).abs())


def above(value: Plane, level: float | Plane, softness: float) -> Plane:
    """A soft step from 0 to 1 as the value passes the level."""
    return ((value - level) / softness + 0.5).clamp(0, 1)


def coverage(distance: Plane) -> Plane:
    """How much of a pixel lies inside, from the signed distance of its centre (negative inside)."""
    return (0.5 - distance / PIXEL).clamp(0, 1)


def colour(red: float, green: float, blue: float) -> Picture:
    """A colour given in 0..255, as a picture of one pixel."""
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1) / 255


def blend(below: Picture, over: Picture, opacity: Plane) -> Picture:
    """A picture painted over another."""
    opacity = opacity.unsqueeze(1)
    return below * (1 - opacity) + over * opacity


def shaded(picture: Picture, gain: Plane) -> Picture:
    """A picture made lighter (gain > 1) or darker."""
    return picture * gain.unsqueeze(1)


def to_uint8(picture: Picture) -> UInt8[Tensor, "image 3 height width"]:
    """A picture as bytes, rounded to the nearest level."""
    return (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def by_class(
    classes: Int64[Tensor, " image"], paint: Callable[[int, Int64[Tensor, " row"]], Tensor]
) -> Tensor:
    """Each image by what its class calls for: `paint` gets a class and the rows of its images."""
    present = sorted(set(classes.tolist()))
    rows_of = [(classes == kind).nonzero().flatten() for kind in present]
    painted = [paint(kind, rows) for kind, rows in zip(present, rows_of, strict=True)]
    result = painted[0].new_empty((len(classes), *painted[0].shape[1:]))
    for rows, part in zip(rows_of, painted, strict=True):
        result[rows] = part
    return result


# --- shapes: signed distances in a frame where the shape has about radius 1 -------------------


def distance_from_origin(x: Plane, y: Plane) -> Plane:
    """Euclidean length, never negative."""
    return (x * x + y * y).sqrt()


def box_distance(
    x: Plane, y: Plane, half_width: float | Plane, half_height: float | Plane
) -> Plane:
    """Signed distance to a rectangle centred on the origin."""
    outside_x, outside_y = x.abs() - half_width, y.abs() - half_height
    outer = distance_from_origin(outside_x.clamp(min=0), outside_y.clamp(min=0))
    return outer + torch.maximum(outside_x, outside_y).clamp(max=0)


def star_distance(x: Plane, y: Plane, points: int, inner: Plane) -> Plane:
    """A star with its tips on the unit circle and its notches at radius `inner`, one tip up.

    With inner = cos(pi / points) it is the regular polygon. The plane is folded onto the
    sector of the nearest tip, so no arc tangent is needed.
    """
    along = torch.full_like(x, -math.inf)
    for tip in range(points):
        angle = 2 * math.pi * tip / points
        along = torch.maximum(along, x * math.sin(angle) + y * math.cos(angle))
    across = (x * x + y * y - along * along).clamp(min=0).sqrt()
    notch = math.pi / points
    edge_x, edge_y = inner * math.cos(notch) - 1, inner * math.sin(notch)
    return ((along - 1) * edge_y - across * edge_x) / distance_from_origin(edge_x, edge_y)


def _circle(x: Plane, y: Plane) -> Plane:
    return distance_from_origin(x, y) - 0.85


def _square(x: Plane, y: Plane) -> Plane:
    return box_distance(x, y, 0.75, 0.75)


def _triangle(x: Plane, y: Plane) -> Plane:
    return (
        star_distance(x / 1.05, (y + 0.2) / 1.05, 3, torch.tensor(0.5, dtype=torch.float64)) * 1.05
    )


def _star(x: Plane, y: Plane) -> Plane:
    return star_distance(x / 1.05, y / 1.05, 5, torch.tensor(0.42, dtype=torch.float64)) * 1.05


def _heart(x: Plane, y: Plane) -> Plane:
    """After Inigo Quilez's sdHeart, scaled to radius 1."""
    scale = 1.55
    x, y = x.abs() / scale, y / scale + 0.55
    lobe = distance_from_origin(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    slant = (x + y).clamp(min=0) * 0.5
    below = torch.minimum(
        distance_from_origin(x, y - 1), distance_from_origin(x - slant, y - slant)
    )
    side = torch.where(x > y, below, -below)
    return torch.where(x + y > 1, lobe, side) * scale


def _ring(x: Plane, y: Plane) -> Plane:
    return (distance_from_origin(x, y) - 0.67).abs() - 0.23


def _cross(x: Plane, y: Plane) -> Plane:
    return torch.minimum(box_distance(x, y, 0.92, 0.3), box_distance(x, y, 0.3, 0.92))


def _crescent(x: Plane, y: Plane) -> Plane:
    return torch.maximum(
        distance_from_origin(x + 0.1, y) - 0.95, 0.76 - distance_from_origin(x - 0.42, y)
    )


def _arrow(x: Plane, y: Plane) -> Plane:
    shaft = box_distance(x + 0.4, y, 0.5, 0.22)
    head = torch.maximum(-x, (x + y.abs() * 1.35 - 1) / 1.68)
    return torch.minimum(shaft, head)


def _hourglass(x: Plane, y: Plane) -> Plane:
    return torch.maximum((x.abs() - y.abs() * 0.8 - 0.08) / 1.28, y.abs() - 0.88)


SHAPE_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "arrow": _arrow,
    "hourglass": _hourglass,
}


# --- fills: how much of the second tone, in the object's frame ---------------------------------


def _solid(x: Plane, _: Plane) -> Plane:
    return torch.zeros_like(x)


def _striped(_: Plane, y: Plane) -> Plane:
    return above(wave(y / 0.30), 0.5, 0.4)


def _dotted(x: Plane, y: Plane) -> Plane:
    column, row = x / 0.36, y / 0.36
    from_centre = distance_from_origin(column - column.floor() - 0.5, row - row.floor() - 0.5)
    return above(-from_centre, -0.29, 0.2)


def _checkered(x: Plane, y: Plane) -> Plane:
    return above((wave(x / 0.46) - 0.5) * (wave(y / 0.46) - 0.5), 0.0, 0.08)


FILL_TONES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "solid": _solid,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}

OBJECT_COLOURS: dict[str, Picture] = {
    "red": colour(214, 40, 40),
    "orange": colour(247, 136, 20),
    "yellow": colour(252, 218, 48),
    "green": colour(48, 158, 66),
    "blue": colour(38, 92, 222),
    "purple": colour(132, 52, 172),
    "pink": colour(250, 128, 186),
    "brown": colour(122, 70, 34),
    "white": colour(248, 248, 246),
    "black": colour(24, 24, 28),
}
_SECOND_TONES: dict[str, Picture] = {
    name: {
        "yellow": colour(190, 140, 10),
        "white": colour(150, 152, 158),
        "black": colour(128, 128, 136),
    }.get(name, tone * 0.3 + 0.7)
    for name, tone in OBJECT_COLOURS.items()
}
BACKGROUND_COLOURS: dict[str, Picture] = {
    "gray": colour(134, 138, 144),
    "teal": colour(44, 134, 132),
    "beige": colour(218, 198, 162),
    "lavender": colour(186, 176, 222),
    "olive": colour(126, 130, 72),
    "navy": colour(50, 70, 134),
}
_DISTANCES, _TONES = tuple(SHAPE_DISTANCES.values()), tuple(FILL_TONES.values())
_OBJECT_PALETTE = torch.cat(list(OBJECT_COLOURS.values()))
_SECOND_PALETTE = torch.cat(list(_SECOND_TONES.values()))
_BACKGROUND_PALETTE = torch.cat(list(BACKGROUND_COLOURS.values()))


# --- scenes: one object on a background -------------------------------------------------------


def _background(draws: Draws, tone: Picture) -> Picture:
    """A tone with a gradient in a random direction, soft blotches and grain."""
    x, y = pixel_grid()
    slope, _ = turned(x, y, draws.angle())
    blotches = smooth_noise(draws, x, y, 1.6) - 0.5
    gain = 1 + slope * draws.uniform(0.04, 0.16) + blotches * 0.22 + pixel_noise(draws) * 0.03
    return shaded(tone * random_tint(draws, 0.05), gain)


def random_tint(draws: Draws, strength: float) -> Picture:
    """A random gain for each colour channel, within 1 +- strength."""
    channels = [draws.uniform(1 - strength, 1 + strength) for _ in range(3)]
    return torch.stack(channels, dim=1)


def _paint_object(
    draws: Draws, background: Picture, distance: Plane, tone: Picture, light: Plane
) -> Picture:
    """An object with soft shading and a soft shadow round its edge."""
    shadow = (1 - distance / (4 * PIXEL)).clamp(0, 1)
    ground = shaded(background, 1 - shadow * shadow * 0.38)
    lit = shaded(tone, 0.96 + light * 0.1 + pixel_noise(draws) * 0.02)
    return blend(ground, lit, coverage(distance))


def render_objects(
    draws: Draws,
    colours: Int64[Tensor, " image"],
    shapes: Int64[Tensor, " image"],
    fills: Int64[Tensor, " image"],
    backgrounds: Int64[Tensor, " image"],
) -> UInt8[Tensor, "image 3 height width"]:
    """One shape an image, at a random place, in a random size, turned by up to 45 degrees."""
    x, y = pixel_grid()
    size = draws.uniform(0.46, 0.76)
    reach = 0.96 - size
    from_left, from_top = x - draws.uniform(-1, 1) * reach, y - draws.uniform(-1, 1) * reach
    u, v = turned(from_left / size, from_top / size, draws.angle(-math.pi / 4, math.pi / 4))
    scene = _background(draws, _BACKGROUND_PALETTE[backgrounds])
    tint, pattern_scale = random_tint(draws, 0.06), draws.uniform(0.9, 1.2) * 0.6 / size
    phase_u, phase_v = draws.uniform(), draws.uniform()

    distance = by_class(shapes, lambda shape, rows: _DISTANCES[shape](u[rows], v[rows]))
    pattern_u, pattern_v = u / pattern_scale + phase_u, v / pattern_scale + phase_v
    second = by_class(fills, lambda fill, rows: _TONES[fill](pattern_u[rows], pattern_v[rows]))
    tone = blend(_OBJECT_PALETTE[colours] * tint, _SECOND_PALETTE[colours] * tint, second)
    return to_uint8(_paint_object(draws, scene, distance * size, tone, v))


_SLENDER, _STOUT = 0.42, 0.80
"""Notch radius of a star as a share of the regular polygon's, at which a star has no notches."""


def render_stars(
    draws: Draws, points: Int64[Tensor, " image"], stout: Tensor
) -> UInt8[Tensor, "image 3 height width"]:
    """One large star an image, nearly upright, in any of the object colours."""
    x, y = pixel_grid()
    size = draws.uniform(0.76, 0.92)
    reach = 0.96 - size
    from_left, from_top = x - draws.uniform(-1, 1) * reach, y - draws.uniform(-1, 1) * reach
    u, v = turned(from_left / size, from_top / size, draws.angle(-0.1, 0.1))
    share = torch.where(stout.view(-1, 1, 1), _STOUT, _SLENDER) * draws.uniform(0.95, 1.05)
    scene = _background(draws, _BACKGROUND_PALETTE[draws.integers(len(_BACKGROUND_PALETTE))])
    tone = _OBJECT_PALETTE[draws.integers(len(_OBJECT_PALETTE))] * random_tint(draws, 0.15)
    inner = share * (math.pi / points.double()).cos().float().view(-1, 1, 1)
    distance = by_class(
        points, lambda number, rows: star_distance(u[rows], v[rows], number, inner[rows])
    )
    return to_uint8(_paint_object(draws, scene, distance * size, tone, v))
