"""Two models on the same images: how far did the second drift from the first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

from driftscope.analysis.advice import Advice, advice_on_comparison
from driftscope.analysis.calibration import Forecast, load_calibration
from driftscope.assess import Assessment, assess
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import (
    encoder_state,
    text_fingerprint,
)
from driftscope.data import EncodedSet, ImageSet, open_dataset
from driftscope.data.address import parse_address
from driftscope.data.encoded import repeats_left_out
from driftscope.data.given import Images, are_labeled, as_typed, each_once, read_notes, split_of
from driftscope.data.prompts import PromptRules, prompt_rules
from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, DataError
from driftscope.estimate import Estimate, Pool, Referee, class_lists, make_pool
from driftscope.files import named_path
from driftscope.metrics import units
from driftscope.order import order_doubt
from driftscope.reading import Drift, Reading
from driftscope.reading_subsets import SUBSET_SIGNALS, probe_size_sensitivity
from driftscope.records import (
    REPORT_FILE,
    Overlay,
    rescued_from,
    transfer_scalars,
    write_sealed,
)
from driftscope.records.json_files import encodable
from driftscope.records.report_place import refuse_others_place
from driftscope.records.schema import RescuedFrom
from driftscope.reference import Reference, evenly_spaced, make_reference
from driftscope.related_models import related_models
from driftscope.signals.weights import intruder_dimensions_per_layer
from driftscope.transfer import RetrievalSet, retrieval_set, transfer_names
from driftscope.transfer.classification import LabelledSet, live_embeddings
from driftscope.transfer.features import labelled_sets, refuse_protocols_of_none
from driftscope.transfer.own_classes import own_classes
from driftscope.transfer.suites import found_suites, places_of, summaries

MIN_IMAGES = 4
"""CKA compares images with each other; its debiased estimator needs four."""
NUM_SUBSETS = 5
"""Parts of the probe set whose entropies are set against each other (paper, table 2)."""

COMPARISON_KIND = "comparison"
"""The `kind` of its JSON, by which readers tell it from a monitor's report."""


@dataclass(frozen=True)
class Comparison:
    """An adapted model against its pretrained one on one probe set."""

    pretrained: str
    adapted: str
    images: str
    num_images: int
    skipped_images: tuple[str, ...]
    notes: tuple[str, ...]
    """What was taken from elsewhere when the models were loaded, or follows their own settings."""
    reading_pretrained: Reading
    reading_adapted: Reading
    drift: Drift
    stability: dict[str, Any]
    intruder_dimensions_per_layer: list[int] | None
    transfer: dict[str, dict[str, Any]]
    retrieval: dict[str, dict[str, Any]]
    own_classes: dict[str, Any] | None
    """How well the images are told by their own classes; None where they have none."""
    estimate: Estimate | None
    """Of retention, from a pool of unlabeled images; None without one."""
    pool: str | None
    """The pool as a command names it; IMAGES where it was given as pixels, None without one."""
    classes: str | None
    """What the pool may show, likewise; NAMES where the names themselves were given."""
    forecast: Forecast | None
    """Of retention, by a calibration; None without one."""
    suites: dict[str, dict[str, Any]]
    text_vocabulary: str
    """The texts that text-space drift is read against, in words."""
    unmeasured: dict[str, str]
    """Why a number is missing, by its metric's key."""
    overlay: Overlay | None
    doubts: tuple[str, ...] = ()
    """Why all of it may mean something else, such as that the models may be in the wrong order."""
    images_are_labeled: bool = False
    split_of: str | None = None
    """The folder of which the images are one split; None where they are none."""
    rescued_from: RescuedFrom | None = None
    """Of an adapted model that came out of a rescue."""

    def to_dict(self, report: Path | str | None = None) -> dict[str, Any]:
        """Every number as JSON values, with the units by name (attention maps are left out).

        `scalars` are the main ones, flat, as a monitor's `report.json` has them. `report` is the
        folder that a gate is to judge, which the advice then names.
        """
        values = self._values()
        if report is not None:
            values["report"] = str(report)
        told: dict[str, Any] = encodable(
            {**values, "advice": advice_on_comparison(values).to_dict()}
        )
        return told

    def _values(self) -> dict[str, Any]:
        return {
            "kind": COMPARISON_KIND,
            "scalars": self.scalars(),
            "pretrained": self.pretrained,
            "adapted": self.adapted,
            "images": self.images,
            "num_images": self.num_images,
            "skipped_images": list(self.skipped_images),
            "notes": list(self.notes),
            "reading_pretrained": self.reading_pretrained.to_dict(),
            "reading_adapted": self.reading_adapted.to_dict(),
            "drift": self.drift.to_dict(),
            "stability": self.stability,
            "intruder_dimensions_per_layer": self.intruder_dimensions_per_layer,
            "transfer": self.transfer,
            "retrieval": self.retrieval,
            "own_classes": self.own_classes,
            "estimate": self.estimate.to_dict() if self.estimate else None,
            "pool": self.pool,
            "classes": self.classes,
            "forecast": self.forecast.model_dump() if self.forecast else None,
            "suites": self.suites,
            "text_vocabulary": self.text_vocabulary,
            "unmeasured": self.unmeasured,
            "doubts": list(self.doubts),
            "images_are_labeled": self.images_are_labeled,
            "split_of": self.split_of,
            "rescued_from": self.rescued_from.model_dump() if self.rescued_from else None,
            "units": units(),
        }

    @property
    def advice(self) -> Advice:
        """The verdict and what to do next, as the command prints them."""
        return advice_on_comparison(self._values())

    def report(self, folder: Path | str = "driftscope-compare") -> Path:
        """Writes `report.html` and `report.json` to a folder, and returns the page's path.

        Raises:
            RecordError: the folder is that of a study or a run, or another report is in it.
        """
        from driftscope.report.html import write_compare_report

        folder = named_path(folder)
        refuse_others_place(folder, COMPARISON_KIND)
        folder.mkdir(parents=True, exist_ok=True)
        values = self.to_dict(folder)
        write_sealed(folder / REPORT_FILE, values)
        return write_compare_report(values, self.overlay, folder / "report.html")

    def _repr_html_(self) -> str:
        from driftscope.report.notebook import comparison_html

        return comparison_html(self._values())

    def scalars(self) -> dict[str, float]:
        """The single numbers that were measured and are finite, by the names that records use."""
        zero_shot = transfer_scalars(self.transfer)
        known = {name: value for name, value in zero_shot.items() if value is not None}
        return {**self.drift.scalars(), **known}


@keywords()
def compare(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    images: str | Path,
    *,
    transfer: str | Path | Sequence[str | Path] = (),
    retrieval: str | Path | Sequence[str | Path] = (),
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
    pool: Images | None = None,
    classes: str | Path | Sequence[str] | None = None,
    calibration: Path | str | None = None,
    max_images: int = 200,
    transfer_by: str | Sequence[str] = (),
    transfer_images: int | None = 1000,
    pool_images: int | None = 1000,
    maps: bool = False,
    intruders: bool = False,
    skip_bad_images: bool = False,
    device: str | None = None,
) -> Comparison:
    """Reads both models on the same images and evaluates what zero-shot ability is left.

    Args:
        pretrained: the model before: anything `driftscope.load` takes, or a loaded model.
        adapted: the model after; its architecture, and its base if known, must be `pretrained`'s.
        images: a folder of images (unlabeled is fine) or a dataset's name.
        transfer: labeled datasets on which accuracy is compared, or suites of them (`vtab`,
            `imagenet-shifts`, `clip-benchmark`, `datacomp`); one or several.
        retrieval: captioned datasets on which recall is compared; one or several.
        transfer_by: by what their classes are told: `zero_shot`, or from the features alone `knn`
            and `linear_probe`; by default zero-shot where there is a text tower, else the others.
        class_words: words of the classes, or a file of them (`prompt_rules`).
        templates: prompt templates: sentences with `{}`, names of sets of them, or files.
        pool: unlabeled images on which retention is estimated: of the world that zero-shot
            ability is wanted for, not of the target. A folder or dataset, pixels, PIL images.
        classes: what the pool's images may show: names, a file of them, `general`, or a labeled
            dataset; without them a pool's own class names.
        calibration: a file that `driftscope study calibrate` wrote; retention is forecast by it.
        max_images: how many of the images are read at most, evenly spaced.
        transfer_images: how many images of each transfer and retrieval set are read at most; None
            for all.
        pool_images: how many images of the pool are read at most; None for all.
        maps: whether to read rollout and patch-to-patch entropy too (full attention maps).
        intruders: whether to count intruder dimensions (2410.21228); a singular value
            decomposition of every weight matrix that changed.
        skip_bad_images: whether unreadable images are left out (and counted) or an error.
        device: where models given by name run, such as `cpu` or `cuda:0`; by default CUDA where
            there is any. A loaded model stays where it is.

    Raises:
        ModelError: a model cannot be loaded, or the two don't belong together.
        DataError: no images, or an unreadable one.
    """
    asked = transfer_names(transfer)
    refuse_protocols_of_none(transfer_by, asked)
    suites = found_suites(asked)
    names = places_of(asked, suites)
    rules = prompt_rules(class_words, templates)
    if not isinstance(max_images, int) or max_images < MIN_IMAGES:
        raise ConfigError(
            f"max_images is {max_images!r}; give a whole number of {MIN_IMAGES} or more"
        )
    parse_address(images)  # refuses what is none before any model is loaded
    gauge = None if calibration is None else load_calibration(calibration)
    before, after = related_models(pretrained, adapted, device)
    image_set, skipped = _probe_set(images, skip_bad_images)
    drawn = evenly_spaced(len(image_set), max_images)
    try:
        chosen = each_once(image_set, drawn).tolist()
        pixels = image_set.pixels(chosen, before.framing)
    except DataError as error:
        raise DataError(
            f"{error}; replace it, or leave such images out with --skip-bad-images "
            "(skip_bad_images=True)"
        ) from None
    _refuse_few(images, len(chosen))

    def opened(
        model: VisionLanguageModel,
    ) -> tuple[list[LabelledSet], list[RetrievalSet], Pool | None]:
        """The benchmarks and the pool, their images as a model reads them."""
        labelled = labelled_sets(
            *(names, model, transfer_images, rules),
            by=transfer_by,
            skip_bad_images=skip_bad_images,
        )
        captioned = [
            retrieval_set(name, model, transfer_images, skip_bad_images=skip_bad_images)
            for name in transfer_names(retrieval, "retrieval")
        ]
        unlabeled = _pool(model, pool, classes, rules, pool_images, skip_bad_images)
        return labelled, captioned, unlabeled

    labelled, captioned, unlabeled = opened(before)
    rules.refuse_if_unused(class_lists(labelled, unlabeled))
    reference = make_reference(
        before, pixels, transfer=labelled, retrieval=captioned, pool=unlabeled, maps=maps
    )
    seen, notes = reference, _notes_of(before, after)
    notes += read_notes(image_set, chosen)
    if repeated := len(drawn) - len(chosen):
        notes.append(f"{image_set.name}: {repeats_left_out(repeated)}")
    notes += unlabeled.notes if unlabeled else ()
    if (grids := _grids(before)) != _grids(after):
        notes.append(
            f"{before.source} keeps positions for {grids} patches and {after.source} for "
            f"{_grids(after)}: they are left out of the weight drift"
        )
    if after.image_size != before.image_size:
        notes.append(
            f"{before.source} reads images of {before.image_size} pixels and {after.source} those "
            f"of {after.image_size}: each is read at its own size, and the positions of patches "
            "are left out of the weight drift"
        )
        twin = _at_the_size_of(after, before)
        seen = reference.at_another_size(image_set.pixels(chosen, after.framing), *opened(twin))
    found = assess(after, seen)
    counts = None
    if intruders:
        weights, block_of = encoder_state(after), before.backbone.block_of
        counts = intruder_dimensions_per_layer(seen.weights, weights, block_of=block_of)
    unmeasured = found.unmeasured
    if not counts:
        unmeasured["intruder_dimensions"] = (
            "it was not asked for (intruders)"
            if counts is None
            else "the blocks of the image tower hold kernels, and no matrices"
        )
    own = own_classes(
        None if image_set.labels is None else image_set.labels[list(chosen)],
        reference.reading.embeddings,
        found.reading.embeddings,
    )
    is_unchanged = found.drift.weight_drift == 0
    doubt = "" if is_unchanged else order_doubt(before, after, image_set.name, own, found.transfer)
    return Comparison(
        pretrained=before.source,
        adapted=after.source,
        images=image_set.name,
        num_images=len(pixels),
        skipped_images=tuple(skipped),
        notes=tuple(dict.fromkeys(notes)),
        reading_pretrained=reference.reading,
        reading_adapted=found.reading,
        drift=found.drift,
        stability=_stability(found.reading, reference.reading),
        intruder_dimensions_per_layer=counts,
        transfer=_transfer(reference, found),
        retrieval=found.retrieval,
        own_classes=own,
        estimate=found.estimate,
        pool=as_typed(pool, "IMAGES"),
        classes=as_typed(classes, "NAMES"),
        forecast=gauge.forecast(found.scalars(), model=before.source) if gauge else None,
        suites=summaries(suites, found.transfer),
        text_vocabulary=reference.texts.described,
        unmeasured=unmeasured,
        overlay=None if seen.is_at_another_size else reference.overlay(found.reading.shown_rows),
        doubts=(doubt,) if doubt else (),
        images_are_labeled=are_labeled(image_set),
        split_of=split_of(image_set),
        rescued_from=rescued_from(after.source),
    )


def estimate_retention(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    pool: Images,
    classes: str | Path | Sequence[str] | None = None,
    *,
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
    max_images: int | None = 1000,
    device: str | None = None,
) -> Estimate:
    """How much of its zero-shot ability an adapted model has kept, from unlabeled images.

    Args:
        pretrained, adapted: as `compare` takes them.
        pool, classes, class_words, templates: as `compare` takes them.
        max_images: how many images of the pool are read at most; None for all.
        device: where models given by name run.

    Raises:
        ModelError, DataError, ConfigError: an argument cannot be used.
    """
    before, after = related_models(pretrained, adapted, device)
    rules = prompt_rules(class_words, templates)
    images = make_pool(before, pool, classes, rules, max_images)
    rules.refuse_if_unused([images.classes.names])
    referee = Referee.of(images, before.embed_images(images.pixels).float().cpu())
    if after.image_size != before.image_size:
        images = make_pool(_at_the_size_of(after, before), pool, classes, rules, max_images)
    has_own_texts = text_fingerprint(before) != text_fingerprint(after)
    texts = images.texts_of(after) if has_own_texts else None
    return referee.estimate(live_embeddings(after, images.pixels).float().cpu(), texts)


def _notes_of(before: VisionLanguageModel, after: VisionLanguageModel) -> list[str]:
    """What is to be said of both models; what holds of both alike is said once."""
    told, both = list(before.notes), f"{before.source} and {after.source}"
    for note in after.notes:
        same = note.replace(after.source, before.source, 1)
        if same in told:
            told[told.index(same)] = same.replace(before.source, both, 1)
        else:
            told.append(note)
    return told


def _transfer(reference: Reference, found: Assessment) -> dict[str, dict[str, Any]]:
    """Zero-shot scores of both, each with its own text tower where adaptation moved that too."""
    return {
        one.name: {
            "pretrained": reference.outcomes[one.name].score.to_dict(),
            "adapted": found.scores[one.name].to_dict(),
            "adapted_text_tower": found.text_tower,
            "unknown_words": list(one.unknown_words),
            **one.prompts(),
            **found.transfer[one.name],
        }
        for one in reference.transfer
    }


def _stability(reading_after: Reading, reading_before: Reading) -> dict[str, Any]:
    """How far the numbers depend on which images, and on how many, were read."""
    count = reading_after.num_images
    subsets = [range(start, count, NUM_SUBSETS) for start in range(min(NUM_SUBSETS, count))]
    sizes = sorted({max(MIN_IMAGES, count // part) for part in (8, 4, 2, 1)})
    drifts = probe_size_sensitivity(reading_after, reading_before, sizes)
    has_rows = reading_after.num_layers > 0
    spread = reading_after.subset_coefficient_of_variation(subsets) if has_rows else None
    return {
        "num_subsets": len(subsets),
        "entropy_subset_cv": spread,
        "probe_sizes": [
            {
                "num_images": one.num_images,
                **{name: getattr(one, name) for name in SUBSET_SIGNALS},
            }
            for one in drifts
        ],
    }


def _grids(model: VisionLanguageModel) -> str:
    """For how many patches a model keeps positions that it fits to any image; empty of others."""
    if model.backbone.has_fixed_input_size or model.backbone.positions_name is None:
        return ""
    positions = model.plain.get_parameter(
        model.backbone.positions_name.removeprefix(model.own_prefix)
    )
    side = model.backbone.grid_side(positions)
    return f"{side} × {side}"


def _at_the_size_of(after: VisionLanguageModel, before: VisionLanguageModel) -> VisionLanguageModel:
    """The model before, for which images are opened as the model after reads them."""
    return replace(before, image_size=after.image_size, own_framing=after.framing)


def _pool(
    before: VisionLanguageModel,
    images: Images | None,
    classes: str | Path | Sequence[str] | None,
    rules: PromptRules,
    max_images: int | None,
    skip_bad_images: bool,
) -> Pool | None:
    if images is not None:
        return make_pool(
            before, images, classes, rules, max_images, skip_bad_images=skip_bad_images
        )
    if classes is None:
        return None
    raise ConfigError(
        f"classes is {short(classes)}, but no pool was given; give the unlabeled images that the "
        "classes are of, such as pool='concepts100' (--pool)"
    )


def _probe_set(images: str | Path, skip_bad: bool) -> tuple[ImageSet, list[str]]:
    image_set = open_dataset(images, "test")
    skipped: list[str] = []
    if isinstance(image_set, EncodedSet):
        image_set = image_set.by_file()
    if skip_bad and isinstance(image_set, EncodedSet):
        image_set, skipped = image_set.readable()
    _refuse_few(images, len(image_set))
    return image_set, skipped


def _refuse_few(images: str | Path, num_images: int) -> None:
    if num_images < MIN_IMAGES:
        raise DataError(
            f"{images} has {num_images} readable image(s); drift is read on at least "
            f"{MIN_IMAGES}, and is steadier on 200"
        )
