"""The tables of both papers: made, or listed as missing with what would fill them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_analysis import study

from driftscope.analysis import Answer, StudyTables, answer, answer_all
from driftscope.analysis.table import Column, Table
from driftscope.config.study import shipped_studies
from driftscope.paper.author_records import import_records
from driftscope.paper.catalogue import ENTRIES, in_hundredths
from driftscope.paper.published_tables import (
    auxiliary_structure_table,
    backbones_table,
    corrected_inference_table,
    grid_means_table,
    regularizers_table,
    seed_contrasts_table,
)
from driftscope.report.catalogue import Catalogue, catalogue

RECORDS = Path(__file__).parents[2] / "shared" / "records"
needs_records = pytest.mark.skipif(
    not RECORDS.is_dir(), reason="the authors' records (shared/records) are not here"
)
NO_TABLE = pd.DataFrame()


def _cells(table: Table) -> list[dict[str, str]]:
    """The table as it is printed: one mapping a row, by heading."""
    table = in_hundredths(table)
    return [{column.heading: column.text(row) for column in table.columns} for row in table.rows]


def _number(text: str) -> float:
    return float(text.split("\u00a0±")[0].replace("−", "-").replace(",", ""))


@pytest.fixture(scope="module")
def tables() -> StudyTables:
    return study()


@pytest.fixture(scope="module")
def answers(tables: StudyTables) -> list[Answer]:
    return answer_all(tables)


@pytest.fixture(scope="module")
def made(tables: StudyTables, answers: list[Answer]) -> Catalogue:
    return catalogue(tables, answers)


@pytest.fixture(scope="module")
def by_name(made: Catalogue) -> dict[str, Table]:
    return {table.name: table for table in made.tables}


def test_what_fills_a_table_is_a_shipped_study() -> None:
    shipped = shipped_studies()
    for entry in ENTRIES:
        assert entry.paper in shipped
        assert entry.mini in shipped


def test_every_table_of_the_papers_is_made_or_listed_as_missing(made: Catalogue) -> None:
    there = {table.name for table in made.tables}
    missing = set(made.missing.frame["name"])
    assert there | missing >= {entry.name for entry in ENTRIES}
    assert not there & missing


def test_a_missing_table_names_what_is_missing_and_the_command_that_would_fill_it(
    tables: StudyTables, answers: list[Answer], made: Catalogue
) -> None:
    missing = made.missing.frame.set_index("name")
    assert "regularizer" in missing.loc["regularizers", "why"]
    assert missing.loc["regularizers", "command"] == (
        "driftscope study run mini-regularizers --out mini-regularizers"
    )
    assert missing.loc["backbones", "study"] == "mini-backbones"
    other = tables.with_runs(tables.runs.assign(model="openai/clip-vit-base-patch32"))
    missing = catalogue(other, answers).missing.frame.set_index("name")
    assert missing.loc["regularizers", "study"] == "paper-regularizers"


def test_no_two_tables_share_a_name(made: Catalogue) -> None:
    names = [table.name for table in made.tables]
    assert len(names) == len(set(names))


def test_a_caption_names_the_setting_that_all_rows_share(by_name: dict[str, Table]) -> None:
    note = by_name["grid_means"].note
    assert note.startswith("Model mini, protocol leakfree, transfer set mosaic.")


def test_settings_that_vary_are_columns(tables: StudyTables) -> None:
    other = tables.runs.assign(protocol="paper", run_id=tables.runs["run_id"] + "p")
    both = StudyTables(pd.concat([tables.runs, other], ignore_index=True), NO_TABLE, NO_TABLE)
    asked = [answer(question, both) for question in ("seed_contrasts", "frontier", "dose_response")]
    made = {table.name: table for table in catalogue(both, asked).tables}
    for name in ("grid_means", "seed_contrasts", "frontier", "corrected_inference"):
        printed = {row["Protocol"] for row in _cells(made[name])}
        assert printed == {"leakfree", "paper"}, name


def test_every_exact_p_stands_beside_its_floor(by_name: dict[str, Table]) -> None:
    for row in by_name["corrected_inference"].rows:
        assert row["p_floor"] > 0
        assert not row["p_value"] < row["p_floor"]
    headings = [column.heading for column in by_name["seed_contrasts"].columns]
    assert "Floor of exact p" in headings


def test_the_strongest_block_is_shown_with_a_p_that_accounts_for_all_blocks(
    tables: StudyTables, by_name: dict[str, Table]
) -> None:
    pairing = answer("layer_profile", tables).details["cka_entropy"]
    rows = by_name["cka_entropy"].rows
    assert [row["analysis"].split(" (")[0] for row in rows] == [
        "mean over blocks",
        "strongest block",
    ] * 2
    for row in rows:
        blocks = pairing[(pairing["dataset"] == row["dataset"]) & pairing["layer"].notna()]
        if row["layer"] == row["layer"]:
            assert abs(row["rho"]) == blocks["rho"].abs().max()
            assert not row["p_holm"] < row["p_value"]


@pytest.mark.parametrize("form", ["to_markdown", "to_latex"])
def test_every_row_of_a_written_table_has_every_column(
    by_name: dict[str, Table], form: str
) -> None:
    for table in by_name.values():
        lines = getattr(table, form)().splitlines()
        if form == "to_markdown":
            rows = [re.sub(r"\\\|", "", line) for line in lines if line.startswith("| ")]
            assert {row.count("|") for row in rows} == {len(table.columns) + 1}
        else:
            rows = [line for line in lines if line.endswith(r" \tabularnewline")]
            heads = sum(line == r"\toprule" for line in lines)  # a part or page has its own
            assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}
            assert len(rows) == len(table.rows) + heads


def test_latex_holds_only_characters_that_latex_knows(by_name: dict[str, Table]) -> None:
    for table in by_name.values():
        strange = {c for c in table.to_latex() if ord(c) > 255}
        assert not strange, (table.name, strange)


def test_a_zero_shot_accuracy_never_stands_without_its_images(tables: StudyTables) -> None:
    runs = tables.runs.assign(
        zero_shot_pct=tables.runs["retention_pct"] / 2,
        zero_shot_num_images=1000,
        zero_shot_low_pct=10.0,
        zero_shot_high_pct=12.0,
        regularizer=["none", "apr_0.1"] * (len(tables.runs) // 2),
    )
    other = runs.assign(model="other", run_id=runs["run_id"] + "o")
    both = tables.with_runs(pd.concat([runs, other], ignore_index=True))
    for build in (grid_means_table, backbones_table, regularizers_table):
        made = build(both)
        assert isinstance(made, Table)
        (column,) = [column for column in made.columns if column.key == "zero_shot_pct"]
        interval = "" if build is grid_means_table else "10.0–12.0, "  # of a mean over rates none
        assert {column.detail(row) for row in made.rows} == {f"{interval}n = 1,000"}
        assert ("Wilson" in made.note) is bool(interval)


def test_a_latex_table_longer_than_a_page_runs_over_several() -> None:
    columns = (Column("a", "A"),)
    short = Table("t", "T", "", columns, pd.DataFrame({"a": range(40)})).to_latex()
    long = Table("t", "T", "", columns, pd.DataFrame({"a": range(41)})).to_latex()
    assert r"\begin{table}" in short
    assert r"\begin{longtable}" in long
    assert "longtable}" in long.splitlines()[0]


def test_intervals_with_negative_ends_are_written_with_a_word() -> None:
    column = Column("a", "A", decimals=1, interval=("low", "high"))
    assert column.detail({"low": -1.0, "high": 2.0}) == "−1.0 to 2.0"
    assert column.detail({"low": 1.0, "high": 2.0}) == "1.0–2.0"


# ---------------------------------------------------------------- the published numbers


@needs_records
def test_the_published_cells_give_table_1() -> None:
    cells = import_records([RECORDS / "published" / "controlled_cells.csv"]).tables
    made = {table.name: table for table in catalogue(cells).tables}
    printed = {
        (row["Target"], row["Method"]): [
            _number(row[heading])
            for heading in ("Δ entropy, %", "Validation accuracy, %", "Zero-shot accuracy, %")
        ]
        for row in _cells(made["grid_means"])
    }
    published = {
        ("eurosat", "full_ft"): [-0.47, 98.96, 11.28],
        ("eurosat", "lora_r8"): [1.18, 96.59, 45.13],
        ("pets", "full_ft"): [-2.32, 88.94, 8.54],
        ("pets", "lora_r8"): [-0.33, 70.76, 58.01],
    }
    assert printed.keys() == published.keys()
    for group, values in published.items():
        # a mean of four cells that were themselves rounded to 0.01 is known to 0.01
        assert printed[group] == pytest.approx(values, abs=0.0101)
    assert {row["Runs"] for row in _cells(made["grid_means"])} == {"20"}


def _released_runs(name: str, methods: tuple[str, str]) -> StudyTables:
    """The released seeds of a published contrast; its mean entropy in the place of its change."""
    metrics = _released("multiseed_comparisons")[name]["metrics"]
    columns = {"entropy_mean": "delta_entropy_pct", "best_val_acc": "val_accuracy_pct"}
    runs = [
        {"run_id": f"{method}{seed}", "dataset": "eurosat", "method": method, "seed": seed,
         "learning_rate": 1e-5, "model": "m", "protocol": "paper", "transfer": "t",
         "status": "done",
         **{column: metrics[metric][f"group_{side}_values"][seed]
            for metric, column in columns.items()}}
        for side, method in zip("ab", methods, strict=True)
        for seed in range(3)
    ]  # fmt: skip
    return StudyTables(pd.DataFrame(runs), NO_TABLE, NO_TABLE)


@needs_records
@pytest.mark.parametrize(
    ("name", "t", "p", "d"),
    [
        ("fullft_vs_lora_eurosat", "+7.157", 0.0127, "+5.844"),
        ("fullft_vs_lora_pets", "+7.969", 0.0064, "+6.507"),
    ],
)
def test_the_released_seeds_give_table_6(name: str, t: str, p: float, d: str) -> None:
    # ours are LoRA minus full fine-tuning, the published the other way round
    tables = _released_runs(name, ("full_ft", "lora_r8"))
    table = seed_contrasts_table(tables, {"seed_contrasts": answer("seed_contrasts", tables)})
    assert isinstance(table, Table)
    row = next(row for row in _cells(table) if row["Of"] == "Δ entropy, %")
    assert (row["Welch t"], row["Cohen's d"]) == (t, d)
    assert float(row["Welch p"]) == pytest.approx(p, abs=5e-5)
    assert (row["Exact p"], row["Floor of exact p"]) == ("0.1", "0.1")


@needs_records
def test_the_released_sweep_gives_table_7() -> None:
    released = _released("lr_correlation")
    runs = pd.DataFrame(
        {"run_id": [f"r{at}" for at in range(5)], "dataset": "eurosat", "method": "full_ft",
         "seed": 42, "learning_rate": [10.0**x for x in released["x_log10_lr"]],
         "delta_entropy_pct": released["delta_entropy"], "model": "m", "protocol": "paper",
         "transfer": "t", "status": "done"}
    )  # fmt: skip
    tables = StudyTables(runs, NO_TABLE, NO_TABLE)
    table = corrected_inference_table(tables, {"dose_response": answer("dose_response", tables)})
    assert isinstance(table, Table)
    printed = [
        (row["Test"], row["Statistic"], row["p"], row["Floor of p"]) for row in _cells(table)
    ]
    assert printed == [
        ("Exact permutation Pearson r", "−0.893", "0.0333", "0.00833"),
        ("Exact permutation Spearman ρ", "−1.000", "0.0167", "0.0167"),
    ]


def _paper_runs(values: pd.DataFrame) -> StudyTables:
    """Released single runs of EuroSAT as a study's; nothing but the given values is known."""
    frame = values.assign(
        run_id=[f"r{at}" for at in range(len(values))], dataset="eurosat", seed=42,
        learning_rate=1e-5, protocol="paper", transfer="cifar100", status="done",
    )  # fmt: skip
    return StudyTables(frame, NO_TABLE, NO_TABLE)


def _released(name: str) -> Any:
    return json.loads((RECORDS / "published" / "published_numbers.json").read_text())[name]


@needs_records
def test_the_released_full_map_signals_give_table_2() -> None:
    rows = [
        {"method": method, "model": "m", "num_runs": 1,
         "rollout_entropy_bits": released["rollout_entropy_bits_mean"],
         "rollout_erf95": released["rollout_erf95_mean"],
         "rollout_gini": released["rollout_gini_mean"],
         "patch_to_patch_entropy_bits": released["patch_to_patch_entropy_bits_mean"],
         "cka": float(np.mean(_released("layerwise_cka")[run]["layerwise_cka"][1:]))}
        for run, released in _released("rollout_patch_metrics").items()
        for method in ["full_ft" if "full_ft" in run else "lora_r8"]
    ]  # fmt: skip
    subsets = pd.DataFrame(
        [
            {"run_id": f"r{at}", "subset": number, "num_images": 200, "signal": "entropy",
             "value": value}
            for at, run in enumerate(_released("rollout_patch_metrics"))
            for number, value in enumerate(
                _released("subset_sensitivity")[run]["entropy_bits_mean"]["values"]
            )
        ]
    )  # fmt: skip
    study = replace(_paper_runs(pd.DataFrame(rows)), subsets=subsets)
    table = auxiliary_structure_table(study)
    assert isinstance(table, Table)
    printed = {row["Method"]: list(row.values())[4:] for row in _cells(table)}
    # the publication's CKA of 0.694 and 0.815 took in the constant CLS embedding
    assert printed["full_ft"] == ["5.593", "0.944", "0.090", "4.721", "0.752", "0.0006", "5", "200"]
    assert printed["lora_r8"] == ["5.605", "0.952", "0.064", "4.794", "0.883", "0.0005", "5", "200"]


@needs_records
def test_the_released_backbones_give_table_4() -> None:
    names = {"full_ft_eurosat": "full_ft", "lora_r8_eurosat": "lora_r8"}
    rows = [
        {"method": names[run], "model": f"clip-vit-base-{patch}",
         "delta_entropy_pct": released["metrics"]["entropy_mean"][f"{patch}_delta"],
         "delta_erf95_pct": released["metrics"]["erf95_mean"][f"{patch}_delta"],
         "delta_gini_pct": released["metrics"]["gini_mean"][f"{patch}_delta"],
         "val_accuracy_pct": 100 * released["metrics"]["best_val_acc"][patch]}
        for run, released in _released("backbone_comparison").items()
        for patch in ("patch32", "patch16")
    ]  # fmt: skip
    table = backbones_table(_paper_runs(pd.DataFrame(rows)))
    assert isinstance(table, Table)
    printed = {(row["Method"], row["Backbone"][-2:]): row for row in _cells(table)}
    for key, values in {
        ("full_ft", "32"): ("−0.14", "−1.73", "−3.54", "99.30", "–"),
        ("full_ft", "16"): ("+3.57", "+6.66", "−8.83", "99.15", "+3.72"),
        ("lora_r8", "32"): ("+0.58", "+0.37", "−6.48", "98.96", "–"),
        # printed as −1.18: the rounding of the difference of rounded values
        ("lora_r8", "16"): ("−0.59", "+4.88", "−4.09", "98.89", "−1.18"),
    }.items():
        row = printed[key]
        headings = ("Δ entropy, %", "Δ ERF@0.95, %", "Δ Gini, %", "Validation accuracy, %",
                    "Entropy gap, points")  # fmt: skip
        assert tuple(row[heading] for heading in headings) == values


@needs_records
def test_the_released_regularizers_give_table_5() -> None:
    options = {"No regularizer": ("none", 0.01), "Weight decay 0.0": ("none", 0.0),
               "Weight decay 0.1": ("none", 0.1)}  # fmt: skip
    rows = []
    for released in _released("regularization"):
        regularizer, decay = options.get(released["label"], (released["label"], 0.01))
        rows.append(
            {"method": "full_ft", "model": "m", "regularizer": regularizer, "weight_decay": decay,
             "delta_entropy_pct": released["delta_entropy"],
             "delta_erf95_pct": released["delta_erf"], "delta_gini_pct": released["delta_gini"],
             "val_accuracy_pct": 100 * released["best_val_acc"]}
        )  # fmt: skip
    table = regularizers_table(_paper_runs(pd.DataFrame(rows)))
    assert isinstance(table, Table)
    printed = {tuple(row.values())[-4:] for row in _cells(table)}
    assert printed == {
        ("−0.14", "−1.73", "−3.54", "99.30"),
        ("+0.86", "+1.50", "−8.83", "99.26"),
        ("+0.56", "+1.03", "−5.36", "99.19"),
        ("+0.09", "+0.16", "−0.75", "98.96"),
        ("+0.58", "−0.09", "−6.41", "99.11"),
        ("+0.79", "+0.30", "−8.22", "99.07"),
        ("−0.18", "−1.81", "−3.16", "99.19"),
        ("−0.25", "−1.90", "−2.38", "99.15"),
    }


@pytest.fixture(scope="module")
def followup() -> dict[str, Table]:
    everything = import_records([RECORDS / "followup"]).tables
    core = everything.only(method=("full_ft", "lora_r8"))
    answers = [answer("predictors", core), answer("selection", everything),
               answer("frontier", everything)]  # fmt: skip
    return {table.name: table for table in catalogue(everything, answers).tables}


@needs_records
def test_the_follow_up_records_give_its_predictors(followup: dict[str, Table]) -> None:
    printed = {
        (row["Scope"], row["Probe"], row["Signal"]): row for row in _cells(followup["predictors"])
    }
    for key, rho in {
        ("overall", "final", "CKA"): "+0.960",
        ("overall", "final", "embedding drift"): "−0.919",
        ("overall", "final", "weight drift"): "−0.837",
        ("overall", "final", "|Δ entropy|"): "−0.836",
        ("overall", "final", "Δ entropy"): "+0.361",
        ("overall", "final", "training loss"): "+0.824",
        ("overall", "first", "CKA"): "+0.959",
        ("overall", "first", "weight drift"): "−0.906",
        ("mean of groups", "final", "Δ entropy"): "+0.385",
    }.items():
        assert printed[key]["Spearman ρ"] == rho, key
    assert printed["mean of groups", "final", "Δ entropy"]["|ρ|"] == "0.860"
    assert printed["mean of groups", "final", "CKA"]["|ρ|"] == "0.787"


@needs_records
def test_the_follow_up_records_give_its_selection_and_frontier(
    followup: dict[str, Table],
) -> None:
    picked = {
        row["Rule"]: row["Retention, %"]
        for row in _cells(followup["selection"])
        if row["Target"] == "eurosat" and row["Pool"] == "all runs"
    }
    assert picked["oracle"] == "58.1"
    assert picked["random"] == "41.2"
    assert picked["embedding drift"] == "56.9"
    assert picked["CKA"] == "50.1"
    assert picked["Δ entropy"] == "24.0"
    best = [row for row in _cells(followup["frontier"]) if row["Non-dominated"] == "yes"]
    assert sum(row["Target"] == "eurosat" for row in best) == 6


@needs_records
def test_the_follow_up_records_give_its_grid_with_standard_deviations(
    followup: dict[str, Table],
) -> None:
    name = "cells_eurosat_openai_clip_vit_base_patch32_leakfree_cifar100"
    row = next(
        row for row in followup[name].rows
        if row["series"] == "full_ft" and row["learning_rate"] == 3e-6
    )  # fmt: skip
    assert round(row["test_accuracy_pct"], 2) == 96.81
    assert round(row["test_accuracy_pct_sd"], 2) == 0.07
    assert round(row["delta_entropy_pct"], 2) == 1.53
    assert round(row["delta_entropy_pct_sd"], 2) == 0.25
    assert round(row["retention_pct"], 2) == 55.03
    assert round(row["retention_pct_sd"], 2) == 4.33
