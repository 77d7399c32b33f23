"""Keeping an adapted model: as what was trained, or merged into a plain CLIPModel folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL.Image import Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from driftscope.adapt.model import AdaptedModel, trainable_state
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint, merged
from driftscope.hugging_face import quiet_libraries
from driftscope.sources.origin import note_origin
from driftscope.sources.run_folder import DELTA_FILE

CLASSIFIER_FILE = "classifier.safetensors"


@contextmanager
def _disk_errors() -> Iterator[None]:
    """safetensors reports a full disk as an error of its own kind."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, f"the weights cannot be written ({error})") from error


def save_adapted(adapted: AdaptedModel, pretrained: VisionLanguageModel, folder: Path) -> None:
    """Writes the adapted encoder and classifier so that `models.load(folder)` gives it back.

    An adapter becomes a PEFT folder, anything else the tensors that were trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classifier = adapted.linear_classifier().state_dict()
    if adapted.model.is_adapter:
        save_adapter(adapted.model.module, folder)
    else:
        delta = {
            name.removeprefix("clip."): tensor
            for name, tensor in trainable_state(adapted).items()
            if name.startswith("clip.")
        }
        save_delta(delta, folder)
    with _disk_errors():
        save_file(
            {name: tensor.cpu() for name, tensor in classifier.items()}, folder / CLASSIFIER_FILE
        )
    note_origin(folder, pretrained.source, encoder_fingerprint(pretrained))
    _sync(folder)


def _sync(folder: Path) -> None:
    """Puts files on disk, so that no record that is written after them outlives them."""
    if os.name != "posix":
        return
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_adapter(peft_model: nn.Module, folder: Path) -> None:
    """Writes a PEFT folder."""
    with _disk_errors():
        # not asked, peft looks the base's vocabulary up on the hub to see whether it has grown
        peft_model.save_pretrained(str(folder), save_embedding_layers=False)  # type: ignore[operator]


def save_delta(delta: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the tensors, by their CLIPModel names, that stand in for those of the base."""
    with _disk_errors():
        save_file(dict(delta), folder / DELTA_FILE)


def load_classifier(folder: Path) -> nn.Linear:
    """The linear classifier saved beside an adapted encoder; it acts on `embed_images`."""
    state = load_file(folder / CLASSIFIER_FILE)
    classes, dim = state["weight"].shape
    classifier = nn.Linear(dim, classes)
    classifier.load_state_dict(state)
    return classifier


def export_merged(model: VisionLanguageModel, folder: Path) -> None:
    """Writes a plain CLIPModel folder in hub layout that transformers loads, adapters merged in.

    The folder appears when it is whole; a failure leaves none.

    Raises:
        OSError: it cannot be written, such as on a full disk, or is there and not empty.
    """
    with whole_folder(folder) as partial, _disk_errors():
        _write_hub_layout(model, partial)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled in the block, which then takes its place, or not at all.

    Raises:
        OSError: it cannot be written, or is there and not empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        partial = Path(scratch) / folder.name
        partial.mkdir()
        yield partial
        partial.replace(folder)


def _write_hub_layout(model: VisionLanguageModel, folder: Path) -> None:
    with quiet_libraries():
        merged(model).module.save_pretrained(str(folder))  # type: ignore[operator]
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(str(folder))
    framing = model.framing
    resized, side = framing.size + framing.margin, {"height": framing.size, "width": framing.size}
    squashed = {"height": resized, "width": resized}
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": squashed if framing.squashes else {"shortest_edge": resized},
        "resample": int(Resampling[framing.resample.upper()]),
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.mean),
        "image_std": list(model.std),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
