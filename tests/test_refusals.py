"""A plan finds what would stop runs, by opening what they would open."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope import refusals
from driftscope.config import RunSpec, parse_run_spec
from driftscope.refusals import outlook

BASE = {"model": "mini", "dataset": "terrain", "method": "full_ft", "learning_rate": 1e-3}


def spec(**changed: object) -> RunSpec:
    return parse_run_spec({**BASE, "transfer": [], **changed})


def test_runs_that_can_be_carried_out_are_not_stopped() -> None:
    found = outlook([spec(), spec(method={"kind": "lora", "rank": 2}), spec(seed=1)])
    assert found == refusals.Outlook((), ())


def test_every_way_to_fail_is_told_once_with_its_runs() -> None:
    nowhere = [spec(dataset="./nowhere/here", seed=seed) for seed in (1, 2)]
    deep = spec(method={"kind": "freeze_first", "blocks": 40})
    no_model = spec(model="./no-model")
    found = outlook([spec(), *nowhere, deep, no_model])
    told = {one.sentence: one.specs for one in found.refusals}
    assert sorted(map(len, told.values())) == [1, 1, 2]
    by_start = {sentence[:19]: specs for sentence, specs in told.items()}
    assert by_start["no dataset './nowhe"] == tuple(nowhere)
    assert by_start["freeze_first cannot"] == (deep,)
    assert by_start["no model './no-mode"] == (no_model,)


def test_a_model_folder_that_cannot_be_recognised_stops_its_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{broken")
    broken = spec(model=str(tmp_path))
    [refusal] = outlook([spec(), broken]).refusals
    assert refusal.specs == (broken,)


def test_what_only_the_hub_may_have_is_named_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "open_inputs", lambda *_: pytest.fail("something was opened"))
    found = outlook([spec(model="openai/clip-vit-base-patch32", transfer=["owner/set"])])
    assert found.unseen == ("openai/clip-vit-base-patch32", "owner/set")
    assert found.refusals == ()
