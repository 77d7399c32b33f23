"""The examples, run as they stand but for their sizes."""

from __future__ import annotations

import ast
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from driftscope.data.duplicates import found_among
from driftscope.rescuing import target
from driftscope.sources import load

EXAMPLES = Path(__file__).parent.parent / "examples"


BUDGET = EXAMPLES / "budget_loop.py"
MONITORED = sorted(set(EXAMPLES.glob("*.py")) - {BUDGET})
FEWER_IMAGES = {
    "range(320)": "range(128)",
    "range(320, 520)": "range(128, 208)",
    "transfer_images=300": "transfer_images=60",
}
"""What the test changes in an example, for time."""
IN_SLICES = {"labels[:320]": "labels[:128]", "labels[320:520]": "labels[128:208]"}
"""What it changes where an example takes its labels apart from its images."""


@pytest.mark.parametrize("example", MONITORED, ids=lambda path: path.stem)
def test_an_example_is_short_and_ends_with_a_report_of_what_was_forgotten(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(example.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    source = example.read_text()
    assert all(large in source for large in FEWER_IMAGES)
    for large, small in {**FEWER_IMAGES, **IN_SLICES}.items():
        source = source.replace(large, small)
    smaller = tmp_path / example.name
    smaller.write_text(source)
    names = runpy.run_path(str(smaller), run_name="__main__")
    used = names["data"].pixels(range(208), names["model"].image_size)
    assert found_among(names["monitor"]._reference.probe_pixels, [used]) == []
    last_line = capsys.readouterr().out.rstrip().splitlines()[-1]
    page = Path(last_line.partition("The page is ")[2])
    assert "<svg" in page.read_text()
    report = json.loads(page.with_name("report.json").read_text())
    assert [seen["epoch"] for seen in report["history"]] == [1, 2, 3]
    assert {"retention_pct", "embedding_drift", "val_accuracy_pct"} <= set(report["scalars"])
    assert report["scalars"]["val_accuracy_pct"] > report["history"][0]["val_accuracy_pct"]


def test_the_loop_under_a_budget_shrinks_with_its_head_and_saves_what_keeps_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BUDGET.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(BUDGET), run_name="__main__")
    look = names["look"]
    assert look.step == names["step"] == 10
    assert look.strength < 1
    assert look.found.low_90_pct < 90 <= look.kept.low_90_pct
    told = f"step 10: {look.found.retention_pct:.1f} %, now {look.kept.retention_pct:.1f} %"
    assert capsys.readouterr().out.splitlines()[-1] == told

    embeddings = load("tuned").embed_images(names["images"])
    hits = names["head"](embeddings).argmax(dim=1) == names["labels"]
    assert hits.float().mean() > 0.5  # of ten classes; the head fits the model that was saved


SMALLER = {
    "epochs=3": "epochs=1, val_images=24, probe_images=24, test_images=24, transfer_images=24",
    "train_images=480": "train_images=64",
    'transfer="concepts100")': 'transfer="concepts100", transfer_images=24, max_images=24)',
    "max_images=400": "max_images=48",
    "max_images=100": "max_images=32, pool_images=64",
}
"""What the test changes in the notebook, for time."""


def test_the_notebook_runs_in_order_shows_results_and_is_kept_without_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads((EXAMPLES / "first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    text = "\n".join("".join(cell["source"]) for cell in code)
    assert all(large in text for large in SMALLER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, "MOST_FINAL", 100)
    names: dict[str, Any] = {}
    shown = []
    for cell in code:
        source = "".join(cell["source"])
        for large, small in SMALLER.items():
            source = source.replace(large, small)
        *before, last = ast.parse(source).body
        exec(compile(ast.Module(before, []), "notebook", "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))
    compared, rescued = (one._repr_html_() for one in shown if hasattr(one, "_repr_html_"))
    retention = names["comparison"].transfer["concepts100"]["retention_pct"]
    assert f"retention {retention:.1f}\xa0%" in compared
    assert names["comparison"].advice.verdict.replace(" %", "\xa0%") in compared
    assert "<code>driftscope " in compared
    assert "one strength for all weights (wise), at scale" in rescued
    assert (tmp_path / "first-look" / "report.html").exists()
    assert names["again"].advice.verdict in capsys.readouterr().out
