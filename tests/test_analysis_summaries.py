"""Grid means, full-map structure, backbones, regularized cells, seeds against seeds."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from driftscope.analysis import StudyTables, answer
from driftscope.paper.summaries import (
    auxiliary_structure,
    backbones,
    grid_means,
    regularized_cells,
)

NO_TABLE = pd.DataFrame()
DEFAULTS = {
    "model": "mini",
    "protocol": "leakfree",
    "transfer": "t",
    "status": "done",
    "regularizer": "none",
    "weight_decay": 0.01,
}


def _tables(runs: list[dict[str, object]], subsets: pd.DataFrame | None = None) -> StudyTables:
    frame = pd.DataFrame(runs)
    frame["run_id"] = [f"run {at}" for at in range(len(frame))]
    for name, value in DEFAULTS.items():
        frame[name] = frame[name].fillna(value) if name in frame else value
    if subsets is None:
        return StudyTables(frame, NO_TABLE, NO_TABLE)
    return StudyTables(frame, NO_TABLE, NO_TABLE, subsets)  # fmt: skip


def _run(rate: float, seed: int, entropy: float, **values: object) -> dict[str, object]:
    return {"dataset": "d", "method": "full_ft", "learning_rate": rate, "seed": seed,
            "delta_entropy_pct": entropy, **values}  # fmt: skip


def test_a_grid_mean_weighs_cells_alike_and_its_sd_is_between_rates() -> None:
    runs = [_run(1e-4, seed, 2.0) for seed in range(9)] + [_run(1e-3, 0, -4.0)]
    (row,) = grid_means(_tables(runs)).to_dict("records")
    assert row["delta_entropy_pct"] == -1.0
    assert row["delta_entropy_pct_sd"] == pytest.approx(np.std([2, -4], ddof=1))
    assert (row["num_cells"], row["num_runs"], row["rates"]) == (2, 10, "0.0001, 0.001")


@pytest.mark.parametrize("key", ["model", "protocol", "transfer", "dataset"])
def test_grid_means_never_mix_settings_or_datasets(key: str) -> None:
    runs = [_run(rate, 0, 1.0 + 5 * at, **{key: name})
            for at, name in enumerate(("a", "b")) for rate in (1e-4, 1e-3)]  # fmt: skip
    frame = grid_means(_tables(runs)).set_index(key)
    assert frame["delta_entropy_pct"].to_dict() == {"a": 1.0, "b": 6.0}


def test_diverged_runs_are_in_no_grid_mean() -> None:
    runs = [_run(1e-4, 0, 1.0), _run(1e-4, 1, 99.0, status="diverged"), _run(1e-3, 0, 3.0)]
    (row,) = grid_means(_tables(runs)).to_dict("records")
    assert row["delta_entropy_pct"] == 2.0
    assert row["num_runs"] == 2


def test_structure_has_the_pretrained_model_first_and_the_variation_over_equal_subsets() -> None:
    values = {"rollout_entropy_bits": 5.0, "pretrained_rollout_entropy_bits": 5.5,
              "cka": 0.8, "cka_debiased": 0.7}  # fmt: skip
    runs = [_run(1e-3, seed, 0.0, **values) for seed in (0, 1)]
    entropies = {"run 0": [1.0, 1.1, 1.2], "run 1": [2.0, 2.0, 2.6]}
    rows = [
        {"run_id": run, "subset": at, "num_images": 40, "signal": "entropy", "value": value}
        for run, numbers in entropies.items()
        for at, value in enumerate(numbers)
    ]
    # larger subsets and other signals have no part in it
    rows += [{**row, "num_images": 200, "value": 9.0} for row in rows if row["subset"] == 0]
    rows += [{**row, "signal": "cka", "value": 0.1} for row in rows]
    before, cell = auxiliary_structure(_tables(runs, pd.DataFrame(rows))).to_dict("records")
    assert before["series"] == "pretrained"
    assert before["rollout_entropy_bits"] == 5.5
    assert math.isnan(before["cka"])
    expected = np.mean([np.std(numbers) / np.mean(numbers) for numbers in entropies.values()])
    assert cell["entropy_cv"] == pytest.approx(expected)
    assert cell["num_subsets"] == 3
    assert cell["num_runs"] == 2


def test_without_full_maps_there_is_no_structure() -> None:
    assert auxiliary_structure(_tables([_run(1e-3, 0, 1.0)])).empty


def test_backbones_are_compared_over_shared_seeds_and_never_averaged() -> None:
    runs = [_run(1e-3, seed, 1.0 + seed, model="B/32") for seed in (0, 1)]
    runs += [_run(1e-3, seed, 4.0 + 3 * seed, model="B/16") for seed in (0, 1, 2)]
    first, second = backbones(_tables(runs)).to_dict("records")
    assert (first["model"], first["delta_entropy_pct"]) == ("B/32", 1.5)
    assert math.isnan(first["entropy_gap_points"])
    assert second["entropy_gap_points"] == np.mean([4 - 1, 7 - 2])
    assert second["entropy_gap_points_sd"] == pytest.approx(np.std([3, 5], ddof=1))
    assert second["num_pairs"] == 2


def test_one_backbone_is_no_comparison() -> None:
    assert backbones(_tables([_run(1e-3, 0, 1.0)])).empty


def test_regularized_cells_stand_beside_none_and_other_weight_decays() -> None:
    runs = [_run(1e-3, 0, 1.0), _run(1e-3, 0, 2.0, regularizer="apr 0.1"),
            _run(1e-3, 0, 3.0, weight_decay=0.1), _run(1e-4, 0, 9.0)]  # fmt: skip
    frame = regularized_cells(_tables(runs))
    assert sorted(frame["delta_entropy_pct"]) == [1.0, 2.0, 3.0]


def test_weight_decays_alone_are_no_study_of_regularizers() -> None:
    runs = [_run(1e-3, 0, 1.0), _run(1e-3, 0, 3.0, weight_decay=0.1)]
    assert regularized_cells(_tables(runs)).empty


def test_seeds_against_seeds_agree_with_scipy() -> None:
    full, lora = [-0.3, -0.2, -0.1], [0.8, 0.9, 1.1]
    runs = [_run(1e-3, at, value) for at, value in enumerate(full)]
    runs += [_run(1e-3, at, value, method="lora_r8") for at, value in enumerate(lora)]
    (row,) = answer("seed_contrasts", _tables(runs)).table.to_dict("records")
    reference = scipy_stats.ttest_ind(lora, full, equal_var=False)
    assert row["comparison"] == "lora_r8 − full_ft"
    assert row["t"] == pytest.approx(reference.statistic)
    assert row["p_value"] == pytest.approx(reference.pvalue)
    pooled = math.sqrt((np.var(full, ddof=1) + np.var(lora, ddof=1)) / 2)
    assert row["d"] == pytest.approx((np.mean(lora) - np.mean(full)) / pooled)
    assert row["p_exact"] == row["p_exact_floor"] == pytest.approx(0.1)


def test_seeds_at_different_rates_are_contrasted_only_where_nothing_else_is_there() -> None:
    runs = [_run(1e-5, seed, 1.0 + seed) for seed in (0, 1)]
    runs += [_run(5e-5, seed, 2.0 * seed, method="lora_r8") for seed in (0, 1)]
    (row,) = answer("seed_contrasts", _tables(runs)).table.to_dict("records")
    assert row["rates_differ"]
    assert row["rates"] == "5e-05 vs 1e-05"
    runs += [_run(1e-4, seed, 1.0 + seed) for seed in (0, 1)]
    result = answer("seed_contrasts", _tables(runs))
    assert not result.is_answered
    assert [exclusion.count for exclusion in result.excluded] == [1]


def test_the_family_of_seed_contrasts_is_every_dataset_comparison_rate_and_metric() -> None:
    rng = np.random.default_rng(0)
    runs = [
        _run(rate, seed, rng.normal(), dataset=dataset, method=method, retention_pct=rng.normal())
        for dataset, method, rate, seed in product(
            ("d", "e"), ("full_ft", "lora_r8"), (1e-4, 1e-3), (0, 1, 2)
        )
    ]
    result = answer("seed_contrasts", _tables(runs))
    assert result.family[0]["num_tests"] == len(result.table) == 2 * 2 * 2
    assert (result.table["p_holm"] >= result.table["p_value"]).all()


def test_one_seed_a_cell_gives_no_contrast_of_seeds() -> None:
    runs = [_run(1e-3, 0, 1.0), _run(1e-3, 0, 2.0, method="lora_r8")]
    result = answer("seed_contrasts", _tables(runs))
    assert not result.is_answered
    assert "two seeds" in result.sentence


def test_backbones_are_paired_over_the_seeds_that_are_measured_alike() -> None:
    runs = [
        _run(1e-4, seed, entropy + seed, model=model, options=f"probe_images {images}")
        for model, images, entropy in (
            ("mini", 20, 1.0), ("mini", 200, 2.0), ("clip", 20, 4.0), ("clip", 200, 6.0))
        for seed in range(3)
        if (model, images, seed) != ("mini", 200, 2)
    ]  # fmt: skip
    frame = backbones(_tables(runs)).query("model == 'clip'").set_index("measuring")
    assert frame["num_pairs"].to_dict() == {"probe images 20": 3, "probe images 200": 2}
    assert frame["entropy_gap_points"].to_dict() == {
        "probe images 20": 3.0,
        "probe images 200": 4.0,
    }
