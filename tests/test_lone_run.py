"""The page of a run that belongs to no study, from records made by hand."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import HOSTILE, write_fake_study
from typer.testing import CliRunner

from driftscope.analysis.advice import advice_on_run
from driftscope.analysis.training_summaries import run_summary
from driftscope.cli import app
from driftscope.config import parse_run_spec
from driftscope.gate.judging import read_evidence
from driftscope.metrics import METRICS
from driftscope.records import RESULT_FILE, load_run, training_images_sentence
from driftscope.records.schema import Splits as RunSplits
from driftscope.report.lone_run import write_run_page
from driftscope.report.run_facts import said as said_of

runner = CliRunner()


def lone_run(folder: Path, **changes: Any) -> Path:
    """A run's folder by itself, with these parts of its result changed."""
    study = write_fake_study(folder / "s", methods=("full_ft",), rates=(1e-3,), seeds=(0,))
    [run] = (study / "runs").iterdir()
    place = folder / "a run"
    shutil.move(run, place)
    result = json.loads((place / RESULT_FILE).read_text())
    score = result["selected"]["transfer"]["concepts100"]
    before = result["pretrained"]["transfer"]["concepts100"]["num_correct"]
    score["flows"] |= {"num_lost": before - score["num_correct"], "num_gained": 0}
    (place / RESULT_FILE).write_text(json.dumps({**result, **changes}))
    return place


def without(run: Path, *keys: str) -> dict[str, Any]:
    """The selected point of a run's result without these parts."""
    selected = json.loads((run / RESULT_FILE).read_text())["selected"]
    return {name: value for name, value in selected.items() if name not in keys}


def page_of(run: Path) -> str:
    return write_run_page(load_run(run), run).read_text()


def test_its_first_screen_has_the_verdict_what_to_do_and_a_picture(tmp_path: Path) -> None:
    run = lone_run(tmp_path)
    kept = load_run(run).main_score.retention_pct
    first, rest = page_of(run).split('id="in-numbers"')
    assert f"Lost: retention is <strong>{kept:.1f}\u00a0%</strong>" in first
    assert "driftscope rescue" in first
    assert f"{run}" in first  # the run's own folder, to be pasted
    assert 'aria-label="Retention with its interval: concepts100, measured' in first
    for heading in ("Over training", "What was forgotten", "Layer by layer", "Head by head",
                    "Attention before and after", "Configuration", "Provenance"):  # fmt: skip
        assert f">{heading}</h2>" in rest


def test_a_headline_of_cka_says_of_which_epoch_it_is_where_another_one_is_selected(
    tmp_path: Path,
) -> None:
    run = lone_run(tmp_path)
    spec = json.loads((run / "spec.json").read_text()) | {"protocol": "paper"}
    (run / "spec.json").write_text(json.dumps(spec))
    result = json.loads((run / RESULT_FILE).read_text())
    result["spec"] |= {"protocol": "paper"}
    del result["selected"]["transfer"]
    last, first = result["last"]["epoch"], result["selected"]["epoch"]
    result["selected"]["epoch"] = first - 1
    (run / RESULT_FILE).write_text(json.dumps(result))
    record = load_run(run)
    headline = run_summary(record, advice_on_run(record, str(run))).headline
    cka = METRICS["cka"].text(result["last"]["drift"]["cka"])
    assert f"CKA with the pretrained model is {cka} at epoch {last}, the last one." in headline
    assert "None" not in headline


def test_it_stands_alone_without_a_study_a_missing_link_or_a_request(tmp_path: Path) -> None:
    text = page_of(lone_run(tmp_path))
    ids = set(re.findall(r'\bid="([^"]+)"', text))
    links = re.findall(r'<a [^>]*\bhref="([^"]+)"', text)
    assert links
    assert [one for one in links if one[1:] not in ids] == []
    assert "STUDY" not in text
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", text) == []
    assert HOSTILE not in text


def test_a_run_under_its_own_budget_is_judged_at_it(tmp_path: Path) -> None:
    run = lone_run(tmp_path)
    assert "less than the 90 % to keep" in advice_on_run(load_run(run), "r").verdict
    given = {"pool": "concepts100", "budget": {"retention_pct": 5}}
    record = load_run(run)
    budgeted = replace(record, spec=parse_run_spec(record.spec.model_dump() | given))
    advice = advice_on_run(budgeted, "r")
    assert advice.outcome == "kept"
    assert "at least the 5 % to keep" in advice.verdict
    page = write_run_page(budgeted, tmp_path / "page").read_text()
    assert "90 % is a convention" not in page
    assert "90 % is a convention" in page_of(run)
    of_gate = replace(read_evidence(run), trained_under_pct=5.0)
    assert "at least the 5 % to keep" in of_gate.advice().verdict
    assert "less than the 95 % to keep" in of_gate.advice(95).verdict


def splits_of(train: int, given: int, **more: Any) -> dict[str, Any]:
    return {"num_images": {"train": train, "val": 300, "probe": 200, "test": 50}, **more,
            "num_given": given}  # fmt: skip


def test_the_page_says_on_how_many_of_the_training_images_it_trained(tmp_path: Path) -> None:
    run = lone_run(tmp_path, splits=splits_of(400, 900))
    aside = "300 chose the epoch (val_images) and 200 showed the drift (probe_images)"
    said = f"Trained on 400 of the 900 training images: {aside}."
    assert training_images_sentence(load_run(run)) == (
        f"{said} To train on more, set val_images: 50 and probe_images: 20 in the run's YAML; "
        "fewer images choose and show less surely."
    )
    assert said in page_of(run)
    assert said in " ".join(sentence for _, sentence in said_of(load_run(run)))  # a study's page


def test_what_was_asked_for_costs_little_or_is_not_known_is_not_advised(tmp_path: Path) -> None:
    def told(spec: dict[str, Any] | None = None, **splits: Any) -> str:
        record = load_run(run)
        spec_ = record.spec.model_copy(update=spec or {})
        parts = RunSplits.model_validate(splits) if splits else None
        result = record.result.model_copy(update={"splits": parts})
        return training_images_sentence(replace(record, spec=spec_, result=result))

    run = lone_run(tmp_path)
    assert told(**splits_of(4500, 5000)).endswith("200 showed the drift (probe_images).")
    assert told(**splits_of(5000, 5000)) == told() == ""
    assert told({"train_images": 400}, **splits_of(400, 900)) == ""
    assert "set val_images: 50 in" in told({"probe_images": 20}, **splits_of(400, 900))
    few = {"probe_images": 20, "val_images": 50}
    assert "To train on more" not in told(few, **splits_of(400, 900))
    in_groups = told(**splits_of(300, 900))
    assert "(probe_images), and 100 are of the same groups as these." in in_groups


def test_without_a_transfer_set_it_leads_with_cka_and_says_what_to_give(tmp_path: Path) -> None:
    run = lone_run(tmp_path)
    (tmp_path / "other").mkdir()
    run = lone_run(tmp_path / "other", selected=without(run, "transfer"))
    first, rest = page_of(run).split('id="in-numbers"')
    cka = load_run(run).result.selected.drift.number("cka")
    assert f"CKA with the pretrained model is <strong>{cka:.3f}</strong>" in first
    assert "give a pool of unlabeled images or a labeled transfer set" in first
    assert 'aria-label="CKA at each layer: ' in first
    assert "a drift that saturates" in rest


def test_a_run_that_diverged_at_once_says_so_and_advises_nothing(tmp_path: Path) -> None:
    changes = {"selected": None, "last": None, "status": "diverged"}
    text = page_of(lone_run(tmp_path, **changes))
    assert "The run diverged before anything of it could be read." in text
    assert "What to do" not in text
    assert ">Layer by layer</h2>" not in text


def test_the_report_of_a_run_is_its_page_and_has_no_tables(tmp_path: Path) -> None:
    run = lone_run(tmp_path)
    told = runner.invoke(app, ["study", "report", str(run)])
    assert told.exit_code == 0, told.output
    assert "Lost: retention is" in (run / "report.html").read_text()
    elsewhere = tmp_path / "elsewhere"
    assert runner.invoke(app, ["study", "report", str(run), "--out", str(elsewhere)]).exit_code == 0
    assert (elsewhere / "report.html").exists()
    refused = runner.invoke(app, ["study", "report", str(run), "--format", "csv"])
    assert "is one run, which has a page alone and no files of csv" in refused.output
    for command in (["study", "report", str(run), str(tmp_path)], ["study", "analyse", str(run)]):
        said = " ".join(runner.invoke(app, command).output.split())
        assert "is one run and no study; driftscope study report " in said
        assert "writes its page" in said


def test_a_run_without_a_result_has_no_page(tmp_path: Path) -> None:
    run = lone_run(tmp_path)
    (run / RESULT_FILE).unlink()
    told = runner.invoke(app, ["study", "report", str(run)])
    assert told.exit_code == 2
    assert "holds no finished run" in told.output
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["spec.json", "study.json"])
def test_a_study_in_whose_folder_a_spec_lies_is_a_study(tmp_path: Path, name: str) -> None:
    from driftscope.records import is_run

    (tmp_path / name).write_text("{}")
    assert is_run(tmp_path) == (name == "spec.json")
    (tmp_path / "study.json").write_text("{}")
    assert not is_run(tmp_path)
