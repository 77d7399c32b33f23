"""The monitor that a training loop calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from driftscope.models import VisionLanguageModel
from driftscope.monitor.alerts import Alert, Thresholds
from driftscope.monitor.observation import Observation
from driftscope.monitor.selection import Selection

if TYPE_CHECKING:
    from PIL.Image import Image

Images = str | Path | Tensor | Sequence["Image"]
"""A dataset's name, folder or address; uint8 pixels [image, 3, height, width]; PIL images."""
Every = Literal["epoch"] | int | Sequence[int]
OnAlert = Literal["warn", "stop"] | Callable[[Alert], object]


class Monitor:
    """Watches a model in training against its pretrained self, and changes nothing of it.

    Args:
        pretrained: the model before: anything `driftscope.load` takes, a loaded model, or a
            CLIPModel (or open_clip model), whose weights are copied now: it may be the very
            object that will be trained.
        probe_images: unlabeled images of the target domain, on which signals are read.
        transfer: labeled datasets on which zero-shot ability is followed; the first is the main.
        vocabulary: the texts that text-space drift is seen against: `general` for the built-in
            everyday words, or texts of one's own; None for none.
        every: when `step` observes: `epoch`, a number of steps, or the steps themselves.
        out: folder for `events.jsonl`, reports and checkpoints; None writes nothing until
            `report`. A folder with an earlier part of the same training is gone on with.
        train_images: the training images, to be searched for probe images by pixel hash.
        alerts: when alerts are raised.
        on_alert: `warn` prints each new alert, `stop` also sets `should_stop`, a function is
            called with it (and stops the training if it returns `"stop"`).
        selection: how the best checkpoint is chosen, and when to stop early.
        keep_best: whether models that are, or can still become, the best are kept in `out`.
        model_path: where the CLIP is in the model given to `step`, as in
            `model.get_submodule(model_path)`, if its type alone does not tell.
        max_probe_images: how many probe images are read at most, evenly spaced.
        max_transfer_images: how many images of each transfer set are read at most; None for all.
        maps: whether to read rollout and patch-to-patch entropy too (full attention maps).
        echo: what prints the lines of the terminal; None for silence.

    Raises:
        ModelError, DataError, ConfigError, RecordError: an argument cannot be used; the sentence
            says which and what would be right.
    """

    def __init__(
        self,
        pretrained: str | Path | VisionLanguageModel | nn.Module,
        probe_images: Images,
        *,
        transfer: Sequence[str] | str | None = None,
        vocabulary: Literal["general"] | Sequence[str] | None = "general",
        every: Every = "epoch",
        out: str | Path | None = None,
        train_images: Images | None = None,
        alerts: Thresholds | None = None,
        on_alert: OnAlert = "warn",
        selection: Selection | None = None,
        keep_best: bool = False,
        model_path: str | None = None,
        max_probe_images: int = 200,
        max_transfer_images: int | None = 1000,
        maps: bool = False,
        echo: Callable[[str], object] | None = print,
    ) -> None:
        raise NotImplementedError

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
            step: optimizer steps done; calls are counted where it is not given.
            epoch: epochs done. A whole number (an int) makes an observation due once; a float
                does when it has passed a whole number. With `every="epoch"` and without it, every
                call is the end of an epoch.
            val_accuracy_pct: accuracy on the target task, in percent, in [0, 100].

        Returns:
            What was seen; None where nothing was due.
        """
        raise NotImplementedError

    def observe(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        epoch: float | None = None,
        val_accuracy_pct: float | None = None,
    ) -> Observation:
        """Observes the model now, due or not; arguments as for `step`."""
        raise NotImplementedError

    def is_due(self, *, step: int | None = None, epoch: float | None = None) -> bool:
        """Whether `step` would observe: so that a validation can be run only then."""
        raise NotImplementedError

    @property
    def history(self) -> list[Observation]:
        """Every observation, the earliest first, those before a restart included."""
        raise NotImplementedError

    @property
    def best(self) -> Observation | None:
        """The best observation by the selection; None while no accuracy has been given."""
        raise NotImplementedError

    @property
    def best_folder(self) -> Path | None:
        """Where the best model is kept, for `driftscope.load`; None without `keep_best`."""
        raise NotImplementedError

    @property
    def alerts(self) -> list[Alert]:
        """Every alert raised, the earliest first."""
        raise NotImplementedError

    @property
    def should_stop(self) -> bool:
        """Whether training should end: an alert with `on_alert="stop"`, or lost patience."""
        raise NotImplementedError

    @property
    def stop_reason(self) -> str | None:
        """Why training should end, in a sentence."""
        raise NotImplementedError

    @property
    def cost_seconds(self) -> float:
        """Wall seconds that this process's observations took."""
        raise NotImplementedError

    @property
    def cost_share_pct(self) -> float:
        """The same in percent of the wall time since the monitor was made, in [0, 100]."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a restarted training needs, as JSON values."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`; what `out` held is replaced by it.

        Raises:
            RecordError: the state is damaged or of a monitor on other images or another model.
        """
        raise NotImplementedError

    def report(self, out: str | Path | None = None) -> Path:
        """Writes `report.html` and `report.json` and returns the path of the page.

        Args:
            out: the folder; by default the monitor's own, or `driftscope-monitor` here.

        Raises:
            RecordError: nothing has been observed yet.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Prints what the monitor cost; the numbers stay readable."""
        raise NotImplementedError
