"""What comes out of a rescue: every point, the one that is chosen, and the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from driftscope.adapt import CLASSIFIER_FILE
from driftscope.adapt.storage import save_tensors
from driftscope.backbones.model import VisionLanguageModel
from driftscope.files import followed, named_path, whole_folder
from driftscope.records import ADAPTED_FOLDER, PROBE_FILE, RESCUE_FILE, STRENGTHS_FILE, write_json
from driftscope.report.rescue_page import write_rescue_page
from driftscope.rescuing.kinds import Chosen, write_like
from driftscope.rescuing.points import Point
from driftscope.rescuing.target import Final
from driftscope.rescuing.telling import order_doubt, sentences_of, steps_of
from driftscope.transfer import ZeroShotScore


@dataclass(frozen=True, eq=False)
class Rescue:
    """What came out: the chosen point, the ways that were tried, and the model itself.

    Attributes:
        keep_pct: the budget.
        chosen: the best point that keeps it.
        alike: other points that keep it and are as accurate within noise, the most retention first.
        points: every point that was looked at.
        pretrained, adapted: both ends; the pretrained one's accuracy is that of a linear probe.
        final: their accuracies with classifiers fitted to more images; None without labels.
        transfer: benchmark -> what the chosen model has kept, measured on labeled images.
        notes: what was not measured, and why.
        target_doubts: what makes the accuracies doubtful.
        classifier: fitted anew on the chosen model's embeddings; None without labels.
        probe: the same on the pretrained model's.
        class_names: what both tell.
        origin: both models, and the strengths between them.
        num_pool: images of the pool that were read, of which every other one judged.
        num_pool_given: images of the pool.
        num_fitted: labeled images that the classifiers of `points` are fitted to; 0 without labels.
        asked: what a command names: `images`, `pool` and, where they were given, `classes`.
    """

    keep_pct: float
    chosen: Point
    alike: tuple[Point, ...]
    points: tuple[Point, ...]
    pretrained: Point
    adapted: Point
    final: Final | None
    transfer: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]
    target_doubts: tuple[str, ...]
    classifier: nn.Linear | None = field(repr=False)
    probe: nn.Linear | None = field(repr=False)
    class_names: tuple[str, ...]
    origin: Chosen = field(repr=False)
    num_pool: int
    num_pool_given: int
    num_fitted: int
    asked: Mapping[str, str | None]

    @property
    def model(self) -> VisionLanguageModel:
        """The chosen model, a plain one."""
        return self.origin.model

    @property
    def beats_the_probe(self) -> bool | None:
        """Whether its classifier is above a linear probe of the pretrained model; None if unknown.

        By however little: the sentence says whether chance can make as much.
        """
        if self.final is None:
            return None
        ours, probe = self.final.chosen.refitted, self.final.pretrained.refitted
        return ours.num_correct > probe.num_correct

    @property
    def order_doubt(self) -> str:
        """That training did harm, or that the models were given in the wrong order; or ""."""
        return "" if self.is_agreement else order_doubt(self.final)

    @property
    def is_agreement(self) -> bool:
        """Whether `final` tells no accuracy, but agreement with the adapted model's classifier."""
        return self.final is not None and self.final.chosen.is_agreement

    @property
    def surely_beats_the_probe(self) -> bool:
        """Whether the probe's accuracy lies below the interval of the rescued model's."""
        if self.final is None:
            return False
        ours, probe = self.final.chosen.refitted, self.final.pretrained.refitted
        return probe.accuracy_pct < ours.wilson_low_pct

    def frontier(self) -> list[dict[str, Any]]:
        """A row a point: way, scale, estimated retention with its interval, likeness, accuracies.

        The best `choosing_accuracy_pct` that keeps the budget is chosen, and of equal ones the most
        retention; `accuracy_pct` is on other images. Without labels both are agreement with the
        adapted model's classifier (`is_agreement`).
        """
        return [
            {
                "way": one.way,
                "scale": one.scale,
                "estimated_retention_pct": one.estimate.retention_pct,
                "low_90_pct": one.estimate.low_90_pct,
                "high_90_pct": one.estimate.high_90_pct,
                "likeness": one.likeness,
                "choosing_accuracy_pct": one.accuracy.choosing_pct if one.accuracy else None,
                "accuracy_pct": one.accuracy.refitted.accuracy_pct if one.accuracy else None,
                "kept_head_accuracy_pct": _pct(one.accuracy.kept_head) if one.accuracy else None,
            }
            for one in self.points
        ]

    def sentence(self) -> str:
        """What was kept of both models, and whether it is worth having."""
        return " ".join(self.sentences())

    def sentences(self) -> list[str]:
        """The same, a sentence each."""
        return sentences_of(self)

    def _repr_html_(self) -> str:
        from driftscope.report.notebook import rescue_html

        return rescue_html(self.to_dict())

    def steps(self, folder: Path | str) -> list[str]:
        """What to do with the model that was saved in a folder, each with its command."""
        return steps_of(self, str(folder), named_path(folder))

    def to_dict(self) -> dict[str, Any]:
        """The rescue as JSON values."""
        return {
            "kind": "rescue",
            "models": {"pretrained": self.origin.before.source, "adapted": self.origin.name},
            "keep_pct": self.keep_pct,
            "asked": dict(self.asked),
            "num_pool": self.num_pool,
            "num_pool_given": self.num_pool_given,
            "num_fitted": self.num_fitted,
            "doubts": [*([self.order_doubt] if self.order_doubt else []), *self.target_doubts],
            "sentence": self.sentence(),
            "sentences": self.sentences(),
            "chosen": self.chosen.to_dict(),
            "alike": [{"way": one.way, "scale": one.scale} for one in self.alike],
            "beats_the_probe": self.beats_the_probe,
            "final": self.final.to_dict() if self.final else None,
            "pretrained": self.pretrained.to_dict(),
            "adapted": self.adapted.to_dict(),
            "transfer": {name: dict(one) for name, one in self.transfer.items()},
            "notes": list(self.notes),
            "class_names": list(self.class_names),
            "points": [one.to_dict() for one in self.points],
        }

    def save(self, folder: Path | str) -> str:
        """Writes the rescued model as the adapted one was kept, and says as what.

        In the folder are also `rescue.json`, the page `report.html`, where it was fitted the
        classifier, and the strengths of rows that were searched. The folder appears when it is
        whole; a failure leaves none.

        Raises:
            NonFiniteError: the weights hold NaN or infinities.
            OSError: it cannot be written, or is there and not empty.
        """
        with whole_folder(followed(folder)) as partial:
            return self.write_into(partial, called=folder)

    def write_into(self, folder: Path, called: Path | str) -> str:
        """Writes into an empty folder what `save` does, which tells it by the name it will have.

        Errors are those of `save`; a failure may leave some of it.
        """
        written = write_like(self.origin, folder)
        if self.classifier is not None:
            inner = folder / ADAPTED_FOLDER
            place = inner if inner.is_dir() else folder
            save_tensors(self.classifier.state_dict(), place / CLASSIFIER_FILE)
        if self.probe is not None:
            save_tensors(self.probe.state_dict(), folder / PROBE_FILE)
        if self.chosen.by_row:
            save_tensors(self.chosen.by_row, folder / STRENGTHS_FILE)
        steps = steps_of(self, str(called), folder)
        told = {**self.to_dict(), "steps": steps, "written": written}
        write_json(folder / RESCUE_FILE, told)
        write_rescue_page(told, folder)
        return written


def _pct(score: ZeroShotScore | None) -> float | None:
    return None if score is None else score.accuracy_pct
