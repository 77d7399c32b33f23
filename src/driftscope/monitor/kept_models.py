"""Keeping a model in training on disk, so that `driftscope.load` gives it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from driftscope.adapt import export_merged, save_adapter, save_delta
from driftscope.adapt.storage import disk_errors
from driftscope.backbones.library import LibraryModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state, without_adapters
from driftscope.files import refuse_link_or_device
from driftscope.hugging_face import quiet_libraries
from driftscope.monitor.kept_folders import drop_kept, is_kept, kept_folder, refuse_others_files
from driftscope.reference import Reference
from driftscope.sources import open_clip
from driftscope.sources.live import NAMELESS, Target
from driftscope.sources.origin import note_origin

STOPPED_FOLDER, LAST_FOLDER, RESCUED_FOLDER = "stopped", "last", "rescued"
_CANDIDATES = "candidates"


def keep_model(
    target: Target, live: VisionLanguageModel, reference: Reference, folder: Path
) -> None:
    """Writes the model into the folder, whole; what a monitor kept there before then gives way.

    PEFT around the pretrained model, which it names, becomes an adapter folder. An image tower that
    is trained alone becomes what changed against the pretrained model; where that has no name to
    load it by, a folder of transformers' own. All else, such as an adapter beside weights that were
    trained in place, becomes a folder of the family's whole model, adapters merged in, that
    transformers loads too, or open_clip or timm where the model is theirs.

    Raises:
        NonFiniteError: the weights hold NaN or infinities.
        OSError: it cannot be written, as on a full disk.
        RecordError: its place is a link, or holds what no monitor wrote.
    """
    if folder.parent.name == _CANDIDATES:
        refuse_link_or_device(folder.parent)
    with kept_folder(folder) as partial:
        _write_model(target, live, reference, partial)


def _write_model(
    target: Target, live: VisionLanguageModel, reference: Reference, folder: Path
) -> None:
    """Writes into an empty folder what `keep_model` says."""
    # what is kept as a change, or beside its base, is loaded at the pretrained model's image size
    is_nameless = reference.pretrained.source in NAMELESS or reference.is_at_another_size
    if target.peft is not None and _can_stand_alone(target.peft, live, reference):
        save_adapter(target.peft, folder)
        note_origin(folder, _base_of(target.peft), reference.fingerprint)
    elif target.has_text_tower or (is_nameless and isinstance(live.module, LibraryModel)):
        export_merged(replace(live, module=without_adapters(live.module)), folder)
    elif is_nameless:
        # of open_clip's tower its conversion
        own = live.module if target.kind == open_clip.TOWER_KIND else target.found
        with quiet_libraries(), disk_errors():
            without_adapters(own).save_pretrained(str(folder))  # type: ignore[operator]
    else:
        weights = encoder_state(live).items()
        save_delta(
            {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights}, folder
        )
        note_origin(folder, reference.pretrained.source, reference.fingerprint)


def refuse_full_places(out: Path | None, *, may_stop: bool, keep_best: bool, rescues: bool) -> None:
    """Refuses a folder in which a model is to be kept where somebody else's files are.

    Raises:
        RecordError: one that this monitor may write to holds what no monitor wrote.
    """
    if out is None:
        return
    places = [STOPPED_FOLDER] * may_stop + [LAST_FOLDER, RESCUED_FOLDER] * rescues
    candidates = (out / _CANDIDATES).glob("step-*") if keep_best else ()
    for folder in (*(out / name for name in places), *candidates):
        refuse_others_files(folder)


def candidate_folder(out: Path, step: int) -> Path:
    """Where the model of a step is kept while it is, or can still become, the best."""
    return out / _CANDIDATES / f"step-{step}"


def kept_model(out: Path) -> Path | None:
    """The folder of the model of the stop, or of the last one; None where none is kept."""
    folders = (out / name for name in (STOPPED_FOLDER, LAST_FOLDER))
    return next(filter(is_kept, folders), None)


def drop_candidates_but(out: Path, steps: Collection[int]) -> None:
    """Deletes the candidates of all other steps."""
    wanted = {candidate_folder(out, step) for step in steps}
    if (out / _CANDIDATES).is_symlink():
        return
    for folder in (out / _CANDIDATES).glob("step-*"):
        if folder not in wanted:
            drop_kept(folder)


def drop_models_but(out: Path, steps: Collection[int]) -> None:
    """Deletes what was kept of a training of which the observations of these steps remain."""
    drop_candidates_but(out, steps)
    if not steps:
        for name in (STOPPED_FOLDER, LAST_FOLDER, RESCUED_FOLDER):
            drop_kept(out / name)


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
