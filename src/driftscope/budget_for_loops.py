"""A retention budget in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.budget import Keeper, Look
from driftscope.config import BudgetSpec, budget_spec
from driftscope.data.given import Images
from driftscope.data.prompts import prompt_rules
from driftscope.deprecation import keywords
from driftscope.estimate import Referee, make_pool
from driftscope.monitor.isolation import isolated_from_training
from driftscope.monitor.pretrained import pretrained_model
from driftscope.sources.live import find_target, live_model


class Budget:
    """Keeps a model in training above a retention, by shrinking what training has changed.

    At each look the pretrained model judges on unlabeled images what is left. Where the lower end
    of the estimate's 90 % interval is below the budget, every trained weight goes back towards W₀
    by one share, until it is not. The optimizer is left alone. A classifier on the embeddings must
    be fitted again after a shrink: it was trained on the embeddings before.

    Args:
        pretrained: the model before, as `Monitor` takes it.
        model: the model that will be trained, or the module that holds it, **before its first
            step** (and before a checkpoint is loaded into it).
        pool, classes, class_words, templates: as `compare` takes them.
        retention_pct: the budget, above 0 and below 100.
        every: optimizer steps between looks of `step`; None looks at every call.
        images: how many of the pool are looked at.
        model_path: where the model is in the module given, if its type alone does not tell.

    Raises:
        ModelError, DataError, ConfigError: an argument cannot be used, the pool gives no estimate,
            or the adapter's change cannot be taken back by a share.
    """

    @keywords()
    def __init__(
        self,
        pretrained: str | Path | VisionLanguageModel | nn.Module,
        model: nn.Module,
        pool: Images,
        classes: str | Path | Sequence[str] | None = None,
        *,
        retention_pct: float = 90,
        every: int | None = None,
        images: int = 150,
        class_words: Mapping[str, str] | str | Path | None = None,
        templates: str | Sequence[str] | None = None,
        model_path: str | None = None,
    ) -> None:
        self.spec: BudgetSpec = budget_spec(
            {"retention_pct": retention_pct, "every": every or "epoch", "images": images}
        )
        before = pretrained_model(pretrained, model_path)
        target = find_target(model, model_path)
        with isolated_from_training(before.device):
            rules = prompt_rules(class_words, templates)
            unlabeled = make_pool(before, pool, classes, rules, images)
            referee = Referee.of(unlabeled, before.embed_images(unlabeled.pixels).float().cpu())
        beside = {} if target.projection is None else target.projection.named_parameters()
        trained = {
            name: one
            for name, one in (*target.found.named_parameters(), *dict(beside).items())
            if one.requires_grad
        }
        is_text = before.backbone.is_text_weight
        self._keeper = Keeper(
            lambda: live_model(target, before),
            trained,
            referee,
            self.spec,
            text_tower_is_frozen=not any(is_text(before.own_prefix + name) for name in trained),
        )
        self._device, self._calls = before.device, 0

    def step(self, step: int | None = None) -> Look | None:
        """Looks if a look is due, and shrinks where the budget is not kept.

        Args:
            step: optimizer steps done; calls are counted where it is not given.

        Returns:
            What was found and done; None where nothing was due.

        Raises:
            NonFiniteError: the model has diverged.
        """
        self._calls = self._calls + 1 if step is None else step
        is_due = self.spec.every == "epoch" or self._keeper.is_due(self._calls)
        return self.keep() if is_due else None

    def keep(self) -> Look:
        """Looks now, due or not; errors as for `step`."""
        with isolated_from_training(self._device):
            return self._keeper.look(self._calls)
