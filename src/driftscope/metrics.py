"""Every number that driftscope reports, declared once.

What a number is called, its unit, its range and which way is better stand here and nowhere else.
Columns, headings, chart labels, gate options, logger keys, terminal rows, the units in JSON files
and the tables of the docs are projections of `METRICS`. A package adds metrics of its own through
the entry point group `driftscope.metrics`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from driftscope.errors import ConfigError, did_you_mean
from driftscope.metric import Metric, Place
from driftscope.protocols import ACCURACIES

GROUP = "driftscope.metrics"
"""The entry point group of plug-ins: each entry is a `Metric` that reads two readings."""


# ---------------------------------------------------------------- what one model shows

_ATTENTION = "driftscope.signals.attention"
_PAPER_3_2, _PAPER_4_3 = "paper, section 3.2", "paper, section 4.3"
_ROLLOUT = "Abnar & Zuidema 2020; paper, section 4.3"
_EVERYWHERE: frozenset[Place] = frozenset({"layer", "head"})

_LEVELS = (
    Metric(
        "entropy_nats", "entropy",
        "entropy of the attention of the class token, or of what pools in its place",
        "attention", "nats", bounds=(0, None), exists=_EVERYWHERE, attribute="entropy",
        symbol="−Σ a ln a", source="paper, equation 1",
        function=f"{_ATTENTION}:entropy", reads="rows",
    ),
    Metric(
        "erf95", "ERF@0.95", "smallest share of the patches that holds 95 % of the attention",
        "attention", bounds=(0, 1), exists=_EVERYWHERE, symbol="fraction of patches",
        source=_PAPER_3_2, function=f"{_ATTENTION}:erf", reads="rows", is_detail=True,
    ),
    Metric(
        "gini", "Gini", "Gini coefficient of the attention: how unequal the patches' shares are",
        "attention", bounds=(0, 1), exists=_EVERYWHERE,
        source=_PAPER_3_2, function=f"{_ATTENTION}:gini", reads="rows", is_detail=True,
    ),
    Metric(
        "head_diversity", "head diversity", "how differently the heads of a layer look at an image",
        "attention", bounds=(0, 1), exists=frozenset({"layer"}), symbol="1 − cosine",
        source=_PAPER_3_2, function=f"{_ATTENTION}:head_diversity", reads="rows", is_detail=True,
    ),
    Metric(
        "rollout_entropy_bits", "rollout entropy", "entropy of the attention rollout",
        "attention", "bits", bounds=(0, None), exists=frozenset({"run"}), source=_ROLLOUT,
        function=f"{_ATTENTION}:entropy_bits", reads="rollout", is_detail=True,
    ),
    Metric(
        "rollout_erf95", "rollout ERF@0.95", "ERF@0.95 of the attention rollout",
        "attention", bounds=(0, 1), exists=frozenset({"run"}), source=_ROLLOUT,
        symbol="fraction of patches", function=f"{_ATTENTION}:erf", reads="rollout", is_detail=True,
    ),
    Metric(
        "rollout_gini", "rollout Gini", "Gini coefficient of the attention rollout",
        "attention", bounds=(0, 1), exists=frozenset({"run"}), source=_ROLLOUT,
        function=f"{_ATTENTION}:gini", reads="rollout", is_detail=True,
    ),
    Metric(
        "patch_to_patch_entropy_bits", "patch-to-patch entropy",
        "entropy of the patches' attention to patches, mean over layers and heads",
        "attention", "bits", bounds=(0, None), exists=frozenset({"run", "layer", "head"}),
        source=_PAPER_4_3, reads="maps", is_detail=True,
    ),
)  # fmt: skip
"""The signals of one model alone; each gives the change of its mean as a metric as well."""

_HEAD_DIVERSITY_OF_MEAN = Metric(
    "head_diversity_of_mean", "head diversity of the mean rows",
    "head diversity of the attention rows averaged over all images first",
    "attention", bounds=(0, 1), exists=frozenset({"layer"}), symbol="1 − cosine",
    source="the paper's code",
)  # fmt: skip


def change_key(level: Metric) -> str:
    """The key of the percent change of a level, such as `delta_entropy_pct`."""
    return f"delta_{re.sub('_(nats|bits)$', '', level.key)}_pct"


def change_of(level: Metric) -> Metric:
    """The percent change of a level's mean from the pretrained model to the adapted one."""
    caution = "; says where attention moved, not damage" if level.key == "entropy_nats" else ""
    exists: set[Place] = {"epoch"}
    exists |= {"run"} if level.reads == "rows" else set()
    exists |= {"layer"} if "layer" in level.exists else set()
    return Metric(
        change_key(level), f"Δ {level.label}", f"change of the mean {level.label}{caution}",
        "attention", "%", decimals=1, bounds=(-100, None), exists=frozenset(exists), signed=True,
        symbol="100·(m − m₀)/m₀", source="paper, equation 2", unchanged=0, limits=(0, 1000),
        change_of=level.key, is_detail=level.is_detail,
    )  # fmt: skip


# ---------------------------------------------------------------- what changed

_REPRESENTATION = "driftscope.signals.representation"
_BY_LAYER: frozenset[Place] = frozenset({"run", "epoch", "layer"})
_EPOCH: frozenset[Place] = frozenset({"epoch"})

_LATE_ENTROPY = Metric(
    "delta_late_entropy_pct", "Δ late entropy",
    "change of the mean entropy in the last third of the layers",
    "attention", "%", decimals=1, bounds=(-100, None), exists=_EPOCH, signed=True,
    symbol="100·(m − m₀)/m₀", unchanged=0, limits=(0, 1000),
    function="driftscope.reading:late_entropy_change_pct", reads="readings", is_detail=True,
)  # fmt: skip

_DRIFTS = (
    Metric(
        "cka", "CKA", "linear CKA of a block with the pretrained model's, or its mean over blocks",
        better="higher", bounds=(0, 1), exists=_BY_LAYER, unchanged=1,
        source="Kornblith et al. 2019", function=f"{_REPRESENTATION}:linear_cka", reads="blocks",
    ),
    Metric(
        "cka_debiased", "debiased CKA", "CKA by the unbiased HSIC, which few images don't inflate",
        better="higher", bounds=(-1, 1), exists=_BY_LAYER, unchanged=1,
        source="Song et al. 2012; Nguyen et al. 2021",
        function=f"{_REPRESENTATION}:linear_cka_debiased", reads="blocks", is_detail=True,
    ),
    Metric(
        "cka_embedding", "CKA of the embeddings",
        "linear CKA of the image embeddings with the pretrained model's",
        better="higher", bounds=(0, 1), unchanged=1, exists=frozenset({"epoch"}),
        source="Kornblith et al. 2019", function=f"{_REPRESENTATION}:linear_cka",
        reads="embeddings", is_detail=True,
    ),
    Metric(
        "embedding_drift", "embedding drift", "1 − mean cosine of the image embeddings",
        better="lower", bounds=(0, 2), unchanged=0, symbol="1 − cosine",
        function=f"{_REPRESENTATION}:embedding_drift", reads="embeddings",
    ),
    Metric(
        "weight_drift", "weight drift", "norm of the encoder's weight change over its own norm",
        "weights", decimals=4, better="lower", bounds=(0, None), exists=_BY_LAYER, unchanged=0,
        limits=(0, 10), symbol="‖ΔW‖/‖W₀‖",
    ),
    Metric(
        "feature_distance", "feature distance", "mean squared distance of the image embeddings",
        better="lower", bounds=(0, None), exists=_EPOCH, unchanged=0, symbol="mean ‖f − f₀‖²",
        source="LDIFS, 2308.13320", function=f"{_REPRESENTATION}:feature_distance",
        reads="embeddings", is_detail=True,
    ),
    Metric(
        "text_kl_nats", "text KL", "KL divergence of the zero-shot distribution over fixed texts",
        "text space", "nats", better="lower", bounds=(0, None), exists=_EPOCH, unchanged=0,
        limits=(0, 100), symbol="KL(pretrained ‖ adapted)", is_detail=True,
    ),
    Metric(
        "text_top1_agreement_pct", "text agreement", "images whose nearest text stays the same",
        "text space", "%", decimals=1, better="higher", bounds=(0, 100), exists=_EPOCH,
        unchanged=100, limits=(1, 100), limit_name="text agreement", is_detail=True,
    ),
    Metric(
        "random_text_logit_change", "logit change", "mean size of change of random texts' logits",
        "text space", "logits", better="lower", bounds=(0, None), exists=_EPOCH, unchanged=0,
        limits=(0, 100), limit_name="logit change", source="Lipsum-FT, 2404.00860", is_detail=True,
    ),
    Metric(
        "text_referee_pct", "text referee",
        "how likely the pretrained model finds the adapted one's nearest texts",
        "text space", "%", decimals=1, better="higher", bounds=(0, 100), exists=_EPOCH,
        unchanged=100, symbol="100·Σ p₀(ŷ) / Σ max p₀", limits=(1, 100), is_detail=True,
    ),
    Metric(
        "estimated_retention_pct", "estimated retention",
        "retention as the pretrained model judges it on unlabeled images",
        "estimate", "%", decimals=1, better="higher", bounds=(0, 100), unchanged=100,
        symbol="100·Σ p₀(ŷ) / Σ max p₀", limits=(1, 100),
    ),
)  # fmt: skip

# ---------------------------------------------------------------- what is left, and what was learnt

_PERCENT: dict[str, Any] = {"unit": "%", "decimals": 1, "better": "higher", "bounds": (0, 100)}
_TRANSFER: frozenset[Place] = frozenset({"transfer"})
_CLASS: frozenset[Place] = frozenset({"class"})
_COUNT: dict[str, Any] = {"decimals": 0, "bounds": (0, None)}

_OUTCOMES = (
    Metric(
        "test_accuracy_pct", "test accuracy", "accuracy on the target's test images",
        "target", **_PERCENT, exists=frozenset({"run"}), limits=(1, 100),
    ),
    Metric(
        "val_accuracy_pct", "validation accuracy", "accuracy on the target's validation images",
        "target", **_PERCENT, limits=(1, 100),
    ),
    Metric(
        "train_accuracy_pct", "training accuracy", "accuracy on the epoch's training images",
        "target", **_PERCENT, exists=_EPOCH,
    ),
    Metric(
        "zero_shot_pct", "zero-shot accuracy", "accuracy on a transfer set, without training on it",
        "zero-shot", **_PERCENT, exists=frozenset({"run", "epoch", "transfer"}), limits=(1, 100),
    ),
    Metric(
        "knn_pct", "k-NN accuracy", "accuracy on a transfer set by the nearest labeled images",
        "zero-shot", **_PERCENT, exists=frozenset({"run", "epoch", "transfer"}), limits=(1, 100),
        source="DINO, 2104.14294",
    ),
    Metric(
        "linear_probe_pct", "linear-probe accuracy",
        "accuracy on a transfer set of a linear classifier fitted to the features",
        "zero-shot", **_PERCENT, exists=frozenset({"run", "epoch", "transfer"}), limits=(1, 100),
        source="DINO, 2104.14294",
    ),
    Metric(
        "retention_pct", "retention", "100 × adapted / pretrained accuracy on a transfer set",
        "zero-shot", "%", decimals=1, better="higher", bounds=(0, 100_000), unchanged=100,
        exists=frozenset({"run", "epoch", "transfer", "class"}), limits=(1, 1000),
    ),
    Metric(
        "accuracy_pct", "accuracy", "images whose class is right", "zero-shot", **_PERCENT,
        exists=_TRANSFER,
    ),
    Metric(
        "top5_pct", "top-5 accuracy", "images whose class is among the five likeliest",
        "zero-shot", **_PERCENT, exists=_TRANSFER,
    ),
    Metric(
        "mean_per_class_pct", "mean accuracy per class", "mean of the classes' accuracies",
        "zero-shot", **_PERCENT, exists=_TRANSFER,
    ),
    Metric(
        "above_chance_pct", "retention above chance",
        "100 × (adapted − chance) / (pretrained − chance): 0 for a model that guesses",
        "zero-shot", "%", decimals=1, better="higher", unchanged=100, exists=_TRANSFER,
    ),
    Metric(
        "pretrained_accuracy_pct", "pretrained accuracy on the set", "what retention is a share of",
        "zero-shot", **_PERCENT, exists=_TRANSFER,
    ),
    Metric(
        "pretrained_low_pct", "pretrained 95 % from", "lower end of its 95 % Wilson interval",
        "zero-shot", **_PERCENT, exists=_TRANSFER, source="Wilson 1927",
    ),
    Metric(
        "pretrained_high_pct", "pretrained 95 % to", "upper end of its 95 % Wilson interval",
        "zero-shot", **_PERCENT, exists=_TRANSFER, source="Wilson 1927",
    ),
    Metric(
        "chance_pct", "chance", "what guessing scores on average: 100 / classes", "zero-shot",
        **_PERCENT, exists=_TRANSFER,
    ),
    Metric(
        "constant_pct", "one answer to all",
        "the most that one answer to every image scores: the share of the commonest class",
        "zero-shot", **_PERCENT, exists=_TRANSFER,
    ),
    Metric(
        "ece_pct", "calibration error",
        "expected calibration error: mean distance of confidence and accuracy in 15 bins",
        "zero-shot", "%", decimals=1, better="lower", bounds=(0, 100),
        exists=frozenset({"run", "transfer"}), source="Guo et al. 2017",
    ),
    Metric(
        "pretrained_ece_pct", "pretrained calibration error",
        "the pretrained model's expected calibration error", "zero-shot", "%", decimals=1,
        better="lower", bounds=(0, 100), exists=_TRANSFER, source="Guo et al. 2017",
    ),
    Metric(
        "ece_change_points", "change of the calibration error",
        "adapted − pretrained expected calibration error; robust fine-tuning keeps it low",
        "zero-shot", "points", decimals=1, better="lower", bounds=(-100, 100), signed=True,
        unchanged=0, exists=_TRANSFER, source="2311.01723",
    ),
    Metric(
        "wilson_low_pct", "95 % from", "lower end of an accuracy's 95 % Wilson interval",
        "zero-shot", **_PERCENT, exists=_TRANSFER, source="Wilson 1927",
    ),
    Metric(
        "wilson_high_pct", "95 % to", "upper end of an accuracy's 95 % Wilson interval",
        "zero-shot", **_PERCENT, exists=_TRANSFER, source="Wilson 1927",
    ),
    Metric(
        "pretrained_pct", "pretrained accuracy", "the pretrained model's accuracy on a class",
        "zero-shot", **_PERCENT, exists=_CLASS,
    ),
    Metric(
        "adapted_pct", "adapted accuracy", "the adapted model's accuracy on a class",
        "zero-shot", **_PERCENT, exists=_CLASS,
    ),
    *(
        Metric(
            f"recall_at_{k}_pct", f"recall@{k}", f"queries with a match among the first {k}",
            "zero-shot", **_PERCENT, exists=_TRANSFER,
        )
        for k in (1, 5, 10)
    ),
    Metric(
        "num_lost", "lost", "images that only the pretrained model has right",
        "zero-shot", "images", better="lower", exists=_TRANSFER, **_COUNT,
    ),
    Metric(
        "num_gained", "gained", "images that only the adapted model has right",
        "zero-shot", "images", better="higher", exists=_TRANSFER, **_COUNT,
    ),
    Metric(
        "num_correct", "correct", "images whose class is right",
        "zero-shot", "images", better="higher", exists=_TRANSFER, **_COUNT,
    ),
    Metric(
        "train_loss", "training loss", "training loss, mean of an epoch; at a probe its step's",
        "training", bounds=(0, None), better="lower",
    ),
    Metric(
        "penalty", "penalty", "mean of the weighted penalties over the epoch", "training",
        exists=_EPOCH,
    ),
    Metric(
        "budget_strength", "share of the change kept",
        "what the retention budget left of the trained change at the epoch's end; of searched "
        "strengths the mean over rows",
        "training", decimals=3, bounds=(0, 1), exists=_EPOCH, unchanged=1,
    ),
    Metric(
        "rate_factor", "factor of the learning rate",
        "what the retention budget multiplies every later learning rate by",
        "training", decimals=3, bounds=(0, 1), exists=_EPOCH, unchanged=1,
    ),
)  # fmt: skip

_SIZES = (
    Metric(
        "intruder_dimensions", "intruder dimensions",
        "leading singular directions of the adapted weights that the pretrained ones lack",
        "weights", better="lower", exists=frozenset({"layer"}), source="2410.21228",
        symbol="singular directions", unchanged=0, **_COUNT,
    ),
    Metric(
        "entropy_subset_cv", "entropy CV", "spread of the mean entropy over subsets of the images",
        "attention", decimals=4, better="lower", bounds=(0, None), exists=frozenset(),
        symbol="SD / mean", source="paper, table 2", unchanged=None,
    ),
    Metric(
        "forecast_retention_pct", "forecast retention",
        "retention as a calibration on a finished study tells it from drift",
        "estimate", "%", decimals=1, better="higher", bounds=(0, None), exists=frozenset(),
        limits=(1, 1000),
    ),
    *(
        Metric(
            f"{end}_{level}_pct", f"estimate's {level} % {word}",
            f"{'lower' if end == 'low' else 'upper'} end of the estimate's {level} % interval",
            "estimate", **_PERCENT, exists=frozenset(),
        )
        for level in (90, 95)
        for end, word in (("low", "from"), ("high", "to"))
    ),
    Metric(
        "refitted_accuracy_pct", "accuracy, fitted anew",
        "accuracy on the target's test images of a classifier fitted anew to a rescued model",
        "target", **_PERCENT, exists=frozenset(),
    ),
    Metric(
        "kept_head_accuracy_pct", "accuracy, old classifier",
        "accuracy on the target's test images of the classifier that was trained along",
        "target", **_PERCENT, exists=frozenset(),
    ),
    Metric(
        "cpu_seconds", "CPU time",
        "CPU time of a way of rescuing for this budget; looks for all budgets count for the first",
        "training", "s", decimals=0, bounds=(0, None), exists=frozenset(),
    ),
    Metric(
        "agreement_pct", "agreement", "images of the pool that both models give the same class",
        "estimate", **_PERCENT, exists=frozenset(),
    ),
    Metric(
        "confidence_pct", "pretrained confidence",
        "the pretrained model's mean confidence on the pool", "estimate", **_PERCENT,
        exists=frozenset(),
    ),
    Metric(
        "information", "information",
        "how surely the pretrained model tells the pool's classes apart; 1 is surely",
        "estimate", bounds=(0, 1), exists=frozenset(), symbol="I(image; class) / ln min(n, k)",
    ),
    Metric("num_classes", "classes", "classes that are chosen among", "size", "classes",
           exists=frozenset(), **_COUNT),
    Metric("num_images", "images", "images read", "size", "images", exists=_EPOCH, **_COUNT),
    Metric("num_patches", "patches", "patches of an image", "size", "patches",
           exists=frozenset(), **_COUNT),
    Metric("num_subsets", "subsets", "subsets of the images", "size", "subsets",
           exists=frozenset(), **_COUNT),
    Metric("num_runs", "runs", "runs that a row stands for", "size", "runs", **_COUNT),
    Metric("trainable_parameters", "trainable parameters", "parameters trained", "size",
           "parameters", exists=frozenset({"run"}), **_COUNT),
    Metric("total_parameters", "parameters", "parameters in all", "size", "parameters",
           exists=frozenset({"run"}), **_COUNT),
    Metric("wall_seconds", "wall time", "wall time of the run, over all its processes", "training",
           "s", decimals=0, bounds=(0, None), exists=frozenset({"run"})),
)  # fmt: skip


# ---------------------------------------------------------------- all of them


class _Metrics(Mapping[str, Metric]):
    """The declared metrics and, from the first look on, those of installed plug-ins."""

    def __init__(self, declared: tuple[Metric, ...]) -> None:
        self._declared = {one.key: one for one in declared}
        self._is_loading = False
        self.broken: dict[str, str] = {}
        """Why a plug-in's metric is missing, in a sentence, by the name of its entry point."""

    @cached_property
    def _all(self) -> dict[str, Metric]:
        self._is_loading = True  # a plug-in may import what looks here
        found = dict(self._declared)
        for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
            try:
                metric = _plugged_in(entry, found)
            except Exception as error:
                self.broken[entry.name] = sentence = (
                    f"The metric plug-in {entry.name!r} ({entry.value}) is left out: {error}."
                )
                warnings.warn(sentence, stacklevel=2)
            else:
                found[metric.key] = metric
        self._is_loading = False
        return found

    def _known(self) -> dict[str, Metric]:
        return self._declared if self._is_loading else self._all

    def __getitem__(self, key: str) -> Metric:
        return self._known()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


def _plugged_in(entry: EntryPoint, known: Mapping[str, Metric]) -> Metric:
    """The metric of an entry point; raises where there is none that can be used."""
    metric = entry.load()
    if not isinstance(metric, Metric):
        raise ConfigError(f"it is a {type(metric).__name__}, not a driftscope Metric")
    if metric.key in known:
        raise ConfigError(f"there is a metric {metric.key} already")
    if not metric.function:
        raise ConfigError("it names no function of two readings")
    unchanged = 0.0 if metric.unchanged is None else metric.unchanged
    return replace(metric, plug_in=entry.name, reads="readings", unchanged=unchanged)


ESTIMATED = "estimated_retention_pct"
"""The key of retention without labels."""
FORECAST = "forecast_retention_pct"
"""The key of retention as a calibration tells it."""
RETENTIONS = ("retention_pct", ESTIMATED, FORECAST)
"""What says how much ability is left, the surest first."""
KEPT_PCT = 90.0
"""The retention from which ability is spoken of as kept, unless a user says otherwise."""

METRICS = _Metrics(
    (
        *_LEVELS,
        _HEAD_DIVERSITY_OF_MEAN,
        *_DRIFTS,
        *(change_of(one) for one in _LEVELS if one.reads == "rows"),
        _LATE_ENTROPY,
        *(change_of(one) for one in _LEVELS if one.reads != "rows"),
        *_OUTCOMES,
        *_SIZES,
    )
)
"""Every metric by its key, in the order in which it is shown."""


def known_retention(scalars: Mapping[str, float | None]) -> tuple[Metric, float] | None:
    """The surest number that says how much ability is left; None where none was found."""
    for key in RETENTIONS:
        value = scalars.get(key)
        if value is not None and math.isfinite(value):
            return METRICS[key], value
    return None


def metric(key: str) -> Metric:
    """The metric of this key.

    Raises:
        ConfigError: there is none.
    """
    if key not in METRICS:
        raise ConfigError(f"There is no metric {key!r}: {did_you_mean(key, METRICS)}.")
    return METRICS[key]


def find_metric(name: str) -> Metric | None:
    """The metric that a column or a field tells of, whatever it is asked about; None if none.

    `pretrained_` and `selected_` before a key, and what says a layer, a spread or a transfer set
    behind it, are left aside: `cka_per_block`, `entropy`, `retention_pct_sd`, `zero_shot_pct_pets`.
    """
    if name in METRICS:
        return METRICS[name]
    for one in METRICS.values():
        if name in (one.attribute, one.layer_field) or name.startswith(f"{one.key}_sd"):
            return one
    stripped = re.sub(r"_(per_layer|per_block|layer_\d+)$", "", name.removeprefix("pretrained_"))
    if stripped != name:
        return find_metric(stripped)
    scores = (*ACCURACIES.values(), "retention_pct", "test_accuracy_pct")
    transfer = re.match(rf"({'|'.join(scores)})_", name)
    return METRICS[transfer[1]] if transfer else None


def levels(*places: Place) -> list[Metric]:
    """The signals of one model alone that exist in all these places, in the order of showing."""
    return [one for one in METRICS.values() if one.is_level and one.exists >= set(places)]


def drifts(*places: Place) -> list[Metric]:
    """The numbers of a `Drift` that exist in all these places, in the order of showing."""
    return [one for one in METRICS.values() if one.is_signal and one.exists >= set(places)]


def main_drifts(*places: Place) -> list[Metric]:
    """The drifts that are shown where there is no room for all: without details."""
    return [one for one in drifts(*places) if not one.is_detail]


def plugged_in(*places: Place) -> list[Metric]:
    """The main drifts that plug-ins add."""
    return [one for one in main_drifts(*places) if one.plug_in]


GROUP_WORDS: Mapping[str, str] = {
    "representation": "Representation",
    "weights": "Weights",
    "text space": "Nearest texts among fixed words, not your classes: no retention",
    "attention": "Attention",
}
"""What the groups of drifts are called where they stand together."""


def drift_groups(known: Mapping[str, Any]) -> dict[str, list[Metric]]:
    """The drifts that are known, by what they tell of: a heading -> metrics, in order of showing.

    An estimate of retention is no drift, and is left out.

    Args:
        known: their values by key; None, or no value, where one was not measured.
    """
    found: dict[str, list[Metric]] = {title: [] for title in GROUP_WORDS.values()}
    for one in drifts():
        if one.group != "estimate" and known.get(one.key) is not None:
            found.setdefault(GROUP_WORDS.get(one.group, one.group), []).append(one)
    return {title: metrics for title, metrics in found.items() if metrics}


def followed() -> list[Metric]:
    """What is followed over a training: outcomes, the main drifts, and a few of the details."""
    outcomes = ("train_loss", "train_accuracy_pct", "val_accuracy_pct", *ACCURACIES.values())
    details = ("delta_late_entropy_pct", "cka_debiased", "text_kl_nats")
    shown = [one for one in drifts("epoch") if not one.is_detail or one.key in details]
    return [*map(metric, outcomes), METRICS["retention_pct"], *shown]


def first_layer(num_values: int, num_layers: int) -> int:
    """The layer, from 1, that a list by layer begins at.

    Lists end at the last layer. One that is shorter than the model begins later: a pooling head's
    attention, which reads the last block, stands in the last layer.

    >>> first_layer(12, 12), first_layer(1, 12)
    (1, 12)
    """
    return max(num_layers, num_values) - num_values + 1


def units() -> dict[str, str]:
    """The unit of every number of a report by its name there; "1" is none."""
    found = {name: one.scale for one in METRICS.values() for name in {one.key, one.field}}
    by_layer = {one.layer_field: one.scale for one in METRICS.values() if "layer" in one.exists}
    of_classes = {"per_class_correct": "images", "per_class_images": "images"}
    return {**found, **by_layer, **of_classes}


def numbers_schema() -> dict[str, Any]:
    """The JSON schema of the `scalars` that a comparison's and a monitor's report.json hold."""
    numbers = [*drifts(), METRICS["val_accuracy_pct"]]
    numbers += [one for one in METRICS.values() if one.reads == "rows"]
    of_sets = [*map(METRICS.__getitem__, ACCURACIES.values()), METRICS["retention_pct"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Numbers of a driftscope report",
        "type": "object",
        "properties": {one.key: _number_schema(one) for one in [*numbers, *of_sets]},
        "patternProperties": {f"^{one.key}_.+$": _number_schema(one) for one in of_sets},
        "additionalProperties": False,
    }


def _number_schema(one: Metric) -> dict[str, Any]:
    low, high = one.bounds
    ends = {"minimum": low, "maximum": high}
    known = {name: end for name, end in ends.items() if end is not None}
    return {"type": "number", "title": one.heading, "description": one.definition, **known}
