"""Draw the pictures of docs/signals.md and docs/monitor.md from a finished study.

python tools/docs_pictures.py STUDY      (the shipped pictures: mini-controlled-matrix, 80 runs)
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftscope.analysis.words import rate_text
from driftscope.opened_study import Study
from driftscope.records import RUNS_FOLDER, load_overlay
from driftscope.report.attention_figures import attention_figure
from driftscope.report.style import look, method_styles, save_figure

PICTURES = Path(__file__).parents[1] / "docs" / "images"
RATE = 1e-3
"""The learning rate of the pictures that show one: far enough for a difference, not a ruin."""
FILLED = {"terrain": True, "stars": False}
DAMAGE = (
    ("embedding_drift", "embedding drift"),
    ("cka_debiased", "CKA, debiased"),
    ("delta_entropy_pct", "Δ attention entropy, %"),
)


def main(study_folder: str) -> None:
    study = Study(Path(study_folder))
    runs, tables = study.runs(), study.tables()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("signals-damage", damage(runs)),
        ("signals-where", where(study, runs)),
        ("signals-layers", layers(tables.layers, tables.subsets, runs)),
        ("signals-course", course(study.history())),
    ):
        print(*save_figure(figure, PICTURES / name, ("png",)))


def damage(runs: pd.DataFrame) -> Figure:
    """Retention against three signals: two that follow it, one that does not."""
    with look():
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        panels = figure.subplots(1, len(DAMAGE), sharey=True)
        styles = method_styles(sorted(runs.method.unique()))
        for axes, (signal, words) in zip(panels, DAMAGE, strict=True):
            for (dataset, method), some in runs.groupby(["dataset", "method"]):
                colour = styles[method].colour
                face = colour if FILLED[dataset] else "none"
                marker = styles[method].marker
                axes.scatter(
                    some[signal], some.retention_pct, s=22, marker=marker, facecolor=face,
                    edgecolor=colour, linewidth=1, label=f"{method}, {dataset}",
                )  # fmt: skip
            rank = runs[[signal, "retention_pct"]].corr("spearman").iloc[0, 1]
            axes.set_title(f"rank correlation {rank:+.2f}".replace("-", "−"))
            axes.set_xlabel(words)
        panels[0].set_ylabel("retention, %")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def where(study: Study, runs: pd.DataFrame) -> Figure:
    """The same images before, after LoRA and after full fine-tuning."""
    overlays = {}
    for method in ("lora_r8", "full_ft"):
        chosen = runs[
            (runs.method == method) & (runs.dataset == "terrain") & (runs.learning_rate == RATE)
        ]
        run = chosen.sort_values("seed").iloc[0]
        overlay = load_overlay(study.folder.root / RUNS_FOLDER / run.run_id)
        if overlay is not None:
            overlays[f"{method}\n{run.retention_pct:.0f} % left"] = overlay
    return attention_figure(overlays, num_images=3)


def layers(by_layer: pd.DataFrame, subsets: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Entropy and CKA by layer at one rate, and CKA against the number of probe images."""
    with look():
        figure = Figure(figsize=(9, 3), layout="constrained")
        entropy, similarity, size = figure.subplots(1, 3)
        styles = method_styles(sorted(runs.method.unique()))
        some = by_layer[by_layer.learning_rate == RATE]
        for axes, signal in ((entropy, "delta_entropy_pct"), (similarity, "cka_debiased")):
            for (dataset, method), part in some.groupby(["dataset", "method"]):
                means = part.groupby("layer")[signal].mean()
                line = "-" if FILLED[dataset] else (0, (5, 1.5))
                axes.plot(
                    means.index, means, color=styles[method].colour, linestyle=line,
                    marker=styles[method].marker, markersize=4, label=f"{method}, {dataset}",
                )  # fmt: skip
            axes.set_xlabel("layer")
        entropy.set_title("where attention changed")
        entropy.set_ylabel("Δ attention entropy, %")
        similarity.set_title("from which block on it differs")
        similarity.set_ylabel("CKA, debiased")
        _probe_sizes(size, subsets)
        handles = similarity.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, handlelength=4)
    return figure


def _probe_sizes(axes: Axes, subsets: pd.DataFrame) -> None:
    for signal, words, line in (("cka", "CKA", "--"), ("cka_debiased", "CKA, debiased", "-")):
        means = subsets[subsets.signal == signal].groupby("num_images").value.mean()
        axes.plot(means.index, means, color="#5a616d", linestyle=line, marker="o", label=words)
    axes.set_title("what few images do to CKA")
    axes.set_xlabel("probe images")
    axes.set_ylabel("mean over all runs")
    axes.legend(loc="upper right", handlelength=4)


def course(history: pd.DataFrame) -> Figure:
    """Accuracy, retention and embedding drift over the epochs, at one rate."""
    some = history[(history.learning_rate == RATE) & (history.dataset == "terrain")]
    with look():
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        panels = figure.subplots(1, 3)
        styles = method_styles(sorted(some.method.unique()))
        for axes, (signal, words) in zip(
            panels,
            (
                ("val_accuracy_pct", "validation accuracy, %"),
                ("retention_pct", "retention, %"),
                ("embedding_drift", "embedding drift"),
            ),
            strict=True,
        ):
            for method, part in some.groupby("method"):
                means = part.groupby("epoch")[signal].mean()
                axes.plot(
                    means.index, means, color=styles[method].colour, marker=styles[method].marker,
                    label=f"{method} at {rate_text(RATE)}",
                )  # fmt: skip
            axes.set_title(words)
            axes.set_xlabel("epoch")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
