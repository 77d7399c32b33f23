"""What editors and other programs are told holds for every shipped spec and for real reports."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from monitored import clip_of, monitor_of
from typer.testing import CliRunner

from driftscope.cli import app
from driftscope.config import RunSpec, canonical_spec, load_study_spec
from driftscope.config.explain import METHOD_KINDS
from driftscope.config.source import read_yaml
from driftscope.config.study import shipped_studies
from driftscope.metrics import METRICS
from driftscope.schemas import SCHEMAS
from driftscope.study.matrix import expand

runner = CliRunner()


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    """As the command prints them."""
    found = {}
    for name in SCHEMAS:
        shown = runner.invoke(app, ["schema", name])
        assert shown.exit_code == 0, shown.output
        schema = json.loads(shown.stdout)
        Draft202012Validator.check_schema(schema)
        found[name] = Draft202012Validator(schema)
    return found


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_and_their_runs_are_valid(
    name: str, validators: dict[str, Draft202012Validator]
) -> None:
    values, _ = read_yaml(shipped_studies()[name])
    validators["study"].validate(values)
    specs = expand(load_study_spec(name))
    for spec in specs[:: len(specs) // 10 or 1]:
        validators["run"].validate(canonical_spec(spec))
        validators["run"].validate(spec.model_dump(mode="json"))


@pytest.mark.parametrize(
    "text",
    [
        "{learning_rate: 1.0e-3}",
        "{method: lora, learning_rate: fast}",
        "{method: {kind: lora, rank: 0}, learning_rate: 1.0}",
        "{method: freeze_first, learning_rate: 1.0}",
        "{method: lora, learning_rte: 1.0, learning_rate: 1.0}",
        "{method: lora, learning_rate: 1.0, batch_size: 0}",
    ],
)
def test_what_driftscope_refuses_an_editor_marks(
    text: str, validators: dict[str, Draft202012Validator]
) -> None:
    values = yaml.safe_load(text)
    with pytest.raises(ValueError):
        RunSpec.model_validate(values)
    assert not validators["run"].is_valid(values)


@pytest.mark.parametrize(
    "text",
    [
        "{method: lora, learning_rate: 1.0, class_words: {cat: house cat}}",
        "{method: {kind: peft, type: OFT, options: {r: 4}}, learning_rate: 1.0}",
    ],
)
def test_short_forms_are_valid(text: str, validators: dict[str, Draft202012Validator]) -> None:
    values = yaml.safe_load(text)
    RunSpec.model_validate(values)
    validators["run"].validate(values)


def test_a_schema_is_written_to_a_file_or_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    assert runner.invoke(app, ["schema", "run", "--out", str(file)]).exit_code == 0
    assert json.loads(file.read_text()) == json.loads(runner.invoke(app, ["schema", "run"]).stdout)
    refused = runner.invoke(app, ["schema", "run", "--out", str(tmp_path)])
    assert refused.exit_code == 2
    assert "is a folder; give a file" in " ".join(refused.output.split())


def test_an_axis_may_give_what_the_base_leaves_out(
    validators: dict[str, Draft202012Validator],
) -> None:
    study: dict[str, Any] = {"name": "x", "base": {"method": "freeze_first"}}
    study["axes"] = {"method.blocks": [1, 2], "learning_rate": [0.1]}
    validators["study"].validate(study)
    assert not validators["study"].is_valid({**study, "axes": {"method.block": [1]}})
    assert not validators["study"].is_valid({**study, "axes": {"learning_rate": 0.1}})
    assert not validators["study"].is_valid({**study, "base": {"epoch": 1}})


def test_an_editor_completes_every_key_and_method() -> None:
    schema = SCHEMAS["run"]()
    assert set(schema["properties"]) == set(RunSpec.model_fields)
    kinds = [one["properties"].get("kind", {}).get("const") for one in schema["$defs"].values()]
    assert set(METHOD_KINDS) <= set(kinds)
    assert all(one.get("description") for one in schema["$defs"].values())


def test_a_comparisons_report_is_valid_and_described_whole(
    tiny_clip: Path,
    other_tiny_clip: Path,
    coloured_images: Path,
    tmp_path: Path,
    validators: dict[str, Draft202012Validator],
) -> None:
    images = str(coloured_images)
    asked = ["--images", images, "--transfer", images, "--pool", images, "--out", str(tmp_path)]
    shown = runner.invoke(app, ["compare", str(tiny_clip), str(other_tiny_clip), *asked])
    assert shown.exit_code == 0, shown.output
    report = json.loads((tmp_path / "report.json").read_text())
    validators["report"].validate(report)
    assert (report["pool"], report["classes"]) == (images, None)
    described = validators["report"].schema["$defs"]["ComparisonReport"]["properties"]
    assert set(report) - {"digest"} <= set(described)
    (name,) = set(report["scalars"]) & {"cka"}
    too_high = {**report, "scalars": {**report["scalars"], name: METRICS["cka"].bounds[1] + 1}}
    assert not validators["report"].is_valid(too_high)
    assert not validators["report"].is_valid({**report, "scalars": {"ckaa": 0.5}})


def test_a_monitors_report_is_valid_and_described_whole(
    tiny_clip: Path,
    coloured_images: Path,
    tmp_path: Path,
    validators: dict[str, Draft202012Validator],
) -> None:
    monitor = monitor_of(tiny_clip, coloured_images, transfer=str(coloured_images))
    monitor.observe(clip_of(tiny_clip), step=1, val_accuracy_pct=50.0)
    monitor.report(tmp_path / "new")
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    validators["report"].validate(report)
    described = validators["report"].schema["$defs"]["MonitorReport"]["properties"]
    assert set(report) - {"digest"} <= set(described)
