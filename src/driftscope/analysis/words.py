"""Numbers and lists as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from driftscope.metric import number_text

RHO_DECIMALS = 3
"""Of correlations, everywhere."""


def rate_text(learning_rate: float) -> str:
    """A learning rate as people write it: 0.0003 is '3e-4'.

    >>> rate_text(0.0003), rate_text(0.00025), rate_text(1.0)
    ('3e-4', '2.5e-4', '1')
    """
    if not math.isfinite(learning_rate) or learning_rate <= 0:
        return "–"
    if 0.01 <= learning_rate < 1000:
        return f"{learning_rate:g}"
    mantissa, exponent = f"{learning_rate:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def share_of_declared(count: int, others: int) -> str:
    """So many of a study's declared runs, where there are so many others.

    >>> share_of_declared(6, 74)
    '6 of 80 declared runs'
    """
    return f"{count} of {count + others} declared runs"


def general_text(value: float) -> str:
    """A number to three significant digits, as tables of mixed quantities show it.

    >>> general_text(0.000145), general_text(-0.97163), general_text(9548.5), general_text(12.0)
    ('1.45e-4', '−0.972', '9,550', '12')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−", value < 0)
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def spread_text(mean: float, sd: float, decimals: int, *, signed: bool = False) -> str:
    """'mean ± sd' (unbreakable), or the mean alone where one run gives no spread.

    >>> spread_text(5.02, 0.03, 1)
    '5.0\\xa0±\\xa0<0.1'
    """
    return with_spread(number_text(mean, decimals, signed=signed), sd_text(sd, decimals))


def sd_text(sd: float, decimals: int) -> str:
    """A standard deviation; one that would be rounded away is not written as certainty.

    >>> sd_text(0.31, 1), sd_text(0.04, 1), sd_text(0.0, 1)
    ('0.3', '<0.1', '0.0')
    """
    least: float = 10**-decimals
    return f"<{least:.{decimals}f}" if 0 < sd < least / 2 else number_text(sd, decimals)


def with_spread(mean: str, sd: str) -> str:
    """The two written numbers as 'mean ± sd', where there are both."""
    return mean if "–" in (mean, sd) else f"{mean}\u00a0±\u00a0{sd}"


def rho_text(rho: float | None) -> str:
    """A correlation, or one's size, as tables and sentences write it."""
    return number_text(rho, RHO_DECIMALS)


def interval_text(low: float | None, high: float | None) -> str:
    """A correlation's interval, '[low, high]', or nothing where there is none.

    >>> interval_text(-0.5, 0.25), interval_text(float("nan"), 1.0)
    ('[−0.500, 0.250]', '')
    """
    ends = [rho_text(end) for end in (low, high)]
    return "" if "–" in ends else f"[{', '.join(ends)}]"


def join_words(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`; names that hold commas are set apart by semicolons.

    >>> join_words(["full_ft", "lora"]), join_words(["full_ft, l2_sp", "full_ft, none", "lora"])
    ('full_ft and lora', 'full_ft, l2_sp; full_ft, none; and lora')
    """
    *first, last = words
    if any(", " in word for word in (*first, last)) and first:
        return f"{'; '.join(first)}; and {last}"
    return f"{', '.join(first)} and {last}" if first else last


MOST_LISTED = 3
"""Names that a sentence lists; the table beside it has all."""


def few_words(words: Iterable[str]) -> str:
    """`join_words` of the first three, and how many more there are.

    >>> few_words("abc"), few_words("abcde")
    ('a, b and c', 'a, b, c and 2 more')
    """
    listed = list(words)
    more = len(listed) - MOST_LISTED
    return join_words([*listed[:MOST_LISTED], f"{more} more"] if more > 0 else listed)


def counted(number: float, noun: str) -> str:
    """The number and its noun.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def of_all(number: int, total: int, noun: str, verb: str = "have") -> str:
    """How many of all, their noun, and the verb in its number.

    >>> of_all(1, 12, "contrast"), of_all(0, 1, "test"), of_all(2, 6, "cell", "are")
    ('1 of 12 contrasts has', '0 of 1 test has', '2 of 6 cells are')
    """
    singular = {"have": "has", "are": "is"}.get(verb, f"{verb}s")
    return f"{number} of {counted(total, noun)} {singular if 1 in (number, total) else verb}"


def sentences(told: Iterable[str]) -> str:
    """A full sentence of each.

    >>> sentences(["on stars 2 are", "on terrain 3 are"])
    'On stars 2 are. On terrain 3 are.'
    """
    return " ".join(f"{capitalised(one)}." for one in told)


def capitalised(words: str) -> str:
    """Words at the start of a sentence; the rest stays, unlike with `str.capitalize`."""
    return words[:1].upper() + words[1:]


def seed_text(row: Mapping[Any, Any]) -> str:
    """'seed 7'; of an imported cell mean 'mean of 5 runs'."""
    seed = row.get("seed")
    if seed is None or seed != seed:
        return f"mean of {row['num_runs']:.0f} runs"
    return f"seed {int(seed)}"


_LONGEST = 30
"""Letters of a series' name in a label."""


def short_series(series: str) -> str:
    """A series' name with as many of its parts as a label has room for, or its beginning.

    >>> short_series("full_ft, l2_sp_0.01, train_images 1700")
    'full_ft, l2_sp_0.01, …'
    """
    parts = series.split(", ")
    fitting = [n for n in range(len(parts), 0, -1) if len(", ".join(parts[:n])) <= _LONGEST]
    if not fitting or (fitting[0] == 1 < len(parts)):
        return f"{series[:_LONGEST]}…"
    return ", ".join(parts[: fitting[0]]) + (", …" if fitting[0] < len(parts) else "")


DOUBTFUL = "Doubtful:"
"""What a sentence begins with that says what makes a number doubtful."""


def doubt_sentences(doubts: Iterable[str] | None) -> list[str]:
    """What makes a number doubtful, a sentence each."""
    return [f"{DOUBTFUL} {doubt}." for doubt in doubts or ()]
