"""Where numbers come from: what all runs share, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope.analysis.words import counted


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
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(str(item) for item in value) or "none"
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def shared_and_varying(
    mappings: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What is equal in all mappings, and for the rest the distinct values (missing is '–')."""
    flats = [flattened(mapping) for mapping in mappings]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    shared, varying = {}, {}
    for name in names:
        values = list(dict.fromkeys(flat.get(name, "–") for flat in flats))
        if len(values) == 1:
            shared[name] = values[0]
        else:
            varying[name] = values
    return shared, varying
