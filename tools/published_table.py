"""docs/published.md: every published number that the records allow, beside what driftscope gets.

    python tools/published_table.py SHARED [--out docs/published.md]

SHARED is the folder with records/published and records/followup. tests/test_published.py runs the
same comparisons; nothing here is typed in but the printed numbers and the reasons for differences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis import StudyTables, answer
from driftscope.analysis.stability import subset_variation
from driftscope.paper.author_records import import_records
from driftscope.stats.correlation import permutation_correlation
from driftscope.stats.effects import cohens_d
from driftscope.stats.groups import paired_t, permutation_of_means, welch_t
from driftscope.stats.multiplicity import Family, adjust

CORE_METHODS = ("full_ft", "lora_r8")
FOLLOWUP_METRICS = (
    "retention_pct",
    "test_accuracy_pct",
    "delta_entropy_pct",
    "delta_erf95_pct",
    "delta_gini_pct",
    "cka",
)
"""A declared family under which both printed Holm p-values come out; see the note there."""


@dataclass(frozen=True)
class Comparison:
    """A published number and ours.

    Attributes:
        section: which table or claim it belongs to.
        name: what it is.
        published: as printed or released.
        ours: computed from the records.
        tolerance: half a unit of the last printed digit, or float noise for released doubles.
        note: why they differ, where they do.
    """

    section: str
    name: str
    published: float
    ours: float
    tolerance: float
    note: str = ""

    @property
    def is_equal(self) -> bool:
        return isclose(self.ours, self.published, rel_tol=0, abs_tol=self.tolerance)


def comparisons(shared: Path) -> Iterator[Comparison]:
    """All comparisons, in the order of the page."""
    records = shared / "records"
    numbers = json.loads((records / "published/published_numbers.json").read_text())
    yield from learning_rate_correlation(numbers["lr_correlation"])
    yield from regularizer_tests(numbers["regularization_per_layer_tests"])
    yield from multi_seed_contrasts(numbers["multiseed_comparisons"])
    yield from layerwise_cka(numbers["layerwise_cka"])
    yield from subset_variations(numbers["subset_sensitivity"])
    cells = import_records([records / "published/controlled_cells.csv"])
    yield from table_1(cells.tables.runs)
    everything = import_records([records / "followup"]).tables
    core = everything.only(method=CORE_METHODS)
    yield from followup_cells(everything.runs)
    yield from followup_predictors(core)
    yield from followup_contrasts(core)
    yield from followup_choices(everything)


def learning_rate_correlation(published: dict[str, Any]) -> Iterator[Comparison]:
    section = "Table 7: learning rate and Δentropy, five rates"
    x, y = published["x_log10_lr"], published["delta_entropy"]
    for kind, printed in (("pearson", (-0.893, 0.0333)), ("spearman", (-1.0, 0.0167))):
        test = permutation_correlation(x, y, kind=kind)
        yield Comparison(section, f"{kind}, statistic", printed[0], test.statistic, 5e-4)
        yield Comparison(section, f"{kind}, exact p", printed[1], test.p_value, 5e-5)
        released = published[f"{kind}_exact"]["p_value"]
        yield Comparison(section, f"{kind}, exact p as released", released, test.p_value, 1e-12)


def regularizer_tests(published: dict[str, Any]) -> Iterator[Comparison]:
    section = "Table 7: regularizers, paired t over 12 layers"
    family = Family("regularizers", tuple(published))
    raw = {}
    for name, test in published.items():
        # The layers' values were not released: twelve differences made to have the released mean
        # and t give the p-value that belongs to them.
        differences = _differences_with(test["mean_diff"], test["paired_t"], 12)
        ours = paired_t(differences, np.zeros(12))
        raw[name] = ours.p_value
        name = f"{name}, raw p of t = {test['paired_t']:.3f}"
        yield Comparison(section, name, test["raw_p"], ours.p_value, 1e-9)
    adjusted = adjust(family, raw)
    printed = (0.2194, 0.2194, 0.4137, 0.2194, 0.1154)
    for name, p_holm in zip(published, printed, strict=True):
        yield Comparison(section, f"{name}, Holm p", p_holm, adjusted.p_adjusted[name], 5e-5)


def multi_seed_contrasts(published: dict[str, Any]) -> Iterator[Comparison]:
    for comparison, content in published.items():
        section = f"Table 6: {comparison}, three seeds against three"
        for metric, released in content["metrics"].items():
            a, b = released["group_a_values"], released["group_b_values"]
            welch = welch_t(a, b)
            d = cohens_d(a, b)
            exact = permutation_of_means(a, b)
            p_exact = released["exact_permutation"]["p_value"]
            for name, theirs, ours in (
                ("Welch t", released["welch_t"], welch.statistic),
                ("Welch p", released["welch_p"], welch.p_value),
                ("Cohen's d", released["cohens_d"], d.value),
                ("exact permutation p (its floor)", p_exact, exact.p_value),
            ):
                yield Comparison(section, f"{metric}, {name}", theirs, ours, 1e-9)


def layerwise_cka(published: dict[str, Any]) -> Iterator[Comparison]:
    section = "Table 2: mean layerwise CKA"
    printed = {"E2_full_ft_eurosat": 0.694, "E5_lora_r8_eurosat": 0.815}
    corrected = {"E2_full_ft_eurosat": 0.752, "E5_lora_r8_eurosat": 0.883}
    why = (
        "The published mean takes in hidden state 0, the CLS embedding, which is the same for "
        "every image: its CKA is 0/0, here numerical noise. Ours is over the 12 blocks."
    )
    for run, content in published.items():
        values = np.array(content["layerwise_cka"])
        yield Comparison(section, f"{run}, as published", printed[run], values.mean(), 5e-4)
        yield Comparison(section, f"{run}, corrected", corrected[run], values[1:].mean(), 5e-4)
        yield Comparison(
            section,
            f"{run}, published against corrected",
            printed[run],
            values[1:].mean(),
            5e-4,
            why,
        )


def subset_variations(published: dict[str, Any]) -> Iterator[Comparison]:
    section = "Table 2: coefficient of variation over five subsets"
    rows = [
        {"run_id": run, "subset": k, "num_images": 200, "signal": signal, "value": value}
        for run, signals in published.items()
        for signal, content in signals.items()
        for k, value in enumerate(content["values"])
    ]
    variation = subset_variation(pd.DataFrame(rows)).set_index(["run_id", "signal"])
    printed = {"E2_full_ft_eurosat": 0.0006, "E5_lora_r8_eurosat": 0.0005}
    for run, signals in published.items():
        for signal, content in signals.items():
            cv = float(variation.loc[(run, signal), "cv"])
            yield Comparison(section, f"{run}, {signal}, released", content["cv"], cv, 1e-12)
        cv = float(variation.loc[(run, "entropy_bits_mean"), "cv"])
        yield Comparison(section, f"{run}, entropy, printed", printed[run], cv, 5e-5)


def table_1(cells: pd.DataFrame) -> Iterator[Comparison]:
    section = "Table 1: means of the 16 cells (four rates each)"
    printed = {
        ("eurosat", "full_ft"): (-0.47, 98.96, 11.28),
        ("eurosat", "lora_r8"): (1.18, 96.59, 45.13),
        ("pets", "full_ft"): (-2.32, 88.94, 8.54),
        ("pets", "lora_r8"): (-0.33, 70.76, 58.01),
    }
    columns = ["delta_entropy_pct", "val_accuracy_pct", "zero_shot_pct"]
    means = cells.groupby(["dataset", "method"])[columns].mean()
    for group, values in printed.items():
        for column, value in zip(columns, values, strict=True):
            name = f"{group[0]} {group[1]}, mean {column}"
            # A mean of four cells that were themselves rounded to 0.01 is known to 0.01.
            yield Comparison(section, name, value, float(means.loc[group, column]), 0.0100001)


def followup_cells(runs: pd.DataFrame) -> Iterator[Comparison]:
    section = "Follow-up: cell means ± sd, three seeds"
    cell = runs[
        (runs["dataset"] == "eurosat")
        & (runs["method"] == "full_ft")
        & (runs["learning_rate"] == 3e-6)
    ]
    for column, mean, deviation in (
        ("test_accuracy_pct", 96.81, 0.07),
        ("delta_entropy_pct", 1.53, 0.25),
        ("retention_pct", 55.03, 4.33),
    ):
        name = f"EuroSAT full_ft 3e-6, {column}"
        yield Comparison(section, f"{name}, mean", mean, cell[column].mean(), 5e-3)
        yield Comparison(section, f"{name}, sd", deviation, cell[column].std(ddof=1), 5e-3)


def followup_predictors(core: StudyTables) -> Iterator[Comparison]:
    table = answer("predictors", core, num_resamples=2).table
    keyed = table.set_index(["scope", "probe", "signal", "form"])
    section = "Follow-up: Spearman with retention over the 48 core runs"
    for signal, form, printed in (
        ("cka", "signed", 0.960),
        ("embedding_drift", "signed", -0.919),
        ("weight_drift", "signed", -0.837),
        ("delta_entropy_pct", "absolute", -0.836),
        ("delta_entropy_pct", "signed", 0.361),
        ("train_loss", "signed", 0.824),
    ):
        ours = float(keyed.loc[("overall", "final", signal, form), "rho"])
        yield Comparison(section, f"final {signal}, {form}", printed, ours, 5e-4)
    for signal, printed in (("cka", 0.959), ("weight_drift", -0.906)):
        ours = float(keyed.loc[("overall", "first", signal, "signed"), "rho"])
        yield Comparison(section, f"after the first epoch, {signal}", printed, ours, 5e-4)
    section = "Follow-up: means of the four dataset × method groups"
    for signal, column, printed in (
        ("delta_entropy_pct", "abs_rho", 0.860),
        ("delta_entropy_pct", "rho", 0.385),
        ("cka", "abs_rho", 0.787),
    ):
        ours = float(keyed.loc[("mean of groups", "final", signal, "signed"), column])
        form = "mean of |ρ|" if column == "abs_rho" else "mean of ρ"
        yield Comparison(section, f"{signal}, {form}", printed, ours, 5e-4)


def followup_contrasts(core: StudyTables) -> Iterator[Comparison]:
    section = "Follow-up: LoRA − full FT in retention, paired over rate and seed"
    table = answer("method_contrast", core, metrics=FOLLOWUP_METRICS).table
    default = answer("method_contrast", core).table

    def row(source: pd.DataFrame, dataset: str) -> pd.Series[Any]:
        chosen = source[
            (source["matching"] == "learning_rate")
            & (source["metric"] == "retention_pct")
            & (source["dataset"] == dataset)
        ]
        return chosen.iloc[0]

    why = (
        "The follow-up's family isn't in the records. With ERF and Gini drift in it (rows above) "
        "both printed values come out; our default family has embedding and weight drift "
        "instead, where a smaller p-value of embedding drift carries its adjusted value over."
    )
    for dataset, difference, p_holm in (("eurosat", 64.2, 2.0e-7), ("pets", 62.5, 2.9e-5)):
        ours = row(table, dataset)
        yield Comparison(section, f"{dataset}, points", difference, ours["difference"], 0.05)
        digit = 10.0 ** (np.floor(np.log10(p_holm)) - 1)
        yield Comparison(section, f"{dataset}, Holm p", p_holm, ours["p_holm"], digit / 2)
        own = row(default, dataset)["p_holm"]
        note = "" if isclose(own, p_holm, abs_tol=digit / 2) else why
        yield Comparison(
            section, f"{dataset}, Holm p, our default family", p_holm, own, digit / 2, note
        )
        if dataset == "eurosat":
            yield Comparison(section, "eurosat, |d_z|", 4.14, abs(ours["d_z"]), 5e-3)


def followup_choices(everything: StudyTables) -> Iterator[Comparison]:
    section = "Follow-up: EuroSAT, runs within 2 points of the best validation accuracy"
    table = answer("selection", everything).table
    picks = table[(table["dataset"] == "eurosat") & (table["pool"] == "all runs")]
    retained = picks.set_index("rule")["retention_pct"]
    for rule, printed in (
        ("oracle", 58.1),
        ("random", 41.2),
        ("embedding_drift", 56.9),
        ("cka", 50.1),
        ("delta_entropy_pct", 24.0),
    ):
        yield Comparison(section, f"retention picked by {rule}", printed, retained[rule], 0.05)
    section = "Follow-up: EuroSAT frontier, accuracy × retention"
    cells = answer("frontier", everything).table
    count = int(cells.loc[cells["dataset"] == "eurosat", "is_on_frontier"].sum())
    yield Comparison(section, "non-dominated cells", 6, count, 0)


def _differences_with(mean: float, t: float, num_layers: int) -> np.ndarray[Any, Any]:
    """Values with the given mean whose one-sample t is the given one."""
    shape = np.arange(num_layers) - (num_layers - 1) / 2
    deviation = mean / t * np.sqrt(num_layers)
    return mean + shape * deviation / shape.std(ddof=1)


_INTRODUCTION = """\
# Published numbers, recomputed

Does driftscope's analysis find what the authors printed, if it is given the authors' own records?
This page answers for {total} numbers: **{equal} are equal**, and the last column explains the
other {differing}. No model is trained or loaded for it.

The records are of two publications: the [paper](paper.md), and its *follow-up*, 66 runs of CLIP
ViT-B/32 on EuroSAT and Oxford Pets with proper splits. One command makes the whole page. SHARED
is a folder with the records, in `records/published` and `records/followup`; they are the authors'
and not part of this repository:

<!-- not run: the authors' records are not part of this repository -->
```sh
python tools/published_table.py SHARED
```

How to read a table: *published* is what was printed, or a value of the released files. *Ours* is
what driftscope computes from the records. They are *equal* if they agree to the last printed
digit; a released value with all its digits must agree to rounding noise. [What the analysis
asks](analysis.md) explains the tests, and [Metrics](metrics.md) the signals.

Four things cannot be recomputed, because what they need was not released: Table 3 (39
checkpoints), the correlations of section 5.2 (80 runs), Table 1's means of ERF, and the values by
layer behind the tests of regularizers. For the last, p is computed from the released t and n =
12."""

_ABOUT = {
    "Table 7: learning rate": "Five runs of full fine-tuning, each at another learning rate. Does "
    "the change of attention entropy follow the rate?",
    "Table 7: regularizers": "Two penalties on attention (APR and EntFloor) at several weights, "
    "each against training without. Holm's method adjusts the five p-values for being five.",
    "Table 6: fullft_vs_lora_eurosat": "Full fine-tuning against LoRA on EuroSAT, signal by "
    "signal. No exact test of three runs against three can give a p-value below 0.1, its floor.",
    "Table 6: fullft_vs_lora_pets": "The same on Oxford Pets.",
    "Table 2: mean layerwise CKA": "Similarity to the pretrained model, averaged over the layers, "
    "of one model of full fine-tuning (E2) and one of LoRA (E5).",
    "Table 2: coefficient": "How much a signal differs between five sets of images of one kind: "
    "its standard deviation over its mean.",
    "Table 1": "A cell is a method at one learning rate. Each number is a mean over four rates.",
    "Follow-up: cell means": "The one cell that is printed with its spread.",
    "Follow-up: Spearman": "Which signals order the runs as retention does: ρ is 1 or −1 where "
    "they do so exactly, and 0 where they tell nothing. *Absolute* is of the change's size.",
    "Follow-up: means of the four": "The same correlations within each dataset and method, then "
    "averaged.",
    "Follow-up: LoRA − full FT": "How many points more LoRA keeps at the same rate and seed.",
    "Follow-up: EuroSAT, runs within": "Of the runs that are about equally accurate, the one that "
    "a signal would choose: how much does it keep, in percent? The *oracle* knows the answer.",
    "Follow-up: EuroSAT frontier": "Cells that no other cell beats in accuracy and in retention.",
}
"""What stands above a section's table, by how the section begins."""


def page(rows: list[Comparison]) -> str:
    equal = sum(row.is_equal for row in rows)
    counts = {"total": len(rows), "equal": equal, "differing": len(rows) - equal}
    lines = [_INTRODUCTION.format(**counts)]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += [
                "",
                f"## {section}",
                "",
                next(words for name, words in _ABOUT.items() if section.startswith(name)),
                "",
                "| what | published | ours | equal? |",
                "|---|--:|--:|---|",
            ]
        verdict = "yes" if row.is_equal else f"no: {row.note}"
        lines.append(f"| {row.name} | {row.published:.6g} | {row.ours:.6g} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/published.md"))
    options = parser.parse_args()
    rows = list(comparisons(options.shared))
    options.out.write_text(page(rows), encoding="utf-8")
    print(f"{sum(row.is_equal for row in rows)} of {len(rows)} equal -> {options.out}")


if __name__ == "__main__":
    main()
