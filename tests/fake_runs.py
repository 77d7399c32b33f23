"""A run that imports no torch, for trying what happens around runs: it obeys orders.

An order is a file `orders/SEED-EPOCH` in the study folder, which says what befalls the run of
that seed once it has finished that epoch. A run that ends well leaves its result and nothing else,
so there is no moment between two files in which a kill or a move makes a test wrong.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from driftscope import records
from driftscope.config import RunSpec, parse_run_spec, run_id

RUN_ONE = "fake_runs:run_one"
EPOCHS = 3


def spec(seed: int, **values: object) -> RunSpec:
    return parse_run_spec(
        {"method": "full_ft", "learning_rate": 1e-3, "epochs": EPOCHS, "seed": seed, **values}
    )


def order(root: Path, seed: int, epoch: int, what: str) -> Path:
    """`kill` once, `kill always`, `fail`, `full`, or `hold` (until the order is taken back).

    Epoch 0 is before the first that a process does.
    """
    (root / "orders").mkdir(parents=True, exist_ok=True)
    path = root / "orders" / f"{seed}-{epoch}"
    path.write_text(what)
    return path


def fake_result(spec: RunSpec, **changes: object) -> dict[str, object]:
    """The least that a `result.json` can hold."""
    return {
        "schema": 1,
        "run_id": run_id(spec),
        "status": "done",
        "spec": spec.model_dump(mode="json"),
        "protocol": spec.protocol,
        "parameters": {"trainable": 1, "total": 2},
        "pretrained": {"reading": {"entropy": [[1.0]], "erf95": [[0.5]], "gini": [[0.5]]}},
        "selected": None,
        "last": None,
        "wall_seconds": {"total": 8.0, "training": 6.0},
        **changes,
    }


def finished(root: Path) -> list[str]:
    """The ids of the runs that were carried out to the end; none can be so twice (`_end`)."""
    return [path.parent.name for path in root.glob(f"runs/*/{records.RESULT_FILE}")]


def let_clocks_jump() -> None:
    """From now on this process's clock jumps forth and back by more than a year.

    A worker that does several runs is told so each time; jumps on jumps would cancel out.
    """
    if getattr(time.time, "jumps", False):
        return
    now, jumps = time.time, itertools.count()

    def jumping() -> float:
        return now() + (-1) ** next(jumps) * 86400 * 400

    jumping.jumps = True
    time.time = jumping


def run_one(
    spec: RunSpec,
    folder: Path,
    *,
    device: str | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    root = folder.parent.parent
    if (root / "orders" / "clock").exists():
        let_clocks_jump()
    with records.claimed(folder, spec):
        if records.is_done(folder):
            return
        try:
            _train(spec, folder, root, device, on_step)
        except Exception as error:
            records.write_failure(folder, error)
            raise


def _train(
    spec: RunSpec,
    folder: Path,
    root: Path,
    device: str | None,
    on_step: Callable[[int, int], None],
) -> None:
    _obey(root / "orders" / f"{spec.seed}-0")
    first = len(records.read_events(folder)) + 1
    for epoch in range(first, spec.epochs + 1):
        records.append_event(folder, {"kind": "epoch", "epoch": epoch, "pid": os.getpid()})
        on_step(epoch, spec.epochs)
        _obey(root / "orders" / f"{spec.seed}-{epoch}")
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {"schema": 1, "run_id": run_id(spec), "device": device, "threads": threads}
    result["clock"] = time.time()
    _end(folder, result)


def _end(folder: Path, result: dict[str, object]) -> None:
    """Ends the run in one step; a run that has a result already fails."""
    whole = folder / f".{records.RESULT_FILE}.{os.getpid()}"
    records.write_json(whole, result)
    os.link(whole, folder / records.RESULT_FILE)
    whole.unlink()


def _obey(path: Path) -> None:
    if not path.exists():
        return
    what = path.read_text()
    if what == "kill":
        path.unlink()
    if what.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise ValueError("as ordered")
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    while path.exists():  # hold
        time.sleep(0.01)
