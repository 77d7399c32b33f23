"""`compare`, runs and the monitor find the same of the same weights and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.utils import prune

import driftscope
from driftscope import reference_cache
from driftscope.assess import assess
from driftscope.config import parse_run_spec
from driftscope.data.prompts import class_prompts
from driftscope.data.vocabulary import GENERAL_VOCABULARY
from driftscope.gate.judging import read_evidence
from driftscope.metrics import ESTIMATED
from driftscope.prepared_run import prepare
from driftscope.reading_pass import random_texts
from driftscope.records import REPORT_FILE, write_json
from driftscope.reference import make_reference
from driftscope.run import run_one
from driftscope.signals.text import text_space_drift
from driftscope.sources import load
from driftscope.transfer.doubts import unknown_words

TEXT_METRICS = {
    "text_kl_nats", "text_top1_agreement_pct", "random_text_logit_change", "text_referee_pct",
}  # fmt: skip
NUM_IMAGES = 20


@pytest.fixture(scope="module", params=["stars", "concepts100"])
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, float]]:
    """The scalars that a run, a comparison and a monitor give of one adapted model."""
    folder = tmp_path_factory.mktemp(request.param)
    spec = parse_run_spec(
        {
            "model": "mini",
            "dataset": "terrain",
            "method": "full_ft",
            "learning_rate": 1e-3,
            "epochs": 1,
            "train_images": 64,
            "val_images": NUM_IMAGES,
            "probe_images": NUM_IMAGES,
            "test_images": NUM_IMAGES,
            "transfer": [request.param],
            "transfer_images": 40,
            "pool": "concepts100",
            "pool_images": 40,
        }
    )
    record = run_one(spec, folder / "run")
    pixels = prepare(spec).reference.probe_pixels
    probe = folder / "probe"
    probe.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(probe / f"{index:04}.png")
    count = len(pixels)
    comparison = driftscope.compare(
        "mini", record.folder, probe, transfer=[request.param], max_images=count,
        transfer_images=40, pool="concepts100", pool_images=40,
    )  # fmt: skip
    monitor = driftscope.Monitor(
        "mini", pixels, transfer=[request.param], max_images=None,
        transfer_images=40, pool="concepts100", pool_images=40, echo=None, out=folder / "monitor",
    )  # fmt: skip
    seen = monitor.observe(load(record.folder).module, step=1)
    selected = record.result.selected
    main = selected.transfer[request.param]
    run = selected.drift.numbers()
    run["zero_shot_pct"] = main.accuracy_pct
    if main.retention_pct is not None:
        run["retention_pct"] = main.retention_pct
    return {"run": run, "comparison": comparison.scalars(), "monitor": seen.scalars()}


def test_the_three_pipelines_give_the_same_numbers_to_the_last_digit(
    found: dict[str, dict[str, float]],
) -> None:
    run, comparison, monitor = found["run"], found["comparison"], found["monitor"]
    shared = run.keys() & comparison.keys() & monitor.keys()
    assert TEXT_METRICS | {"cka", "weight_drift", "zero_shot_pct", ESTIMATED} <= shared
    assert {k: run[k] for k in shared} == {k: comparison[k] for k in shared}
    assert {k: monitor[k] for k in shared} == {k: comparison[k] for k in shared}
    assert comparison["text_kl_nats"] > 0.01
    # retention is missing in all three where the pretrained model is at chance, as on the stars
    assert len({"retention_pct" in one for one in (run, comparison, monitor)}) == 1


def moved(scale: float = 0.1) -> driftscope.VisionLanguageModel:
    model = load("mini")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.plain.vision_model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator) * parameter.std()
    return model


def probe_pixels() -> torch.Tensor:
    return driftscope.open_dataset("terrain", "test").pixels(range(NUM_IMAGES), 56)


def test_texts_that_embed_alike_leave_text_space_drift_unmeasured_with_the_reason() -> None:
    prompts = ["a photo of a quasar", "a photo of a pulsar"]  # words that the mini does not know
    reference = make_reference(load("mini"), probe_pixels(), vocabulary=prompts)
    seen = assess(moved(), reference)
    assert not TEXT_METRICS & seen.scalars().keys()
    for key in TEXT_METRICS:
        assert "2 texts embed as only 1 different one" in seen.unmeasured[key]


def test_a_model_without_a_tokenizer_says_so() -> None:
    reference = make_reference(replace(load("mini"), tokenizer=None), probe_pixels())
    seen = assess(moved(), reference)
    assert seen.unmeasured["text_kl_nats"] == "mini has no tokenizer"
    assert seen.unmeasured["retention_pct"] == "no transfer set was given"
    assert seen.drift.text_kl_nats is None


def test_a_comparison_is_taken_from_the_cache_that_runs_and_monitors_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    first = driftscope.compare("mini", moved(), "terrain", max_images=NUM_IMAGES)
    read = []
    monkeypatch.setattr(reference_cache, "read", lambda *args, **_: read.append(args))
    again = driftscope.compare("mini", moved(), "terrain", max_images=NUM_IMAGES)
    assert not read
    assert again.scalars() == first.scalars()


def test_an_equal_model_of_another_activation_is_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    make_reference(load("mini"), probe_pixels())
    changed = load("mini")
    for block in changed.plain.vision_model.encoder.layers:
        block.mlp.activation_fn = torch.nn.SiLU()
    assert assess(changed, make_reference(changed, probe_pixels())).drift.embedding_drift < 1e-6


def test_an_equal_model_of_another_mask_is_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a batch norm's statistics, the mask of a pruned weight is no parameter."""
    monkeypatch.setenv("DRIFTSCOPE_CACHE", str(tmp_path / "cache"))
    models = [load("mini") for _ in range(2)]
    for model, amount in zip(models, (0.1, 0.9), strict=True):
        prune.l1_unstructured(model.plain.text_projection, "weight", amount)
        text = ["a photo of a red circle"]
        found = reference_cache.CachedModel(model).texts(text)
        torch.testing.assert_close(found, model.embed_texts(text))


def test_what_was_not_measured_is_in_a_comparisons_json_and_for_a_gate(tmp_path: Path) -> None:
    comparison = driftscope.compare("mini", moved(), "terrain", max_images=NUM_IMAGES)
    stored = comparison.to_dict()
    assert stored["unmeasured"]["retention_pct"] == "no transfer set was given"
    assert stored["text_vocabulary"].startswith("general")
    write_json(tmp_path / REPORT_FILE, stored)
    assert read_evidence(tmp_path).unmeasured["retention_pct"] == "no transfer set was given"


def test_a_monitor_with_its_own_vocabulary_says_so() -> None:
    said: list[str] = []
    monitor = driftscope.Monitor(
        "mini", probe_pixels(), vocabulary=["a red circle", "a blue square"], out=None,
        echo=said.append,
    )  # fmt: skip
    assert monitor._header["vocabulary"] == "2 texts of your own, not the general vocabulary"
    assert any("2 texts of your own" in line for line in said)


def test_text_space_drift_is_that_of_the_signal_on_the_general_vocabulary() -> None:
    model, mini = moved(), load("mini")
    known = [word for word in GENERAL_VOCABULARY if not unknown_words(mini, [word])]
    expected = text_space_drift(
        mini.embed_images(probe_pixels()),
        model.embed_images(probe_pixels()),
        mini.embed_texts(class_prompts(known)),
        mini.logit_scale,
        mini.embed_texts(random_texts(mini.tokenizer)),
    )
    seen = assess(model, make_reference(mini, probe_pixels())).drift
    assert seen.text_kl_nats == pytest.approx(expected.kl_nats, rel=1e-3) != 0
    assert seen.text_top1_agreement_pct == expected.top1_agreement_pct
    assert seen.random_text_logit_change == pytest.approx(
        expected.random_text_logit_change, rel=1e-3
    )
