"""Run with a plug-in installed: what each surface of driftscope says of its metric, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

PLUG_IN = '''
from driftscope.metrics import Metric


def norm_ratio(pretrained, adapted):
    """Mean norm of the image embeddings, adapted over pretrained."""
    return float(adapted.embeddings.norm(dim=1).mean() / pretrained.embeddings.norm(dim=1).mean())


def failing(pretrained, adapted):
    raise ValueError("nothing to see")


def not_finite(pretrained, adapted):
    return float("nan")


NORM_RATIO = Metric(
    "norm_ratio", "norm ratio", "mean norm of the image embeddings, adapted over pretrained",
    better="higher", bounds=(0, None), unchanged=1, function=norm_ratio,
    exists=frozenset({"run", "epoch"}),
)
FAILING = Metric("failing_metric", "failing", "always fails", function="toy:failing")
NOT_FINITE = Metric("nan_metric", "not a number", "never a number", function=not_finite)
TAKEN = Metric("cka", "CKA", "another CKA", function=norm_ratio)
'''
ENTRIES = """[driftscope.metrics]
norm = toy:NORM_RATIO
failing = toy:FAILING
not_finite = toy:NOT_FINITE
taken = toy:TAKEN
gone = toy:NOT_THERE
"""


def install(folder: Path) -> None:
    """Puts the plug-in into a folder for `sys.path`, as an installer would."""
    (folder / "toy.py").write_text(PLUG_IN)
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)


def command(*arguments: object) -> dict[str, Any]:
    from typer.testing import CliRunner

    from driftscope.cli import app

    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return {"code": result.exit_code, "text": " ".join(result.stdout.split())}


def found(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the surfaces say of `norm_ratio` in a run, a comparison and a monitored model."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import driftscope as ds
        from driftscope.metrics import METRICS

        assert "norm_ratio" in METRICS
    import torch

    from driftscope.analysis.tables import HIGH_MEANS_RETAINED, SIGNALS
    from driftscope.config import parse_run_spec, run_id
    from driftscope.metrics import numbers_schema

    torch.set_num_threads(1)
    spec = parse_run_spec(values, "test")
    record = ds.run_one(spec, folder / "run")
    runs, history = ds.runs_table([record]), ds.history_table([record])
    compared = command("compare", values["model"], folder / "run", "--images", values["dataset"],
                       "--out", folder / "compared")  # fmt: skip
    limits = ds.Thresholds(limits={"min_norm_ratio": 100})
    monitor = ds.Monitor(values["model"], values["dataset"], out=folder / "monitored",
                         vocabulary=None, alerts=limits, echo=None)  # fmt: skip
    seen = monitor.observe(ds.load(folder / "run").module, step=1)
    monitor.close()
    return {
        "warnings": [str(one.message) for one in caught if "plug-in" in str(one.message)],
        "broken": sorted(METRICS.broken),
        "run_id": run_id(spec),
        "result": record.result.selected.drift.facts(),
        "runs": runs["norm_ratio"].tolist(),
        "history": history["norm_ratio"].tolist(),
        "empty": [name for name in ("failing_metric", "nan_metric") if name in runs],
        "signal": "norm_ratio" in SIGNALS and "norm_ratio" in HIGH_MEANS_RETAINED,
        "run_passes": command("gate", folder / "run", "--min-norm-ratio", "0"),
        "run_fails": command("gate", folder / "run", "--min-norm-ratio", "1000"),
        "failing_is_unmeasured": command("gate", folder / "run", "--max-failing-metric", "1",
                                         "--min-failing-metric", "-1"),
        "compared": compared,
        "report": json.loads((folder / "compared" / "report.json").read_text()),
        "page": (folder / "compared" / "report.html").read_text(),
        "observed": seen.scalars(),
        "alerts": [one.sentence for one in seen.alerts],
        "schema": numbers_schema(),
        "listed": command("metrics", "norm_ratio", "--json"),
    }  # fmt: skip


if __name__ == "__main__":
    values, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    (folder / "found.json").write_text(json.dumps(found(values, folder)))
