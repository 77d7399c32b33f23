"""What the monitor costs at one observation an epoch, and what fewer probe images cost in noise.

    python benchmarks/monitor.py --threads 1 --clock cpu         # share of a training's time
    python benchmarks/monitor.py --threads 1 --noise             # spread of the signals

The training is that of the shipped study `mini-controlled-matrix`: batches of 64, flips, clipped
gradients, 300 validation images an epoch, 800 training images (terrain; stars has 1,700). Epochs
without a monitor and with each of several take turns (A B C A B C …), so that a machine that slows
down slows all of them. The share is the median over rounds of (epoch with − epoch without) ÷ epoch
without; beside it stands what the call of `Monitor.step` itself took, which is the steadier number.
Making a monitor (one pass over its images) is shown apart: it happens once in a training, and
comes from the shared cache from the second training on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import driftscope as ds
from driftscope.adapt import adapt
from driftscope.config.variants import FullFineTuning, Lora
from driftscope.reading_pass import read
from driftscope.reading_subsets import SUBSET_SIGNALS, on_subsets

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
METHODS = {"full_ft": (FullFineTuning(), 3e-4), "lora": (Lora(), 1e-3)}
"""Method and learning rate by name."""
BATCH, NUM_VAL, NUM_CLASSES = 64, 300, 10
PROBE_SIZES = (50, 100, 128, 200)
NUM_POOL, NUM_SUBSETS = 1200, 200


@dataclass(frozen=True)
class Variant:
    """One way to monitor."""

    num_probe: int
    num_transfer: int = 0

    def __str__(self) -> str:
        transfer = f", {self.num_transfer} of transfer" if self.num_transfer else ""
        return f"{self.num_probe} probe images{transfer}"

    def monitor(self) -> ds.Monitor:
        return ds.Monitor(
            "mini",
            "terrain",
            transfer="concepts100" if self.num_transfer else None,
            max_images=self.num_probe,
            transfer_images=self.num_transfer or None,
            echo=None,
        )


VARIANTS = [Variant(64), Variant(128), Variant(200), Variant(200, num_transfer=300)]


class Training:
    """The mini CLIP and a classifier, trained an epoch at a time."""

    def __init__(self, method: str, num_images: int) -> None:
        kind, learning_rate = METHODS[method]
        self.adapted = adapt(ds.load("mini"), kind, NUM_CLASSES, seed=0)
        self.images, self.labels = some_images("train", num_images)
        self.val_images, self.val_labels = some_images("test", NUM_VAL)
        self.parameters = list(self.adapted.trainable().values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.01)

    def epoch(self) -> float:
        """Trains on every image once; the validation accuracy in percent."""
        self.adapted.train()
        for batch in torch.randperm(len(self.images)).split(BATCH):
            flips = (torch.rand(len(batch)) < 0.5).view(-1, 1, 1, 1)
            pixels = torch.where(flips, self.images[batch].flip(-1), self.images[batch])
            embeddings = self.adapted.model.image_embeddings(pixels)
            loss, _ = self.adapted.loss_and_logits(embeddings, self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
        with torch.no_grad():
            logits = self.adapted.class_logits(self.adapted.model.embed_images(self.val_images))
        return 100 * float((logits.argmax(dim=1) == self.val_labels).float().mean())


def some_images(split: str, count: int) -> tuple[Tensor, Tensor]:
    images = ds.open_dataset("terrain", split)
    return images.pixels(range(count), 56), images.labels[:count]


def time_epochs(
    method: str, num_images: int, rounds: int, clock: str
) -> tuple[list[float], dict[Variant, list[tuple[float, float]]], dict[Variant, float]]:
    """Seconds of epochs without; of (epoch, its observation) with each variant; of making it."""
    now = CLOCKS[clock]
    training = Training(method, num_images)
    monitors, setup = {}, {}
    for variant in VARIANTS:
        began = now()
        monitors[variant] = variant.monitor()
        setup[variant] = now() - began
    training.epoch()
    plain: list[float] = []
    watched: dict[Variant, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    epoch = 0
    for _ in range(rounds):
        began = now()
        training.epoch()
        plain.append(now() - began)
        for variant, monitor in monitors.items():
            epoch += 1
            began = now()
            accuracy = training.epoch()
            before_step = now()
            monitor.step(training.adapted.model.module, epoch=epoch, val_accuracy_pct=accuracy)
            watched[variant].append((now() - began, now() - before_step))
    return plain, watched, setup


def report_cost(console: Console, method: str, num_images: int, rounds: int, clock: str) -> None:
    plain, watched, setup = time_epochs(method, num_images, rounds, clock)
    table = Table(
        title=f"{method}, {num_images} images an epoch: {statistics.median(plain):.2f} s "
        f"({clock}) without a monitor, {rounds} rounds"
    )
    table.add_column("observed each epoch")
    for column in ("step, s", "step ÷ epoch", "epoch with − without", "to make it, s"):
        table.add_column(column, justify="right")
    for variant, seconds in watched.items():
        steps = [step for _, step in seconds]
        shares = [step / (whole - step) for whole, step in seconds]
        more = [(whole - bare) / bare for (whole, _), bare in zip(seconds, plain, strict=True)]
        table.add_row(
            str(variant),
            f"{statistics.median(steps):.2f}",
            f"{statistics.median(shares):.1%}",
            f"{statistics.median(more):+.1%}",
            f"{setup[variant]:.1f}",
        )
    console.print(table)


def report_noise(console: Console, method: str, epochs: int) -> None:
    """How far probe sets of one size, drawn from a large one, differ in what they show."""
    training = Training(method, 800)
    pool = some_images("train", 800 + NUM_POOL)[0][800:]
    before = read(training.adapted.model, pool)
    for _ in range(epochs):
        accuracy = training.epoch()
    after = read(training.adapted.model, pool)
    (whole,) = on_subsets(after, before, [range(NUM_POOL)])
    table = Table(
        title=f"{method} after {epochs} epochs ({accuracy:.0f} % accuracy): standard deviation "
        f"over {NUM_SUBSETS} random probe sets of {NUM_POOL} images"
    )
    table.add_column("probe images")
    for name in SUBSET_SIGNALS:
        table.add_column(name, justify="right")
    table.add_row(f"all {NUM_POOL}", *(f"{whole[name]:.3f}" for name in SUBSET_SIGNALS))
    generator = torch.Generator().manual_seed(1)
    for size in PROBE_SIZES:
        subsets = [
            torch.randperm(NUM_POOL, generator=generator)[:size].tolist()
            for _ in range(NUM_SUBSETS)
        ]
        rows = on_subsets(after, before, subsets)
        cells = []
        for name in SUBSET_SIGNALS:
            values = [row[name] for row in rows]
            cells.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        table.add_row(str(size), *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--images", type=int, nargs="+", default=[800, 1700])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--noise", action="store_true", help="the spread of the signals instead")
    parser.add_argument("--epochs", type=int, default=3, help="trained before --noise")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console(width=120)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
    torch.manual_seed(0)
    for method in arguments.methods:
        if arguments.noise:
            report_noise(console, method, arguments.epochs)
            continue
        for num_images in arguments.images:
            report_cost(console, method, num_images, arguments.rounds, arguments.clock)


if __name__ == "__main__":
    main()
