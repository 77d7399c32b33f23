"""Whether the blocks that change do the damage, on runs whose answer is known by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from driftscope.analysis import StudyTables, answer
from driftscope.stats.profiles import profiles_go_together

AWAY = (0.01, 0.03, 0.08, 0.12, 0.26, 0.36)
"""1 − CKA by block; the block itself adds the most at block 5."""
DAMAGE = (1.0, 2.0, 3.0, 4.0, 5.0, 15.0)
ENTROPY = (3.0, -1.0, 2.0, 0.0, -5.0, 1.0)


def study(scale: float = 1.0, entropies: tuple[float, ...] = ENTROPY) -> StudyTables:
    """Two seeds of one cell on each of two datasets, damaged just as CKA falls."""
    runs, layers, damage = [], [], []
    for dataset, seed in itertools.product(("stars", "terrain"), (1, 2)):
        keys = {"run_id": f"{dataset}{seed}", "dataset": dataset, "method": "full_ft",
                "learning_rate": 1e-3, "seed": seed}  # fmt: skip
        runs.append({**keys, "model": "mini", "protocol": "leakfree", "transfer": "mosaic"})
        for block in range(6):
            layers.append({**keys, "layer": block + 1, "cka": 1 - AWAY[block],
                           "delta_entropy_pct": entropies[block]})  # fmt: skip
            for name, part in (("attention", 0.25), ("MLP", 0.75)):
                done = part * scale * DAMAGE[block]
                damage.append({**keys, "group": f"block {block + 1} {name}", "block": block + 1,
                               "shapley_points": done, "regained_points": -done})  # fmt: skip
        damage.append({**keys, "group": "projection", "block": np.nan, "shapley_points": 2.0,
                       "regained_points": 9.0})  # fmt: skip
    return StudyTables(
        pd.DataFrame(runs), pd.DataFrame(), pd.DataFrame(layers), damage=pd.DataFrame(damage)
    )


def test_blocks_that_are_damaged_just_as_cka_falls_are_found() -> None:
    found = answer("causes", study())
    table = found.table.set_index(["scope", "damage", "change"])
    cka = table.loc["overall", "Shapley value", "1 − CKA"]
    assert (cka["rho"], cka["num_runs"], cka["num_cells"]) == (pytest.approx(1), 4, 2)
    assert (cka["p_value"], cka["p_floor"]) == (pytest.approx(2 / 720), pytest.approx(2 / 720))
    assert (cka["num_same_block"], cka["p_sign_flip_floor"]) == (4, 0.5)
    assert table.loc["overall", "regained", "1 − CKA"]["rho"] == pytest.approx(-1)
    expected = scipy_stats.spearmanr(np.abs(ENTROPY), DAMAGE).statistic
    assert table.loc["stars", "Shapley value", "|Δ entropy|"]["rho"] == pytest.approx(expected)
    at_block = table.loc["overall", "Shapley value", "CKA lost at the block"]
    own = np.diff(AWAY, prepend=0)
    assert at_block["rho"] == pytest.approx(scipy_stats.spearmanr(own, DAMAGE).statistic)
    assert at_block["num_same_block"] == 0  # of itself block 5 moves most, block 6 is damaged most
    assert "a block does more damage the larger 1 − CKA is there." in found.sentence
    against = answer("causes", study(entropies=(6, -5, 4, -3, 2, 1))).sentence
    assert "is there and a block does less damage the larger |Δ entropy| is there." in against


def test_one_unit_has_the_p_of_spearman_and_twice_the_same_unit_is_no_more_evidence() -> None:
    ours = profiles_go_together([DAMAGE], [np.abs(ENTROPY)])
    reference = scipy_stats.permutation_test(
        (DAMAGE,),
        lambda one: scipy_stats.spearmanr(one, np.abs(ENTROPY)).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
    )
    assert ours.p_value == pytest.approx(reference.pvalue)
    twice = profiles_go_together([DAMAGE] * 2, [np.abs(ENTROPY)] * 2)
    assert (twice.p_value, twice.mean) == (ours.p_value, pytest.approx(ours.mean))


def test_runs_that_lost_little_and_studies_that_did_not_ask_are_told() -> None:
    little = answer("causes", study(scale=0.05))
    assert not little.is_answered
    assert "4 runs: lost less than 5 points" in [str(one) for one in little.excluded]
    asked = study()
    bare = answer("causes", StudyTables(asked.runs, asked.history, asked.layers))
    assert "give post: [where] in the spec" in bare.sentence
