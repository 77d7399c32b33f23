"""The publications' tables by name, and those that a study cannot fill, with what would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pandas as pd

from driftscope.analysis import Answer, StudyTables
from driftscope.analysis.table import Column, Table
from driftscope.paper import published_tables as built


@dataclass(frozen=True)
class Entry:
    """A table that every report should have.

    Attributes:
        name: its file's stem, what it shows.
        words: what it shows, for the list of missing ones.
        build: makes it, or says what the study lacks.
        study: the shipped study that fills it, without the model that it is of.
    """

    name: str
    words: str
    build: Callable[[StudyTables, built.Answers], built.Built]
    study: str

    @property
    def mini(self) -> str:
        """The shipped study on the mini model that fills it."""
        return f"mini-{self.study}"

    @property
    def paper(self) -> str:
        """The shipped study on the published model."""
        return self.study if self.study.startswith("followup") else f"paper-{self.study}"


def _of_study(
    build: Callable[[StudyTables], built.Built],
) -> Callable[[StudyTables, built.Answers], built.Built]:
    return lambda study, _answers: build(study)


ENTRIES = (
    Entry("grid_means", "means over the learning-rate grid (paper, table 1)",
          _of_study(built.grid_means_table), "controlled-matrix"),
    Entry("auxiliary_structure", "rollout, patch-to-patch, CKA and subset spread (paper, table 2)",
          _of_study(built.auxiliary_structure_table), "controlled-matrix"),
    Entry("cka_entropy", "CKA against Δ entropy (paper, table 3)",
          built.cka_entropy_table, "controlled-matrix"),
    Entry("backbones", "several backbones (paper, table 4)",
          _of_study(built.backbones_table), "backbones"),
    Entry("regularizers", "regularizers and weight decay (paper, table 5)",
          _of_study(built.regularizers_table), "regularizers"),
    Entry("seed_contrasts", "seeds against seeds (paper, table 6)",
          built.seed_contrasts_table, "multiseed"),
    Entry("corrected_inference", "corrected inference (paper, table 7)",
          built.corrected_inference_table, "lr-sweep"),
    Entry("predictors", "which signal goes with retention (follow-up)",
          built.predictors_table, "followup-leakfree"),
    Entry("selection", "what a signal picks (follow-up)",
          built.selection_table, "followup-leakfree"),
    Entry("frontier", "accuracy against retention (follow-up)",
          built.frontier_table, "followup-leakfree"),
)  # fmt: skip
"""The publication's and the follow-up's; the follow-up's grid with ± sd is the table of cells."""


_OF_PUBLICATION = frozenset(one.name for one in ENTRIES if "(paper, table" in one.words)


def in_hundredths(table: Table) -> Table:
    """A table as the publication prints it, percentages in hundredths; all others as they are."""
    if table.name not in _OF_PUBLICATION:
        return table
    finer = ("mean_first", "mean_second", "entropy_gap_points")
    columns = tuple(
        replace(one, kind="number", decimals=2)
        if one.key in finer or one.heading.endswith(", %")
        else one
        for one in table.columns
    )
    return replace(table, columns=columns)


def published_tables(study: StudyTables, answers: Iterable[Answer]) -> tuple[list[Table], Table]:
    """The publication's and the follow-up's tables of a study, and those that it cannot fill."""
    by_question = {answer.question: answer for answer in answers}
    found: list[Table] = []
    missing: list[dict[str, str]] = []
    for entry in ENTRIES:
        result = entry.build(study, by_question)
        if isinstance(result, Table):
            found.append(result)
        else:
            filler = _filler(entry, study)
            missing.append(
                {"name": entry.name, "words": entry.words, "why": result, "study": filler}
            )
    return found, _missing_table(missing)


def _filler(entry: Entry, study: StudyTables) -> str:
    """The shipped study that has the table's runs, on the model that this study used if it can."""
    models = set(study.runs["model"].dropna()) if "model" in study.runs else set()
    return entry.mini if models <= {"mini", "mini-p14"} else entry.paper


def _missing_table(rows: list[dict[str, str]]) -> Table:
    commands = [f"driftscope study run {row['study']} --out {row['study']}" for row in rows]
    frame = pd.DataFrame(rows, columns=["name", "words", "why", "study"]).assign(command=commands)
    return Table(
        "missing_tables",
        "Tables that this study cannot fill",
        "",
        (
            Column("name", "Table", kind="text"),
            Column("words", "Shows", kind="text"),
            Column("why", "What is missing", kind="text"),
            Column("command", "What would fill it", kind="text"),
        ),
        frame,
    )
