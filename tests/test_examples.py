"""The examples, run as they stand."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from driftscope.data.duplicates import found_among

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_ends_with_a_report_of_what_was_forgotten(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(example.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(example), run_name="__main__")
    used = names["data"].pixels(range(520), names["model"].image_size)
    assert found_among(names["monitor"]._reference.probe_pixels, [used]) == []
    last_line = capsys.readouterr().out.rstrip().splitlines()[-1]
    page = Path(last_line.removeprefix("Look at "))
    assert "<svg" in page.read_text()
    report = json.loads(page.with_name("report.json").read_text())
    assert [seen["epoch"] for seen in report["history"]] == [1, 2, 3]
    assert {"retention_pct", "embedding_drift", "val_accuracy_pct"} <= set(report["scalars"])
    assert report["scalars"]["val_accuracy_pct"] > report["history"][0]["val_accuracy_pct"]
