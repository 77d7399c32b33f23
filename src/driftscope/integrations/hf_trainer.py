"""The monitor in a transformers `Trainer`.

    trainer = Trainer(model, args, train_dataset=…, callbacks=[MonitorCallback(monitor)])
    trainer.train()

The callback finds its Trainer; it can also be given, as
`trainer.add_callback(MonitorCallback(monitor, trainer))`.

Every number goes through `trainer.log`, so wherever the Trainer's own numbers go (`report_to`):
TensorBoard, W&B, MLflow, Trackio, its progress bar, `trainer.state.log_history`.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from driftscope.budget_for_loops import Budget
from driftscope.deprecation import keywords, renamed
from driftscope.errors import ConfigError
from driftscope.integrations.accuracy import AccuracyMetric, AccuracyUnit, check_monitor
from driftscope.monitor import Monitor

CHOICE = "driftscope_choice"
"""`metric_for_best_model=CHOICE` makes the Trainer keep and load the monitor's best checkpoint."""
LOG_PREFIX = "driftscope/"


class MonitorCallback(TrainerCallback):  # type: ignore[misc]
    """Observes the model while a `Trainer` trains it, and ends training when the monitor says so.

    Where an evaluation is to follow, the observation waits for it and takes the accuracy from its
    metrics: an epoch's waits for an evaluation within the next epoch, too, where those come by
    steps. The state at the end of training is always observed. On a stop, the Trainer saves a
    checkpoint, whose `trainer_state.json` holds the reason (in `log_history`); not under
    `save_strategy="best"`, where it saves what is best and nothing else: the model is in the
    monitor's folder then.

    With `load_best_model_at_end=True, metric_for_best_model="driftscope_choice"` in the training
    arguments, the best checkpoint is the monitor's (see `driftscope.Selection`). An earlier
    checkpoint can become the best when a later accuracy moves the mark, so keep them all: set no
    `save_total_limit`.

    In distributed runs the main process observes, and all others follow its decision.

    Args:
        monitor: what observes.
        trainer: the Trainer that the callback is added to; its `log` is used. By default the one
            that calls it first.
        accuracy_metric: the evaluation metric that is the accuracy on the target task; None where
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
        trainer: Trainer | None = None,
        *,
        accuracy_metric: str | None = "eval_accuracy",
        accuracy_unit: AccuracyUnit = "fraction",
        per_layer: bool = False,
    ) -> None:
        check_monitor(monitor, "MonitorCallback(monitor)")
        if trainer is not None and not isinstance(trainer, Trainer):
            raise ConfigError(
                f"trainer is a {type(trainer).__name__}; give the transformers Trainer that the "
                "callback is added to, as in MonitorCallback(monitor, trainer)"
            )
        self._monitor, self._per_layer = monitor, per_layer
        self._given_trainer = trainer
        self._accuracy = AccuracyMetric(accuracy_metric, accuracy_unit)
        self._is_training = False
        self._observed_step: int | None = None
        self._has_stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Takes up the monitor's part of a checkpoint that training goes on from.

        Raises:
            ConfigError: no process holds the whole model, so none could observe it.
            ModelError: the model holds none that can be read, or several.
        """
        self._given_trainer = self._given_trainer or _calling_trainer()
        self._refuse_sharded_models()
        self._is_training = True
        self._observed_step, self._has_stopped = None, False
        if state.is_world_process_zero and self._state_key in state.stateful_callbacks:
            self._monitor.load_state_dict(state.stateful_callbacks[self._state_key])
        self._monitor.start(self._model(), step=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Observes, if it is the step's turn and nothing that comes later would know more."""
        is_epoch_end = float(state.epoch or 0.5).is_integer()
        if self._monitor.every != "epoch" and not is_epoch_end and not control.should_evaluate:
            self._observe(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Observes, unless an evaluation follows that will know the accuracy."""
        if control.should_evaluate:
            return
        is_awaited = self._monitor.every == "epoch" and _evaluates_within_an_epoch(args, state)
        if control.should_training_stop or not is_awaited:
            self._observe(state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """Observes with the accuracy, and says which checkpoint is the best."""
        if not self._is_training or self._is_of_another_set(metrics):
            return
        best_step = self._observe(state, control, self._accuracy.in_percent(metrics))
        if args.metric_for_best_model in (CHOICE, f"eval_{CHOICE}"):
            # The Trainer can only hear that the model at hand is better than all before it;
            # an earlier checkpoint that has become the best is named in its state instead.
            is_best = best_step == state.global_step
            metrics[f"eval_{CHOICE}"] = float(state.global_step) if is_best else float("-inf")
            if best_step is not None and not is_best:
                state.best_global_step = best_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Says what the monitor cost."""
        self._is_training = False
        if state.is_world_process_zero:
            self._monitor.close()

    def _observe(
        self, state: TrainerState, control: TrainerControl, accuracy_pct: float | None = None
    ) -> int | None:
        """Observes on the main process what is due; on all: stops if told. Gives the best step."""
        if state.is_world_process_zero:
            self._observe_and_log(state, control, accuracy_pct)
        reason, best_step = self._decision_of_main_process()
        if reason is not None and not self._has_stopped:
            self._has_stopped = True
            control.should_training_stop = True
            control.should_save = True
            state.log_history.append(
                {f"{LOG_PREFIX}stop_reason": reason, "step": state.global_step}
            )
        return best_step

    def _observe_and_log(
        self, state: TrainerState, control: TrainerControl, accuracy_pct: float | None
    ) -> None:
        step = state.global_step
        is_last = control.should_training_stop and self._observed_step != step
        look = self._monitor.observe if is_last else self._monitor.step
        seen = look(self._model(), step=step, epoch=state.epoch, val_accuracy_pct=accuracy_pct)
        if seen is None:
            return
        self._observed_step = step
        state.stateful_callbacks[self._state_key] = self._monitor.state_dict()
        should_log = control.should_log  # logging clears it, and the loss may still be to come
        scalars = seen.scalars(per_layer=self._per_layer)
        self._trainer.log({LOG_PREFIX + name: value for name, value in scalars.items()})
        control.should_log = should_log

    @property
    def _trainer(self) -> Trainer:
        if self._given_trainer is None:
            raise ConfigError(
                "the callback does not know its Trainer; give it, as in "
                "trainer.add_callback(MonitorCallback(monitor, trainer))"
            )
        return self._given_trainer

    @property
    def _state_key(self) -> str:
        return f"driftscope.Monitor {self._monitor.fingerprint}"

    def _model(self) -> Any:
        unwrap = self._trainer.accelerator.unwrap_model
        return unwrap(self._trainer.model, keep_torch_compile=False)

    def _decision_of_main_process(self) -> tuple[str | None, int | None]:
        """The reason to stop, if there is one, and the step of the best observation so far."""
        best = self._monitor.best
        decision = self._monitor.stop_reason, None if best is None else best.step
        if self._trainer.args.world_size > 1:
            from accelerate.utils import broadcast_object_list

            decision = broadcast_object_list([decision])[0]
        return decision

    def _is_of_another_set(self, metrics: dict[str, float]) -> bool:
        """Whether these are metrics of one evaluation set, and the accuracy comes from another."""
        if self._accuracy.name is None or not isinstance(self._trainer.eval_dataset, dict):
            return False
        names = [f"eval_{name}_" for name in self._trainer.eval_dataset]
        return self._accuracy.name not in metrics and self._accuracy.name.startswith(tuple(names))

    def _refuse_sharded_models(self) -> None:
        from transformers.integrations import is_deepspeed_zero3_enabled

        if self._trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise ConfigError(
                "The monitor reads the model on one process, but FSDP and DeepSpeed ZeRO-3 leave "
                "no process the whole model; train with DDP (or ZeRO-1 or 2), or compare saved "
                "checkpoints with `driftscope compare`."
            )


def __getattr__(name: str) -> Any:
    """`MonitorCallback` by its old name."""
    if name != "DriftscopeCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed(f"{__name__}.DriftscopeCallback", f"{__name__}.MonitorCallback")
    return MonitorCallback


def _calling_trainer() -> Trainer | None:
    """The Trainer whose training calls, which passes itself to no callback."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer):
            return caller
        frame = frame.f_back
    return None


class BudgetCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps a model within its retention budget while a `Trainer` trains it.

    Looks at every epoch's end, or every so many optimizer steps if the budget says so. In
    distributed runs every process looks, and all do the same.

    Args:
        budget: made of the model before training.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Looks, if it is the step's turn."""
        if self._budget.spec.every != "epoch":
            self._budget.step(state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Looks before the epoch's evaluation."""
        self._budget.keep()


def _evaluates_within_an_epoch(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether, at an epoch's end, evaluations come by steps and the next before that of another."""
    if args.eval_strategy != "steps" or args.eval_delay > state.global_step:
        return False
    until_next = state.eval_steps - state.global_step % state.eval_steps
    steps_per_epoch = state.global_step / (state.epoch or 1)
    return bool(until_next < round(steps_per_epoch))
