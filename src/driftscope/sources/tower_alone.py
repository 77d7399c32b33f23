"""A folder of an image tower without its text tower: alone, under a classifier, or beside another.

Compared with a whole model it borrows that one's text tower, and the projection that it lacks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from driftscope.backbones import family_of_type
from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError
from driftscope.files import named_path
from driftscope.sources import hub
from driftscope.sources.adapter import told_of_left_configuration
from driftscope.sources.borrowed import with_texts_of
from driftscope.sources.form import Beside
from driftscope.sources.origin import read_json
from driftscope.sources.plausible import refuse_implausible
from driftscope.sources.state_dict import read_tensors_of, weights_in

_BY_ITSELF = hub.WITHOUT_TEXTS[:2]
_BESIDE_ANOTHER = hub.WITHOUT_TEXTS[-1]
_OF_TWO = "vision-text-dual-encoder"


def recognises(name: str) -> bool:
    """Whether it is a folder in hub layout whose class has no text tower, or another's."""
    path = named_path(name) / "config.json"
    if not path.exists() or not hub.tells_no_texts(path):
        return False
    family = family_of_type(read_json(path).get("model_type"))
    return family is None or family.whole is not None  # else no model of its family has texts


def load(name: str, beside: Beside) -> VisionLanguageModel:
    """The tower in the model that it is compared with; by itself where that has no text either.

    Raises:
        ModelError: it does not fit that model, or computes another function of its weights.
    """
    folder = named_path(name)
    like = beside.like
    if like is None or not like.has_text:
        if (hub.class_in(folder / "config.json") or _BY_ITSELF[0]).endswith(_BY_ITSELF):
            return hub.load(name, beside)
        raise ModelError(
            f"{name} is an image tower without a text tower of its own; compare it, as the second "
            "model, with the one that it was made from (ds.load(…, like=MODEL))"
        )
    said = read_json(folder / "config.json")
    refuse_implausible(said, name)
    _refuse_another_family(str(said.get("model_type")), like, name)
    path = weights_in(folder)
    if path is None:
        raise ModelError(f"the model folder {name} has no weights: model.safetensors is missing")
    state = read_tensors_of(path)
    if hub.class_in(folder / "config.json") == _BESIDE_ANOTHER:
        # its projections lead into a space that it shares with its own text tower
        state = {key: one for key, one in state.items() if key.startswith("vision_model.")}
    found = with_texts_of(like, state, _vision_config(folder, name), folder, name)
    return replace(found, notes=found.notes + told_of_left_configuration(name))


def _refuse_another_family(model_type: str, like: VisionLanguageModel, name: str) -> None:
    """Raises ModelError where the class is of no family that is read, whatever its name ends in."""
    tower = getattr(getattr(like.plain.config, "vision_config", None), "model_type", None)
    if family_of_type(model_type) is None and model_type not in (_OF_TWO, tower):
        raise ModelError(hub.unread_type(model_type, name))


def _vision_config(folder: Path, name: str) -> Any:
    import transformers

    try:
        config: Any = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(hub.unreadable_config(name, error)) from None
    return getattr(config, "vision_config", config)
