"""What each surface of driftscope says of a metric, a signal and a method that were added to it.

It is run with a plug-in installed, over a copy of the source changed as docs/extend.md says.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from documented import ROOT, blocks_of

import driftscope

EXTEND = ROOT / "docs" / "extend.md"
PLUG_IN = '''
from driftscope.metric import Metric


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


SIGNAL = '''

def peak(rows):
    """The largest weight of each row, dimensionless, in [1/N, 1]."""
    return rows.amax(dim=-1)
'''
ITS_METRIC = """
    Metric(
        "peak", "peak", "largest share of the attention on one patch",
        "attention", bounds=(0, 1), exists=_EVERYWHERE,
        function=f"{_ATTENTION}:peak", reads="rows",
    ),
"""
VARIANT = '''class LastNorm(_Method):
    """The layer norm after the last block, and the classifier."""

    kind: Literal["last_norm"] = "last_norm"


'''
ITS_FUNCTION = """

def _last_norm(model, _method):
    final_norm = f"{model.backbone.final_norm_name}."
    return _training(model, lambda name: name.startswith(final_norm))


METHODS["last_norm"] = _last_norm
"""


def extended_copy(folder: Path) -> Path:
    """The source with a signal and a method more: two files for the one, two for the other."""
    here = Path(driftscope.__file__).parent
    copy = folder / "driftscope"
    shutil.copytree(here, copy, ignore=shutil.ignore_patterns("__pycache__", "mini*"))
    for name in ("mini", "mini_p14"):
        (copy / "sources" / name).symlink_to(here / "sources" / name)
    _edit(copy / "signals" / "attention.py", "", SIGNAL)
    _edit(copy / "metrics.py", "_LEVELS = (", ITS_METRIC)
    _edit(copy / "config" / "variants.py", "class BitFit", VARIANT, is_before=True)
    _edit(copy / "config" / "variants.py", "    FullFineTuning\n", "    | LastNorm\n")
    _edit(copy / "adapt" / "methods.py", "", ITS_FUNCTION)
    return folder


def _edit(file: Path, place: str, text: str, *, is_before: bool = False) -> None:
    """Puts a text behind the only place of its kind (or before it); without one, at the end."""
    start, found, end = file.read_text().rpartition(place) if place else (file.read_text(), "", "")
    if place:
        assert place not in start
    file.write_text(f"{start}{text}{found}{end}" if is_before else f"{start}{found}{text}{end}")


def documented_signal() -> str:
    """The module that docs/extend.md has a reader write: its imports, functions and metric."""
    blocks = [block.text for block in blocks_of(EXTEND) if block.language == "python"]
    (place,) = [at for at, text in enumerate(blocks) if "EFFECTIVE_RANK =" in text]
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    return "\n".join(
        ast.unparse(one)
        for one in ast.parse("\n".join(blocks[place - 1 : place + 1])).body
        if isinstance(one, kinds)
        or (isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "EFFECTIVE_RANK")
    )


def documented_entry() -> str:
    """Its line of the entry points, without TOML's quotes."""
    (line,) = re.findall(r"^effective_rank = .*$", EXTEND.read_text(), re.MULTILINE)
    return str(line).replace('"', "")


def documented_gate(folder: Path) -> list[str]:
    """The page's command that judges by it, of this folder."""
    (line,) = re.findall(r"`driftscope (gate DIR [^`]*)`", EXTEND.read_text())
    return [str(folder) if word == "DIR" else word for word in line.split()]


def install(folder: Path) -> None:
    """Puts the plug-in into a folder for `sys.path`, as an installer would."""
    (folder / "toy.py").write_text(PLUG_IN)
    (folder / "my_package").mkdir()
    (folder / "my_package" / "signals.py").write_text(documented_signal())
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"{ENTRIES}{documented_entry()}\n")


def command(*arguments: object) -> dict[str, Any]:
    from typer.testing import CliRunner

    from driftscope.cli import app

    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return {"code": result.exit_code, "text": " ".join(result.stdout.split())}


def page_of(path: Path) -> dict[str, list[str]]:
    """The headings of a page's tables, and what its figures show in words."""
    text = path.read_text()
    return {
        "columns": re.findall(r"<th[^>]*><button[^>]*>([^<]*)", text),
        "figures": re.findall(r'role="img" aria-label="([^"]*)"', text),
        "facts": re.findall(r"<dt>([^<]*)", text),
    }


def printed(view: Any) -> str:
    """What a wide terminal shows."""
    from rich.console import Console

    console = Console(width=400, file=io.StringIO(), highlight=False)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def study_surfaces(record: Any, folder: Path) -> dict[str, Any]:
    """What a study of this run shows."""
    import pandas as pd
    from rich.console import Console

    from driftscope.analysis import StudyTables
    from driftscope.analysis.answer_tables import answer_tables
    from driftscope.analysis.layers import layer_profile
    from driftscope.analysis.seed_contrasts import METRICS as CONTRASTED
    from driftscope.analysis.stability import stability
    from driftscope.cli import terminal
    from driftscope.cli.watch import training_view
    from driftscope.records import all_tables
    from driftscope.records.live import TrainingFollower
    from driftscope.report.html import write_study_report

    tables = all_tables([record])
    study = StudyTables(tables.runs, tables.history, tables.layers, tables.subsets, tables.heads,
                        tables.classes)  # fmt: skip
    page = write_study_report(study, [record], folder / "study.html", title="", command="")
    terminal_out, terminal.out = terminal.out, Console(width=400, file=io.StringIO())
    terminal.show_cells([record])
    shown, terminal.out = terminal.out.file, terminal_out
    both = pd.concat([tables.runs, tables.runs.assign(run_id="second", seed=8)])
    asked = answer_tables(stability(StudyTables(both, tables.history, tables.layers)))
    (data,) = re.findall(r'class="run-data"[^>]*>(.*?)</script>', page.read_text())
    profile = layer_profile(study).details["profile"]
    return {
        "contrasted": list(CONTRASTED),
        "profile": list(profile.columns),
        "page": page_of(page),
        "run_page": json.loads(data),
        "terminal": shown.getvalue(),
        "watched": printed(training_view(TrainingFollower(record.folder).status())),
        "tables": {name: list(getattr(tables, name).columns) for name in vars(tables)},
        "asked": sorted({row["signal"] for table in asked for row in table.rows}),
    }


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
    lines: list[str] = []
    monitor = ds.Monitor(values["model"], values["dataset"], out=folder / "monitored",
                         vocabulary=None, alerts=limits, echo=lines.append,
                         selection=ds.Selection(by="norm_ratio"))  # fmt: skip
    module = ds.load(folder / "run").module
    seen = monitor.observe(module, step=1, val_accuracy_pct=50.0)
    monitor.close()
    from driftscope.cli.metrics import markdown_page
    from driftscope.gate.limits import GATED
    from driftscope.integrations.hf_trainer import LOG_PREFIX

    compared_page = folder / "compared" / "report.html"
    return {
        "study": study_surfaces(record, folder),
        "compare_page": page_of(compared_page),
        "monitor_page": page_of(monitor.report()),
        "reading": sorted(record.result.selected.reading.facts()),
        "changes": record.result.selected.drift.facts(),
        "method": record.spec.method.label,
        "trained": record.result.parameters.trainable,
        "gate_options": [one.option for one in GATED],
        "log_keys": sorted(LOG_PREFIX + name for name in seen.scalars(per_layer=True)),
        "documented": markdown_page(),
        "warnings": [str(one.message) for one in caught if "plug-in" in str(one.message)],
        "broken": sorted(METRICS.broken),
        "run_id": run_id(parse_run_spec({**values, "method": "full_ft"}, "test")),
        "result": record.result.selected.drift.facts(),
        "runs": runs["norm_ratio"].tolist(),
        "history": history["norm_ratio"].tolist(),
        "empty": [name for name in ("failing_metric", "nan_metric") if name in runs],
        "signal": "norm_ratio" in SIGNALS and "norm_ratio" in HIGH_MEANS_RETAINED,
        "run_passes": command("gate", folder / "run", "--min-norm-ratio", "0"),
        "run_fails": command("gate", folder / "run", "--min-norm-ratio", "1000"),
        "failing_is_unmeasured": command("gate", folder / "run", "--max-failing-metric", "1",
                                         "--min-failing-metric", "-1"),
        "documented_gate": command(*documented_gate(folder / "run")),
        "compared": compared,
        "report": json.loads((folder / "compared" / "report.json").read_text()),
        "page": compared_page.read_text(),
        "observed": seen.scalars(),
        "line": " ".join(lines),
        "best_step": None if monitor.best is None else monitor.best.step,
        "alerts": [one.sentence for one in seen.alerts],
        "schema": numbers_schema(),
        "listed": command("metrics", "norm_ratio", "--json"),
    }  # fmt: skip


if __name__ == "__main__":
    values, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    (folder / "found.json").write_text(json.dumps(found(values, folder)))
