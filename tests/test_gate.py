import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_runs import fake_result
from scipy.stats import binomtest
from typer.testing import CliRunner

import driftscope as ds
from driftscope.analysis.estimate_charts import told as told_of_estimates
from driftscope.cli import app
from driftscope.cli.terminal import PlainConsole
from driftscope.config import parse_run_spec
from driftscope.errors import ConfigError, RecordError
from driftscope.gate.judging import Evidence, judge, read_evidence
from driftscope.gate.limits import GATED, parse_limit
from driftscope.metrics import drifts, units
from driftscope.records import epochs_sentence, load_run, runs_table
from driftscope.report.run_facts import said
from driftscope.stats.proportions import paired_ratio_interval

runner = CliRunner()
BY_OPTION = {gated.option: gated for gated in GATED}


def score(num_right: int, num_images: int, lost: int, gained: int) -> dict[str, Any]:
    before = num_right + lost - gained
    return {
        "num_correct": num_right,
        "num_images": num_images,
        "accuracy_pct": 100 * num_right / num_images,
        "wilson_low_pct": 100 * binomtest(num_right, num_images).proportion_ci(method="wilson").low,
        "retention_pct": 100 * num_right / before if before else None,
        "flows": {"num_lost": lost, "num_gained": gained},
    }


def comparison(**scalars: float | None) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "pretrained": "mini",
        "adapted": "tuned",
        "scalars": {"embedding_drift": 0.2, "cka": 0.9, "delta_entropy_pct": -8.0, **scalars},
        "transfer": {"pets": score(90, 100, 8, 3), "cars": score(40, 100, 12, 2)},
    }


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def gated(path: Path, *arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, ["gate", str(path), *arguments])
    assert isinstance(result.exception, SystemExit | None)  # else it would be exit code 1, too
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return write(tmp_path / "report.json", comparison())


def test_limits_that_are_kept_exit_with_0_and_one_that_is_not_with_1(report: Path) -> None:
    code, shown = gated(report, "--max-embedding-drift", "0.3", "--min-cka", "0.9")
    assert code == 0
    assert "All 2 limits kept" in shown
    code, shown = gated(report, "--max-embedding-drift", "0.3", "--min-cka", "0.95")
    assert code == 1
    assert "CKA is 0.900, not at least 0.95" in shown


def test_a_doubtful_number_does_not_pass(tmp_path: Path) -> None:
    values = comparison()
    values["transfer"]["pets"]["doubts"] = ["2 of its 3 classes share their prompt"]
    report = write(tmp_path / "report.json", values)
    code, shown = gated(report, "--min-retention", "pets=50")
    assert code == 1
    assert "is doubtful: 2 of its 3 classes share their prompt" in shown
    assert gated(report, "--min-retention", "cars=50")[0] == 0


def test_a_doubt_about_the_whole_report_lets_no_retention_pass(tmp_path: Path) -> None:
    report = write(tmp_path / "report.json", {**comparison(), "doubts": ["turn them round"]})
    code, shown = gated(report, "--min-retention", "cars=50")
    assert code == 1
    assert "is doubtful: turn them round" in shown


def test_a_long_name_is_told_whole_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "/home/somebody/datasets/imagenet-validation-folder/val_images_2012_large"
    values = comparison()
    values["transfer"] = {name: values["transfer"]["pets"]}
    monkeypatch.setattr("driftscope.cli.terminal.out", PlainConsole(width=80))
    shown = gated(write(tmp_path / "report.json", values), "--min-retention", "1")[1]
    assert "…" not in shown
    table = shown.split("The limit is kept")[0]
    assert "val_images_2012_large" in "".join(table.split())


def test_a_gate_that_passes_advises_no_gate(tmp_path: Path) -> None:
    values = comparison()
    kept = {"retention_pct": 99.0, "flows": None}
    values["transfer"] = {"pets": {**values["transfer"]["pets"], **kept}}
    report = write(tmp_path / "report.json", values)
    code, shown = gated(report, "--min-retention", "90")
    assert code == 0
    assert "Kept: retention is 99.0 %" in shown
    assert "driftscope gate" not in shown


def test_the_folder_of_a_report_is_as_good_as_its_file(report: Path) -> None:
    assert gated(report.parent, "--max-embedding-drift", "0.3")[0] == 0


def test_what_was_not_measured_has_not_passed(report: Path) -> None:
    code, shown = gated(report, "--max-weight-drift", "1")
    assert code == 1
    assert "the report has no weight drift, so it cannot have passed" in shown


@pytest.mark.parametrize("value", [math.nan, None, math.inf, -math.inf, 10**400])
def test_what_is_no_number_has_not_passed(tmp_path: Path, value: float | None) -> None:
    path = write(tmp_path / "report.json", comparison(embedding_drift=value, cka=value))
    for limit in (("--max-embedding-drift", "2"), ("--min-cka", "0")):
        assert gated(path, *limit)[0] == 1


def test_a_retention_limit_without_a_name_holds_for_every_transfer_set(report: Path) -> None:
    code, shown = gated(report, "--min-retention", "90")
    assert code == 1
    assert "retention on cars is 80.0 %, not at least 90 %" in shown
    assert gated(report, "--min-retention", "pets=90")[0] == 0
    assert gated(report, "--min-retention", "pets=90", "--min-retention", "cars=75")[0] == 0


def test_a_transfer_set_that_the_report_has_not_is_named(report: Path) -> None:
    code, shown = gated(report, "--min-retention", "pet=90")
    assert code == 2
    assert "did you mean 'pets'" in shown


def test_a_report_without_transfer_sets_does_not_pass_a_retention_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", {**comparison(), "transfer": {}})
    code, shown = gated(path, "--min-retention", "1")
    assert code == 1
    assert "the report has no retention" in shown


def test_the_sign_of_a_change_of_attention_is_left_aside(report: Path) -> None:
    assert gated(report, "--max-entropy-change", "8")[0] == 0
    assert gated(report, "--max-entropy-change", "7.9")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no limit was asked for"),
        (("--min-retention", "0.9"), "makes no sense: a limit lies from 1 to 1000 %"),
        (("--max-embedding-drift", "30"), "makes no sense: a limit lies from 0 to 2"),
        (("--min-cka", "nan"), "takes a number, not 'nan'"),
        (("--min-retention", "pets=high"), "takes a number or NAME=NUMBER, not 'pets=high'"),
        (("--min-cka", "pets=0.5"), "takes a number alone"),
        (("--best", "--min-cka", "0.5"), "only a monitored training has a best step"),
    ],
)
def test_limits_that_say_nothing_are_refused(
    report: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    code, shown = gated(report, *arguments)
    assert code == 2
    assert sentence in shown


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("{}", "no report that can be judged"),
    ],
)
def test_a_file_that_is_no_report_exits_with_2(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "report.json").write_text(content)
    code, shown = gated(tmp_path, "--min-cka", "0.5")
    assert code == 2
    assert sentence in shown


@pytest.mark.parametrize(
    "damage",
    [
        {"transfer": {"pets": 5}},
        {"transfer": [1]},
        {"transfer": {"pets": {"retention_pct": 95, "flows": 3}}},
        {"kind": "monitor", "latest": {"step": 1, "scalars": {}}, "history": [5]},
        {"kind": "monitor", "latest": {"step": 1, "scalars": {}}, "history": 5},
        {"kind": "monitor", "latest": {"step": 1, "scalars": {}}, "history": {"step": 1}},
    ],
)
def test_a_report_of_another_shape_exits_with_2(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = write(tmp_path / "report.json", {**comparison(), **damage})
    code, shown = gated(path, "--min-retention", "90", "--confident")
    assert code == 2
    assert "is damaged" in shown


@pytest.mark.parametrize("value", ["95", True, None, math.inf])
def test_a_score_that_is_no_number_has_not_passed(tmp_path: Path, value: Any) -> None:
    scores = {"pets": {"retention_pct": value, "accuracy_pct": value}}
    path = write(tmp_path / "report.json", {**comparison(), "transfer": scores})
    for limit in ("--min-retention", "--min-zero-shot"):
        code, shown = gated(path, limit, "50")
        assert code == (1 if value is None else 2)  # None is not measured, the others are damage
        assert value is None or f"transfer.pets.accuracy_pct is {value!r}, not" in shown


def test_a_monitors_report_without_its_history_is_judged_by_its_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", {**monitored(None), "history": None})
    assert gated(path, "--max-embedding-drift", "0.6")[0] == 0
    assert gated(path, "--max-embedding-drift", "0.4")[0] == 1


def test_an_imported_run_is_judged_and_a_damaged_one_is_a_sentence(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    spec = parse_run_spec(tiny_run, "test")
    selected = {
        "epoch": 2,
        "val_accuracy_pct": 93.0,
        "reading": {"entropy": [[1.0]], "erf95": [[0.5]], "gini": [[0.5]]},
        "drift": {"cka": 0.8},
        "transfer": {"pets": {"accuracy_pct": 60.0, "num_images": 100, "retention_pct": 92.0}},
    }
    write(tmp_path / "spec.json", spec.model_dump(mode="json"))
    write(tmp_path / "result.json", fake_result(spec, selected=selected))
    limits = ("--min-retention", "90", "--min-cka", "0.7", "--min-val-accuracy", "90")
    assert gated(tmp_path, *limits)[0] == 0
    code, shown = gated(tmp_path, *limits, "--confident")
    assert code == 1
    assert "does not say how many images validation accuracy was counted on" in shown
    write(tmp_path / "result.json", {"schema": 1, "selected": 5})
    assert gated(tmp_path, *limits)[0] == 2


def test_a_run_of_the_papers_protocol_is_told_by_the_model_that_it_keeps(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    """Structure is of the last epoch; the estimate and a gate are of the one that is kept."""
    spec = parse_run_spec({**tiny_run, "protocol": "paper", "pool": "stars"}, "test")

    def point(epoch: int, kept: float, cka: float) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "reading": {"entropy": [[1.0]], "erf95": [[0.5]], "gini": [[0.5]]},
            "drift": {"cka": cka, "estimated_retention_pct": kept},
            "transfer": {"pets": {"accuracy_pct": 60.0, "num_images": 99, "retention_pct": kept}},
            "estimate": {
                "pool": "stars",
                "retention_pct": kept,
                "low_90_pct": kept - 5,
                "high_90_pct": kept + 5,
            },
        }

    last = point(2, 21.0, 0.3)
    last["drift"] = {"cka": 0.3, "unmeasured": {"estimated_retention_pct": "why", "gini": "none"}}
    result = fake_result(spec, selected=point(1, 88.0, 0.9), last=last)
    result["pretrained"]["transfer"] = {"pets": {"accuracy_pct": 68.0, "num_images": 99}}
    write(tmp_path / "spec.json", spec.model_dump(mode="json"))
    write(tmp_path / "result.json", result)
    record = load_run(tmp_path)
    [row] = runs_table([record]).to_dict("records")
    assert row["selected_epoch"] == 1
    assert (row["retention_pct"], row["estimated_retention_pct"]) == (88.0, 88.0)
    assert (row["low_90_pct"], row["high_90_pct"], row["cka"]) == (83.0, 93.0, 0.3)
    assert record.drift.unmeasured == {"gini": "none"}
    assert "are 0.0 points off on average" in told_of_estimates(runs_table([record]))
    assert epochs_sentence(record) == (
        "Drift and attention are of epoch 2, the last one, as the protocol “paper” has it. "
        "Accuracy and retention are of epoch 1, whose model is kept."
    )
    assert epochs_sentence(record) in [words for _, words in said(record)]
    limits = ("--min-cka", "0.5", "--min-estimated-retention", "80", "--confident")
    assert gated(tmp_path, *limits)[0] == 0
    # a calibration learns from the table, so it is asked of the table's epoch
    evidence = read_evidence(tmp_path)
    assert (evidence.scalars["cka"], evidence.in_tables["cka"]) == (0.9, row["cka"])
    code, shown = gated(tmp_path, "--min-cka", "0.95")
    assert code == 1
    assert "CKA is 0.900, not at least 0.95" in shown


def test_a_folder_without_a_report_exits_with_2(tmp_path: Path) -> None:
    code, shown = gated(tmp_path / "none", "--min-cka", "0.5")
    assert code == 2
    assert "does not exist; give a report, such as the folder that `driftscope compare" in shown
    code, shown = gated(tmp_path, "--min-cka", "0.5")
    assert code == 2
    assert "holds neither report.json nor result.json" in shown


def test_the_advised_rescue_reads_what_the_comparison_read(tmp_path: Path) -> None:
    read = {"images": "photos", "pool": "my pool", "classes": "names.txt"}
    _, shown = gated(write(tmp_path / "r.json", {**comparison(), **read}), "--min-retention", "90")
    assert (
        "`driftscope rescue mini tuned --images photos --pool 'my pool' --classes names.txt "
        "--keep 90 --out rescued`"
    ) in shown


def test_the_advised_rescue_names_what_a_monitor_was_given(tmp_path: Path) -> None:
    watched = {"pretrained": "mini", "probe_images": "photos", "pool_as_given": "world"}
    values = {**monitored(None), "monitor": {**watched, "classes_as_given": "names.txt"}}
    values["history"][-1]["transfer"] = {"pets": score(40, 100, 12, 2)}
    _, shown = gated(write(tmp_path / "report.json", values), "--min-retention", "90")
    assert (
        "`driftscope rescue mini AFTER --images photos --pool world --classes names.txt --keep 90 "
        "--out rescued`"
    ) in shown


def test_a_gate_on_a_monitor_names_only_what_its_folder_has(tmp_path: Path) -> None:
    watched = {"pretrained": "mini", "probe_images": "photos", "pool_as_given": "concepts100"}
    watched |= {"images_are_labeled": True, "kept_model": str(tmp_path / "stopped")}
    values = {**monitored(None), "monitor": watched}
    values["history"][-1]["transfer"] = {"pets": score(40, 100, 12, 2)}
    report = write(tmp_path / "report.json", values)
    _, shown = gated(report, "--min-retention", "90")
    assert "`driftscope rescue mini AFTER --images photos" in shown
    assert "AFTER is the trained model: save it first." in shown
    assert "stopped" not in shown
    assert "As photos has labels, it fits a new classifier" in shown
    (tmp_path / "stopped").mkdir()
    _, shown = gated(report, "--min-retention", "90")
    assert f"`driftscope rescue mini {tmp_path / 'stopped'} --images photos" in shown
    assert "save it first" not in shown
    values["monitor"] = {**watched, "probe_images": "photos/test", "split_of": "photos"}
    _, shown = gated(write(tmp_path / "report.json", values), "--min-retention", "90")
    assert " --images photos --pool concepts100" in shown


def test_junit_has_a_case_for_every_limit_and_fails_what_was_not_measured(
    tmp_path: Path,
) -> None:
    name = 'cars "<&>\x1b\x00\ufffe'
    values = {**comparison(), "adapted": name, "transfer": {name: score(40, 100, 12, 2)}}
    report, junit = write(tmp_path / "report.json", values), tmp_path / "new" / "drift.xml"
    limits = ("--min-retention", "90", "--min-cka", "0.5", "--max-weight-drift", "1")
    assert gated(report, *limits, "--junit", str(junit))[0] == 1
    root = ElementTree.parse(junit).getroot()
    (suite,) = root
    for one in (root, suite):
        assert [one.get(key) for key in ("tests", "failures", "errors")] == ["3", "2", "0"]
    cases = {case.attrib["name"]: case for case in suite}
    assert list(cases) == [
        'retention on cars "<&>␛␀\ufffd at least 90 %', "CKA at least 0.5", "weight drift at most 1"
    ]  # fmt: skip
    outcomes = [[part.get("type") for part in case] for case in suite]
    assert outcomes == [["failed"], [], ["not measured"]]
    assert "the report has no weight drift" in str(suite[-1][0].text)


def test_a_report_that_is_missing_is_an_error_in_junit(tmp_path: Path) -> None:
    junit = tmp_path / "drift.xml"
    assert gated(tmp_path / "none", "--min-cka", "0.5", "--junit", str(junit))[0] == 2
    [error] = ElementTree.parse(junit).getroot().iter("error")
    assert "does not exist" in error.attrib["message"]


@pytest.mark.parametrize("limit", [["--min-retention", "0.5"], ["--min-cka", "much"]])
def test_a_limit_that_makes_no_sense_leaves_no_junit_file_that_passed(
    limit: list[str], report: Path, tmp_path: Path
) -> None:
    junit = tmp_path / "drift.xml"
    assert gated(report, "--min-cka", "0.5", "--junit", str(junit))[0] == 0
    code, shown = gated(report, *limit, "--junit", str(junit))
    assert code == 2
    [error] = ElementTree.parse(junit).getroot().iter("error")
    assert error.attrib["message"].split()[0] in shown


def test_a_junit_file_that_cannot_be_written_exits_with_2(report: Path, tmp_path: Path) -> None:
    code, shown = gated(report, "--min-cka", "0.5", "--junit", str(tmp_path))
    assert code == 2
    assert "is a folder; give a file" in shown


def test_json_says_the_same(report: Path) -> None:
    limits = ("--min-retention", "90", "--max-embedding-drift", "0.3")
    result = runner.invoke(app, ["gate", str(report), "--json", *limits])
    values = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not values["passed"]
    outcomes = {verdict["title"]: verdict["outcome"] for verdict in values["verdicts"]}
    assert outcomes == {
        "retention on pets": "passed",
        "retention on cars": "failed",
        "embedding drift": "passed",
    }


def test_confident_takes_the_lower_end_of_the_interval(report: Path) -> None:
    low = score(90, 100, 8, 3)["wilson_low_pct"]
    assert gated(report, "--min-zero-shot", "pets=85")[0] == 0
    code, shown = gated(report, "--min-zero-shot", "pets=85", "--confident")
    assert code == 1
    assert f"{low:.1f} % (lower end)" in shown
    ratio = 100 * paired_ratio_interval(87, 8, 3)[0]
    assert gated(report, "--min-retention", f"pets={ratio - 0.1:.2f}", "--confident")[0] == 0
    assert gated(report, "--min-retention", f"pets={ratio + 0.1:.2f}", "--confident")[0] == 1


def test_confident_leaves_numbers_without_an_interval_as_they_are(report: Path) -> None:
    assert gated(report, "--max-embedding-drift", "0.2", "--confident")[0] == 0


def test_confident_does_not_pass_an_accuracy_whose_images_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", comparison(val_accuracy_pct=99.0))
    assert gated(path, "--min-val-accuracy", "50")[0] == 0
    code, shown = gated(path, "--min-val-accuracy", "50", "--confident")
    assert code == 1
    assert "does not say how many images validation accuracy was counted on" in shown


def monitored(best: dict[str, Any] | None) -> dict[str, Any]:
    history = [
        {"step": step, "transfer": {"pets": score(right, 100, 98 - right, 0)}}
        for step, right in ((10, 95), (20, 60))
    ]
    return {
        "kind": "monitor",
        "scalars": {"embedding_drift": 0.5},
        "latest": {"step": 20, "scalars": {"embedding_drift": 0.5}},
        "best": best,
        "history": history,
    }


def test_a_monitors_latest_step_is_judged_and_with_best_its_best(tmp_path: Path) -> None:
    best = {"step": 10, "scalars": {"embedding_drift": 0.1}}
    path = write(tmp_path / "report.json", monitored(best))
    limits = ("--max-embedding-drift", "0.3", "--min-retention", "90")
    assert gated(path, *limits)[0] == 1
    code, shown = gated(path, *limits, "--best")
    assert code == 0
    assert "best observation of a training, step 10" in shown


def test_a_training_that_could_not_be_read_at_the_end_has_not_passed(tmp_path: Path) -> None:
    report = monitored({"step": 10, "scalars": {"embedding_drift": 0.1}})
    report["history"].append({"step": 30, "transfer": {}})  # diverged: `latest` is still step 20
    path = write(tmp_path / "report.json", report)
    code, shown = gated(path, "--max-embedding-drift", "0.9", "--min-retention", "50")
    assert code == 1
    assert "step 30: it could not be read" in shown
    assert gated(path, "--max-embedding-drift", "0.3", "--best")[0] == 0


def test_a_monitors_damaged_report_exits_with_2(tmp_path: Path) -> None:
    report = {"kind": "monitor", "scalars": {}, "latest": {"step": 1}}
    code, shown = gated(write(tmp_path / "report.json", report), "--min-cka", "0.5")
    assert code == 2
    assert "is damaged: it has no latest.scalars" in shown


def test_confident_knows_the_interval_of_a_monitors_retention(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    monitor = ds.Monitor(
        tiny_clip, coloured_images, transfer=str(coloured_images), out=tmp_path, echo=None
    )
    monitor.observe(ds.load(tiny_clip).module, step=1)
    monitor.report()
    code, shown = gated(tmp_path, "--min-retention", "5", "--confident")
    assert code == 0, shown


def test_a_monitor_that_knows_no_best_step_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", monitored(None))
    code, shown = gated(path, "--min-cka", "0.5", "--best")
    assert code == 2
    assert "names no best step" in shown


def test_a_run_a_comparison_and_their_limits(
    tiny_run: dict[str, Any], tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    from driftscope.run import run_one

    transfer = str(coloured_images)
    run = tmp_path / "run"
    run_one(parse_run_spec({**tiny_run, "transfer": [transfer]}, "test"), run)
    evidence = read_evidence(run)
    asked = {
        gated.option: parse_limit(gated, f"{min(sum(gated.metric.limit_range) / 2, 1000):g}")
        for gated in GATED
    }
    unknown = {
        verdict.title
        for verdict in judge(evidence, list(asked.values()), confident=True)
        if verdict.outcome == "not measured"
    }
    of_maps = {one.label for one in drifts() if re.search("rollout|patch_to_patch", one.key)}
    of_texts = {"text KL", "text agreement", "logit change", "text referee"}
    of_features = {"k-NN accuracy", "linear-probe accuracy"}
    of_pools = {"estimated retention", "forecast retention"}
    known = of_texts | of_maps | of_features | of_pools
    assert unknown <= known, "a tiny model that is scored zero-shot, without a pool"
    with pytest.raises(RecordError, match="selected epoch"):
        read_evidence(run, best=True)

    out = tmp_path / "compared"
    arguments = ["compare", str(tiny_clip), str(run), "--images", transfer, "--transfer", transfer]
    assert runner.invoke(app, [*arguments, "--out", str(out)]).exit_code == 0
    compared = read_evidence(out)
    same = next(iter(evidence.transfer.values())).retention_pct
    assert next(iter(compared.transfer.values())).retention_pct == pytest.approx(same)
    assert gated(out, "--max-embedding-drift", "2", "--max-weight-drift", "10")[0] == 0
    for told in (evidence, compared):
        of_set = next(iter(told.prompts.values()))
        assert of_set.templates == ["a photo of a {}"]
        assert of_set.class_words == {one: one for one in ("blue", "green", "red")}


def measured_as(words: dict[str, str], templates: list[str]) -> dict[str, Any]:
    values = comparison()
    values["transfer"]["pets"] |= {"class_words": words, "templates": templates}
    del values["transfer"]["cars"]
    return values


def test_what_was_measured_with_other_prompts_does_not_pass(tmp_path: Path) -> None:
    values = measured_as({"n1": "cat", "n2": "dog"}, ["a {}", "the {}"])
    report, words = write(tmp_path / "report.json", values), tmp_path / "words.txt"
    words.write_text("n2: dog\n")
    limit = ("--min-retention", "50")
    same = ("--class-words", str(words), "--templates", "the {}", "--templates", "a {}")
    assert gated(report, *limit, *same)[0] == 0
    code, shown = gated(report, *limit, "--templates", "a photo of a {}")
    assert code == 1
    assert "measured with 2 prompts ('a {}', …), not with the prompt 'a photo of a {}'" in shown
    assert "Kept" not in shown
    words.write_text("n1: cat\nn2: hound\n")
    code, shown = gated(report, *limit, "--class-words", str(words))
    assert code == 1
    assert "the class 'n2' was measured as 'dog', not as 'hound'" in shown
    assert gated(report, "--min-zero-shot", "50", "--class-words", str(words))[0] == 1
    write(report, comparison())  # of before the report told them
    code, shown = gated(report, *limit, "--templates", "a {}")
    assert code == 1
    assert "the report does not tell its class words and templates" in shown


def test_a_monitors_prompts_are_those_of_its_sets(tmp_path: Path) -> None:
    values = monitored(None)
    told = {"name": "pets", "templates": ["a {}"], "class_words": {"cat": "cat", "dog": "dog"}}
    values["monitor"] = {"transfer": [told]}
    report = write(tmp_path / "report.json", values)
    assert gated(report, "--min-retention", "50", "--templates", "a {}")[0] == 0
    assert gated(report, "--min-retention", "50", "--templates", "the {}")[0] == 1


def test_prompts_that_nothing_is_judged_by_are_refused(tmp_path: Path) -> None:
    report = write(tmp_path / "report.json", measured_as({"n1": "cat", "n2": "dog"}, ["a {}"]))
    words = tmp_path / "words.txt"
    words.write_text("bird: bird\n")
    code, shown = gated(report, "--min-retention", "50", "--class-words", str(words))
    assert code == 2
    assert "names one class, but none of the 2 of this set (n1, n2, …)" in shown
    code, shown = gated(report, "--min-cka", "0.5", "--class-words", str(words))
    assert code == 2
    assert "no limit was asked for on these" in shown


def test_a_limit_on_a_score_of_another_protocol_does_not_pass(tmp_path: Path) -> None:
    values = comparison()
    values["transfer"]["pets (k-NN)"] = score(90, 100, 8, 3)
    report = write(tmp_path / "report.json", values)
    assert gated(report, "--min-knn", "pets (k-NN)=50")[0] == 0
    code, shown = gated(report, "--min-zero-shot", "pets (k-NN)=50")
    assert code == 1
    assert "not measured" in shown


def test_every_limited_number_has_the_unit_that_reports_give_it() -> None:
    for one in GATED:
        if one.metric.unit:
            assert units()[one.metric.key] == one.metric.unit
    assert len(BY_OPTION) == len(GATED)


def test_the_options_of_before_are_there() -> None:
    numbers = "retention zero-shot test-accuracy val-accuracy cka cka-debiased text-agreement"
    most = "embedding-drift weight-drift text-kl logit-change entropy-change late-entropy-change"
    changes = "erf95-change gini-change head-diversity-change"
    expected = {f"--min-{one}" for one in numbers.split()}
    expected |= {f"--max-{one}" for one in (*most.split(), *changes.split())}
    assert expected <= BY_OPTION.keys()


@pytest.mark.parametrize(
    ("scalars", "option", "sentence"),
    [
        ({"cka": 1.5}, ("--min-cka", "0.5"), "CKA is 1.5, which is not possible (it is 0 to 1)"),
        ({"embedding_drift": -1.0}, ("--max-embedding-drift", "1"), "the report is wrong"),
        ({"weight_drift": -0.1}, ("--max-weight-drift", "1"), "it is 0 or more"),
    ],
)
def test_a_number_that_cannot_be_does_not_pass(
    tmp_path: Path, scalars: dict[str, float], option: tuple[str, str], sentence: str
) -> None:
    code, shown = gated(write(tmp_path / "report.json", comparison(**scalars)), *option)
    assert code == 1
    assert sentence in shown


def test_a_retention_of_a_million_percent_does_not_pass(tmp_path: Path) -> None:
    scores = {"pets": {"retention_pct": 1e6, "accuracy_pct": 90.0}}
    path = write(tmp_path / "report.json", {**comparison(), "transfer": scores})
    code, shown = gated(path, "--min-retention", "90")
    assert code == 2  # the report itself is damaged
    assert "retention_pct is 1e+06 %, which is not possible" in shown


def test_rounding_does_not_hide_why_a_limit_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", comparison(cka=0.89999))
    assert "CKA is 0.89999, not at least 0.9" in gated(path, "--min-cka", "0.9")[1]


def test_limits_are_judged_in_the_tables_order_whatever_order_they_came_in() -> None:
    evidence = Evidence(Path("x"), "x", {"cka": 1.0, "embedding_drift": 0.0}, {})
    limits = [
        parse_limit(BY_OPTION[name], "0.5") for name in ("--min-cka", "--max-embedding-drift")
    ]
    assert [one.title for one in judge(evidence, limits)] == ["CKA", "embedding drift"]
    with pytest.raises(ConfigError, match="no limit"):
        judge(evidence, [])


@pytest.mark.parametrize("shares", [(0.80, 0.15, 0.02), (0.50, 0.05, 0.05), (0.90, 0.02, 0.01)])
@pytest.mark.parametrize("num_images", [60, 500])
def test_the_interval_of_retention_covers_as_it_says(
    shares: tuple[float, float, float], num_images: int
) -> None:
    both, lost, gained = shares
    truth = (both + gained) / (both + lost)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(num_images, (*shares, 1 - sum(shares)), size=3000)
    intervals = [paired_ratio_interval(*map(int, row[:3])) for row in counts]
    above = np.mean([low <= truth for low, _ in intervals])
    covers = np.mean([low <= truth <= high for low, high in intervals])
    assert covers >= 0.94
    assert above >= 0.955  # two-sided 95 %; with few images one side takes a little more


def test_the_interval_of_retention_is_inside_what_ignores_that_the_images_are_the_same() -> None:
    low, high = paired_ratio_interval(400, 60, 10)
    before = binomtest(460, 500).proportion_ci(method="wilson")
    after = binomtest(410, 500).proportion_ci(method="wilson")
    assert after.low / before.high < low < 410 / 460 < high < after.high / before.low


def test_retention_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="undefined"):
        paired_ratio_interval(0, 0, 3)
