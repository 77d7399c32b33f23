"""What 0.1 wrote is read to the last digit; what is damaged is one sentence that names the place.

`data/written_by_0.1` holds a run of the mini, a comparison and a monitored training as commit
1bde668 wrote them (with places of that machine shortened). The reference is plain `json`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_study import METHODS, NUM_EPOCHS, NUM_TRANSFER_IMAGES, RATES, SEEDS, write_fake_study
from typer.testing import CliRunner

from driftscope.cli import app
from driftscope.config import StudySpec
from driftscope.errors import RecordError
from driftscope.gate.judging import judge, read_evidence
from driftscope.gate.limits import GATED, parse_limit
from driftscope.opened_study import Study
from driftscope.records import RESULT_FILE, load_run, runs_table
from driftscope.records.columns import retention_interval_pct
from driftscope.records.live import TrainingFollower
from driftscope.stats.proportions import paired_ratio_interval
from driftscope.study import StudyFolder

OLD = Path(__file__).parent / "data" / "written_by_0.1"


def plain(path: Path) -> Any:
    return json.loads(path.read_text())


# ---------------------------------------------------------------- what 0.1 wrote


def test_a_run_that_0_1_wrote_is_read_to_the_last_digit() -> None:
    result, record = plain(OLD / "run" / RESULT_FILE), load_run(OLD / "run")
    assert record.result.last is not None
    for name, point in (("selected", record.result.selected), ("last", record.result.last)):
        there = result[name]
        assert point.epoch == there["epoch"]
        assert point.val_accuracy_pct == there["val_accuracy_pct"]
        assert point.reading.facts() == there["reading"]
        assert point.drift.facts() == there["drift"]
        assert point.drift.number("cka") == there["drift"]["cka"]
        assert point.drift.by_layer("cka_per_block") == there["drift"]["cka_per_block"]
        assert point.subsets == there["subsets"]
        assert (
            point.transfer["concepts100"].per_class == there["transfer"]["concepts100"]["per_class"]
        )
    score, before = record.main_score, result["pretrained"]["transfer"]["concepts100"]
    assert record.pretrained_score.accuracy_pct == before["accuracy_pct"]
    assert score.wilson_pct == (
        result["selected"]["transfer"]["concepts100"]["wilson_low_pct"],
        result["selected"]["transfer"]["concepts100"]["wilson_high_pct"],
    )
    assert record.result.environment.facts() == result["environment"]
    assert record.result.splits.facts() == result["splits"]
    assert record.result.wall_seconds.facts() == result["wall_seconds"]
    assert record.result.spec == result["spec"]
    lines = (OLD / "run" / "events.jsonl").read_text().splitlines()
    assert record.events == [json.loads(line) for line in lines]
    assert [event.kind for event in record.events] == ["epoch"] * len(lines)


def test_the_row_of_a_run_that_0_1_wrote_holds_its_numbers() -> None:
    result = plain(OLD / "run" / RESULT_FILE)
    (row,) = runs_table([load_run(OLD / "run")]).to_dict("records")
    selected, score = result["selected"], result["selected"]["transfer"]["concepts100"]
    for name in ("cka", "cka_debiased", "embedding_drift", "weight_drift", "delta_gini_pct"):
        assert row[name] == selected["drift"][name], name
    assert row["run_id"] == result["run_id"]
    assert row["status"] == "done"
    assert row["selected_epoch"] == selected["epoch"]
    assert row["test_accuracy_pct"] == selected["test_accuracy_pct"]
    assert row["zero_shot_pct"] == score["accuracy_pct"]
    assert row["retention_pct"] == score["retention_pct"]
    assert row["trainable_parameters"] == result["parameters"]["trainable"]
    assert row["wall_seconds"] == result["wall_seconds"]["total"]


def test_text_space_drift_of_0_1_is_marked_as_the_old_definition_and_not_judged() -> None:
    record = load_run(OLD / "run")
    (row,) = runs_table([record]).to_dict("records")
    assert "text_kl_nats" in record.events[0].numbers()
    assert "0.1" in row["text_vocabulary"]
    assert "the transfer set's classes" in row["text_vocabulary"]
    evidence = read_evidence(OLD / "run")
    assert "text_kl_nats" not in evidence.scalars
    (limit,) = (one for one in GATED if one.parameter == "max_text_kl")
    (verdict,) = judge(evidence, [parse_limit(limit, "100")])
    assert verdict.outcome == "not measured"
    assert "as driftscope 0.1 read them; run it again" in verdict.sentence


@pytest.mark.parametrize("kind", ["comparison", "monitor"])
def test_a_report_that_0_1_wrote_is_judged_by_its_numbers(kind: str) -> None:
    report, evidence = plain(OLD / kind / "report.json"), read_evidence(OLD / kind)
    finite = {name: value for name, value in report["scalars"].items() if value is not None}
    assert evidence.scalars == finite
    where = report if kind == "comparison" else report["history"][-1]
    score, there = evidence.transfer["concepts100"], where["transfer"]["concepts100"]
    assert score.retention_pct == there["retention_pct"]
    lost, gained = there["flows"]["num_lost"], there["flows"]["num_gained"]
    interval = paired_ratio_interval(there["num_correct"] - gained, lost, gained)
    assert score.retention_interval_pct == tuple(100 * end for end in interval)


@pytest.mark.parametrize("num_correct", [None, 1])
def test_a_retention_of_impossible_counts_has_no_interval(num_correct: int | None) -> None:
    score = {"num_correct": num_correct, "flows": {"num_lost": 1, "num_gained": 5}}
    assert retention_interval_pct(score) is None


def test_a_monitored_training_that_0_1_wrote_can_be_watched() -> None:
    status = TrainingFollower(OLD / "monitor").status()
    (observed,) = (
        json.loads(line)
        for line in (OLD / "monitor" / "events.jsonl").read_text().splitlines()
        if '"observation"' in line
    )
    assert status.title == "a training from mini, with zero-shot on concepts100"
    assert status.points[0]["retention_pct"] == observed["retention_pct"]
    assert status.points[0]["val_accuracy_pct"] == 10.0
    assert status.ended == "done"


def test_a_part_asked_for_as_in_0_1_is_given_with_one_warning() -> None:
    record = load_run(OLD / "run")
    with pytest.warns(FutureWarning, match=r"is now result\.parameters"):
        assert record.result["parameters"] == plain(OLD / "run" / RESULT_FILE)["parameters"]


# ---------------------------------------------------------------- damage


def rescued(way: str, budget_pct: float | None = None) -> dict[str, Any]:
    """A row of what a way of a rescue kept."""
    row: dict[str, Any] = {"way": way, "budget_pct": budget_pct, "scale": 0.5}
    return {**row, "refitted_accuracy_pct": 80.0, "test_num_images": 100, "cpu_seconds": 3.0}


Damage = Callable[[dict[str, Any]], object]
DAMAGES: dict[str, Damage] = {
    "selected.drift is [1], not an object": lambda v: v["selected"].update(drift=[1]),
    "it has no status": lambda v: v.pop("status"),
    "it has no wall_seconds": lambda v: v.pop("wall_seconds"),
    "it has no selected.reading": lambda v: v["selected"].pop("reading"),
    "selected.transfer is 3, not an object": lambda v: v["selected"].update(transfer=3),
    "pretrained is None, not an object": lambda v: v.update(pretrained=None),
    "selected.val_accuracy_pct is 'NaN', not a valid number": lambda v: v["selected"].update(
        val_accuracy_pct="NaN"
    ),
    "selected.val_accuracy_pct is 1000": lambda v: v["selected"].update(val_accuracy_pct=10**400),
    "selected.drift, cka is 'x', which is no number": lambda v: v["selected"]["drift"].update(
        cka="x"
    ),
    "selected.subsets is 3, not a list": lambda v: v["selected"].update(subsets=3),
    "selected.reading.entropy is 'x', not a list": lambda v: v["selected"]["reading"].update(
        entropy="x"
    ),
    "wall_seconds.total is 'x', not a valid number": lambda v: v["wall_seconds"].update(total="x"),
    "selected.epoch is -3, not": lambda v: v["selected"].update(epoch=-3),
    "parameters.total is 1000": lambda v: v["parameters"].update(total=10**30),
    "wall_seconds.total is -1.0, not": lambda v: v["wall_seconds"].update(total=-1.0),
    "per_class.0.adapted_pct is 101.0, not": lambda v: v["selected"]["transfer"]["concepts100"][
        "per_class"
    ][0].update(adapted_pct=101.0),
    "patch_to_patch_entropy_bits is 5, which is no list of layers": lambda v: v["selected"][
        "reading"
    ].update(patch_to_patch_entropy_bits=5),
    "cka_per_block is 0.5, which is no list of layers": lambda v: v["selected"]["drift"].update(
        cka_per_block=0.5
    ),
    "in rescues, the rows without a budget are not those of pretrained and adapted": (
        lambda v: v.update(rescues=[rescued("adapted"), rescued("wise", 90.0)])
    ),
    "in rescues, 'adapted' is there twice": lambda v: v.update(
        rescues=[rescued("pretrained"), rescued("adapted"), rescued("adapted")]
    ),
    "in rescues, 'wise at 90.0 %' is there twice": lambda v: v.update(
        rescues=[*map(rescued, ("pretrained", "adapted")), *[rescued("wise", 90.0)] * 2]
    ),
    "in attribution.groups, 'block 1' is there twice": lambda v: v.update(
        attribution={
            "measured_on": "x",
            "retention_pct": 80.0,
            "num_pairs": 2,
            "groups": [{"name": "block 1", "regained": 1.0, "lost": 1.0}] * 2,
        }
    ),
    "the last epoch of run": lambda v: v["last"].update(epoch="x"),
}


def damage(folder: Path, change: Damage) -> None:
    values = plain(folder / RESULT_FILE)
    change(values)
    (folder / RESULT_FILE).write_text(json.dumps(values))


@pytest.mark.parametrize("sentence", DAMAGES)
def test_a_damaged_result_is_one_sentence_with_the_file_and_the_field(
    sentence: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(OLD / "run", tmp_path / "run")
    damage(folder, DAMAGES[sentence])
    with pytest.raises(RecordError, match=re.escape(sentence)) as raised:
        assert load_run(folder).result.last
    assert "is damaged" in str(raised.value)
    assert str(folder / RESULT_FILE) in str(raised.value) or "last epoch" in sentence
    assert "\n" not in str(raised.value)


def test_what_a_later_version_adds_disturbs_nothing(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / "run", tmp_path / "run")

    def add(values: dict[str, Any]) -> None:
        for part in (values, values["selected"], values["selected"]["drift"], values["splits"]):
            part["later"] = {"a": ["b"]}
        values["selected"]["drift"]["new_metric"] = 0.5
        del values["schema"]  # and what has no version is of the first

    damage(folder, add)
    record = load_run(folder)
    assert record.result.selected.drift.number("new_metric") == 0.5
    assert record.main_score == load_run(OLD / "run").main_score


@pytest.fixture
def damaged_study(tmp_path: Path) -> Path:
    """A study of fake runs, one with a result and one with a spec that cannot be read."""
    axes: dict[str, tuple[Any, ...]] = {"method": METHODS, "learning_rate": RATES, "seed": SEEDS}
    base = {"epochs": NUM_EPOCHS, "transfer_images": NUM_TRANSFER_IMAGES}
    StudyFolder(tmp_path / "s").declare(StudySpec(name="made-up", base=base, axes=axes))
    root = write_fake_study(tmp_path / "s", maps=False)
    first, second, *_ = sorted((root / "runs").iterdir())
    damage(first, DAMAGES["selected.drift is [1], not an object"])
    (second / "spec.json").write_text("[]")
    return root


def test_a_study_is_read_without_its_damaged_runs(damaged_study: Path) -> None:
    study = Study(damaged_study)
    num_runs = len(METHODS) * len(RATES) * len(SEEDS)
    assert len(study.runs()) == num_runs - 2
    assert len(study.records()) == num_runs - 2
    first, second, *_ = sorted(path.name for path in (damaged_study / "runs").iterdir())
    assert set(study.damaged) == set(study.folder.damaged()) == {first, second}
    assert "selected.drift is [1]" in study.damaged[first]
    assert f"{second}/spec.json" in study.damaged[second]


@pytest.mark.parametrize(
    "arguments", ["export --format csv", "analyse --question frontier", "status", "report"]
)
def test_every_command_goes_on_without_the_damaged_runs_and_names_them(
    arguments: str, damaged_study: Path
) -> None:
    command, *options = arguments.split()
    result = CliRunner().invoke(app, ["study", command, str(damaged_study), *options])
    said = " ".join(result.output.split())
    assert result.exit_code == 0, said
    assert "2 finished runs in" in said
    assert "selected.drift is [1], not an object" in said
    assert "spec.json is damaged: it holds no JSON object" in said
