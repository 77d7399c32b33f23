"""The section of a model card says what the report says, and no name in it is taken for a mark."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import (
    EvalResultEntry,
    eval_result_entries_to_yaml,
    parse_eval_result_entries,
)
from huggingface_hub.errors import LocalEntryNotFoundError
from typer.testing import CliRunner

from driftscope.analysis.model_card import Benchmark, eval_results, model_card
from driftscope.cli import app
from driftscope.errors import ConfigError, ModelError
from driftscope.hugging_face import commit_card, with_section
from driftscope.records import write_sealed

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
    assert "**Lost: retention is 75.0 % (95 % interval " in text
    assert "on pets, less than the 90 % to keep.**" in text
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
        "sentence": "Estimated retention 91.0 % (from 400 unlabeled images of world; 90 % interval "
        "88.0 to 94.0).",
        "doubts": ["the pool is small"],
    }
    given = {"transfer": {}, "estimate": estimate, "pool": "world", "classes": "names.txt"}
    text = model_card({**COMPARISON, **given}, "1.2.3")
    assert "Measured" not in text
    assert f"- {estimate['sentence']}" in text
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
    place, model = ["--benchmark", f"{images}=me/colours:default"], tmp_path / "model"
    done = runner.invoke(app, ["card", folder, *place, "--eval-results", str(model)])
    assert done.exit_code == 0, done.output
    (file,) = (model / ".eval_results").iterdir()
    assert yaml.safe_load(file.read_text())[0]["dataset"]["id"] == "me/colours"
    shutil.rmtree(model / ".eval_results")
    (model / ".eval_results").symlink_to(tmp_path / "compared")
    assert_refused(folder, ".eval_results is a link", *place, "--eval-results", str(model))
    assert_refused(folder, "--benchmark needs --eval-results FOLDER or --push REPO", *place)
    assert_refused(folder, "--eval-results needs --benchmark", "--eval-results", str(model))
    report = json.loads((tmp_path / "compared" / "report.json").read_text())
    whole = {key: value for key, value in report.items() if key != "digest"}
    report["scalars"]["cka"] = 1.0
    (tmp_path / "compared" / "report.json").write_text(json.dumps(report))
    assert_refused(folder, "was changed after it was written")
    for key, value, told in (
        ("estimate", {"kind": "x"}, "it has no estimate.sentence"),
        ("forecast", {"a": 1}, "it has no forecast.sentence"),
        ("retrieval", {"photos": {}}, "it has no retrieval.photos.image_to_text"),
        ("transfer", None, "transfer is None, not an object"),
    ):
        write_sealed(tmp_path / "compared" / "report.json", {**whole, key: value})
        assert_refused(folder, told)


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"kind": "monitor"}', "is no comparison (its kind is 'monitor')"),
     ('{"kind": "comparison", "scalars": {}}', "is damaged: it has no")],
)  # fmt: skip
def test_what_is_no_comparison_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "report.json").write_text(content)
    assert_refused(str(tmp_path), words)


def test_a_folder_without_a_comparison_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert_refused(str(tmp_path), "is a run (it has no report.json); compare first")


def assert_refused(folder: str, words: str, *options: str) -> None:
    done = runner.invoke(app, ["card", folder, *options])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


BENCHMARK = Benchmark("pets", "my-team/pets", "default")


def test_results_are_as_the_hub_reads_them_and_hold_the_accuracy_not_the_retention() -> None:
    doubtful = {**SCORE, "doubts": ["few images"]}
    (path, entries), *others = eval_results(
        {**COMPARISON, "transfer": {"pets": doubtful}}, [BENCHMARK], "1.2.3"
    ).items()
    assert (path, others) == (".eval_results/driftscope_my_team_pets_default.yaml", [])
    (read,) = parse_eval_result_entries(yaml.safe_load(yaml.safe_dump(entries)))
    assert read == EvalResultEntry("my-team/pets", "default", 60.0, notes=read.notes)
    assert eval_result_entries_to_yaml([read]) == entries
    assert "Zero-shot accuracy on pets: 80.0 % (100 images) before, 60.0 %" in read.notes
    assert "; retention 75.0 % (95 % interval " in read.notes
    assert read.notes.endswith("Doubtful: few images. Measured by driftscope 1.2.3.")


@pytest.mark.parametrize("text", ["pets", "pets=my-team/pets", "pets=pets:default", "=a/b:c"])
def test_a_benchmark_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not SET=OWNER/DATASET:TASK"):
        Benchmark.parse(text)


def test_a_set_that_was_not_scored_has_no_result() -> None:
    with pytest.raises(ConfigError, match="no accuracy on 'birds'; it was scored on: pets"):
        eval_results(COMPARISON, [Benchmark.parse("birds=a/birds:default")], "1")


def test_a_section_replaces_an_earlier_one_alone() -> None:
    once = with_section("---\nlicense: mit\n---\n\n# Mine\n", "## Kept\n\n75 %\n")
    again = with_section(f"{once}\n## Later\n", "## Kept\n\n80 %\n")
    assert again == once.replace("75 %", "80 %") + "\n## Later\n"
    assert once.startswith("---\nlicense: mit\n---\n\n# Mine\n\n<!-- driftscope begin -->\n## Kept")
    assert with_section("", "x").startswith("<!-- driftscope begin -->")


class FakeHub:
    """In place of `HfApi`: it has one model, and tells what is committed to it."""

    def __init__(self, readme: Path | Exception) -> None:
        self.readme, self.commits = readme, []

    def repo_info(self, repo_id: str) -> SimpleNamespace:
        if repo_id != "me/my-clip":
            raise OSError("404 Repository Not Found.")
        return SimpleNamespace(sha="abc")

    def hf_hub_download(self, repo_id: str, name: str, revision: str) -> str:
        assert (repo_id, name, revision) == ("me/my-clip", "README.md", "abc")
        if isinstance(self.readme, Exception):
            raise self.readme
        return str(self.readme)

    def create_commit(self, repo_id: str, operations: list[Any], **more: str) -> SimpleNamespace:
        assert (repo_id, more["parent_commit"]) == ("me/my-clip", "abc")
        self.commits.append({one.path_in_repo: one.path_or_fileobj.decode() for one in operations})
        return SimpleNamespace(commit_url="https://hub/me/my-clip/commit/def")


def test_push_changes_the_readme_and_adds_results_in_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n")
    hub = FakeHub(readme)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    said = commit_card("me/my-clip", "## Kept\n", {".eval_results/pets.yaml": "- value: 60\n"})
    assert said == "https://hub/me/my-clip/commit/def"
    assert hub.commits == [
        {
            "README.md": with_section("# Mine\n", "## Kept\n"),
            ".eval_results/pets.yaml": "- value: 60\n",
        }
    ]
    with pytest.raises(ModelError, match="you/other was not changed: 404 Repository Not Found"):
        commit_card("you/other", "## Kept\n", {})
    hub.readme = LocalEntryNotFoundError("no network")  # an old README must not be lost by it
    with pytest.raises(ModelError, match="was not changed: no network"):
        commit_card("me/my-clip", "## Kept\n", {})
    assert len(hub.commits) == 1
