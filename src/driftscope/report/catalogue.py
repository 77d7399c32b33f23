"""Every table of a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from driftscope.analysis import Answer, StudyTables, grouping
from driftscope.analysis.answer_tables import answer_tables
from driftscope.analysis.table import Table
from driftscope.paper.catalogue import in_hundredths, published_tables
from driftscope.report import tables


@dataclass(frozen=True)
class Catalogue:
    """A study's tables.

    Attributes:
        tables: the cells and layers of each setting, the publication's, the answers', every run.
        missing: one row a table that the study cannot fill: name, why, by which study; may be
            empty.
    """

    tables: list[Table]
    missing: Table


def catalogue(study: StudyTables, answers: Iterable[Answer] = ()) -> Catalogue:
    """Every table of a study, and the list of those it cannot fill."""
    answers = list(answers)
    published, missing = published_tables(study, answers)
    found = [in_hundredths(table) for table in published]
    for setting, runs in grouping.split_settings(study.runs):
        found.append(tables.study_table(grouping.cells_frame(runs), setting))
        layers = grouping.layer_cells_frame(study.layers, runs)
        if len(layers):
            found.append(tables.layers_list(layers, setting))
        classes = grouping.class_cells_frame(study.classes, runs)
        if len(classes):
            found.append(tables.classes_list(classes, setting))
    named = {table.name for table in found}
    for answer in answers:
        found += [
            _in_full(table) if table.name in named else table for table in answer_tables(answer)
        ]
    return Catalogue([*found, tables.runs_list(study.runs)], missing)


def _in_full(table: Table) -> Table:
    """An answer's own table, every column and row of it, beside the one that people read."""
    return replace(table, name=f"{table.name}_in_full", title=f"{table.title} In full")
