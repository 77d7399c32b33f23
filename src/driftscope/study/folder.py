"""The study folder: the declaration it was made for, its runs, and what is known of each.

Nothing in it knows where it lies or what the clock says: it can be moved, and is read on any
machine. `study.json` is the declaration; `runs/ID/` are the runs; `progress/ID.json` are
signs of life that workers renew and that decide nothing.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from driftscope.config import RunSpec, StudySpec, run_id
from driftscope.config.explain import explain
from driftscope.config.source import Source
from driftscope.errors import RecordError
from driftscope.files import inner_folder, read_bytes
from driftscope.records import (
    FAILURE_FILE,
    PROGRESS_FOLDER,
    RESULT_FILE,
    RUNS_FOLDER,
    STUDY_FILE,
    is_done,
    is_run,
    read_failure,
    read_json,
    read_spec,
    readable_runs,
    write_json,
)
from driftscope.records.watched_schema import WorkerSaid
from driftscope.study.matrix import expand

STUDY_SCHEMA = 1
ALIVE_SECONDS = 30.0
"""A run whose sign of life is older is shown as interrupted."""

State: TypeAlias = Literal["done", "failed", "running", "interrupted", "waiting"]


@dataclass(frozen=True)
class SignOfLife:
    """What a worker last said of its run."""

    run_id: str
    worker: str
    steps_done: int
    steps_total: int
    age_seconds: float

    @property
    def share(self) -> float:
        """Steps done of all, 0…1."""
        return self.steps_done / self.steps_total if self.steps_total else 0.0


@dataclass(frozen=True)
class Listing:
    """What one look at a study's folder finds.

    Attributes:
        declared: the declared runs by id, in the matrix's order; none of imported records.
        finished: the folders of the finished runs in that order, imported ones by name.
        undeclared: the folders of finished runs of an earlier declaration, by name.
    """

    declared: dict[str, RunSpec]
    finished: list[Path]
    undeclared: list[Path]

    @property
    def unfinished(self) -> list[str]:
        """The ids of the declared runs that have not ended well, in the matrix's order."""
        done = {folder.name for folder in self.finished}
        return [name for name in self.declared if name not in done]


@dataclass(frozen=True)
class StudyFolder:
    """A study on disk."""

    root: Path

    def run(self, spec: RunSpec) -> Path:
        """Where a run lives."""
        return run_folder(self.root, spec)

    def declare(self, study: StudySpec) -> None:
        """Makes the folder this study's, with its present declaration.

        Raises:
            RecordError: it holds another study, or is no study folder and not empty.
        """
        self.refuse_foreign(study)
        self.root.mkdir(parents=True, exist_ok=True)
        inner_folder(self.root, RUNS_FOLDER)
        inner_folder(self.root, PROGRESS_FOLDER)
        write_json(
            self.root / STUDY_FILE,
            {"schema": STUDY_SCHEMA, "study": study.model_dump(mode="json")},
        )

    @property
    def is_declared(self) -> bool:
        """Whether a study has been declared here."""
        return (self.root / STUDY_FILE).exists()

    def refuse_foreign(self, study: StudySpec) -> None:
        """Raises `RecordError` where the folder holds anything but this study, or nothing."""
        if self.root.is_file():
            raise RecordError(f"the output {self.root} is a file; give a folder with --out")
        if self.is_declared:
            there = self.study().name
            if there != study.name:
                raise RecordError(
                    f"{self.root} holds the study {there!r}, not {study.name!r}; "
                    "give an empty or new folder with --out"
                )
            return
        if not self.root.exists() or (self.root / RUNS_FOLDER).is_dir():
            return
        strangers = sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))
        if strangers:
            raise RecordError(
                f"{self.root} is no study folder and not empty (it holds {strangers[0]!r}); "
                "give an empty or new folder with --out"
            )

    def study(self) -> StudySpec:
        """The declaration.

        Raises:
            RecordError: the folder holds no study, or one that cannot be read.
        """
        path = self.root / STUDY_FILE
        if is_run(self.root):
            raise RecordError(
                f"{self.root} is one run and no study; driftscope study report "
                f"{shlex.quote(str(self.root))} writes its page"
            )
        if not path.exists():
            raise RecordError(
                f"{self.root} is no study folder (it has no {STUDY_FILE}); "
                "driftscope study run STUDY.yaml --out DIR makes one"
            )
        values = read_json(path)
        if values.get("schema") != STUDY_SCHEMA:
            raise RecordError(
                f"{path} has schema {values.get('schema')!r}; this driftscope reads {STUDY_SCHEMA}"
            )
        try:
            return StudySpec.model_validate(values.get("study"))
        except ValidationError as error:
            raise RecordError(explain(error, StudySpec, Source(str(path)).at)) from None

    def runs(self) -> dict[str, RunSpec]:
        """The runs by their ids: those declared, or in a folder of imported records those."""
        declared = self._declared()
        if declared is None:
            return {folder.name: spec for folder, spec in self.specs(self.finished())}
        return declared

    def finished(self) -> list[Path]:
        """The folders of the finished runs in the matrix's order, imported ones by name.

        What is no longer declared is passed over: see `undeclared`.
        """
        return self.listing().finished

    def undeclared(self) -> list[Path]:
        """The folders of finished runs of an earlier declaration, by name."""
        return self.listing().undeclared

    def listing(self) -> Listing:
        """All by one look: a run that finishes meanwhile is neither finished nor undeclared."""
        folders = self._with_result()
        declared = self._declared()
        if declared is None:
            return Listing({}, [folders[name] for name in sorted(folders)], [])
        return Listing(
            declared,
            [folders[name] for name in declared if name in folders],
            [folder for name, folder in folders.items() if name not in declared],
        )

    def damaged(self) -> dict[str, str]:
        """The finished runs that cannot be read: run -> what is wrong."""
        found: dict[str, str] = {}
        for _ in readable_runs(self.finished(), found):
            pass
        return found

    def specs(self, folders: Iterable[Path]) -> Iterator[tuple[Path, RunSpec]]:
        """The specs of runs, without those that cannot be read."""
        for folder in folders:
            with suppress(RecordError):
                yield folder, read_spec(folder)

    def _with_result(self) -> dict[str, Path]:
        results = sorted((self.root / RUNS_FOLDER).glob(f"*/{RESULT_FILE}"))
        return {path.parent.name: path.parent for path in results}

    def _declared(self) -> dict[str, RunSpec] | None:
        """The declared runs by id; None in a folder of imported records, which declares none."""
        study = self.study()
        if not (study.base or study.axes or study.extra):
            return None
        return {run_id(spec): spec for spec in expand(study, was_checked=True)}

    def states(self, runs: Iterable[str]) -> dict[str, State]:
        """What is known of each run, by id."""
        alive = {sign.run_id for sign in self.signs_of_life() if sign.age_seconds < ALIVE_SECONDS}
        there = self._folders()
        return {name: self._state(name, there, alive) for name in runs}

    def failures(self, runs: Iterable[str]) -> dict[str, str]:
        """Why runs failed, by id: type and message of the error."""
        states = self.states(runs)
        failed = (name for name, state in states.items() if state == "failed")
        return {name: read_failure(self.root / RUNS_FOLDER / name) for name in failed}

    def todo(self, specs: Iterable[RunSpec], *, retry_failed: bool) -> list[RunSpec]:
        """What is to be carried out: runs without a result, failed ones only if told so."""
        left = missing(specs, self.root)
        if retry_failed:
            return left
        return [spec for spec in left if not (self.run(spec) / FAILURE_FILE).exists()]

    def signs_of_life(self) -> list[SignOfLife]:
        """What workers say they are doing, oldest first; of ended runs there is nothing."""
        signs = []
        for path in (self.root / PROGRESS_FOLDER).glob("*.json"):
            with suppress(OSError, ValueError):  # replaced as we read, or not what a worker says
                age = max(0.0, time.time() - path.stat().st_mtime)
                said = WorkerSaid.model_validate_json(read_bytes(path))
                steps = said.steps_done, said.steps_total
                signs.append(SignOfLife(path.stem, said.worker, *steps, age))
        return sorted(signs, key=lambda sign: sign.run_id)

    def _folders(self) -> set[str]:
        if not (self.root / RUNS_FOLDER).is_dir():
            return set()
        return {path.name for path in (self.root / RUNS_FOLDER).iterdir()}

    def _state(self, name: str, there: set[str], alive: set[str]) -> State:
        if name not in there:
            return "running" if name in alive else "waiting"
        folder = self.root / RUNS_FOLDER / name
        if (folder / RESULT_FILE).exists():
            return "done"
        if name in alive:
            return "running"
        return "failed" if (folder / FAILURE_FILE).exists() else "interrupted"


def run_folder(root: Path, spec: RunSpec) -> Path:
    """Where a study keeps a run."""
    return root / RUNS_FOLDER / run_id(spec)


def missing(specs: Iterable[RunSpec], root: Path) -> list[RunSpec]:
    """The runs that have no result yet."""
    return [spec for spec in specs if not is_done(run_folder(root, spec))]
