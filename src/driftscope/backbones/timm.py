"""timm's image towers, by themselves or in transformers' TimmWrapperModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from driftscope.backbones.base import Backbone
from driftscope.backbones.library import TimmTower, classifier_of


class Timm(Backbone):
    """What is known before a tower of timm is at hand; then it says of itself how it is read."""

    family = "timm"
    classes: ClassVar[Mapping[str, str]] = {"timm_wrapper": "TimmWrapperModel"}
    towers: ClassVar[Mapping[str, str]] = {}
    trained_alone: ClassVar[tuple[str, ...]] = (
        "TimmWrapperForImageClassification",
        "TimmWrapperModel",
    )
    needs: ClassVar[str] = "timm"

    def options_for(self, config: Any) -> dict[str, Any]:
        """timm also writes the number of classes where transformers sets it by itself."""
        arguments = dict(config.model_args or {})
        arguments.pop("num_classes", None)
        config.model_args = arguments
        return {"config": config}

    def idle_of(self, config: Any) -> tuple[str, ...]:
        """A classifier's head."""
        return classifier_of(getattr(config, "pretrained_cfg", None))

    def readable(self, module: nn.Module) -> nn.Module:
        """Behind the calls that driftscope makes."""
        held: Any = getattr(module, "timm_model", None)
        return TimmTower(module) if held is None else TimmTower(held, module)

    def tower_with_projection(self, tower: nn.Module, projection: nn.Module | None) -> nn.Module:
        """The same; there is no projection."""
        del projection
        return self.readable(tower)


def is_of_timm(module: nn.Module) -> bool:
    """Whether a module is a whole model of timm, so that timm need not be imported."""
    is_whole = all(hasattr(module, name) for name in ("forward_features", "forward_head"))
    return is_whole and any(base.__module__.startswith("timm.") for base in type(module).__mro__)
