"""Causes: are the blocks where attention or representation moves the blocks that do the damage?"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    lead_with,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import scopes, usable_runs
from driftscope.analysis.tables import Exclusion, StudyTables, leave_out
from driftscope.analysis.words import counted, few_words, general_text, join_words, rho_text
from driftscope.stats.groups import sign_flip
from driftscope.stats.multiplicity import Family
from driftscope.stats.profiles import profiles_go_together

QUESTION = "causes"
MIN_LOSS_POINTS = 5.0
"""A run that lost less tells nothing of where: its values are noise of a few images."""

MIN_BLOCKS = 3
DAMAGES = {"Shapley value": "shapley_points", "regained": "regained_points"}
"""What a block does: its part of the loss, and what its groups regain when each goes back alone."""


def causes(tables: StudyTables, *, alpha: float = ALPHA) -> Answer:
    """The damage of each block ranked against what changed there.

    What a block's groups of weights do is summed over them: their Shapley values, and what is
    regained as each goes back to W₀ alone. What changed there is the size of Δ entropy, 1 − CKA,
    and the CKA lost at the block itself, beyond the block below. Runs that lost less than 5 points
    are left out.

    Spearman's correlation is over the blocks of a run. The p-value is of exact permutations of the
    blocks, in all runs alike: a pattern of blocks that all runs share is one fact. Beside it stands
    the exact sign flip over cells of their mean correlation, which takes such a pattern for one
    fact a cell. Holm over damage × change, of the former.

    Returns:
        One row a scope, damage and change; units are cells. Details: "runs", each run's
        correlations.
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha))


def _in_setting(tables: StudyTables, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    profiles = _profiles(tables, runs, excluded)
    if profiles.empty:
        return cannot_answer(
            QUESTION,
            "no run that lost something was asked where its damage sits; give post: [where] in the "
            "spec, and a pool",
            excluded,
        )
    rows = [
        {"scope": scope, "damage": damage, "change": change, **_row(part, damage, change)}
        for scope, part in scopes(profiles)
        for damage in DAMAGES
        for change in _CHANGES
    ]
    table = pd.DataFrame(rows)
    widest = table["scope"] == table["scope"].iloc[0]
    family = Family(
        "causes: damage × change",
        tuple(f"{row['damage']} · {row['change']}" for row in table[widest].to_dict("records")),
    )
    tested, declared = with_holm(table[widest].reset_index(drop=True), family, alpha)
    table["p_holm"] = nan
    table.loc[widest, "p_holm"] = tested["p_holm"].to_numpy()
    return Answer(
        question=QUESTION,
        sentence=_sentence(profiles, tested, alpha),
        remarks=tuple(_remarks(tested)),
        table=lead_with(table, "change", "damage", "scope", "rho", "p_value", "p_holm", "p_floor"),
        unit="cells",
        num_units=int(profiles["cell"].nunique()),
        excluded=tuple(excluded),
        family=(declared,),
        details={"runs": _by_run(profiles)},
    )


# ---------------------------------------------------------------- profiles


def _profiles(tables: StudyTables, runs: pd.DataFrame, excluded: list[Exclusion]) -> pd.DataFrame:
    """One row a run that lost something: its damages and changes, each an array over blocks."""
    damage = tables.damage
    if damage.empty or "block" not in damage:
        return pd.DataFrame()
    runs = leave_out(
        runs, runs["run_id"].isin(damage["run_id"]), "runs", "not asked where", excluded
    )
    loss = damage.groupby("run_id")["shapley_points"].sum()
    lost = runs["run_id"].map(loss) >= MIN_LOSS_POINTS
    why = f"lost less than {MIN_LOSS_POINTS:g} points"
    runs = leave_out(runs, lost, "runs", why, excluded)
    by_block = damage.groupby(["run_id", "block"])[list(DAMAGES.values())].sum().reset_index()
    layers = tables.layers.rename(columns={"layer": "block"})
    joined = by_block.merge(layers[["run_id", "block", "delta_entropy_pct", "cka"]])
    found = [
        {**dict(run[list(_OF_RUN)]), **_profile(own)}
        for _, run in runs.iterrows()
        for own in [joined[joined["run_id"] == run["run_id"]].sort_values("block")]
        if len(own) >= MIN_BLOCKS
    ]
    profiles = pd.DataFrame(found)
    if len(profiles):
        usual = profiles["num_blocks"].mode()[0]
        is_usual = profiles["num_blocks"] == usual
        profiles = leave_out(profiles, is_usual, "runs", f"not of {usual} blocks", excluded)
    return profiles


_OF_RUN = ("run_id", "dataset", "series", "learning_rate", "seed", "cell")
_CHANGES = ("|Δ entropy|", "1 − CKA", "CKA lost at the block")


def _profile(own: pd.DataFrame) -> dict[str, Any]:
    away = 1 - own["cka"].to_numpy(dtype=np.float64)
    changes = (np.abs(own["delta_entropy_pct"].to_numpy()), away, np.diff(away, prepend=0.0))
    return {
        "num_blocks": len(own),
        **{name: own[column].to_numpy() for name, column in DAMAGES.items()},
        **dict(zip(_CHANGES, changes, strict=True)),
    }


def _row(part: pd.DataFrame, damage: str, change: str) -> dict[str, Any]:
    test = profiles_go_together(list(part[damage]), list(part[change]))
    cells = pd.Series(test.by_unit).groupby(part["cell"].to_numpy()).mean().dropna()
    flips = sign_flip(cells, np.zeros(len(cells)))
    same = [
        int(np.argmax(one) == np.argmax(other))
        for one, other in zip(part[damage], part[change], strict=True)
        if np.isfinite(other).all()
    ]
    return {
        "rho": test.mean,
        "num_runs": test.num_units,
        "num_cells": len(cells),
        "num_layers": int(part["num_blocks"].iloc[0]),
        "p_value": test.p_value,
        "p_floor": test.p_floor,
        "num_arrangements": test.num_arrangements,
        "p_sign_flip": flips.p_value,
        "p_sign_flip_floor": flips.p_floor,
        "num_same_block": sum(same),
    }


def _by_run(profiles: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for run in profiles.to_dict("records"):
        for damage in DAMAGES:
            rhos = {
                change: profiles_go_together([run[damage]], [run[change]]).mean
                for change in _CHANGES
            }
            keys = ("run_id", "dataset", "series", "learning_rate", "seed")
            named = {key: run[key] for key in keys}
            named["method"] = named.pop("series")
            rows += [
                {**named, "damage": damage, "change": change, "rho": rho}
                for change, rho in rhos.items()
            ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- words


def _sentence(profiles: pd.DataFrame, tested: pd.DataFrame, alpha: float) -> str:
    num_blocks = int(tested["num_layers"].iloc[0])
    main = tested[tested["damage"] == "Shapley value"]
    told = [
        f"{row['change']} (mean ρ {rho_text(row['rho'])}, p = {general_text(row['p_value'])})"
        for row in main.to_dict("records")
    ]
    shown = main[main["p_holm"] <= alpha]
    verdicts = [
        f"a block does {words} damage the larger {join_words(some['change'])} is there"
        for words, some in (
            ("more", shown[shown["rho"] > 0]),
            ("less", shown[shown["rho"] < 0]),
        )
        if len(some)
    ]
    verdict = " and ".join(verdicts) or (
        "nothing shows that the blocks that change most do the damage"
    )
    return (
        f"Over the {num_blocks} blocks of {counted(len(profiles), 'run')} that lost something, "
        f"{verdict}. Rank correlations with the damage: {few_words(told)}."
    )


def _remarks(tested: pd.DataFrame) -> Iterator[str]:
    num_blocks = int(tested["num_layers"].iloc[0])
    main = tested[tested["damage"] == "Shapley value"]
    told = [f"{row['num_same_block']} by {row['change']}" for row in main.to_dict("records")]
    runs = int(main["num_runs"].max())
    yield (
        f"The block that changed most is the one of the most damage in {join_words(told)} of "
        f"{counted(runs, 'run')}; by chance it would be in {runs / num_blocks:.1f}."
    )
    yield (
        "Blocks differ in their depth before all else: what goes with depth goes together, "
        "whatever the cause."
    )
    yield (
        f"p is of the orders of the blocks, in all runs alike, and can't be below "
        f"{general_text(main['p_floor'].min())}."
    )
