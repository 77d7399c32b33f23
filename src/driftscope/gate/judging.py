"""The numbers of a report, and the verdict of each limit on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from driftscope.errors import ConfigError, RecordError, did_you_mean
from driftscope.gate.limits import GATED, Limit
from driftscope.records import (
    REPORT_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    STUDY_FILE,
    load_run,
    read_json,
    retention_interval_pct,
    structure_point,
)
from driftscope.stats.proportions import wilson_interval_pct

Outcome = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True)
class Evidence:
    """The numbers of one report.

    Attributes:
        source: the file.
        what: what the numbers are of, in words.
        scalars: number by name; what was not measured is absent.
        transfer: by transfer set, its score with `accuracy_pct` and `retention_pct`, and, where
            they were counted, `num_correct`, `num_images` and `flows`.
        num_images: how many images an accuracy of `scalars` was counted on, where it is known.
    """

    source: Path
    what: str
    scalars: Mapping[str, float]
    transfer: Mapping[str, Mapping[str, Any]]
    num_images: Mapping[str, int] = field(default_factory=dict)


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
    try:
        return _of_run(file) if file.name == RESULT_FILE else _of_report(file, best)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(f"{file} is damaged: it is not of the shape it was written in") from error


def _of_report(file: Path, best: bool) -> Evidence:
    report = read_json(file)
    if not isinstance(report.get("scalars"), dict):
        raise RecordError(
            f"{file} is no report that can be judged: it has no scalars; give what `driftscope "
            "compare`, a monitor or a run has written"
        )
    if report.get("kind") == "monitor":
        return _of_monitor(file, report, best)
    if best:
        raise RecordError(f"{file} is a comparison's; only a monitored training has a best step")
    what = f"{report.get('adapted')} against {report.get('pretrained')}"
    return Evidence(file, what, _finite(report["scalars"]), _scores(report.get("transfer")))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (RESULT_FILE, REPORT_FILE):
        if (path / name).exists():
            return path / name
    if (path / STUDY_FILE).exists():
        raise RecordError(f"{path} is a study; give one of its runs: {path / RUNS_FOLDER}/ID")
    raise RecordError(f"{path} holds neither {REPORT_FILE} nor {RESULT_FILE}; give a report's file")


def _of_run(file: Path) -> Evidence:
    record = load_run(file.parent)
    selected = record.result["selected"] or {}  # none where the first epoch diverged
    scalars = {**structure_point(record).get("drift", {}), **selected}
    diverged = ", which diverged" if record.result["status"] == "diverged" else ""
    spec = record.spec
    return Evidence(
        file,
        f"{spec.method.label} on {spec.dataset}, epoch {selected.get('epoch', 0)}{diverged}",
        _finite(scalars),
        _scores(selected.get("transfer")),
        {
            "test_accuracy_pct": selected.get("test_num_images", 0),
            # an imported run's splits are not told
            "val_accuracy_pct": record.result.get("splits", {}).get("num_images", {}).get("val", 0),
        },
    )


def _of_monitor(file: Path, report: Mapping[str, Any], best: bool) -> Evidence:
    which = "best" if best else "latest"
    point, history = report.get(which), report.get("history") or []
    if best and point is None:
        raise RecordError(
            f"{file} names no best step: a monitor knows it when it is told validation accuracies"
        )
    if not isinstance(point, dict) or not isinstance(point.get("scalars"), dict):
        raise RecordError(f"{file} is damaged: its {which!r} holds no scalars")
    if not best and history and history[-1].get("step") != point.get("step"):
        # the report speaks of the last one that could be read, which the model has since left
        step = history[-1].get("step")
        return Evidence(
            file, f"latest observation of a training, step {step}: it could not be read", {}, {}
        )
    seen = [one for one in history if one.get("step") == point.get("step")]
    return Evidence(
        file,
        f"{which} observation of a training, step {point.get('step')}",
        _finite(point["scalars"]),
        _scores(seen[-1].get("transfer") if seen else None),
    )


def _scores(transfer: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Of every transfer set the numbers that are there and finite, and `flows`."""
    return {
        name: {**_finite(score), "flows": _finite(score.get("flows") or {})}
        for name, score in (transfer or {}).items()
    }


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


# ---------------------------------------------------------------- the verdicts


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


def _verdicts(evidence: Evidence, limit: Limit, confident: bool) -> Iterator[Verdict]:
    gated, one = limit.gated, limit.gated.metric
    if not gated.of_transfer_set:
        is_counted = one.key.endswith("accuracy_pct")
        value, low = evidence.scalars.get(one.key), _accuracy_low(evidence, one.key)
        yield _verdict(limit, one.label, value, low, confident and is_counted)
        return
    sets = evidence.transfer
    if limit.transfer is not None and limit.transfer not in sets:
        known = did_you_mean(limit.transfer, sets) if sets else "it has none"
        raise ConfigError(f"{evidence.source} has no transfer set {limit.transfer!r}: {known}")
    if not sets:
        yield _verdict(limit, one.label, None, None, confident)
    for name in [limit.transfer] if limit.transfer is not None else sets:
        score = sets[name]
        is_retention = one.key == "retention_pct"
        value = score.get("retention_pct" if is_retention else "accuracy_pct")
        interval = retention_interval_pct(score) if is_retention else None
        low = (interval[0] if interval else None) if is_retention else score.get("wilson_low_pct")
        yield _verdict(limit, f"{one.label} on {name}", value, low, confident)


def _verdict(
    limit: Limit, title: str, value: float | None, low: float | None, confident: bool
) -> Verdict:
    gated, one = limit.gated, limit.gated.metric
    word = "at least" if gated.bound == "min" else "at most"
    unit = f" {one.unit}" if one.unit else ""
    asked = f"{word} {limit.value:g}{unit}"
    judged = low if confident else value
    outcome: Outcome
    if value is None:
        outcome, why = "not measured", f"the report has no {title}, so it cannot have passed"
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


def _accuracy_low(evidence: Evidence, scalar: str) -> float | None:
    """The lower end of an accuracy's interval, in percent; None where images were not counted."""
    count, accuracy = evidence.num_images.get(scalar), evidence.scalars.get(scalar)
    if not count or accuracy is None:
        return None
    return wilson_interval_pct(round(accuracy * count / 100), count)[0]
