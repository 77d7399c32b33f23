"""A metric, a signal and a method, added as docs/extend.md says, are in every place it promises."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_plug_in import extended_copy, install

from driftscope.config import parse_run_spec, run_id

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def values(tiny_clip: Path, coloured_images: Path) -> dict[str, Any]:
    images = str(coloured_images)
    return {
        "model": str(tiny_clip),
        "dataset": images,
        "method": "full_ft",
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 16,
        "val_images": 9,
        "probe_images": 9,
        "transfer": [images],
    }


@pytest.fixture(scope="module")
def found(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with the plug-in installed finds."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("out")
    install(site)
    copy = extended_copy(tmp_path_factory.mktemp("copy"))
    path = os.pathsep.join([str(site), str(copy), str(HERE), *sys.path])
    asked = json.dumps({**values, "method": "last_norm"})
    done = subprocess.run(
        [sys.executable, str(HERE / "toy_plug_in.py"), asked, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


def test_a_runs_id_does_not_depend_on_plug_ins(
    found: dict[str, Any], values: dict[str, Any]
) -> None:
    assert found["run_id"] == run_id(parse_run_spec(values, "test"))


def test_it_is_in_the_record_and_in_the_tables_filled(found: dict[str, Any]) -> None:
    value = found["result"]["norm_ratio"]
    assert value > 0
    assert found["runs"] == [value]
    assert all(math.isfinite(one) for one in found["history"])


def test_it_is_a_signal_that_predictors_ask_about(found: dict[str, Any]) -> None:
    assert found["signal"]


def test_the_gate_limits_it(found: dict[str, Any]) -> None:
    assert found["run_passes"]["code"] == 0, found["run_passes"]
    assert found["run_fails"]["code"] == 1
    assert "norm ratio is" in found["run_fails"]["text"]


def test_it_is_in_a_comparison_its_page_and_the_terminal(found: dict[str, Any]) -> None:
    assert found["compared"]["code"] == 0
    assert "norm ratio" in found["compared"]["text"]
    assert found["report"]["scalars"]["norm_ratio"] > 0
    assert found["report"]["units"]["norm_ratio"] == "1"
    assert "Norm ratio" in found["page"]


def test_a_monitor_observes_it_and_a_threshold_tells_of_it(found: dict[str, Any]) -> None:
    assert found["observed"]["norm_ratio"] > 0
    assert any("Norm ratio is" in sentence for sentence in found["alerts"])


def test_a_monitor_tells_it_in_its_line_and_can_choose_by_it(found: dict[str, Any]) -> None:
    assert f"norm ratio {found['observed']['norm_ratio']:.3f}" in found["line"]
    assert found["best_step"] == 1


def test_the_metric_of_the_page_is_measured_and_its_gate_line_judges(found: dict[str, Any]) -> None:
    assert found["result"]["effective_rank_kept_pct"] > 0
    assert found["documented_gate"]["code"] in (0, 1)
    assert "ffective rank kept" in found["documented_gate"]["text"]


def test_the_list_of_metrics_has_it(found: dict[str, Any]) -> None:
    assert found["observed"].keys() <= found["schema"]["properties"].keys()
    (listed,) = json.loads(found["listed"]["text"])
    assert (listed["key"], listed["plug_in"]) == ("norm_ratio", "norm")


def test_what_a_plug_in_cannot_measure_is_unmeasured_with_the_reason(
    found: dict[str, Any],
) -> None:
    reasons = found["result"]["unmeasured"]
    assert "nothing to see" in reasons["failing_metric"]
    assert "not_finite gave nan" in reasons["nan_metric"]
    assert found["result"]["failing_metric"] is None
    assert found["empty"] == []
    assert found["failing_is_unmeasured"]["code"] == 1
    assert "was not measured: " in found["failing_is_unmeasured"]["text"]
    assert "nothing to see" in found["failing_is_unmeasured"]["text"]


def test_a_broken_plug_in_is_named_in_a_sentence_and_the_rest_goes_on(
    found: dict[str, Any],
) -> None:
    assert found["broken"] == ["gone", "taken"]
    assert any("'gone' (toy:NOT_THERE) is left out" in one for one in found["warnings"])
    assert any("there is a metric cka already" in one for one in found["warnings"])


def test_a_plug_ins_metric_is_on_every_page_in_tables_figures_and_facts(
    found: dict[str, Any],
) -> None:
    for page in (found["study"]["page"], found["monitor_page"]):
        assert "Norm ratio" in page["columns"]
        assert any(words.startswith("Norm ratio ") for words in page["figures"])
    assert "Norm ratio" in found["compare_page"]["facts"]
    numbers = {heading: value for heading, value, *_ in found["study"]["run_page"]["numbers"]}
    assert numbers["Norm ratio"] == f"{found['result']['norm_ratio']:.3f}"
    assert "norm_ratio" in found["study"]["run_page"]["measures"]


def test_a_plug_ins_metric_is_in_the_tables_the_terminal_loggers_and_questions(
    found: dict[str, Any],
) -> None:
    study = found["study"]
    assert {"norm_ratio"} <= set(study["tables"]["runs"]) & set(study["tables"]["history"])
    assert "Norm ratio" in study["terminal"]
    assert "norm ratio" in study["watched"]
    assert {"norm_ratio"} <= set(study["asked"]) & set(study["contrasted"])
    assert "driftscope/norm_ratio" in found["log_keys"]
    assert "--min-norm-ratio" in found["gate_options"]
    assert "| `norm_ratio` | Norm ratio |" in found["documented"]


def test_a_signal_of_two_files_is_wherever_the_others_are(found: dict[str, Any]) -> None:
    study, change = found["study"], "delta_peak_pct"
    assert "peak" in found["reading"]
    assert len(found["changes"][f"{change}_per_layer"]) > 1
    for table in ("runs", "history", "layers"):
        assert change in study["tables"][table]
    assert {"peak", "pretrained_peak"} <= set(study["tables"]["heads"])
    for page in (study["page"], found["monitor_page"], found["compare_page"]):
        assert "Δ peak, %" in page["columns"]
        assert any(words.startswith("Δ peak, % ") for words in page["figures"])
    assert change in study["run_page"]["measures"]
    assert change in study["run_page"]["layers"]
    assert "Δ\u00a0peak" in study["terminal"] or "Δ peak" in study["terminal"]
    assert "Δ peak" in study["watched"]
    assert "Δ peak" in found["compared"]["text"]
    assert change in study["asked"]
    assert change in study["profile"]
    assert "--max-peak-change" in found["gate_options"]
    assert {f"driftscope/{change}", f"driftscope/{change}_layer_01"} <= set(found["log_keys"])
    assert found["report"]["scalars"][change] == pytest.approx(found["changes"][change], rel=1e-6)
    assert change in found["schema"]["properties"]
    assert f"| `{change}` | Δ peak, % |" in found["documented"]


def test_a_method_of_two_files_is_trained_recorded_and_compared(found: dict[str, Any]) -> None:
    assert found["method"] == "last_norm"
    assert 0 < found["trained"] < 1000
    assert found["compared"]["code"] == 0
    assert found["changes"]["weight_drift"] > 0
    assert "last_norm" in found["study"]["terminal"]
