"""How long 10,000 runs take to plan, to look over and to read, on records made up for it.

    python benchmarks/studies.py [--runs 10000] [--layers 6] [--heads 4]

The made-up records have the shape and size of real ones; their numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from driftscope.config import RunSpec, StudySpec, run_id
from driftscope.reading_subsets import SUBSET_SIGNALS
from driftscope.records import DRIFT_SCALARS, EVENTS_FILE, RESULT_FILE, SPEC_FILE
from driftscope.records.json_files import digest_of, sealed
from driftscope.study import StudyFolder, cells, expand
from driftscope.study.plan import earlier_samples, estimate

T = TypeVar("T")
EPOCHS, CLASSES, SUBSETS = 6, 100, 7


def timed(what: str, work: Callable[[], T]) -> T:
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"{what:35s} {wall:7.2f} s, of the CPU {cpu:7.2f} s", flush=True)
    return result


def study_of(num_runs: int) -> StudySpec:
    return StudySpec(
        name="many",
        axes={
            "dataset": ("terrain", "stars"),
            "method": ("full_ft", "lora", "last_block", "linear_probe", "bitfit"),
            "learning_rate": tuple(1e-4 * 1.1**step for step in range(10)),
            "weight_decay": (0.0, 0.01, 0.1, 0.2, 0.3),
            "seed": tuple(range(max(1, num_runs // 500))),
        },
    )


def heads(rng: random.Random, layers: int, count: int) -> list[list[float]]:
    return [[rng.random() for _ in range(count)] for _ in range(layers)]


def reading(rng: random.Random, layers: int, count: int) -> dict[str, Any]:
    return {
        "num_images": 200,
        "num_patches": 49,
        "images_fingerprint": f"{rng.getrandbits(128):032x}",
        **{name: heads(rng, layers, count) for name in ("entropy", "erf95", "gini")},
        "head_diversity": [rng.random() for _ in range(layers)],
    }


def drift(rng: random.Random, layers: int) -> dict[str, Any]:
    lists = [f"delta_{name}_pct_per_layer" for name in ("entropy", "erf95", "gini")]
    lists += ["cka_per_block", "cka_debiased_per_block", "weight_drift_per_layer"]
    return {name: rng.random() for name in DRIFT_SCALARS} | {
        name: [rng.random() for _ in range(layers)] for name in lists
    }


def score(rng: random.Random) -> dict[str, Any]:
    accuracy = 100 * rng.random()
    classes = [
        {"class": f"red class {at}", "num_images": 10, "pretrained_pct": 100 * rng.random(),
         "adapted_pct": 100 * rng.random(), "retention_pct": 100 * rng.random()}
        for at in range(CLASSES)
    ]  # fmt: skip
    return {"name": "concepts100", "accuracy_pct": accuracy, "num_images": 1000,
            "retention_pct": accuracy, "per_class": classes}  # fmt: skip


def subset(rng: random.Random) -> dict[str, float]:
    signals = {name: rng.random() for name in SUBSET_SIGNALS}
    return {"num_images": 40, "entropy": rng.random(), **signals}


def drawn_record(rng: random.Random, layers: int, count: int) -> tuple[str, str]:
    """A made-up result, without whose it is, and the lines of its events."""

    def point(epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "step": 25 * epoch,
            "val_accuracy_pct": 90.0,
            "test_accuracy_pct": 90.0,
            "test_num_images": 1000,
            "reading": reading(rng, layers, count),
            "drift": drift(rng, layers),
            "subsets": [subset(rng) for _ in range(SUBSETS)],
            "transfer": {"concepts100": score(rng)},
        }

    result = {
        "schema": 1,
        "status": "done",
        "parameters": {"trainable": 1000, "total": 2000},
        "pretrained": {
            "reading": reading(rng, layers, count),
            "transfer": {"concepts100": score(rng)},
        },
        "selected": point(4),
        "last": point(6),
        "environment": {"splits": {"indices": [rng.randrange(2000) for _ in range(200)]}},
        "wall_seconds": {"total": 50.0, "training": 40.0},
    }
    events = [
        {"kind": "epoch", "epoch": epoch, "step": 25 * epoch, "train_loss": 1.0,
         "train_accuracy_pct": 80.0, "val_accuracy_pct": 80.0, **drift(rng, layers)}
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    return json.dumps(result, indent=1), "".join(json.dumps(e) + "\n" for e in events)


def write_runs(folder: StudyFolder, specs: list[RunSpec], layers: int, count: int) -> None:
    """Deals 300 drawn records to the runs; each is written as a run of this version writes it."""
    rng = random.Random(0)
    drawn = [drawn_record(rng, layers, count) for _ in range(min(300, len(specs)))]
    for spec in specs:
        result, events = rng.choice(drawn)
        place = folder.run(spec)
        place.mkdir(parents=True)
        values = spec.model_dump(mode="json")
        text_of_spec = json.dumps(values, indent=1)
        (place / SPEC_FILE).write_text(text_of_spec)
        (place / EVENTS_FILE).write_text(events)
        beside = {SPEC_FILE: text_of_spec, EVENTS_FILE: events}
        whose = {
            "run_id": run_id(spec),
            "spec": values,
            "protocol": spec.protocol,
            "files": {name: digest_of(text.encode()) for name, text in beside.items()},
        }
        text = f"{result[:-2]},{json.dumps(whose, indent=1)[1:]}"
        (place / RESULT_FILE).write_bytes(sealed(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    options = parser.parse_args()
    study = study_of(options.runs)
    with tempfile.TemporaryDirectory() as place:
        folder = StudyFolder(Path(place))
        specs = timed("expand", lambda: expand(study))
        timed("group into cells", lambda: cells(specs))
        folder.declare(study)
        write_runs(folder, specs, options.layers, options.heads)
        size = sum(path.stat().st_size for path in folder.root.rglob("*.json*"))
        print(f"{len(specs)} made-up runs, {size / len(specs) / 1000:.0f} kB each")
        runs = [run_id(spec) for spec in specs]
        timed("what exists (plan --out, status)", lambda: folder.states(runs))
        timed("what is left to run", lambda: folder.todo(specs, retry_failed=False))
        samples = timed("what runs took", lambda: earlier_samples(folder, specs))
        timed("what the rest will take", lambda: estimate(specs, samples))

        from driftscope.opened_study import Study

        read = Study(folder.root)
        timed("load all tables", read.runs)
        for name in ("runs", "history", "layers", "classes"):
            table = timed(f"table of {name}, again", getattr(read, name))
            print(f"  {len(table)} rows x {len(table.columns)} columns")


if __name__ == "__main__":
    main()
