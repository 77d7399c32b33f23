"""What is told of one run in words and numbers, on a page of its own or inside its study's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope.analysis import grouping
from driftscope.analysis.study_charts import drift_metrics, followed_metrics, outcome_metrics
from driftscope.analysis.words import DOUBTFUL
from driftscope.analysis.zero_shot import (
    doubts_of,
    recall_sentences,
    score_sentences,
    unmeasured_sentences,
)
from driftscope.metrics import METRICS
from driftscope.records import (
    RunRecord,
    budget_sentence,
    epochs_sentence,
    intervention_sentences,
    rescue_sentences,
    training_images_sentence,
)
from driftscope.records.schema import StoredPrompts
from driftscope.report import tables
from driftscope.report.provenance import flattened


def numbers(row: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The run's results as read: heading, value, small print, explanation."""
    columns = tables.outcome_columns({key: str(row.get(key) or "") for key in grouping.PLACE})
    return [
        (column.heading, column.text(row), column.detail(row), column.explanation)
        for column in columns
        if row.get(column.key) == row.get(column.key) and row.get(column.key) is not None
    ]


def said(record: RunRecord) -> list[tuple[str, str]]:
    """What stands beside the numbers: every zero-shot score in words, doubts, what is missing."""
    scores = record.scores()
    changed = record.drift
    told = (sentence for name, one in scores.items() for sentence in score_sentences(name, one))
    selected = record.result.selected
    captioned = selected.retrieval if selected else {}
    recalls = (
        f"Retrieval on {name}, {sentence}."
        for name, one in captioned.items()
        if "pretrained" in one
        for sentence in recall_sentences(one)
    )
    notes = (f"{name}: {note}." for name, one in scores.items() for note in one.get("notes", ()))
    missing = unmeasured_sentences(changed.unmeasured if changed else {})
    of_run = (epochs_sentence(record), training_images_sentence(record), budget_sentence(record))
    return [
        *(("", sentence) for sentence in (*told, *recalls, *of_run) if sentence),
        *(("", sentence) for sentence in intervention_sentences(record)),
        *(("", sentence) for sentence in rescue_sentences(record)),
        *((DOUBTFUL, doubt) for doubt in (*doubts_of(scores), *doubts_of(captioned))),
        *(("Note:", f"{note}.") for note in record.result.notes),
        *(("Note:", note) for note in notes),
        *(("Not measured:", one) for one in missing),
    ]


def shown_metrics(row: Mapping[str, Any]) -> list[str]:
    """The metrics that a run's figures show, in order."""
    has_transfer = bool(row.get("transfer") and row["transfer"] == row["transfer"])
    shown = [
        *outcome_metrics(has_transfer, "val_accuracy_pct"),
        *followed_metrics(has_transfer),
        *drift_metrics(has_transfer),
    ]
    keys = dict.fromkeys(metric.key for metric in shown)
    return sorted(keys, key=lambda key: key == "delta_entropy_pct")  # what tells least comes last


def provenance(record: RunRecord) -> dict[str, str]:
    """Where the numbers come from: versions, machine, hashes, splits, prompts."""
    result = record.result
    splits = result.splits.facts() if result.splits else {}
    splits = {name: splits[name] for name in splits if name not in ("hashes", "probe_subsets")}
    subsets = result.splits.probe_subsets if result.splits else []
    facts = {
        "run": record.id,
        "origin": record.origin,
        "status": result.status,
        "protocol": result.protocol,
        **result.environment.facts(),
        "splits": splits,
        "probe subsets": [f"{one.hash} ({len(one.indices)} images)" for one in subsets],
        "prompts": {name: _prompts(rules) for name, rules in result.prompts.items()},
        "parameters": result.parameters.model_dump(),
        "wall time": {key: METRICS["wall_seconds"].with_unit(value)
                      for key, value in result.wall_seconds.facts().items() if value is not None},
    }  # fmt: skip
    return {key: value for key, value in flattened(facts).items() if value != "none"}


def _prompts(rules: StoredPrompts) -> dict[str, Any]:
    """Split and templates, and of the words for classes those that differ from the name."""
    return {
        "split": rules.split,
        "templates": rules.templates,
        "words unlike the class's name": [
            f"{name}: {word}" for name, word in rules.class_words.items() if name != word
        ],
    }
