"""The captioned images that the mini model was pretrained on: an endless stream, in no set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.data.procedural import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    FILLS,
    RENDERER_VERSION,
    SHAPES,
    Pixels,
    in_chunks,
    stream_number,
)
from driftscope.data.rendering import Draws, render_objects

_OPENINGS = ("a photo of ", "a photo of ", "a picture of ", "an image of ", "")
_NO_SHAPE = "shape"


def pretraining_batch(
    seed: int,
    indices: Sequence[int] | Int64[Tensor, " image"],
    allowed: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Pixels, list[str], Int64[Tensor, "image attribute"]]:
    """Captioned object images of an endless stream, none of them in any set.

    Args:
        seed: names the stream.
        indices: which images of the stream; image, caption and attributes are functions of
            (seed, index, allowed).
        allowed: the values that an attribute may take, for batches of hard negatives, where
            all images share a value and the caption must tell them apart by the others.

    Returns:
        Images; a caption each, which mentions some of the attributes ("a photo of a red star",
        "a striped blue ring on a teal background", "a heart"); and the values of all four
        attributes, in the order of `ATTRIBUTES`.
    """
    wanted = torch.as_tensor(indices, dtype=torch.long).reshape(-1)
    draws = Draws(stream_number(RENDERER_VERSION, "pretraining", seed), wanted)
    attributes = torch.stack(
        [_values(draws, name, (allowed or {}).get(name)) for name in ATTRIBUTES], dim=1
    )
    captions = _captions(draws, attributes)
    stream = stream_number(RENDERER_VERSION, "pretraining images", seed)
    by_index = torch.arange(len(wanted))
    pixels = in_chunks(
        by_index,
        lambda rows: render_objects(Draws(stream, wanted[rows]), *attributes[rows].unbind(1)),
    )
    return pixels, captions, attributes


def _values(draws: Draws, attribute: str, allowed: Sequence[int] | None) -> Int64[Tensor, " image"]:
    choices = torch.tensor(allowed or range(len(ATTRIBUTES[attribute])))
    return choices[draws.integers(len(choices))]


def _captions(draws: Draws, attributes: Int64[Tensor, "image attribute"]) -> list[str]:
    openings = draws.integers(len(_OPENINGS)).tolist()
    mentioned = torch.stack(
        [draws.uniform().flatten() < share for share in (0.75, 0.85, 0.5, 0.5)], dim=1
    )
    return [
        _OPENINGS[opening] + describe(values, mention)
        for opening, values, mention in zip(
            openings, attributes.tolist(), mentioned.tolist(), strict=True
        )
    ]


def describe(values: Sequence[int], mention: Sequence[bool] = (True,) * len(ATTRIBUTES)) -> str:
    """A noun phrase for an object image, from its attributes and which of them to mention.

    >>> describe((4, 5, 1, 1))
    'a striped blue ring on a teal background'
    >>> describe((4, 5, 1, 1), mention=(True, False, False, False))
    'a blue shape'
    """
    colour, shape, fill, background = values
    says_colour, says_shape, says_fill, says_background = mention
    words = [FILLS[fill]] if says_fill else []
    words += [COLOURS[colour]] if says_colour else []
    words += [SHAPES[shape] if says_shape else _NO_SHAPE]
    phrase = f"{_article(words[0])} {' '.join(words)}"
    if says_background:
        ground = BACKGROUNDS[background]
        phrase += f" on {_article(ground)} {ground} background"
    return phrase


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
