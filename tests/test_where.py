"""Where the damage sits: Shapley values, restored and lone groups, heads, against enumeration."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from math import prod
from pathlib import Path

import pytest
import torch
from monitored import clip_of, moved
from typer.testing import CliRunner

import driftscope as ds
from driftscope.blending import Blend
from driftscope.cli import app
from driftscope.errors import ConfigError
from driftscope.rescuing import attribution
from driftscope.rescuing.shapley import shapley_values
from driftscope.sources.live import from_module

PLAYERS = ("a", "b", "c", "d")
WEIGHTS = {"a": 3.0, "b": 2.0, "c": 0.5, "d": -1.0}


def together(joined: frozenset[str]) -> float:
    """Damage that adds up, and more where a and c, or all of b, c, d, are together."""
    extra = 4.0 * ({"a", "c"} <= joined) + 2.5 * ({"b", "c", "d"} <= joined)
    return sum(WEIGHTS[one] for one in joined) + extra


def exact() -> dict[str, float]:
    """By enumerating all orders."""
    found = dict.fromkeys(PLAYERS, 0.0)
    orders = list(permutations(PLAYERS))
    for order in orders:
        for at, player in enumerate(order):
            before = frozenset(order[:at])
            found[player] += together(before | {player}) - together(before)
    return {player: value / len(orders) for player, value in found.items()}


def test_shapley_values_are_those_of_all_orders_and_add_up() -> None:
    assert exact()["a"] == pytest.approx(3 + 4 / 2)  # by hand, too
    found = shapley_values(PLAYERS, together, num_pairs=400)
    for player, value in exact().items():
        assert found[player].value == pytest.approx(value, abs=4 * found[player].error + 1e-9)
        assert found[player].error < 0.2
    for pairs in (1, 5):
        shares = shapley_values(PLAYERS, together, num_pairs=pairs)
        total = sum(one.value for one in shares.values())
        assert total == pytest.approx(together(frozenset(PLAYERS)))
    assert shapley_values(PLAYERS, together, num_pairs=1)["a"].error is None


def test_the_error_of_a_shapley_value_is_that_of_repeated_draws() -> None:
    draws = [shapley_values(PLAYERS, together, 8, seed=seed)["c"] for seed in range(200)]
    spread = torch.tensor([one.value for one in draws]).std().item()
    told = torch.tensor([one.error for one in draws]).mean().item()
    assert told == pytest.approx(spread, rel=0.25)


@pytest.fixture(scope="module")
def pair(tiny_clip: Path) -> tuple:
    return ds.load(tiny_clip), from_module(moved(clip_of(tiny_clip)).eval())


def test_a_group_is_restored_and_tuned_alone(
    pair: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Retention is told by the weights themselves: each group that is tuned costs its own part."""
    before, after = pair
    groups = Blend(before, after).groups
    cost = {group: 1.0 + number for number, group in enumerate(groups)}

    class ByWeights:
        described, pixels = "by weights", torch.zeros(4, 3, 32, 32, dtype=torch.uint8)

        def __init__(self, *_: object) -> None:
            self.delta = Blend(before, after).delta

        def judge(self, model: ds.VisionLanguageModel) -> attribution._Judgement:
            return attribution._Judgement(self.retention_pct(model), (10.0, 90.0), ())

        def retention_pct(self, model: ds.VisionLanguageModel) -> float:
            state = model.plain.state_dict()
            tuned = {
                group: all(torch.equal(state[n], self.delta.after[n]) for n in names)
                for group, names in self.delta.groups.items()
            }
            lost = sum(cost[group] for group, is_tuned in tuned.items() if is_tuned)
            together = all(tuned[group] for group in groups[:2])
            return 100.0 - lost - 6.0 * together

    monkeypatch.setattr(attribution, "_Measured", ByWeights)
    monkeypatch.setattr(attribution, "_profile", lambda *_: {"cka": [0.9, 0.5]})
    found = ds.where(before, after, transfer="x", num_pairs=6)
    own = {one.name: one for one in found.groups}
    assert tuple(own) == groups
    for group in groups:
        is_of_the_pair = group in groups[:2]
        assert own[group].lost == pytest.approx(cost[group])
        assert own[group].regained == pytest.approx(cost[group] + 6 * is_of_the_pair)
        assert own[group].shapley == pytest.approx(cost[group] + 3 * is_of_the_pair)
    assert sum(one.shapley for one in found.groups) == pytest.approx(found.loss)
    blocks = [sum(cost[g] for g in groups if g.startswith(f"block {b}")) for b in (1, 2)]
    assert sum(found.by_block()) == pytest.approx(
        sum(blocks) + 3 * sum(group.startswith("block") for group in groups[:2])
    )
    assert "Doubtful" not in found.sentence()
    unsure = replace(found, interval_pct=(10.0, 100.0), doubts=("so few",)).sentences()
    assert "the interval reaches 100 %" in unsure[1]
    assert unsure[2] == "Doubtful: so few."
    unhurt = replace(found, retention_pct=100.4, interval_pct=(98.0, 102.0)).sentence()
    assert unhurt.endswith("nothing was lost, so no group did damage.")
    found.save(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "where.json").read_text())
    assert told["groups"][0]["name"] == groups[0]
    assert "Where the damage sits" in (tmp_path / "out" / "report.html").read_text()


def test_heads_part_a_block_s_attention(pair: tuple) -> None:
    before, after = pair
    blend = Blend(before, after)
    heads = attribution._heads_of(before, blend)["block 1 attention"]
    config = before.plain.config.vision_config
    assert len(heads) == config.num_attention_heads
    counted: dict[str, int] = {}
    for parts in heads.values():
        for name, where in parts:
            counted[name] = counted.get(name, 0) + blend.delta.before[name][where].numel()
    split = {n for n in blend.delta.groups["block 1 attention"] if "out_proj.bias" not in n}
    assert counted == {name: prod(blend.delta.before[name].shape) for name in split}
    # a head put back changes what that head gives and no other: rows of the query, one head wide
    model = blend.set(blend.uniform(1.0))
    name = next(iter(heads))
    blend.set_part("block 1 attention", heads[name], adapted=False)
    weight = next(n for n in split if n.endswith("q_proj.weight"))
    moved_rows = (model.plain.state_dict()[weight] != blend.delta.after[weight]).any(dim=1)
    width = config.hidden_size // config.num_attention_heads
    assert moved_rows.nonzero().flatten().max() < width
    whole = blend.set(blend.uniform(1.0)).plain.state_dict()  # whole again
    assert torch.equal(whole[weight], blend.delta.after[weight])


def test_the_command_takes_a_pool_or_a_dataset_and_not_both() -> None:
    for more in ([], ["--pool", "concepts100", "--transfer", "concepts100"]):
        done = CliRunner().invoke(app, ["where", "mini", "mini", *more])
        assert done.exit_code == 2
        assert "give either a pool" in " ".join(done.output.split())
    with pytest.raises(ConfigError, match="give 1 or more pairs"):
        ds.where("mini", "mini", "concepts100", num_pairs=0)
