"""Attention over images: the same images under the pretrained and one or more adapted models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftscope.records import Overlay
from driftscope.report.style import INK, look

_LUMA = np.array([0.299, 0.587, 0.114])


def attention_figure(overlays: Mapping[str, Overlay], *, num_images: int = 4) -> Figure:
    """A row an image: itself, its pretrained attention, that of each adapted model.

    Maps are those of the last layer, the mean of its heads. All maps of an image share one
    brightness scale, so that they can be compared.

    Args:
        overlays: by what stands above the column; all of the same images.
        num_images: rows at most.
    """
    first = next(iter(overlays.values()))
    count = min(num_images, len(first.images))
    columns = ["image", "pretrained", *overlays]
    with look():
        figure = Figure(
            figsize=(1.5 * len(columns) + 0.1, 1.5 * count + 0.35), layout="constrained"
        )
        grid = figure.subplots(count, len(columns), squeeze=False)
        for index in range(count):
            maps = [_last_layer(first.pretrained, index)]
            maps += [_last_layer(overlay.adapted, index) for overlay in overlays.values()]
            top = max(float(weights.max()) for weights in maps)
            grid[index, 0].imshow(first.images[index])
            for axes, weights in zip(grid[index, 1:], maps, strict=True):
                _show(axes, first.images[index], weights, top)
            for axes in grid[index]:
                axes.set_axis_off()
        for axes, title in zip(grid[0], columns, strict=True):
            axes.set_title(title, loc="center", color=INK, fontsize=8.5)
    return figure


def _last_layer(maps: npt.NDArray[np.floating], index: int) -> npt.NDArray[np.floating]:
    """Maps [image, layer, head, row, column] -> the image's last layer, mean over heads."""
    mean: npt.NDArray[np.floating] = maps[index, -1].mean(axis=0)
    return mean


def _show(
    axes: Axes, image: npt.NDArray[np.uint8], weights: npt.NDArray[np.floating], top: float
) -> None:
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(image @ _LUMA, extent=extent, cmap="gray", vmin=0, vmax=255)
    axes.imshow(
        weights,
        cmap="inferno",
        vmin=0,
        vmax=top,
        alpha=0.9 * (0.45 + 0.55 * weights / top),
        extent=extent,
        interpolation="nearest",
    )
