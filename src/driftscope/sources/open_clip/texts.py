"""A tokenizer as open_clip calls it: texts are cleaned first, and padded to its own length."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from driftscope.errors import ModelError, told_as
from driftscope.hugging_face import offline_where_unreachable
from driftscope.sources.hub import load_tokenizer

OPENAI_CLIP = "openai/clip-vit-base-patch32"
"""Whose tokenizer every open_clip model of OpenAI's text tower shares."""
OPENAI_VOCABULARY = 49_408
_USUAL_LENGTH = 77
"""open_clip's, of texts whose configuration says none."""
_CLEANED = ("lower", "canonicalize", "whitespace")
_FOLLOWED = ("clean", "strip_sep_token", "context_length")


def tokenizer_of(
    said: Mapping[str, Any], vocabulary_size: int, folder: Path | None, name: str
) -> Any:
    """The tokenizer of a model by its `text_cfg`; None where it is not at hand.

    Files in the model's own folder come before the hub id that the configuration names. Without
    both it is OpenAI's, of a model of that vocabulary. Texts that open_clip cleans need open_clip:
    there is no tokenizer where it is not installed.

    Raises:
        ModelError: it cannot be read, or the configuration says what is not followed.
    """
    named = said.get("hf_tokenizer_name") or ""
    if not isinstance(named, str):
        raise ModelError(f"{name} says hf_tokenizer_name {named!r}; a name would be right")
    usual = OPENAI_CLIP if vocabulary_size == OPENAI_VOCABULARY else ""
    places = [place for place in (folder and str(folder), named or usual) if place]
    with offline_where_unreachable():
        tokenizers = (load_tokenizer(place, vocabulary_size) for place in places)
        found = next((one for one in tokenizers if one is not None), None)
    is_openais = vocabulary_size == OPENAI_VOCABULARY
    if found is None or (is_openais and _is_as_transformers_calls_it(said)):
        return found
    return _as_called(found, said, name, is_openais=is_openais) if _is_here() else None


def _is_as_transformers_calls_it(said: Mapping[str, Any]) -> bool:
    """Whether a `text_cfg` asks for nothing that transformers' CLIP tokenizer would not do."""
    is_usual = (said.get("tokenizer_kwargs") or {}) in ({}, {"clean": "lower"})
    return is_usual and not said.get("tokenizer_mode")


def _is_here() -> bool:
    """Whether open_clip is installed."""
    return find_spec("open_clip") is not None


def _as_called(found: Any, said: Mapping[str, Any], name: str, *, is_openais: bool) -> Any:
    settings = said.get("tokenizer_kwargs") or {}
    if not isinstance(settings, Mapping):
        raise _not_followed(name, "tokenizer_kwargs", settings)
    clean = settings.get("clean", "lower" if is_openais else "whitespace")
    length = settings.get("context_length") or said.get("context_length", _USUAL_LENGTH)
    unfollowed = {one: value for one, value in settings.items() if one not in _FOLLOWED}
    if mode := said.get("tokenizer_mode"):
        unfollowed["tokenizer_mode"] = mode
    # OpenAI's tokenizer of transformers makes all letters small
    if clean not in _CLEANED or (is_openais and clean == "whitespace"):
        unfollowed["clean"] = clean
    if not isinstance(length, int) or length < 1:
        unfollowed["context_length"] = length
    for setting, value in unfollowed.items():
        raise _not_followed(name, setting, value)
    return OpenClipTokenizer(
        found,
        clean=partial(_cleaned, clean),
        length=length,
        blanks_separators=bool(settings.get("strip_sep_token")),
        pads_by_number=not is_openais,
    )


def _not_followed(name: str, setting: str, value: object) -> ModelError:
    return ModelError(
        f"{name} reads texts with the setting {setting} {value!r}, which driftscope does not "
        f"follow; it follows {', '.join(_FOLLOWED)}"
    )


def _cleaned(way: str, text: str) -> str:
    """A text as open_clip itself cleans it."""
    with told_as(ModelError, "open_clip's tokenizer cannot be imported"):
        cleaning: Any = importlib.import_module("open_clip.tokenizer")
    cleaned: str = cleaning.get_clean_fn(way)(text)
    return cleaned


@dataclass(frozen=True)
class OpenClipTokenizer:
    """transformers' tokenizer behind what open_clip does before it and after.

    Attributes:
        held: it.
        clean: what is done to a text first.
        length: what texts are padded and cut to.
        blanks_separators: whether the token that ends a text becomes 0.
        pads_by_number: whether the text tower knows padding by its number, and is given no mask.
    """

    held: Any
    clean: Callable[[str], str]
    length: int
    blanks_separators: bool
    pads_by_number: bool

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        """Tokens as transformers gives them."""
        cleaned = (
            self.clean(texts) if isinstance(texts, str) else [self.clean(one) for one in texts]
        )
        if "max_length" in options:
            options |= {"max_length": self.length, "padding": "max_length"}
        tokens = self.held(cleaned, **options)
        if self.pads_by_number:
            tokens.pop("attention_mask", None)
        ids = tokens["input_ids"]
        if self.blanks_separators and isinstance(ids, Tensor):
            tokens["input_ids"] = ids.masked_fill(ids == self.held.sep_token_id, 0)
        return tokens

    def __len__(self) -> int:
        return len(self.held)

    def __getattr__(self, name: str) -> Any:
        if name == "held" or name.startswith("__"):  # asked while a copy is made
            raise AttributeError(name)
        return getattr(self.held, name)
