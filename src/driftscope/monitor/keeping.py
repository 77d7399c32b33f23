"""Keeping a model in training on disk, so that `driftscope.load` gives it back."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from driftscope.adapt import export_merged, note_origin, save_adapter, save_delta, whole_folder
from driftscope.models import VisionLanguageModel, encoder_state
from driftscope.models.effective import without_adapters
from driftscope.monitor.baseline import Baseline
from driftscope.monitor.targets import Target

_CANDIDATES = "candidates"


def keep_model(target: Target, live: VisionLanguageModel, baseline: Baseline, folder: Path) -> None:
    """Writes the model into the folder, whole; replaces what an earlier one left there.

    PEFT around a CLIP that names its base becomes an adapter folder; an image tower that is
    trained alone becomes what changed against the pretrained model; all else a plain CLIPModel
    folder, adapters merged in, that transformers loads too.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    if folder.exists():
        shutil.rmtree(folder)
    if target.peft is not None and _names_its_base(target.peft):
        with whole_folder(folder) as partial:
            save_adapter(target.peft, partial)
            note_origin(partial, _base_of(target.peft), baseline.fingerprint)
    elif target.has_text_tower:
        export_merged(replace(live, clip=without_adapters(live.clip)), folder)
    else:
        with whole_folder(folder) as partial:
            weights = encoder_state(live).items()
            save_delta(
                {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights},
                partial,
            )
            note_origin(partial, baseline.facts.source, baseline.fingerprint)


def candidate_folder(out: Path, step: int) -> Path:
    """Where the model of a step is kept while it is, or can still become, the best."""
    return out / _CANDIDATES / f"step-{step}"


def drop_candidates_but(out: Path, steps: Collection[int]) -> None:
    """Deletes the candidates of all other steps."""
    wanted = {candidate_folder(out, step) for step in steps}
    for folder in (out / _CANDIDATES).glob("step-*"):
        if folder not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def _names_its_base(peft_model: Any) -> bool:
    return bool(_base_of(peft_model))


def _base_of(peft_model: Any) -> str:
    config = peft_model.peft_config[peft_model.active_adapters[0]]
    return str(config.base_model_name_or_path or "")
