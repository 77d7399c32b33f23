"""A study read back: its tables, one run's reading, one run's model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from driftscope.analysis import StudyTables
from driftscope.deprecation import renamed
from driftscope.errors import RecordError, did_you_mean
from driftscope.files import csv_text, inner_folder, named_path, write_whole
from driftscope.forks import MANY_RUNS, spread
from driftscope.machine import give_back_memory
from driftscope.records import (
    ADAPTED_FOLDER,
    RUNS_FOLDER,
    RunRecord,
    Tables,
    load_run,
    readable_runs,
    write_json,
)
from driftscope.records.columns import RUN_COLUMNS, TABLES, typed
from driftscope.records.schema import Part, Point, Pretrained
from driftscope.records.tables import TableRows, declared_columns, tables_of
from driftscope.study.folder import Listing, StudyFolder
from driftscope.study.import_command import read_cells

if TYPE_CHECKING:
    from driftscope.backbones.model import VisionLanguageModel
    from driftscope.reading import Reading

Format = Literal["parquet", "csv", "json"]

_TOGETHER = 250
"""Runs whose rows are gathered together."""


class Study:
    """A study's folder as tables: the declared runs that were finished when it was first read.

    >>> study = Study("mini-matrix")  # doctest: +SKIP
    >>> study.runs().groupby(["method", "learning_rate"]).retention_pct.mean()  # doctest: +SKIP

    The columns are documented in `driftscope.records.columns` and docs/tables.md.

    Raises:
        RecordError: the folder holds no study.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = StudyFolder(named_path(folder))
        self.spec = self.folder.study()
        self._damaged: dict[str, str] = {}
        self._changed: set[str] = set()
        self._outlines: list[RunRecord] = []
        self._listing = Listing({}, [], [])

    @cached_property
    def _tables(self) -> Tables:
        self._listing = self.folder.listing()
        folders = self._listing.finished
        pieces = [folders[at : at + _TOGETHER] for at in range(0, len(folders), _TOGETHER)]
        read: list[_Read] = []
        self._outlines.clear()
        for one in spread(_read, pieces, is_worth_it=len(folders) >= MANY_RUNS):
            read.append(one)
            self._outlines += one.outlines
            self._damaged |= one.damaged
            self._changed |= one.changed
        tables = tables_of(one.rows for one in read)
        if len(folders) >= MANY_RUNS:
            give_back_memory()  # of the parts that the tables were joined of: a tenth of all
        return tables

    def outlines(self) -> list[RunRecord]:
        """The finished runs as they were read for the tables, without what lies by class or layer.

        Thousands of them fit into memory, where `records` would not.
        """
        _ = self._tables
        return list(self._outlines)

    def records(self) -> list[RunRecord]:
        """The finished runs with all they hold, read anew; without those of `damaged`."""
        return list(self._readable())

    @cached_property
    def damaged(self) -> dict[str, str]:
        """The finished runs that cannot be read and are in no table: run -> what is wrong."""
        _ = self._tables  # reading tells
        return dict(self._damaged)

    @property
    def changed(self) -> list[str]:
        """The runs whose results were changed after they were written; their numbers are shown."""
        _ = self._tables
        return sorted(self._changed)

    @property
    def undeclared(self) -> list[Path]:
        """The folders of finished runs of an earlier declaration, which are in no table."""
        _ = self._tables
        return list(self._listing.undeclared)

    @cached_property
    def missing(self) -> pd.DataFrame:
        """The declared runs that are in no table: one row a run, with its `state`.

        That is `failed`, `running`, `interrupted` or `waiting`, or `damaged` where it has finished
        and cannot be read. The other columns are what a run declares, as in `runs`; `transfer` is
        its first transfer set.
        """
        damaged = dict.fromkeys(self.damaged, "damaged")
        # what has ended since the tables were read was running then
        ended = {"done": "running"}
        states = self.folder.states(self._listing.unfinished).items()
        found = damaged | {name: ended.get(state, state) for name, state in states}
        rows = [
            {
                "run_id": name,
                **declared_columns(spec),
                "transfer": next(iter(spec.transfer), None),
                "state": found[name],
            }
            for name, spec in self._listing.declared.items()
            if name in found
        ]
        if not rows:
            return pd.DataFrame()
        return typed(
            pd.DataFrame(rows),
            {name: one for name, one in RUN_COLUMNS.items() if name in rows[0]},
        )

    def _readable(self) -> Iterator[RunRecord]:
        for record in readable_runs(self.folder.finished(), self._damaged):
            if record.is_changed:
                self._changed.add(record.folder.name)
            yield record

    def runs(self) -> pd.DataFrame:
        """One row a run; an imported cell mean is a row without a seed, with its `num_runs`."""
        runs = self._tables.runs.copy()
        cells = read_cells(self.folder.root)
        if cells:
            parts = [part for part in (runs, pd.DataFrame(cells)) if not part.empty]
            runs = typed(pd.concat(parts, ignore_index=True), RUN_COLUMNS)
        return runs

    def history(self) -> pd.DataFrame:
        """One row a run and probe."""
        return self._tables.history.copy()

    def heads(self) -> pd.DataFrame:
        """One row a run, layer and head; `tables().layers` has one a run and layer."""
        return self._tables.heads.copy()

    def layers(self) -> pd.DataFrame:
        """The same as `heads`, with a warning: a later version gives one row a run and layer."""
        renamed("Study.layers", "Study.heads (Study.layers will have one row a run and layer)")
        return self.heads()

    def classes(self) -> pd.DataFrame:
        """One row a run and class of the main transfer set; imported runs have none."""
        return self._tables.classes.copy()

    def rescues(self) -> pd.DataFrame:
        """One row a run, way and budget, and of both ends; runs without `post` have none."""
        return self._tables.rescues.copy()

    def damage(self) -> pd.DataFrame:
        """One row a run and group of weights; runs without `post: [where]` have none."""
        return self._tables.damage.copy()

    def tables(self) -> StudyTables:
        """What `driftscope.analysis` asks its questions of; pandas copies what is written into."""
        found = self._tables
        return StudyTables(
            self.runs(),
            found.history.copy(deep=False),
            found.layers.copy(deep=False),
            subsets=found.subsets.copy(deep=False),
            heads=found.heads.copy(deep=False),
            classes=found.classes.copy(deep=False),
            damage=found.damage.copy(deep=False),
            rescues=found.rescues.copy(deep=False),
            missing=self.missing.copy(),
        )

    def reading(
        self, run: str, point: Literal["pretrained", "selected", "last"] = "selected"
    ) -> Reading:
        """A run's reading before adaptation, at the selected epoch, or at the last.

        Raises:
            RecordError: no such run, an imported one, or one that diverged before it had this
                reading.
        """
        from driftscope.reading import Reading

        record = self._record(run)
        if record.origin != "run":
            raise RecordError(
                f"run {run} ({record.origin}) holds no full reading, only means over heads: "
                "see Study.heads()"
            )
        found: Pretrained | Point | None = getattr(record.result, point)
        if found is None:
            raise RecordError(f"run {run} has no {point!r} reading")
        return Reading.from_dict(found.reading.facts())

    def model(self, run: str, device: str = "cpu") -> VisionLanguageModel:
        """A run's adapted model at the selected epoch.

        Raises:
            RecordError: no such run, or its model was not kept.
        """
        from driftscope.sources import load

        record = self._record(run)
        if not (record.folder / ADAPTED_FOLDER).exists():
            raise RecordError(f"run {run} ({record.origin}) has no adapted model in its folder")
        return load(str(record.folder), device=device)

    def export(self, out: Path | str | None, form: Format) -> dict[Path, tuple[int, int]]:
        """Writes every table of `TABLES` to a file; returns each file's rows and columns.

        Args:
            out: the folder; None for `export/` in the study's own.
            form: the files' format.
        """
        out = inner_folder(self.folder.root, "export") if out is None else named_path(out)
        out.mkdir(parents=True, exist_ok=True)
        readers = {**{name: getattr(self, name) for name in TABLES}, "layers": self.heads}
        tables = {name: read() for name, read in readers.items()}
        shapes = {}
        for name, table in tables.items():
            path = out / f"{name}.{form}"
            _WRITERS[form](table, path)
            shapes[path] = (len(table), len(table.columns))
        return shapes

    def _record(self, run: str) -> RunRecord:
        folder = self.folder.root / RUNS_FOLDER / run
        if not folder.is_dir():
            raise RecordError(f"no run {run!r} in {self.folder.root}: {_few(self._names(), run)}")
        return load_run(folder)

    def _names(self) -> list[str]:
        return sorted(path.name for path in (self.folder.root / RUNS_FOLDER).iterdir())


@dataclass
class _Read:
    """What was read of some runs: rows of the tables, outlines, and what is to be told."""

    rows: dict[str, list[pd.DataFrame]]
    outlines: list[RunRecord]
    damaged: dict[str, str]
    changed: set[str]


def _read(folders: Sequence[Path]) -> _Read:
    """Reads runs, one in memory at a time."""
    rows, outlines = TableRows(), []
    damaged: dict[str, str] = {}
    changed: set[str] = set()
    known: dict[str, Part] = {}
    with _without_collections():
        for record in readable_runs(folders, damaged):
            rows.add(record)
            outlines.append(record.outline(known))
            if record.is_changed:
                changed.add(record.folder.name)
    return _Read(rows.frames(), outlines, damaged, changed)


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage is collected in the block: in thousands of records, none of it circular, each
    collection would look at every value that was read so far."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_WRITERS: dict[Format, Callable[[pd.DataFrame, Path], Any]] = {
    "parquet": lambda table, path: write_whole(path, table.to_parquet(index=False)),
    "csv": lambda table, path: write_whole(path, csv_text(table).encode()),
    # not pandas' own writer, which keeps decimals and not digits
    "json": lambda table, path: write_json(path, table.to_dict(orient="records")),
}


def _few(names: Iterable[str], wanted: str) -> str:
    listed = list(names)
    if len(listed) <= 20:
        return did_you_mean(wanted, listed)
    return f"there are {len(listed)} runs; Study.runs() lists their ids"
