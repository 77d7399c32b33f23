"""How much a drift depends on which images of the probe set are read, and on how many.

Nothing is read anew: a subset's signals come from readings that hold theirs image by image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from driftscope.errors import CaptureError
from driftscope.metrics import drifts
from driftscope.reading import Drift, Reading, drift

SUBSET_SIGNALS = tuple(
    one.key
    for one in drifts("run")
    if (one.reads or one.change_of) and (not one.is_detail or one.key == "cka_debiased")
)
"""The main drifts that a subset's readings tell, and CKA's form that few images don't inflate."""


def standard_subsets(num_images: int, num_parts: int = 5) -> list[list[int]]:
    """Equal interleaved parts of a probe set, then its nested half and all of it.

    The parts tell how much it matters *which* images are read, the sizes *how many*. Parts of fewer
    than 4 images, on which no debiased CKA exists, are left out.
    """
    size = num_images // num_parts
    parts = [list(range(start, size * num_parts, num_parts)) for start in range(num_parts)]
    nested = [list(range(0, num_images, 2)), list(range(num_images))]
    return [subset for subset in [*parts, *nested] if len(subset) >= 4]


def on_subsets(
    reading: Reading, reference: Reading, subsets: Sequence[Sequence[int]]
) -> list[dict[str, float]]:
    """What some of the images alone would have shown, subset by subset, from readings taken once.

    Returns:
        One row a subset: `num_images`, `entropy` (mean, nats) where attention was read, and the
        `SUBSET_SIGNALS`.

    Raises:
        CaptureError: a subset has fewer than 4 images, or the readings lack their tensors.
    """
    rows = []
    for subset in subsets:
        part = reading.subset(subset)
        change = drift(part, reference.subset(subset))
        signals = {name: getattr(change, name) for name in SUBSET_SIGNALS}
        entropy = {"entropy": part.mean("entropy")} if part.num_layers else {}
        rows.append({"num_images": len(subset), **entropy, **signals})
    return rows


def probe_size_sensitivity(
    reading: Reading, reference: Reading, sizes: Sequence[int], *, seed: int = 0
) -> list[Drift]:
    """The drift as smaller probe sets would have measured it, from readings taken once.

    The subsets are nested: each is the start of one random order of the images. Shows at which
    size a signal stops depending on it (biased CKA falls with size, the debiased one does not).

    Args:
        reading, reference: as for `drift`, with their tensors.
        sizes: images in each subset, at least 4 each.
        seed: of the random order.

    Raises:
        CaptureError: a size is below 4 or above the reading's number of images.
    """
    for size in sizes:
        if not 4 <= size <= reading.num_images:
            raise CaptureError(
                f"A probe subset must hold 4 to {reading.num_images} images (as many as were "
                f"read), got {size}."
            )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(reading.num_images, generator=generator).tolist()
    return [drift(reading.subset(order[:n]), reference.subset(order[:n])) for n in sizes]
