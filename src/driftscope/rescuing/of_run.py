"""What the ways of a rescue keep of a run, measured on the run's own images."""

from __future__ import annotations

from dataclasses import dataclass

from driftscope.adapt import AdaptedModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import Blend, EqualModelsError
from driftscope.config import RunSpec
from driftscope.data.rows import PixelRows
from driftscope.data.splits import balanced_subset
from driftscope.estimate import Pool
from driftscope.prepared_run import PreparedRun
from driftscope.rescuing.apart import pool_apart
from driftscope.rescuing.budgets import Kept, kept_at_budgets, kept_at_ends
from driftscope.rescuing.judge import Judge, outcome_on, referee_of
from driftscope.rescuing.target import Labels, Target

_MOST_IMAGES = 400
"""How many are read at most of the training split, and of the test split."""


@dataclass(frozen=True, eq=False)
class RunRescues:
    """What a run's model is rescued with.

    Attributes:
        spec: of the run; its `post` names the ways.
        prepared: what the run shares with others.
        pool: without the images that retention is measured on.
    """

    spec: RunSpec
    prepared: PreparedRun
    pool: Pool

    @classmethod
    def of(cls, spec: RunSpec, prepared: PreparedRun) -> RunRescues | None:
        """None where the spec asks for none.

        Raises:
            ModelError: retention cannot be estimated on the pool, or nothing of it is left.
        """
        referee = prepared.reference.referee
        if not spec.ways or referee is None:
            return None
        main = prepared.reference.transfer[:1]
        pool = pool_apart(referee.pool, *main) if main else referee.pool
        referee_of(prepared.pretrained, pool)  # refuses before the training
        return cls(spec, prepared, pool)

    def kept_by(self, adapted: AdaptedModel) -> list[Kept]:
        """Rows of both ends and of every way and budget; none where the encoder is as it was."""
        before, after = self.prepared.pretrained, adapted.model
        blend = blend_to(before, adapted)
        if blend is None:
            return []
        head = adapted.linear_classifier()
        judge = Judge(before, after, self.pool, _target(self.spec, self.prepared), head)
        given = blend, judge, self._retention
        return [*kept_at_ends(*given), *kept_at_budgets(*given, self.spec.ways)]

    def _retention(self, model: VisionLanguageModel) -> float | None:
        """On the main transfer set, in percent; None without one."""
        reference = self.prepared.reference
        if not reference.transfer:
            return None
        main = reference.transfer[0]
        found = outcome_on(main, self.prepared.pretrained, model)
        value: float | None = main.change(found, reference.outcomes[main.name])["retention_pct"]
        return value


def blend_to(pretrained: VisionLanguageModel, adapted: AdaptedModel) -> Blend | None:
    """What lies between the models; None where the encoder was frozen, or put back to the bit."""
    if adapted.encoder_is_frozen:
        return None
    try:
        return Blend(pretrained, adapted.model)
    except EqualModelsError:
        return None


def _target(spec: RunSpec, prepared: PreparedRun) -> Target:
    """Training images that a classifier is fitted to, and test images that it is measured on."""
    fit = balanced_subset(prepared.images.labels, _MOST_IMAGES)
    test = balanced_subset(prepared.test_labels, _MOST_IMAGES)
    test = test[prepared.test_labels[test].argsort(stable=True)]  # so that each half is balanced
    labels = Labels(
        class_names=prepared.class_names,
        num_classes=len(prepared.class_names),
        fit=prepared.images.labels[fit],
        test_pixels=PixelRows.of(prepared.test_pixels).select(test.tolist()),
        test=prepared.test_labels[test],
    )
    pixels = PixelRows.of(prepared.images.pixels).select(fit.tolist())
    return Target(spec.dataset, pixels, labels)
