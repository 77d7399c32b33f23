"""Penalties that hold a model near its pretrained self, added to any method's loss.

The model keeps its fast attention: CLS rows come differentiably from captured queries and keys,
beside it. What a penalty compares with is the pretrained model on the very same pixels (flips
included), read in one forward pass without gradients that all penalties share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional

from driftscope.adapt import AdaptedModel, derived_seed
from driftscope.backbones.capture import Captured, capture_cls
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import RunSpec
from driftscope.config.variants import (
    EntropyFloor,
    EntropyShift,
    RandomTextDistillation,
    RegularizerSpec,
)

_READS_ROWS = frozenset({"apr", "entropy_floor", "entropy_shift"})


@dataclass(frozen=True)
class Pretrained:
    """What penalties know of the pretrained model beforehand."""

    model: VisionLanguageModel
    entropy_per_layer: Sequence[float]
    """Mean CLS attention entropy of each layer on the probe set, in nats."""


@dataclass
class StepView:
    """One forward pass in training, as penalties see it.

    `rows` are the live model's, in its autograd graph; None where no penalty reads them.
    """

    adapted: AdaptedModel
    pretrained: Pretrained
    pixels: UInt8[Tensor, "image 3 height width"]
    embeddings: Float[Tensor, "image dim"]
    rows: list[Float[Tensor, "image head patch"]] | None
    seed_parts: tuple[int | str, ...]
    """What random choices of this step come from."""

    @property
    def live_rows(self) -> list[Float[Tensor, "image head patch"]]:
        """The live model's CLS attention."""
        return self.rows or []

    @cached_property
    def _pretrained_pass(self) -> tuple[list[Tensor], Tensor]:
        module = self.pretrained.model.module
        with evaluating(module), capture_cls(module) as captured:
            embeddings = self.pretrained.model.image_embeddings(self.pixels)
            return captured.rows, embeddings

    @property
    def pretrained_rows(self) -> list[Float[Tensor, "image head patch"]]:
        """The pretrained model's CLS attention on these pixels."""
        return self._pretrained_pass[0]

    @property
    def pretrained_embeddings(self) -> Float[Tensor, "image dim"]:
        """The pretrained model's embeddings of these pixels."""
        return self._pretrained_pass[1]


class Regularization:
    """The penalties of a run; used around each forward pass of its training."""

    def __init__(self, spec: RunSpec, adapted: AdaptedModel, pretrained: Pretrained) -> None:
        self._spec, self._adapted, self._pretrained = spec, adapted, pretrained
        self._captured: Captured | None = None
        reads_rows = any(one.kind in _READS_ROWS for one in spec.regularizers)
        # a frozen encoder cannot leave its pretrained self: every penalty is constant
        self.is_active = bool(spec.regularizers) and not adapted.encoder_is_frozen
        self._captures = self.is_active and reads_rows

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The forward pass whose penalty is wanted runs inside, the call of `penalty` too."""
        if not self._captures:
            yield
            return
        try:
            with capture_cls(self._adapted.model.module, differentiable=True) as self._captured:
                yield
        finally:
            self._captured = None

    def penalty(self, pixels: Tensor, embeddings: Tensor, step: int) -> Float[Tensor, ""]:
        """The weighted sum of all penalties for the forward pass just made."""
        view = StepView(
            adapted=self._adapted,
            pretrained=self._pretrained,
            pixels=pixels,
            embeddings=embeddings,
            rows=self._captured.rows if self._captured is not None else None,
            seed_parts=(self._spec.seed, step),
        )
        with torch.autocast(pixels.device.type, enabled=False):
            parts = [one.weight * PENALTIES[one.kind](view, one) for one in self._spec.regularizers]
        return torch.stack(parts).sum()


def _attention_divergence(view: StepView, _spec: RegularizerSpec) -> Float[Tensor, ""]:
    """Mean over layers, heads and images of KL(current ‖ pretrained) of CLS attention, nats."""
    pairs = zip(view.live_rows, view.pretrained_rows, strict=True)
    return torch.stack([_kl(current, before) for current, before in pairs]).mean()


def _entropy_shortfall(view: StepView, spec: EntropyFloor) -> Float[Tensor, ""]:
    """Mean over layers of relu(ρ·H₀ − H), nats; H is the batch's mean over heads and images.

    H₀ is the layer's pretrained entropy on the probe set: a floor that stays where it is. As it
    holds for a batch's mean, the parts of a batch cannot pay it one by one (`micro_batches`).
    """
    floors = view.pretrained.entropy_per_layer
    shortfalls = [
        functional.relu(spec.rho * floor - _entropy(rows).mean())
        for rows, floor in zip(view.live_rows, floors, strict=True)
    ]
    return torch.stack(shortfalls).mean()


def _entropy_gap(view: StepView, spec: EntropyShift) -> Float[Tensor, ""]:
    """Mean over layers of (H/H₀ − 1 − target)²; H is the batch's mean over heads and images.

    H₀ is the layer's pretrained entropy on the probe set. Relative to it, all layers count alike.
    """
    target = 1 + spec.target_pct / 100
    gaps = [
        (_entropy(rows).mean() / before - target).square()
        for rows, before in zip(view.live_rows, view.pretrained.entropy_per_layer, strict=True)
    ]
    return torch.stack(gaps).mean()


def _weight_distance(view: StepView, _spec: RegularizerSpec) -> Float[Tensor, ""]:
    """Half the squared L2 distance of the encoder's effective weights from the pretrained."""
    moves = displacements(view.adapted.model, view.pretrained.model)
    return torch.stack([move.square().sum() for move in moves]).sum() / 2


def _feature_distance(view: StepView, _spec: RegularizerSpec) -> Float[Tensor, ""]:
    """Mean over images of the squared L2 distance of projected embeddings.

    The last-layer form of LDIFS (Mukhoti et al. 2023), which joins features of several layers.
    """
    change = view.embeddings.float() - view.pretrained_embeddings
    return change.square().sum(dim=-1).mean()


def _random_text_change(view: StepView, spec: RandomTextDistillation) -> Float[Tensor, ""]:
    """Half the mean over images and random texts of the squared change of the logits.

    A logit is the pretrained logit scale times the cosine. Texts are drawn anew every step, and
    are the same for all parts of its batch.
    """
    seed = derived_seed(*view.seed_parts, "random texts")
    texts = random_text_directions(view.pretrained.model, spec.num_texts, spec.text_length, seed)
    directions = functional.normalize(view.embeddings.float(), dim=-1)
    before = functional.normalize(view.pretrained_embeddings, dim=-1)
    change = view.pretrained.model.logit_scale * (directions - before) @ texts.T
    return change.square().mean() / 2


PENALTIES: dict[str, Callable[[StepView, Any], Float[Tensor, ""]]] = {
    "apr": _attention_divergence,
    "entropy_floor": _entropy_shortfall,
    "entropy_shift": _entropy_gap,
    "l2_sp": _weight_distance,
    "feature_distance": _feature_distance,
    "random_text": _random_text_change,
}


# ---------------------------------------------------------------- rows


def _kl(
    current: Float[Tensor, "image head patch"], before: Float[Tensor, "image head patch"]
) -> Float[Tensor, ""]:
    """KL(current ‖ before) averaged over images and heads, in nats, in [0, ∞)."""
    return (current * (_log(current) - _log(before))).sum(dim=-1).mean()


def _entropy(rows: Float[Tensor, "image head patch"]) -> Float[Tensor, "image head"]:
    return -(rows * _log(rows)).sum(dim=-1)


def _log(rows: Tensor) -> Tensor:
    """The logarithm, finite and with a finite gradient where a weight has underflowed to 0."""
    return rows.clamp_min(torch.finfo(rows.dtype).tiny).log()


# ---------------------------------------------------------------- weights


def displacements(adapted: VisionLanguageModel, pretrained: VisionLanguageModel) -> list[Tensor]:
    """W − W₀ of every encoder tensor that can move, differentiable, adapters counted as acting.

    For LoRA that is (α/r)·BA, so that full fine-tuning and adapters are held on one scale.
    """
    if adapted.is_adapter:
        return list(_adapter_displacements(adapted.plain))
    before = dict(pretrained.module.named_parameters())
    return [
        parameter - before[name]
        for name, parameter in adapted.module.named_parameters()
        if parameter.requires_grad and adapted.backbone.is_encoder_weight(adapted.own_prefix + name)
    ]


def _adapter_displacements(plain: nn.Module) -> Iterator[Tensor]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for module in plain.modules():
        if isinstance(module, BaseTunerLayer):
            for name in module.active_adapters:
                yield from _layer_displacements(module, name)
        elif isinstance(module, ModulesToSaveWrapper):
            before = dict(module.original_module.named_parameters())
            for name in module.active_adapters:
                for part, tensor in module.modules_to_save[name].named_parameters():
                    yield tensor - before[part]


def _layer_displacements(layer: Any, name: str) -> Iterator[Tensor]:
    base = layer.get_base_layer()
    if hasattr(layer, "ia3_l"):
        change = layer.ia3_l[name] - 1
        yield base.weight * change
        if base.bias is not None and not layer.is_feedforward:
            yield base.bias * change.flatten()
        return
    change = layer.get_delta_weight(name)
    magnitudes = getattr(layer, "lora_magnitude_vector", {})
    if name not in magnitudes:
        yield change
        return
    # DoRA's forward treats the norm as a constant, too
    moved = base.weight + change
    norm = moved.detach().norm(dim=1, keepdim=True)
    yield magnitudes[name].weight.unsqueeze(1) / norm * moved - base.weight


# ---------------------------------------------------------------- random texts


def random_text_directions(
    model: VisionLanguageModel, num_texts: int, text_length: int, seed: int
) -> Float[Tensor, "text dim"]:
    """Normalised embeddings of texts of random tokens, each between a start and an end token.

    Raises:
        ModelError: the model came without a tokenizer.
    """
    # the tokens that the tokenizer sets around any text; a config may name others
    frame = model.tokenised([""])["input_ids"][0]
    words = _ordinary_tokens(model)
    generator = Generator().manual_seed(seed)
    chosen = torch.randint(len(words), (num_texts, text_length), generator=generator)
    if len(frame) != 2:  # padded to the full length, or nothing is set around a text
        tokenizer: Any = model.tokenizer
        texts = [tokenizer.decode(words[row].tolist()) for row in chosen]
        return functional.normalize(model.embed_texts(texts), dim=-1)
    room = model.backbone.text_length(model.plain.config) - 2
    middle = words[chosen][:, :room]
    start, end = (token.cpu().expand(num_texts, 1) for token in (frame[0], frame[-1]))
    tokens = torch.cat([start, middle, end], dim=1).to(model.device)
    with evaluating(model.module):
        features = model.backbone.embed_texts(model.module, {"input_ids": tokens})
    return functional.normalize(features, dim=-1)


def _ordinary_tokens(model: VisionLanguageModel) -> Int64[Tensor, " token"]:
    tokenizer: Any = model.tokenizer
    is_ordinary = torch.ones(len(tokenizer), dtype=torch.bool)
    is_ordinary[tokenizer.all_special_ids] = False
    is_ordinary[model.tokenised([""])["input_ids"][0].cpu()] = False
    return is_ordinary.nonzero().squeeze(1)
