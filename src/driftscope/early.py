"""What a comparison would refuse of its places, told before a model is loaded.

Places on this disk are opened, which takes a fraction of a second; no image is decoded. The hub is
not asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from driftscope.data import is_here, open_dataset, open_labelled
from driftscope.data.names import refuse_pool_without_names
from driftscope.sources import refuse_what_is_no_model
from driftscope.suites import suites


def refuse_unfit(
    models: Iterable[str],
    images: Iterable[str],
    labeled: Iterable[str],
    pool: str | None,
    classes: str | None,
) -> None:
    """Opens what a command names.

    Args:
        models: names or places of models.
        images: sets of images that need no labels.
        labeled: sets that are scored on, or suites.
        pool, classes: as `compare` takes them.

    Raises:
        ModelError, DataError, ConfigError: one of them is not what it should be.
    """
    for model in models:
        refuse_what_is_no_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told when they are read
        for name in filter(_is_on_disk, images):
            open_dataset(name, "test")
        for name in filter(_is_on_disk, labeled):
            open_labelled(name, "test")
        if pool is not None and _is_on_disk(pool):
            refuse_pool_without_names(open_dataset(pool, "test").class_names, classes)


def _is_on_disk(name: str) -> bool:
    return name not in suites() and is_here(name)
