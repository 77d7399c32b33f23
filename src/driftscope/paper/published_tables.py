"""The tables of the publication and of its follow-up, of one's own study.

Each function takes what `analysis` computed and gives a table, or says in words what the study
lacks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

import pandas as pd

from driftscope.analysis import Answer, StudyTables
from driftscope.analysis.answer_tables import family_words, measure_with_unit
from driftscope.analysis.columns import KNOWN, filled, known
from driftscope.analysis.grouping import APART, MEASURING, SETTING, in_reading_order
from driftscope.analysis.table import Column, Table
from driftscope.analysis.tables import label
from driftscope.analysis.words import rate_text
from driftscope.paper.summaries import (
    NO_REGULARIZER,
    auxiliary_structure,
    backbones,
    grid_means,
    regularized_cells,
)

Answers: TypeAlias = Mapping[str, Answer]
Built: TypeAlias = "Table | str"

_VALIDATION = replace(KNOWN["val_accuracy_pct"], explanation="of the best epoch")
_OUTCOMES = (
    *known("delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct"),
    _VALIDATION,
    *known("test_accuracy_pct", "zero_shot_pct", "retention_pct"),
)
_OVER_SEEDS = "Mean ± sample standard deviation over seeds."
_SMALL_PRINT = (
    "In brackets: the 95 % Wilson interval of one evaluation on n images (means of its limits)."
)


# ---------------------------------------------------------------- the publication's


def grid_means_table(study: StudyTables) -> Built:
    """Table 1: means over the matched learning rates."""
    frame = grid_means(study)
    if frame.empty or frame["num_cells"].max() < 2:
        return "no method has two learning rates"
    frame = frame.assign(rates=frame["rates"].map(_rates_text))
    return _table(
        study,
        "grid_means",
        "Means over the learning-rate grid",
        (
            *known("dataset", "series", "rates"),
            Column("num_cells", "n (rates)", "cells averaged, one a learning rate", kind="count"),
            KNOWN["num_runs"],
            # an interval of a mean over rates would be one of nothing
            *(replace(one, interval=None) for one in _OUTCOMES),
            KNOWN["cka"],
        ),
        in_reading_order(frame, [key for key in (*APART, "dataset") if key in frame], []),
        "Mean ± standard deviation over the learning rates, not over seeds. A mean over rates "
        "hides where a method underfits or destroys; compare rows of the same rates only, and "
        "read them beside the single cells. In brackets: the images of each evaluation.",
    )


def auxiliary_structure_table(study: StudyTables) -> Built:
    """Table 2: rollout, patch-to-patch, CKA over blocks, entropy's spread over subsets."""
    frame = auxiliary_structure(study)
    if frame.empty:
        return "no run read full attention maps (`maps: true`)"
    return _table(
        study,
        "auxiliary_structure",
        "Structure beyond the CLS token's attention",
        (
            *known("dataset", "series", "learning_rate"),
            KNOWN["num_runs"],
            *known(
                "rollout_entropy_bits",
                "rollout_erf95",
                "rollout_gini",
                "patch_to_patch_entropy_bits",
            ),
            *known("cka", "cka_debiased", "entropy_cv", "num_subsets", "subset_images"),
        ),
        frame,
        f"{_OVER_SEEDS} CKA is averaged over the outputs of the blocks; the publication's mean "
        "took in the constant CLS embedding before them, where CKA is 0/0. How wide the subsets' "
        "spread is depends on how many images a subset has.",
    )


def cka_entropy_table(study: StudyTables, answers: Answers) -> Built:
    """Table 3: CKA with Δ entropy over cells: of means over blocks, and of the strongest block."""
    answered = answers.get("layer_profile")
    pairing = answered.details.get("cka_entropy", pd.DataFrame()) if answered else pd.DataFrame()
    if pairing.empty:
        return "no dataset has four cells with per-block CKA and Δ entropy"
    keys = [name for name in (*APART, "dataset") if name in pairing]
    parts = []
    for _, group in pairing.groupby(keys, sort=True):
        layers = group.dropna(subset=["layer", "rho"]).sort_values("rho", key=abs, kind="stable")
        parts += [group[group["layer"].isna()], layers.tail(1)]
    frame = pd.concat(parts, ignore_index=True)
    frame["analysis"] = [
        "mean over blocks" if layer != layer else f"strongest block ({layer:.0f})"
        for layer in frame["layer"]
    ]
    return _table(
        study,
        "cka_entropy",
        "CKA with the pretrained model against Δ entropy",
        (
            *known(
                "dataset",
                "analysis",
                "num_cells",
                "pearson_r",
                "p_pearson",
                "p_pearson_floor",
                "rho",
            ),
            Column("p_value", "p (ρ)", kind="general"),
            replace(KNOWN["p_floor"], heading="Floor of p (ρ)"),
            Column("p_holm", "Holm p (ρ)", kind="general"),
        ),
        frame,
        "Permutation tests over cells, each the mean of its seeds; a p that could not fall below "
        "0.05 is not given. Blocks are paired with their own entropies. The strongest block was "
        "chosen after the fact: its Holm p accounts for all blocks of all datasets, its raw p "
        "does not.",
    )


def backbones_table(study: StudyTables) -> Built:
    """Table 4: the same runs under several backbones."""
    frame = backbones(study)
    if frame.empty:
        return "no method was run at one rate and dataset with two backbones"
    return _table(
        study,
        "backbones",
        "The same adaptation of several backbones",
        (
            *known("dataset", "series", "learning_rate"),
            Column("model", "Backbone", kind="text"),
            KNOWN["num_runs"],
            *_OUTCOMES,
            KNOWN["entropy_gap_points"],
            Column("num_pairs", "n (gap)", "seeds that both have", kind="count"),
        ),
        frame,
        f"{_OVER_SEEDS} The gap is paired over seeds and compares two backbones; no other number "
        f"joins them. Entropy's sign is the backbone's. {_SMALL_PRINT}",
        in_rows=("model",),
    )


def regularizers_table(study: StudyTables) -> Built:
    """Table 5: regularizers and weight decays beside none."""
    frame = regularized_cells(study)
    if frame.empty:
        return "no method was run at one rate and dataset with a regularizer and without"
    frame["option"] = [
        name if name != NO_REGULARIZER else f"none, weight decay {decay:g}"
        for name, decay in zip(frame["regularizer"], frame["weight_decay"], strict=True)
    ]
    return _table(
        study,
        "regularizers",
        "Regularizers and weight decay",
        (
            *known("dataset", "method", "learning_rate", "option"),
            *_varying(frame),
            KNOWN["num_runs"],
            *_OUTCOMES,
            KNOWN["cka"],
        ),
        frame,
        f"{_OVER_SEEDS} Tests are in the table of corrected inference. {_SMALL_PRINT}",
    )


def _varying(frame: pd.DataFrame) -> list[Column]:
    """What else tells the rows apart, where it varies."""
    columns = known("weight_decay", "epochs", "batch_size", "data_seed", "options")
    return [one for one in columns if one.key in frame and frame[one.key].nunique() > 1]


def seed_contrasts_table(study: StudyTables, answers: Answers) -> Built:
    """Table 6: the seeds of one cell against those of another."""
    answered = answers.get("seed_contrasts")
    if answered is None or answered.table.empty:
        return "no two cells of a dataset have two seeds each, one of them full_ft"
    frame = answered.table.assign(metric_label=answered.table["metric"].map(measure_with_unit))
    return _table(
        study,
        "seed_contrasts",
        "Seeds of one cell against seeds of another",
        (
            *known("dataset", "comparison", "rates", "metric_label", "num_first", "num_second"),
            *known("mean_first", "mean_second"),
            Column("t", "Welch t", decimals=3, signed=True),
            Column("p_value", "Welch p", kind="general"),
            KNOWN["p_holm"],
            Column("d", "Cohen's d", decimals=3, signed=True, interval=("d_low", "d_high")),
            *known("p_exact", "p_exact_floor"),
        ),
        frame.assign(rates=frame["rates"].map(_rates_text)),
        f"{_OVER_SEEDS} Percent changes and points, first minus second (the publication "
        "has it the other way round); d with its 95 % interval. "
        f"{_family_words(answered)} Where the floor is above 0.05 no exact test of so few seeds "
        "could reach it. Layers, images and epochs of a run are not counted as evidence.",
    )


def corrected_inference_table(study: StudyTables, answers: Answers) -> Built:
    """Table 7: learning rate with Δ entropy by permutation; regularizers per layer, with Holm."""
    rows = [*_rate_rows(answers), *_regularizer_rows(answers)]
    if not rows:
        return "no method has three learning rates, and no regularised run an unregularised twin"
    families = " ".join(
        _family_words(answers[name])
        for name in ("dose_response", "regularizers")
        if name in answers and answers[name].family
    )
    return _table(
        study,
        "corrected_inference",
        "Corrected inference on Δ entropy",
        (
            KNOWN["dataset"],
            Column("comparison", "Comparison", kind="text"),
            *known("test", "num_units", "statistic", "p_value", "p_floor", "p_holm"),
        ),
        pd.DataFrame(rows),
        f"{families} Pearson's r and tests over seeds are in no family. Layers of one network "
        "are not independent: where a test is over layers it describes a profile and does not show "
        "that a regularizer works.",
    )


# ---------------------------------------------------------------- the follow-up's


def predictors_table(study: StudyTables, answers: Answers) -> Built:
    """Which signal goes with retention, at the end and after the first epoch."""
    answered = answers.get("predictors")
    if answered is None or answered.table.empty:
        return "retention of three cells is needed"
    table = answered.table
    frame = table[table["scope"].isin(["overall", "mean of groups"])].copy()
    frame["signal_label"] = [
        f"|{label(name)}|" if form == "absolute" else label(name)
        for name, form in zip(frame["signal"], frame["form"], strict=True)
    ]
    order = {"overall": 0, "mean of groups": 1, "final": 0, "first": 1}
    frame["_scope"], frame["_probe"] = frame["scope"].map(order), frame["probe"].map(order)
    keys = [name for name in APART if name in frame]
    frame = frame.sort_values(
        [*keys, "_scope", "_probe", "abs_rho"], ascending=[*[True] * len(keys), True, True, False]
    ).drop(columns=["_scope", "_probe"])
    return _table(
        study,
        "predictors",
        "Which signal goes with retention",
        (
            *known("scope", "probe", "signal_label"),
            replace(
                KNOWN["rho"],
                explanation="with its 95 % bootstrap interval over cells",
                interval=("low", "high"),
            ),
            replace(
                KNOWN["abs_rho"], explanation="mean of the groups' |ρ| where groups are averaged"
            ),
            *known("partial_rho", "num_runs", "num_cells"),
        ),
        frame,
        "“Overall” pools the datasets and methods of a setting; “mean of groups” averages the ρ "
        "of each dataset × method. Intervals resample cells, since seeds of one cell are no "
        "independent evidence; with fewer than eight cells none is given. Associations, with the "
        "learning rate among their common causes.",
    )


def selection_table(study: StudyTables, answers: Answers) -> Built:
    """What each signal would have picked among the runs that are accurate enough."""
    answered = answers.get("selection")
    if answered is None or answered.table.empty:
        return "retention and validation accuracy are needed"
    frame = answered.table.assign(rule_label=[label(rule) for rule in answered.table["rule"]])
    return _table(
        study,
        "selection",
        "What a signal picks among runs that are accurate enough",
        (
            *known("dataset", "pool", "rule_label", "picks", "num_decisions"),
            *known("num_candidates", "retention_pct", "regret_points"),
        ),
        frame,
        "Candidates are within 2 points of the best validation accuracy. All runs of a target are "
        "one pool and one decision, which has no dispersion; where each seed decides by itself, "
        "mean ± standard deviation over those decisions. This describes, it does not test.",
    )


def frontier_table(study: StudyTables, answers: Answers) -> Built:
    """Cells by accuracy and retention, the non-dominated ones first."""
    answered = answers.get("frontier")
    if answered is None or answered.table.empty:
        return "retention and accuracy are needed"
    words = {True: "yes", False: ""}
    frame = answered.table.assign(
        on_frontier=[words[bool(on)] for on in answered.table["is_on_frontier"]]
    )
    return _table(
        study,
        "frontier",
        "Accuracy against retention",
        (
            *known("dataset", "on_frontier", "method", "learning_rate"),
            KNOWN["num_runs"],
            KNOWN["test_accuracy_pct"],
            _VALIDATION,
            *known("retention_pct", "hypervolume_pct2"),
        ),
        frame,
        f"{_OVER_SEEDS} Non-dominated: no other cell of the dataset has both more accuracy and "
        "more retention, judged by the means, which seeds may reorder.",
    )


# ---------------------------------------------------------------- shared


def _table(
    study: StudyTables,
    name: str,
    title: str,
    columns: Iterable[Column],
    frame: pd.DataFrame,
    note: str,
    *,
    in_rows: tuple[str, ...] = (),
) -> Table:
    """The table with what is known of its columns; a setting that all rows share goes in the note.

    `in_rows` names what of the setting has a column already.
    """
    shared, varying = [], []
    for key, column in zip(SETTING, known(*SETTING), strict=True):
        if key in in_rows or key not in study.runs:
            continue
        values = list(dict.fromkeys(study.runs[key].dropna().astype(str)))
        if len(values) > 1:
            varying.append(column)
        elif values:
            shared.append(f"{column.heading.lower()} {values[0]}")
    if MEASURING in frame and frame[MEASURING].nunique() > 1:
        varying += known(MEASURING)
    words = ", ".join(shared)
    words = f"{words[0].upper()}{words[1:]}. " if shared else ""
    shown = filled([*varying, *columns], frame)
    return Table(name, title, words + note.strip(), shown, frame.reset_index(drop=True))


def _rates_text(rates: str) -> str:
    """'1e-05 vs 5e-05' as people write it."""
    words = rates.replace(",", " ,").split(" ")
    written = [rate_text(float(word)) if _is_number(word) else word for word in words]
    return " ".join(written).replace(" ,", ",")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _family_words(answered: Answer) -> str:
    return " ".join(family_words(family) for family in answered.family if family["num_tests"])


def _rate_rows(answers: Answers) -> list[dict[str, object]]:
    answered = answers.get("dose_response")
    if answered is None or answered.table.empty:
        return []
    rows = []
    table = answered.table
    for row in table[table["outcome"] == "delta_entropy_pct"].to_dict("records"):
        within = f", within {row['num_seeds']} seeds" if row["num_seeds"] > 1 else ""
        exact = "Exact" if row["procedure"] == "exact" else "Sampled"
        shared = {
            **{key: row[key] for key in (*APART, "dataset") if key in row},
            "comparison": f"learning rate with Δ entropy, {row['method']} "
            f"({row['num_rates']} rates)",
            "num_units": row["num_runs"],
        }
        for kind, statistic, p_value, p_floor, p_holm in (
            ("Pearson r", row["pearson_r"], row["p_pearson"], row["p_pearson_floor"], None),
            ("Spearman ρ", row["rho"], row["p_value"], row["p_floor"], row["p_holm"]),
        ):
            rows.append(
                {
                    **shared,
                    "test": f"{exact} permutation {kind}{within}",
                    "statistic": statistic,
                    "p_value": p_value,
                    "p_floor": p_floor,
                    "p_holm": p_holm,
                }
            )
    return rows


def _regularizer_rows(answers: Answers) -> list[dict[str, object]]:
    answered = answers.get("regularizers")
    if answered is None or answered.table.empty:
        return []
    rows = []
    for row in answered.table.to_dict("records"):
        seeds = f", mean of {row['num_seeds']} seeds" if row["num_seeds"] > 1 else ""
        rows.append(
            {
                **{key: row[key] for key in (*APART, "dataset") if key in row},
                "comparison": f"{row['regularizer']} against none, {row['method']} at "
                f"{rate_text(row['learning_rate'])}",
                "test": f"Paired t over layers{seeds}",
                "num_units": row["num_layers"],
                "statistic": row["t"],
                "p_value": row["p_value"],
                "p_floor": None,
                "p_holm": row["p_holm"],
            }
        )
        if row["p_over_seeds"] == row["p_over_seeds"]:
            rows.append(
                {
                    **rows[-1],
                    "test": "Paired t over seeds of mean Δ entropy",
                    "num_units": row["num_seeds"],
                    "statistic": row["t_over_seeds"],
                    "p_value": row["p_over_seeds"],
                    "p_holm": None,
                }
            )
    return rows
