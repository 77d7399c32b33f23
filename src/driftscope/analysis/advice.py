"""What to do: one verdict on how much ability is left, and the next steps; facts in, words out."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from driftscope.analysis.words import DOUBTFUL, join_words, rate_text, spread_text
from driftscope.analysis.zero_shot import is_number
from driftscope.config import RunSpec
from driftscope.files import free_name
from driftscope.metrics import ESTIMATED, FORECAST, KEPT_PCT, METRICS
from driftscope.protocols import WITHOUT_TEXTS, ZERO_SHOT, protocol_of
from driftscope.records import RunRecord, retention_interval_pct
from driftscope.records.schema import RescuedFrom

Outcome = Literal["kept", "unsure", "lost", "unknown", "unchanged"]
Surface = Literal["comparison", "monitor", "run"]


@dataclass(frozen=True)
class Kept:
    """A retention that was found: how, on what, and how sure it is.

    Attributes:
        key: the metric: measured, estimated or forecast.
        pct: the retention.
        ends: its interval, in percent; None where there is none.
        level: of that interval, in percent.
        on: the transfer set, or the pool.
        doubts: why it may mean something else.
        imprecise: why it may be far off; "" where it is not.
    """

    key: str
    pct: float
    ends: tuple[float, float] | None = None
    level: int = 95
    on: str = ""
    doubts: tuple[str, ...] = ()
    imprecise: str = ""


@dataclass(frozen=True)
class Place:
    """Where a model is read: what a user would write there to find out more."""

    surface: Surface
    pretrained: str = "BEFORE"
    adapted: str = "AFTER"
    images: str = "IMAGES"
    pool: str | None = None
    classes: str | None = None
    has_texts: bool = True
    measured_on: str = ""
    """A transfer set that was scored zero-shot, whose images and classes a rescue can read."""
    withheld: str = ""
    """Why the estimate that was asked for is not given; "" where it is, or was not asked for."""
    report: str = "REPORT"
    """The folder of the report that a gate can judge; "" where a gate is judging."""
    at_chance_on: str = ""
    """A transfer set that tells no retention; "" where there is one, or none was scored."""
    images_are_labeled: bool = False
    """Whether the images surely have labels, to which a rescue fits a classifier."""
    split_of: str | None = None
    """The folder of which `images` is one split, which a rescue reads with the others."""
    rescued_from: RescuedFrom | None = None
    """Of what a rescue made the adapted model; None where none did."""
    trained_under_pct: float | None = None
    """The budget that the model was trained under already; None without one."""


@dataclass(frozen=True)
class Setting:
    """A method at a rate, as a user's own study shows it."""

    method: str
    learning_rate: float
    accuracy_key: str
    accuracy_pct: float
    retention_pct: float
    accuracy_sd: float | None = None
    retention_sd: float | None = None

    @property
    def words(self) -> str:
        """Its name and both numbers, each ± sd over seeds where there are several."""
        reached = _with_sd(self.accuracy_key, self.accuracy_pct, self.accuracy_sd)
        kept = _with_sd("retention_pct", self.retention_pct, self.retention_sd)
        accuracy = METRICS[self.accuracy_key].label
        return (
            f"{self.method} at {rate_text(self.learning_rate)} ({accuracy} {reached}, retention "
            f"{kept})"
        )


def _with_sd(key: str, mean: float, sd: float | None) -> str:
    text = spread_text(mean, math.nan if sd is None else sd, METRICS[key].decimals)
    return f"{text} {METRICS[key].unit}".rstrip()


@dataclass(frozen=True)
class Advice:
    """A verdict in one line, and at most three next steps.

    Attributes:
        outcome: what the verdict is, in a word.
        verdict: in a sentence.
        steps: what to do, each with its condition.
    """

    outcome: Outcome
    verdict: str
    steps: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "steps": list(self.steps)}


def kept_of(found: Mapping[str, Any]) -> Kept | None:
    """The surest retention among what a comparison or one look found.

    Of several transfer sets it is the lowest: a model is as safe as its worst ability.

    Args:
        found: with `transfer`, `estimate`, `forecast` and `doubts`, as JSON values hold them.
    """
    of_all = tuple(found.get("doubts") or ())
    scores = {
        name: score
        for name, score in (found.get("transfer") or {}).items()
        if is_number(score.get("retention_pct"))
    }
    if scores:
        name = min(scores, key=lambda one: float(scores[one]["retention_pct"]))
        score = scores[name]
        interval = retention_interval_pct(score)
        doubts = (*of_all, *(score.get("doubts") or ()))
        return Kept("retention_pct", score["retention_pct"], interval, 95, name, doubts)
    for key, part, ends, on in (
        (ESTIMATED, "estimate", ("low_90_pct", "high_90_pct"), "pool"),
        (FORECAST, "forecast", ("low_pct", "high_pct"), "calibration"),
    ):
        one = found.get(part) or {}
        if is_number(one.get("retention_pct")):
            low, high = (one.get(end) for end in ends)
            known = None if low is None or high is None else (float(low), float(high))
            imprecise = str(one.get("imprecise") or "")
            own = (doubt for doubt in one.get("doubts") or () if doubt != imprecise)
            doubts = (*of_all, *own)
            place = str(one.get(on) or "")
            return Kept(key, one["retention_pct"], known, 90, place, doubts, imprecise)
    return None


def advice_on(
    found: Mapping[str, Any],
    place: Place,
    *,
    budget_pct: float | None = None,
    is_unchanged: bool = False,
) -> Advice:
    """The verdict on what was found, and what to do next.

    Args:
        found: with `transfer`, `estimate` and `forecast`, as JSON values hold them.
        place: where it was read; what `found` tells of it is filled in.
        budget_pct: the retention from which ability counts as kept; by default what the model was
            trained to keep, or `KEPT_PCT`.
        is_unchanged: as for `advise`.
    """
    budget_pct = budget_pct or place.trained_under_pct or KEPT_PCT
    kept = kept_of(found)
    known = replace(place, measured_on=_measured_on(found), withheld=_withheld(found))
    if kept is None and (doubts := found.get("doubts")):
        return Advice("unknown", f"{DOUBTFUL} {doubts[0]}.", (_CLEAR_UP,))
    if kept is None:
        known = replace(known, at_chance_on=next(iter(found.get("transfer") or {}), ""))
    return advise(kept, known, budget_pct=budget_pct, is_unchanged=is_unchanged)


def advise(
    kept: Kept | None,
    place: Place,
    *,
    budget_pct: float = KEPT_PCT,
    better: Setting | None = None,
    is_unchanged: bool = False,
) -> Advice:
    """The verdict on one model and what to do next.

    Args:
        kept: its retention; None where none is known.
        place: where it was read.
        budget_pct: the retention from which ability counts as kept.
        better: what the user's own study shows to keep more, if there is one.
        is_unchanged: whether both models' weights are equal.
    """
    if is_unchanged:
        return Advice(
            "unchanged",
            "Nothing has changed in the image encoder: both are equal to the bit.",
            ("Check that the second model is the fine-tuned one, and that training reached it.",),
        )
    if kept is None:
        return _unknown(place)
    outcome = _outcome(kept, budget_pct)
    again = _ways_to_more(better, place, budget_pct)
    steps = {
        "lost": (*again, _more_sets(kept, place)),
        "unsure": (_surer(kept, place), *(() if kept.doubts else again)),
        "kept": (
            *_in_order(kept, place),
            *([_gate(kept, place, budget_pct)] if place.report else []),
            _more_sets(kept, place),
        ),
    }[outcome]
    return Advice(outcome, _verdict(kept, outcome, budget_pct), steps)


def advice_on_comparison(comparison: Mapping[str, Any]) -> Advice:
    """What to do after a comparison, from its JSON values."""
    is_unchanged = comparison["drift"].get("weight_drift") == 0 and not _has_lost(comparison)
    return advice_on(comparison, _place_of(comparison), is_unchanged=is_unchanged)


def damage_sentence(comparison: Mapping[str, Any]) -> str:
    """How to find the layers that do the damage, which changes do not tell; "" without texts."""
    place = _place_of(comparison)
    if not place.has_texts:
        return ""
    known = replace(place, measured_on=_measured_on(comparison))
    pool, classes = _pool_of(known)
    words = ["where", known.pretrained, known.adapted, *_pool_options(pool, classes)]
    return (
        "The layers that change most need not be those that do the damage: "
        f"`driftscope {shlex.join(words)}` finds these."
    )


def _place_of(comparison: Mapping[str, Any]) -> Place:
    made = comparison.get("rescued_from")
    return Place(
        "comparison",
        str(comparison["pretrained"]),
        str(comparison["adapted"]),
        str(comparison["images"]),
        comparison.get("pool"),
        comparison.get("classes"),
        has_texts(comparison.get("unmeasured") or {}),
        report=str(comparison.get("report") or "REPORT"),
        images_are_labeled=bool(comparison.get("images_are_labeled")),
        split_of=comparison.get("split_of"),
        rescued_from=RescuedFrom.model_validate(made) if made else None,
    )


def advice_on_look(found: Mapping[str, Any], watched: Mapping[str, Any]) -> Advice:
    """What to do after a monitor's look at a training.

    Args:
        found: the observation as JSON values.
        watched: what was watched, as a monitor's `report.json` says it.
    """
    place = Place(
        "monitor",
        str(watched["pretrained"]),
        str(watched.get("kept_model") or "AFTER"),
        str(watched["probe_images"]),
        watched.get("pool_as_given"),
        watched.get("classes_as_given"),
        has_texts=has_texts(found.get("unmeasured") or {}),
        images_are_labeled=bool(watched.get("images_are_labeled")),
        split_of=watched.get("split_of"),
    )
    is_unchanged = found.get("weight_drift") == 0 and not _has_lost(found)
    budget = kept_pct_of(watched)
    return advice_on(found, place, budget_pct=budget, is_unchanged=is_unchanged)


def kept_pct_of(watched: Mapping[str, Any]) -> float:
    """The retention to keep that a monitor was given, as its `report.json` says it."""
    least = (watched.get("thresholds") or {}).get("min_retention_pct")
    return float(least or KEPT_PCT)


def kept_pct_of_run(spec: RunSpec) -> float:
    """The retention that counts as kept of a run: its budget, where it has one."""
    return spec.budget.retention_pct if spec.budget else KEPT_PCT


def found_by_run(record: RunRecord) -> dict[str, Any]:
    """What a run found of retention, at its selected epoch, as a comparison's JSON holds it."""
    selected = record.result.selected
    return {
        "transfer": {
            name: one.model_dump(by_alias=True)
            for name, one in (selected.transfer if selected else {}).items()
        },
        "estimate": selected.estimate.model_dump() if selected and selected.estimate else None,
    }


def advice_on_run(record: RunRecord, folder: str) -> Advice:
    """What to do after a run, from its record in a folder."""
    spec, selected = record.spec, record.result.selected
    unmeasured = selected.drift.unmeasured if selected else {}
    place = Place(
        "run",
        spec.model,
        folder,
        spec.dataset,
        spec.pool,
        classes_of(spec),
        has_texts=has_texts(unmeasured),
        report=folder,
        images_are_labeled=True,
        trained_under_pct=spec.budget.retention_pct if spec.budget else None,
    )
    return advice_on(found_by_run(record), place)


def classes_of(spec: RunSpec) -> str | None:
    """What a run's pool may show, as a command names it."""
    return spec.classes if isinstance(spec.classes, str | None) else "NAMES"


def _has_lost(found: Mapping[str, Any]) -> bool:
    """Whether something has changed after all, as where the text tower alone was trained."""
    kept = kept_of(found)
    return kept is not None and kept.key != FORECAST and kept.pct != 100


def _measured_on(found: Mapping[str, Any]) -> str:
    names = (name for name in found.get("transfer") or {} if protocol_of(name) == ZERO_SHOT)
    return next(names, "")


def _withheld(found: Mapping[str, Any]) -> str:
    estimate = found.get("estimate") or {}
    return "" if is_number(estimate.get("retention_pct")) else str(estimate.get("withheld") or "")


def has_texts(unmeasured: Mapping[str, str]) -> bool:
    """Whether the model has a text tower, from the reasons of numbers that are missing."""
    return WITHOUT_TEXTS not in unmeasured.get(ESTIMATED, "")


def _outcome(kept: Kept, budget: float) -> Literal["kept", "unsure", "lost"]:
    low, high = kept.ends or (kept.pct, kept.pct)
    if kept.doubts:
        return "unsure"
    if high < budget:
        return "lost"
    return "kept" if low >= budget and not kept.imprecise else "unsure"


def _verdict(kept: Kept, outcome: Outcome, budget: float) -> str:
    metric = METRICS[kept.key]
    found = f"{metric.label} is {metric.with_unit(kept.pct)}"
    if kept.ends:
        low, high = (metric.text(end) for end in kept.ends)
        found += f" ({kept.level} % interval {low} to {high})"
    found += f" on {kept.on}" if kept.on else ""
    if kept.doubts:
        return f"{DOUBTFUL} {found}, but {kept.doubts[0]}."
    side = {
        "kept": f"Kept: {found}, at least the {budget:g} % to keep.",
        "lost": f"Lost: {found}, less than the {budget:g} % to keep.",
        "unsure": f"Unsure: {found}; {kept.imprecise or f'the {budget:g} % to keep lies within'}.",
    }
    return side[outcome]


_HOW: dict[Surface, dict[str, str]] = {
    "comparison": {
        "estimate": "`--pool IMAGES --classes NAMES.txt`",
        "measure": "`--transfer DATASET`",
        "more": "--transfer-images 0 or --pool-images 0",
    },
    "monitor": {
        "estimate": "Monitor(pool=IMAGES, classes=NAMES)",
        "measure": "Monitor(transfer=DATASET)",
        "more": "transfer_images=None or pool_images=None",
    },
    "run": {
        "estimate": "`pool:` with `classes:` in the spec",
        "measure": "`transfer:` in the spec",
        "more": "`transfer_images:` or `pool_images:` in the spec",
    },
}
"""How each surface is asked for more."""


def train_under(pct: float, place: Place, spec: str = "a run's YAML") -> str:
    """How to train so that a retention is kept, to be pasted where a surface's user trains.

    After a comparison that is a whole run; a run or a study has a file to add lines to.

    Args:
        pct: the retention to keep.
        place: where the model was read; its pool and its classes are taken.
        spec: the file that lines are added to.
    """
    if place.trained_under_pct is not None:
        return _under_a_higher(max(pct, place.trained_under_pct), place.trained_under_pct)
    pool, classes = _pool_of(place)
    looks = {"pool": pool, "classes": classes} if classes else {"pool": pool}
    lines = [*map(_yaml_line, looks.items()), f"budget: {{retention_pct: {pct:g}}}"]
    given = "".join(f", {key}={value!r}" for key, value in looks.items())
    in_loop = (
        f"write `budget = driftscope.Budget({place.pretrained!r}, model{given}, "
        f"retention_pct={pct:g})` before the first step and `budget.step(step=step)` after each "
        "epoch"
    )
    if place.surface == "monitor":
        return f"{in_loop}, and that much is kept while the model learns. {_CLASSIFIER_TOO}"
    if place.surface == "run":
        return (
            f"put the lines {join_words([f'`{line}`' for line in lines])} into {spec}, and that "
            "much is kept while the model learns."
        )
    return f"{_whole_run(place, lines)} In a loop of your own, {in_loop}. {_CLASSIFIER_TOO}"


def _whole_run(place: Place, budget: Sequence[str]) -> str:
    """A run under a budget as one line of YAML, and the command that carries it out."""
    images = (place.split_of or place.images) if place.images_are_labeled else "DATASET"
    named = {"model": place.pretrained, "dataset": images}
    lines = [*map(_yaml_line, named.items()), "method: full_ft", "learning_rate: 1.0e-5", *budget]
    if place.measured_on:
        lines.append(f"transfer: [{_yaml(place.measured_on)}]")
    file, out = free_name("budgeted", ".yaml"), free_name("budgeted")
    yours = "" if place.images_are_labeled else " DATASET is a labeled dataset of your task."
    return (
        f"save `{{{', '.join(lines)}}}` as `{file}` and run `driftscope run {file} --out {out}`: "
        "that much is kept while the model learns. Method and learning rate are examples: put "
        f"your own.{yours}"
    )


def _yaml_line(item: tuple[str, str]) -> str:
    return f"{item[0]}: {_yaml(item[1])}"


def _yaml(text: str) -> str:
    """A text as YAML and JSON quote it, whatever it holds."""
    return json.dumps(text, ensure_ascii=False)


_CLASSIFIER_TOO = (
    "If it trains a classifier, fit that to the pretrained embeddings first, and give it as "
    "`classifier=`: it then goes back with the model."
)
_MORE_THAN_ASKED = 5.0
"""Points that a budget is raised by where a model under it keeps too little (docs/budget.md)."""


def _under_a_higher(pct: float, was: float) -> str:
    """What to do where a budget was kept on its own images, and others say otherwise."""
    more = min(_MOST_KEPT_PCT, pct + _MORE_THAN_ASKED)
    return (
        f"the budget of {was:g} % was judged on other images. Ask for more in the run's YAML, "
        f"`budget: {{retention_pct: {more:g}, images: 400}}`."
    )


def _unknown(place: Place) -> Advice:
    if place.withheld:
        why = f"no estimate is given, because {place.withheld.rstrip('.')}"
        other = "Without labels: give other images of the world you need, or the classes they show."
        return Advice("unknown", f"Unknown: {why}.", (other, _ways_to_know(place)[-1]))
    if place.at_chance_on:
        why = f"on {place.at_chance_on} the pretrained model is no better than chance"
        other = "With labels: give a set that the pretrained model can tell, in place of that one."
        ways = _ways_to_know(place)
        return Advice(
            "unknown", f"Unknown: {why}, so it can lose nothing there.", (*ways[:-1], other)
        )
    return Advice(
        "unknown",
        "Unknown: how much of the pretrained ability is left was neither measured nor estimated.",
        _ways_to_know(place),
    )


def _ways_to_know(place: Place) -> tuple[str, ...]:
    how = _HOW[place.surface]
    if not place.has_texts:
        return (
            f"With labels: {how['measure']} measures it, by k-NN and by a linear probe, as the "
            "model has no text tower.",
        )
    return (
        f"Without labels: {how['estimate']} estimates it from unlabeled images of what the model "
        "should still tell apart. Where you have no list of names, `general` takes everyday words.",
        f"With labels: {how['measure']} measures it.",
    )


def _ways_to_more(better: Setting | None, place: Place, budget: float) -> tuple[str, ...]:
    if budget > 100:
        return (
            "Ask for at most 100 %: neither a rescue nor a training under a budget keeps more than "
            "the pretrained model has.",
        )
    return (*_rescue(place, budget), _train_again(better, place, budget))


_MOST_KEPT_PCT = 99.0
"""Beyond this a rescue leaves next to nothing of the training."""


def _more_to_keep(made: RescuedFrom, budget: float) -> float | None:
    """The budget of another rescue: halfway to all from where the last one fell short; or None."""
    asked = max(made.keep_pct, budget)
    return None if asked >= _MOST_KEPT_PCT else min(_MOST_KEPT_PCT, math.ceil((asked + 100) / 2))


def _pool_of(place: Place) -> tuple[str, str | None]:
    """Unlabeled images of the world to keep, and what they may show, as a user would name them."""
    if place.pool:
        return place.pool, place.classes
    return place.measured_on or "IMAGES", None


def _rescue(place: Place, budget: float) -> tuple[str, ...]:
    """Nothing of a model without texts: a rescue is judged by class names."""
    if not place.has_texts:
        return ()
    if place.rescued_from is not None:
        return (_rescue_again(place, place.rescued_from, budget),)
    pool, classes = _pool_of(place)
    meant = " --pool takes unlabeled images of the world that you need zero-shot ability for."
    saved = " AFTER is the trained model: save it first." if place.adapted == "AFTER" else ""
    images = place.split_of or place.images
    command = _rescue_command(place.pretrained, place.adapted, images, pool, classes, budget)
    return (
        f"To repair this model without training: `{command}` blends it with the pretrained one. "
        f"{_what_labels_tell(place)}{meant if pool == 'IMAGES' else ''}"
        f"{saved if place.surface == 'monitor' else ''}",
    )


def _what_labels_tell(place: Place) -> str:
    """What a rescue finds by the labels of its images, or that it needs some."""
    if place.split_of:
        return (
            f"As {place.split_of} has labels and splits, it fits a new classifier to the training "
            "split and tells on the other what the task keeps."
        )
    if place.images_are_labeled:
        return (
            f"As {place.images} has labels, it fits a new classifier and tells what the task "
            "keeps; if the model was trained on these very images, give others, or that is too "
            "high."
        )
    return (
        "For --images give a labeled dataset of your task, if you have one: a blended model needs "
        "its classifier fitted again, and only labels tell what the task keeps."
    )


def _rescue_again(place: Place, made: RescuedFrom, budget: float) -> str:
    """What to do with a model that came out of a rescue: it is asked for more, from its origin."""
    was = f"{place.adapted} came out of a rescue at --keep {made.keep_pct:g}"
    more = _more_to_keep(made, budget)
    if more is None:
        return f"{was}: no other blend keeps much more and is still worth having."
    pool, classes = (made.pool, made.classes) if made.pool else _pool_of(place)
    images = made.images or place.images
    command = _rescue_command(made.pretrained, made.adapted, images, pool, classes, more)
    return f"To keep more: {was}, so ask {made.adapted} for more, and not it: `{command}`."


def _rescue_command(
    pretrained: str, adapted: str, images: str, pool: str, classes: str | None, keep: float
) -> str:
    """A rescue to paste, into a folder that is not there yet."""
    words = [pretrained, adapted, "--images", images, *_pool_options(pool, classes)]
    words += ["--keep", f"{keep:g}", "--out", free_name("rescued")]
    return f"driftscope rescue {shlex.join(words)}"


def _pool_options(pool: str, classes: str | None) -> list[str]:
    return ["--pool", pool, *(["--classes", classes] if classes else [])]


def _train_again(better: Setting | None, place: Place, budget_pct: float) -> str:
    budget = f"{train_under(budget_pct, place)} " if place.has_texts else ""
    if better is not None:
        known = f"If you can train again: in your study {better.words} keeps more. {budget}"
        return known.rstrip()
    return (
        f"If you can train again: {budget}A lower learning rate keeps more, too. So does LoRA; if "
        "you train a LoRA already, give it a lower rank. A study of two methods at two rates "
        "(`driftscope study run`) shows what that costs in accuracy."
    )


def _more_sets(kept: Kept, place: Place) -> str:
    if kept.key != "retention_pct":
        return (
            f"To be surer than by an estimate: {_HOW[place.surface]['measure']} measures retention "
            "on labeled images."
        )
    return (
        f"If other abilities matter: one benchmark is one view; {_HOW[place.surface]['measure']} "
        "takes several."
    )


_CLEAR_UP = (
    "First clear up the doubt: until then the number decides nothing, and no rescue or new "
    "training should rest on it."
)


def _in_order(kept: Kept, place: Place) -> tuple[str, ...]:
    """That more than all is kept, which two models in the wrong order look like."""
    if place.surface != "comparison" or kept.ends is None or kept.ends[0] <= 100:
        return ()
    return (
        f"Is the order right? The second model is better on {kept.on} than the first. That is so "
        "where it was trained on such images, and where the two are in the wrong order: the "
        "pretrained model comes first.",
    )


def _surer(kept: Kept, place: Place) -> str:
    if kept.doubts:
        return _CLEAR_UP
    more = _HOW[place.surface]["more"]
    return f"To know: more images narrow the interval. If not all were read, {more} reads more."


def _gate(kept: Kept, place: Place, budget: float) -> str:
    if place.surface == "monitor":
        return f"Go on: the monitor alerts when retention falls below {budget:g} %."
    option = METRICS[kept.key].limit_option("min")
    words = shlex.join([place.report, option, f"{budget:g}", "--confident"])
    meant = "" if place.report != "REPORT" else ", with the folder of this report for REPORT,"
    return f"To keep it so: `driftscope gate {words}`{meant} fails a build that loses it."
