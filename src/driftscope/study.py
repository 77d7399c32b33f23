"""Studies: a declared matrix of runs, what of it is missing, and where each run lives."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from driftscope.config import RunSpec, StudySpec, parse_run_spec, run_id
from driftscope.records import is_done

RUNS_FOLDER = "runs"

DEMO = StudySpec(
    name="demo",
    title="Full fine-tuning against LoRA at matched learning rates, on the mini model",
    base={
        "dataset": "terrain",
        "epochs": 5,
        "train_images": 800,
        "val_images": 200,
        "probe_images": 200,
        "test_images": 500,
        "transfer_images": 500,
    },
    axes={
        "method": ("full_ft", "lora"),
        "learning_rate": (1e-4, 5e-4, 2e-3),
        "seed": (7, 11),
    },
)
FAST_DEMO = DEMO.model_copy(
    update={
        "base": {**DEMO.base, "epochs": 3, "train_images": 500},
        "axes": {**DEMO.axes, "learning_rate": (3e-4, 2e-3), "seed": (7,)},
    }
)


def expand(study: StudySpec) -> list[RunSpec]:
    """Every run of a study: the axes crossed, the last one fastest.

    Raises:
        ConfigError: a key or value that no run can have.
    """
    names = list(study.axes)
    return [
        parse_run_spec({**study.base, **dict(zip(names, values, strict=True))}, study.name)
        for values in product(*study.axes.values())
    ]


def run_folder(root: Path, spec: RunSpec) -> Path:
    """Where a study keeps a run."""
    return root / RUNS_FOLDER / run_id(spec)


def missing(specs: list[RunSpec], root: Path) -> list[RunSpec]:
    """The runs that have no result yet."""
    return [spec for spec in specs if not is_done(run_folder(root, spec))]
