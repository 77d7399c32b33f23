"""What `analysis` answered, made readable: its sentence, its picture, its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftscope.analysis import Answer
from driftscope.analysis.answer_tables import TITLES, answer_tables, basis, left_out
from driftscope.analysis.selection import FRONTIER
from driftscope.analysis.table import Table
from driftscope.report.page import Picture, panel_pictures
from driftscope.report.style import SeriesStyle


@dataclass(frozen=True)
class Finding:
    """One question on a page; `comes_first` where its pictures stand before all others."""

    title: str
    comes_first: bool
    is_answered: bool
    sentence: str
    rests_on: str
    remarks: list[str]
    basis: str
    left_out: list[str]
    pictures: list[Picture]
    tables: list[Table]


def findings(
    answers: Sequence[Answer], styles: Mapping[str, SeriesStyle], *, has_stills: bool = True
) -> list[Finding]:
    """The answered questions, in the order given; what the data can't answer comes last, short.

    Args:
        answers: what `analysis` answered.
        styles: how each series is drawn.
        has_stills: whether the page has still pictures beside the interactive ones.
    """
    ordered = sorted(answers, key=lambda answer: not answer.is_answered)
    return [
        Finding(
            title=TITLES.get(answer.question, answer.question),
            comes_first=answer.question == FRONTIER,
            is_answered=answer.is_answered,
            sentence=answer.sentence,
            rests_on=answer.rests_on,
            remarks=list(answer.remarks),
            basis=basis(answer),
            left_out=left_out(answer),
            pictures=[
                one
                for number, chart in enumerate(answer.charts)
                for row in panel_pictures(
                    chart,
                    f"{answer.question}-{number}",
                    styles,
                    legend=True,
                    has_stills=has_stills,
                )
                for one in row
            ],
            tables=answer_tables(answer),
        )
        for answer in ordered
    ]
