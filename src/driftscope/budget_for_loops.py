"""A retention budget in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from reprlib import repr as short

from torch import nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.budget import Keeper, Look
from driftscope.config import BudgetSpec, budget_spec
from driftscope.data.given import Images
from driftscope.data.prompts import prompt_rules
from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, ModelError
from driftscope.estimate import Referee, make_pool
from driftscope.monitor.isolation import isolated_from_training
from driftscope.monitor.options import counted
from driftscope.monitor.pretrained import pretrained_model
from driftscope.sources.live import find_target, live_model
from driftscope.text_space import text_tower_digest, text_tower_has_moved


class Budget:
    """Keeps a model in training above a retention, by shrinking what training has changed.

    At each look the pretrained model judges on unlabeled images what is left. Where the lower end
    of the estimate's 90 % interval is below the budget, every trained weight goes back towards W₀
    by one share, until it is not. The optimizer is left alone. A `classifier` that is given goes
    back with them, towards what it was when the budget was made, and so still fits. In several
    processes it must be the same in all by then, as it is once DistributedDataParallel has it.

    Args:
        pretrained: the model before, as `Monitor` takes it.
        model: the model that will be trained, or the module that holds it, **before its first
            step** (and before a checkpoint is loaded into it).
        pool, classes, class_words, templates: as `compare` takes them.
        retention_pct: the budget in percent, from 1 and below 100.
        classifier: what tells classes from the embeddings, fitted to the pretrained ones already.
        every: optimizer steps between looks of `step`, from 1; None looks at every call.
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
        classifier: nn.Module | None = None,
        every: int | None = None,
        images: int = 150,
        class_words: Mapping[str, str] | str | Path | None = None,
        templates: str | Sequence[str] | None = None,
        model_path: str | None = None,
    ) -> None:
        _refuse_wrong_every(every)
        _refuse_no_module(classifier)
        self.spec: BudgetSpec = budget_spec(
            {"retention_pct": retention_pct, "every": int(every or 0) or "epoch", "images": images}
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
        if not trained:
            raise ModelError(
                "no parameter of the model is trained, so a budget could take nothing back; make "
                "it after requires_grad_ has said what is trained"
            )
        is_text = before.backbone.is_text_weight
        trains_texts = any(is_text(before.own_prefix + name) for name in trained)
        has_moved = text_tower_has_moved(live_model(target, before), text_tower_digest(before))
        self._keeper = Keeper(
            lambda: live_model(target, before),
            trained | _trained_of(classifier),
            referee,
            self.spec,
            text_tower_is_frozen=not (trains_texts or has_moved),
        )
        self._device, self._calls = before.device, 0
        self._refuse_changed()

    def _refuse_changed(self) -> None:
        """Refuses a model that is not the pretrained one any more: nothing could be taken back."""
        with isolated_from_training(self._device):
            low = self._keeper.estimate().low_90_pct
        if low is not None and low < self.spec.retention_pct:
            raise ModelError(
                f"the model keeps no {self.spec.retention_pct:g} % of the pretrained one's ability "
                "already, so it has been trained before; make the budget before the first step"
            )

    @keywords()
    def step(self, step: int | None = None) -> Look | None:
        """Looks if a look is due, and shrinks where the budget is not kept.

        Args:
            step: optimizer steps done; calls are counted where it is not given.

        Returns:
            What was found and done; None where nothing was due.

        Raises:
            ConfigError: a step that is no whole number.
            NonFiniteError: the model has diverged.
            ModelError: the budget is not kept even with nothing of the change left.
        """
        self._calls = self._calls + 1 if step is None else counted(step)
        is_due = self.spec.every == "epoch" or self._keeper.is_due(self._calls)
        return self.keep() if is_due else None

    def keep(self) -> Look:
        """Looks now, due or not; errors as for `step`."""
        with isolated_from_training(self._device):
            return self._keeper.look(self._calls)


def _trained_of(classifier: nn.Module | None) -> dict[str, nn.Parameter]:
    named = () if classifier is None else classifier.named_parameters()
    return {f"the given classifier's {name}": one for name, one in named if one.requires_grad}


def _refuse_no_module(classifier: object) -> None:
    if classifier is not None and not isinstance(classifier, nn.Module):
        raise ConfigError(
            f"classifier is {short(classifier)}; give the torch module that tells classes from the "
            "embeddings, or leave it out"
        )


def _refuse_wrong_every(every: object) -> None:
    if every is not None and (not _is_count(every) or every == 0):
        raise ConfigError(
            f"every is {short(every)}; give a whole number of optimizer steps between looks, or "
            "None to look at every call"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
