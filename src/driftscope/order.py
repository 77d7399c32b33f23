"""Whether two models were given in the wrong order, as their folders or their numbers tell.

An adapter and a run know their base, so that `compare` refuses them the wrong way round. A plain
folder may still say what it was made from. A doubt needs a fact: a right order raises none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from driftscope.analysis.words import join_words
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint
from driftscope.config.source import plain_yaml
from driftscope.errors import ModelError
from driftscope.files import named_path, read_bytes
from driftscope.records import RESCUE_FILE, rescued_from, retention_interval_pct
from driftscope.sources.origin import BASE_KEY, read_json
from driftscope.suites import BROUGHT_MODELS

_TURN = "the pretrained model comes first, so turn them round"
_TRAINED_FROM_SCRATCH = re.compile(r"openai/|open_clip:[^:]+:openai$")
"""Published models into which nobody's model was fine-tuned."""
_CARD = re.compile(r"---\n(.*?)\n---", re.DOTALL)
_CARD_BYTES = 64_000
"""Within so many bytes a card's values end; a parser of YAML needs a minute for some megabytes."""
_CONFIG, _README = "config.json", "README.md"


def order_doubt(
    before: VisionLanguageModel,
    after: VisionLanguageModel,
    images: str,
    own: Mapping[str, Any] | None,
    transfer: Mapping[str, Mapping[str, Any]],
) -> str:
    """Why the first model may be the adapted one; "" where nothing says so.

    Args:
        before, after: the models as they were given, of different weights.
        images: what both were read on.
        own: how well these are told by their own classes (`transfer.own_classes`).
        transfer: of each labeled set what has changed.
    """
    if fact := _told_by_folders(before, after):
        return fact
    if transfer and own and _is_worse(own) and all(map(_is_better, transfer.values())):
        return (
            f"the second model is better than the first on {join_words(list(transfer))} and worse "
            f"on {images}: either the models are in the wrong order (the pretrained one comes "
            "first), or the sets are (--images are of what was trained on)"
        )
    return ""


def refuse_wrong_order(before: VisionLanguageModel, after: VisionLanguageModel) -> None:
    """Raises `ModelError` where the folders say that the first model is the adapted one."""
    if fact := _told_by_folders(before, after):
        raise ModelError(fact)


def _told_by_folders(before: VisionLanguageModel, after: VisionLanguageModel) -> str:
    first, second = before.source, after.source
    if file := _made_from(before, after):
        if not _made_from(after, before):
            return f"{first} says in its {file} that it was made from {second}: {_TURN}"
    elif _is_from_scratch(second) and not _is_from_scratch(first):
        return f"{second} is a pretrained model, made from no other one: {_TURN}"
    return ""


def _made_from(model: VisionLanguageModel, other: VisionLanguageModel) -> str:
    """The file of a model's folder that names the other one as its base; "" for none."""
    bases = list(_bases(named_path(model.source)))
    if not bases:
        return ""
    called = (other.source, encoder_fingerprint(other))  # all of its weights are read for it
    is_other = (file for file, base in bases if base in called or _is_place(base, other.source))
    return next(is_other, "")


def _bases(folder: Path) -> Iterator[tuple[str, str]]:
    """Files of a folder, and what they say that its model was made from."""
    if not folder.is_dir():
        return
    config, rescued = _read(folder / _CONFIG), rescued_from(str(folder))
    named = (
        (_CONFIG, config.get(BASE_KEY)),
        (_CONFIG, config.get("_name_or_path")),
        (RESCUE_FILE, rescued.pretrained if rescued else None),
        *((_README, base) for base in _bases_of_card(folder / _README)),
    )
    for file, base in named:
        if isinstance(base, str) and base and not _is_place(base, str(folder)):
            yield file, base


def _bases_of_card(file: Path) -> list[Any]:
    """The `base_model` of a model card; none where the card cannot be read."""
    try:
        found = _CARD.match(read_bytes(file)[:_CARD_BYTES].decode("utf-8", "replace"))
        values = plain_yaml(found[1]) if found else None
    except (OSError, ValueError):
        return []
    base = values.get("base_model") if isinstance(values, dict) else None
    return base if isinstance(base, list) else [base]


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file) if file.is_file() else {}
    except ModelError:
        return {}


def _is_place(name: str, other: str) -> bool:
    """Whether two names are of one place on disk."""
    try:
        one, two = named_path(name), named_path(other)
        return one.exists() and two.exists() and one.samefile(two)
    except (OSError, ValueError):
        return False


def _is_from_scratch(name: str) -> bool:
    return name in BROUGHT_MODELS or _TRAINED_FROM_SCRATCH.match(name) is not None


def _is_worse(own: Mapping[str, Any]) -> bool:
    """Whether the second model surely tells the images worse."""
    return bool(own["adapted"]["wilson_high_pct"] < own["pretrained"]["wilson_low_pct"])


def _is_better(score: Mapping[str, Any]) -> bool:
    """Whether more than all is surely kept."""
    interval = retention_interval_pct(score)
    return interval is not None and interval[0] > 100
