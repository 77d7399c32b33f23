"""What one pass measured (`Reading`), and what changed against the pretrained one (`Drift`).

Plain dataclasses of numbers, lists and tensors. `reading_pass.read` fills a Reading.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from driftscope.errors import CaptureError
from driftscope.signals.attention import subset_coefficient_of_variation
from driftscope.signals.representation import (
    embedding_drift,
    feature_distance,
    linear_cka,
    linear_cka_debiased,
)
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import WeightDrift

TENSORS = ("cls_activations", "embeddings", "shown_rows")
"""The fields of a Reading that are tensors over its images."""


@dataclass(eq=False)
class Reading:
    """All signals of one model on one probe set, averaged over its images.

    Layers and blocks are indexed from the first; lists are `[layer][head]` or `[layer]`. Full-map
    signals are None unless asked for. The tensors at the end are what a `Drift` and subsets are
    computed from; a reading restored from numbers alone has none.
    """

    num_images: int
    num_patches: int
    images_fingerprint: str
    entropy: list[list[float]]
    erf95: list[list[float]]
    gini: list[list[float]]
    head_diversity: list[float]
    head_diversity_of_mean: list[float] | None = None
    rollout_entropy_bits: float | None = None
    rollout_erf95: float | None = None
    rollout_gini: float | None = None
    patch_to_patch_entropy_bits: list[list[float]] | None = None
    cls_activations: Float[Tensor, "block image dim"] | None = None
    embeddings: Float[Tensor, "image dim"] | None = None
    shown_rows: Float[Tensor, "shown layer head patch"] | None = None
    """CLS attention of the few images that were asked for, to be looked at."""
    per_image: dict[str, Tensor] | None = None
    """Signal name -> [image, layer, head], [image, layer] or [image], float64."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks read."""
        return len(self.entropy)

    def mean(self, signal: str) -> float:
        """A signal's mean over layers, heads and images, in the signal's unit.

        Raises:
            CaptureError: the signal was not read.
        """
        return _mean_of(_require(self, signal))

    def per_layer(self, signal: str) -> list[float]:
        """A layerwise signal's mean over heads and images, per layer, in the signal's unit.

        Raises:
            CaptureError: the signal was not read.
        """
        return [_mean_of(layer) for layer in _require(self, signal)]

    def subset_coefficient_of_variation(
        self, subsets: Sequence[Sequence[int]], signal: str = "entropy"
    ) -> float:
        """Relative spread of a signal's mean between subsets of the images, in [0, ∞).

        The standard deviation (over subsets, not a sample's) of the subsets' means over their mean;
        paper, table 2. See `signals.attention.subset_coefficient_of_variation`.

        Args:
            subsets: the image indices of each subset.
            signal: the name of a per-image signal.

        Raises:
            CaptureError: the signal's per-image values are not held.
            ValueError: there is no subset, or one is empty.
        """
        values = (self.per_image or {}).get(signal)
        if values is None:
            raise CaptureError(
                f"The reading holds no per-image values of {signal!r}; read it (with maps=True for "
                "full-map signals), and store it with its tensors."
            )
        return subset_coefficient_of_variation(values.reshape(len(values), -1).mean(dim=1), subsets)

    def subset(self, images: Sequence[int]) -> Reading:
        """The reading of some of the images, exactly as if they alone had been read.

        All but `head_diversity_of_mean`, which needs the rows themselves and becomes None. Two
        subsets match each other if readings and indices do.

        Raises:
            CaptureError: no image is chosen, or the per-image signals were not kept.
        """
        if self.per_image is None or not images:
            raise CaptureError(
                f"A subset of {len(images)} images cannot be taken: give at least one image, of a "
                "reading that holds its per-image signals (not one restored without tensors)."
            )
        chosen = list(images)
        digest = hashlib.blake2b(f"{self.images_fingerprint}{chosen}".encode(), digest_size=16)
        return Reading.from_images(
            {name: values[chosen] for name, values in self.per_image.items()},
            num_patches=self.num_patches,
            images_fingerprint=digest.hexdigest(),
            cls_activations=None
            if self.cls_activations is None
            else self.cls_activations[:, chosen],
            embeddings=None if self.embeddings is None else self.embeddings[chosen],
        )

    @classmethod
    def from_images(
        cls,
        per_image: dict[str, Tensor],
        *,
        num_patches: int,
        images_fingerprint: str,
        cls_activations: Tensor | None,
        embeddings: Tensor | None,
        shown_rows: Tensor | None = None,
        head_diversity_of_mean: list[float] | None = None,
    ) -> Reading:
        """The reading that averages per-image signals, every image with the same weight."""
        means: dict[str, Any] = {name: v.mean(dim=0).tolist() for name, v in per_image.items()}
        return cls(
            num_images=len(per_image["entropy"]),
            num_patches=num_patches,
            images_fingerprint=images_fingerprint,
            head_diversity_of_mean=head_diversity_of_mean,
            cls_activations=cls_activations,
            embeddings=embeddings,
            shown_rows=shown_rows,
            per_image=per_image,
            **means,
        )

    def to_dict(self, *, tensors: bool = False) -> dict[str, Any]:
        """The reading as JSON-able values; `from_dict` restores it exactly.

        Args:
            tensors: also the per-image signals, CLS activations and embeddings, as base64 of their
                bytes: several megabytes. Without them the restored reading has its numbers only.
        """
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        per_image = data.pop("per_image")
        stored = {name: data.pop(name) for name in TENSORS}
        if tensors:
            data |= {n: None if t is None else _encode(t) for n, t in stored.items()}
            data["per_image"] = per_image and {n: _encode(t) for n, t in per_image.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reading:
        """The reading that `to_dict` wrote.

        Raises:
            CaptureError: a field is missing or unknown.
        """
        values = dict(data)
        values |= {n: _decode(values[n]) for n in TENSORS if values.get(n) is not None}
        if values.get("per_image") is not None:
            values["per_image"] = {n: _decode(t) for n, t in values["per_image"].items()}
        reading: Reading = _from_fields(cls, values)
        return reading


@dataclass
class Drift:
    """A reading against the pretrained reading of the same images.

    Names ending in `_pct` are percent changes of the mean over images, heads and layers;
    `_per_layer` the same per layer, from the first block up. CKA and distances are plain numbers.
    What was not measured is None.
    """

    num_images: int
    delta_entropy_pct: float
    delta_erf95_pct: float
    delta_gini_pct: float
    delta_head_diversity_pct: float
    delta_entropy_pct_per_layer: list[float]
    delta_erf95_pct_per_layer: list[float]
    delta_gini_pct_per_layer: list[float]
    delta_head_diversity_pct_per_layer: list[float]
    cka: float
    cka_per_block: list[float]
    cka_debiased: float
    cka_debiased_per_block: list[float]
    embedding_drift: float | None = None
    feature_distance: float | None = None
    delta_rollout_entropy_pct: float | None = None
    delta_rollout_erf95_pct: float | None = None
    delta_rollout_gini_pct: float | None = None
    delta_patch_to_patch_entropy_pct: float | None = None
    delta_patch_to_patch_entropy_pct_per_layer: list[float] | None = None
    delta_late_entropy_pct: float | None = None
    """Of the last third of the layers: where contraction shows first."""
    weight_drift: float | None = None
    weight_drift_per_layer: list[float] | None = None
    text_kl_nats: float | None = None
    text_top1_agreement_pct: float | None = None
    random_text_logit_change: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The drift as JSON-able values under the names above; `from_dict` restores it exactly."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def scalars(self) -> dict[str, float]:
        """The single numbers that were measured and are finite, by the names above."""
        return {
            name: value
            for name, value in self.to_dict().items()
            if isinstance(value, float) and math.isfinite(value)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Drift:
        """The drift that `to_dict` wrote.

        Raises:
            CaptureError: a field is missing or unknown.
        """
        result: Drift = _from_fields(cls, dict(data))
        return result


UNITS: dict[str, str] = {
    "entropy": "nats",
    "erf95": "fraction of patches",
    "gini": "1",
    "head_diversity": "1 − cosine",
    "head_diversity_of_mean": "1 − cosine",
    "rollout_entropy_bits": "bits",
    "rollout_erf95": "fraction of patches",
    "rollout_gini": "1",
    "patch_to_patch_entropy_bits": "bits",
    "cka": "1",
    "cka_per_block": "1",
    "cka_debiased": "1",
    "cka_debiased_per_block": "1",
    "embedding_drift": "1 − cosine",
    "feature_distance": "squared feature units",
    "weight_drift": "‖ΔW‖/‖W₀‖",
    "weight_drift_per_layer": "‖ΔW‖/‖W₀‖",
    "text_kl_nats": "nats",
    "text_top1_agreement_pct": "%",
    "random_text_logit_change": "logits",
    "num_subsets": "subsets",
    "entropy_subset_cv": "1",
    "intruder_dimensions_per_layer": "singular directions",
    "num_correct": "images",
    "per_class_correct": "images",
    "per_class_images": "images",
    "num_lost": "images",
    "num_gained": "images",
    "accuracy_pct": "%",
    "val_accuracy_pct": "%",
    "zero_shot_pct": "%",
    "pretrained_pct": "%",
    "adapted_pct": "%",
    "retention_pct": "%",
    "top5_pct": "%",
    "mean_per_class_pct": "%",
    "wilson_low_pct": "%",
    "wilson_high_pct": "%",
    "num_images": "images",
    "num_patches": "patches",
    **{
        f"delta_{signal}_pct{scope}": "%"
        for signal in (
            "entropy",
            "late_entropy",
            "erf95",
            "gini",
            "head_diversity",
            "patch_to_patch_entropy",
            "rollout_entropy",
            "rollout_erf95",
            "rollout_gini",
        )
        for scope in ("", "_per_layer")
    },
}
"""The unit of every number of a Reading, a Drift or a zero-shot score, by name; "1" is none."""


def drift(
    reading: Reading,
    reference: Reading,
    *,
    weights: WeightDrift | None = None,
    text: TextSpaceDrift | None = None,
) -> Drift:
    """What changed from the pretrained reading to this one, on the same images.

    Percent changes are of the mean over images, heads and layers (paper, equation 2), not means of
    changes. CKA is taken on the outputs of blocks 1…L, `cka` being its mean over blocks. The
    embedding drift and feature distance are those of the projected embeddings, or of the last
    block's CLS token where the encoder has no projection.

    Args:
        reading: the adapted model's.
        reference: the pretrained model's, of the same images in the same order.
        weights: from `signals.weights.weight_drift`, to be carried in the result.
        text: from `signals.text.text_space_drift`, to be carried in the result.

    Raises:
        CaptureError: the readings are of other images, have different numbers of blocks or no CLS
            activations, or of fewer than 4 images.
    """
    before, after = _comparable_activations(reference, reading)
    cka = [linear_cka(x, y) for x, y in zip(before, after, strict=True)]
    debiased = [linear_cka_debiased(x, y) for x, y in zip(before, after, strict=True)]
    features_before, features_after = _image_features(reference), _image_features(reading)
    result = Drift(
        num_images=reading.num_images,
        cka=_mean_of(cka),
        cka_per_block=cka,
        cka_debiased=_mean_of(debiased),
        cka_debiased_per_block=debiased,
        embedding_drift=embedding_drift(features_before, features_after),
        feature_distance=feature_distance(features_before, features_after),
        **_percent_drifts(reading, reference),
    )
    return with_text(with_weights(result, weights), text)


def with_weights(result: Drift, weights: WeightDrift | None) -> Drift:
    """The drift with its weight fields filled; unchanged for None."""
    if weights is None:
        return result
    return replace(result, weight_drift=weights.total, weight_drift_per_layer=weights.per_layer)


def with_text(result: Drift, text: TextSpaceDrift | None) -> Drift:
    """The drift with its text-space fields filled; unchanged for None."""
    if text is None:
        return result
    return replace(
        result,
        text_kl_nats=text.kl_nats,
        text_top1_agreement_pct=text.top1_agreement_pct,
        random_text_logit_change=text.random_text_logit_change,
    )


def percent_drift(adapted: float, pretrained: float) -> float:
    """Change from pretrained to adapted, percent of the pretrained value.

    0 where both are 0; infinite, with the sign of the adapted value, where only the pretrained one
    is (a change from nothing has no percentage).
    """
    if adapted == pretrained:
        return 0.0
    if pretrained == 0.0:
        return float("inf") if adapted > 0.0 else float("-inf")
    return 100.0 * (adapted - pretrained) / pretrained


_LAYERWISE = ("entropy", "erf95", "gini", "head_diversity", "patch_to_patch_entropy_bits")
_WHOLE_MODEL = ("rollout_entropy_bits", "rollout_erf95", "rollout_gini")


def _percent_drifts(reading: Reading, reference: Reading) -> dict[str, Any]:
    """The `delta_…` fields of a Drift, for the signals that both readings hold."""
    result: dict[str, Any] = {}
    for signal in _LAYERWISE + _WHOLE_MODEL:
        if getattr(reading, signal) is None or getattr(reference, signal) is None:
            continue
        name = f"delta_{signal.removesuffix('_bits')}_pct"
        result[name] = percent_drift(reading.mean(signal), reference.mean(signal))
        if signal in _LAYERWISE:
            pairs = zip(reading.per_layer(signal), reference.per_layer(signal), strict=True)
            result[f"{name}_per_layer"] = [percent_drift(*pair) for pair in pairs]
    late = slice(-math.ceil(reading.num_layers / 3), None)
    result["delta_late_entropy_pct"] = percent_drift(
        *(_mean_of(one.per_layer("entropy")[late]) for one in (reading, reference))
    )
    return result


def _comparable_activations(reference: Reading, reading: Reading) -> tuple[Tensor, Tensor]:
    """CLS activations of both, after checking that the comparison is one of like with like."""
    check_same_images(reading, reference)
    if reading.num_layers != reference.num_layers:
        raise CaptureError(
            f"The readings have {reading.num_layers} and {reference.num_layers} blocks; drift "
            "compares a model with its own pretrained form."
        )
    if reference.cls_activations is None or reading.cls_activations is None:
        raise CaptureError(
            "A reading restored from its numbers alone has no CLS activations to compare; store "
            "it with to_dict(tensors=True), or read the model again."
        )
    return reference.cls_activations, reading.cls_activations


def check_same_images(reading: Reading, reference: Reading) -> None:
    """Raises CaptureError if two readings are not of the same images in the same order."""
    if reading.images_fingerprint != reference.images_fingerprint:
        raise CaptureError(
            f"The two readings are of different images (fingerprints {reading.images_fingerprint} "
            f"and {reference.images_fingerprint}); read both models on the same probe set, in the "
            "same order."
        )
    if reading.num_patches != reference.num_patches:
        raise CaptureError(
            f"The two models cut the images into {reading.num_patches} and "
            f"{reference.num_patches} patches, so their attention cannot be compared."
        )


def _image_features(reading: Reading) -> Tensor:
    if reading.embeddings is not None:
        return reading.embeddings
    if reading.cls_activations is None:
        raise CaptureError("The reading holds no image features; read the model again.")
    return reading.cls_activations[-1]


def _require(reading: Reading, signal: str) -> Any:
    value = getattr(reading, signal, None)
    if value is None:
        raise CaptureError(
            f"The signal {signal!r} was not read; full-map signals need maps=True, and known names "
            f"are {', '.join(_LAYERWISE + _WHOLE_MODEL)}."
        )
    return value


def _mean_of(values: Any) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())


def _from_fields(cls: Any, values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except TypeError as error:
        raise CaptureError(f"This is not a stored {cls.__name__}: {error}.") from None


def _encode(tensor: Tensor) -> dict[str, Any]:
    raw = tensor.detach().cpu().contiguous()
    return {
        "shape": list(raw.shape),
        "dtype": str(raw.dtype).removeprefix("torch."),
        "base64": base64.b64encode(raw.numpy().tobytes()).decode("ascii"),
    }


def _decode(stored: Mapping[str, Any]) -> Tensor:
    raw = bytearray(base64.b64decode(stored["base64"]))
    dtype = {"float32": torch.float32, "float64": torch.float64}[stored["dtype"]]
    return torch.frombuffer(raw, dtype=dtype).reshape(stored["shape"])
