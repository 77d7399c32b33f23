"""The monitor that a training loop calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from driftscope.data.duplicates import found_among
from driftscope.errors import RecordError
from driftscope.models import VisionLanguageModel
from driftscope.monitor.alerts import (
    Alert,
    Thresholds,
    alerts_of,
    first_told,
    probe_in_training_alert,
    told_before_training,
)
from driftscope.monitor.arguments import (
    check_options,
    counted,
    epochs_done,
    percentage,
    transfer_names,
)
from driftscope.monitor.baseline import make_baseline, pretrained_model
from driftscope.monitor.images import Images, portions, some_pixels
from driftscope.monitor.keeping import candidate_folder, drop_candidates_but, keep_model
from driftscope.monitor.log import STOP, EventLog, check_same_training
from driftscope.monitor.look import look
from driftscope.monitor.observation import Observation
from driftscope.monitor.reporting import report_of, write_report
from driftscope.monitor.schedule import Every, Schedule, has_gone_back
from driftscope.monitor.selection import Selection
from driftscope.monitor.targets import Target, find_target
from driftscope.monitor.untouched import untouched_training
from driftscope.records import Overlay

OnAlert = Literal["warn", "stop"] | Callable[[Alert], object]
DEFAULT_OUT = Path("driftscope-monitor")
STOPPED_FOLDER = "stopped"
_STATE_SCHEMA = 1


class Monitor:
    """Watches a model in training against its pretrained self, and changes nothing of it.

    Args:
        pretrained: the model before: anything `driftscope.load` takes, a loaded model, or a
            CLIPModel (or open_clip model), whose weights are copied now: it may be the very
            object that will be trained.
        probe_images: unlabeled images of the target domain, on which signals are read. Of a
            dataset its test split.
        transfer: labeled datasets on which zero-shot ability is followed; the first is the main.
        vocabulary: the texts that text-space drift is seen against: `general` for the built-in
            everyday words, or texts of one's own; None for none.
        every: when `step` observes: `epoch`, a number of steps, or the steps themselves.
        out: folder for `events.jsonl`, reports and checkpoints; None writes nothing until
            `report` or a stop. A folder with an earlier part of the same training is gone on with.
        train_images: the training images, to be searched for probe images by pixel hash. Of a
            dataset its training split.
        alerts: when alerts are raised.
        on_alert: `warn` prints each new alert, `stop` also sets `should_stop`, a function is
            called with it (and stops the training if it returns `"stop"`). After a restart an
            alert that still holds is told, and acted on, once more.
        selection: how the best checkpoint is chosen, and when to stop early.
        keep_best: whether models that are, or can still become, the best are kept in `out`.
        model_path: where the CLIP is in the model given to `step`, as in
            `model.get_submodule(model_path)`, if its type alone does not tell.
        max_probe_images: how many probe images are read at most, evenly spaced. 64 follow a
            training at little cost; 200 give the precision of a study's runs (docs/speed.md); None
            for all.
        max_transfer_images: how many images of each transfer set are read at most; None for all.
        maps: whether to read rollout and patch-to-patch entropy too (full attention maps).
        echo: what prints the lines of the terminal; None for silence.

    In a distributed training the first process writes and prints; on the others a monitor is dumb.

    Raises:
        ModelError, DataError, ConfigError, RecordError: an argument cannot be used; the sentence
            says which and what would be right.
    """

    def __init__(
        self,
        pretrained: str | Path | VisionLanguageModel | nn.Module,
        probe_images: Images,
        *,
        transfer: Sequence[str | Path] | str | Path | None = None,
        vocabulary: str | Sequence[str] | None = "general",
        every: Every = "epoch",
        out: str | Path | None = None,
        train_images: Images | None = None,
        alerts: Thresholds | None = None,
        on_alert: OnAlert = "warn",
        selection: Selection | None = None,
        keep_best: bool = False,
        model_path: str | None = None,
        max_probe_images: int | None = 64,
        max_transfer_images: int | None = 1000,
        maps: bool = False,
        echo: Callable[[str], object] | None = print,
    ) -> None:
        check_options(
            out=out,
            alerts=alerts,
            on_alert=on_alert,
            keep_best=keep_best,
            echo=echo,
            selection=selection,
            model_path=model_path,
            max_probe_images=max_probe_images,
            max_transfer_images=max_transfer_images,
            maps=maps,
        )
        self._is_main = _is_main_process()
        if not self._is_main:
            keep_best, echo = False, None  # one process writes and speaks
        self._schedule = Schedule(every)
        self._thresholds, self._selection = alerts or Thresholds(), selection or Selection()
        self._on_alert, self._keep_best = on_alert, keep_best
        self._model_path, self._echo = model_path, echo
        self._out = None if out is None else Path(out).expanduser()
        began = time.perf_counter()
        before = pretrained_model(pretrained, model_path)
        with untouched_training(before.device):
            name, pixels = some_pixels(
                probe_images, before.image_size, max_probe_images, "probe_images"
            )
            self._baseline = make_baseline(
                before,
                pixels,
                transfer=transfer_names(transfer),
                vocabulary=vocabulary,
                max_transfer_images=max_transfer_images,
                maps=maps,
            )
            leaked = self._probe_images_among(train_images, pixels)
        found = probe_in_training_alert(leaked, len(pixels), self._thresholds)
        self._header = self._described(name, vocabulary, found)
        self._log = EventLog(self._out if self._is_main else None, self._header)
        self._before_training = found or told_before_training(self._log.restored_headers)
        self._history = list(self._log.restored)
        self._num_restored = len(self._history)
        self._calls = 0  # of this process: uncounted steps cannot go on from a former one's
        self._begins_anew = False  # a training, with no observation of it yet
        self._alerts = [*self._before_training, *first_told(self._history)]
        self._told: set[str] = set()  # the kinds that this process's last observation told
        self._stop_reason: str | None = None
        self._shown_rows: dict[int, Tensor] = {}
        self._stop_is_kept = False
        self._cost_seconds = 0.0
        self._started = time.perf_counter()
        self.setup_seconds = self._started - began
        for alert in found:
            self._tell(alert)

    # ------------------------------------------------------------ what a loop calls

    def step(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        epoch: float | None = None,
        val_accuracy_pct: float | None = None,
    ) -> Observation | None:
        """Observes the model if an observation is due; call it as often as is convenient.

        Args:
            model: the model in training: a CLIPModel, PEFT around one, a module of your own that
                holds one, or an open_clip model.
            step: optimizer steps done. Calls of this process are counted where it is not given;
                to go on after a restart, give it.
            epoch: epochs done. A whole number (an int) makes an observation due once; a float
                does when it has passed a whole number. With `every="epoch"` and without it, every
                call is the end of an epoch.
            val_accuracy_pct: accuracy on the target task, in percent, in [0, 100].

        Returns:
            What was seen; None where nothing was due.

        Raises:
            ModelError: the model holds no CLIP, or several.
            CaptureError: the model is another one than the pretrained.
        """
        if not self.is_due(step=step, epoch=epoch):
            self._calls = self._step_at(step)
            self._begins_anew = self._last_look(self._calls, epochs_done(epoch)) is None
            return None
        return self.observe(model, step=step, epoch=epoch, val_accuracy_pct=val_accuracy_pct)

    def is_due(self, *, step: int | None = None, epoch: float | None = None) -> bool:
        """Whether `step` would observe: so that a validation can be run only then."""
        at, epoch = self._step_at(step), epochs_done(epoch)
        last = self._last_look(at, epoch)
        return self._schedule.is_due(
            at, epoch, last.step if last else 0, last.epoch if last else None
        )

    def _step_at(self, step: int | None) -> int:
        return self._calls + 1 if step is None else counted(step)

    def _last_look(self, at: int, epoch: float | None) -> Observation | None:
        """The last observation of this training; None where one begins, the first or another."""
        last = self._history[-1] if self._history else None
        if last is not None and len(self._history) == self._num_restored and at <= last.step:
            last = next((one for one in reversed(self._history) if one.step < at), None)
        if last is None or self._begins_anew:
            return None
        return None if has_gone_back(at, epoch, last.step, last.epoch) else last

    def observe(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        epoch: float | None = None,
        val_accuracy_pct: float | None = None,
    ) -> Observation:
        """Observes the model now, due or not; arguments and errors as for `step`."""
        began = time.perf_counter()
        at, epoch = self._step_at(step), epochs_done(epoch)
        val_accuracy_pct = percentage(val_accuracy_pct)
        self._doubt_a_fraction(val_accuracy_pct)
        target = find_target(model, self._model_path)
        self._forget_what_is_trained_anew(at)
        before = self._history[-1] if self._history else None
        with untouched_training(next(target.found.parameters()).device):
            place = Observation(at, epoch, val_accuracy_pct, None)
            looked = look(target, self._baseline, place, self._thresholds)
            seen = looked.observation
            alerts = (*seen.alerts, *alerts_of(seen, self._history, self._thresholds))
            seconds = time.perf_counter() - began
            seen = replace(seen, alerts=alerts, seconds=seconds)
            self._calls, self._begins_anew = at, False
            self._history.append(seen)
            self._show(at, looked.shown_rows)
            self._write(seen.to_event())
            share = self._share_pct(self._cost_seconds + seconds)
            self._say(f"{seen.summary()} · {seconds:.1f} s, {share:.1f} % of the time")
            was_stopped = self.should_stop
            self._raise_alerts(alerts, before)
            self._stop_if_patience_is_lost()
            if looked.live is not None:
                self._keep_models(target, looked.live)
            elif self.should_stop and not was_stopped:
                best = f"; the best is in {self.best_folder}" if self.best_folder else ""
                self._say(f"no model is kept: {looked.not_kept_because}{best}")
        self._cost_seconds += time.perf_counter() - began
        return seen

    @property
    def every(self) -> Every:
        """When `step` observes, as it was given."""
        return self._schedule.every

    @property
    def history(self) -> list[Observation]:
        """Every observation, the earliest first, those before a restart included."""
        return list(self._history)

    @property
    def best(self) -> Observation | None:
        """The best observation by the selection; None while no accuracy has been given."""
        return self._selection.best(self._history)

    @property
    def best_folder(self) -> Path | None:
        """Where the best model is kept, for `driftscope.load`; None where it is not."""
        best = self.best
        if best is None or self._out is None:
            return None
        folder = candidate_folder(self._folder, best.step)
        return folder if folder.exists() else None

    @property
    def alerts(self) -> list[Alert]:
        """Every alert raised, the earliest first; one that goes on is there once."""
        return list(self._alerts)

    @property
    def should_stop(self) -> bool:
        """Whether training should end: an alert with `on_alert="stop"`, or lost patience."""
        return self._stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why training should end, in a sentence."""
        return self._stop_reason

    @property
    def cost_seconds(self) -> float:
        """Wall seconds that this process's observations took (`setup_seconds` come on top)."""
        return self._cost_seconds

    @property
    def cost_share_pct(self) -> float:
        """The same in percent of the wall time since the monitor was made, in [0, 100]."""
        return self._share_pct(self._cost_seconds)

    def _share_pct(self, seconds: float) -> float:
        return min(100.0, 100 * seconds / max(time.perf_counter() - self._started, 1e-9))

    def state_dict(self) -> dict[str, Any]:
        """What a restarted training needs, as JSON values."""
        return {
            "schema": _STATE_SCHEMA,
            "monitor": self._header,
            "history": [one.to_event() for one in self._history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`; what `out` held is replaced by it.

        Raises:
            RecordError: the state is damaged or of a monitor on other images or another model.
        """
        try:
            theirs = state["monitor"]
            history = [Observation.from_event(event) for event in state["history"]]
        except (KeyError, TypeError):
            raise RecordError(
                "this is no state of a monitor; give what its state_dict() returned"
            ) from None
        check_same_training(theirs, self._header, "the state")
        self._history, self._num_restored = history, len(history)
        self._alerts = [*self._before_training, *first_told(history)]
        self._told = set()
        self._calls, self._begins_anew = history[-1].step if history else 0, False
        self._guarded(lambda: self._log.keep_only(history))

    def report(self, out: str | Path | None = None) -> Path:
        """Writes `report.html` and `report.json` and returns the path of the page.

        In a distributed training only the first process writes; the others give the path alone.

        Args:
            out: the folder; by default the monitor's own, or `driftscope-monitor` here.

        Raises:
            RecordError: nothing has been observed yet, or the folder cannot be written.
        """
        folder = self._folder if out is None else Path(out).expanduser()
        if not self._is_main:
            return folder / "report.html"
        report = report_of(
            self._history,
            header=self._header,
            best=self.best,
            alerts=self._alerts,
            stop_reason=self._stop_reason,
            cost_seconds=self._cost_seconds,
            cost_share_pct=self.cost_share_pct,
        )
        return write_report(report, self._overlays(), folder)

    def close(self) -> None:
        """Says what the monitor cost; everything stays readable."""
        self._say(
            f"{len(self._history) - self._num_restored} observations took "
            f"{self._cost_seconds:.1f} s, {self.cost_share_pct:.1f} % of the time (and "
            f"{self.setup_seconds:.1f} s to set up)"
        )

    # ------------------------------------------------------------ alerts and stops

    def _raise_alerts(self, alerts: Sequence[Alert], before: Observation | None) -> None:
        """Tells what this process has not told at the observation before."""
        going_on = {alert.kind for alert in before.alerts} if before else set()
        self._alerts += [alert for alert in alerts if alert.kind not in going_on]
        new = [alert for alert in alerts if alert.kind not in self._told]
        self._told = {alert.kind for alert in alerts}
        for alert in new:
            self._tell(alert)

    def _tell(self, alert: Alert) -> None:
        self._say(f"ALERT {alert.sentence}")
        answer = self._on_alert(alert) if callable(self._on_alert) else self._on_alert
        if answer == "stop":
            self._stop(alert.sentence, alert.step)

    def _stop_if_patience_is_lost(self) -> None:
        best = self.best
        if best is not None and self._selection.is_patience_lost(self._history):
            self._stop(
                f"Step {best.step} has been the best for {self._selection.patience} more "
                f"observations ({best.summary()}).",
                self._history[-1].step,
            )

    def _stop(self, reason: str, step: int) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason
            self._write({"kind": STOP, "step": step, "reason": reason})
            self._say(f"training should stop: {reason}")

    # ------------------------------------------------------------ what is kept

    @property
    def _folder(self) -> Path:
        return self._out or DEFAULT_OUT

    def _keep_models(self, target: Target, live: VisionLanguageModel) -> None:
        """Keeps the model if it is, or can become, the best, and at a stop; drops what cannot."""
        if not self._is_main:
            return
        if self._keep_best:
            now = self._history[-1].step
            wanted = {one.step for one in self._selection.can_be_best(self._history)}
            if now in wanted:
                self._keep_model(target, live, candidate_folder(self._folder, now))
            drop_candidates_but(self._folder, wanted)
        if self.should_stop and not self._stop_is_kept:
            folder = self._folder / STOPPED_FOLDER
            if self._keep_model(target, live, folder):
                self._stop_is_kept = True
                self._say(f"the model at the stop is kept in {folder}")

    def _keep_model(self, target: Target, live: VisionLanguageModel, folder: Path) -> bool:
        return self._guarded(lambda: keep_model(target, live, self._baseline, folder))

    def _forget_what_is_trained_anew(self, step: int) -> None:
        """Of former processes only what came before this step is part of this training."""
        if not self._num_restored or len(self._history) > self._num_restored:
            return
        kept = [one for one in self._history if one.step < step]
        if kept:
            self._say(f"going on from step {kept[-1].step} of an earlier process")
        self._history, self._num_restored = kept, len(kept)
        self._alerts = [*self._before_training, *first_told(kept)]
        self._guarded(lambda: self._log.keep_only(kept))

    def _show(self, step: int, rows: Tensor | None) -> None:
        """Holds the attention of this look, and of those that can be the best: it is large."""
        wanted = {one.step for one in self._selection.can_be_best(self._history)}
        self._shown_rows = {at: held for at, held in self._shown_rows.items() if at in wanted}
        if rows is not None:
            self._shown_rows[step] = rows

    def _overlays(self) -> dict[str, Overlay]:
        """Attention maps of the best and the latest observation, as far as they are held."""
        named = {}
        for name, one in (("best", self.best), ("latest", self._history[-1])):
            rows = self._shown_rows.get(one.step) if one else None
            if one is not None and rows is not None:
                named[f"{name} (step {one.step})"] = self._baseline.overlay(rows)
        return named

    # ------------------------------------------------------------ words

    def _described(
        self,
        probe_name: str,
        vocabulary: str | Sequence[str] | None,
        before_training: Sequence[Alert],
    ) -> dict[str, Any]:
        is_own = vocabulary is not None and not isinstance(vocabulary, str)
        return {
            **self._baseline.describe(),
            "probe_images": probe_name,
            "vocabulary": f"{len(vocabulary or ())} texts" if is_own else vocabulary,
            "thresholds": asdict(self._thresholds),
            "selection": asdict(self._selection),
            "alerts": [asdict(alert) for alert in before_training],
        }

    def _probe_images_among(self, train_images: Images | None, pixels: Tensor) -> int:
        if train_images is None:
            return 0
        others = portions(train_images, self._baseline.facts.image_size, "train_images")
        return len(found_among(pixels, others))

    def _doubt_a_fraction(self, val_accuracy_pct: float | None) -> None:
        if val_accuracy_pct is not None and 0 < val_accuracy_pct <= 1 and not self._history:
            self._say(f"val_accuracy_pct {val_accuracy_pct:g} is taken as {val_accuracy_pct:g} %")

    def _write(self, event: Mapping[str, Any]) -> None:
        self._guarded(lambda: self._log.append(event))

    def _guarded(self, write: Callable[[], object]) -> bool:
        """Whether it could be written: no training dies of a full disk."""
        try:
            write()
        except OSError as error:
            self._say(f"cannot write to {self._folder} ({error.strerror or error}); going on")
            return False
        return True

    def _say(self, line: str) -> None:
        if self._echo is not None:
            self._echo(f"driftscope: {line}")


def _is_main_process() -> bool:
    """Whether this is the only process of the training, or the first of several.

    Told by the environment, as launchers set it (torchrun, accelerate, Lightning): monitors are
    made before trainers start `torch.distributed`.
    """
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return rank in ("", "0")
