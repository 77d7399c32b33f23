"""The tables of an answer, every column and row of them, with headings that people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from driftscope.analysis import Answer
from driftscope.analysis.tables import LABELS
from driftscope.report.columns import Column, Table

TITLES = {
    "dose_response": "Dose response: what changes with the learning rate?",
    "method_contrast": "Methods against each other",
    "seed_contrasts": "Single cells against each other, seeds against seeds",
    "predictors": "Which signal tells how much is left?",
    "selection": "Which signal picks the run to keep?",
    "frontier": "Accuracy against retention: which cells are worth having?",
    "layer_profile": "Where in the network, and when?",
    "stability": "How steady are the signals?",
    "regularizers": "Do regularizers change attention?",
}

_PER_ROW = "in the unit that the row names"
_COLUMNS = (
    # what a row is
    Column("model", "Model", kind="text"),
    Column("protocol", "Protocol", kind="text"),
    Column("transfer", "Zero-shot on", kind="text"),
    Column("dataset", "Target", kind="text"),
    Column("method", "Method", kind="text"),
    Column("baseline", "Baseline", kind="text"),
    Column("comparison", "First vs second", kind="text"),
    Column("cell", "Cell", kind="text"),
    Column("run_id", "Run", kind="text"),
    Column("learning_rate", "Learning rate", kind="rate"),
    Column("rates", "Learning rates", kind="text"),
    Column("rates_differ", "Rates differ", kind="text"),
    Column("regularizer", "Regularizer", kind="text"),
    Column("layer", "Layer", "blank: the mean over blocks", kind="count"),
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
    Column("picks", "Picks", kind="text"),
    Column("procedure", "Procedure", kind="text"),
    Column("note", "Note", kind="text"),
    # how much it rests on
    Column("num_runs", "n (runs)", kind="count"),
    Column("num_cells", "n (cells)", kind="count"),
    Column("num_groups", "n (groups)", kind="count"),
    Column("num_rates", "n (rates)", kind="count"),
    Column("num_seeds", "n (seeds)", kind="count"),
    Column("num_pairs", "n (pairs)", kind="count"),
    Column("num_first", "n first", kind="count"),
    Column("num_second", "n second", kind="count"),
    Column("num_layers", "n (layers)", kind="count"),
    Column("num_images", "n (images)", kind="count"),
    Column("num_subsets", "n (subsets)", kind="count"),
    Column("num_decisions", "n (decisions)", kind="count"),
    Column("num_candidates", "Candidates, mean", "runs to choose from"),
    Column("num_damaged", "Damaged", "runs under the budget", kind="count"),
    Column("num_retained", "Retained", "the other runs", kind="count"),
    Column("num_arrangements", "Arrangements", "of the permutation test", kind="count"),
    # correlations and tests
    Column("rho", "Spearman ρ", decimals=3, signed=True),
    Column("abs_rho", "|ρ|", decimals=3),
    Column("partial_rho", "ρ at fixed rate", "log learning rate held fixed", decimals=3,
           signed=True),
    Column("pearson_r", "Pearson r", decimals=3, signed=True),
    Column("gap", "Gap in |ρ|", "the reference's |ρ| minus the signal's", decimals=3, signed=True),
    Column("t", "t", decimals=3, signed=True),
    Column("p_value", "p", kind="general"),
    Column("p_holm", "Holm p", kind="general"),
    Column("p_floor", "Floor of p", "smallest p that these data can give", kind="general"),
    Column("p_standard_error", "SE of p", "of a sampled p", kind="general"),
    Column("p_pearson", "p (r)", kind="general"),
    Column("p_pearson_floor", "Floor of p (r)", kind="general"),
    Column("p_exact", "Exact p", "permutation of the seeds", kind="general"),
    Column("p_exact_floor", "Floor of exact p", kind="general"),
    Column("p_over_rates", "p over rates", "paired t over the rates' mean differences",
           kind="general"),
    Column("t_over_seeds", "t over seeds", decimals=3, signed=True),
    Column("p_over_seeds", "p over seeds", "paired t over seeds of mean Δ entropy",
           kind="general"),
    Column("p_wilcoxon", "Wilcoxon p", kind="general"),
    Column("p_sign_flip", "Sign-flip p", "exact", kind="general"),
    Column("p_sign_flip_floor", "Floor of sign-flip p", kind="general"),
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
    Column("at_lowest_rate", "At the lowest rate", _PER_ROW, kind="general"),
    Column("at_highest_rate", "At the highest rate", _PER_ROW, kind="general"),
    Column("mean_method", "Mean of method", _PER_ROW, kind="general"),
    Column("mean_baseline", "Mean of baseline", _PER_ROW, kind="general"),
    Column("mean_first", "Mean of first", _PER_ROW, kind="general"),
    Column("mean_second", "Mean of second", _PER_ROW, kind="general"),
    Column("difference", "Difference", _PER_ROW, kind="general"),
    Column("mean_difference", "Mean difference", _PER_ROW, kind="general"),
    Column("low", "95 % from", kind="general"),
    Column("high", "95 % to", kind="general"),
    Column("mean", "Mean", _PER_ROW, kind="general"),
    Column("difference_from_largest", "From the largest probe's", _PER_ROW, kind="general"),
    Column("cv", "CV", "coefficient of variation over subsets, population", kind="general"),
    Column("cv_sample", "CV, sample", "the same with n − 1", kind="general"),
    Column("sd_over_seeds", "SD over seeds", _PER_ROW, kind="general"),
    Column("sd_between_cells", "SD between cells", _PER_ROW, kind="general"),
    Column("seed_share", "Share of seeds", "SD over seeds by SD between cells", decimals=2),
    # measured
    Column("entropy_nats", "Entropy, nats", decimals=3),
    Column("delta_entropy_pct", "Δ entropy, %", decimals=2, signed=True),
    Column("delta_erf95_pct", "Δ ERF@0.95, %", decimals=2, signed=True),
    Column("delta_gini_pct", "Δ Gini, %", decimals=2, signed=True),
    Column("cka", "CKA", decimals=3),
    Column("is_contracted", "Contracted", kind="text"),
    Column("onset_layer", "First contracted layer", kind="count"),
    Column("num_contracted_layers", "Contracted layers", kind="count"),
    Column("most_contracted_layer", "Most contracted layer", kind="count"),
    Column("delta_entropy_pct_there", "Δ entropy there, %", decimals=2, signed=True),
    Column("onset_epoch", "First contracted epoch", "of the mean over layers", kind="count"),
    Column("test_accuracy_pct", "Test accuracy, %", decimals=2),
    Column("val_accuracy_pct", "Validation accuracy, %", decimals=2),
    Column("retention_pct", "Retention, %", decimals=2),
    Column("regret_points", "Regret, points", "short of the best possible", decimals=2),
    Column("is_on_frontier", "Non-dominated", kind="text"),
    Column("hypervolume_pct2", "Hypervolume, %²", "of the dataset's cells", kind="count"),
    Column("method_hypervolume_pct2", "Hypervolume of the method, %²", kind="count"),
)  # fmt: skip
"""Every column that an answer can have, in the words of the tables that people read."""

WORDED = {column.key: column for column in _COLUMNS}
"""The same by key."""
_TEST = {
    "dose_response": "p (ρ)",
    "layer_profile": "p (ρ)",
    "method_contrast": "p (paired t)",
    "seed_contrasts": "p (Welch)",
    "regularizers": "p (paired t)",
}
"""Of which test a question's `p_value` is."""
_NAMING = ("outcome", "metric", "signal", "reference", "value", "rule", "matching")
"""Columns whose values are names of measures."""


def answer_tables(answer: Answer) -> list[Table]:
    """The answer's table and its further ones, every column shown."""
    frames = {answer.question: answer.table}
    frames |= {f"{answer.question}_{name}": table for name, table in answer.details.items()}
    title = TITLES.get(answer.question, answer.question)
    return [
        Table(
            name=name,
            title=title if name == answer.question else f"{title} {name.replace('_', ' ')}",
            note=basis(answer),
            columns=tuple(
                _column(str(key), answer.question, frame)
                for key in frame.columns
                if not str(key).endswith("_sd")  # written beside its mean
            ),
            frame=_in_words(frame),
        )
        for name, frame in frames.items()
        if len(frame)
    ]


def basis(answer: Answer) -> str:
    """How many units the answer rests on, what was left out, how p-values were adjusted."""
    if not answer.is_answered:
        return ""
    parts = [f"Rests on {answer.num_units} {answer.unit}."]
    parts += [f"Left out: {exclusion}." for exclusion in answer.excluded]
    parts += [family_words(family) for family in answer.family if family["num_tests"]]
    return " ".join(parts)


def family_words(family: Mapping[str, object]) -> str:
    """Which p-values were adjusted together."""
    setting = f"{family['setting']}: " if family.get("setting") else ""
    return f"Holm over {family['num_tests']} tests ({setting}{family['name']})."


def measure_with_unit(name: str) -> str:
    """A measure's name as people write it, with its unit if it has one.

    >>> measure_with_unit("retention_pct"), measure_with_unit("cka"), measure_with_unit("oracle")
    ('retention, %', 'CKA', 'oracle')
    """
    words, _, last = name.rpartition("_")
    unit = {"pct": "%", "nats": "nats", "bits": "bits"}.get(last)
    label = LABELS.get(name, (words if unit else name).replace("_", " "))
    return f"{label}, {unit}" if unit else label


def _column(key: str, question: str, frame: pd.DataFrame) -> Column:
    if key not in WORDED:  # of a question of one's own
        is_number = pd.api.types.is_numeric_dtype(frame[key])
        return Column(key, key.replace("_", " "), kind="general" if is_number else "text")
    column = WORDED[key]
    return replace(column, heading=_TEST.get(question, "p")) if key == "p_value" else column


def _in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Truth values and measures' names as words; keys stay as they are."""
    words = {True: "yes", False: "no"}
    is_boolean = {key: pd.api.types.infer_dtype(frame[key], skipna=True) for key in frame}
    booleans = {key: frame[key].map(words) for key in frame if is_boolean[key] == "boolean"}
    names = {key: frame[key].map(measure_with_unit) for key in _NAMING if key in frame}
    return frame.assign(**{str(key): values for key, values in (booleans | names).items()})
