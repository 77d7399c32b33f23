"""The two processes of a distributed training; each leaves what it saw in `rank-N.json`.

They are forked once all is imported, which takes longer than the training, and find in their
environment what a launcher such as torchrun tells its processes.

python train_in_two_processes.py hf_trainer|lightning CLIP_FOLDER OUT
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from small_training import classifier, make_monitor, samples

from driftscope.monitor import Monitor, Selection

# Within a point of the best the first epoch's model stays the best; two more, and patience ends.
ACCURACIES = [0.80, 0.805, 0.803, 0.804, 0.805]


def launched(num_processes: int, work: Callable[[], None]) -> list[int | None]:
    """The exit codes of so many processes of one group, which do the work together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
    processes = []
    for rank in range(num_processes):
        told = {"RANK": rank, "LOCAL_RANK": rank, **sizes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()})
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        processes.append(multiprocessing.get_context("fork").Process(target=work))
        processes[-1].start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def main(trainer: str, clip_folder: str, out: Path) -> None:
    monitor = make_monitor(
        clip_folder, out=out / "monitored", selection=Selection(patience=2), echo=print
    )
    run = {"hf_trainer": with_hf_trainer, "lightning": with_lightning}[trainer]
    seen = run(monitor, clip_folder, out)
    seen["observed"] = [one.step for one in monitor.history]
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(seen))


def with_hf_trainer(monitor: Monitor, clip_folder: str, out: Path) -> dict[str, Any]:
    from hf_training import make_trainer, scripted_accuracies, watch

    from driftscope.integrations.hf_trainer import CHOICE

    torch.manual_seed(0)
    trainer = make_trainer(
        classifier(clip_folder),
        out / "trained",
        num_train_epochs=len(ACCURACIES),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=CHOICE,
        ddp_find_unused_parameters=True,  # the text tower gives no gradient
    )
    scripted_accuracies(trainer, *ACCURACIES)
    watch(trainer, monitor).train()
    return {
        "processes": trainer.args.world_size,
        "steps": trainer.state.global_step,
        "best": trainer.state.best_global_step,
        "weight_sum": float(trainer.model.head.weight.double().sum()),
    }


def with_lightning(monitor: Monitor, clip_folder: str, out: Path) -> dict[str, Any]:
    from lightning_training import Module, fit, make_trainer

    from driftscope.integrations.lightning import MonitorCallback

    trainer = make_trainer(
        out / "trained",
        MonitorCallback(monitor, accuracy_metric="val_accuracy"),
        max_epochs=len(ACCURACIES),
        strategy="ddp_find_unused_parameters_true",
        devices=2,
    )
    fit(trainer, Module(Path(clip_folder), *ACCURACIES))
    return {
        "processes": trainer.world_size,
        "steps": trainer.global_step,
        "drift": float(trainer.callback_metrics["driftscope/embedding_drift"]),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert len(samples()) % 2 == 0
    trainer, clip_folder, out = sys.argv[1:]
    import_module({"hf_trainer": "hf_training", "lightning": "lightning_training"}[trainer])
    classifier(clip_folder)  # what is imported with the first model
    codes = launched(2, lambda: main(trainer, clip_folder, Path(out)))
    sys.exit(any(codes))
