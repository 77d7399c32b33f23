"""Names in the order of the numbers in them: "epochs 3" before "epochs 12"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def natural_key(text: str) -> tuple[tuple[int, float, str], ...]:
    """By what texts are sorted so that the numbers in them are in the order of numbers.

    >>> sorted(["epochs 12", "epochs 3", "rate 1e-05", "rate 0.0001"], key=natural_key)
    ['epochs 3', 'epochs 12', 'rate 1e-05', 'rate 0.0001']
    """
    parts = enumerate(_NUMBER.split(text))
    return tuple((0, float(one), one) if at % 2 else (1, 0.0, one) for at, one in parts if one)


def natural_groups(
    frame: pd.DataFrame, keys: Sequence[str]
) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """As `groupby`, with what the keys are, in natural order: "epochs 3" before "epochs 12"."""
    return sorted(
        frame.groupby(list(keys), sort=True),
        key=lambda one: [natural_key(str(value)) for value in one[0]],
    )


def by_natural_order(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows by these columns, numbers in texts as numbers; what is unknown comes last."""
    ordered: pd.DataFrame = frame.sort_values(
        list(columns),
        key=lambda column: column.map(
            lambda one: natural_key(one) if isinstance(one, str) else one
        ),
        ignore_index=True,
    )
    return ordered
