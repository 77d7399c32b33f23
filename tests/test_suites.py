"""Suites of datasets: their members, where they are found, means over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_doubts import WORDS, pictures
from typer.testing import CliRunner

from driftscope import Monitor, compare
from driftscope.analysis.zero_shot import suite_sentence
from driftscope.cli import app
from driftscope.config import parse_run_spec
from driftscope.data import open_labelled
from driftscope.data.layouts import hub
from driftscope.data.prompts import expand_templates
from driftscope.data.templates import TEMPLATE_SETS
from driftscope.errors import DataError
from driftscope.sources import load
from driftscope.suites import expanded, member_of, suites
from driftscope.transfer import transfer_set
from driftscope.transfer.suites import FoundSuite, found_suites, places_of


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub and an empty cache; the folder that $DRIFTSCOPE_DATA names."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DRIFTSCOPE_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_the_published_suites_have_their_published_sizes() -> None:
    sizes = {name: len(one.members) for name, one in suites().items()}
    assert sizes == {"vtab": 19, "imagenet-shifts": 6, "clip-benchmark": 35, "datacomp": 30}
    for suite in suites().values():
        for one in suite.members:
            assert all("{}" in sentence for sentence in expand_templates(one.templates)), one.key


def test_named_sets_of_templates_have_their_published_sizes() -> None:
    assert len(set(TEMPLATE_SETS["cifar"])) == 18
    assert len(set(TEMPLATE_SETS["caltech101"])) == 34
    assert "a high contrast photo of the {}." in TEMPLATE_SETS["cifar"]
    assert "a {} in a video game." in TEMPLATE_SETS["caltech101"]
    assert "the {} in a video game." in TEMPLATE_SETS["caltech101"]


def test_a_spec_holds_the_members_of_its_suites() -> None:
    spec = parse_run_spec(
        {"method": "lora", "learning_rate": 1, "transfer": ["imagenet-shifts", "concepts100"]}
    )
    assert spec.transfer[0] == "clip-benchmark/wds_imagenet1k"
    assert len(spec.transfer) == 7
    assert expanded(["vtab", "vtab"]) == expanded(["vtab"])
    assert member_of("clip-benchmark/wds_nonsense") is None


@pytest.mark.parametrize(
    "folder", ["clip-benchmark/wds_vtab-pets", "wds_vtab-pets", "vtab-pets", "oxford-iiit-pet"]
)
def test_a_member_is_found_under_each_of_its_names_with_its_prompts(
    offline: Path, folder: str
) -> None:
    pictures(offline / folder, WORDS)
    images = open_labelled("clip-benchmark/wds_vtab-pets", "test")
    assert len(images) == 20
    mini = load("mini")
    benchmark = transfer_set("clip-benchmark/wds_vtab-pets", mini)
    assert benchmark.prompts()["templates"] == ["a photo of a {}, a type of pet."]


def test_a_cached_snapshot_of_the_hub_is_read_with_its_names(
    offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from small_sets import NAMES, write_tar

    (tmp_path / "snapshot" / "test").mkdir(parents=True)
    (tmp_path / "snapshot" / "classnames.txt").write_text("\n".join(NAMES))
    write_tar(tmp_path / "snapshot" / "test" / "0.tar", "cls", lambda one: str(NAMES.index(one)))

    def snapshot(repo: str, *, repo_type: str) -> str:
        assert (repo, repo_type) == ("clip-benchmark/wds_cars", "dataset")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert open_labelled("clip-benchmark/wds_cars", "test").class_names == NAMES
    assert hub.local_copy("clip-benchmark/wds_cars") is None


def test_what_of_a_suite_is_missing_is_named(offline: Path) -> None:
    with pytest.raises(DataError, match=r"no set of the suite 'vtab' is here.*wds_vtab-caltech101"):
        found_suites(["vtab"])
    pictures(offline / "pets", WORDS)
    found = found_suites(["vtab", "concepts100"])
    assert places_of(["vtab", "concepts100"], found) == (
        "clip-benchmark/wds_vtab-pets",
        "concepts100",
    )
    assert len(found["vtab"].missing) == 18


def test_means_over_sets_have_students_intervals() -> None:
    suite = suites()["imagenet-shifts"]
    places = [one.place for one in suite.members]
    before, after = np.array([70.0, 60, 50, 40, 75]), np.array([35.0, 45, 40, 10, 60])
    scores = {
        place: {"pretrained_accuracy_pct": b, "accuracy_pct": a, "retention_pct": 100 * a / b}
        for place, b, a in zip(places, before, after, strict=False)
    }
    scores[places[0]]["retention_pct"] = None
    summary = FoundSuite(suite, (places[5],)).summary(scores)
    assert summary["missing"] == [places[5]]
    for key, values in (
        ("pretrained_accuracy_pct", before),
        ("accuracy_pct", after),
        ("change_points", after - before),
        ("retention_pct", (100 * after / before)[1:]),
    ):
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
        found = summary[key]
        assert found["num_sets"] == len(values)
        assert found["mean"] == pytest.approx(values.mean())
        assert (found["low"], found["high"]) == pytest.approx(
            (values.mean() - half, values.mean() + half)
        )


def test_a_suite_has_means_by_every_protocol_that_its_sets_are_scored_by(offline: Path) -> None:
    pictures(offline / "pets", WORDS)
    pictures(offline / "eurosat", WORDS)
    found = compare("mini", "mini", offline / "pets", transfer="vtab", transfer_by=["knn"])
    (name,) = found.suites
    assert name == "vtab (k-NN)"
    scores = [score["accuracy_pct"] for score in found.transfer.values()]
    assert len(scores) == 2
    assert found.suites[name]["accuracy_pct"]["mean"] == pytest.approx(np.mean(scores))
    assert found.suites[name]["retention_pct"]["mean"] == 100
    said = suite_sentence(name, found.suites[name])
    assert said.startswith("vtab, mean over 2 sets: k-NN accuracy ")


def test_a_monitor_tells_the_means_of_a_suite(offline: Path, tmp_path: Path) -> None:
    pictures(offline / "pets", WORDS)
    pictures(offline / "eurosat", WORDS)
    watched = Monitor(
        "mini", offline / "pets", transfer="vtab", vocabulary=None, out=tmp_path / "out", echo=None
    )
    watched.observe(load("mini").module, step=1)
    page = watched.report()
    summary = json.loads((tmp_path / "out" / "report.json").read_text())["suites"]["vtab"]
    assert summary["retention_pct"]["mean"] == 100
    assert len(summary["sets"]) == 2
    assert "vtab, mean over 2 sets: zero-shot accuracy" in page.read_text()
    watched.close()


def test_compare_takes_a_suite_by_its_name(offline: Path, tmp_path: Path) -> None:
    pictures(offline / "pets", WORDS)
    pictures(offline / "eurosat", WORDS)
    arguments = ["compare", "mini", "mini", "--images", str(offline / "pets"), "--transfer", "vtab"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "vtab, mean over 2 sets: zero-shot accuracy" in said
    assert "missing:" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["suites"]["vtab"]["retention_pct"]["mean"] == 100
    assert len(report["suites"]["vtab"]["missing"]) == 17
    assert set(report["transfer"]) == set(report["suites"]["vtab"]["sets"])
