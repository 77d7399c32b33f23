"""What can go wrong, in words a user can act on.

Every message is one clear sentence: what failed, the value received, what would be right.
The command line turns these into exit code 2 without a traceback (see `cli/failures.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_PICTURES = 0x2400
"""Unicode's pictures of control characters begin here, in their order."""


def plain(text: str) -> str:
    r"""A text of which no character commands a terminal: control characters become pictures.

    So do marks that turn the direction of what follows. Line breaks and tabs stay.

    >>> plain("\x1b[2Jcat")
    '␛[2Jcat'
    """
    return _CONTROLS.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(_PICTURES + code) if code < 0x20 else "␡" if code == 0x7F else "�"


class DriftscopeError(Exception):
    """Something the user can put right."""

    def __str__(self) -> str:
        return plain(super().__str__())


class ConfigError(DriftscopeError):
    """A spec, an option or a YAML file that does not say what it must."""


class ModelError(DriftscopeError):
    """A model that cannot be loaded, adapted or saved."""


class DataError(DriftscopeError):
    """Images, labels or splits that cannot be used."""


class CaptureError(DriftscopeError):
    """A model whose signals cannot be read honestly."""


class NonFiniteError(CaptureError):
    """A model whose weights or outputs hold NaN or infinities: nothing can be measured on it."""


class RecordError(DriftscopeError):
    """A run folder that cannot be read, claimed or written."""


class BusyError(RecordError):
    """A run folder that another process is writing; it may be free a moment later."""


class PlainWarning(UserWarning):
    """A warning that names what others wrote; it reaches the terminal as `plain` text."""

    def __str__(self) -> str:
        return plain(super().__str__())


class NoteWarning(PlainWarning):
    """What whoever reads a model's numbers should know of how it was loaded."""


_MOST_NAMED = 20


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """The tail of an error sentence: the nearest valid name if there is one, and the others.

    Where one is near, a long list of others is cut.

    >>> did_you_mean("lorra", ["lora", "full_ft"])
    "did you mean 'lora'? (valid: full_ft, lora)"
    """
    choices = sorted(valid)
    nearest = get_close_matches(value, choices, n=1, cutoff=0.5)
    rest = len(choices) - _MOST_NAMED if nearest and len(choices) > _MOST_NAMED + 5 else 0
    more = f" and {rest} more" if rest else ""
    listed = f"valid: {', '.join(choices[:_MOST_NAMED] if rest else choices)}{more}"
    return f"did you mean {nearest[0]!r}? ({listed})" if nearest else listed


_LONGEST_SHOWN = 100


def shown(value: object) -> str:
    """A wrong value as a sentence shows it: as Python writes it, cut at a hundred characters."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number too large to print"
    except RecursionError:
        return "something nested too deeply to print"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


_PYTHONS_WORDS = re.compile(
    r"unsupported operand type|has no attribute|not subscriptable|not iterable|indices must be"
    r"|not supported between instances|(is|got:|Found a) <class '|cannot unpack"
    r"|malformed node|object is not callable|unhashable type"
)

_OF_A_FIELD = re.compile(
    r"Validation error for field '(\w+)'.*?(?:with value (.{1,100}?) doesn't match|"
    r"\(value: (.{1,100}?)\))",
    re.DOTALL,
)
"""What huggingface_hub says of a configuration, with Python's names of all kinds that fit."""


def one_line(error: BaseException) -> str:
    """What a library's error says, on one line of at most 300 characters; else the error's kind.

    What Python says where a library meets a text in the place of a number, or the like, is no
    sentence for whoever has the file. Nor is the number of a system's error, or its file's name,
    which the sentence around it has.
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if of_field := _OF_A_FIELD.search(str(error)):
        field, *given = filter(None, of_field.groups())
        return f"its {field} is {given[0]}, which is of the wrong kind"
    if "integer string conversion" in str(error):
        return "a number in it has thousands of digits"
    if isinstance(error, AssertionError) and not str(error):
        return "it is damaged"
    said = error.args[0] if len(error.args) == 1 else None
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
    told = " ".join(text.split())[:300] or type(error).__name__
    return "a value in it is of the wrong kind" if _PYTHONS_WORDS.search(told) else told


@contextmanager
def told_as(kind: type[DriftscopeError], doing: str) -> Iterator[None]:
    """The one door to libraries that read what others made: whatever they raise is a sentence.

    Such libraries raise errors of every kind for files that are not what they seem, some of them
    in Rust, whose panics are no `Exception`.

    Args:
        kind: the error that the user sees.
        doing: what failed, with the file's name; the library's own words follow it.
    """
    try:
        yield
    except (DriftscopeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except RecursionError:
        raise kind(f"{doing}: it is nested too deeply, or stands on itself") from None
    except MemoryError:
        raise kind(f"{doing}: there is not enough memory for it") from None
    except BaseException as error:
        raise kind(f"{doing}: {one_line(error)}") from None
