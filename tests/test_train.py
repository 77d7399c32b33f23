import json
import math
from pathlib import Path

import pytest
import torch

from driftscope.adapt import AdaptedModel, adapt
from driftscope.config import parse_run_spec
from driftscope.run import prepare
from driftscope.train import (
    Training,
    accuracy_pct,
    learning_rate_at,
    steps_per_epoch,
    train,
)


def trained(values: dict, folder: Path) -> tuple[AdaptedModel, Training]:
    spec = parse_run_spec(values)
    setting = prepare(spec)
    adapted = adapt(setting.pretrained, spec.method, len(setting.class_names), spec.seed)
    training = train(adapted, setting.images, spec, folder)
    return adapted, training


def weights(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in adapted.trainable().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_rate_warms_up_linearly_and_falls_by_a_cosine_to_zero() -> None:
    spec = parse_run_spec({"method": "full_ft", "learning_rate": 1.0})
    rates = [learning_rate_at(step, 200, spec) for step in range(200)]
    assert rates[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert rates[10] == 1.0
    assert rates[105] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_schedule_is_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    spec = parse_run_spec({"method": "full_ft", "learning_rate": 3e-4})
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=3e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, 5, 100)
    for step in range(5, 100):
        while schedule.last_epoch < step:
            optimizer.step()
            schedule.step()
        assert learning_rate_at(step, 100, spec) == pytest.approx(schedule.get_last_lr()[0])


def test_training_fits_what_can_be_learned(tiny_run: dict, tmp_path: Path) -> None:
    _, training = trained({**tiny_run, "epochs": 12, "learning_rate": 3e-3}, tmp_path)
    losses = [event["train_loss"] for event in training.events if event["kind"] == "epoch"]
    assert losses[-1] < 0.5 * losses[0]
    assert training.val_accuracy_pct(training.selected_epoch) > 90


def test_two_trainings_of_one_seed_are_equal_to_the_bit_and_another_seed_differs(
    tiny_run: dict, tmp_path: Path
) -> None:
    runs = [
        weights(trained({**tiny_run, "method": "lora", "seed": seed}, tmp_path / str(i))[0])
        for i, seed in enumerate((1, 1, 2))
    ]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_training_leaves_the_global_random_state_alone(tiny_run: dict, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained(tiny_run, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_and_rates_of_a_seed_see_the_same_images_in_the_same_order(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from driftscope.models import VisionLanguageModel

    seen: dict[str, list[torch.Tensor]] = {}
    embed = VisionLanguageModel.image_embeddings

    def noting(self: VisionLanguageModel, pixels: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen[run].append(pixels.clone())
        return embed(self, pixels)

    monkeypatch.setattr(VisionLanguageModel, "image_embeddings", noting)
    for run, change in {
        "full": {"method": "full_ft"},
        "lora": {"method": "lora", "learning_rate": 1e-2},
        "other": {"method": "full_ft", "seed": 3},
    }.items():
        seen[run] = []
        trained({**tiny_run, **change}, tmp_path / run)
    assert len(seen["full"]) == len(seen["lora"]) == 2 * 2
    assert all(map(torch.equal, seen["full"], seen["lora"]))
    assert not all(map(torch.equal, seen["full"], seen["other"]))


def test_a_run_whose_loss_is_not_finite_ends_as_diverged_with_its_last_good_weights(
    tiny_run: dict, tmp_path: Path
) -> None:
    values = {**tiny_run, "epochs": 3, "learning_rate": 1e-3}
    good = trained({**values, "epochs": 3}, tmp_path / "good")[1]

    spec = parse_run_spec(values)
    setting = prepare(spec)
    adapted = adapt(setting.pretrained, spec.method, len(setting.class_names), spec.seed)
    kept: list[dict[str, torch.Tensor]] = []

    def spoil(event: dict) -> None:
        kept.append(weights(adapted))
        if event["epoch"] == 2:
            with torch.no_grad():
                adapted.classifier.weight.fill_(math.inf)

    training = train(adapted, setting.images, spec, tmp_path / "bad", on_epoch=spoil)
    assert training.diverged
    assert training.events == good.events[:2]
    assert equal(weights(adapted), kept[1])


def test_an_epoch_has_a_step_for_every_started_batch(tiny_run: dict) -> None:
    setting = prepare(parse_run_spec(tiny_run))
    num_images = len(setting.images.train_labels)
    for batch_size in (1, 7, num_images, num_images + 1):
        spec = parse_run_spec({**tiny_run, "batch_size": batch_size})
        assert steps_per_epoch(spec, setting.images) == math.ceil(num_images / batch_size)


def test_events_are_json_and_the_accuracy_is_that_of_the_weights(
    tiny_run: dict, tmp_path: Path
) -> None:
    adapted, training = trained({**tiny_run, "epochs": 1}, tmp_path)
    event = json.loads(json.dumps(training.events[0]))
    images = prepare(parse_run_spec(tiny_run)).images
    assert event["val_accuracy_pct"] == accuracy_pct(adapted, images.val_pixels, images.val_labels)
    assert (event["epoch"], event["step"]) == (1, 2)
