"""k-NN and the linear probe, against NumPy and the conditions of a minimum; models without text."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import save_family
from torch import nn

import driftscope
from driftscope.adapt import export_merged
from driftscope.analysis.summaries import scope_caveat
from driftscope.config import RunSpec
from driftscope.errors import ConfigError, ModelError
from driftscope.gate.judging import judge, read_evidence
from driftscope.gate.limits import GATED, parse_limit
from driftscope.records import load_run, runs_table
from driftscope.transfer.features import (
    INVERSE_PENALTY,
    knn_scores,
    labelled_sets,
    linear_classifier,
    linear_probe_scores,
)

DINO = "DINOv2, registers"


def features(count: int, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def labels_of(count: int, classes: int = 3) -> torch.Tensor:
    return torch.arange(count) % classes


# ------------------------------------------------------------------ the two classifiers


@pytest.mark.parametrize("bank_size", [5, 60])
def test_knn_counts_the_votes_of_the_nearest_as_dino_does(bank_size: int) -> None:
    images, bank, labels = features(9, 0), features(bank_size, 1), labels_of(bank_size)
    scores = knn_scores(images, bank, labels, 3).numpy()
    for image, row in zip(images.double().numpy(), scores, strict=True):
        cosines = [
            float(image @ one / np.linalg.norm(image) / np.linalg.norm(one))
            for one in bank.double().numpy()
        ]
        votes: Counter[int] = Counter()
        for at in sorted(range(bank_size), key=lambda at: -cosines[at])[:20]:
            votes[int(labels[at])] += np.exp(cosines[at] / 0.07)
        np.testing.assert_allclose(row, [votes[one] for one in range(3)], rtol=1e-9)


def test_the_linear_probe_is_at_the_minimum_of_its_loss() -> None:
    bank, labels = features(40, 2), labels_of(40)
    unit = np.eye(6)  # logits at the origin and the unit vectors tell weights and biases
    mean, deviation = bank.double().mean(0), bank.double().std(0, correction=0)
    at = torch.from_numpy(np.vstack([np.zeros(6), unit])) * deviation + mean
    logits = linear_probe_scores(at, bank.double(), labels, 3)
    biases = logits[0].clone().requires_grad_()
    weights = (logits[1:] - logits[0]).T.clone().requires_grad_()
    standardised = (bank.double() - mean) / deviation
    loss = nn.functional.cross_entropy(standardised @ weights.T + biases, labels)
    loss = loss + weights.square().sum() / (2 * INVERSE_PENALTY * len(bank))
    for gradient in torch.autograd.grad(loss, [weights, biases]):
        assert float(gradient.abs().max()) < 1e-5


def test_the_linear_probe_does_not_depend_on_the_scale_of_the_features() -> None:
    bank, images, labels = features(40, 2), features(10, 3), labels_of(40)
    scale = torch.tensor([1e-3, 1.0, 10.0, 1.0, 5.0, 1e3])
    one = linear_probe_scores(images, bank, labels, 3)
    other = linear_probe_scores(images * scale, bank * scale, labels, 3)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_linear_classifier_is_the_probe_as_one_layer() -> None:
    bank, images, labels = 3 * features(40, 2) + 5, features(10, 3), labels_of(40)
    found = linear_classifier(bank, labels, 3)(images).double()
    torch.testing.assert_close(
        found, linear_probe_scores(images, bank, labels, 3), atol=1e-4, rtol=1e-4
    )


def test_features_that_have_collapsed_are_scored_and_not_divided_by_zero() -> None:
    bank, labels = torch.ones(9, 4), labels_of(9)
    for scores in (knn_scores, linear_probe_scores):
        assert bool(torch.isfinite(scores(torch.ones(3, 4), bank, labels, 3)).all())


# ------------------------------------------------------------------ models without a text tower


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(DINO, tmp_path_factory.mktemp("dino") / "before")


@pytest.fixture(scope="module")
def moved(dino: Path) -> Path:
    """The same encoder after it has lost much of what it could do."""
    model = driftscope.load(dino)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.plain.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    export_merged(model, dino.with_name("after"))
    return dino.with_name("after")


@pytest.fixture(scope="module")
def dim_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three faint colours in much noise, so that no encoder has them all right."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images") / "dim"
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 20)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 230, (32, 32, 3))
                pixels[..., channel] += 25
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index:02}.png")
    return root


def own_embeddings(folder: Path, images: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The library's own embeddings of a split, and its labels."""
    model = driftscope.load(folder)
    found = driftscope.open_dataset(images, split)
    pixels = model.normalise(found.pixels(range(len(found)), model.framing))
    with torch.no_grad():
        embedded = model.module(pixel_values=pixels).pooler_output
    return embedded.double().numpy(), np.asarray(found.labels)


def numpy_knn_accuracy(folder: Path, images: Path) -> float:
    (bank, bank_labels), (queries, labels) = (
        own_embeddings(folder, images, split) for split in ("train", "test")
    )
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries, bank)]
    cosines = unit[0] @ unit[1].T
    right = 0
    for row, label in zip(cosines, labels, strict=True):
        votes = np.zeros(3)
        for at in np.argsort(-row, kind="stable")[:20]:
            votes[bank_labels[at]] += np.exp(row[at] / 0.07)
        right += int(votes.argmax() == label)
    return 100 * right / len(labels)


def test_retention_by_knn_is_that_of_an_independent_computation(
    dino: Path, moved: Path, dim_images: Path
) -> None:
    found = driftscope.compare(dino, moved, dim_images / "test", transfer=dim_images)
    before, after = (numpy_knn_accuracy(folder, dim_images) for folder in (dino, moved))
    name = f"{dim_images} (k-NN)"
    assert list(found.transfer) == [name, f"{dim_images} (linear probe)"]
    assert found.transfer[name]["pretrained"]["accuracy_pct"] == pytest.approx(before)
    assert found.transfer[name]["adapted"]["accuracy_pct"] == pytest.approx(after)
    assert found.transfer[name]["retention_pct"] == pytest.approx(100 * after / before)
    scalars = found.scalars()
    assert scalars["knn_pct"] == pytest.approx(after)
    assert scalars["retention_pct"] == pytest.approx(100 * after / before)
    assert scalars["linear_probe_pct"] > 0
    assert "zero_shot_pct" not in scalars
    assert found.unmeasured["zero_shot_pct"]
    assert found.unmeasured["text_kl_nats"].endswith("no text tower")
    assert "no text tower" in found.unmeasured["estimated_retention_pct"]
    steps = driftscope.compare(dino, moved, dim_images / "test").to_dict()["advice"]["steps"]
    assert [step.partition(":")[0] for step in steps] == ["With labels"]


def test_zero_shot_of_a_model_without_text_is_refused(dino: Path, dim_images: Path) -> None:
    model = driftscope.load(dino)
    with pytest.raises(ModelError, match=r"no text tower.*ask for transfer_by knn"):
        labelled_sets(str(dim_images), model, by="zero_shot")
    with pytest.raises(ConfigError, match=r"no transfer_by 'k-nn'"):
        labelled_sets(str(dim_images), model, by=["k-nn"])


def test_clip_is_scored_by_all_three_where_that_is_asked(tiny_clip: Path, dim_images: Path) -> None:
    found = driftscope.compare(
        *(tiny_clip, tiny_clip, dim_images / "test"),
        transfer=dim_images,
        transfer_by=["linear_probe", "knn", "zero_shot"],
    )
    assert [name.removeprefix(str(dim_images)) for name in found.transfer] == [
        *("", " (k-NN)", " (linear probe)")
    ]
    assert {"zero_shot_pct", "knn_pct", "linear_probe_pct"} <= found.scalars().keys()


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_a_run_without_text_has_its_tables_its_gate_and_its_model(
    method: str, dino: Path, dim_images: Path, tmp_path: Path
) -> None:
    values = {
        **{"model": str(dino), "dataset": str(dim_images), "transfer": [str(dim_images)]},
        **{"method": method, "learning_rate": 1e-3, "epochs": 1, "batch_size": 18},
        **{"val_images": 9, "probe_images": 9},
    }
    driftscope.run_one(RunSpec.model_validate(values), tmp_path / "run")
    record = load_run(tmp_path / "run")
    [row] = runs_table([record]).to_dict("records")
    assert row["transfer"] == f"{dim_images} (k-NN)"
    assert row["knn_pct"] == record.main_score.accuracy_pct
    assert row["retention_pct"] == record.main_score.retention_pct
    assert np.isnan(row["zero_shot_pct"])
    scope = scope_caveat([{"model": "m", "dataset": "d", "transfer": str(row["transfer"])}])
    assert f"k-NN on {dim_images} alone" in scope.text
    assert "zero-shot" not in scope.text
    retention = next(one for one in GATED if one.metric.key == "retention_pct")
    zero_shot = next(one for one in GATED if one.metric.key == "zero_shot_pct")
    limits = [parse_limit(retention, "1"), parse_limit(zero_shot, "1")]
    outcomes = [one.outcome for one in judge(read_evidence(tmp_path / "run"), limits)]
    assert outcomes == ["passed", "passed", "not measured"]
    again = driftscope.compare(dino, tmp_path / "run", dim_images / "test")
    drift = record.result.selected.drift
    assert again.drift.weight_drift == pytest.approx(drift.number("weight_drift")) != 0


class Classifier(nn.Module):
    """A head of one's own on an encoder, as people train one."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(64, 3)


def test_a_monitor_follows_an_encoder_without_text_and_keeps_it(
    dino: Path, dim_images: Path, tmp_path: Path
) -> None:
    trained: Any = Classifier(copy.deepcopy(driftscope.load(dino).module))
    monitor = driftscope.Monitor(
        *(dino, dim_images / "test"),
        transfer=dim_images,
        out=tmp_path / "out",
        keep_best=True,
        max_probe_images=12,
        echo=None,
    )
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    seen = monitor.step(trained, epoch=1, val_accuracy_pct=50.0)
    assert seen is not None
    assert seen.scalars()["retention_pct"] > 0
    assert seen.scalars()["knn_pct"] > 0
    kept = driftscope.load(monitor.best_folder)
    pixels = driftscope.open_dataset(dim_images / "test").pixels(range(3), kept.framing)
    with torch.no_grad():
        expected = trained.encoder(pixel_values=kept.normalise(pixels)).pooler_output
    torch.testing.assert_close(kept.embed_images(pixels), expected, atol=1e-5, rtol=1e-5)
    page = monitor.report().read_text(encoding="utf-8")
    assert "K-NN accuracy on" in page
    words = " ".join(re.sub("<[^>]*>", "", page).split())
    assert re.search(r"retention is [\d.]+ % [^;]*\(k-NN\)", words), "its verdict"


@pytest.mark.parametrize("is_classifier", [False, True], ids=["encoder", "classifier"])
def test_an_adapter_of_an_encoder_without_text_is_loaded(
    is_classifier: bool, dino: Path, tmp_path: Path
) -> None:
    import peft
    from transformers import AutoModel, AutoModelForImageClassification

    kind = AutoModelForImageClassification if is_classifier else AutoModel
    saved = ["classifier"] if is_classifier else None
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=saved)
    wrapped = peft.get_peft_model(kind.from_pretrained(dino), config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(tmp_path / "adapter")
    model = driftscope.load(tmp_path / "adapter")
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    plain: Any = wrapped.get_base_model()
    with torch.no_grad():
        encoder = getattr(plain, plain.base_model_prefix) if is_classifier else plain
        expected = encoder(pixel_values=model.normalise(pixels)).pooler_output
    torch.testing.assert_close(model.embed_images(pixels), expected, atol=1e-5, rtol=1e-5)


def test_a_classifiers_folder_is_read_as_its_encoder(dino: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    classifier = AutoModelForImageClassification.from_pretrained(dino).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    before, after = driftscope.load(dino), driftscope.load(tmp_path / "classifier")
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    after = replace(after, mean=before.mean, std=before.std)
    torch.testing.assert_close(after.embed_images(pixels), before.embed_images(pixels))
