"""What a rescue says: its sentences, and what to do with the model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftscope.adapt import CLASSIFIER_FILE
from driftscope.analysis.words import DOUBTFUL, counted, doubt_sentences, join_words
from driftscope.analysis.zero_shot import NO_RETENTION, written
from driftscope.config import Way
from driftscope.estimate import Estimate
from driftscope.files import free_name
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.records import ADAPTED_FOLDER, PROBE_FILE, RESCUE_FILE, retention_interval_pct
from driftscope.rescuing.judge import too_few_judge, usual_of_pool
from driftscope.rescuing.other_budgets import highest_budget, other_budgets
from driftscope.rescuing.target import Accuracy, Final
from driftscope.transfer import ZeroShotScore

if TYPE_CHECKING:
    from driftscope.rescuing.result import Rescue

WAY_WORDS: dict[Way, str] = {
    "search": "searched strengths of single rows of weights (search)",
    "lines": "strengths that rise with depth (lines)",
    "wise": "one strength for all weights (wise)",
    "layers": "groups tuned whole or not at all (layers)",
}
_OTHER_HALF: dict[Way, str] = {"search": "the search", "layers": "the order of the groups"}
"""What the half of the pool that does not judge is for, by the ways that need it."""
_TOO_WIDE = 10.0
"""Points of an accuracy's interval, above which it decides nothing between two classifiers."""


def sentences_of(rescue: Rescue) -> list[str]:
    """What was kept of both models; first what the retention is, measured before guessed.

    Of the adapted model, too, and on what each was found. Only a doubt about the order of the
    models comes before it.
    """
    one = rescue.chosen
    told = [rescue.order_doubt] if rescue.order_doubt else []
    for name, found in rescue.transfer.items():
        told.append(_measured_sentence(name, found))
        told += [f"Of {name}: {'; '.join(found['notes'])}."] if found["notes"] else []
        told += doubt_sentences(found["doubts"])
    told += [one.estimate.sentence(), *doubt_sentences(one.estimate.doubts)]
    told += [
        *_less_than_asked(rescue),
        _pool_sentence(rescue),
        *_too_few_judge(rescue),
        f"On the same images the adapted model keeps {_estimated(rescue.adapted.estimate)}. "
        "`driftscope compare` reads other images; what it measured on labels is nearer the "
        "truth.",
        *_needless(rescue),
        f"The blend has {WAY_WORDS[one.way]}, at scale {one.scale:.2f}.",
        *_alike(rescue),
    ]
    return [*told, *(_accuracy(rescue, rescue.final) if rescue.final else _likeness(rescue))]


def _needless(rescue: Rescue) -> list[str]:
    """That the adapted model keeps the budget without a rescue, and whether it was chosen."""
    if not rescue.adapted.keeps(rescue.keep_pct):
        return []
    told = "The adapted model keeps the budget as it is, and needs no rescue."
    return [told if rescue.chosen.is_blend else f"{told} It is also what was chosen."]


def _alike(rescue: Rescue) -> list[str]:
    """That other points are as accurate within noise, and which of them keeps more."""
    if not rescue.alike:
        return []
    others, good = counted(len(rescue.alike), "other point"), "accurate"
    if rescue.is_agreement:
        good = "good"
    told = (
        f"{others} {'is' if len(rescue.alike) == 1 else 'are'} as {good} within noise (one "
        "standard error on the images that choose)."
    )
    most, ours = rescue.alike[0].estimate, rescue.chosen.estimate
    if (most.low_90_pct or 0.0) <= (ours.low_90_pct or 0.0):
        return [f"{told} None of them keeps more."]
    asked = _keep_option(rescue, highest_budget(rescue.alike[0]))
    return [f"{told} The most that one of them keeps is {_estimated(most)}: `{asked}` asks for it."]


def _keep_option(rescue: Rescue, keep_pct: float) -> str:
    """What asks for another budget, judged by the same images of the pool."""
    read, given = rescue.num_pool, rescue.num_pool_given
    is_usual = read == min(usual_of_pool(keep_pct), given)
    return f"--keep {keep_pct:g}" + ("" if is_usual else f" --pool-images {read}")


def _pool_sentence(rescue: Rescue) -> str:
    """How much of the pool was read, and what for."""
    pool, read, given = rescue.chosen.estimate.pool, rescue.num_pool, rescue.num_pool_given
    told = f"Of the {given:,} images of {pool} "
    told += "" if read == given else f"{read:,} were read, and of these "
    tried = {one.way for one in rescue.points}
    uses = [use for way, use in _OTHER_HALF.items() if way in tried]
    others = f"; the others were left to {join_words(uses)}" if uses else ""
    return f"{told}every other one judged{others}."


def _too_few_judge(rescue: Rescue) -> list[str]:
    """That too few images judge this budget, and how many would be enough."""
    told = too_few_judge(
        rescue.chosen.estimate.num_images, rescue.keep_pct, rescue.num_pool, rescue.num_pool_given
    )
    return [told] if told else []


def _less_than_asked(rescue: Rescue) -> list[str]:
    """That what was measured may be less than what the estimate was asked to keep."""
    lows = {
        name: ends[0]
        for name, found in rescue.transfer.items()
        if found["retention_pct"] is not None
        and (ends := retention_interval_pct(found)) is not None
    }
    short = [name for name, low in lows.items() if low < rescue.keep_pct]
    if not short:
        return []
    return [
        f"As measured on {join_words(short)}, the interval reaches below {rescue.keep_pct:g} %: "
        "a gate with --confident would not pass it. A larger --keep keeps more."
    ]


def _accuracy(rescue: Rescue, final: Final) -> list[str]:
    ours, tuned, probe = final.chosen, final.adapted, final.pretrained
    num_images, target = ours.refitted.num_images, ours.refitted.name
    if rescue.is_agreement:
        return _agreement(rescue, final)
    told = [
        f"Accuracy on {target} with new classifiers: {_with_interval(tuned.refitted)} before "
        f"the rescue, {_with_interval(ours.refitted)} after it. Each is a linear classifier "
        f"that the rescue fitted to {final.num_fitted:,} labeled images, read on {num_images} "
        "others, by which the blend was not chosen. Neither is the classifier that you "
        "trained: compare these accuracies with each other, not with yours.",
        *doubt_sentences(rescue.target_doubts),
        *_with_your_classifier(tuned, ours),
        *_little_learned(rescue, tuned.refitted, probe.refitted),
    ]
    probed = (
        f"a linear probe on the untouched model, which loses nothing and has "
        f"{_with_interval(probe.refitted)} when it is fitted to the same "
        f"{final.num_fitted:,} labeled images"
    )
    saved = f"It is saved beside the rescued model, as {PROBE_FILE}."
    if rescue.surely_beats_the_probe:
        return [*told, f"It beats {probed}."]
    if ours.refitted.wilson_high_pct - ours.refitted.wilson_low_pct > _TOO_WIDE:
        return [
            *told,
            f"On {num_images} images it cannot be told from {probed}. Unless more labeled "
            f"images show that it is ahead, take that probe. {saved}",
        ]
    if rescue.beats_the_probe:
        too_few = f"on {num_images} images chance can make as much"
        return [
            *told,
            f"It is above {probed}, but {too_few}: consider that probe. {saved}",
        ]
    return [*told, f"It does not beat {probed}: take that probe instead. {saved}"]


def _agreement(rescue: Rescue, final: Final) -> list[str]:
    """What is told of images without labels where a classifier answers for them."""
    ours, tuned, probe = (one.refitted for one in (final.chosen, final.adapted, final.pretrained))
    own = final.chosen.kept_head
    told = [
        f"{ours.name} has no labels. So what is told is agreement with the classifier that was "
        f"trained with the adapted model: {_with_interval(tuned)} before the rescue, "
        f"{_with_interval(ours)} after it, by new classifiers. Each is a linear classifier that "
        f"the rescue fitted to the answers on {final.num_fitted:,} images, read on "
        f"{ours.num_images} others, by which the blend was not chosen. This is no accuracy: where "
        "the adapted model errs, erring alike counts as right. Give a labeled dataset as images, "
        "and accuracy is measured.",
    ]
    if own is not None:
        is_better = ours.num_correct >= own.num_correct
        use = f"use the new one, {CLASSIFIER_FILE}" if is_better else "it still fits"
        told.append(
            f"That classifier itself gives {_with_interval(own)} of the same answers after the "
            f"rescue: {use}."
        )
    probed = (
        f"a linear probe on the untouched model, which loses nothing and has "
        f"{_with_interval(probe)} when it is fitted to the same answers"
    )
    if rescue.surely_beats_the_probe:
        return [*told, f"It agrees more than {probed}."]
    saved = f"It is saved beside the rescued model, as {PROBE_FILE}."
    return [*told, f"It does not surely agree more than {probed}: consider that probe. {saved}"]


def _little_learned(rescue: Rescue, tuned: ZeroShotScore, probe: ZeroShotScore) -> list[str]:
    """That the adapted model is not seen to be ahead, where it is not surely behind either."""
    if rescue.order_doubt or tuned.num_correct > probe.num_correct:
        return []
    return [
        f"On these {tuned.num_images} images the adapted model is not seen to be better than "
        f"the untouched one ({probe.accuracy_pct:.1f} %): for a linear classifier the training "
        "may have gained little."
    ]


def _likeness(rescue: Rescue) -> list[str]:
    ours, before = rescue.chosen.likeness, rescue.pretrained.likeness
    if ours is None or before is None:
        return []
    if not rescue.origin.blend.moves_images:
        return ["The image tower is as it was, so nothing changes for the target's images."]
    share = 100 * (ours - before) / max(1 - before, 1e-9)
    return [
        "What your task keeps is not known: the classifier that was trained no longer fits "
        "this model. Give a labeled dataset as images: then a new one is fitted, and compared "
        "with a linear probe on the untouched model.",
        f"On the target's images {share:.0f} % of the change of the embeddings is kept (cosine "
        f"to the adapted model {ours:.3f}, of the pretrained one {before:.3f}).",
    ]


def order_doubt(final: Final | None) -> str:
    """That training did harm, or that the models were given in the wrong order; or "".

    Only where the adapted model is worse at the target than chance can make it seem.
    """
    if final is None:
        return ""
    tuned, probe = final.adapted.refitted, final.pretrained.refitted
    if tuned.wilson_high_pct >= probe.accuracy_pct:
        return ""
    return (
        f"{DOUBTFUL} the adapted model is worse at {tuned.name} than the pretrained one "
        f"({_with_interval(tuned)} and {_with_interval(probe)}, new classifiers). Either "
        "training did harm, or the models are in the wrong order: the pretrained one comes "
        "first."
    )


def steps_of(rescue: Rescue, called: str, place: Path) -> list[str]:
    """What to do with a model that was saved in `place`, a folder that will be called `called`."""
    inner = Path(called) / ADAPTED_FOLDER
    is_run = (place / ADAPTED_FOLDER).is_dir()
    out = free_name(f"{called}-checked")
    words = shlex.join([rescue.origin.before.source, called, *_options(rescue), "--out", out])
    if rescue.order_doubt:
        return [_clear_up(rescue)]
    told = []
    if not rescue.transfer:
        told.append(
            f"Check it: `driftscope compare {words}`. With --transfer DATASET it measures "
            "retention on labels that the rescue has not seen."
        )
    if rescue.classifier is not None and rescue.probe is not None:
        head = (inner if is_run else Path(called)) / CLASSIFIER_FILE
        told += _either_classifier(rescue, head, Path(called) / PROBE_FILE)
    if is_run:
        told.append(
            f"For transformers: `driftscope export-model {shlex.quote(called)} --out FOLDER` "
            "writes the model alone, without the classifier."
        )
    given = rescue.chosen, rescue.points, rescue.pretrained
    return [*told, *other_budgets(*given, partial(_keep_option, rescue))]


def _options(rescue: Rescue) -> list[str]:
    """What the command named, as it would be typed again."""
    return [word for key, name in rescue.asked.items() if name for word in (f"--{key}", name)]


def _either_classifier(rescue: Rescue, head: Path, probe: Path) -> list[str]:
    """The rescued model and the untouched one, each with its classifier; the better one first.

    That is the untouched one unless the other surely beats it, for it has lost nothing.
    """
    blend, classes = f"the blend with its own classifier, `{head}`", len(rescue.class_names)
    same = f"({classes} classes, named in {RESCUE_FILE})"
    if not classes:
        same = "(of the classes of the classifier beside the adapted model, which nothing names)"
    untouched = f"{rescue.origin.before.source} untouched, with its linear probe, `{probe}`"
    if rescue.surely_beats_the_probe:
        return [f"Use {blend} {same}.", f"Or keep {untouched}."]
    return [
        f"Keep {untouched} {same}: nothing shows that the blend is better at your task.",
        f"Or use {blend}.",
    ]


def _clear_up(rescue: Rescue) -> str:
    """What to do first where the models may be in the wrong order."""
    before, after = rescue.origin.before.source, rescue.origin.name
    words = [after, before, *_options(rescue), "--keep", f"{rescue.keep_pct:g}"]
    swapped = shlex.join([*words, "--out", free_name("rescued")])
    return (
        f"First find out which of {before} and {after} was trained from the other, and use "
        f"nothing of this rescue until you know. If {after} is the pretrained one: `driftscope "
        f"rescue {swapped}`. If not, training did harm to this task: keep {before}."
    )


def _with_interval(score: ZeroShotScore) -> str:
    """An accuracy with its 95 % Wilson interval."""
    return f"{score.accuracy_pct:.1f} % ({score.wilson_low_pct:.1f}–{score.wilson_high_pct:.1f})"


def _with_your_classifier(tuned: Accuracy, ours: Accuracy) -> list[str]:
    """What the classifier that was trained with the adapted model tells, before and after."""
    if tuned.kept_head is None or ours.kept_head is None:
        return []
    is_better = ours.refitted.num_correct >= ours.kept_head.num_correct
    use = f"use the new one, {CLASSIFIER_FILE}" if is_better else "it still fits"
    return [
        f"With the classifier that was trained with the adapted model: "
        f"{_with_interval(tuned.kept_head)} before, {_with_interval(ours.kept_head)} after: {use}."
    ]


def _measured_sentence(name: str, found: Mapping[str, Any]) -> str:
    """A benchmark's retention of the rescued model, and of the adapted one on the same images."""
    if found["retention_pct"] is None:
        return f"Measured on {name}: {NO_RETENTION}."
    kept, before = (
        written("retention_pct", one["retention_pct"]) + _interval(one)
        for one in (found, found["adapted"])
    )
    images = counted(found["rescued"]["num_images"], "labeled image")
    return f"Measured on {images} of {name}: retention {kept}; the adapted model's is {before}."


def _interval(score: Mapping[str, Any]) -> str:
    ends = retention_interval_pct(score)
    if ends is None:
        return ""
    low, high = (METRICS["retention_pct"].text(end) for end in ends)
    return f" (95 % interval {low} to {high})"


def _estimated(estimate: Estimate) -> str:
    """An estimate in a few words, with its interval."""
    if estimate.retention_pct is None:
        return "an unknown share"
    metric = METRICS[ESTIMATED]
    low, high = (metric.text(end) for end in (estimate.low_90_pct, estimate.high_90_pct))
    return f"{metric.with_unit(estimate.retention_pct)} (estimated; 90 % interval {low} to {high})"
