"""Keeping a model in training on disk, so that `driftscope.load` gives it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from driftscope.adapt import export_merged, save_adapter, save_delta
from driftscope.adapt.storage import MODEL_FILES
from driftscope.backbones.library import LibraryModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state, without_adapters
from driftscope.files import refuse_link_or_device, remove_files, whole_folder
from driftscope.hugging_face import quiet_libraries
from driftscope.records import ADAPTED_FOLDER, RESCUE_FILES
from driftscope.reference import Reference
from driftscope.sources import open_clip
from driftscope.sources.live import NAMELESS, Target
from driftscope.sources.origin import note_origin

STOPPED_FOLDER, LAST_FOLDER, RESCUED_FOLDER = "stopped", "last", "rescued"
_CANDIDATES = "candidates"


def keep_model(
    target: Target, live: VisionLanguageModel, reference: Reference, folder: Path
) -> None:
    """Writes the model into the folder, whole; replaces what an earlier one left there.

    PEFT around the pretrained model, which it names, becomes an adapter folder. An image tower that
    is trained alone becomes what changed against the pretrained model; where that has no name to
    load it by, a folder of transformers' own. All else, such as an adapter beside weights that were
    trained in place, becomes a folder of the family's whole model, adapters merged in, that
    transformers loads too, or open_clip or timm where the model is theirs.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
        OSError: it cannot be written, as on a full disk.
        RecordError: its place is a link.
    """
    if folder.parent.name == _CANDIDATES:
        refuse_link_or_device(folder.parent)
    remove_files(folder, MODEL_FILES)
    # what is kept as a change, or beside its base, is loaded at the pretrained model's image size
    is_nameless = reference.pretrained.source in NAMELESS or reference.is_at_another_size
    if target.peft is not None and _can_stand_alone(target.peft, live, reference):
        with whole_folder(folder) as partial:
            save_adapter(target.peft, partial)
            note_origin(partial, _base_of(target.peft), reference.fingerprint)
    elif target.has_text_tower or (is_nameless and isinstance(live.module, LibraryModel)):
        export_merged(replace(live, module=without_adapters(live.module)), folder)
    elif is_nameless:
        # of open_clip's tower its conversion
        own = live.module if target.kind == open_clip.TOWER_KIND else target.found
        with whole_folder(folder) as partial, quiet_libraries():
            without_adapters(own).save_pretrained(str(partial))  # type: ignore[operator]
    else:
        with whole_folder(folder) as partial:
            weights = encoder_state(live).items()
            save_delta(
                {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights},
                partial,
            )
            note_origin(partial, reference.pretrained.source, reference.fingerprint)


def candidate_folder(out: Path, step: int) -> Path:
    """Where the model of a step is kept while it is, or can still become, the best."""
    return out / _CANDIDATES / f"step-{step}"


def kept_model(out: Path) -> Path | None:
    """The folder of the model of the stop, or of the last one; None where none is kept."""
    folders = (out / name for name in (STOPPED_FOLDER, LAST_FOLDER))
    return next((one for one in folders if one.is_dir()), None)


def drop_candidates_but(out: Path, steps: Collection[int]) -> None:
    """Deletes the candidates of all other steps."""
    wanted = {candidate_folder(out, step) for step in steps}
    if (out / _CANDIDATES).is_symlink():
        return
    for folder in (out / _CANDIDATES).glob("step-*"):
        if folder not in wanted:
            remove_files(folder, MODEL_FILES)


def drop_models_but(out: Path, steps: Collection[int]) -> None:
    """Deletes what was kept of a training of which the observations of these steps remain."""
    drop_candidates_but(out, steps)
    if not steps:
        for name in (STOPPED_FOLDER, LAST_FOLDER):
            remove_files(out / name, MODEL_FILES)
        drop_rescued(out)


def drop_rescued(out: Path) -> None:
    """Deletes what was rescued of an earlier training, or of an earlier part of this one."""
    for folder in (out / RESCUED_FOLDER / ADAPTED_FOLDER, out / RESCUED_FOLDER):
        remove_files(folder, (*MODEL_FILES, *RESCUE_FILES))


def _can_stand_alone(peft_model: Any, live: VisionLanguageModel, reference: Reference) -> bool:
    """Whether the adapter and its base's name say all: the base is the pretrained one as it was."""
    if not _base_of(peft_model) or reference.is_at_another_size:
        return False
    base = {
        live.own_prefix + _plain_name(name): tensor.detach()
        for name, tensor in peft_model.get_base_model().named_parameters()
    }
    return all(
        name in base and torch.equal(base[name].cpu(), before.to(base[name].dtype))
        for name, before in reference.weights.items()
    )


def _plain_name(name: str) -> str:
    """A weight's name without what PEFT puts into it."""
    return name.replace(".base_layer", "").replace(".original_module", "")


def _base_of(peft_model: Any) -> str:
    config = peft_model.peft_config[peft_model.active_adapters[0]]
    return str(config.base_model_name_or_path or "")
