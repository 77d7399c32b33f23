import json
import os
import re
import resource
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_result
from typer.testing import CliRunner

from driftscope import records
from driftscope.cli import app
from driftscope.config import parse_run_spec
from driftscope.errors import RecordError
from driftscope.records.columns import RUN_COLUMNS, typed
from driftscope.records.report_place import RUN_PAGES, STUDY_PAGES, refuse_others_report

SPEC = parse_run_spec({"method": "full_ft", "learning_rate": 1e-3})
OTHER = parse_run_spec({"method": "full_ft", "learning_rate": 1e-4})


def test_a_folder_claimed_for_one_spec_refuses_another(tmp_path: Path) -> None:
    with records.claimed(tmp_path / "run", SPEC):
        pass
    with (
        pytest.raises(RecordError, match="holds another run"),
        records.claimed(tmp_path / "run", OTHER),
    ):
        pass


def test_a_folder_with_strangers_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecordError, match=r"thesis\.tex"), records.claimed(tmp_path, SPEC):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_cannot_claim_one_folder(tmp_path: Path) -> None:
    with (
        records.claimed(tmp_path, SPEC),
        pytest.raises(RecordError, match="another process"),
        records.claimed(tmp_path, SPEC),
    ):
        pass


def test_the_claim_of_a_killed_process_can_be_taken_over(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with records.claimed(tmp_path, SPEC):
            os.write(writer, b"claimed")
            os.read(os.pipe()[0], 1)  # waits to be killed
    assert os.read(reader, 7) == b"claimed"
    with pytest.raises(RecordError), records.claimed(tmp_path, SPEC):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    with records.claimed(tmp_path, SPEC):
        pass


def test_a_torn_last_event_is_left_out_and_a_torn_earlier_one_is_an_error(tmp_path: Path) -> None:
    records.append_event(tmp_path, {"epoch": 1})
    events = tmp_path / records.EVENTS_FILE
    events.write_text(events.read_text() + '{"epoch": 2, "lo')
    assert records.read_events(tmp_path) == [{"epoch": 1}]
    events.write_text('{"epoch"\n{"epoch": 2}\n')
    with pytest.raises(RecordError, match="line 1"):
        records.read_events(tmp_path)


def test_a_disk_that_is_full_for_a_while_costs_the_line_that_did_not_fit(tmp_path: Path) -> None:
    event = {"kind": "observation", "step": 1, "words": "x" * 200}
    records.append_event(tmp_path, event)
    size = (tmp_path / records.EVENTS_FILE).stat().st_size
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, former[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            records.append_event(tmp_path, {**event, "step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert (tmp_path / records.EVENTS_FILE).stat().st_size == size
    for step in (3, 4):
        records.append_event(tmp_path, {**event, "step": step})
    assert [one["step"] for one in records.read_events(tmp_path)] == [1, 3, 4]


@pytest.mark.parametrize(
    ("torn", "steps"), [(b'{"step": 2, "lo', [1, 3]), (b'{"step": 2}', [1, 2, 3]), (b"", [1, 3])]
)
def test_a_line_is_not_glued_to_what_a_killed_process_left(
    tmp_path: Path, torn: bytes, steps: list[int]
) -> None:
    records.append_event(tmp_path, {"step": 1})
    with (tmp_path / records.EVENTS_FILE).open("ab") as file:
        file.write(torn)
    records.append_event(tmp_path, {"step": 3})
    assert [one["step"] for one in records.read_events(tmp_path)] == steps


def test_json_is_whole_or_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    records.write_json(path, {"a": 1})

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        records.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nan_and_infinity_are_written_as_null(tmp_path: Path) -> None:
    records.write_json(tmp_path / "x.json", {"a": [float("nan"), float("inf"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, None, 1.5]}


def test_attention_maps_survive_storage_to_half_precision(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(16), (2, 3, 4)).reshape(2, 3, 4, 4, 4)
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    records.write_overlay(
        tmp_path, records.Overlay(images, maps.astype(np.float32), maps[::-1].astype(np.float32))
    )
    loaded = records.load_overlay(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.images, images)
    np.testing.assert_allclose(loaded.pretrained, maps, atol=5e-4)
    np.testing.assert_allclose(loaded.adapted, maps[::-1], atol=5e-4)


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**62 + 1])
def test_integers_of_a_table_are_kept_to_the_last_digit(seed: int) -> None:
    table = typed(pd.DataFrame({"seed": [seed, 7]}), {"seed": RUN_COLUMNS["seed"]})
    assert table["seed"].tolist() == [seed, 7]


def test_an_integer_that_int64_cannot_hold_is_a_number_and_not_another_one() -> None:
    table = typed(pd.DataFrame({"seed": [2**63, 7]}), {"seed": RUN_COLUMNS["seed"]})
    assert table["seed"].tolist() == [2.0**63, 7.0]


def test_a_result_of_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    records.write_json(tmp_path / records.SPEC_FILE, SPEC.model_dump(mode="json"))
    records.write_json(tmp_path / records.RESULT_FILE, {"schema": 99})
    with pytest.raises(RecordError, match="schema 99"):
        records.load_run(tmp_path)


def test_a_run_may_be_called_anything_unless_it_stands_in_a_study(tmp_path: Path) -> None:
    folder = tmp_path / records.RUNS_FOLDER / "my run"
    folder.mkdir(parents=True)
    records.write_json(folder / records.SPEC_FILE, SPEC.model_dump(mode="json"))
    records.write_json(folder / records.RESULT_FILE, fake_result(SPEC))
    assert records.load_run(folder).spec == SPEC
    records.write_json(tmp_path / records.STUDY_FILE, {})
    with pytest.raises(RecordError, match="is the result of another run"):
        records.load_run(folder)


@pytest.mark.parametrize(
    ("given", "kind", "is_refused"),
    [
        ({}, "comparison", False),
        ({"report.json": '{"kind": "comparison"}', "report.html": "x"}, "comparison", False),
        ({"report.json": '{"kind": "monitor"}', "report.html": "x"}, "comparison", True),
        ({"report.json": "mine"}, "comparison", True),
        ({"report.html": "mine"}, "comparison", True),
        ({"report.html": "mine"}, None, True),
        ({"report.html": "<title>Rates · driftscope</title>"}, None, True),
        ({"report.json": '{"kind": "comparison"}', "report.html": "x"}, None, True),
    ],
)
def test_a_report_takes_the_place_of_its_own_kind_alone(
    tmp_path: Path, given: dict[str, str], kind: str | None, is_refused: bool
) -> None:
    for name, text in given.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match="overwritten") if is_refused else nullcontext():
        refuse_others_report(tmp_path, kind)


@pytest.mark.parametrize(
    ("template", "taken_by"),
    [
        ("study", STUDY_PAGES),
        ("side_by_side", STUDY_PAGES),
        ("run", RUN_PAGES),
        ("where", None),
        ("merge", None),
        ("rescue", None),
    ],
)
def test_a_page_without_a_file_beside_it_takes_the_place_of_its_own_kind_alone(
    tmp_path: Path, template: str, taken_by: tuple[str, ...] | None
) -> None:
    """The kind is what the template says, at the place where every page says it."""
    templates = files("driftscope.report") / "templates"
    base = (templates / "base.html").read_text()
    said = re.search(r"{% block kind %}(.*?){%", (templates / f"{template}.html").read_text())
    assert said
    page = base.replace("{% block kind %}", said[1]).replace("{% endblock %}", "")
    (tmp_path / "report.html").write_text("x" * 30_000 + page)
    for pages in (STUDY_PAGES, RUN_PAGES):
        is_taken = pages == taken_by
        with nullcontext() if is_taken else pytest.raises(RecordError, match="overwritten"):
            refuse_others_report(tmp_path, None, pages)


def test_compare_does_not_write_over_a_report_of_another_kind(
    tiny_clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("mine")
    models = [str(tiny_clip)] * 2
    arguments = ["compare", *models, "--images", "terrain", "--out", str(tmp_path)]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 2
    assert "would be overwritten" in " ".join(said.output.split())
    assert (tmp_path / "report.html").read_text() == "mine"
