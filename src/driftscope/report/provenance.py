"""Where numbers come from: what all runs share, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope.analysis.words import counted, rate_text


def pool_facts(estimate: Mapping[str, Any] | None) -> dict[str, str]:
    """On what retention was estimated, if it was."""
    if not estimate:
        return {}
    return {
        "pool": f"{estimate['pool']}, {counted(estimate['num_images'], 'image')}",
        "classes of the pool": str(estimate["classes"]),
    }


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as 'outer.inner' → text, in order; lists become comma-separated text."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{name}."))
        else:
            flat[name] = rate_text(value) if key == "learning_rate" else _text(value)
    return flat


_ELSEWHERE = "not in every run"
"""What stands after the values of a setting that some runs do not have."""
_MOST_LISTED = 24
"""Members of a list that are written out."""


def _in_order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _text(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, list | tuple):
        is_option = len(value) == 2 and isinstance(value[0], str) and not isinstance(value[1], str)
        if is_option:
            return f"{value[0]} {_text(value[1])}"
        more = [f"and {len(value) - _MOST_LISTED} more"] if len(value) > _MOST_LISTED else []
        return ", ".join([*map(_text, value[:_MOST_LISTED]), *more]) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def shared_and_varying(
    mappings: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What is equal in all mappings, and for the rest the distinct values, in order.

    A value that holds commas stands in brackets; what a run's method does not have is told last.
    """
    flats = [flattened(mapping) for mapping in mappings]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    shared, varying = {}, {}
    for name in names:
        values = {flat[name] for flat in flats if name in flat}
        is_everywhere = all(name in flat for flat in flats)
        if len(values) == 1 and is_everywhere:
            shared[name] = values.pop()
        else:
            told = [f"[{one}]" if ", " in one else one for one in sorted(values, key=_in_order)]
            varying[name] = told if is_everywhere else [*told, _ELSEWHERE]
    return shared, varying
