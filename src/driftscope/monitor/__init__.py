"""The monitor: what a training of one's own does to the model, seen while it runs.

    monitor = driftscope.Monitor("openai/clip-vit-base-patch32", "probe-images", out="monitored")
    for epoch in range(1, epochs + 1):
        train_one_epoch(model)
        monitor.step(model, step=step, epoch=epoch, val_accuracy_pct=validate(model))
        if monitor.should_stop:
            break
    monitor.close()
    monitor.report()

Files in `out`:

- `events.jsonl`, a line at a time as it happens, so that it can be followed and survives a crash
  (a torn last line is tolerated). Every line has a `kind`. `monitor` is the first: what is watched
  and against what. `observation`: `step`, `epoch`, `seconds` (what it cost), every number under
  the name that records use (`val_accuracy_pct`, `retention_pct`, `cka`, …), per-layer lists
  (`cka_per_block`, …), `transfer` (scores by set) and `alerts`. `stop`: `step` and `reason`.
  `end`: `step`, when `Monitor.close` is called.
- `report.json` and `report.html`, when `Monitor.report` is called (see `monitor.reporting`).
- `stopped/`: the model at a stop, for `driftscope.load` and `driftscope compare`.
- `candidates/step-N/`: with `keep_best=True`, the models that are, or can still become, the best.
"""

from __future__ import annotations

from driftscope.monitor.alerts import Alert, Thresholds
from driftscope.monitor.core import Monitor
from driftscope.monitor.observation import Observation
from driftscope.monitor.selection import Selection

__all__ = ["Alert", "Monitor", "Observation", "Selection", "Thresholds"]
