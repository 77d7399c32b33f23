"""A few images, a classifier around a tiny CLIP and a monitor over it, for the trainers' tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monitored import Classifier, monitor_of
from random_models import random_pixels
from torch import Tensor, nn

import driftscope
from driftscope.config import BudgetSpec
from driftscope.monitor import Monitor

NUM_TRAIN, NUM_PROBE = 24, 12
BATCH = 4
STEPS_PER_EPOCH = NUM_TRAIN // BATCH


class LossClassifier(Classifier):
    """In the form that trainers ask for."""

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        logits = super().forward(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def classifier(clip_folder: Path | str) -> LossClassifier:
    """The same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = driftscope.load(clip_folder)
        return LossClassifier(model.module, model.embedding_dim)


def samples(size: int = 32, count: int = NUM_TRAIN) -> list[dict[str, Tensor]]:
    """Images of smooth colour fields with arbitrary labels, normalised."""
    pixels = (random_pixels(count, size=size).float() / 255 - 0.5) / 0.25
    return [{"pixel_values": pixels[i], "labels": torch.tensor(i % 3)} for i in range(count)]


def make_monitor(clip_folder: Path | str, size: int = 32, **settings: Any) -> Monitor:
    """A monitor on images that are not trained on, which says nothing."""
    return monitor_of(clip_folder, random_pixels(NUM_PROBE, size=size, seed=2), **settings)  # type: ignore[arg-type]


def seen_at(monitor: Monitor) -> list[int]:
    return [seen.step for seen in monitor.history]


def trained_in_two_processes(trainer: str, clip_folder: Path, out: Path) -> list[dict[str, Any]]:
    """What both processes of a distributed training saw, the main one's first."""
    script = str(Path(__file__).with_name("train_in_two_processes.py"))
    done = subprocess.run(
        [sys.executable, script, trainer, str(clip_folder), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    headers = [
        line
        for line in (out / "monitored" / "events.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "monitor"
    ]
    assert len(headers) == 1, "more than one process wrote"
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


class CountedBudget:
    """Stands for a `Budget` and notes at which steps it is looked after; `now` tells the step."""

    def __init__(self, every: int | str) -> None:
        self.spec = BudgetSpec.model_validate({"retention_pct": 90, "every": every})
        self.now: Callable[[], int] = lambda: 0
        self.looked_at: list[int] = []

    def step(self, step: int) -> None:
        assert step == self.now()
        assert isinstance(self.spec.every, int)
        if step % self.spec.every == 0:
            self.keep()

    def keep(self) -> None:
        self.looked_at.append(self.now())
