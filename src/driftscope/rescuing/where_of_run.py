"""Where the damage of a run sits, told after its training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from driftscope.adapt import AdaptedModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import RunSpec
from driftscope.data.rows import PixelRows
from driftscope.prepared_run import PreparedRun
from driftscope.rescuing.attribution import Estimated, attributed
from driftscope.rescuing.of_run import blend_to

IMAGES, PAIRS = 80, 2
"""How many images of the pool are read for each answer, and pairs of orders that are drawn."""


@dataclass(frozen=True, eq=False)
class RunAttribution:
    """What attributes a run's damage: the pretrained model, and retention by the run's pool."""

    pretrained: VisionLanguageModel
    scale: Estimated

    @classmethod
    def of(cls, spec: RunSpec, prepared: PreparedRun) -> RunAttribution | None:
        """None where the spec does not ask.

        Raises:
            ModelError: retention cannot be estimated on the pool.
        """
        referee = prepared.reference.referee
        if "where" not in spec.post or referee is None:
            return None
        pool = referee.pool
        count = min(IMAGES, len(pool.pixels))
        spread = [at * len(pool.pixels) // count for at in range(count)]
        few = replace(pool, pixels=PixelRows.of(pool.pixels).select(spread))
        return cls(prepared.pretrained, Estimated(prepared.pretrained, few))

    def told(self, adapted: AdaptedModel) -> dict[str, Any] | None:
        """As `records.schema.StoredAttribution` holds it; None where the encoder is as it was."""
        blend = blend_to(self.pretrained, adapted)
        if blend is None:
            return None
        whole = self.scale.retention_pct(blend.set(blend.uniform(1.0)))
        groups = attributed(blend, self.scale.retention_pct, whole, PAIRS)
        return {
            "measured_on": self.scale.described,
            "retention_pct": whole,
            "num_pairs": PAIRS,
            "groups": [asdict(one) for one in groups],
        }
