"""A made-up study on disk, in the shape of run folders, to try reports and tables on.

The numbers follow the shape of the mini model's behaviour (retention falls with the rate, sooner
under full fine-tuning; entropy's sign flips), but they are invented: nothing here is a result.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from driftscope.analysis import StudyTables
from driftscope.config import parse_run_spec, run_id
from driftscope.records import all_tables, load_runs
from driftscope.report.html import write_study_report

METHODS = ("full_ft", "lora")
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1)
NUM_LAYERS, NUM_HEADS, GRID = 6, 4, 7
NUM_TRANSFER_IMAGES = 5000
PRETRAINED_ACCURACY = 97.2
HOSTILE = "<script>window.harmed = 1</script>"
NUM_EPOCHS = 4


def write_fake_study(
    folder: Path,
    *,
    methods: tuple[str, ...] = METHODS,
    rates: tuple[float, ...] = RATES,
    seeds: tuple[int, ...] = SEEDS,
    datasets: tuple[str, ...] = ("terrain",),
    maps: bool = True,
) -> Path:
    """Write one run folder per dataset, method, rate and seed under `folder`, and return it."""
    for dataset in datasets:
        for method in methods:
            for rate in rates:
                for seed in seeds:
                    _write_run(folder, dataset, method, rate, seed, maps=maps)
    return folder


def write_fake_report(
    folder: Path, out: Path, *, title: str = "A study", command: str = "driftscope demo"
) -> Path:
    """The report of the runs in `folder`, as the command line writes it."""
    records = load_runs(folder)
    tables = all_tables(records)
    study = StudyTables(
        tables.runs, tables.history, tables.layers, tables.subsets, tables.heads, tables.classes
    )
    return write_study_report(study, records, out, title=title, command=command)


def wilson_pct(accuracy_pct: float, num_images: int) -> tuple[float, float]:
    """The 95 % Wilson interval of an accuracy, in percent."""
    p, z = accuracy_pct / 100, 1.959964
    centre = (p + z * z / (2 * num_images)) / (1 + z * z / num_images)
    half = z / (1 + z * z / num_images)
    half *= math.sqrt(p * (1 - p) / num_images + z * z / (4 * num_images**2))
    return 100 * (centre - half), 100 * (centre + half)


def fake_score(accuracy_pct: float, name: str = "concepts100") -> dict[str, Any]:
    """A ZeroShotScore dict of a given accuracy."""
    num_correct = round(accuracy_pct / 100 * NUM_TRANSFER_IMAGES)
    low, high = wilson_pct(accuracy_pct, NUM_TRANSFER_IMAGES)
    return {
        "name": name,
        "num_correct": num_correct,
        "num_images": NUM_TRANSFER_IMAGES,
        "accuracy_pct": 100 * num_correct / NUM_TRANSFER_IMAGES,
        "wilson_low_pct": low,
        "wilson_high_pct": high,
    }


def fake_classes(retention_pct: float) -> list[dict[str, Any]]:
    """What a run's record says of each class of the transfer set; some classes lose more."""
    rows = []
    for at in range(12):
        adapted = min(100.0, retention_pct * (0.5 + at / 11))
        rows.append(
            {
                "class": f"concept {at}",
                "num_images": 50,
                "pretrained_pct": 100.0,
                "adapted_pct": adapted,
                "retention_pct": adapted,
            }
        )
    return rows


def fake_reading(rng: np.random.Generator, scale: float = 1.0) -> dict[str, Any]:
    """A Reading dict whose entropies are about 1.2 nats times `scale`."""
    shape = (NUM_LAYERS, NUM_HEADS)
    return {
        "entropy": (scale * rng.uniform(0.9, 1.5, shape)).tolist(),
        "erf95": (scale * rng.uniform(0.15, 0.3, shape)).tolist(),
        "gini": rng.uniform(0.7, 0.9, shape).tolist(),
        "head_diversity": rng.uniform(0.3, 0.6, NUM_LAYERS).tolist(),
        "num_images": 200,
        "num_patches": GRID * GRID,
        "images_fingerprint": "c0ffee00" * 4,
    }


def fake_drift(strength: float, rng: np.random.Generator) -> dict[str, Any]:
    """A Drift dict of a run of `strength` 0 (untouched) to 1 (destroyed)."""
    wave = 22 * math.sin(2.6 * strength) - 30 * strength**4
    per_layer = wave * np.linspace(0.4, 1.6, NUM_LAYERS) + rng.normal(0, 1, NUM_LAYERS)
    cka = 1 - 0.38 * strength * np.linspace(0.3, 1.7, NUM_LAYERS) - 0.01 * rng.random(NUM_LAYERS)
    cka = np.clip(cka, 0.05, 1.0)
    return {
        "delta_entropy_pct": float(per_layer.mean()),
        "delta_entropy_pct_per_layer": per_layer.tolist(),
        "delta_erf95_pct": float(1.5 * per_layer.mean()),
        "delta_erf95_pct_per_layer": (1.5 * per_layer).tolist(),
        "delta_gini_pct": float(-0.5 * per_layer.mean()),
        "delta_gini_pct_per_layer": (-0.5 * per_layer).tolist(),
        "delta_head_diversity_pct": float(12 * strength),
        "delta_head_diversity_pct_per_layer": (12 * strength * np.ones(NUM_LAYERS)).tolist(),
        "cka_per_block": cka.tolist(),
        "cka": float(cka.mean()),
        "cka_debiased_per_block": (cka - 0.01).tolist(),
        "cka_debiased": float(cka.mean() - 0.01),
        "embedding_drift": float(0.75 * strength),
        "feature_distance": float(3 * strength),
        "weight_drift": float(0.3 * strength**2 + 0.01),
        "weight_drift_per_layer": (0.3 * strength**2 * np.ones(NUM_LAYERS)).tolist(),
    }


def fake_flows() -> dict[str, Any]:
    """Where the images of forgotten classes went, one of a name that would harm if unescaped."""
    return {
        "num_lost": 60,
        "num_gained": 2,
        "lost_to": [{"class": HOSTILE, "taken_for": "concept 1", "num_images": 40}],
    }


def fake_comparison(*, transfer: bool = True) -> dict[str, Any]:
    """What `Comparison.to_dict` gives."""
    before, after = fake_score(PRETRAINED_ACCURACY), fake_score(60.0)
    retention = 100 * after["accuracy_pct"] / before["accuracy_pct"]
    scores = {
        "pretrained": before,
        "adapted": after,
        **after,
        "retention_pct": retention,
        "pretrained_accuracy_pct": before["accuracy_pct"],
        "pretrained_low_pct": before["wilson_low_pct"],
        "pretrained_high_pct": before["wilson_high_pct"],
    }
    return {
        "pretrained": "mini",
        "adapted": "runs/abc",
        "images": "photos",
        "num_images": 64,
        "skipped_images": [],
        "drift": fake_drift(0.5, np.random.default_rng(1)),
        "reading_pretrained": fake_reading(np.random.default_rng(5)),
        "reading_adapted": fake_reading(np.random.default_rng(6), 1.1),
        "transfer": {"concepts100": scores} if transfer else {},
        "stability": {
            "entropy_subset_cv": 0.01,
            "num_subsets": 5,
            "probe_sizes": [
                {"num_images": count, "cka": 0.9, "cka_debiased": 0.8, "delta_entropy_pct": 1.0}
                for count in (32, 64)
            ],
        },
    }


def fake_maps(rng: np.random.Generator, num_images: int) -> np.ndarray:
    """Attention maps [image, layer, head, grid, grid], each summing to one."""
    rows, columns = np.mgrid[0:GRID, 0:GRID]
    maps = np.empty((num_images, NUM_LAYERS, NUM_HEADS, GRID, GRID), dtype=np.float32)
    for index in np.ndindex(maps.shape[:3]):
        centre = rng.uniform(0, GRID - 1, 2)
        width = rng.uniform(0.6, 2.5)
        blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * width**2))
        maps[index] = (blob + 0.02) / (blob + 0.02).sum()
    return maps


def fake_images(num_images: int, size: int = 56) -> np.ndarray:
    """Small pictures of a disc before a gradient, uint8 [image, size, size, 3]."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    images = np.empty((num_images, size, size, 3), dtype=np.uint8)
    for index in range(num_images):
        rng = np.random.default_rng(100 + index)
        background = rng.uniform(60, 200, 3) * (0.6 + 0.4 * rows[..., None])
        x, y = rng.uniform(0.3, 0.7, 2)
        disc = ((rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(0.02, 0.06))[..., None]
        images[index] = np.where(disc, rng.uniform(0, 255, 3), background).astype(np.uint8)
    return images


def _strength(method: str, rate: float, rng: np.random.Generator) -> float:
    decades = math.log10(rate) + (3.2 if method == "full_ft" else 2.2)
    return float(np.clip(1 / (1 + math.exp(-2.6 * decades)) + rng.normal(0, 0.015), 0, 1))


def _write_run(
    folder: Path, dataset: str, method: str, rate: float, seed: int, *, maps: bool
) -> None:
    rng = np.random.default_rng([seed, round(rate * 1e7), len(method), len(dataset)])
    strength = _strength(method, rate, rng)
    spec = parse_run_spec(
        {
            "dataset": dataset,
            "method": method,
            "learning_rate": rate,
            "seed": seed,
            "epochs": NUM_EPOCHS,
            "transfer_images": NUM_TRANSFER_IMAGES,
        }
    )
    run = folder / "runs" / run_id(spec)
    run.mkdir(parents=True)
    drift = fake_drift(strength, rng)
    adapted = fake_score(PRETRAINED_ACCURACY * (1 - 0.95 * strength))
    adapted["retention_pct"] = 100 * adapted["accuracy_pct"] / PRETRAINED_ACCURACY
    adapted["per_class"] = fake_classes(adapted["retention_pct"])
    adapted["flows"] = fake_flows()
    accuracy = 99 - 63 * math.exp(-5 * (strength + 0.02)) + float(rng.normal(0, 0.4))
    low, high = wilson_pct(accuracy, 1000)
    pretrained_reading = fake_reading(np.random.default_rng(5))
    point = {
        "epoch": NUM_EPOCHS,
        "step": NUM_EPOCHS * 25,
        "val_accuracy_pct": accuracy,
        "test_accuracy_pct": accuracy,
        "test_num_images": 1000,
        "test_wilson_pct": [low, high],
        "reading": fake_reading(np.random.default_rng(5), 1 + drift["delta_entropy_pct"] / 100),
        "drift": drift,
        "transfer": {"concepts100": adapted},
    }
    result = {
        "schema": 1,
        "run_id": run_id(spec),
        "status": "done",
        "spec": spec.model_dump(mode="json"),
        "protocol": "leakfree",
        "parameters": {"trainable": 40_000 if method == "lora" else 1_400_000, "total": 1_900_000},
        "pretrained": {
            "reading": pretrained_reading,
            "transfer": {"concepts100": fake_score(PRETRAINED_ACCURACY)},
        },
        "selected": point,
        "last": point,
        "environment": {
            "versions": {"driftscope": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
            "device": "cpu",
            "num_threads": 1,
            "fingerprints": {"probe": "c0ffee00" * 4, "train": "deadbeef" * 4},
        },
        "wall_seconds": {"total": 44.6, "train": 41.2, "probe": 3.4},
    }
    events = []
    for epoch in range(1, NUM_EPOCHS + 1):
        share = epoch / NUM_EPOCHS
        scalars = {
            name: value
            for name, value in fake_drift(strength * share, rng).items()
            if not isinstance(value, list)
        }
        events.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": epoch * 25,
                "train_loss": 2.2 * (1 - 0.9 * share * strength),
                "val_accuracy_pct": accuracy * (1 - 0.4 * (1 - share)),
                "retention_pct": 100 * (1 - 0.95 * strength * share),
                **scalars,
            }
        )
    (run / "spec.json").write_text(spec.model_dump_json())
    (run / "result.json").write_text(json.dumps(result))
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if maps:
        images = fake_images(4)
        before = fake_maps(np.random.default_rng(9), 4)
        after = (1 - strength) * before + strength * fake_maps(rng, 4)
        np.savez_compressed(
            run / "attention.npz",
            images=images,
            pretrained=before.astype(np.float16),
            adapted=after.astype(np.float16),
        )
