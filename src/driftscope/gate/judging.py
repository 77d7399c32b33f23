"""The numbers of a report, and the verdict of each limit on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from driftscope.analysis.advice import Advice, Place, Surface, advice_on, classes_of
from driftscope.analysis.calibration import Calibration, Forecast, adapted_by
from driftscope.errors import ConfigError, RecordError, did_you_mean
from driftscope.files import named_path
from driftscope.gate.limits import GATED, Limit
from driftscope.metrics import ESTIMATED, FORECAST, RETENTIONS, drifts
from driftscope.protocols import ACCURACIES, ZERO_SHOT, protocol_of
from driftscope.records import (
    REPORT_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    STUDY_FILE,
    load_run,
    read_sealed,
)
from driftscope.records.schema import (
    OLD_TEXTS,
    RescuedFrom,
    StoredEstimate,
    StoredPrompts,
    TransferScore,
    is_number,
    parse,
)
from driftscope.records.watched_schema import Event, Report, WatchedOn
from driftscope.stats.proportions import wilson_interval_pct

if TYPE_CHECKING:
    from driftscope.gate.prompts import AskedPrompts

Outcome = Literal["passed", "failed", "not measured"]
_Found = TypeVar("_Found", TransferScore, StoredEstimate)


@dataclass(frozen=True)
class Evidence:
    """The numbers of one report.

    Attributes:
        source: the file.
        what: what the numbers are of, in words.
        scalars: number by name; what was not measured is absent.
        transfer: the adapted model's score by transfer set.
        num_images: how many images an accuracy of `scalars` was counted on, where it is known.
        unmeasured: why a number is missing, by its key.
        estimate: of retention without labels.
        model: the pretrained model's name, where it is told.
        method: how the model was adapted, and what was done beside it, where it is told.
        forecast: of retention, by a calibration.
        surface: what made the report.
        adapted: the adapted model's name or folder, where it is told.
        images, pool, classes: what the model was read on, where it is told.
        images_are_labeled: whether the images surely have labels.
        split_of: the folder of which the images are one split, if they are one.
        rescued_from: of a model that came out of a rescue.
        trained_under_pct: the budget that it was trained under, if there was one.
        first_epoch: the drift's numbers at the end of the first epoch; empty where there are none.
        in_tables: the drift's numbers as a study's tables have them, which a calibration learns
            from; None where they are those of `scalars`.
        prompts: what class prompts were made of, by transfer set, where it is told.
    """

    source: Path
    what: str
    scalars: Mapping[str, float]
    transfer: Mapping[str, TransferScore]
    num_images: Mapping[str, int] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    estimate: StoredEstimate | None = None
    model: str | None = None
    method: str | None = None
    forecast: Forecast | None = None
    surface: Surface = "comparison"
    adapted: str | None = None
    images: str | None = None
    pool: str | None = None
    classes: str | None = None
    images_are_labeled: bool = False
    split_of: str | None = None
    rescued_from: RescuedFrom | None = None
    trained_under_pct: float | None = None
    first_epoch: Mapping[str, float] = field(default_factory=dict)
    in_tables: Mapping[str, float] | None = None
    prompts: Mapping[str, StoredPrompts] = field(default_factory=dict)

    def advice(self, budget_pct: float | None = None) -> Advice:
        """What to do: a verdict against the budget, by default the run's own, and next steps."""
        found = {
            "transfer": {n: one.model_dump(by_alias=True) for n, one in self.transfer.items()},
            "estimate": self.estimate.model_dump() if self.estimate else None,
            "forecast": self.forecast.model_dump() if self.forecast else None,
        }
        place = Place(
            self.surface,
            self.model or "BEFORE",
            self.adapted or "AFTER",
            self.images or "IMAGES",
            self.pool,
            self.classes,
            report="",
            images_are_labeled=self.images_are_labeled,
            split_of=self.split_of,
            rescued_from=self.rescued_from,
            trained_under_pct=self.trained_under_pct,
        )
        return advice_on(found, place, budget_pct=budget_pct)

    def with_forecast(self, calibration: Calibration) -> Evidence:
        """With the retention that a calibration tells from the numbers, or why it does not.

        Of a training, a calibration of the first epoch takes the numbers of that epoch.
        """
        is_early = calibration.at == "first epoch" and self.surface != "comparison"
        at_end = self.scalars if self.in_tables is None else self.in_tables
        found = calibration.forecast(
            self.first_epoch if is_early else at_end,
            model=self.model,
            method=self.method,
            is_after_first_epoch=is_early,
        )
        if found.retention_pct is None:
            unmeasured = {**self.unmeasured, FORECAST: found.refused}
            return replace(self, forecast=found, unmeasured=unmeasured)
        scalars = {**self.scalars, FORECAST: found.retention_pct}
        return replace(self, forecast=found, scalars=scalars)

    def measured_with(self, asked: AskedPrompts) -> Evidence:
        """With a doubt at every zero-shot score that was measured with other class prompts.

        Raises:
            DataError: class words of other classes.
        """
        sets = [name for name in self.transfer if protocol_of(name) == ZERO_SHOT]
        asked.check_fits([self.prompts[name] for name in sets if name in self.prompts])
        transfer = dict(self.transfer)
        for name in sets:
            if other := asked.why_not(self.prompts.get(name)):
                doubts = [other, *transfer[name].doubts]
                transfer[name] = transfer[name].model_copy(update={"doubts": doubts})
        return replace(self, transfer=transfer)


@dataclass(frozen=True)
class Verdict:
    """A limit against its number.

    Attributes:
        title: the number's name, with its transfer set.
        limit: as it is read, such as `at least 90 %`.
        measured: the number; None where the report has none.
        judged: what was set against the limit: the number, or the lower end of its interval.
        outcome: only `passed` has passed.
        sentence: why it has not; "" where it has.
    """

    title: str
    limit: str
    measured: float | None
    judged: float | None
    unit: str
    outcome: Outcome
    sentence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


# ---------------------------------------------------------------- what there is


def read_evidence(path: Path, *, best: bool = False) -> Evidence:
    """The numbers of a comparison's or a monitor's report, or of a finished run.

    Args:
        path: the file, or the folder that holds it.
        best: of a monitored training the best observation instead of the latest.

    Raises:
        RecordError: there is none, it is damaged, or it has no best observation.
    """
    file = _file_of(path)
    if best and file.name == RESULT_FILE:
        raise RecordError(f"{file} is a run's, and already speaks of its selected epoch")
    return _of_run(file) if file.name == RESULT_FILE else _of_report(file, best)


def _refuse_changed(file: Path, was_changed: bool) -> None:
    if was_changed:
        raise RecordError(
            f"{file} was changed after it was written (its digest differs), so it proves nothing; "
            "measure again"
        )


def _of_report(file: Path, best: bool) -> Evidence:
    values, was_changed = read_sealed(file)
    _refuse_changed(file, was_changed)
    if "scalars" not in values:
        raise RecordError(
            f"{file} is no report that can be judged: it has no scalars; give what `driftscope "
            "compare`, a monitor or a run has written"
        )
    report = parse(Report, values, file)
    if report.kind == "monitor":
        return _of_monitor(file, report, best)
    if best:
        raise RecordError(f"{file} is a comparison's; only a monitored training has a best step")
    what = f"{report.adapted} against {report.pretrained}"
    scores = {name: _doubted(one, report.doubts) for name, one in (report.transfer or {}).items()}
    scalars = _finite(report.scalars)
    return Evidence(
        file,
        what,
        scalars,
        scores,
        unmeasured=report.unmeasured,
        estimate=report.estimate and _doubted(report.estimate, report.doubts),
        model=report.pretrained,
        adapted=report.adapted,
        images=report.images,
        pool=report.pool,
        classes=report.classes,
        images_are_labeled=report.images_are_labeled,
        split_of=report.split_of,
        rescued_from=report.rescued_from,
        prompts=report.transfer or {},
    )


def _doubted(found: _Found, doubts: Sequence[str]) -> _Found:
    """A score or an estimate with the doubts about the whole report before its own."""
    return found.model_copy(update={"doubts": [*doubts, *found.doubts]})


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise RecordError(
            f"{path} does not exist; give a report, such as the folder that `driftscope compare "
            "BEFORE AFTER --images FOLDER` writes"
        )
    if not path.is_dir():
        return path
    for name in (RESULT_FILE, REPORT_FILE):
        if (path / name).exists():
            return path / name
    if (path / STUDY_FILE).exists():
        raise RecordError(f"{path} is a study; give one of its runs: {path / RUNS_FOLDER}/ID")
    raise RecordError(
        f"{path} holds neither {REPORT_FILE} nor {RESULT_FILE}; give the folder of a report, which "
        "`driftscope compare BEFORE AFTER` writes"
    )


def _of_run(file: Path) -> Evidence:
    record = load_run(file.parent)
    _refuse_changed(file, record.is_changed)
    spec, result = record.spec, record.result
    selected = result.selected  # the model that is kept, also where structure is told of another
    diverged = ", which diverged" if result.status == "diverged" else ""
    scalars: dict[str, Any] = dict(selected.drift.numbers()) if selected else {}
    unmeasured = dict(selected.drift.unmeasured) if selected else {}
    if result.texts == OLD_TEXTS:
        why = f"the run read it against {OLD_TEXTS}; run it again to limit it"
        for key in [one.key for one in drifts() if one.group == "text space"]:
            if scalars.pop(key, None) is not None:
                unmeasured[key] = why
    num_images = {}
    if selected is not None:  # None where the first epoch diverged
        scalars["val_accuracy_pct"] = selected.val_accuracy_pct
        scalars["test_accuracy_pct"] = selected.test_accuracy_pct
        num_images["test_accuracy_pct"] = selected.test_num_images or 0
    if result.splits is not None:  # an imported run's are not told
        num_images["val_accuracy_pct"] = result.splits.num_images.get("val", 0)
    return Evidence(
        file,
        f"{spec.method.label} on {spec.dataset}, epoch {selected.epoch if selected else 0}"
        + diverged,
        _finite(scalars),
        selected.transfer if selected else {},
        num_images,
        unmeasured,
        selected.estimate if selected else None,
        spec.model,
        adapted_by(spec.method.label, spec.regularizer_label),
        surface="run",
        adapted=str(file.parent),
        images=spec.dataset,
        images_are_labeled=True,
        trained_under_pct=spec.budget.retention_pct if spec.budget else None,
        pool=spec.pool,
        classes=classes_of(spec),
        first_epoch=_of_first_epoch(one for one in record.events if one.kind == "epoch"),
        in_tables=_finite(record.drift.numbers()) if record.drift else {},
        prompts=result.prompts,
    )


def _of_monitor(file: Path, report: Report, best: bool) -> Evidence:
    watched = parse(WatchedOn, report.monitor or {}, file)
    which = "best" if best else "latest"
    point, history = report.best if best else report.latest, report.history or []
    if point is None:
        if not best:
            raise RecordError(f"{file} is damaged: it has no latest")
        raise RecordError(
            f"{file} names no best step: a monitor knows it when it is told validation accuracies"
        )
    if not best and history and history[-1].step != point.step:
        # the report speaks of the last one that could be read, which the model has since left
        what = f"latest observation of a training, step {history[-1].step}: it could not be read"
        return Evidence(file, what, {}, {}, surface="monitor")
    seen = [one for one in history if one.step == point.step]
    return Evidence(
        file,
        f"{which} observation of a training, step {point.step}",
        _finite(point.scalars),
        (seen[-1].transfer or {}) if seen else {},
        unmeasured=report.unmeasured,
        estimate=seen[-1].estimate if seen else None,
        model=watched.pretrained,
        surface="monitor",
        adapted=None if best else _if_there(watched.kept_model),
        images=watched.probe_images,
        images_are_labeled=watched.images_are_labeled,
        split_of=watched.split_of,
        pool=watched.pool_as_given,
        classes=watched.classes_as_given,
        first_epoch=_of_first_epoch(Event(one.model_extra or {}) for one in history),
        prompts={one.name: one for one in watched.transfer},
    )


def _if_there(place: str | None) -> str | None:
    return place if place and named_path(place).is_dir() else None


def _of_first_epoch(events: Iterable[Event]) -> dict[str, float]:
    """The numbers of the last event of epoch 1."""
    seen = [one.numbers() for one in events if one.get("epoch") == 1]
    return _finite(seen[-1]) if seen else {}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = ((name, value) for name, value in values.items() if is_number(value))
    return {name: float(value) for name, value in numbers if math.isfinite(value)}


# ---------------------------------------------------------------- the verdicts


def asked_budget(limits: Sequence[Limit]) -> float | None:
    """The strictest retention that limits ask for; None where none asks for one."""
    asked = [one.value for one in limits if one.gated.metric.key in RETENTIONS]
    return max(asked, default=None)


def judge(evidence: Evidence, limits: Sequence[Limit], *, confident: bool = False) -> list[Verdict]:
    """Each limit's verdict, in the order of `GATED`.

    Args:
        evidence: the numbers.
        limits: what was asked.
        confident: whether accuracies and retention must keep their limit with the lower end of
            their 95 % interval, which says how much the number of images leaves open. Wilson's
            for an accuracy; for retention Bonett and Price's, of two shares of the same images.

    Raises:
        ConfigError: nothing was asked, or a transfer set that the report does not have.
    """
    if not limits:
        raise ConfigError(f"no limit was asked for; give one, such as {GATED[0].option} 90")
    ordered = sorted(limits, key=lambda limit: GATED.index(limit.gated))
    return [verdict for limit in ordered for verdict in _verdicts(evidence, limit, confident)]


def _sets_of(evidence: Evidence, limit: Limit) -> list[str]:
    """The transfer sets whose scores a limit on such scores is on."""
    key = limit.gated.metric.key
    meant = [
        name
        for name in evidence.transfer
        if key == "retention_pct" or ACCURACIES[protocol_of(name)] == key
    ]
    return meant if limit.transfer is None else [one for one in meant if one == limit.transfer]


def _verdicts(evidence: Evidence, limit: Limit, confident: bool) -> Iterator[Verdict]:
    gated, one = limit.gated, limit.gated.metric
    reason = evidence.unmeasured.get(one.key, "")
    if not gated.of_transfer_set:
        value, low = evidence.scalars.get(one.key), _lower_end(evidence, one.key)
        has_interval = one.key.endswith("accuracy_pct") or one.key in (ESTIMATED, FORECAST)
        verdict = _verdict(limit, one.label, value, low, confident and has_interval, reason)
        estimate = evidence.estimate if one.key == ESTIMATED else None
        yield _unless_doubtful(verdict, estimate.doubts if estimate else ())
        return
    sets = evidence.transfer
    if limit.transfer is not None and limit.transfer not in sets:
        known = did_you_mean(limit.transfer, sets) if sets else "it has none"
        raise ConfigError(f"{evidence.source} has no transfer set {limit.transfer!r}: {known}")
    is_retention = one.key == "retention_pct"
    meant = _sets_of(evidence, limit)
    if not meant:
        is_estimated = is_retention and ESTIMATED in evidence.scalars
        instead = "it was only estimated; limit that: --min-estimated-retention"
        yield _verdict(limit, one.label, None, None, confident, instead if is_estimated else reason)
    for name in meant:
        score = sets[name]
        value = score.retention_pct if is_retention else score.accuracy_pct
        interval = score.retention_interval_pct if is_retention else score.wilson_pct
        low = interval[0] if interval else None
        verdict = _verdict(limit, f"{one.label} on {name}", value, low, confident, reason)
        yield _unless_doubtful(verdict, score.doubts)


def _unless_doubtful(verdict: Verdict, doubts: Sequence[str]) -> Verdict:
    """The verdict; a number that may mean something else has not passed."""
    if not doubts or verdict.outcome == "failed":
        return verdict
    said = f"{verdict.title} is doubtful: {doubts[0]}"
    return replace(verdict, outcome="not measured", sentence=said)


def _verdict(
    limit: Limit, title: str, value: float | None, low: float | None, confident: bool, reason: str
) -> Verdict:
    gated, one = limit.gated, limit.gated.metric
    word = "at least" if gated.bound == "min" else "at most"
    unit = f" {one.unit}" if one.unit else ""
    asked = f"{word} {limit.value:g}{unit}"
    judged = low if confident else value
    outcome: Outcome
    if value is None:
        outcome, why = "not measured", f"the report has no {title}, so it cannot have passed"
        if reason:
            why = f"{title} was not measured: {reason}"
    elif judged is None:
        outcome = "not measured"
        why = f"the report does not say how many images {title} was counted on (--confident)"
    elif not one.is_possible(value):
        outcome = "failed"
        why = (
            f"{title} is {value:g}{unit}, which is not possible (it is {one.range_text}{unit}): "
            "the report is wrong, so it cannot have passed"
        )
    elif gated.keeps(judged, limit.value):
        outcome, why = "passed", ""
    else:
        outcome = "failed"
        is_told = one.text(judged) != one.text(limit.value)  # else rounding would hide it
        number = one.with_unit(judged) if is_told else f"{judged:.6g}{unit}"
        why = f"{title} is {number}{' (lower end)' if confident else ''}, not {asked}"
    return Verdict(title, asked, value, judged, one.unit, outcome, why)


def _lower_end(evidence: Evidence, scalar: str) -> float | None:
    """The lower end of a number's interval, in percent; None where it has none.

    Of an accuracy Wilson's at 95 %, where its images were counted; of an estimated or forecast
    retention its own at 90 %.
    """
    if scalar == FORECAST:
        return evidence.forecast.low_pct if evidence.forecast else None
    if scalar == ESTIMATED:
        return evidence.estimate.low_90_pct if evidence.estimate else None
    count, accuracy = evidence.num_images.get(scalar), evidence.scalars.get(scalar)
    if not count or accuracy is None:
        return None
    return wilson_interval_pct(round(accuracy * count / 100), count)[0]
