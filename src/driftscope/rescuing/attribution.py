"""Where the damage sits: what each group of weights does to the retention.

Drift describes where a model changed. Here groups go back to W₀, or are tuned alone, and the
retention answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from driftscope.analysis.words import doubt_sentences, join_words
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import text_fingerprint
from driftscope.blending import TEXT, Blend, Part
from driftscope.data.given import Images
from driftscope.data.prompts import PromptRules, prompt_rules
from driftscope.errors import ConfigError, ModelError
from driftscope.estimate import Pool, Referee, make_pool
from driftscope.files import followed, whole_folder
from driftscope.reading import drift
from driftscope.reading_pass import read
from driftscope.records import retention_interval_pct, write_json
from driftscope.related_models import ordered_models
from driftscope.report.where_page import write_where_page
from driftscope.rescuing.shapley import shapley_values
from driftscope.transfer import Outcome, labelled_sets
from driftscope.transfer.scores import retention_pct

WHERE_FILE = "where.json"
_QUERY_KEY_VALUE = re.compile(r"\.(q_proj|k_proj|v_proj|query|key|value)\.(weight|bias)$")
_OUTPUT = re.compile(r"\.(out_proj|o_proj|attention\.output\.dense)\.weight$")


@dataclass(frozen=True)
class GroupDamage:
    """What one group of weights does, in points of retention.

    Attributes:
        name: of the group, or of an attention head.
        block: which block it is in, from 1; None outside of blocks.
        regained: by the adapted model when the group goes back to W₀.
        lost: by the pretrained model when the group alone is tuned.
        shapley: its Shapley value: its part of the whole loss; None of a head.
        shapley_error: standard error of that; None of one pair of orders.
    """

    name: str
    block: int | None
    regained: float
    lost: float
    shapley: float | None = None
    shapley_error: float | None = None


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where the damage sits.

    Attributes:
        pretrained, adapted: the models, as they are called.
        measured_on: what the retention is told by, and whether it is estimated or measured.
        retention_pct: of the adapted model.
        interval_pct: its interval, of 90 % if it is estimated and of 95 % if it is measured.
        groups: from the input to the output; their Shapley values add up to the loss.
        heads: attention heads of the image tower; empty where the family joins their weights.
        num_pairs: orders drawn for the Shapley values, each with its reverse.
        profile: drift of each block on the same images: entropy, CKA.
        notes: what was not measured, and why.
        doubts: what makes the retention doubtful.
    """

    pretrained: str
    adapted: str
    measured_on: str
    retention_pct: float
    interval_pct: tuple[float, float]
    groups: tuple[GroupDamage, ...]
    heads: tuple[GroupDamage, ...]
    num_pairs: int
    profile: Mapping[str, Sequence[float]]
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def loss(self) -> float:
        """What the adapted model lost, in points of retention."""
        return 100.0 - self.retention_pct

    def by_block(self) -> list[float]:
        """The Shapley values of each block's groups, summed."""
        blocks = {one.block for one in self.groups if one.block is not None}
        return [
            sum(one.shapley or 0.0 for one in self.groups if one.block == block)
            for block in range(1, max(blocks, default=0) + 1)
        ]

    def sentence(self) -> str:
        """What was lost, by which groups, and what makes that doubtful."""
        return " ".join(self.sentences())

    def sentences(self) -> list[str]:
        """The same, a sentence each."""
        low, high = self.interval_pct
        told = (
            f"Retention is {self.retention_pct:.1f} % ({self.measured_on}, "
            f"{low:.1f} to {high:.1f} %)"
        )
        if self.loss <= 0:
            doubts = doubt_sentences(self.doubts)
            return [f"{told}: nothing was lost, so no group did damage.", *doubts]
        worst = sorted(self.groups, key=lambda one: -(one.shapley or 0.0))[:3]
        most = join_words(f"{one.name} ({one.shapley:.1f})" for one in worst)
        unsure = (
            "the interval reaches 100 %, so it is not known that anything was lost, and the points "
            "of the groups may be noise"
        )
        return [
            f"{told}. Of the {self.loss:.1f} points lost, these groups of weights do most, by "
            f"their Shapley values: {most}.",
            *doubt_sentences([*([unsure] if high >= 100 else []), *self.doubts]),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The attribution as JSON values."""
        return {
            "kind": "where",
            "sentence": self.sentence(),
            "sentences": self.sentences(),
            **asdict(self),
            "loss": self.loss,
            "damage_per_block": self.by_block(),
            "unit": "points of retention",
        }

    def save(self, folder: Path | str) -> None:
        """Writes `where.json` and the page `report.html` into a new folder, whole or not at all."""
        with whole_folder(followed(folder)) as partial:
            told = self.to_dict()
            write_json(partial / WHERE_FILE, told)
            write_where_page(told, partial)


def where(
    pretrained: str | Path | VisionLanguageModel,
    adapted: str | Path | VisionLanguageModel,
    pool: Images | None = None,
    classes: str | Path | Sequence[str] | None = None,
    *,
    transfer: str | None = None,
    class_words: Mapping[str, str] | str | Path | None = None,
    templates: str | Sequence[str] | None = None,
    max_images: int = 200,
    num_pairs: int = 4,
    heads: bool = True,
    device: str | None = None,
    seed: int = 0,
) -> Attribution:
    """What each group of weights of an adapted model does to its zero-shot ability.

    Args:
        pretrained, adapted: as `compare` takes them.
        pool, classes, class_words, templates: as `compare` takes them; retention is estimated.
        transfer: in place of a pool a labeled dataset; retention is measured zero-shot.
        max_images: how many images are read for each answer.
        num_pairs: orders that are drawn for the Shapley values, each with its reverse.
        heads: whether attention heads are asked, too.
        device: where models given by name run.
        seed: of the orders.

    Raises:
        ConfigError: neither or both of pool and transfer, or no pair of orders.
        ModelError: the two do not belong together or are equal, or retention cannot be told.
    """
    if (pool is None) == (transfer is None):
        raise ConfigError("give either a pool (--pool) or a labeled dataset (--transfer)")
    if num_pairs < 1:
        raise ConfigError(f"num_pairs is {num_pairs}; give 1 or more pairs of orders")
    before, after = ordered_models(pretrained, adapted, device)
    rules = prompt_rules(class_words, templates)
    blend = Blend(before, after)
    scale: Estimated | _Measured
    if transfer is not None:
        scale = _Measured(before, transfer, rules, max_images)
    else:
        unlabeled = make_pool(before, pool or "", classes, rules, max_images)
        rules.refuse_if_unused([unlabeled.classes.names])
        scale = Estimated(before, unlabeled)
    judged = scale.judge(blend.set(blend.uniform(1.0)))
    whole = judged.retention_pct
    found = attributed(blend, scale.retention_pct, whole, num_pairs, seed)
    parts = _heads_of(before, blend) if heads else {}
    no_heads = () if parts or not heads else ("attention heads: this family joins their weights",)
    return Attribution(
        pretrained=before.source,
        adapted=after.source,
        measured_on=scale.described,
        retention_pct=whole,
        interval_pct=judged.interval_pct,
        groups=found,
        heads=tuple(_heads(blend, parts, scale.retention_pct, whole)),
        num_pairs=num_pairs,
        profile=_profile(before, after, scale.pixels),
        notes=no_heads,
        doubts=judged.doubts,
    )


@dataclass(frozen=True)
class _Judgement:
    """The retention of a model, its interval, and what makes it doubtful."""

    retention_pct: float
    interval_pct: tuple[float, float]
    doubts: tuple[str, ...]


def attributed(
    blend: Blend,
    told: Callable[[VisionLanguageModel], float],
    whole: float,
    num_pairs: int,
    seed: int = 0,
) -> tuple[GroupDamage, ...]:
    """What each group of weights does to the retention.

    Args:
        blend: of both models.
        told: a model's retention in percent; the pretrained one's is 100.
        whole: that of the adapted one.
        num_pairs: orders that are drawn for the Shapley values, each with its reverse.
        seed: of the orders.
    """

    def retention(tuned: Iterable[str]) -> float:
        return told(blend.set(dict.fromkeys(tuned, 1.0)))

    groups = blend.groups
    shares = shapley_values(groups, lambda tuned: 100.0 - retention(tuned), num_pairs, seed)
    return tuple(
        GroupDamage(
            group,
            _block_in(group),
            regained=retention(set(groups) - {group}) - whole,
            lost=100.0 - retention({group}),
            shapley=shares[group].value,
            shapley_error=shares[group].error,
        )
        for group in groups
    )


class Estimated:
    """Retention by a pool of unlabeled images."""

    def __init__(self, before: VisionLanguageModel, pool: Pool) -> None:
        self.pool, self.pixels = pool, pool.pixels[:]
        self.own = text_fingerprint(before)
        self.referee = Referee.of(pool, before.embed_images(self.pixels).float().cpu())
        if self.referee.withheld:
            raise ModelError(
                f"retention cannot be estimated on {pool.name}, so nothing can be attributed: "
                f"{self.referee.withheld}"
            )
        self.described = f"estimated from {len(self.pixels)} unlabeled images of {pool.name}"

    def judge(self, model: VisionLanguageModel) -> _Judgement:
        """The estimate with its interval and its doubts."""
        texts = None if text_fingerprint(model) == self.own else self.pool.texts_of(model)
        found = self.referee.estimate(model.embed_images(self.pixels).float().cpu(), texts)
        low, high = (float(end or 0.0) for end in (found.low_90_pct, found.high_90_pct))
        return _Judgement(float(found.retention_pct or 0.0), (low, high), found.doubts)

    def retention_pct(self, model: VisionLanguageModel) -> float:
        """The estimate, in percent."""
        return self.judge(model).retention_pct


class _Measured:
    """Retention by labeled images, zero-shot."""

    def __init__(
        self, before: VisionLanguageModel, name: str, rules: PromptRules, max_images: int
    ) -> None:
        (self.benchmark,) = labelled_sets(name, before, max_images, rules, by="zero_shot")
        rules.refuse_if_unused([self.benchmark.class_names])
        self.own = text_fingerprint(before)
        self.pixels = self.benchmark.pixels[:]
        self.before = self._outcome(before)
        if retention_pct(self.before.score, self.before.score) is None:
            raise ModelError(
                f"{before.source} tells {self.before.score.accuracy_pct:.1f} % of "
                f"{len(self.pixels)} images of {name}, which is no more than chance, so there is "
                "no retention of that"
            )
        self.described = f"measured on {len(self.pixels)} labeled images of {name}"

    def _outcome(self, model: VisionLanguageModel) -> Outcome:
        embeddings = model.embed_images(self.pixels).float().cpu()
        given = dict.fromkeys(self.benchmark.image_sets(), embeddings)
        own = text_fingerprint(model) != self.own
        return self.benchmark.outcome_from(given, model, has_own_texts=own)

    def judge(self, model: VisionLanguageModel) -> _Judgement:
        found = self.benchmark.change(self._outcome(model), self.before)
        ends = retention_interval_pct(found) or (0.0, 100.0)
        return _Judgement(float(found["retention_pct"]), ends, tuple(found["doubts"]))

    def retention_pct(self, model: VisionLanguageModel) -> float:
        return float(retention_pct(self._outcome(model).score, self.before.score) or 0.0)


# ---------------------------------------------------------------- heads


def _heads_of(before: VisionLanguageModel, blend: Blend) -> dict[str, dict[str, list[Part]]]:
    """Group of a block's attention -> head -> the parts of weights that are its own."""
    config = before.backbone.vision_config(before.plain.config)
    count = int(getattr(config, "num_attention_heads", 0))
    if not count:
        return {}
    found: dict[str, dict[str, list[Part]]] = {}
    for group, names in blend.delta.groups.items():
        if not group.endswith("attention") or group == TEXT:
            continue
        heads: dict[str, list[Part]] = {}
        for head in range(count):
            parts = [part for name in names if (part := _part_of(blend, name, head, count))]
            if parts:
                heads[f"{group}, head {head + 1}"] = parts
        if heads:
            found[group] = heads
    return found


def _part_of(blend: Blend, name: str, head: int, count: int) -> Part | None:
    """A head's part of a weight: rows of what makes queries, keys, values; columns of the output.

    The output's bias is of all heads together.
    """
    shape = blend.delta.before[name].shape
    if _QUERY_KEY_VALUE.search(name) and shape[0] % count == 0:
        width = shape[0] // count
        return name, (slice(head * width, (head + 1) * width),)
    if _OUTPUT.search(name) and shape[1] % count == 0:
        width = shape[1] // count
        return name, (slice(None), slice(head * width, (head + 1) * width))
    return None


def _heads(
    blend: Blend,
    parts: Mapping[str, Mapping[str, Sequence[Part]]],
    retention_pct: Callable[[VisionLanguageModel], float],
    whole: float,
) -> Iterable[GroupDamage]:
    for group, heads in parts.items():
        for name, own in heads.items():
            model = blend.set(blend.uniform(1.0))
            blend.set_part(group, own, adapted=False)
            regained = retention_pct(model) - whole
            blend.set(blend.uniform(0.0))
            blend.set_part(group, own, adapted=True)
            yield GroupDamage(name, _block_in(group), regained, 100.0 - retention_pct(model))


def _block_in(group: str) -> int | None:
    match = re.match(r"block (\d+) ", group)
    return int(match.group(1)) if match else None


def _profile(
    before: VisionLanguageModel, after: VisionLanguageModel, pixels: Any
) -> dict[str, list[float]]:
    """How much attention and representation changed at each block, on the same images."""
    seen = drift(read(after, pixels), read(before, pixels))
    return {
        "delta_entropy_pct": list(seen.delta_entropy_pct_per_layer or ()),
        "cka": list(seen.cka_per_block or ()),
    }
