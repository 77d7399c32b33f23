"""A whole run, training and evaluation, against a loop as a researcher writes it, and the Trainer.

    python benchmarks/train.py [--model mini|b32] [--methods full_ft lora linear_probe]
                               [--rates full_ft freeze_first:3 lora …] [--scale 1.0] [--epochs 3]
                               [--rounds 2] [--threads 1] [--precision float32|bfloat16]

The work is the study's protocol times --scale: 1,600 training, 300 validation, 200 probe, 1,000
transfer and 300 test images, JPEG files of 500×375 (real photographs' size) for b32 and of 64×64
(EuroSAT's) for the mini model, an evaluation after every epoch.

A, driftscope: `run_one` with an empty cache, so that decoding, the pretrained reference and
    everything that is written to disk are part of it; and again with the cache that a study's
    other runs find.
B, the loop: PIL decoding and transforms in a DataLoader each epoch, eager attention with
    output_attentions=True in training, and per epoch a validation pass, an attention pass, a
    hidden-state pass and a transfer pass. Its pretrained reference is computed once, too, in
    every run; it is timed apart, and A with a study's cache, which has it, is compared with B
    without it. Its adapters are peft's as they come, and all its blocks compute all tokens.
C, transformers' Trainer with peft: training steps alone, on pixels that are decoded already.

At the end: training images a CPU second of driftscope for each method of --rates, one epoch.
--precision is driftscope's alone, the others stay in float32.

Runs alternate A B A B in one process. CPU seconds of this process are compared (the machine may
be shared); wall seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPConfig, CLIPModel

import driftscope as ds
from driftscope import prepared_run
from driftscope.adapt import AdaptedModel, adapt
from driftscope.adapt.dropout import QuickDropout
from driftscope.checkpoints import Checkpoints
from driftscope.config import METHOD_KINDS, RunSpec, parse_run_spec
from driftscope.prepared_run import prepare, training_images
from driftscope.reference import Embedded
from driftscope.run import adapted_model
from driftscope.signals.representation import linear_cka
from driftscope.sources.embedded import EMBEDDED
from driftscope.train import Evaluation, train

CLASSES = 10
BATCH = 64
RATED = [f"{kind}:3" if kind == "freeze_first" else kind for kind in METHOD_KINDS]
"""All methods; of freeze_first with the number of its blocks."""


@dataclass(frozen=True)
class Work:
    """What all contestants do."""

    model: Path
    target: Path
    transfer: Path
    counts: dict[str, int]
    epochs: int
    precision: str = "float32"

    def spec(self, method: str) -> RunSpec:
        kind, _, blocks = method.partition(":")
        return parse_run_spec(
            {
                "model": str(self.model),
                "dataset": str(self.target),
                "method": {"kind": kind, "blocks": int(blocks)} if blocks else kind,
                "learning_rate": 1e-4,
                "epochs": self.epochs,
                "precision": self.precision,
                "batch_size": BATCH,
                "train_images": self.counts["train"],
                "val_images": self.counts["val"],
                "probe_images": self.counts["probe"],
                "test_images": self.counts["test"],
                "transfer": [str(self.transfer)],
                "transfer_images": self.counts["transfer"],
            }
        )


def make_images(root: Path, counts: dict[str, int], size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            folder = root / split / f"class {number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3)).astype(np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg")


def make_work(folder: Path, model: str, scale: float, epochs: int, precision: str) -> Work:
    study = {"train": 1600, "val": 300, "probe": 200, "transfer": 1000, "test": 300}
    counts = {name: max(CLASSES, round(scale * count)) for name, count in study.items()}
    size = (64, 64) if model == "mini" else (500, 375)
    held_out = counts["train"] + counts["val"] + counts["probe"]
    make_images(folder / "target", {"train": held_out, "test": counts["test"]}, size)
    make_images(folder / "transfer", {"train": CLASSES, "test": counts["transfer"]}, size)
    place = EMBEDDED["mini"]
    if model == "b32":
        place = folder / "b32"
        torch.manual_seed(0)
        texts = CLIPConfig.from_pretrained(EMBEDDED["mini"]).text_config.to_dict()
        CLIPModel(CLIPConfig(text_config=texts)).save_pretrained(place)  # the tower of B/32
        for path in EMBEDDED["mini"].glob("tokenizer*"):
            shutil.copy(path, place)
    return Work(place, folder / "target", folder / "transfer", counts, epochs, precision)


# ---------------------------------------------------------------- A: driftscope


def driftscope_run(work: Work, method: str, *, cold: bool) -> dict[str, float]:
    """CPU seconds of a whole run, and of them those of evaluation after the start."""
    if cold:
        shutil.rmtree(os.environ["DRIFTSCOPE_CACHE"], ignore_errors=True)
    prepared_run._prepare.cache_clear()
    spent = {"evaluation": 0.0}
    evaluate = prepared_run.PreparedRun.evaluate

    def timed(self: Any, adapted: AdaptedModel, pool: Embedded | None = None) -> Evaluation:
        start = time.process_time()
        try:
            return evaluate(self, adapted, pool)
        finally:
            spent["evaluation"] += time.process_time() - start

    prepared_run.PreparedRun.evaluate = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            ds.run_one(work.spec(method), Path(folder) / "run", device="cpu")
    finally:
        prepared_run.PreparedRun.evaluate = evaluate
    return spent


# ---------------------------------------------------------------- B: the loop


def with_torchs_dropout(module: nn.Module) -> None:
    """Adapters as peft makes them."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, QuickDropout):
                setattr(parent, name, nn.Dropout(child.p))


class Files(Dataset[tuple[Tensor, int]]):
    """Opens, resizes, crops, flips and normalises in __getitem__, as torchvision would."""

    def __init__(self, root: Path, count: int, model: Any, *, skip: int = 0, flip: bool = False):
        paths = sorted(root.rglob("*.jpg"), key=lambda path: path.name)
        self.paths, self.model, self.flip = paths[skip : skip + count], model, flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, size = self.paths[index], self.model.image_size
        image = Image.open(path).convert("RGB")
        short = min(image.size)
        resized = tuple(round(side * size / short) for side in image.size)
        image = image.resize(resized, Image.Resampling.BICUBIC)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
        if self.flip and torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.model.mean, self.model.std))
        return (pixels - mean) / std, int(path.parent.name.split()[1])


def loop_run(work: Work, method: str) -> dict[str, float]:
    spent = {"evaluation": 0.0}
    spec = work.spec(method)
    pretrained = ds.load(work.model)
    adapted = adapt(pretrained, spec.method, CLASSES, seed=0)
    with_torchs_dropout(adapted.model.module)
    clip = adapted.model.module
    for plain in (adapted.model.plain, pretrained.plain):
        plain.set_attn_implementation("eager")
    prompts = [f"a photo of a class {number}" for number in range(CLASSES)]
    texts = functional.normalize(pretrained.embed_texts(prompts), dim=-1)
    counts, train_root = work.counts, work.target / "train"

    def batches(root: Path, count: int, **options: Any) -> DataLoader[Any]:
        images = Files(root, count, pretrained, **options)
        return DataLoader(images, batch_size=BATCH, shuffle=options.get("flip", False))

    training = batches(train_root, counts["train"], flip=True)
    validation = batches(train_root, counts["val"], skip=counts["train"])
    probe = batches(train_root, counts["probe"], skip=counts["train"] + counts["val"])
    transfer = batches(work.transfer / "test", counts["transfer"])
    test = batches(work.target / "test", counts["test"])

    def vision(model: nn.Module, pixels: Tensor, **options: Any) -> Any:
        plain = model.get_base_model() if hasattr(model, "peft_config") else model
        return plain.vision_model(pixel_values=pixels, **options)

    def embed(model: nn.Module, pixels: Tensor, **options: Any) -> Tensor:
        plain = model.get_base_model() if hasattr(model, "peft_config") else model
        return plain.visual_projection(vision(model, pixels, **options).pooler_output)

    def accuracy(loader: DataLoader[Any], head: Callable[[Tensor], Tensor]) -> float:
        hits = [head(embed(clip, pixels)).argmax(-1) == labels for pixels, labels in loader]
        return float(torch.cat(hits).float().mean())

    def entropy(model: nn.Module) -> Tensor:
        rows = []
        for pixels, _ in probe:
            attentions = vision(model, pixels, output_attentions=True).attentions
            row = torch.stack([layer[:, :, 0, 1:] for layer in attentions])
            rows.append(torch.special.entr(row / row.sum(-1, keepdim=True)).sum(-1).mean((2,)))
        return torch.cat(rows, dim=1).mean(1)

    def hidden(model: nn.Module) -> list[Tensor]:
        parts = [
            [
                state[:, 0]
                for state in vision(model, pixels, output_hidden_states=True).hidden_states
            ]
            for pixels, _ in probe
        ]
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    start = time.process_time()
    with torch.no_grad():
        entropy_before, hidden_before = entropy(pretrained.module), hidden(pretrained.module)
        accuracy(transfer, lambda e: functional.normalize(e, dim=-1) @ texts.T)
    spent["reference"] = time.process_time() - start
    optimizer = torch.optim.AdamW(adapted.trainable().values(), lr=1e-4)
    for _epoch in range(work.epochs):
        adapted.train()
        for pixels, labels in training:
            options = {"output_attentions": True}
            loss = functional.cross_entropy(
                adapted.class_logits(embed(clip, pixels, **options)), labels
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(adapted.trainable().values(), 1.0)
            optimizer.step()
        start = time.process_time()
        clip.eval()
        with torch.no_grad():
            accuracy(validation, adapted.class_logits)
            (entropy(clip) - entropy_before).tolist()
            [linear_cka(a, b) for a, b in zip(hidden(clip), hidden_before, strict=True)]
            accuracy(transfer, lambda e: functional.normalize(e, dim=-1) @ texts.T)
        spent["evaluation"] += time.process_time() - start
    with torch.no_grad():
        accuracy(test, adapted.class_logits)
    return spent


# ---------------------------------------------------------------- C: the Trainer; steps alone


class ForTrainer(nn.Module):
    def __init__(self, adapted: AdaptedModel) -> None:
        super().__init__()
        self.module, self.classifier = adapted.model.module, adapted.classifier

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embeddings = self.module.get_image_features(pixel_values=pixel_values).pooler_output
        logits = self.classifier(embeddings)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def trainer_steps(work: Work, method: str) -> dict[str, float]:
    from transformers import Trainer, TrainingArguments

    spec = work.spec(method)
    shared = prepare(spec, "cpu")
    adapted = adapted_model(shared, spec, training_images(shared, spec))
    with_torchs_dropout(adapted.model.module)
    pixels = torch.cat([shared.pretrained.normalise(one[None]) for one in shared.images.pixels])
    rows = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(pixels, shared.images.labels.tolist(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=work.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-4,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=True,
        )
        trainer = Trainer(ForTrainer(adapted), arguments, train_dataset=rows)
        start = time.process_time(), time.perf_counter()
        trainer.train()
        return _rate(work, start)


def driftscope_steps(work: Work, method: str) -> dict[str, float]:
    spec = work.spec(method)
    shared = prepare(spec, "cpu")
    images = training_images(shared, spec)
    adapted = adapted_model(shared, spec, images)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time(), time.perf_counter()
        train(
            adapted,
            images if adapted.encoder_is_frozen else shared.images,
            spec,
            _Unkept(Path(folder), spec),
            lambda _pool: Evaluation(0.0, {}, {}),
        )
        return _rate(work, start)


class _Unkept(Checkpoints):
    """The Trainer saves nothing here, either."""

    def save(self, *_: object) -> None: ...


def _rate(work: Work, start: tuple[float, float]) -> dict[str, float]:
    num_images = work.epochs * work.counts["train"]
    return {
        "images_per_cpu_second": num_images / (time.process_time() - start[0]),
        "images_per_second": num_images / (time.perf_counter() - start[1]),
    }


# ---------------------------------------------------------------- the contest


def measured(contestant: Callable[[], dict[str, float]]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    spent = contestant()
    seconds = time.process_time() - cpu
    return {
        "cpu_s": seconds,
        "cpu_s_of_reference": spent.get("reference", 0.0),
        "wall_s": time.perf_counter() - wall,
        "evaluation_share": spent["evaluation"] / seconds,
    }


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(r[key] for r in results), 3) for key in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("mini", "b32"), default="mini")
    parser.add_argument("--methods", nargs="*", default=["full_ft", "lora", "linear_probe"])
    parser.add_argument("--rates", nargs="*", default=RATED)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["DRIFTSCOPE_CACHE"] = str(folder / "cache")
        work = make_work(folder, options.model, options.scale, options.epochs, options.precision)
        print(json.dumps({"model": options.model, "epochs": work.epochs, **work.counts}))
        for method in options.methods:
            contest(work, method, options.rounds)
        print_rates(replace(work, epochs=1), options.rates)


def print_rates(work: Work, methods: list[str]) -> None:
    print("\n| method | training images per CPU second |\n|---|---|")
    for method in methods:
        rate = driftscope_steps(work, method)["images_per_cpu_second"]
        print(f"| {method} | {rate:,.1f} |", flush=True)


def contest(work: Work, method: str, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {"A": [], "A_cached": [], "B": []}
    for _ in range(rounds):
        found["A"].append(measured(lambda: driftscope_run(work, method, cold=True)))
        found["B"].append(measured(lambda: loop_run(work, method)))
        found["A_cached"].append(measured(lambda: driftscope_run(work, method, cold=False)))
    middle = {name: medians(results) for name, results in found.items()}
    loop = middle["B"]["cpu_s"]
    speedup = {
        "A": round(loop / middle["A"]["cpu_s"], 2),
        "A_cached": round(
            (loop - middle["B"]["cpu_s_of_reference"]) / middle["A_cached"]["cpu_s"], 2
        ),
    }
    print(json.dumps({"method": method, **middle, "times_faster_cpu": speedup}), flush=True)
    if method == "linear_probe":
        return
    steps: dict[str, list[dict[str, float]]] = {"driftscope": [], "trainer": []}
    for _ in range(rounds):
        steps["driftscope"].append(driftscope_steps(work, method))
        steps["trainer"].append(trainer_steps(work, method))
    rates = {name: medians(results) for name, results in steps.items()}
    print(json.dumps({"method": method, "training steps": rates}), flush=True)


if __name__ == "__main__":
    main()
