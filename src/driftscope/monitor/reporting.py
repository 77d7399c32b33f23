"""`report.json`: what a gate reads, and what the page is drawn from.

Fields of the object:

- `schema`: 1. `kind`: `monitor` (`driftscope compare --json` writes `comparison`).
- `scalars`: the numbers of the latest observation that could be read, flat, by the names that
  records use: `retention_pct` and `zero_shot_pct` (of the first transfer set; those of others end
  in `_NAME`), `val_accuracy_pct`, `embedding_drift`, `cka`, `cka_debiased`, `weight_drift`,
  `delta_entropy_pct`, `delta_late_entropy_pct`, `text_kl_nats`, `text_top1_agreement_pct`, …
  What was not measured is absent.
- `unmeasured`: why one of them is missing, by its name.
- `latest` and `best`: `{step, epoch, scalars}`; `best` is null without validation accuracies.
- `suites`: means over the sets of each suite at the latest observation, as in a comparison's.
- `history`: the `observation` lines of `events.jsonl`.
- `advice`: what to do: `{outcome, verdict, steps}`.
- `alerts`: `[{kind, sentence, step}]`; `stopped`: null, or why training was to end.
- `monitor`: what was watched and against what: `pretrained`, `pretrained_fingerprint`,
  `probe_images`, `num_images`, `images_fingerprint`, `transfer`, `vocabulary`, `thresholds`,
  `selection`, `alerts` (those of before training).
- `cost_seconds`: what all observations of `history` took. `cost_share_pct`: the share of those of
  the last process in its wall time; null where it made none. `units` by name; `driftscope`, the
  version.

A comparison's JSON has the same `kind`, `scalars` and `units`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from driftscope.analysis.advice import advice_on_look
from driftscope.errors import RecordError, one_line
from driftscope.metrics import units
from driftscope.monitor.alerts import Alert
from driftscope.monitor.observation import Observation
from driftscope.records import REPORT_FILE, Overlay, write_sealed
from driftscope.report.monitoring import write_monitor_page
from driftscope.transfer.suites import FoundSuite, summaries

REPORT_SCHEMA = 1
MONITOR_KIND = "monitor"


def report_of(
    history: Sequence[Observation],
    *,
    header: Mapping[str, Any],
    best: Observation | None,
    alerts: Sequence[Alert],
    stop_reason: str | None,
    cost_share_pct: float | None,
    suites: Mapping[str, FoundSuite] | None = None,
) -> dict[str, Any]:
    """The object of `report.json`.

    Raises:
        RecordError: nothing has been observed that could be read.
    """
    readable = [one for one in history if one.drift is not None]
    if history and not readable:
        told = "; ".join(alert.sentence for alert in history[-1].alerts) or "its alerts were off"
        raise RecordError(
            f"there is nothing to report: the model could not be read at any of the {len(history)} "
            f"observations ({told})"
        )
    if not readable:
        raise RecordError(
            "there is nothing to report: the monitor has not read the model yet; call step() or "
            "observe() first"
        )
    latest = readable[-1].to_event()
    return {
        "schema": REPORT_SCHEMA,
        "kind": MONITOR_KIND,
        "driftscope": version("driftscope"),
        "scalars": readable[-1].scalars(),
        "unmeasured": readable[-1].drift.unmeasured if readable[-1].drift else {},
        "latest": _point(readable[-1]),
        "best": _point(best) if best else None,
        "suites": summaries(suites or {}, readable[-1].transfer),
        "alerts": [asdict(alert) for alert in alerts],
        "advice": advice_on_look(latest, header).to_dict(),
        "stopped": stop_reason,
        "cost_seconds": sum(one.seconds for one in history),
        "cost_share_pct": cost_share_pct,
        "monitor": dict(header),
        "history": [one.to_event() for one in history],
        "units": units(),
    }


def write_report(report: Mapping[str, Any], overlays: Mapping[str, Overlay], folder: Path) -> Path:
    """Writes `report.json` and the page, and returns the page's path.

    Raises:
        RecordError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / REPORT_FILE, report)
        return write_monitor_page(report, overlays, folder)
    except OSError as error:
        raise RecordError(
            f"the report cannot be written to {folder} ({one_line(error)}); give another folder"
        ) from None


def _point(one: Observation) -> dict[str, Any]:
    return {"step": one.step, "epoch": one.epoch, "scalars": one.scalars()}
