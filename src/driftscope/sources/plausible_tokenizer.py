"""A tokenizer's rules are looked at, and tried on one text, before any text of ours meets them.

A `tokenizer.json` is a small program: rules replace texts, and patterns cut them. Ten rules that
make ten letters of each letter fill any memory, and no one can stop the library that runs them.
"""

from __future__ import annotations

import string
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftscope.errors import ModelError, told_as
from driftscope.hugging_face import quiet_panics
from driftscope.sources.origin import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE = "tokenizer.json"
_RULES = ("normalizer", "pre_tokenizer", "post_processor")
_MOST_GROWTH = 100
"""How many times longer rules may make a text; of known tokenizers none makes it even twice."""
_LONGEST_CHARACTER_MAP = 4_000_000
"""Characters of SentencePiece's map of characters; that of T5 has 300,000."""
_TRIAL = f"a photo of {string.printable}."
_TRIAL_SECONDS = 5


def refuse_growing_rules(folder: Path, name: str) -> None:
    """Raises `ModelError` where a folder's tokenizer would make texts many times longer.

    Args:
        folder: the model's; one without a `tokenizer.json` has no such rules.
        name: how the user knows it.
    """
    try:
        values = read_json(folder / _FILE)
    except ModelError:  # there is none, or the library that reads it next says what is wrong
        return
    growth = 1
    for rule in (one for key in _RULES for one in _rules(values.get(key))):
        for text in (rule.get("content"), rule.get("prepend")):
            growth *= max(1, len(text)) if isinstance(text, str) else 1
        characters = rule.get("precompiled_charsmap")
        if isinstance(characters, str | list) and len(characters) > _LONGEST_CHARACTER_MAP:
            growth = _MOST_GROWTH + 1
        if growth > _MOST_GROWTH:
            raise ModelError(
                f"the tokenizer of {name} cannot be read: the rules in its {_FILE} make a text "
                f"more than {_MOST_GROWTH} times longer, which no tokenizer that is known does"
            )


def refuse_slow_or_endless(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises `ModelError` where a tokenizer fails on a plain text, or takes far too long for it."""
    started = time.monotonic()
    with quiet_panics(), told_as(ModelError, f"the tokenizer of {name} cannot read a text"):
        tokens = tokenizer(_TRIAL, verbose=False)["input_ids"]
    seconds = time.monotonic() - started
    if seconds > _TRIAL_SECONDS or len(tokens) > _MOST_GROWTH * len(_TRIAL):
        raise ModelError(
            f"the tokenizer of {name} cannot be used: it took {seconds:.1f} s and made "
            f"{len(tokens):,} tokens of a text of {len(_TRIAL)} characters"
        )


def _rules(held: Any) -> Iterator[Mapping[str, Any]]:
    """All rules in a part of a tokenizer, those within sequences too."""
    waiting = [held]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
