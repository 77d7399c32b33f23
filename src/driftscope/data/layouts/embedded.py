"""The embedded world: sets by name, rendered and not stored."""

from __future__ import annotations

from driftscope.data.address import Address
from driftscope.data.layouts.found import Found
from driftscope.data.procedural import PROCEDURAL_SETS, ProceduralSet, load_procedural


def recognise(address: Address) -> Found | None:
    """An embedded set of this name; it has the splits train and test and takes no options."""
    if address.place not in PROCEDURAL_SETS:
        return None
    address.refuse_options("an embedded set")
    splits = dict.fromkeys(PROCEDURAL_SETS[address.place].sizes)
    return Found(address, "embedded set", splits, open_split)


def open_split(found: Found, split: str) -> ProceduralSet:
    """One split."""
    return load_procedural(found.address.place, split)
