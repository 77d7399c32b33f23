"""The monitor in a transformers Trainer."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import memory
from hf_training import make_trainer, scripted_accuracies, watch
from local_stores import local_mlflow, mlflow_metric, tensorboard_scalars, wandb_history
from monitored import with_lora
from safetensors.torch import load_file
from small_training import (
    STEPS_PER_EPOCH,
    CountedBudget,
    classifier,
    make_monitor,
    samples,
    seen_at,
    trained_in_two_processes,
)
from transformers import Trainer, TrainerCallback

from driftscope.errors import ConfigError, ModelError
from driftscope.integrations.accuracy import AccuracyMetric
from driftscope.integrations.hf_trainer import (
    CHOICE,
    BudgetCallback,
    MonitorCallback,
)
from driftscope.monitor import Monitor, Selection, Thresholds


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer frees a GPU's memory when it begins, by walking over all of Python's objects."""
    monkeypatch.setattr(memory, "gc", SimpleNamespace(collect=lambda: None))


def test_the_callback_is_given_as_the_trainers_users_write_it(
    tiny_clip: Path, tmp_path: Path
) -> None:
    """`Trainer(callbacks=[…])`: the callback finds the Trainer that calls it."""
    monitor = make_monitor(tiny_clip)
    Trainer(
        classifier(tiny_clip),
        make_trainer(classifier(tiny_clip), tmp_path, num_train_epochs=1).args,
        train_dataset=samples(32),
        callbacks=[MonitorCallback(monitor)],
    ).train()
    [seen] = monitor.history
    assert 0 < seen.scalars()["cka"] <= 1


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def stop_at_once(folder: Path) -> dict[str, Any]:
    thresholds = Thresholds(max_embedding_drift=0.0)
    return {"on_alert": "stop", "alerts": thresholds, "out": folder / "monitored"}


# ---------------------------------------------------------------- training is not changed


def test_a_lora_trains_to_the_same_bits_with_and_without_a_monitor(tmp_path: Path) -> None:
    finals, losses = [], []
    for is_watched in (False, True):
        torch.manual_seed(0)
        model = with_lora(classifier("mini"), dropout=0.1, modules_to_save=["head"])
        trainer = make_trainer(
            model,
            tmp_path / str(is_watched),
            size=56,
            eval_strategy="epoch",
            logging_strategy="steps",
            logging_steps=1,
        )
        if is_watched:
            monitor = make_monitor("mini", size=56, every=4)
            watch(trainer, monitor)
        trainer.train()
        finals.append(weights(trainer))
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert seen_at(monitor) == [4, 8, 12]
    assert monitor.history[-1].drift.embedding_drift > 0
    assert losses[0] == losses[1]
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


@pytest.mark.parametrize(("every", "looked_at"), [("epoch", [6, 12]), (4, [4, 6, 8, 12])])
def test_a_budget_is_looked_after_at_its_steps_and_at_every_epochs_end(
    every: int | str, looked_at: list[int], tiny_clip: Path, tmp_path: Path
) -> None:
    budget = CountedBudget(every)
    trainer = make_trainer(classifier(tiny_clip), tmp_path)
    budget.now = lambda: trainer.state.global_step
    trainer.add_callback(BudgetCallback(budget))  # type: ignore[arg-type]
    trainer.train()
    assert sorted(set(budget.looked_at)) == looked_at


def test_the_trainers_own_logs_are_all_still_there(tiny_clip: Path, tmp_path: Path) -> None:
    logs = []
    for is_watched in (False, True):
        trainer = make_trainer(
            classifier(tiny_clip), tmp_path, logging_strategy="steps", logging_steps=2
        )
        if is_watched:
            watch(trainer, make_monitor(tiny_clip, every=2))
        trainer.train()
        logs.append(
            [(one["step"], one["loss"]) for one in trainer.state.log_history if "loss" in one]
        )
    assert logs[0] == logs[1]
    assert [step for step, _ in logs[0]] == [2, 4, 6, 8, 10, 12]


# ---------------------------------------------------------------- when, and with what accuracy


def test_an_epochs_observation_waits_for_its_evaluation_and_takes_the_accuracy(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(classifier(tiny_clip), tmp_path, eval_strategy="epoch")
    scripted_accuracies(trainer, 0.25, 0.5)
    watch(trainer, monitor).train()
    assert [(seen.step, seen.epoch, seen.val_accuracy_pct) for seen in monitor.history] == [
        (STEPS_PER_EPOCH, 1.0, 25.0),
        (2 * STEPS_PER_EPOCH, 2.0, 50.0),
    ]


def test_without_evaluations_every_epochs_end_is_observed(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    watch(make_trainer(classifier(tiny_clip), tmp_path), monitor).train()
    assert seen_at(monitor) == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert [seen.val_accuracy_pct for seen in monitor.history] == [None, None]


def test_steps_with_an_evaluation_are_observed_with_its_accuracy(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=[2, 3, STEPS_PER_EPOCH])
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, eval_strategy="steps", eval_steps=3, max_steps=6
    )
    scripted_accuracies(trainer, 0.25, 0.5)
    watch(trainer, monitor).train()
    assert [(seen.step, seen.val_accuracy_pct) for seen in monitor.history] == [
        (2, None),
        (3, 25.0),
        (6, 50.0),
    ]


def test_an_epoch_waits_for_an_evaluation_that_comes_by_steps(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, eval_strategy="steps", eval_steps=4, num_train_epochs=3
    )
    scripted_accuracies(trainer, 0.1, 0.2, 0.3, 0.4, 0.5)
    watch(trainer, monitor).train()  # epochs end at 6, 12 and 18
    assert [(seen.step, seen.val_accuracy_pct) for seen in monitor.history] == [
        (8, 20.0),
        (12, 30.0),
        (18, 50.0),
    ]


def test_an_epoch_whose_next_evaluation_is_another_epochs_is_observed_without_an_accuracy(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip),
        tmp_path,
        per_device_train_batch_size=12,
        eval_strategy="steps",
        eval_steps=5,
        num_train_epochs=6,
    )
    scripted_accuracies(trainer, 0.1, 0.2, 0.3)
    watch(trainer, monitor).train()  # epochs end at 2, 4, 6, …
    assert [(seen.step, seen.val_accuracy_pct) for seen in monitor.history] == [
        (2, None),
        (5, 10.0),
        (6, None),
        (8, None),
        (10, 20.0),
        (12, 30.0),
    ]


def test_epochs_are_observed_though_the_first_evaluation_is_far_off(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, eval_strategy="steps", eval_steps=500, num_train_epochs=3
    )
    watch(trainer, monitor).train()
    assert seen_at(monitor) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
    assert monitor.history[-1].val_accuracy_pct is not None  # the Trainer evaluates at the end


def test_epochs_before_the_first_evaluation_are_observed(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, eval_strategy="steps", eval_steps=3, eval_delay=9
    )
    scripted_accuracies(trainer, 0.1, 0.2)
    watch(trainer, monitor).train()
    assert [(seen.step, seen.val_accuracy_pct) for seen in monitor.history] == [
        (STEPS_PER_EPOCH, None),
        (2 * STEPS_PER_EPOCH, 20.0),
    ]


def test_a_step_that_ends_an_epoch_takes_the_accuracy_of_the_epochs_evaluation(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=STEPS_PER_EPOCH)
    trainer = make_trainer(classifier(tiny_clip), tmp_path, eval_strategy="epoch")
    scripted_accuracies(trainer, 0.25, 0.5)
    watch(trainer, monitor).train()
    assert [seen.val_accuracy_pct for seen in monitor.history] == [25.0, 50.0]


def test_the_state_at_the_end_is_observed_in_the_middle_of_an_epoch_too(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    watch(make_trainer(classifier(tiny_clip), tmp_path, max_steps=8), monitor).train()
    assert seen_at(monitor) == [STEPS_PER_EPOCH, 8]


def test_an_evaluation_outside_of_training_is_none_of_the_monitors_business(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path), monitor)
    trainer.evaluate()
    assert monitor.history == []
    trainer.train()
    trainer.evaluate()
    assert len(monitor.history) == 2


def test_the_metric_and_its_unit_can_be_named(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, num_train_epochs=1, eval_strategy="epoch"
    )
    trainer.compute_metrics = lambda _: {"top1": 62.5}
    watch(trainer, monitor, accuracy_metric="eval_top1", accuracy_unit="percent").train()
    assert monitor.history[0].val_accuracy_pct == 62.5


def test_a_metric_that_is_not_there_is_one_warning_that_names_those_there_are(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(classifier(tiny_clip), tmp_path, eval_strategy="epoch")
    trainer.compute_metrics = lambda _: {"top1": 0.5}
    with pytest.warns(UserWarning, match=r"no metric 'eval_accuracy'.*eval_top1") as caught:
        watch(trainer, monitor).train()
    assert sum("driftscope" in str(one.message) for one in caught) == 1
    assert [seen.val_accuracy_pct for seen in monitor.history] == [None, None]


def test_a_percentage_taken_for_a_fraction_is_said_and_not_used(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(classifier(tiny_clip), tmp_path, eval_strategy="epoch")
    scripted_accuracies(trainer, 62.5, 70.0)
    with pytest.warns(UserWarning, match=r"62.5, which is no accuracy as a fraction.*percent"):
        watch(trainer, monitor).train()
    assert [seen.val_accuracy_pct for seen in monitor.history] == [None, None]


@pytest.mark.parametrize("value", [{"accuracy": 0.5}, "high", torch.tensor([0.5, 0.6])])
def test_a_metric_that_is_no_number_is_said_and_ends_no_training(value: Any) -> None:
    metric = AccuracyMetric("eval_accuracy", "fraction")
    with pytest.warns(UserWarning, match="'eval_accuracy' is .*, no number"):
        assert metric.in_percent({"eval_accuracy": value}) is None


def test_of_several_evaluation_sets_the_one_that_is_named_gives_the_accuracy(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path, num_train_epochs=1, eval_strategy="epoch"
    )
    trainer.eval_dataset = {"other": samples(count=3), "target": samples(count=6)}
    scripted_accuracies(trainer, 0.1, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        watch(trainer, monitor, accuracy_metric="eval_target_accuracy").train()
    assert [seen.val_accuracy_pct for seen in monitor.history] == [90.0]


def test_an_unknown_unit_is_refused_in_one_sentence(tiny_clip: Path, tmp_path: Path) -> None:
    trainer = make_trainer(classifier(tiny_clip), tmp_path)
    with pytest.raises(ConfigError, match=r"'fraction'.*'percent'"):
        MonitorCallback(make_monitor(tiny_clip), trainer, accuracy_unit="share")  # type: ignore[arg-type]


def test_arguments_in_the_wrong_order_are_refused_in_one_sentence(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor, trainer = make_monitor(tiny_clip), make_trainer(classifier(tiny_clip), tmp_path)
    with pytest.raises(ConfigError, match=r"monitor is a Trainer; .*MonitorCallback\(monitor\)"):
        MonitorCallback(trainer, monitor)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="trainer is a Monitor; give the transformers Trainer"):
        MonitorCallback(monitor, monitor)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_found_is_refused_before_the_first_step(
    tiny_clip: Path, tmp_path: Path
) -> None:
    model = classifier(tiny_clip)
    model.teacher = classifier(tiny_clip)
    trainer = watch(make_trainer(model, tmp_path), make_monitor(tiny_clip))
    with pytest.raises(ModelError, match="holds 2 models"):
        trainer.train()
    assert trainer.state.global_step == 0


# ---------------------------------------------------------------- where the numbers go


def test_every_number_reaches_tensorboard_and_mlflow_through_report_to(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = make_monitor(tiny_clip, transfer=str(coloured_images))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    with local_mlflow(tmp_path, monkeypatch) as uri:
        trainer = make_trainer(
            classifier(tiny_clip),
            tmp_path / "out",
            eval_strategy="epoch",
            report_to=["tensorboard", "mlflow"],
        )
        watch(trainer, monitor).train()
        expected = {
            name: [(seen.step, seen.scalars()[name]) for seen in monitor.history]
            for name in monitor.history[-1].scalars()
        }
        assert {"embedding_drift", "cka", "retention_pct", "val_accuracy_pct"} <= set(expected)
        shown = tensorboard_scalars(tmp_path / "board")
        for name, values in expected.items():
            # the Trainer's TensorBoard callback puts all that is no evaluation under train/
            found = shown[f"train/driftscope/{name}"]
            assert [step for step, _ in found] == [step for step, _ in values]
            assert [value for _, value in found] == pytest.approx([v for _, v in values], rel=1e-6)
            assert mlflow_metric(uri, f"driftscope/{name}") == values


def test_every_number_reaches_wandb_offline(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
    monitor = make_monitor(tiny_clip, transfer=str(coloured_images))
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path / "out", eval_strategy="epoch", report_to=["wandb"]
    )
    watch(trainer, monitor).train()
    wandb.teardown()  # finishes the run, and waits for the process that writes it
    shown = wandb_history(tmp_path)
    for name in ("embedding_drift", "cka", "retention_pct", "val_accuracy_pct"):
        found = shown[f"train/driftscope/{name}"]  # where the Trainer puts what is no evaluation
        assert [step for step, _ in found] == [seen.step for seen in monitor.history]
        assert [value for _, value in found] == [seen.scalars()[name] for seen in monitor.history]


def test_every_number_reaches_trackio_on_this_disk(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    monitor = make_monitor(tiny_clip, transfer=str(coloured_images))
    trainer = make_trainer(
        classifier(tiny_clip),
        tmp_path / "out",
        eval_strategy="epoch",
        report_to=["trackio"],
        project="small",
        run_name="one",
    )
    watch(trainer, monitor).train()
    rows = trackio.SQLiteStorage.get_logs("small", "one")
    for name in ("embedding_drift", "cka", "retention_pct", "val_accuracy_pct"):
        key = f"train/driftscope/{name}"
        found = [(row["train/global_step"], row[key]) for row in rows if key in row]
        assert found == [(seen.step, seen.scalars()[name]) for seen in monitor.history]


def test_every_layers_numbers_are_logged_if_asked_for(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(classifier(tiny_clip), tmp_path, num_train_epochs=1)
    watch(trainer, monitor, per_layer=True).train()
    (logged,) = [one for one in trainer.state.log_history if "driftscope/cka" in one]
    assert logged["driftscope/cka_layer_02"] == monitor.history[0].drift.cka_per_block[1]


# ---------------------------------------------------------------- stopping


def test_a_stop_ends_training_with_a_checkpoint_that_says_why(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, **stop_at_once(tmp_path))
    trainer = make_trainer(
        classifier(tiny_clip), tmp_path / "out", num_train_epochs=5, eval_strategy="epoch"
    )
    watch(trainer, monitor).train()
    assert trainer.state.global_step == STEPS_PER_EPOCH
    checkpoint = tmp_path / "out" / f"checkpoint-{STEPS_PER_EPOCH}"
    saved = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights(trainer).items())
    told = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"][-1]
    assert told["driftscope/stop_reason"] == monitor.stop_reason
    assert told["step"] == STEPS_PER_EPOCH


def test_a_stop_at_a_step_ends_training_right_there(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip, every=2, **stop_at_once(tmp_path))
    trainer = make_trainer(classifier(tiny_clip), tmp_path / "out")
    watch(trainer, monitor).train()
    assert trainer.state.global_step == 2
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").exists()


def test_a_stop_at_the_last_step_is_told_and_saved_too(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip, **stop_at_once(tmp_path))
    trainer = make_trainer(classifier(tiny_clip), tmp_path / "out", num_train_epochs=1)
    watch(trainer, monitor).train()
    checkpoint = tmp_path / "out" / f"checkpoint-{STEPS_PER_EPOCH}"
    told = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"][-1]
    assert told["driftscope/stop_reason"] == monitor.stop_reason


def test_a_second_training_with_the_same_callback_is_not_ended_by_the_firsts_stop(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=2, **stop_at_once(tmp_path))
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path / "out"), monitor)
    for _ in range(2):
        trainer.train()
        assert seen_at(monitor) == [2]  # that of this training
        assert trainer.state.log_history[-2]["driftscope/stop_reason"] == monitor.stop_reason


def test_two_monitors_of_one_training_go_on_each_with_its_own(
    tiny_clip: Path, other_tiny_clip: Path, tmp_path: Path
) -> None:
    settings = {"save_strategy": "epoch"}
    for is_resumed in (False, True):
        monitors = [make_monitor(folder) for folder in (tiny_clip, other_tiny_clip)]
        trainer = make_trainer(classifier(tiny_clip), tmp_path, **settings)
        for monitor in monitors:
            watch(trainer, monitor)
        first = str(tmp_path / f"checkpoint-{STEPS_PER_EPOCH}") if is_resumed else None
        trainer.train(resume_from_checkpoint=first)
        drifts = [monitor.history[0].drift.embedding_drift for monitor in monitors]
        assert drifts[0] < drifts[1]
        assert [seen_at(one) for one in monitors] == [[STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]] * 2


def test_two_monitors_that_look_at_other_times_go_on_each_with_its_own(
    tiny_clip: Path, tmp_path: Path
) -> None:
    expected = [[STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH], [4, 8, 12]]
    for is_resumed in (False, True):
        monitors = [make_monitor(tiny_clip, every=every) for every in ("epoch", 4)]
        trainer = make_trainer(classifier(tiny_clip), tmp_path, save_steps=8, save_strategy="steps")
        for monitor in monitors:
            watch(trainer, monitor)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8") if is_resumed else None)
        assert [seen_at(one) for one in monitors] == expected


def test_training_goes_on_from_the_checkpoint_of_a_stop(tiny_clip: Path, tmp_path: Path) -> None:
    stopped = make_trainer(classifier(tiny_clip), tmp_path / "out")
    watch(stopped, make_monitor(tiny_clip, every=2, **stop_at_once(tmp_path))).train()
    monitor = make_monitor(tiny_clip, every=2)
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path / "out"), monitor)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2 * STEPS_PER_EPOCH
    assert seen_at(monitor) == [2, 4, 6, 8, 10, 12]


# ---------------------------------------------------------------- the best of two metrics


def trained_for_choice(
    tiny_clip: Path, out: Path, monitor: Monitor, accuracies: list[float], **settings: Any
) -> Trainer:
    trainer = make_trainer(
        classifier(tiny_clip),
        out,
        num_train_epochs=len(accuracies),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=CHOICE,
        **settings,
    )
    scripted_accuracies(trainer, *accuracies)
    watch(trainer, monitor).train()
    return trainer


@pytest.mark.parametrize(
    ("accuracies", "chosen_epoch"),
    [
        ([0.80, 0.805, 0.60], 1),  # the first is accurate enough and has drifted least
        ([0.70, 0.80, 0.805], 2),
        ([0.10, 0.20, 0.90], 3),
        ([0.800, 0.805, 0.812], 2),  # the third pushes the first out: the second becomes the best
    ],
)
def test_the_best_checkpoint_is_accurate_enough_and_has_drifted_least(
    tiny_clip: Path, tmp_path: Path, accuracies: list[float], chosen_epoch: int
) -> None:
    monitor = make_monitor(tiny_clip, selection=Selection(by="embedding_drift"))
    trainer = trained_for_choice(tiny_clip, tmp_path, monitor, accuracies)
    drifts = [seen.drift.embedding_drift for seen in monitor.history]
    assert drifts == sorted(drifts)  # it drifts on and on, so the earliest within reach is chosen
    assert monitor.best.step == chosen_epoch * STEPS_PER_EPOCH
    chosen = tmp_path / f"checkpoint-{monitor.best.step}"
    assert Path(trainer.state.best_model_checkpoint) == chosen
    saved = load_file(chosen / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights(trainer).items())


def test_an_evaluation_that_is_not_observed_is_never_the_best(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(
        classifier(tiny_clip),
        tmp_path,
        num_train_epochs=1,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model=CHOICE,
    )
    scripted_accuracies(trainer, 0.9, 0.5)
    watch(trainer, monitor).train()
    assert seen_at(monitor) == [STEPS_PER_EPOCH]
    assert trainer.state.best_global_step == STEPS_PER_EPOCH


# ---------------------------------------------------------------- going on, and what is refused


def test_a_resumed_training_keeps_what_was_observed_before_its_checkpoint(
    tiny_clip: Path, tmp_path: Path
) -> None:
    first = make_monitor(tiny_clip)
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3}
    watch(make_trainer(classifier(tiny_clip), tmp_path, **settings), first).train()

    second = make_monitor(tiny_clip)
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path, **settings), second)
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STEPS_PER_EPOCH}"))
    assert seen_at(second) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
    for before, after in zip(first.history, second.history, strict=True):
        assert before.scalars() == after.scalars()


def test_a_checkpoint_from_before_its_epochs_observation_loses_none(
    tiny_clip: Path, tmp_path: Path
) -> None:
    settings = {"save_strategy": "steps", "save_steps": STEPS_PER_EPOCH, "num_train_epochs": 3}
    out = tmp_path / "monitored"
    first = make_monitor(tiny_clip, out=out)
    watch(make_trainer(classifier(tiny_clip), tmp_path, **settings), first).train()
    before = first.history
    second = make_monitor(tiny_clip, out=out)
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path, **settings), second)
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{2 * STEPS_PER_EPOCH}"))
    assert seen_at(second) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
    assert second.history[:2] == before[:2]
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events if event["kind"] == "observation"]
    assert steps == seen_at(second)


def test_a_model_that_no_process_holds_whole_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    trainer = watch(make_trainer(classifier(tiny_clip), tmp_path), make_monitor(tiny_clip))
    (callback,) = [
        one for one in trainer.callback_handler.callbacks if type(one) is MonitorCallback
    ]
    trainer.is_fsdp_enabled = True
    with pytest.raises(ConfigError, match=r"FSDP.*train with DDP"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_the_cost_is_told_at_the_end(tiny_clip: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    monitor = make_monitor(tiny_clip, echo=lines.append)
    watch(make_trainer(classifier(tiny_clip), tmp_path), monitor).train()
    assert any("observations took" in line and "% of the time" in line for line in lines)


def test_of_two_processes_one_observes_and_both_stop_and_load_the_same_best(
    tiny_clip: Path, tmp_path: Path
) -> None:
    main, other = trained_in_two_processes("hf_trainer", tiny_clip, tmp_path)
    assert main["observed"] == [3, 6, 9]
    assert other["observed"] == []
    for key, value in {"processes": 2, "steps": 9, "best": 3}.items():
        assert main[key] == other[key] == value
    assert main["weight_sum"] == other["weight_sum"]


class _NothingElse(TrainerCallback):
    """A callback that comes after the monitor's and notes whether training was to stop."""

    def __init__(self) -> None:
        self.stops: list[bool] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stops.append(control.should_training_stop)


def test_callbacks_after_the_monitor_see_its_decision(tiny_clip: Path, tmp_path: Path) -> None:
    trainer = make_trainer(classifier(tiny_clip), tmp_path)
    after = _NothingElse()
    watch(trainer, make_monitor(tiny_clip, every=2, **stop_at_once(tmp_path)))
    trainer.add_callback(after)
    trainer.train()
    assert after.stops == [False, True]
