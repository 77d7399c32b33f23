"""The monitor that a training loop calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from driftscope.analysis.advice import advice_on_look
from driftscope.analysis.calibration import load_calibration
from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.given import Images, as_typed
from driftscope.data.prompts import prompt_rules
from driftscope.data.vocabulary import GENERAL
from driftscope.deprecation import keywords
from driftscope.errors import DriftscopeError, plain
from driftscope.files import named_path
from driftscope.monitor.alerts import (
    UNREADABLE,
    Alert,
    Thresholds,
    alerts_of,
    probe_in_training_alert,
    told_before_training,
)
from driftscope.monitor.cost import Cost
from driftscope.monitor.history import Course
from driftscope.monitor.isolation import isolated_from_training
from driftscope.monitor.kept_folders import is_kept
from driftscope.monitor.kept_models import (
    LAST_FOLDER,
    STOPPED_FOLDER,
    candidate_folder,
    drop_candidates_but,
    drop_models_but,
    keep_model,
    kept_model,
    refuse_full_places,
)
from driftscope.monitor.log import END, STOP, EventLog, history_of_state
from driftscope.monitor.observation import Observation
from driftscope.monitor.observing import first_line, look, refuse_unfit
from driftscope.monitor.options import (
    check_options,
    counted,
    digest_of,
    epochs_done,
    percentage,
)
from driftscope.monitor.pretrained import pretrained_model
from driftscope.monitor.processes import is_main_process
from driftscope.monitor.reporting import MONITOR_KIND, report_of, write_report
from driftscope.monitor.rescuer import Rescuer, refuse_rescue_at_another_size
from driftscope.monitor.schedule import Every, Schedule
from driftscope.monitor.selection import Selection
from driftscope.monitor.watched import watched_by
from driftscope.records.report_place import refuse_others_place
from driftscope.sources.live import Target, find_target
from driftscope.transfer import transfer_names

OnAlert = Literal["warn", "stop"] | Callable[[Alert], object]
DEFAULT_OUT = Path("driftscope-monitor")
_STATE_SCHEMA = 1


class Monitor:
    """Watches a model in training against its pretrained self, and changes nothing of it.

    Args:
        pretrained: the model before: anything `driftscope.load` takes, a loaded model, or a
            module that is read (transformers' or open_clip's), whose weights are copied now: it
            may be the very object that will be trained.
        images: unlabeled images of the target domain, on which signals are read. Of a
            dataset its test split.
        transfer: labeled datasets on which ability is followed; the first is the main.
        transfer_by: by what their classes are told, as `compare` takes it: zero-shot where there is
            a text tower, else from the features alone.
        retrieval: captioned datasets on which recall is followed.
        pool: unlabeled images on which retention is estimated at every observation: of the world
            that zero-shot ability is wanted for, as `compare` takes them.
        classes: what the pool's images may show, as `compare` takes it.
        calibration: a file that `driftscope study calibrate` wrote; retention is forecast by it,
            of the end of the training if it is one of the first epoch.
        class_words: words of the classes, or a file of them, as `compare` takes.
        templates: prompt templates: sentences with `{}`, names of sets of them, or files.
        vocabulary: the texts against which text-space drift is measured: `general` for the
            built-in everyday words, or your own texts; None for none.
        every: when `step` observes: `epoch`, a number of steps, or the steps themselves.
        out: folder for `events.jsonl`, reports and checkpoints; None writes nothing until
            `report` or a stop. If it holds an earlier part of the same training, that is continued.
        train_images: the training images, to be searched for probe images by pixel hash. Of a
            dataset its training split.
        alerts: when alerts are raised.
        on_alert: `warn` prints each new alert, `stop` also sets `should_stop` (but on `unreadable`,
            which says nothing about the model). A function gets each new alert, and stops the
            training if it returns `"stop"`. After a restart, an alert that still holds counts as
            new.
        selection: how the best checkpoint is chosen, and when to stop early.
        keep_best: whether models that are, or can still become, the best are kept in `out`.
        rescue: a retention in percent. At `close` the model that was observed last, or that of the
            stop, is rescued (`driftscope.rescue`) into the folder `rescued` in `out`, by the
            images, the pool and its classes. The pretrained model must be given by name.
        model_path: where the model is in the model given to `step`, as in
            `model.get_submodule(model_path)`, if its type alone does not tell.
        max_images: how many of the images are read at most, evenly spaced. 64 follow a
            training at little cost; 200 give the precision of a study's runs (docs/speed.md); None
            for all.
        transfer_images: how many images of each transfer set are read at most; None for all.
        pool_images: how many images of the pool are read at most; None for all. The rescue at the
            end reads as many as its budget needs.
        maps: whether to read rollout and patch-to-patch entropy too (full attention maps).
        image_size: pixels of a side that the model in training reads, where it was begun at another
            image size than the pretrained one's. Each is then read at its own size; changes of
            attention are absent, as it is spread over other patches.
        echo: what prints the lines of the terminal; None for silence.

    In a distributed training only the first process writes and prints.

    Raises:
        ModelError, DataError, ConfigError, RecordError: an argument cannot be used; the sentence
            says which and what would be right.
    """

    @keywords(
        probe_images="images",
        max_probe_images="max_images",
        max_transfer_images="transfer_images",
    )
    def __init__(
        self,
        pretrained: str | Path | VisionLanguageModel | nn.Module,
        images: Images,
        *,
        transfer: Sequence[str | Path] | str | Path | None = None,
        retrieval: Sequence[str | Path] | str | Path | None = None,
        transfer_by: str | Sequence[str] = (),
        pool: Images | None = None,
        classes: str | Path | Sequence[str] | None = None,
        calibration: str | Path | None = None,
        class_words: Mapping[str, str] | str | Path | None = None,
        templates: str | Sequence[str] | None = None,
        vocabulary: str | Sequence[str] | None = "general",
        every: Every = "epoch",
        out: str | Path | None = None,
        train_images: Images | None = None,
        alerts: Thresholds | None = None,
        on_alert: OnAlert = "warn",
        selection: Selection | None = None,
        keep_best: bool = False,
        rescue: float | None = None,
        model_path: str | None = None,
        max_images: int | None = 64,
        transfer_images: int | None = 1000,
        pool_images: int | None = 200,
        maps: bool = False,
        image_size: int | None = None,
        echo: Callable[[str], object] | None = print,
    ) -> None:
        check_options(
            out=out,
            alerts=alerts,
            on_alert=on_alert,
            transfer=transfer,
            pool=pool,
            classes=classes,
            calibration=calibration,
            keep_best=keep_best,
            rescue=rescue,
            echo=echo,
            selection=selection,
            model_path=model_path,
            max_images=max_images,
            transfer_images=transfer_images,
            pool_images=pool_images,
            maps=maps,
            image_size=image_size,
        )
        may_stop = on_alert != "warn" or (selection or Selection()).patience is not None
        self._out = None if out is None else named_path(out)
        refuse_full_places(
            self._out, may_stop=may_stop, keep_best=keep_best, rescues=rescue is not None
        )
        self._rescue: Rescuer | None = None
        self._is_main = is_main_process()
        if rescue is not None and pool is not None:
            asked_of = {"classes": classes, "class_words": class_words, "templates": templates}
            given = (pretrained, images, pool, rescue, asked_of)
            self._rescue = Rescuer.of(*given, is_main=self._is_main)
        if not self._is_main:
            keep_best, echo = False, None  # one process writes and speaks
        self._calibration = None if calibration is None else load_calibration(calibration)
        self._schedule = Schedule(every)
        self._thresholds, self._selection = alerts or Thresholds(), selection or Selection()
        self._on_alert, self._keep_best = on_alert, keep_best
        self._model_path, self._echo = model_path, echo
        began = time.perf_counter()
        before = pretrained_model(pretrained, model_path)
        refuse_rescue_at_another_size(rescue, image_size, before)
        with isolated_from_training(before.device):
            watched = watched_by(
                before,
                images,
                transfer=transfer_names(transfer),
                transfer_by=transfer_by,
                retrieval=transfer_names(retrieval, "retrieval"),
                pool=pool,
                classes=classes,
                rules=prompt_rules(class_words, templates),
                vocabulary=vocabulary,
                train_images=train_images,
                max_images=max_images,
                transfer_images=transfer_images,
                pool_images=pool_images,
                maps=maps,
                image_size=image_size,
            )
        self._reference, self._suites = watched.reference, watched.suites
        found = probe_in_training_alert(watched.num_leaked, watched.num_images, self._thresholds)
        self._header = {
            **watched.described(),
            "pool_as_given": as_typed(pool, "IMAGES"),
            "classes_as_given": as_typed(classes, "NAMES"),
            "vocabulary": None if vocabulary is None else self._reference.texts.described,
            "thresholds": asdict(self._thresholds),
            "selection": asdict(self._selection),
            "alerts": None if train_images is None else [asdict(alert) for alert in found],
        }
        self._options_digest = digest_of(
            model_path,
            every,
            vocabulary,
            maps,
            *([image_size] if image_size is not None else []),
            *([self._header["pool"]] if pool is not None else []),
        )
        self._log = EventLog(self._out if self._is_main else None, self._header)
        told = told_before_training(self._log.headers)
        self._course = Course(told, self._log.restored, stopped_before=self._log.restored_stop)
        self._calls = 0  # of this process: uncounted steps cannot go on from a former one's
        self._told: set[str] = set()
        self._shown: dict[int, Tensor] = {}  # attention of the shown images, by step
        self.setup_seconds = time.perf_counter() - began
        self._cost = Cost()
        self._say_what_texts_are_read(vocabulary)
        if self._reference.is_at_another_size:
            self._say(
                f"the model in training reads images of {image_size} pixels and the pretrained one "
                f"of {before.image_size}: changes of attention are not measured, and positions are "
                "left out of the weight drift"
            )
        if self._reference.referee and self._reference.referee.withheld:
            self._say(f"retention is not estimated: {self._reference.referee.withheld}")
        for name, one in self._suites.items():
            if one.missing:
                self._say(f"of {name} there are not here: {', '.join(one.missing)}")
        for alert in found:
            self._tell(alert)
        self._stop_before_training = self._course.stop_reason  # holds for every training

    # ------------------------------------------------------------ what a loop calls

    def start(self, model: nn.Module, *, step: int = 0) -> None:
        """Says that a training of this model starts, or goes on, after so many steps.

        What was observed of later steps is forgotten, and a stop with it. The trainers' callbacks
        call it. A loop that trains once need not, nor where steps or epochs are seen to go back.
        Folds of an epoch each do not go back: call it before each.

        Raises:
            ModelError: the model holds none that can be read, or several, or one that reads images
                of another size than the pretrained.
        """
        refuse_unfit(find_target(model, self._model_path), self._reference)
        self._calls = counted(step)
        behind = [one for one in self._course.history if one.step <= self._calls]
        self._take_up(behind, at=self._calls)

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
            model: the model in training: one of transformers', PEFT around it, a module of your
                own that holds one, or an open_clip model.
            step: optimizer steps done. Calls of this process are counted where it is not given;
                to go on after a restart, give it.
            epoch: epochs done. A whole number (an int) makes an observation due once; a float
                does when it has passed a whole number. With `every="epoch"` and without it, every
                call is the end of an epoch.
            val_accuracy_pct: accuracy on the target task, in percent, in [0, 100].

        Returns:
            What was seen; None where nothing was due.

        Raises:
            ModelError: the model holds none that can be read, or several.
            CaptureError: the model is another one than the pretrained.
        """
        at, epoch = self._step_at(step), epochs_done(epoch)
        self._arrive(at, epoch)
        if not self.is_due(step=at, epoch=epoch):
            self._calls = at
            self._cost.note_time()
            return None
        return self.observe(model, step=at, epoch=epoch, val_accuracy_pct=val_accuracy_pct)

    def is_due(self, *, step: int | None = None, epoch: float | None = None) -> bool:
        """Whether `step` would observe: so that a validation can be run only then."""
        at, epoch = self._step_at(step), epochs_done(epoch)
        behind = self._course.behind(at, epoch)
        last = (behind[-1].step, behind[-1].epoch) if behind else (0, None)
        return self._schedule.is_due(at, epoch, *last)

    def _step_at(self, step: int | None) -> int:
        return self._calls + 1 if step is None else counted(step)

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
        self._arrive(at, epoch)
        if self._course.is_taken_up:
            self._say(f"going on from step {self.history[-1].step}")
        with isolated_from_training(next(target.found.parameters()).device):
            place = Observation(at, epoch, val_accuracy_pct, None)
            course = self._course
            looked = look(
                *(target, self._reference, place, course.history, self._thresholds),
                text_tower=course.text_tower,
            )
            course.text_tower = looked.text_tower or course.text_tower
            seen = self._with_forecast(looked.observation)
            alerts = (*seen.alerts, *alerts_of(seen, self._course.history, self._thresholds))
            seconds = time.perf_counter() - began
            seen = replace(seen, alerts=alerts, seconds=seconds)
            new_alerts = self._course.add(seen)
            self._calls = at
            self._keep_shown(self._steps_that_can_be_best())
            if looked.shown_rows is not None:
                self._shown[at] = looked.shown_rows
            self._write(seen.to_event())
            share = self._cost.share_with(seconds)
            self._say(f"{seen.summary()} · {seconds:.1f} s, {share:.1f} % of the time")
            was_stopped = self.should_stop
            self._say_once(looked.live.notes if looked.live is not None else ())
            for alert in new_alerts:
                self._tell(alert)
            self._stop_if_patience_is_lost()
            self._write_stop_of_before_training(at)
            if looked.live is not None:
                self._keep_models(target, looked.live)
            elif self.should_stop and not was_stopped:
                best = f"; the best is in {self.best_folder}" if self.best_folder else ""
                self._say(f"no model is kept: {looked.not_kept_because}{best}")
        self._cost.add(time.perf_counter() - began)
        return seen

    @property
    def fingerprint(self) -> str:
        """Tells monitors apart: by the pretrained encoder, the images, what is read and when."""
        names = ("pretrained_fingerprint", "images_fingerprint")
        return "-".join([*(self._header[name] for name in names), self._options_digest])

    @property
    def every(self) -> Every:
        """When `step` observes, as it was given."""
        return self._schedule.every

    @property
    def history(self) -> list[Observation]:
        """Every observation, the earliest first, those before a restart included."""
        return list(self._course.history)

    @property
    def best(self) -> Observation | None:
        """The best observation by the selection; None while no accuracy has been given."""
        return self._selection.best(self._course.history)

    @property
    def best_folder(self) -> Path | None:
        """Where the best model is kept, for `driftscope.load`; None where it is not."""
        best = self.best
        if best is None or self._out is None:
            return None
        folder = candidate_folder(self._folder, best.step)
        return folder if is_kept(folder) else None

    @property
    def alerts(self) -> list[Alert]:
        """Every alert raised, the earliest first; one that goes on is there once."""
        return list(self._course.alerts)

    @property
    def should_stop(self) -> bool:
        """Whether training should end: an alert with `on_alert="stop"`, or lost patience."""
        return self.stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why training should end, in a sentence."""
        return self._course.stop_reason

    @property
    def cost_seconds(self) -> float:
        """Wall seconds that this process's observations took (`setup_seconds` come on top)."""
        return self._cost.seconds

    @property
    def cost_share_pct(self) -> float:
        """The same in percent of the wall time from the monitor's making to its last call."""
        return self._cost.share_with()

    def state_dict(self) -> dict[str, Any]:
        """What a restarted training needs, as JSON values."""
        return {
            "schema": _STATE_SCHEMA,
            "monitor": self._header,
            "history": [one.to_event() for one in self._course.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`; what `out` held is replaced, unless it goes on from there.

        Raises:
            RecordError: the state is damaged or of a monitor on other images or another model.
        """
        history = history_of_state(state, self._header)
        self._calls = history[-1].step if history else 0
        self._take_up(self._course.continuing(history))

    def report(self, out: str | Path | None = None) -> Path:
        """Writes `report.html` and `report.json`, says the verdict, and returns the page's path.

        In a distributed training only the first process writes; the others give the path alone.

        Args:
            out: the folder; by default the monitor's own, or `driftscope-monitor` here.

        Raises:
            RecordError: nothing has been observed yet, the folder cannot be written, another report
                is in it, or it is that of a study or a run.
        """
        folder = self._folder if out is None else named_path(out)
        if not self._is_main:
            return folder / "report.html"
        refuse_others_place(folder, MONITOR_KIND)
        report = report_of(
            self._course.history,
            header={**self._watched_now(), "selection": self._selection_of_now()},
            best=self.best,
            alerts=self._course.alerts,
            suites=self._suites,
            stop_reason=self.stop_reason or self._course.stopped_before,
            cost_share_pct=self.cost_share_pct if self._cost.num_observations else None,
        )
        shown = {"best": self.best, "latest": self._course.history[-1]}
        overlays = {
            f"{name} (step {one.step})": overlay
            for name, one in shown.items()
            if one is not None
            and (overlay := self._reference.overlay(self._shown.get(one.step))) is not None
        }
        page = write_report(report, overlays, folder)
        verdict = str(report["advice"]["verdict"])
        self._say(f"{'' if verdict in self._told else f'{verdict} '}The page is {page}")
        return page

    def close(self) -> None:
        """Says that the training is over, and what the monitor cost; everything stays readable.

        `driftscope watch` ends with it, and another process may have the folder. The trainers'
        callbacks call it.
        """
        self._cost.note_time()
        if self._rescue is not None and self._is_main and self._course.history:
            self._say(self._rescue.leave_in(self._folder))
        if self._course.history:
            self._write({"kind": END, "step": self._course.history[-1].step})
        self._log.release()
        count = self._cost.num_observations
        self._say(
            f"{count} observation{'' if count == 1 else 's'} took "
            f"{self._cost.seconds:.1f} s, {self.cost_share_pct:.1f} % of the time (and "
            f"{self.setup_seconds:.1f} s to set up)"
        )
        seen = [one for one in self._course.history if one.drift is not None]
        if seen:
            advice = advice_on_look(seen[-1].to_event(), self._watched_now())
            for line in (advice.verdict, *advice.steps):
                self._say(line)
            self._told.add(advice.verdict)

    # ------------------------------------------------------------ alerts and stops

    def _tell(self, alert: Alert) -> None:
        self._say(f"ALERT {alert.sentence}")
        if callable(self._on_alert):
            ends = self._on_alert(alert) == "stop"
        else:
            ends = self._on_alert == "stop" and alert.kind != UNREADABLE
        if ends:
            self._stop(alert.sentence, alert.step)

    def _stop_if_patience_is_lost(self) -> None:
        best = self.best
        if best is not None and self._selection.is_patience_lost(self._course.history):
            self._stop(
                f"Step {best.step} has been the best for {self._selection.patience} more "
                f"observations ({best.summary()}).",
                self._course.history[-1].step,
            )

    def _stop(self, reason: str, step: int) -> None:
        if not self.should_stop:
            self._course.stop_reason = reason
            self._write({"kind": STOP, "step": step, "reason": reason})
            told_above = any(alert.sentence == reason for alert in self._course.alerts)
            self._say("training should stop" if told_above else f"training should stop: {reason}")

    def _write_stop_of_before_training(self, step: int) -> None:
        """Says once more what holds for every training, or it would seem to be over."""
        if self._stop_before_training is not None:
            self._write({"kind": STOP, "step": step, "reason": self._stop_before_training})

    # ------------------------------------------------------------ what is kept

    def _watched_now(self) -> dict[str, Any]:
        """What is watched, and where its latest model is kept."""
        is_kept = self._rescue is not None or self.should_stop
        kept = kept_model(self._folder) if is_kept else None
        return {**self._header, "kept_model": None if kept is None else str(kept)}

    @property
    def _folder(self) -> Path:
        return self._out or DEFAULT_OUT

    def _keep_models(self, target: Target, live: VisionLanguageModel) -> None:
        """Keeps the model if it is, or can become, the best, and at a stop; drops what cannot."""
        if not self._is_main:
            return
        if self._keep_best:
            now = self._course.history[-1].step
            wanted = self._steps_that_can_be_best()
            if now in wanted:
                self._keep_model(target, live, candidate_folder(self._folder, now))
            drop_candidates_but(self._folder, wanted)
        if self._rescue is not None:
            self._keep_model(target, live, self._folder / LAST_FOLDER)
        if self.should_stop and not self._course.stop_is_kept:
            folder = self._folder / STOPPED_FOLDER
            if self._keep_model(target, live, folder):
                self._course.stop_is_kept = True
                self._say(f"the model at the stop is kept in {folder}")

    def _keep_model(self, target: Target, live: VisionLanguageModel, folder: Path) -> bool:
        return self._guarded(lambda: keep_model(target, live, self._reference, folder))

    def _arrive(self, step: int, epoch: float | None) -> None:
        """Forgets what a training at this place does not have behind it."""
        behind = self._course.behind(step, epoch)
        if len(behind) < len(self._course.history):
            self._take_up(behind)

    def _take_up(self, history: list[Observation], at: int | None = None) -> None:
        """Goes on from these observations; all else was another training's, or is trained anew."""
        former = self._course.history
        steps = {one.step for one in history if one in former}
        self._keep_shown(steps)
        if former and not steps:
            where = f" in {self._out}" if self._out else ""
            self._say(f"an earlier training{where} is replaced, seen up to step {former[-1].step}")
        if former and self._out is not None and self._is_main:
            drop_models_but(self._out, steps)
        self._guarded(lambda: self._log.keep_only(history))
        self._course = Course(told_before_training(self._log.headers), history, at=at)
        self._course.stop_reason = self._stop_before_training
        self._write_stop_of_before_training(0)

    def _steps_that_can_be_best(self) -> set[int]:
        return {one.step for one in self._selection.can_be_best(self._course.history)}

    def _selection_of_now(self) -> dict[str, Any]:
        by = self._selection.goes_by(self._course.history)
        return asdict(replace(self._selection, by=by))

    def _keep_shown(self, steps: set[int]) -> None:
        """Lets go of the attention of all other steps: it is large."""
        self._shown = {at: rows for at, rows in self._shown.items() if at in steps}

    # ------------------------------------------------------------ words

    def _say_what_texts_are_read(self, vocabulary: str | Sequence[str] | None) -> None:
        texts = self._reference.texts
        if texts.probe is None and vocabulary is not None:
            self._say(f"text-space drift is not measured: {texts.unmeasured['text_kl_nats']}")
        elif vocabulary not in (None, GENERAL):
            self._say(
                f"text-space drift is read against {texts.described}; it does not compare with "
                "that of runs and comparisons"
            )

    def _with_forecast(self, seen: Observation) -> Observation:
        gauge = self._calibration
        is_for_another_time = gauge and gauge.at == "first epoch" and seen.epoch != 1
        if gauge is None or seen.drift is None or is_for_another_time:
            return seen
        found = gauge.forecast(
            seen.drift.scalars(),
            model=self._reference.pretrained.source,
            is_after_first_epoch=seen.epoch == 1,
        )
        return replace(seen, forecast=found.model_dump())

    def _doubt_a_fraction(self, val_accuracy_pct: float | None) -> None:
        if val_accuracy_pct is not None and 0 < val_accuracy_pct <= 1 and not self.history:
            taken = f"val_accuracy_pct {val_accuracy_pct:g} is taken as {val_accuracy_pct:g} %"
            self._say(f"{taken}; if it is a fraction, give {100 * val_accuracy_pct:g}")

    def _write(self, event: Mapping[str, Any]) -> None:
        self._guarded(lambda: self._log.append(event))

    def _guarded(self, write: Callable[[], object]) -> bool:
        """Whether it could be written: no training dies of a full disk, or for want of memory."""
        try:
            write()
        except (OSError, RuntimeError, DriftscopeError) as error:
            why = getattr(error, "strerror", None) or first_line(error)
            self._say(f"cannot write to {self._folder} ({why}); going on")
            return False
        return True

    def _say_once(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._told:
                self._say(note)
        self._told.update(notes)

    def _say(self, line: str) -> None:
        if self._echo is not None:
            self._echo(plain(f"driftscope: {line}"))
