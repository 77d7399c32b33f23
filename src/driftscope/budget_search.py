"""A shrink by searched strengths: every row of what was trained goes back by a share of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn

from driftscope.adapt.trained_delta import TrainedDelta
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import LEAST_SEARCHED
from driftscope.data import PixelRows
from driftscope.errors import ConfigError
from driftscope.estimate import Referee
from driftscope.strength_search import Change, ToKeep, ToLearn, found_strengths
from driftscope.transfer.features import linear_classifier


@dataclass(frozen=True, eq=False)
class TrainedTask:
    """What a search wants to keep of the training.

    Attributes:
        pixels, labels: of some training images.
        classifier: gives the classifier as it now is, on unnormalised image embeddings.
    """

    pixels: PixelRows
    labels: Int64[Tensor, " image"]
    classifier: Callable[[], nn.Linear]


def kept_of_others(referee: Referee, judging: Sequence[int], keep_pct: float) -> ToKeep:
    """What shall stay: the pretrained distributions on the pool's images that do not judge.

    Args:
        referee: of the whole pool.
        judging: positions in the pool.
        keep_pct: the budget.

    Raises:
        ConfigError: too few are left.
    """
    others = sorted(set(range(len(referee.logits))) - set(judging))
    if len(others) < LEAST_SEARCHED:
        raise ConfigError(
            f"the pool {referee.pool.name} gives {len(referee.logits)} images, and the budget "
            f"looks at {len(judging)} of them; searched strengths need {LEAST_SEARCHED} others: "
            "give a larger pool, or let the budget look at fewer"
        )
    return ToKeep.of(referee.pool.part(others), keep_pct)


@dataclass(frozen=True, eq=False)
class SearchedShrink:
    """The search for what of a training goes back, row by row.

    Attributes:
        delta: what was trained, and where it started.
        keep: what shall stay of the pretrained model.
        task: what shall come along.
    """

    delta: TrainedDelta
    keep: ToKeep
    task: TrainedTask

    def strengths(
        self,
        model: VisionLanguageModel,
        trained: Mapping[str, nn.Parameter],
        reached: Mapping[str, Tensor],
        start: float,
        seed: int,
    ) -> dict[str, Float[Tensor, " row"]]:
        """A strength for every row of the image tower's trained weights, by name in `trained`.

        Args:
            model: in training, as it was reached.
            trained: its trained weights.
            reached: their values.
            start: the share of all that keeps the budget.
            seed: of the search.
        """
        names = self._searched(model, trained)
        change = Change(
            model,
            {inner: self.delta.start[name] for name, inner in names.items()},
            {inner: reached[name] for name, inner in names.items()},
        )
        tuned = model.embed_images(self.task.pixels).float().cpu()
        learn = ToLearn(self.task.pixels, tuned, self.task.classifier().cpu(), self.task.labels)
        found = found_strengths(change, self.keep, learn, start, seed, most=1.0)
        return {name: found[inner] for name, inner in names.items()}

    def accuracy(self, model: VisionLanguageModel) -> float:
        """Of a classifier fitted to every other image of the task, on the others; in [0, 1]."""
        features = model.embed_images(self.task.pixels).float().cpu()
        labels = self.task.labels
        fitted = linear_classifier(features[0::2], labels[0::2], int(labels.max()) + 1)
        return float((fitted(features[1::2]).argmax(dim=1) == labels[1::2]).float().mean())

    def _searched(
        self, model: VisionLanguageModel, trained: Mapping[str, nn.Parameter]
    ) -> dict[str, str]:
        """What the model calls each weight that has strengths; texts and classifier have none."""
        known = {id(one): name for name, one in model.plain.named_parameters()}
        places = {name: known.get(id(trained[name])) for name in self.delta.start}
        is_encoder = model.backbone.is_encoder_weight
        return {
            name: inner
            for name, inner in places.items()
            if inner is not None and is_encoder(model.own_prefix + inner)
        }
