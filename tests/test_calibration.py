"""A finished study as a gauge of retention: on the published follow-up and on made tables."""

from __future__ import annotations

import json
from pathlib import Path

import fake_runs
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import driftscope as ds
from driftscope.analysis import StudyTables
from driftscope.analysis.calibration import adapted_by, calibrate, load_calibration
from driftscope.cli import app
from driftscope.errors import ConfigError, RecordError
from driftscope.gate.judging import judge, read_evidence
from driftscope.gate.limits import GATED, parse_limit
from driftscope.records import REPORT_FILE, write_json

FOLLOWUP = Path(__file__).parents[2] / "shared" / "records" / "followup"
runner = CliRunner()


def made(num_seeds: int = 5, datasets: tuple[str, ...] = ("one", "two")) -> StudyTables:
    """Runs whose retention is 100·(1 − drift²), with noise of 3 points."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        for method, most in (("full_ft", 0.9), ("lora", 0.5)):
            for drift in np.linspace(0.0, most, 4):
                for _ in range(num_seeds):
                    x = min(max(drift + 0.01 * rng.normal(), 0), 1)
                    y = 100 * (1 - x**2) + 3 * rng.normal()
                    rows.append((f"r{len(rows)}", "mini", dataset, method, "done", x, 1 - x, y))
    names = "run_id model dataset method status embedding_drift cka retention_pct"
    runs = pd.DataFrame(rows, columns=names.split()).assign(transfer="concepts100")
    history = runs[["run_id", "embedding_drift", "cka"]].assign(kind="epoch", epoch=1)
    history["embedding_drift"] /= 2
    return StudyTables(runs, history, pd.DataFrame())


def test_an_isotonic_map_is_that_of_pooled_adjacent_violators() -> None:
    found, _ = calibrate(made(), ["embedding_drift"])
    x, y = np.array(found.maps[0].values), np.array(found.maps[0].retention_pct)
    runs = made().runs.sort_values("embedding_drift")
    assert np.all(np.diff(y) <= 1e-9)
    # least squares among falling sequences: no block's mean can be moved to fit better
    for level in np.unique(y):
        block = runs.set_index("embedding_drift").loc[x[y == level], "retention_pct"]
        assert level == pytest.approx(block.mean())


def test_a_forecast_is_near_the_truth_and_its_interval_holds_what_was_left_out() -> None:
    found, errors = calibrate(made())
    told = found.forecast({"embedding_drift": 0.4, "cka": 0.6}, model="mini", method="lora")
    assert told.retention_pct == pytest.approx(100 * (1 - 0.16), abs=5)
    assert told.low_pct < told.retention_pct < told.high_pct
    assert errors["mean_error_pct"].iloc[0] == pytest.approx(found.mean_error_pct)
    assert errors["covered_pct"].iloc[0] >= 85


def test_a_calibration_of_the_first_epoch_takes_the_first_epochs_signals() -> None:
    found, _ = calibrate(made(), ["embedding_drift"], at="first epoch")
    assert found.maps[0].values[-1] == pytest.approx(made().history["embedding_drift"].max())
    told = found.forecast({"embedding_drift": 0.2})
    assert "at the end of the training" in told.sentence
    assert "if it was adapted by full_ft or lora and trained for one epoch so far" in told.sentence


def test_a_gate_on_a_training_takes_the_first_epochs_numbers_for_a_forecast_from_them(
    tmp_path: Path,
) -> None:
    found, _ = calibrate(made(), ["embedding_drift"], at="first epoch")
    history = [
        {"step": step, "epoch": epoch, "embedding_drift": drift}
        for step, epoch, drift in ((5, 1, 0.02), (10, 1, 0.2), (20, 2, 0.4))
    ]
    latest = {"step": 20, "scalars": {"embedding_drift": 0.4}}
    report = {"kind": "monitor", "latest": latest, "history": history}
    write_json(tmp_path / REPORT_FILE, {**report, "scalars": latest["scalars"]})
    told = read_evidence(tmp_path).with_forecast(found).forecast
    assert told.retention_pct == found.forecast({"embedding_drift": 0.2}).retention_pct
    assert "so far" not in told.sentence
    later = {**report, "scalars": {}, "history": history[2:]}
    write_json(tmp_path / REPORT_FILE, later)
    refused = read_evidence(tmp_path).with_forecast(found).forecast
    assert refused.refused == "embedding drift was not measured in the first epoch"


@pytest.mark.parametrize(
    ("numbers", "known", "words"),
    [
        ({"embedding_drift": 1.4, "cka": 0.5}, {}, "embedding drift is 1.400, and the calibration"),
        ({"cka": 0.5}, {}, "embedding drift was not measured"),
        ({"embedding_drift": 0.4, "cka": 0.6}, {"method": "dora"}, "has seen full_ft or lora"),
        ({"embedding_drift": 0.4, "cka": 0.6}, {"model": "b32"}, "is of mini, and this model is"),
    ],
)
def test_what_was_never_seen_is_not_forecast(numbers: dict, known: dict, words: str) -> None:
    told = calibrate(made())[0].forecast(numbers, **known)
    assert told.retention_pct is None
    assert words in told.sentence


def with_penalty(tables: StudyTables, name: str = "l2_sp_0.1") -> StudyTables:
    """The runs, and beside them as many under a penalty."""
    held = tables.runs.assign(regularizer=name, run_id="held_" + tables.runs["run_id"])
    return tables.with_runs(pd.concat([tables.runs.assign(regularizer="none"), held]))


def test_what_was_done_beside_a_method_is_named_with_it() -> None:
    found, _ = calibrate(with_penalty(made()))
    held = ["full_ft with l2_sp_0.1", "lora with l2_sp_0.1"]
    assert found.methods == ["full_ft", held[0], "lora", held[1]]
    numbers = {"embedding_drift": 0.4, "cka": 0.6}
    assert found.forecast(numbers, method=held[0]).retention_pct is not None
    plain, _ = calibrate(with_penalty(made()).only(regularizer="none"))
    assert plain.model_dump() == calibrate(made())[0].model_dump()
    refused = plain.forecast(numbers, method=adapted_by("full_ft", "budget_60+restore_blocks"))
    assert refused.refused == (
        "the calibration has seen full_ft or lora, and this is full_ft with "
        "budget_60+restore_blocks"
    )
    assert [adapted_by("lora", one) for one in ("none", None, float("nan"))] == ["lora"] * 3


def test_a_gate_forecasts_a_run_under_a_penalty_from_runs_under_it_alone(tmp_path: Path) -> None:
    spec = fake_runs.spec(7, model="mini", regularizers=[{"kind": "l2_sp", "weight": 0.1}])
    selected = {
        "epoch": 2,
        "reading": {"entropy": [[1.0]], "erf95": [[0.5]], "gini": [[0.5]]},
        "drift": {"embedding_drift": 0.4, "cka": 0.6},
    }
    write_json(tmp_path / "spec.json", spec.model_dump(mode="json"))
    write_json(tmp_path / "result.json", fake_runs.fake_result(spec, selected=selected))
    evidence = read_evidence(tmp_path)
    refused = evidence.with_forecast(calibrate(made())[0]).forecast
    assert refused.refused.endswith("and this is full_ft with l2_sp_0.1")
    told = evidence.with_forecast(calibrate(with_penalty(made()))[0]).forecast
    assert told.retention_pct == pytest.approx(100 * (1 - 0.16), abs=5)


def test_studies_that_cannot_calibrate_are_refused() -> None:
    with pytest.raises(RecordError, match="needs runs of two datasets, or of two methods"):
        calibrate(made(datasets=("one",)).only(method="lora"))
    with pytest.raises(RecordError, match=r"has 8 finished runs .* needs 10 or more"):
        calibrate(made(num_seeds=1, datasets=("one",)))
    with pytest.raises(ConfigError, match="cannot calibrate on 'ckka'"):
        calibrate(made(), ["ckka"])
    with pytest.raises(RecordError, match="the study's runs have no weight drift"):
        calibrate(made(), ["weight_drift"])


def test_datasets_of_which_no_two_have_a_method_in_common_are_refused_in_a_sentence() -> None:
    whole = made()
    is_crossed = (whole.runs["dataset"] == "one") == (whole.runs["method"] == "lora")
    with pytest.raises(RecordError, match="needs a method that two of its datasets have") as caught:
        calibrate(whole.with_runs(whole.runs[~is_crossed]))
    assert "one has full_ft" in str(caught.value)
    assert "two has lora" in str(caught.value)


def test_a_dataset_that_shares_no_method_with_the_others_has_no_part_in_the_error() -> None:
    whole = made(datasets=("one", "two", "three"))
    is_lone = whole.runs["dataset"] == "three"
    runs = whole.runs.assign(method=whole.runs["method"].mask(is_lone, "last_block"))
    found, errors = calibrate(whole.with_runs(runs))
    assert (found.num_runs, errors["num_runs"].iloc[0]) == (len(runs), (~is_lone).sum())


@pytest.mark.parametrize("key", ["model", "protocol", "transfer"])
def test_a_calibration_is_of_one_setting(key: str) -> None:
    whole = made()
    whole = whole.with_runs(whole.runs.assign(protocol="leakfree"))
    half = np.arange(len(whole.runs)) % 2 == 0
    mixed = whole.with_runs(whole.runs.assign(**{key: np.where(half, "first", "second")}))
    with pytest.raises(RecordError, match=f"{key} first and second") as caught:
        calibrate(mixed)
    assert f"--where {key}=first" in str(caught.value)
    one, _ = calibrate(mixed.where([f"{key}=first"]))
    assert one.num_runs == half.sum()


def test_a_calibration_is_of_runs_that_are_measured_alike() -> None:
    whole = made()
    half = np.arange(len(whole.runs)) % 2 == 0
    options = np.where(half, "probe_images 20", "probe_images 200")
    mixed = whole.with_runs(whole.runs.assign(options=options))
    said = r"with probe images 20 and probe images 200; take .* --where probe_images=20$"
    with pytest.raises(RecordError, match=said):
        calibrate(mixed)
    assert calibrate(mixed.where(["probe_images=20"]))[0].num_runs == half.sum()
    unknown = whole.runs.assign(options=np.where(half, "default", None))
    with pytest.raises(RecordError, match=r"options unknown; .* --where options=default$"):
        calibrate(whole.with_runs(unknown))
    assert calibrate(mixed.where(["options=probe_images 20"]))[0].num_runs == half.sum()
    by_dataset = whole.runs["dataset"].map({"one": "probe_images 20", "two": "probe_images 200"})
    apart = whole.with_runs(whole.runs.assign(options=by_dataset))
    assert calibrate(apart)[0].num_runs == len(whole.runs)


def test_a_run_that_is_given_twice_is_calibrated_on_once() -> None:
    whole = made()
    twice = StudyTables(pd.concat([whole.runs, whole.runs]), whole.history, whole.layers)
    assert calibrate(twice)[0] == calibrate(whole)[0]
    early = {"at": "first epoch"}
    assert calibrate(twice, **early)[0] == calibrate(whole, **early)[0]


@pytest.mark.skipif(not FOLLOWUP.exists(), reason="shared/ does not lie beside the checkout")
@pytest.mark.parametrize(("at", "single"), [("end", 7.6), ("first epoch", 7.4)])
def test_on_the_published_follow_up_two_signals_beat_one(
    tmp_path: Path, at: str, single: float
) -> None:
    assert runner.invoke(app, ["import", str(FOLLOWUP), "--out", str(tmp_path)]).exit_code == 0
    found, errors = calibrate(ds.Study(tmp_path).tables(), at=at)
    assert found.mean_error_pct < 5.5 < single
    assert errors["covered_pct"].iloc[0] >= 85
    assert errors["mean_error_pct"].iloc[1:].min() > single
    first = ds.Study(tmp_path).history().query("epoch == 1").dropna(subset=["cka"]).iloc[0]
    of_run = read_evidence(tmp_path / "runs" / first["run_id"]).first_epoch
    assert of_run["embedding_drift"] == first["embedding_drift"]
    unseen = found.forecast({"cka": 0.9, "embedding_drift": 0.5}, method="prompt_tuning")
    assert unseen.retention_pct is None


def test_the_file_goes_from_the_study_to_a_gate_a_comparison_and_a_monitor(tmp_path: Path) -> None:
    found, _ = calibrate(made())
    file = tmp_path / "gauge.json"
    write_json(file, found.model_dump())
    assert load_calibration(file) == found
    comparison = ds.compare("mini", "mini", "stars", max_images=8, calibration=file)
    assert comparison.forecast.retention_pct == pytest.approx(100, abs=4)
    write_json(tmp_path / REPORT_FILE, comparison.to_dict())
    evidence = read_evidence(tmp_path).with_forecast(load_calibration(file))
    gated = next(one for one in GATED if one.option == "--min-forecast-retention")
    assert judge(evidence, [parse_limit(gated, "90")])[0].outcome == "passed"
    (verdict,) = judge(read_evidence(tmp_path), [parse_limit(gated, "90")])
    assert verdict.outcome == "not measured"
    arguments = ["gate", str(tmp_path), "--min-forecast-retention", "90", "--confident", "--json"]
    done = runner.invoke(app, [*arguments, "--calibration", str(file)])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["forecast"]["low_pct"] > 90
    refused = runner.invoke(app, [*arguments, "--calibration", str(tmp_path / REPORT_FILE)])
    assert refused.exit_code == 2
    assert "is no calibration" in refused.stderr

    model = ds.load("mini")
    monitor = ds.Monitor(model, "stars", max_images=8, calibration=file, echo=None)
    seen = monitor.observe(model.module, step=1)
    assert seen.scalars()["forecast_retention_pct"] == comparison.forecast.retention_pct
    assert ds.Observation.from_event(json.loads(json.dumps(seen.to_event()))) == seen
