"""The section of a model card says what the report says, and no name in it is taken for a mark."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftscope.analysis.model_card import model_card
from driftscope.cli import app

runner = CliRunner()
SCORE = {
    "pretrained_accuracy_pct": 80.0,
    "accuracy_pct": 60.0,
    "num_correct": 60,
    "num_images": 100,
    "retention_pct": 75.0,
    "flows": {"num_lost": 22, "num_gained": 2},
    "doubts": [],
}
COMPARISON: dict[str, Any] = {
    "pretrained": "mini",
    "adapted": "my clip",
    "images": "photos",
    "num_images": 24,
    "scalars": {"cka": 0.71234},
    "drift": {},
    "transfer": {"pets": SCORE},
}


def test_it_says_verdict_retention_cka_and_the_command() -> None:
    text = model_card(COMPARISON, "1.2.3")
    assert "**Lost: retention is 75.0 % (95 %: " in text
    assert "on pets, below 90 %.**" in text
    assert "- Measured: Zero-shot accuracy on pets: 80.0 % (100 images) before" in text
    assert "; retention 75.0 % (95 % interval " in text
    assert "- CKA with the pretrained model is 0.712, on 24 images of photos." in text
    assert text.endswith("    driftscope compare mini 'my clip' --images photos --transfer pets\n")


def test_an_estimate_is_never_called_measured_and_a_doubt_is_told() -> None:
    estimate = {
        "pool": "world",
        "retention_pct": 91.0,
        "low_90_pct": 88.0,
        "high_90_pct": 94.0,
        "sentence": "Retention 91.0 % (estimated from 400 unlabeled images; 90 %: 88.0 to 94.0).",
        "doubts": ["the pool is small"],
    }
    given = {"transfer": {}, "estimate": estimate, "pool": "world", "classes": "names.txt"}
    text = model_card({**COMPARISON, **given}, "1.2.3")
    assert "Measured" not in text
    assert f"- Estimated on world: {estimate['sentence']}" in text
    assert "- Doubtful: the pool is small." in text
    assert text.endswith("--images photos --pool world --classes names.txt\n")


def test_protocols_but_zero_shot_are_asked_for_in_the_command() -> None:
    sets = {"pets (k-NN)": SCORE, "pets (linear probe)": SCORE}
    command = model_card({**COMPARISON, "transfer": sets}, "1").splitlines()[-1]
    assert command.endswith("--transfer pets --transfer-by knn --transfer-by linear_probe")


def test_no_name_is_taken_for_a_mark() -> None:
    name = "<script>*x*\n\n# [head](http://x) `y`"
    text = model_card({**COMPARISON, "images": name, "transfer": {name: SCORE}}, "1")
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    assert [line for line in lines if line.startswith("#")] == ["## What fine-tuning has kept"]
    assert all("\\<script\\>\\*x\\*" in line for line in lines if "script" in line)
    assert len([line for line in text.splitlines() if line.startswith("    ")]) == 1


def test_the_command_writes_it_from_a_real_comparison(
    tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    images, folder = str(coloured_images), str(tmp_path / "compared")
    asked = ["--images", images, "--transfer", images, "--out", folder]
    assert (
        runner.invoke(app, ["compare", str(tiny_clip), str(other_tiny_clip), *asked]).exit_code == 0
    )
    out = tmp_path / "card.md"
    done = runner.invoke(app, ["card", folder, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text() == runner.invoke(app, ["card", folder]).stdout
    assert "CKA with the pretrained model is" in out.read_text()
    report = json.loads((tmp_path / "compared" / "report.json").read_text())
    report["scalars"]["cka"] = 1.0
    (tmp_path / "compared" / "report.json").write_text(json.dumps(report))
    assert_refused(folder, "was changed after it was written")


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"kind": "monitor"}', "is no comparison (its kind is 'monitor')"),
     ('{"kind": "comparison", "scalars": {}}', "is damaged: it has no")],
)  # fmt: skip
def test_what_is_no_comparison_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "report.json").write_text(content)
    assert_refused(str(tmp_path), words)


def assert_refused(folder: str, words: str) -> None:
    done = runner.invoke(app, ["card", folder])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
