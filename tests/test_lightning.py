"""The monitor in a Lightning Trainer."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning_training import Module, fit, loaders, make_trainer
from local_stores import MLFLOW_EXPERIMENT, local_mlflow, mlflow_metric, tensorboard_scalars
from monitored import WORDS
from small_training import (
    STEPS_PER_EPOCH,
    CountedBudget,
    classifier,
    make_monitor,
    seen_at,
    trained_in_two_processes,
)

from driftscope.errors import ConfigError, DriftscopeError
from driftscope.integrations.lightning import BudgetCallback, MonitorCallback
from driftscope.monitor import Thresholds


def stop_at_once(folder: Path) -> dict[str, Any]:
    thresholds = Thresholds(max_embedding_drift=0.0)
    return {"on_alert": "stop", "alerts": thresholds, "out": folder / "monitored"}


@pytest.mark.parametrize(("every", "looked_at"), [("epoch", [6, 12]), (4, [4, 6, 8, 12])])
def test_a_budget_is_looked_after_at_its_steps_and_at_every_epochs_end(
    every: int | str, looked_at: list[int], tiny_clip: Path, tmp_path: Path
) -> None:
    budget = CountedBudget(every)
    module = Module(tiny_clip)
    trainer = make_trainer(tmp_path, BudgetCallback(budget))  # type: ignore[arg-type]
    budget.now = lambda: trainer.global_step
    fit(trainer, module)
    assert budget.looked_at == looked_at


# ---------------------------------------------------------------- training is not changed


def test_a_model_trains_to_the_same_bits_with_and_without_a_monitor(
    tiny_clip: Path, tmp_path: Path
) -> None:
    finals = []
    for is_watched in (False, True):
        torch.manual_seed(0)
        monitor = make_monitor(tiny_clip, every=2)
        callbacks = [MonitorCallback(monitor)] if is_watched else []
        module = Module(tiny_clip)
        fit(make_trainer(tmp_path, *callbacks), module)
        finals.append(module.state_dict())
    assert seen_at(monitor) == [2, 4, 6, 8, 10, 12]
    assert monitor.history[-1].drift.embedding_drift > 0
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


# ---------------------------------------------------------------- when, and with what accuracy


@pytest.mark.parametrize("logs_late", [False, True])
def test_an_epochs_observation_takes_the_accuracy_of_its_validation(
    tiny_clip: Path, tmp_path: Path, logs_late: bool
) -> None:
    monitor = make_monitor(tiny_clip)
    callback = MonitorCallback(monitor, accuracy_metric="val_accuracy")
    fit(make_trainer(tmp_path, callback), Module(tiny_clip, 0.25, 0.5, logs_late=logs_late))
    assert [(seen.step, seen.epoch, seen.val_accuracy_pct) for seen in monitor.history] == [
        (STEPS_PER_EPOCH, 1.0, 25.0),
        (2 * STEPS_PER_EPOCH, 2.0, 50.0),
    ]


def test_an_epoch_without_a_validation_does_not_take_an_earlier_ones_accuracy(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    callback = MonitorCallback(monitor, accuracy_metric="val_accuracy")
    trainer = make_trainer(tmp_path, callback, max_epochs=3, check_val_every_n_epoch=2)
    fit(trainer, Module(tiny_clip, 0.5))
    assert [seen.val_accuracy_pct for seen in monitor.history] == [None, 50.0, None]


def test_the_sanity_check_and_validations_outside_of_a_training_are_not_observed(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    module = Module(tiny_clip)
    trainer = make_trainer(tmp_path, MonitorCallback(monitor), num_sanity_val_steps=1)
    trainer.validate(module, loaders()[1], verbose=False)
    assert monitor.history == []
    fit(trainer, module)
    assert seen_at(monitor) == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_steps_are_observed_with_the_accuracy_of_a_validation_that_follows_them(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=[2, 3, 6])
    callback = MonitorCallback(monitor, accuracy_metric="val_accuracy")
    trainer = make_trainer(tmp_path, callback, max_epochs=1, val_check_interval=3)
    fit(trainer, Module(tiny_clip, 0.25, 0.5))
    assert [(seen.step, seen.val_accuracy_pct) for seen in monitor.history] == [
        (2, None),
        (3, 25.0),
        (6, 50.0),
    ]
    assert [seen.epoch for seen in monitor.history] == [2 / 6, 3 / 6, 1.0]


def test_the_state_at_the_end_is_observed_in_the_middle_of_an_epoch_too(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip)
    fit(make_trainer(tmp_path, MonitorCallback(monitor), max_steps=8), Module(tiny_clip))
    assert seen_at(monitor) == [STEPS_PER_EPOCH, 8]
    assert monitor.history[-1].epoch == 8 / 6


def test_a_metric_that_is_not_there_is_one_warning_that_names_those_there_are(
    tiny_clip: Path, tmp_path: Path
) -> None:
    callback = MonitorCallback(make_monitor(tiny_clip), accuracy_metric="accuracy")
    with pytest.warns(UserWarning, match=r"no metric 'accuracy'.*gave val_accuracy"):
        fit(make_trainer(tmp_path, callback), Module(tiny_clip, 0.25, 0.5))


# ---------------------------------------------------------------- where the numbers go


def test_every_number_reaches_tensorboard_and_mlflow_through_lightnings_loggers(
    tiny_clip: Path, coloured_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = make_monitor(tiny_clip, transfer=str(coloured_images))
    with local_mlflow(tmp_path, monkeypatch) as uri:
        board = TensorBoardLogger(tmp_path / "board")
        tracker = MLFlowLogger(MLFLOW_EXPERIMENT, tracking_uri=uri)
        trainer = make_trainer(tmp_path, MonitorCallback(monitor), logger=[board, tracker])
        fit(trainer, Module(tiny_clip))
        expected = {
            name: [(seen.step, seen.scalars()[name]) for seen in monitor.history]
            for name in monitor.history[-1].scalars()
        }
        assert {"embedding_drift", "cka", "retention_pct"} <= set(expected)
        shown = tensorboard_scalars(tmp_path / "board")
        for name, values in expected.items():
            found = shown[f"driftscope/{name}"]
            assert [step for step, _ in found] == [step for step, _ in values]
            assert [value for _, value in found] == pytest.approx([v for _, v in values], rel=1e-6)
            assert mlflow_metric(uri, f"driftscope/{name}") == values


def test_lightnings_own_checkpointing_can_follow_the_drift(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="driftscope/embedding_drift", mode="min")
    trainer = make_trainer(
        tmp_path, MonitorCallback(monitor), keeper, enable_checkpointing=True, max_epochs=3
    )
    fit(trainer, Module(tiny_clip))
    least = min(monitor.history, key=lambda seen: seen.drift.embedding_drift)
    assert f"step={least.step}" in keeper.best_model_path
    assert float(keeper.best_model_score) == pytest.approx(least.drift.embedding_drift)


def test_every_layers_numbers_are_logged_if_asked_for(tiny_clip: Path, tmp_path: Path) -> None:
    monitor = make_monitor(tiny_clip)
    trainer = make_trainer(tmp_path, MonitorCallback(monitor, per_layer=True), max_epochs=1)
    fit(trainer, Module(tiny_clip))
    logged = float(trainer.callback_metrics["driftscope/cka_layer_02"])
    assert logged == pytest.approx(monitor.history[0].drift.cka_per_block[1])


# ---------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize(("every", "seen_step", "last_step"), [("epoch", 6, 6), (2, 2, 3)])
def test_a_stop_ends_training_and_leaves_a_checkpoint_to_go_on_from(
    tiny_clip: Path, tmp_path: Path, every: Any, seen_step: int, last_step: int
) -> None:
    monitor = make_monitor(tiny_clip, every=every, **stop_at_once(tmp_path))
    trainer = make_trainer(tmp_path, MonitorCallback(monitor), max_epochs=5)
    fit(trainer, Module(tiny_clip))
    assert trainer.global_step == last_step
    assert monitor.stop_reason
    checkpoint = tmp_path / f"driftscope-stopped-step={seen_step}.ckpt"

    second = make_monitor(tiny_clip, every=every)
    resumed = make_trainer(tmp_path, MonitorCallback(second))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before.*")
        fit(resumed, Module(tiny_clip), ckpt_path=checkpoint, weights_only=False)
    assert resumed.global_step == 2 * STEPS_PER_EPOCH
    assert second.history[0].scalars() == monitor.history[0].scalars()
    assert seen_at(second)[0] == seen_step
    assert seen_at(second)[-1] == 2 * STEPS_PER_EPOCH


def test_a_checkpoint_from_before_its_epochs_observation_loses_none(
    tiny_clip: Path, tmp_path: Path
) -> None:
    histories = []
    for checkpoint in (None, tmp_path / f"epoch=1-step={2 * STEPS_PER_EPOCH}.ckpt"):
        monitor = make_monitor(tiny_clip, out=tmp_path / "monitored")
        keeper = ModelCheckpoint(tmp_path, every_n_train_steps=STEPS_PER_EPOCH, save_top_k=-1)
        callbacks = keeper, MonitorCallback(monitor)
        trainer = make_trainer(tmp_path, *callbacks, enable_checkpointing=True, max_epochs=3)
        fit(trainer, Module(tiny_clip), ckpt_path=checkpoint, weights_only=False)
        histories.append(monitor.history)
    assert seen_at(monitor) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
    assert histories[1][:2] == histories[0][:2]


class _EndsFirst(Callback):  # type: ignore[misc]
    """Ends the training before the monitor does, as EarlyStopping may."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True


def test_a_stop_of_a_training_that_ends_anyway_leaves_a_checkpoint_too(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=1000, **stop_at_once(tmp_path))
    fit(make_trainer(tmp_path, _EndsFirst(), MonitorCallback(monitor)), Module(tiny_clip))
    assert seen_at(monitor) == [STEPS_PER_EPOCH]
    assert (tmp_path / f"driftscope-stopped-step={STEPS_PER_EPOCH}.ckpt").exists()


def test_a_second_training_with_the_same_callback_is_not_ended_by_the_firsts_stop(
    tiny_clip: Path, tmp_path: Path
) -> None:
    monitor = make_monitor(tiny_clip, every=2, **stop_at_once(tmp_path))
    callback = MonitorCallback(monitor)
    for number in (1, 2):
        trainer = make_trainer(tmp_path / str(number), callback, max_epochs=1)
        fit(trainer, Module(tiny_clip))
        assert trainer.global_step == 3
        assert seen_at(monitor)[0] == 2
        assert (tmp_path / str(number) / "driftscope-stopped-step=2.ckpt").exists()


def test_two_monitors_of_one_training_keep_their_states_apart(
    tiny_clip: Path, other_tiny_clip: Path, tmp_path: Path
) -> None:
    monitors = [make_monitor(folder) for folder in (tiny_clip, other_tiny_clip)]
    trainer = make_trainer(tmp_path, *map(MonitorCallback, monitors))
    fit(trainer, Module(tiny_clip))
    states = trainer._checkpoint_connector.dump_checkpoint()["callbacks"]
    assert {one["monitor"]["pretrained"] for one in states.values() if "monitor" in one} == {
        str(tiny_clip),
        str(other_tiny_clip),
    }


class _WithAverage(Module):
    """A student, and an average of it that a training may hold beside it."""

    def __init__(self, clip_folder: Path) -> None:
        super().__init__(clip_folder)
        self.average = classifier(clip_folder).requires_grad_(False)


@pytest.mark.parametrize(
    "options",
    [
        [{"model_path": "net"}, {"model_path": "average"}],
        [{"model_path": "net", "every": every} for every in ("epoch", 1, [1])],
        [{"model_path": "net", "maps": maps} for maps in (False, True)],
        [{"model_path": "net", "vocabulary": texts} for texts in (WORDS, WORDS[:2])],
    ],
)
def test_two_monitors_of_one_model_may_differ_in_what_they_read_and_when(
    options: list[dict[str, Any]], tiny_clip: Path, tmp_path: Path
) -> None:
    callbacks = [MonitorCallback(make_monitor(tiny_clip, **one)) for one in options]
    trainer = make_trainer(tmp_path, *callbacks, max_epochs=1)
    fit(trainer, _WithAverage(tiny_clip))
    keys = [one.state_key for one in callbacks]
    assert len(set(keys)) == len(options)
    restarted = [MonitorCallback(make_monitor(tiny_clip, **one)) for one in options]
    assert keys == [one.state_key for one in restarted]


def test_what_is_no_monitor_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"monitor is a str; give a driftscope\.Monitor"):
        MonitorCallback("monitor")  # type: ignore[arg-type]


def test_a_strategy_that_leaves_no_process_the_whole_model_is_refused(
    tiny_clip: Path, tmp_path: Path
) -> None:
    callback = MonitorCallback(make_monitor(tiny_clip))
    trainer = make_trainer(tmp_path, callback)
    trainer.strategy.__class__ = FSDPStrategy  # one cannot be made without a GPU
    with pytest.raises(ConfigError, match=r"FSDPStrategy.*train with DDP"):
        callback.on_train_start(trainer, Module(tiny_clip))


def test_of_two_processes_one_observes_and_both_stop(tiny_clip: Path, tmp_path: Path) -> None:
    main, other = trained_in_two_processes("lightning", tiny_clip, tmp_path)
    assert main.pop("observed") == [3, 6, 9]
    assert other.pop("observed") == []
    assert main == other
    assert (main["processes"], main["steps"]) == (2, 9)


def test_without_lightning_the_exact_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "driftscope.integrations.lightning"
    monkeypatch.delitem(sys.modules, name)
    for one in [one for one in sys.modules if one.split(".")[0] == "lightning"]:
        monkeypatch.setitem(sys.modules, one, None)
    with pytest.raises(
        DriftscopeError, match=r"install it with: pip install 'driftscope\[lightning\]'$"
    ):
        import_module(name)
