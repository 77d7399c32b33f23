"""One forward pass over the probe set gives every signal.

The pass runs the model as it is, in eval mode, on its own attention kernel; `backbones.capture`
takes what is needed beside it. Signals are kept per image and averaged over images at the end, in
float64, so that the batch size does not enter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import ImageTower
from driftscope.backbones.capture import Captured, capture_cls
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.deprecation import keywords
from driftscope.errors import CaptureError, NonFiniteError
from driftscope.metric import Metric
from driftscope.metrics import drifts, levels
from driftscope.reading import Reading, check_same_images
from driftscope.signals import attention
from driftscope.signals.text import TextSpaceDrift, text_space_drift

if TYPE_CHECKING:
    from collections.abc import Callable

    from driftscope.data import PixelRows

Pixels = UInt8[Tensor, "image 3 height width"] | Float[Tensor, "image 3 height width"]


@keywords()
def read(
    model: VisionLanguageModel | nn.Module,
    pixels: Pixels,
    *,
    batch_size: int | None = None,
    maps: bool = False,
    shown: Sequence[int] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Reading:
    """Reads every signal of a model on a probe set in one forward pass.

    The model's mode, attention implementation and hooks are left as they were. Runs without
    gradients, inside the caller's autocast if there is one; rows are float32 in any case.

    Args:
        model: what `driftscope.load` returns, or a bare module with an image tower of
            one of the `backbones` inside.
        pixels: images at the model's input size: uint8, or, for a bare module without `mean` and
            `std`, floats already normalised.
        batch_size: images per forward, by default as many as suit the model and its device; the
            result does not depend on it.
        maps: also rollout and patch-to-patch signals, from full attention maps.
        shown: positions of the images whose attention itself is kept, as `shown_rows`.
        mean, std: a bare module's pixel convention, per channel, for uint8 pixels.

    Raises:
        CaptureError: the pixels do not fit, or the model cannot be read honestly (see
            `backbones.capture.capture_cls`).
    """
    if batch_size is not None and batch_size < 1:
        raise CaptureError(f"batch_size is {batch_size}, but it must be at least 1.")
    module, normalise = _module_and_normaliser(model, pixels, mean, std)
    batch_size = batch_size or find_image_tower(module).images_per_forward
    parts: list[_BatchSignals] = []
    with evaluating(module), capture_cls(module, maps=maps) as captured:
        for start in range(0, len(pixels), batch_size):
            captured.clear()
            batch = pixels[start : start + batch_size]
            embeddings = _forward(module, normalise(batch))
            here = [place - start for place in shown if 0 <= place - start < len(batch)]
            parts.append(_BatchSignals(captured, embeddings, maps=maps, shown=here))
            _check_patches(find_image_tower(module), batch, parts[-1].num_patches)
    return _join(parts, images_fingerprint(pixels), _unread(find_image_tower(module)))


@dataclass(frozen=True)
class TextProbe:
    """Fixed texts, embedded by the pretrained model, against which image embeddings are seen."""

    vocabulary: Float[Tensor, "text dim"]
    random_texts: Float[Tensor, "random_text dim"] | None
    logit_scale: float
    logit_bias: float | None = None
    """Of a model whose logits go through a sigmoid; None for a softmax."""


def random_texts(
    tokenizer: Any, *, num_texts: int = 80, num_tokens: int = 8, seed: int = 0
) -> list[str]:
    """Texts of random tokens, as many and as long as Lipsum-FT's (2404.00860).

    Tokens are drawn uniformly from the tokenizer's vocabulary, special tokens left out.
    """
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(ordinary), (num_texts, num_tokens), generator=generator).tolist()
    return [tokenizer.decode([ordinary[index] for index in text]) for text in drawn]


def text_drift(reading: Reading, reference: Reading, texts: TextProbe) -> TextSpaceDrift:
    """Text-space drift between two readings of the same images; pass it to `drift` as `text`.

    Raises:
        CaptureError: the readings are of other images, or hold no projected embeddings.
    """
    check_same_images(reading, reference)
    if reading.embeddings is None or reference.embeddings is None:
        raise CaptureError(
            "Text-space drift needs projected image embeddings; read a model that has them, "
            "or restore the reading with its tensors."
        )
    device = texts.vocabulary.device
    return text_space_drift(
        reference.embeddings.to(device),
        reading.embeddings.to(device),
        texts.vocabulary,
        texts.logit_scale,
        texts.random_texts,
        logit_bias=texts.logit_bias,
    )


def images_fingerprint(pixels: Pixels | PixelRows) -> str:
    """32 hexadecimal digits of the images' values, their order and format included."""
    digest = hashlib.blake2b(f"{pixels.dtype}{tuple(pixels.shape)}".encode(), digest_size=16)
    for image in pixels:
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _BatchSignals:
    """What one batch leaves: signals per image in float64, and features, on the CPU."""

    def __init__(
        self, captured: Captured, embeddings: Tensor, *, maps: bool, shown: Sequence[int]
    ) -> None:
        self.num_images, self.num_patches = len(embeddings), 0
        self.per_image: dict[str, Tensor] = {}
        self.row_sums: Tensor | None = None
        self.shown_rows: Tensor | None = None
        if not captured.no_rows_because:
            self._take_rows(captured, maps=maps, shown=shown)
        self.cls_states = _of_one_width(captured.cls_states).float().cpu()
        self.embeddings = embeddings.float().cpu()
        for what, features in (("CLS states", self.cls_states), ("embeddings", self.embeddings)):
            if not bool(torch.isfinite(features).all()):
                raise NonFiniteError(
                    f"The model gives image {what} with NaN or infinite values: it has diverged, "
                    "and its signals would mean nothing."
                )

    def _take_rows(self, captured: Captured, *, maps: bool, shown: Sequence[int]) -> None:
        rows = [_where_float64_exists(layer) for layer in captured.rows]
        self.num_patches = rows[0].shape[-1]
        self.per_image = _row_signals(rows)
        if maps:
            self.per_image |= _map_signals(captured)
        # [layer, head, patch] sums over images, for the diversity of the mean rows.
        self.row_sums = torch.stack([layer.double().sum(dim=0) for layer in rows]).cpu()
        self.shown_rows = torch.stack([layer[shown] for layer in captured.rows], dim=1).cpu()


def _of_one_width(states: list[Tensor]) -> Float[Tensor, "block image dim"]:
    """States side by side, the narrower ones filled up by zeros, which no CKA sees."""
    width = max(one.shape[-1] for one in states)
    return torch.stack([functional.pad(one, (0, width - one.shape[-1])) for one in states])


def _row_signals(rows: list[Tensor]) -> dict[str, Tensor]:
    """Every signal of attention rows: [image, layer, head] or [image, layer]."""
    return {one.field: _stacked(one, rows) for one in levels() if one.reads == "rows"}


def _stacked(one: Metric, rows: list[Tensor]) -> Tensor:
    compute = one.load_function()
    values = torch.stack([compute(layer) for layer in rows], dim=1).double().cpu()
    num_images, num_heads = rows[0].shape[:2]
    if values.shape[2:] not in ((), (num_heads,)) or values.shape[0] != num_images:
        raise CaptureError(
            f"The signal {one.key} of rows {tuple(rows[0].shape)} [image, head, patch] has the "
            f"shape {(num_images, *values.shape[2:])}; it must be [image, head] or [image]."
        )
    return values


def _map_signals(captured: Captured) -> dict[str, Tensor]:
    """Every signal of full attention maps: of the rollout [image], else [image, layer, head]."""
    rollout = _where_float64_exists(captured.rollout)
    signals = {
        one.field: one.load_function()(rollout).double().cpu()
        for one in levels()
        if one.reads == "rollout"
    }
    for one in (one for one in levels() if one.reads == "maps"):
        signals[one.field] = torch.stack(getattr(captured, one.field), dim=1).cpu().double()
    return signals


def _join(parts: list[_BatchSignals], fingerprint: str, unread: dict[str, str]) -> Reading:
    per_image = {
        name: torch.cat([part.per_image[name] for part in parts]) for name in parts[0].per_image
    }
    num_images = sum(part.num_images for part in parts)
    sums = [part.row_sums for part in parts if part.row_sums is not None]
    shown = [part.shown_rows for part in parts if part.shown_rows is not None]
    diversity = None
    if sums:
        mean_rows = torch.stack(sums).sum(dim=0) / num_images
        diversity = attention.head_diversity(mean_rows).tolist()
    shown_rows = torch.cat(shown) if shown else torch.empty(0)
    return Reading.from_images(
        per_image,
        num_images=num_images,
        num_patches=parts[0].num_patches,
        images_fingerprint=fingerprint,
        cls_activations=torch.cat([part.cls_states for part in parts], dim=1),
        embeddings=torch.cat([part.embeddings for part in parts]),
        shown_rows=shown_rows if len(shown_rows) else None,
        head_diversity_of_mean=diversity,
        unread=unread,
    )


def _unread(tower: ImageTower) -> dict[str, str]:
    """Why the tower's family does not give a number of a drift, by its key."""
    if reason := tower.backbone.no_attention_because:
        return {one.key: reason for one in drifts() if one.group == "attention"}
    if tower.backbone.probe_attention(tower.module) is None:
        return {}
    reason = "attention is read where the patches are pooled, in one layer, so none is late"
    return {"delta_late_entropy_pct": reason}


def _forward(module: nn.Module, pixels: Tensor) -> Tensor:
    """Runs the image tower through its live path; the embeddings it gives."""
    return find_image_tower(module).backbone.embed_images(module, pixels)


def _module_and_normaliser(
    model: VisionLanguageModel | nn.Module,
    pixels: Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The module to run and what turns a batch of the given pixels into its input."""
    module = model if isinstance(model, nn.Module) else model.module
    _check_pixels(module, pixels)
    is_uint8 = pixels.dtype == torch.uint8
    if not isinstance(model, nn.Module):
        if not is_uint8:
            raise CaptureError(
                f"Pixels for a loaded model are uint8 (it normalises them), got {pixels.dtype}."
            )
        return module, model.normalise
    if is_uint8 != (mean is not None and std is not None):
        raise CaptureError(
            "A bare module takes uint8 pixels together with mean= and std=, or float pixels that "
            f"are normalised already without them; got {pixels.dtype}, mean={mean}, std={std}."
        )
    return module, _normaliser(module, mean, std)


def _normaliser(
    module: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Callable[[Tensor], Tensor]:
    device = next(module.parameters()).device
    if mean is None or std is None:
        return lambda batch: batch.to(device)
    centre = torch.tensor(mean, device=device).view(1, -1, 1, 1)
    scale = torch.tensor(std, device=device).view(1, -1, 1, 1)
    return lambda batch: (batch.to(device).float() / 255 - centre) / scale


def _check_pixels(module: nn.Module, pixels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
        raise CaptureError(
            "A probe set is a tensor of at least one image, [image, 3, height, width], got shape "
            f"{tuple(pixels.shape)}."
        )
    tower = find_image_tower(module)
    size = tower.config.image_size
    if tower.backbone.has_fixed_input_size and tuple(pixels.shape[-2:]) != (size, size):
        raise CaptureError(
            f"The model reads images of {size}×{size} pixels, got "
            f"{pixels.shape[-2]}×{pixels.shape[-1]}; resize them first."
        )


def _check_patches(tower: ImageTower, pixels: Tensor, found: int) -> None:
    """Raises CaptureError where attention goes to other tokens than the image's patches, too."""
    expected = tower.num_patches(*pixels.shape[-2:])
    if found not in (0, expected) and not tower.backbone.has_attention_of_its_own:
        raise CaptureError(
            f"The image tower attends to {found} tokens where the image has {expected} patches: "
            "tokens such as prompts were put in, or left out, so its attention over patches cannot "
            "be told. A family of its own can read it (docs/extend.md)."
        )


def _where_float64_exists(tensor: Tensor) -> Tensor:
    """Apple's GPUs have no float64; rows are small enough to be reduced on the CPU."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor
