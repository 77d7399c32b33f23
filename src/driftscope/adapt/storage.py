"""Keeping an adapted model: as what was trained, or merged into a plain model folder."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL.Image import Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from driftscope.adapt.model import ENCODER, AdaptedModel, trainable_state
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint, merged, refuse_non_finite
from driftscope.errors import ModelError, told_as
from driftscope.files import whole_folder
from driftscope.hugging_face import quiet_libraries
from driftscope.sources import open_clip
from driftscope.sources.origin import BASE_KEY, ORIGIN_FILE, note_origin, read_json
from driftscope.sources.run_folder import DELTA_FILE

CLASSIFIER_FILE = "classifier.safetensors"


@contextmanager
def disk_errors() -> Iterator[None]:
    """Tells a full disk as `OSError`: safetensors has an error of its own kind for it."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, f"the weights cannot be written ({error})") from error


_MODEL_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md", DELTA_FILE,
                CLASSIFIER_FILE, ORIGIN_FILE)  # fmt: skip
"""The files of an adapted model: PEFT's or the tensors that were trained, and what is beside."""


def save_adapted(adapted: AdaptedModel, pretrained: VisionLanguageModel, folder: Path) -> None:
    """Writes the adapted encoder and classifier so that `models.load(folder)` gives it back.

    An adapter becomes a PEFT folder, anything else the tensors that were trained. A model that was
    kept there before gives way once this one is whole.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
        OSError: it cannot be written, or the folder holds somebody else's files.
    """
    with whole_folder(folder, replaces=_holds_a_model_alone(folder)) as partial:
        if adapted.model.is_adapter:
            save_adapter(adapted.model.module, partial)
        else:
            delta = {
                name.removeprefix(ENCODER): tensor
                for name, tensor in trainable_state(adapted).items()
                if name.startswith(ENCODER)
            }
            save_delta(delta, partial)
        save_tensors(adapted.linear_classifier().state_dict(), partial / CLASSIFIER_FILE)
        note_origin(partial, pretrained.source, encoder_fingerprint(pretrained))


def _holds_a_model_alone(folder: Path) -> bool:
    """Whether a folder is what `save_adapted` leaves, with nobody else's files."""
    return (folder / ORIGIN_FILE).is_file() and all(
        any(path.match(pattern) for pattern in _MODEL_FILES) for path in folder.iterdir()
    )


def save_adapter(peft_model: nn.Module, folder: Path) -> None:
    """Writes a PEFT folder.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
    """
    refuse_non_finite(dict(peft_model.named_parameters()))
    with disk_errors():
        # not asked, peft looks the base's vocabulary up on the hub to see whether it has grown
        peft_model.save_pretrained(str(folder), save_embedding_layers=False)  # type: ignore[operator]


def save_delta(delta: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the tensors, by their names in the model, that stand in for those of the base.

    Raises:
        NonFiniteError: they hold NaN or infinities.
    """
    save_tensors(delta, folder / DELTA_FILE)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Writes tensors by name.

    Raises:
        NonFiniteError: they hold NaN or infinities.
    """
    refuse_non_finite(tensors)
    with disk_errors():
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, file)


def load_classifier(folder: Path) -> nn.Linear:
    """The linear classifier saved beside an adapted encoder; it acts on `embed_images`.

    Raises:
        ModelError: the file holds something else.
    """
    state = load_file(folder / CLASSIFIER_FILE)
    if state.keys() != {"weight", "bias"} or state["weight"].ndim != 2:
        raise ModelError(
            f"{folder / CLASSIFIER_FILE} holds no linear classifier, which is weight [class, dim] "
            "and bias [class]; take it out of the folder to go on without it"
        )
    classes, dim = state["weight"].shape
    classifier = nn.Linear(dim, classes)
    classifier.load_state_dict(state)
    return classifier


def export_merged(model: VisionLanguageModel, folder: Path) -> None:
    """Writes a plain model folder in hub layout that transformers loads, adapters merged in.

    The folder appears when it is whole; a failure leaves none.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
        OSError: it cannot be written, such as on a full disk, or is there and not empty.
    """
    with whole_folder(folder) as partial:
        write_hub_layout(model, partial)


@disk_errors()
def write_hub_layout(model: VisionLanguageModel, folder: Path) -> None:
    """Writes into a folder what `export_merged` does; a failure may leave some of it."""
    with told_as(ModelError, f"the adapter {model.source} cannot be merged into its base"):
        whole = merged(model).module
    refuse_non_finite(whole.state_dict())
    if model.backbone.kept_by == open_clip.KIND:
        open_clip.write_folder(replace(model, module=whole), folder)
        return
    with quiet_libraries():
        whole.save_pretrained(str(folder))  # type: ignore[operator]
    if model.base_fingerprint is not None:
        config = folder / "config.json"
        told = {**read_json(config), BASE_KEY: model.base_fingerprint}
        config.write_text(json.dumps(told, indent=2), encoding="utf-8")
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
