"""How tables write the columns that several of them have: heading, unit, decimals, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from driftscope.analysis.table import Column, Kind
from driftscope.analysis.words import RHO_DECIMALS
from driftscope.metrics import METRICS


def metric_column(key: str, explanation: str | None = None, **more: Any) -> Column:
    """The column of a metric: its heading, decimals and sign as everywhere.

    Args:
        key: the metric's key.
        explanation: what is said below the table; by default the metric's definition.
        more: the column's other fields, such as `interval`.
    """
    metric = METRICS[key]
    kind: Kind = "count" if metric.is_count or metric.unit == "s" else "number"
    words = metric.definition if explanation is None else explanation
    told = {"decimals": metric.decimals, "signed": metric.signed, **more}
    return Column(key, metric.heading, words, kind, **told)


_PER_ROW = "in the unit that the row names"
_COLUMNS = (
    # what a row is
    Column("model", "Model", kind="text"),
    Column("protocol", "Protocol", kind="text"),
    Column("transfer", "Transfer set", kind="text"),
    Column("measuring", "Measured with", kind="text"),
    Column("dataset", "Target", kind="text"),
    Column("method", "Method", kind="text"),
    Column("baseline", "Baseline", kind="text"),
    Column("comparison", "First − second", kind="text"),
    Column("cell", "Cell", kind="text"),
    Column("run_id", "Run", kind="text"),
    Column("seed", "Seed", kind="count"),
    Column("status", "Status", kind="text"),
    Column("class", "Class", kind="text"),
    Column("study", "Study", kind="text"),
    Column("learning_rate", "Learning rate", kind="rate"),
    Column("rates", "Learning rates", kind="text"),
    Column("rates_differ", "Rates differ", kind="text"),
    Column("regularizer", "Regularizer", kind="text"),
    Column("layer", "Layer", "blank: the mean over blocks", kind="count"),
    Column("head", "Head", kind="count"),
    Column("scope", "Scope", kind="text"),
    Column("pool", "Pool", kind="text"),
    Column("probe", "Probe", "final, or after the first epoch", kind="text"),
    Column("matching", "Matched in", kind="text"),
    Column("outcome", "Outcome", kind="text"),
    Column("metric", "Of", kind="text"),
    Column("signal", "Signal", kind="text"),
    Column("reference", "Reference signal", kind="text"),
    Column("value", "Of", kind="text"),
    Column("form", "Taken", "with its sign, or by size", kind="text"),
    Column("rule", "Rule", kind="text"),
    Column("way", "Way", kind="text"),
    Column("accuracy_on", "Accuracy on", kind="text"),
    Column("picks", "Picks", kind="text"),
    Column("procedure", "Procedure", kind="text"),
    Column("note", "Note", kind="text"),
    Column("series", "Method", kind="text"),
    Column("option", "Regularizer", kind="text"),
    Column("analysis", "Analysis", kind="text"),
    Column("test", "Test", kind="text"),
    Column("metric_label", "Of", kind="text"),
    Column("signal_label", "Signal", kind="text"),
    Column("rule_label", "Rule", kind="text"),
    Column("weight_decay", "Weight decay", kind="general"),
    Column("epochs", "Epochs", kind="count"),
    Column("batch_size", "Batch", kind="count"),
    Column("data_seed", "Data seed", kind="count"),
    Column("options", "Other options", kind="text"),
    # how much it rests on
    Column("num_units", "n", "runs, or layers of one profile", kind="count"),
    Column("subset_images", "n (images a subset)", kind="count"),
    metric_column("num_runs", ""),
    Column("num_cells", "n (cells)", kind="count"),
    Column("num_diverged", "Diverged", "runs left out of means", kind="count"),
    Column("num_missing", "Missing", "declared runs that are in no table", kind="count"),
    Column("num_groups", "n (groups)", kind="count"),
    Column("num_rates", "n (rates)", kind="count"),
    Column("num_seeds", "n (seeds)", kind="count"),
    Column("num_pairs", "n (pairs)", kind="count"),
    Column("num_first", "n first", kind="count"),
    Column("num_second", "n second", kind="count"),
    Column("num_layers", "n (layers)", kind="count"),
    metric_column("num_images", ""),
    metric_column("num_subsets", ""),
    Column("num_decisions", "n (decisions)", kind="count"),
    Column("num_candidates", "Candidates, mean", "runs to choose from"),
    Column("num_damaged", "Damaged", "runs under the budget", kind="count"),
    Column("num_retained", "Retained", "the other runs", kind="count"),
    Column("num_arrangements", "Arrangements", "of the permutation test", kind="count"),
    Column("damage", "Damage", "of a block: Shapley values, or what its groups regain, each alone",
           kind="text"),
    Column("change", "What changed there", kind="text"),
    Column("num_same_block", "Same block", "runs whose most changed block is the most damaging",
           kind="count"),
    # warnings and stops
    Column("band", "Held to", "how far other images alone would move a signal, or how far it "
           "went in the other datasets' runs that lost nothing (quiet runs)", kind="text"),
    Column("band_width", "Band", "how far a signal goes before it counts as a warning, in its unit",
           kind="general"),
    Column("num_lost", "Lost", "runs whose retention left its interval", kind="count"),
    Column("num_quiet", "Lost nothing", "the other runs", kind="count"),
    Column("num_before", "Before retention", "runs", kind="count"),
    Column("num_same_probe", "At the same probe", "runs", kind="count"),
    Column("num_later", "Later", "runs", kind="count"),
    Column("num_never", "Never", "runs", kind="count"),
    Column("num_warned", "Warned", "runs", kind="count"),
    Column("num_false_alarms", "False alarms", "among runs whose retention stayed", kind="count"),
    Column("points_to_come", "To come, points", "retention at the warning less that at the end"),
    Column("to_come_low", "To come, 95 % from", "mean − t · standard error, over cells"),
    Column("to_come_high", "To come, 95 % to", "mean + t · standard error, over cells"),
    Column("damage_points", "Lost, points", "of retention, in all"),
    Column("signal_step", "Step of the signal", "median of runs", kind="count"),
    Column("retention_step", "Step of retention", "median of runs", kind="count"),
    Column("score", "Before less after", "mean over cells: +1 before retention, −1 after",
           decimals=2, signed=True),
    Column("threshold", "Threshold", "size of the change, chosen on the other datasets",
           kind="general"),
    Column("num_triggered", "Stopped early", "runs that crossed the threshold", kind="count"),
    Column("num_kept", "Budget kept", "runs", kind="count"),
    Column("is_kept", "Kept in the mean", kind="text"),
    Column("num_untrained", "Nothing learned", "runs whose first look is under the budget, so that "
           "a stop keeps the pretrained model", kind="count"),
    Column("median_step", "Median step", kind="count"),
    Column("short_points", "Below the oracle, points", "of accuracy; negative where a rule is more "
           "accurate because it breaks the budget in more runs", signed=True),
    # correlations and tests
    Column("statistic", "Statistic", decimals=3, signed=True),
    Column("rho", "Spearman ρ", decimals=RHO_DECIMALS, signed=True),
    Column("abs_rho", "|ρ|", decimals=RHO_DECIMALS),
    Column("partial_rho", "ρ at fixed rate", "log learning rate held fixed", decimals=RHO_DECIMALS,
           signed=True),
    Column("pearson_r", "Pearson r", decimals=RHO_DECIMALS, signed=True),
    Column("gap", "Gap in |ρ|", "the reference's |ρ| minus the signal's", decimals=RHO_DECIMALS,
           signed=True),
    Column("t", "t", decimals=3, signed=True),
    Column("p_value", "p", kind="general"),
    Column("p_holm", "Holm p", kind="general"),
    Column("p_floor", "Floor of p", "smallest p that the test can give", kind="general"),
    Column("p_standard_error", "SE of p", "of a sampled p", kind="general"),
    Column("p_pearson", "p (r)", kind="general"),
    Column("p_pearson_floor", "Floor of p (r)", kind="general"),
    Column("p_exact", "Exact p", "permutation of the seeds", kind="general"),
    Column("p_exact_floor", "Floor of exact p", kind="general"),
    Column("low_over_rates", "95 % over rates from", "of the rates' mean differences",
           kind="measure"),
    Column("high_over_rates", "95 % over rates to", kind="measure"),
    Column("p_over_rates", "p over rates", "paired t over the rates' mean differences",
           kind="general"),
    Column("t_over_seeds", "t over seeds", decimals=3, signed=True),
    Column("p_over_seeds", "p over seeds", "paired t over seeds of mean Δ entropy",
           kind="general"),
    Column("p_wilcoxon", "Wilcoxon p", kind="general"),
    Column("p_sign_flip", "Sign-flip p", "exact", kind="general"),
    Column("p_sign_flip_floor", "Floor of sign-flip p", kind="general"),
    Column("p_equivalence", "p of equivalence", "TOST within the margin of retention",
           kind="general"),
    Column("answer", "Answer", kind="text"),
    Column("attention", "Attention entropy", "moved, held, or unclear (neither)", kind="text"),
    Column("entropy_points", "Δ entropy moved by, points", signed=True),
    Column("entropy_low", "95 % from", signed=True),
    Column("entropy_high", "95 % to", signed=True),
    Column("accuracy_is", "Accuracy", "moved, held, or unclear (neither)", kind="text"),
    Column("accuracy_points", "Accuracy moved by, points", signed=True),
    Column("accuracy_low", "95 % from", signed=True),
    Column("accuracy_high", "95 % to", signed=True),
    Column("weight_drift_is", "Weight drift", "moved, held, or unclear (neither)", kind="text"),
    Column("weight_drift_change_pct", "Weight drift moved by, % of the twin's", signed=True),
    Column("weight_drift_low", "95 % from", signed=True),
    Column("weight_drift_high", "95 % to", signed=True),
    Column("d", "Cohen's d", decimals=3, signed=True),
    Column("d_low", "d, 95 % from", decimals=3, signed=True),
    Column("d_high", "d, 95 % to", decimals=3, signed=True),
    Column("d_z", "Cohen's d_z", "of paired differences", decimals=3, signed=True),
    Column("d_z_low", "d_z, 95 % from", decimals=3, signed=True),
    Column("d_z_high", "d_z, 95 % to", decimals=3, signed=True),
    Column("auc", "AUC", "direction fixed in advance", decimals=3),
    Column("oriented_auc_upper_bound", "AUC, best direction", "an upper bound", decimals=3),
    Column("budget_pct", "Budget, % retention", kind="general"),
    Column("higher_means_damaged", "High means damaged", kind="text"),
    # values, in the unit of what the row is about
    Column("slope_per_decade", "Slope per decade of rate", _PER_ROW, kind="general"),
    Column("at_lowest_rate", "At the lowest rate", _PER_ROW, kind="measure"),
    Column("at_highest_rate", "At the highest rate", _PER_ROW, kind="measure"),
    Column("mean_method", "Mean of method", _PER_ROW, kind="measure"),
    Column("mean_baseline", "Mean of baseline", _PER_ROW, kind="measure"),
    Column("mean_first", "Mean of first", _PER_ROW, kind="measure"),
    Column("mean_second", "Mean of second", _PER_ROW, kind="measure"),
    Column("difference", "Difference", _PER_ROW, kind="measure"),
    Column("mean_difference", "Mean difference", _PER_ROW, kind="measure"),
    Column("low", "95 % from", kind="measure"),
    Column("high", "95 % to", kind="measure"),
    Column("mean", "Mean", _PER_ROW, kind="measure"),
    Column("difference_from_largest", "From the largest probe's", _PER_ROW, kind="measure"),
    Column("cv", "CV", "standard deviation over subsets by the size of their mean, dividing by n; "
           "undefined of one subset, large where the mean is near 0", kind="general"),
    Column("cv_sample", "CV, sample", "the same with n − 1", kind="general"),
    Column("sd_over_seeds", "SD over seeds", _PER_ROW, kind="measure"),
    Column("sd_between_cells", "SD between cells", _PER_ROW, kind="measure"),
    Column("seed_share", "Share of seeds", "SD over seeds by SD between cells", decimals=2),
    # measured
    *(
        metric_column(key, "")
        for key in (
            "entropy_nats", "delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct", "cka",
            "rollout_entropy_bits", "rollout_erf95", "rollout_gini", "patch_to_patch_entropy_bits",
            "test_accuracy_pct", "val_accuracy_pct", "retention_pct", "pretrained_pct",
            "adapted_pct",
        )
    ),
    metric_column("cka_debiased", "corrected for few images"),
    metric_column("zero_shot_pct", "", interval=("zero_shot_low_pct", "zero_shot_high_pct"),
                  count="zero_shot_num_images"),
    Column("entropy_cv", "Entropy CV",
           "coefficient of variation of mean entropy over probe subsets", decimals=4),
    Column("entropy_gap_points", "Entropy gap, points",
           "Δ entropy minus that of the first backbone listed", signed=True),
    Column("is_contracted", "Contracted", kind="text"),
    Column("onset_layer", "First contracted layer", kind="count"),
    Column("num_contracted_layers", "Contracted layers", "in every seed", kind="count"),
    Column("most_contracted_layer", "Lowest Δ entropy, layer", "where the mean over seeds falls so "
           "far; single seeds may differ", kind="count"),
    Column("delta_entropy_pct_there", "Δ entropy there, %", signed=True),
    Column("most_changed_layer", "Most changed layer", "up or down", kind="count"),
    Column("largest_delta_entropy_pct", "Δ entropy in it, %", signed=True),
    Column("onset_epoch", "First contracted epoch", "of the mean over layers", kind="count"),
    Column("regret_points", "Regret, points", "short of the best possible"),
    Column("on_frontier", "Non-dominated", kind="text"),
    Column("is_on_frontier", "Non-dominated", kind="text"),
    Column("lowest_retention_pct", "Lowest retention, %", "of the cell's runs"),
    Column("lowest_on", "Lowest on", "of the transfer sets", kind="text"),
    Column("hypervolume_pct2", "Hypervolume, %²", "of the dataset's cells", kind="count"),
    Column("method_hypervolume_pct2", "Hypervolume of the method, %²", kind="count"),
)  # fmt: skip

KNOWN = {column.key: column for column in _COLUMNS}
"""Each by its key in the frames that `analysis` makes."""


def known(*keys: str) -> tuple[Column, ...]:
    """These columns, in this order."""
    return tuple(KNOWN[key] for key in keys)


def filled(columns: Iterable[Column], frame: pd.DataFrame) -> tuple[Column, ...]:
    """The columns of which the frame holds a value."""
    return tuple(one for one in columns if one.key in frame and frame[one.key].notna().any())
