"""The monitor in a Lightning `Trainer`.

    trainer = Trainer(callbacks=[MonitorCallback(monitor, accuracy_metric="val_accuracy")])

Every number goes to all of the trainer's loggers, and into `trainer.callback_metrics`, so that
Lightning's own callbacks can follow it, as
`ModelCheckpoint(monitor="driftscope/retention_pct", mode="max")` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from driftscope.budget_for_loops import Budget
from driftscope.deprecation import keywords
from driftscope.errors import ConfigError
from driftscope.integrations.accuracy import AccuracyMetric, AccuracyUnit, check_monitor
from driftscope.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.strategies import (
        DeepSpeedStrategy,
        FSDPStrategy,
        ModelParallelStrategy,
    )
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    raise ConfigError(
        f"driftscope.integrations.lightning needs Lightning ({error}); install it with: "
        "pip install 'driftscope[lightning]'"
    ) from None

LOG_PREFIX = "driftscope/"


class BudgetCallback(Callback):  # type: ignore[misc]
    """Keeps a model within its retention budget while Lightning trains it.

    Looks at every epoch's end, or every so many optimizer steps if the budget says so.

    Args:
        budget: made of the model before training.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks, if it is the step's turn, and before a validation at the epoch's end."""
        if trainer.is_last_batch:
            self._budget.keep()
        elif self._budget.spec.every != "epoch":
            self._budget.step(trainer.global_step)


class MonitorCallback(Callback):  # type: ignore[misc]
    """Observes the model while Lightning trains it, and ends training when the monitor says so.

    What is due is observed after the validation that may follow, whose accuracy it takes, and
    before the next step; the state at the end of training is always observed. On a stop,
    `driftscope-stopped-step=N.ckpt` is saved in the trainer's `default_root_dir`, to go on from
    with `ckpt_path=`; a stop in the middle of an epoch lets the step at hand finish. The monitor's
    state is part of every Lightning checkpoint.

    In distributed runs the main process observes, and all others follow its decision.

    Args:
        monitor: what observes.
        accuracy_metric: the name under which the module logs its validation accuracy; None where
            there is none.
        accuracy_unit: whether that metric is a `fraction` or in `percent`.
        per_layer: whether every layer's numbers are logged, too.

    Raises:
        ConfigError: an argument is not what it should be.
    """

    @keywords()
    def __init__(
        self,
        monitor: Monitor,
        *,
        accuracy_metric: str | None = None,
        accuracy_unit: AccuracyUnit = "fraction",
        per_layer: bool = False,
    ) -> None:
        check_monitor(monitor, "MonitorCallback(monitor)")
        self._monitor, self._per_layer = monitor, per_layer
        self._accuracy = AccuracyMetric(accuracy_metric, accuracy_unit)
        self._epochs_done = 0.0
        self._observed_step: int | None = None
        self._has_stopped = False

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors apart."""
        return self._generate_state_key(monitor=self._monitor.fingerprint)  # type: ignore[no-any-return]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a training, or goes on from the checkpoint that it goes on from.

        Raises:
            ConfigError: the strategy leaves no process the whole model.
            ModelError: the module holds none that can be read, or several.
        """
        strategy = trainer.strategy
        is_sharded = isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)) or (
            isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
        )
        if is_sharded:
            raise ConfigError(
                "The monitor reads the model on one process, but "
                f"{type(strategy).__name__} leaves no process the whole model; train with DDP, or "
                "compare saved checkpoints with `driftscope compare`."
            )
        self._observed_step, self._has_stopped = None, False
        self._monitor.start(pl_module, step=trainer.global_step)
        here = [one.epoch for one in self._monitor.history if one.step == trainer.global_step]
        # a checkpoint of an epoch's end may not have counted the epoch yet
        self._epochs_done = (here[-1] if here else None) or float(trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Observes what the step before made due, if no validation has."""
        if self._monitor.every != "epoch" and batch_idx > 0:
            self._observe(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes how much of the epoch is done."""
        share = 1.0 if trainer.is_last_batch else (batch_idx + 1) / trainer.num_training_batches
        self._epochs_done = trainer.current_epoch + share

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observes with the accuracy, unless this is no validation of a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            accuracy_pct = self._accuracy.in_percent(trainer.callback_metrics)
            self._observe(trainer, pl_module, accuracy_pct)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observes, if no validation did."""
        self._observe(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observes the final state, and says what the monitor cost."""
        self._observe(trainer, pl_module, is_last=True)
        if trainer.is_global_zero:
            self._monitor.close()

    def state_dict(self) -> dict[str, Any]:
        """The monitor's state, for Lightning's checkpoints."""
        return self._monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a Lightning checkpoint."""
        self._monitor.load_state_dict(state_dict)

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        accuracy_pct: float | None = None,
        *,
        is_last: bool = False,
    ) -> None:
        """Observes on the main process what is due; on all: shows the numbers, stops if told."""
        decision: tuple[dict[str, float], str | None] = {}, None
        if trainer.is_global_zero:
            scalars = self._observed_scalars(trainer, pl_module, accuracy_pct, is_last)
            decision = scalars, self._monitor.stop_reason
        scalars, stop_reason = trainer.strategy.broadcast(decision)
        if scalars:
            self._show(trainer, scalars)
        if stop_reason is not None and not self._has_stopped:
            self._has_stopped = trainer.should_stop = True
            name = f"driftscope-stopped-step={trainer.global_step}.ckpt"
            trainer.save_checkpoint(Path(trainer.default_root_dir) / name)

    def _observed_scalars(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        accuracy_pct: float | None,
        is_last: bool,
    ) -> dict[str, float]:
        step = trainer.global_step
        must_look = is_last and self._observed_step != step
        look = self._monitor.observe if must_look else self._monitor.step
        seen = look(pl_module, step=step, epoch=self._epochs_done, val_accuracy_pct=accuracy_pct)
        if seen is None:
            return {}
        self._observed_step = step
        scalars = seen.scalars(per_layer=self._per_layer)
        return {LOG_PREFIX + name: value for name, value in scalars.items()}

    def _show(self, trainer: Trainer, scalars: dict[str, float]) -> None:
        # Lightning allows no `log` call after a validation has ended, which is when the accuracy
        # is known; so the loggers are called, and the metrics set, as `log` would do.
        trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in scalars.items()}
        )
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
