"""`report.json`: what a gate reads, and what the page is drawn from.

Fields of the object:

- `schema`: 1. `kind`: `monitor` (`driftscope compare --json` writes `comparison`).
- `scalars`: the numbers of the latest observation that could be read, flat, by the names that
  records use: `retention_pct` and `zero_shot_pct` (of the first transfer set; those of others end
  in `_NAME`), `val_accuracy_pct`, `embedding_drift`, `cka`, `cka_debiased`, `weight_drift`,
  `delta_entropy_pct`, `late_delta_entropy_pct`, `text_kl_nats`, `text_top1_agreement_pct`, …
  What was not measured is absent.
- `latest` and `best`: `{step, epoch, scalars}`; `best` is null without validation accuracies.
- `history`: the `observation` lines of `events.jsonl`.
- `alerts`: `[{kind, sentence, step}]`; `stopped`: null, or why training was to end.
- `monitor`: what was watched and against what: `pretrained`, `pretrained_fingerprint`,
  `probe_images`, `num_images`, `images_fingerprint`, `transfer`, `vocabulary`, `thresholds`,
  `selection`.
- `cost_seconds`, `cost_share_pct`; `units` by name; `driftscope`, the version.

A comparison's JSON has the same `kind`, `scalars` and `units`.
"""

from __future__ import annotations

REPORT_SCHEMA = 1
MONITOR_KIND = "monitor"
REPORT_FILE = "report.json"
