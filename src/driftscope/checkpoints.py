"""Checkpoints: everything that a training needs to go on as if it had never stopped.

Two files between epochs: the last epoch's (weights, optimizer moments, events) and the selected
epoch's weights. No random state is kept: an epoch's randomness comes from the seed and its number
alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from driftscope.adapt import AdaptedModel, restore_trainable, trainable_state
from driftscope.config import RunSpec, run_id
from driftscope.errors import RecordError, one_line
from driftscope.files import inner_folder, remove_files, remove_leftovers
from driftscope.tensor_files import DamagedFileError, read_tensors, write_tensors

LAST_FILE = "last.safetensors"
SELECTED_FILE = "selected-{epoch}.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Training:
    """What has happened so far: events, the selected and the last epoch's record, the end.

    The records hold what was evaluated then, so that nothing is evaluated again for the result.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    selected: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    diverged: bool = False
    earlier_seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds of the processes before this one, each up to its last checkpoint."""

    def with_earlier(self, seconds: dict[str, float]) -> dict[str, float]:
        """This process's wall seconds added to those of the processes before."""
        return {what: s + self.earlier_seconds.get(what, 0.0) for what, s in seconds.items()}

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 before the first."""
        return int(self.last["epoch"]) if self.last else 0

    @property
    def selected_epoch(self) -> int:
        """The epoch whose weights are kept as the run's; 0 before the first."""
        return int(self.selected["epoch"]) if self.selected else 0


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint folder of one run. `origin` names what else the weights depend on."""

    folder: Path
    spec: RunSpec
    origin: str = ""

    def exist(self) -> bool:
        """Whether there is a training to go on with."""
        return (self.folder / LAST_FILE).exists()

    def save(
        self,
        adapted: AdaptedModel,
        optimizer: torch.optim.Optimizer,
        training: Training,
        seconds: dict[str, float],
    ) -> None:
        """Keeps everything a continuation needs; replaces the former checkpoint.

        `seconds` are what the run has taken so far, over all its processes.

        The last epoch's file names the selected epoch, whose weights are in a file of their own
        that is written before it; what it no longer names is removed after it. So whatever comes
        between, the weights that it names are there.

        Raises:
            RecordError: it cannot be written; the former checkpoint is intact.
        """
        tensors = {f"weight.{name}": one for name, one in trainable_state(adapted).items()}
        selected_file = SELECTED_FILE.format(epoch=training.selected_epoch)
        if training.selected_epoch == training.epoch:
            self._write(selected_file, tensors, {}, training.epoch)
        for name, parameter in adapted.trainable().items():
            state = optimizer.state[parameter]
            tensors["step"] = state["step"]
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
        record = {
            **{key: getattr(training, key) for key in ("events", "selected", "last")},
            "earlier_seconds": seconds,
        }
        self._write(LAST_FILE, tensors, {"training": json.dumps(record)}, training.epoch)
        for path in self.folder.glob(SELECTED_FILE.format(epoch="*")):
            if path.name != selected_file:
                path.unlink()

    def resume(self, adapted: AdaptedModel, optimizer: torch.optim.Optimizer) -> Training:
        """Puts weights and optimizer back; a fresh start where there is no checkpoint.

        Raises:
            RecordError: the checkpoint is damaged or another run's; the sentence says the way out.
        """
        remove_leftovers(self.folder)
        if not self.exist():
            return Training()
        tensors, metadata = self._read(LAST_FILE)
        try:
            training = Training(**json.loads(metadata["training"]))
        except (KeyError, TypeError):
            raise RecordError(
                f"the checkpoint {self.folder / LAST_FILE} was written by another version of "
                f"driftscope; {self._way_out}"
            ) from None
        restore_trainable(adapted, _under("weight.", tensors))
        fused = bool(optimizer.defaults.get("fused"))
        moments = {moment: _under(f"{moment}.", tensors) for moment in _MOMENTS}
        for name, parameter in adapted.trainable().items():
            optimizer.state[parameter] = {
                "step": tensors["step"].clone().to(parameter.device if fused else "cpu"),
                **{moment: moments[moment][name].to(parameter.device) for moment in _MOMENTS},
            }
        return training

    def load_selected(self, adapted: AdaptedModel, epoch: int) -> None:
        """Puts the weights of the epoch that is selected into the model.

        Raises:
            RecordError: the checkpoint is damaged or another run's.
        """
        self._load(SELECTED_FILE.format(epoch=epoch), adapted)

    def load_last(self, adapted: AdaptedModel) -> None:
        """Puts the last finished epoch's weights into the model.

        Raises:
            RecordError: the checkpoint is damaged or another run's.
        """
        self._load(LAST_FILE, adapted)

    def delete(self) -> None:
        """Removes the checkpoints; the folder too, unless somebody else's files are in it."""
        remove_files(self.folder, (LAST_FILE, SELECTED_FILE.format(epoch="*")))

    def _load(self, name: str, adapted: AdaptedModel) -> None:
        restore_trainable(adapted, _under("weight.", self._read(name)[0]))

    def _write(
        self, name: str, tensors: dict[str, Tensor], record: dict[str, str], epoch: int
    ) -> None:
        try:
            # in the run's folder, which may have been moved
            inner_folder(self.folder.parent, self.folder.name)
            write_tensors(self.folder / name, tensors, {**self._owner, **record})
        except OSError as error:
            kept = "the one before is intact" if self.exist() else "there was none before"
            raise RecordError(
                f"the checkpoint of epoch {epoch} cannot be written to {self.folder} "
                f"({one_line(error)}); {kept}: make room and run again to go on from it"
            ) from error

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        path = self.folder / name
        try:
            tensors, metadata = read_tensors(path)
        except DamagedFileError as error:
            raise RecordError(
                f"the checkpoint {path} is damaged ({error}); {self._way_out}"
            ) from None
        for key, ours in self._owner.items():
            if metadata.get(key) != ours:
                raise RecordError(
                    f"the checkpoint {path} is not this run's: its {key.replace('_', ' ')} is "
                    f"{metadata.get(key)}, not {ours}; {self._way_out}"
                )
        return tensors, metadata

    @property
    def _way_out(self) -> str:
        return f"delete {self.folder} to start this run anew"

    @property
    def _owner(self) -> dict[str, str]:
        return {"run_id": run_id(self.spec), "model_and_data": self.origin}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
