"""Full-frame aerial textures of ten kinds of land: the pictures of the `terrain` dataset.

Each painter fills the frame with one kind of land, in a random direction, season and light, so
that neither colour nor orientation alone gives the class away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data.rendering import (
    Draws,
    Picture,
    Plane,
    above,
    at_cell,
    blend,
    box_distance,
    by_class,
    colour,
    coverage,
    distance_from_origin,
    lattice_cell,
    pixel_grid,
    pixel_noise,
    random_tint,
    shaded,
    smooth_noise,
    to_uint8,
    turned,
    wave,
)

_GRASS = colour(122, 148, 78), colour(176, 162, 96)
_TREES = colour(44, 82, 44), colour(92, 98, 46)
_SOIL = colour(150, 118, 84), colour(190, 164, 122)
_SAND = colour(196, 178, 138), colour(168, 154, 118)
_WATER = colour(38, 84, 122), colour(72, 104, 102)
_ASPHALT = colour(104, 104, 108), colour(150, 146, 140)
_CONCRETE = colour(150, 148, 144), colour(178, 172, 162)
_ROOF_METAL = colour(214, 216, 218), colour(120, 138, 160)
_ROOF_TILE = colour(158, 74, 54), colour(112, 92, 84)
_HAZE = colour(138, 140, 136)


def _between(tones: tuple[Picture, Picture], share: Plane) -> Picture:
    """A tone between two, the same for a whole image or pixel by pixel."""
    first, second = tones
    return first + (second - first) * share.unsqueeze(1)


def _turned_grid(draws: Draws) -> tuple[Plane, Plane]:
    """Pixel coordinates in a randomly turned and shifted frame."""
    x, y = turned(*pixel_grid(), draws.angle())
    return x + draws.uniform(-1, 1), y + draws.uniform(-1, 1)


def _mottled(
    draws: Draws, tones: tuple[Picture, Picture], x: Plane, y: Plane, strength: float | Plane
) -> Picture:
    """Bare ground: a random tone with coarse and fine blotches."""
    blotches = smooth_noise(draws, x, y, 1.5) * 0.6 + smooth_noise(draws, x, y, 6.0) * 0.4
    return shaded(_between(tones, draws.uniform()), 1 + (blotches - 0.5) * strength)


def _wandering(draws: Draws, y: Plane, cells: float, reach: Plane) -> Plane:
    """A smooth sideways displacement along y."""
    return (smooth_noise(draws, torch.zeros_like(y), y, cells) - 0.5) * reach


def _field_rows(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    period = draws.uniform(0.15, 0.34)
    bend = _wandering(draws, y, 0.7, draws.uniform(0, 0.3))
    ridges = wave((x + bend) / period) * draws.uniform(0.3, 1.0)
    crop = blend(_mottled(draws, _SOIL, x, y, 0.3), _mottled(draws, _GRASS, x, y, 0.3), ridges)
    return shaded(crop, 0.82 + ridges * 0.3)


def _tree_crowns(
    draws: Draws, x: Plane, y: Plane, spacing: Plane, jitter: float | Plane
) -> tuple[Plane, Plane]:
    """Distance to the nearest of the trees on a jittered lattice, in spacings, and its tone."""
    x, y = x / spacing + draws.uniform(0, 64), y / spacing + draws.uniform(0, 64)
    column, row = x.floor(), y.floor()
    left, low = column.long(), row.long()
    within_x, within_y = x - column - 0.5, y - row - 0.5
    nearest = torch.full_like(x, 9.0)
    tone = torch.zeros_like(x)
    for right in (-1, 0, 1):
        for up in (-1, 0, 1):
            cell = lattice_cell(left + right, low + up)
            shift_x, shift_y = at_cell(cell, layer=2) - 0.5, at_cell(cell, layer=3) - 0.5
            distance = distance_from_origin(
                within_x - right - shift_x * jitter, within_y - up - shift_y * jitter
            )
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            tone = torch.where(closer, at_cell(cell, layer=4), tone)
    return nearest, tone


def _forest(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    distance, tone = _tree_crowns(draws, x, y, draws.uniform(0.16, 0.24), jitter=0.9)
    season = draws.uniform(0, 0.8)
    crowns = _between(_TREES, season + tone * 0.3)
    return shaded(crowns, 1.35 - distance * 0.9 + (tone - 0.5) * 0.3)


def _scrub(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    distance, tone = _tree_crowns(draws, x, y, draws.uniform(0.2, 0.36), jitter=1.0)
    radius = (tone - 0.25) * 0.5
    bushes = above(radius - distance, 0.0, 0.12)
    ground = _mottled(draws, _SAND, x, y, 0.35)
    return blend(ground, _between(_TREES, tone), bushes * draws.uniform(0.75, 1.0))


def _band(ground: Picture, filling: Picture, distance: Plane, verge: float) -> Picture:
    """A band of something over the ground, with a darker verge."""
    shore = (1 - distance / verge).clamp(0, 1)
    return blend(shaded(ground, 1 - shore * 0.3), filling, coverage(distance))


def _road(draws: Draws) -> Picture:
    x, y = turned(*pixel_grid(), draws.angle())
    across = (x + draws.uniform(-0.4, 0.4)).abs()
    half_width = draws.uniform(0.08, 0.22)
    ground = _mottled(draws, _GRASS, x, y, 0.4)
    surface = _between(_ASPHALT, draws.uniform()).expand(ground.shape)
    worn = draws.uniform(-0.5, 0.9).clamp(min=0)
    dashes = coverage(across - 0.022) * above(wave(y / 0.36), 0.5, 0.3)
    markings = torch.maximum(dashes, coverage((across - half_width * 0.82).abs() - 0.012))
    surface = blend(surface, torch.ones_like(surface), markings * worn)
    return _band(ground, surface, across - half_width, verge=0.1)


def _roofs(
    draws: Draws,
    x: Plane,
    y: Plane,
    ground: Picture,
    tones: tuple[Picture, Picture],
    spacing: Plane,
    largest: float,
) -> Picture:
    """A building with a ridge and a shadow in most cells of a lattice."""
    x, y = x / spacing + draws.uniform(0, 64), y / spacing + draws.uniform(0, 64)
    column, row = x.floor(), y.floor()
    u, v = x - column - 0.5, y - row - 0.5
    cell = lattice_cell(column, row)
    half_width = largest * (0.65 + 0.35 * at_cell(cell, layer=5))
    half_height = largest * (0.65 + 0.35 * at_cell(cell, layer=6))
    tone = at_cell(cell, layer=7)
    outside = box_distance(u, v, half_width, half_height) * spacing
    shadow = box_distance(u - 0.09, v - 0.09, half_width, half_height) * spacing
    sunny = above(u, 0.0, 0.05) * 0.22
    roof = shaded(_between(tones, above(tone, 0.5, 0.4)), 0.82 + tone * 0.2 + sunny)
    shaded_ground = shaded(ground, 1 - coverage(shadow) * 0.45)
    return blend(shaded_ground, roof, coverage(outside))


def _industry(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    ground = _mottled(draws, _CONCRETE, x, y, 0.25)
    return _roofs(draws, x, y, ground, _ROOF_METAL, draws.uniform(0.6, 1.1), largest=0.4)


def _pasture(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    ground = _mottled(draws, _GRASS, x, y, draws.uniform(0.2, 0.6))
    worn = above(smooth_noise(draws, x, y, 2.2), 0.72, 0.3)
    return blend(ground, _mottled(draws, _SOIL, x, y, 0.2), worn * 0.4)


def _orchard(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    distance, tone = _tree_crowns(draws, x, y, draws.uniform(0.22, 0.34), draws.uniform(0, 0.3))
    ground = _mottled(draws, (_GRASS[1], _SOIL[1]), x, y, 0.3)
    crowns = shaded(_between(_TREES, draws.uniform(0, 0.7)), 1.3 - distance + tone * 0.1)
    return blend(ground, crowns, above(-distance, -0.34, 0.14))


def _housing(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    yards = _mottled(draws, _GRASS, x, y, 0.5)
    spacing = draws.uniform(0.3, 0.5)
    return _roofs(draws, x, y, yards, _ROOF_TILE, spacing, largest=0.34)


def _river(draws: Draws) -> Picture:
    x, y = turned(*pixel_grid(), draws.angle())
    bend = _wandering(draws, y, 1.3, draws.uniform(0.4, 1.3))
    across = (x + bend + draws.uniform(-0.25, 0.25)).abs()
    banks = _mottled(draws, (_GRASS[0], _TREES[1]), x, y, 0.5)
    water = _mottled(draws, _WATER, x, y, 0.15)
    return _band(banks, water, across - draws.uniform(0.1, 0.3), verge=0.1)


def _open_water(draws: Draws) -> Picture:
    x, y = _turned_grid(draws)
    swell = smooth_noise(draws, x, y, 0.8) * 0.5 + smooth_noise(draws, x * 3, y, 4.0) * 0.5
    return shaded(_between(_WATER, draws.uniform()), 0.9 + swell * draws.uniform(0.15, 0.4))


TERRAIN_PAINTERS: dict[str, Callable[[Draws], Picture]] = {
    "field rows": _field_rows,
    "forest": _forest,
    "scrub": _scrub,
    "road": _road,
    "industry": _industry,
    "pasture": _pasture,
    "orchard": _orchard,
    "housing": _housing,
    "river": _river,
    "open water": _open_water,
}


_PAINTERS = tuple(TERRAIN_PAINTERS.values())


def render_terrain(
    draws: Draws, classes: Int64[Tensor, " image"]
) -> UInt8[Tensor, "image 3 height width"]:
    """Land of the given classes (numbered as in `TERRAIN_PAINTERS`), in varied light and haze."""
    light = draws.uniform(0.8, 1.15) * (1 + pixel_noise(draws) * 0.06)
    tint = random_tint(draws, 0.08)
    saturation, contrast = draws.uniform(0.3, 1.0), draws.uniform(0.65, 1.0)
    land = by_class(classes, lambda kind, rows: _PAINTERS[kind](draws.of(rows)))
    red, green, blue = land.unbind(1)
    gray = (red + green + blue) / 3
    hazy = blend(_HAZE, blend(gray.unsqueeze(1), land, saturation), contrast)
    return to_uint8(shaded(hazy * tint, light))
