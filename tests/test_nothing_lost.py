"""What a user could reach before today's rebuilding still answers: `reached_before` lists it.

The lists were taken from commit 1bde668 by the functions of this file. Something new may be added
at any time; something on the lists may go only with an alias that answers in its place.
"""

from __future__ import annotations

import csv
import inspect
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import reached_before as before
from fake_study import METHODS, RATES, SEEDS, write_fake_study
from typer.main import get_command
from typer.testing import CliRunner

import driftscope as ds
from driftscope.cli import app
from driftscope.config import StudySpec
from driftscope.study import StudyFolder

# ---------------------------------------------------------------- commands


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(group, "commands"):
        yield " ".join(path), group
        return
    for name, command in group.commands.items():
        yield from commands_of(command, (*path, name))


def options_of(command: Any) -> list[str]:
    options = [one for one in command.params if one.param_type_name == "option"]
    return sorted(name for one in options for name in (*one.opts, *one.secondary_opts))


def arguments_of(command: Any) -> list[str]:
    return [one.name for one in command.params if one.param_type_name == "argument"]


def command_of(path: str) -> Any:
    command: Any = get_command(app)
    for word in path.split():
        command = command.get_command(command.make_context("", [], resilient_parsing=True), word)
    return command


@pytest.mark.parametrize("path", before.COMMANDS)
def test_every_command_takes_the_options_and_arguments_of_before(path: str) -> None:
    options, num_arguments = before.COMMANDS[path]
    command = command_of(path)
    assert set(options.split()) <= set(options_of(command))
    assert len(arguments_of(command)) == num_arguments


# ---------------------------------------------------------------- Python


def members_of(kind: type) -> list[str]:
    fields = getattr(kind, "model_fields", None)
    if fields is not None:
        return sorted(fields)
    public = {name for name in dir(kind) if not name.startswith("_")}
    return sorted(public | set(getattr(kind, "__dataclass_fields__", ())))


def taken_by(thing: Any, names: Sequence[str]) -> set[str]:
    """Those of the names that the signature has, or that a renaming takes."""
    renamed = getattr(thing, "renamed_keywords", None) or getattr(
        getattr(thing, "__init__", None), "renamed_keywords", {}
    )
    return set(names) & {*inspect.signature(thing).parameters, *renamed}


@pytest.mark.parametrize("name", before.PUBLIC.split())
def test_every_public_name_is_there(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert getattr(ds, name) is not None


@pytest.mark.parametrize("place", [*before.PLACES, *before.DOCUMENTED.split()])
def test_every_documented_place_is_there(place: str) -> None:
    module, _, name = place.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert getattr(import_module(f"driftscope.{module}"), name) is not None


@pytest.mark.parametrize("name", before.MEMBERS)
def test_every_public_class_has_its_members(name: str) -> None:
    kind = getattr(ds, name)
    assert {one for one in before.MEMBERS[name].split() if one not in members_of(kind)} == set()


@pytest.mark.parametrize("name", before.KEYWORDS)
def test_every_public_function_takes_its_keywords(name: str) -> None:
    from driftscope.integrations import hf_trainer, lightning

    callbacks = {"hf_trainer": hf_trainer, "lightning": lightning}
    module, _, last = name.rpartition(".")
    thing = getattr(callbacks[module] if module else ds, last)
    keywords = before.KEYWORDS[name].split()
    assert taken_by(thing, keywords) == set(keywords)


# ---------------------------------------------------------------- files, columns, pages


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def declared(root: Path, rates: tuple[float, ...]) -> Path:
    """A study folder with its made-up runs."""
    base = {"epochs": 4, "transfer_images": 5000}
    axes = {"method": METHODS, "learning_rate": rates, "seed": SEEDS}
    StudyFolder(root).declare(StudySpec(name="made-up", base=base, axes=axes))
    return write_fake_study(root, rates=rates)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study folder with all that commands write about it; beside it what they write of two."""
    root = declared(tmp_path_factory.mktemp("before") / "study", RATES)
    part, twin = declared(root.parent / "part", RATES[:2]), root.parent / "twin"
    shutil.copytree(part, twin)
    for form in ("parquet", "csv", "json"):
        run("study", "export", root, "--format", form)
    run("study", "report", root, "--format", "all")
    both = root.parent / "both"
    run("report", part, twin, "--out", both, "--format", "all")
    return root


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "runs"
    )


def heads_of(folder: Path) -> dict[str, list[str]]:
    """The columns of each CSV file."""
    heads = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            heads[path.stem] = next(csv.reader(file))
    return heads


def anchors_of(page: Path) -> list[str]:
    """The ids of a page that a link can lead to; pictures have ids of their own."""
    text = re.sub(r"<svg.*?</svg>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    found = re.findall(r'<(?!input|label)\w+[^>]*\sid="([^"]+)"', text)
    return [one for one in dict.fromkeys(found) if not re.search(r"[0-9a-f]{8}", one)]


def test_every_file_is_written(study: Path) -> None:
    assert set(before.STUDY_FILES.split()) <= set(files_below(study))
    assert set(before.SIDE_BY_SIDE_FILES.split()) <= set(files_below(study.parent / "both"))


def test_every_exported_column_is_there(study: Path) -> None:
    exported = heads_of(study / "export")
    for name, columns in before.EXPORTED.items():
        assert set(columns.split()) <= set(exported[name]), name


def test_every_column_of_the_tables_is_there(study: Path) -> None:
    written = heads_of(study / "tables")
    for name, columns in before.TABLES.items():
        assert set(columns.split()) <= set(written[name]), name
    both = heads_of(study.parent / "both" / "tables")
    for name, columns in before.SIDE_BY_SIDE_TABLES.items():
        assert set(columns.split()) <= set(both[name]), name


def test_every_question_is_answered_with_its_columns(study: Path) -> None:
    answers = {one["question"]: one for one in json.loads(run("study", "analyse", study, "--json"))}
    for question, columns in before.ANSWERS.items():
        answer = answers[question]
        assert answer["is_answered"] == bool(columns), question
        if columns:
            assert set(columns.split()) <= set(answer["table"][0]), question


def test_every_part_of_the_pages_is_there(study: Path) -> None:
    assert set(before.PAGE_ANCHORS.split()) <= set(anchors_of(study / "report.html"))
    both = study.parent / "both" / "report.html"
    assert set(before.SIDE_BY_SIDE_ANCHORS.split()) <= set(anchors_of(both))


def test_status_and_plan_and_comparison_have_their_keys(study: Path, tmp_path: Path) -> None:
    status = json.loads(run("study", "status", study, "--json"))
    plan = json.loads(run("study", "plan", "mini-lr-sweep", "--json"))
    arguments = ("mini", "mini", "--images", "terrain", "--max-images", 8, "--out", tmp_path)
    comparison = json.loads(run("compare", *arguments, "--json"))
    assert set(before.STATUS_KEYS.split()) <= set(status)
    assert set(before.PLAN_KEYS.split()) <= set(plan)
    assert set(before.COMPARISON_KEYS.split()) <= set(comparison)
    assert set(before.COMPARISON_SCALARS.split()) <= set(comparison["scalars"])
    assert set(before.COMPARISON_ANCHORS.split()) <= set(anchors_of(tmp_path / "report.html"))
