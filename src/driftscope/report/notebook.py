"""What a notebook shows of a result: a few sentences, a small table, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope.analysis.advice import advice_on_comparison
from driftscope.analysis.zero_shot import forgotten_sentence, score_sentences
from driftscope.report.page import rendered
from driftscope.report.tables import comparison_layers, comparison_table


def comparison_html(comparison: Mapping[str, Any]) -> str:
    """The verdict, what was scored or estimated, the layers, and what to do.

    Args:
        comparison: its JSON values.
    """
    advice = advice_on_comparison(comparison)
    sentences = []
    for name, score in comparison["transfer"].items():
        sentences += [next(iter(score_sentences(name, score)))]
        sentences += [said] if (said := forgotten_sentence(name, score)) else []
    sentences += [
        one["sentence"] for key in ("estimate", "forecast") if (one := comparison.get(key))
    ]
    layers = comparison_table(comparison_layers(comparison))
    return _html(advice.verdict, sentences, layers, advice.steps)


def rescue_html(rescue: Mapping[str, Any]) -> str:
    """What was kept of both models.

    Args:
        rescue: its JSON values.
    """
    first, *others = rescue["sentences"]
    return _html(first, [*others, *rescue["notes"]])


def _html(
    verdict: str, sentences: list[str], table: Any = None, steps: tuple[str, ...] = ()
) -> str:
    return rendered("notebook.html", verdict=verdict, sentences=sentences, table=table, steps=steps)
