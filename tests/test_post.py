"""What the ways of a rescue keep of a run is measured after it, and stands in its record."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import driftscope as ds
from driftscope.adapt import adapt
from driftscope.cli import app
from driftscope.config import parse_run_spec, run_id
from driftscope.data.duplicates import found_among
from driftscope.errors import ConfigError, ModelError
from driftscope.prepared_run import prepare
from driftscope.records import RunRecord, all_tables, load_run, rescue_sentences
from driftscope.records.columns import DAMAGE_COLUMNS, RESCUE_COLUMNS
from driftscope.records.schema import StoredRescue
from driftscope.rescuing import budgets, where_of_run
from driftscope.rescuing.apart import pool_apart
from driftscope.rescuing.attribution import Estimated
from driftscope.rescuing.of_run import RunRescues
from driftscope.rescuing.target import kept_classifier
from driftscope.run import run_one

SMALL = {
    "model": "mini",
    "dataset": "terrain",
    "method": "full_ft",
    "learning_rate": 1e-3,
    "epochs": 1,
    "batch_size": 16,
    "train_images": 64,
    "val_images": 20,
    "probe_images": 16,
    "test_images": 40,
    "transfer": ["concepts100"],
    "transfer_images": 100,
    "pool": "concepts100",
    "pool_images": 80,
    "post": ["wise", "where"],
}


@cache
def mini_weights() -> dict[str, torch.Tensor]:
    return ds.load("mini").module.state_dict()


def retention_by_distance(_: Estimated, model: ds.VisionLanguageModel) -> float:
    """A retention of which every group of weights has its part, whatever the others do."""
    moved = [
        (one - mini_weights()[name]).abs().sum() for name, one in model.module.state_dict().items()
    ]
    return 100 - 1e-3 * float(sum(moved))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budgets, "BUDGETS_PCT", (50.0, 95.0))
        patch.setattr(budgets, "_GRID", (0.0, 0.5, 1.0))
        patch.setattr(budgets, "_HALVINGS", 1)
        patch.setattr(where_of_run, "IMAGES", 30)
        patch.setattr(where_of_run, "PAIRS", 1)
        patch.setattr(Estimated, "retention_pct", retention_by_distance)
        return run_one(parse_run_spec(SMALL), tmp_path_factory.mktemp("post") / "run")


def retention_at(record: RunRecord, scale: float) -> float:
    """Of the blend with one strength, from the folder's model and the images themselves."""
    (benchmark,) = ds.transfer.labelled_sets("concepts100", ds.load("mini"), 100)
    mini, adapted = ds.load("mini"), ds.load(record.folder)
    models = (mini, ds.blend(mini, adapted, scale))
    right = [benchmark.score(model).num_correct for model in models]
    return 100 * right[1] / right[0]


def test_every_way_has_a_row_a_budget_with_what_was_really_kept(record: RunRecord) -> None:
    rows = record.result.rescues
    assert [(one.way, one.budget_pct) for one in rows] == [
        ("pretrained", None), ("adapted", None), ("wise", 50), ("wise", 95),
    ]  # fmt: skip
    before, after, loose, strict = rows
    assert before.retention_pct == before.estimated_retention_pct == 100
    assert after.retention_pct == pytest.approx(record.main_score.retention_pct)
    assert 0 < strict.scale < loose.scale
    for one, budget in ((loose, 50), (strict, 95)):
        assert one.low_90_pct >= budget
        assert one.retention_pct == pytest.approx(retention_at(record, one.scale))


def test_each_epoch_holds_the_ends_of_its_estimates_interval(record: RunRecord) -> None:
    tables = all_tables([record])
    (epoch,) = tables.history.to_dict("records")
    estimate = record.result.last.estimate
    assert epoch["low_90_pct"] == estimate.low_90_pct < epoch["estimated_retention_pct"]
    assert epoch["high_90_pct"] == estimate.high_90_pct
    assert "budget_pct" not in tables.runs  # of runs without a budget


def test_the_old_classifier_is_the_one_that_the_run_trained(record: RunRecord) -> None:
    prepared = prepare(record.spec)
    labels = prepared.test_labels
    order = labels.argsort(stable=True)
    chosen = order[1::2]  # all 40 are read; every other one reports
    model, head = ds.load(record.folder), kept_classifier(record.folder).classifier
    pixels = torch.stack([prepared.test_pixels[int(at)] for at in chosen])
    right = head(model.embed_images(pixels)).argmax(dim=1) == labels[chosen]
    adapted = record.result.rescues[1]
    assert adapted.test_num_images == len(chosen)
    assert adapted.kept_head_accuracy_pct == pytest.approx(100 * float(right.float().mean()))


def test_the_pool_is_without_the_images_that_retention_is_measured_on(record: RunRecord) -> None:
    prepared = prepare(record.spec)
    pool, measured = prepared.reference.referee.pool, prepared.reference.transfer[0].pixels
    mixed = replace(pool, pixels=torch.cat([pool.pixels[:], measured[:30]]))
    left = pool_apart(mixed, prepared.reference.transfer[0])
    assert found_among(left.pixels, [measured]) == []
    assert len(left.pixels) == len(pool.pixels) - len(found_among(pool.pixels, [measured]))
    with pytest.raises(ModelError, match="30 of the pool's 30 images are also of the transfer set"):
        pool_apart(replace(pool, pixels=measured[:30]), prepared.reference.transfer[0])


def test_a_frozen_encoder_has_nothing_to_rescue(record: RunRecord) -> None:
    spec = parse_run_spec({**SMALL, "method": "linear_probe"})
    prepared = prepare(spec)
    probe = adapt(prepared.pretrained, spec.method, len(prepared.class_names), spec.seed)
    assert RunRescues.of(spec, prepared).kept_by(probe) == []
    without = replace(record, spec=spec, result=record.result.model_copy(update={"rescues": []}))
    assert rescue_sentences(without) == ["Rescue: the encoder does not move, so nothing is lost."]


def test_where_the_damage_sits_is_in_the_record_and_the_table(record: RunRecord) -> None:
    found = record.result.attribution
    assert found.measured_on.startswith("estimated from 30 unlabeled images")
    assert 100 - found.retention_pct > 1
    assert sum(one.shapley for one in found.groups) == pytest.approx(100 - found.retention_pct)
    for one in found.groups:  # single precision over 1.8 million weights
        assert (one.lost, one.regained) == pytest.approx((one.shapley, one.shapley), abs=1e-2)
    table = all_tables([load_run(record.folder)]).damage
    assert list(table.columns) == list(DAMAGE_COLUMNS)
    assert list(table["group"]) == [one.name for one in found.groups]
    assert table["block"].max() == 6


def test_sentences_say_what_each_way_kept_and_what_a_probe_has() -> None:
    def row(way: str, budget: float | None, scale: float, accuracy: float, kept: float):
        return StoredRescue(
            way=way, budget_pct=budget, scale=scale, retention_pct=kept, cpu_seconds=1.0,
            refitted_accuracy_pct=accuracy, test_num_images=150,
        )  # fmt: skip

    rows = [
        row("pretrained", None, 0, 87.33, 100), row("adapted", None, 1, 98.67, 28.3),
        row("search", 90, 0.5, 94.67, 94.04), row("wise", 90, 0, 87.33, 100),
    ]  # fmt: skip
    told = SimpleNamespace(result=SimpleNamespace(rescues=rows))
    assert rescue_sentences(told) == [
        "Rescue at 90 %: 94.7 % by search (retention measured 94.0 %), by wise nothing of the "
        "change.",
        "These are accuracies of new classifiers, not of the run's own (150 images): a linear "
        "probe on the "
        "untouched model, which keeps everything, has 87.3 %, the adapted model 98.7 %.",
    ]


@pytest.mark.parametrize(("num_images", "is_told"), [(156, True), (500, False), (None, False)])
def test_a_budget_that_too_few_images_judge_is_told(num_images: int | None, is_told: bool) -> None:
    rows = [
        StoredRescue(
            way=way, budget_pct=budget, scale=1, retention_pct=99.0, cpu_seconds=1.0,
            refitted_accuracy_pct=90.0, test_num_images=150, judging_num_images=num_images,
        )
        for way, budget in (("pretrained", None), ("adapted", None), ("wise", 95), ("wise", 99))
    ]  # fmt: skip
    told = rescue_sentences(SimpleNamespace(result=SimpleNamespace(rescues=rows)))
    why = [one for one in told if "another answer" in one]
    assert why == is_told * [
        "At a budget of 99 % about 1 of the 156 judging images may get another answer, and the "
        "estimate's interval takes some of them. So the ways keep little of the change there. A "
        "larger pool (pool_images) lets them keep more."
    ]


def test_the_table_has_a_row_a_run_way_and_budget(record: RunRecord) -> None:
    table = all_tables([load_run(record.folder)]).rescues
    assert list(table.columns) == list(RESCUE_COLUMNS)
    assert list(table["run_id"]) == [record.id] * 4
    assert list(table["retention_pct"]) == [one.retention_pct for one in record.result.rescues]


def test_the_command_prints_the_sentences(record: RunRecord, tmp_path: Path) -> None:
    spec = tmp_path / "run.yaml"
    spec.write_text(json.dumps(SMALL))
    told = CliRunner().invoke(app, ["run", str(spec), "--out", str(record.folder)])
    assert told.exit_code == 0
    for sentence in rescue_sentences(record):
        assert sentence in " ".join(told.output.split())


def test_post_needs_a_pool_and_names_ways_in_any_order() -> None:
    base = {"method": "full_ft", "learning_rate": 1e-3}
    with pytest.raises(ConfigError, match="post needs a pool of unlabeled images"):
        parse_run_spec({**base, "post": ["wise"]})
    with pytest.raises(ConfigError, match=r"post.*'wize'"):
        parse_run_spec({**base, "pool": "concepts100", "post": ["wize"]})
    ids = [
        run_id(parse_run_spec({**base, "pool": "concepts100", "post": post}))
        for post in (["wise", "search"], ["search", "wise"], [])
    ]
    assert ids[0] == ids[1] != ids[2]
    assert ids[2] == run_id(parse_run_spec({**base, "pool": "concepts100"}))


def test_only_a_search_after_a_run_has_its_version_in_the_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = {"method": "full_ft", "learning_rate": 1e-3, "pool": "concepts100"}
    budget = {"retention_pct": 90, "strengths": "searched"}
    specs = [
        parse_run_spec({**base, **more})
        for more in ({"post": ["search"]}, {"post": ["wise"]}, {"budget": budget}, {})
    ]
    before = [run_id(spec) for spec in specs]
    monkeypatch.setattr("driftscope.config.RESCUE_VERSION", 0)
    assert [run_id(spec) == was for spec, was in zip(specs, before, strict=True)] == [
        False, True, True, True,
    ]  # fmt: skip


def test_an_encoder_that_was_put_back_has_nothing_to_rescue_or_to_attribute(
    record: RunRecord,
) -> None:
    prepared = prepare(record.spec)
    put_back = adapt(prepared.pretrained, record.spec.method, 10, record.spec.seed)
    assert not put_back.encoder_is_frozen
    assert RunRescues.of(record.spec, prepared).kept_by(put_back) == []
    attribution = where_of_run.RunAttribution.of(record.spec, prepared)
    assert attribution is not None
    assert attribution.told(put_back) is None
