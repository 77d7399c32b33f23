"""What one pass measured (`Reading`), and what changed against the pretrained one (`Drift`).

Which signals there are is declared in `metrics`; here each is computed or carried under its name.
`reading_pass.read` fills a Reading.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from driftscope.errors import CaptureError
from driftscope.metric import Metric
from driftscope.metrics import METRICS, drifts, levels
from driftscope.signals.attention import subset_coefficient_of_variation
from driftscope.signals.text import TextSpaceDrift
from driftscope.signals.weights import WeightDrift
from driftscope.stats.change import percent_drift

TENSORS = ("cls_activations", "embeddings", "shown_rows")
"""The fields of a Reading that are tensors over its images."""


@dataclass(eq=False, init=False)
class Reading:
    """All signals of one model on one probe set, averaged over its images.

    Every level of `metrics.levels` is an attribute: `reading.entropy`, `reading.gini`, …, as
    `[layer][head]`, `[layer]` or one number; layers are indexed from the first. Full-map signals
    are None unless asked for. The tensors at the end are what a `Drift` and subsets are computed
    from; a reading restored from numbers alone has none.
    """

    num_images: int
    num_patches: int
    images_fingerprint: str
    levels: dict[str, Any]
    """Signal name -> its means over the images."""
    head_diversity_of_mean: list[float] | None
    cls_activations: Float[Tensor, "block image dim"] | None
    embeddings: Float[Tensor, "image dim"] | None
    shown_rows: Float[Tensor, "shown layer head patch"] | None
    """Pooling attention of the few images that were asked for, to be looked at."""
    per_image: dict[str, Tensor] | None
    """Signal name -> [image, layer, head], [image, layer] or [image], float64."""
    unread: dict[str, str]
    """Why the model's family does not give a number, by its metric's key."""

    def __init__(
        self,
        num_images: int,
        num_patches: int,
        images_fingerprint: str,
        levels: Mapping[str, Any] | None = None,
        head_diversity_of_mean: list[float] | None = None,
        cls_activations: Tensor | None = None,
        embeddings: Tensor | None = None,
        shown_rows: Tensor | None = None,
        per_image: dict[str, Tensor] | None = None,
        unread: Mapping[str, str] | None = None,
        **signals: Any,
    ) -> None:
        self.num_images, self.num_patches = num_images, num_patches
        self.images_fingerprint = images_fingerprint
        known = {**(levels or {}), **signals}
        self.levels = {name: value for name, value in known.items() if value is not None}
        self.head_diversity_of_mean = head_diversity_of_mean
        self.cls_activations, self.embeddings = cls_activations, embeddings
        self.shown_rows, self.per_image = shown_rows, per_image
        self.unread = dict(unread or {})

    def __getattr__(self, name: str) -> Any:
        signals = self.__dict__.get("levels", {})
        if name in signals or any(name == one.field for one in levels()):
            return signals.get(name)
        raise AttributeError(f"a Reading has no {name!r}")

    @property
    def num_layers(self) -> int:
        """Layers whose attention was read: every block, a pooling head alone, or none."""
        return len(self.entropy or ())

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
            num_images=len(chosen),
            num_patches=self.num_patches,
            images_fingerprint=digest.hexdigest(),
            cls_activations=None
            if self.cls_activations is None
            else self.cls_activations[:, chosen],
            embeddings=None if self.embeddings is None else self.embeddings[chosen],
            unread=self.unread,
        )

    @classmethod
    def from_images(
        cls,
        per_image: dict[str, Tensor],
        *,
        num_images: int,
        num_patches: int,
        images_fingerprint: str,
        cls_activations: Tensor | None,
        embeddings: Tensor | None,
        shown_rows: Tensor | None = None,
        head_diversity_of_mean: list[float] | None = None,
        unread: Mapping[str, str] | None = None,
    ) -> Reading:
        """The reading that averages per-image signals, every image with the same weight."""
        return cls(
            num_images=num_images,
            num_patches=num_patches,
            images_fingerprint=images_fingerprint,
            levels={name: values.mean(dim=0).tolist() for name, values in per_image.items()},
            head_diversity_of_mean=head_diversity_of_mean,
            cls_activations=cls_activations,
            embeddings=embeddings,
            shown_rows=shown_rows,
            per_image=per_image,
            unread=unread,
        )

    def to_dict(self, *, tensors: bool = False) -> dict[str, Any]:
        """The reading as JSON-able values; `from_dict` restores it exactly.

        Args:
            tensors: also the per-image signals, CLS activations and embeddings, as base64 of their
                bytes: several megabytes. Without them the restored reading has its numbers only.
        """
        data: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        data |= {**{one.field: None for one in levels()}, **self.levels}
        data |= {"unread": self.unread} if self.unread else {}
        if tensors:
            held = {name: getattr(self, name) for name in TENSORS}
            data |= {n: None if t is None else _encode(t) for n, t in held.items()}
            data["per_image"] = self.per_image and {
                name: _encode(values) for name, values in self.per_image.items()
            }
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reading:
        """The reading that `to_dict` wrote.

        Signals that this version does not know are kept.

        Raises:
            CaptureError: a field is missing.
        """
        values = dict(data)
        values |= {n: _decode(values[n]) for n in TENSORS if values.get(n) is not None}
        if values.get("per_image") is not None:
            values["per_image"] = {n: _decode(t) for n, t in values["per_image"].items()}
        try:
            reading = cls(**values)
        except TypeError as error:
            raise CaptureError(f"This is not a stored Reading: {error}.") from None
        if reading.entropy is None and not reading.unread:
            raise CaptureError("This is not a stored Reading: it has no entropy.")
        return reading


_PLAIN_FIELDS = ("num_images", "num_patches", "images_fingerprint", "head_diversity_of_mean")


@dataclass(init=False)
class Drift:
    """A reading against the pretrained reading of the same images.

    Every metric of `metrics.drifts` is an attribute: `drift.cka`, `drift.delta_entropy_pct`, and
    where it exists by layer its values from the first block up: `drift.cka_per_block`,
    `drift.delta_entropy_pct_per_layer`. What was not measured is None.

    Attributes:
        num_images: of the probe set.
        numbers: what was measured, by the metric's key.
        by_layer: the same layer by layer, by the metric's `layer_field`.
        unmeasured: why a number is missing, in a sentence, by its key.
    """

    num_images: int
    numbers: dict[str, float]
    by_layer: dict[str, list[float]]
    unmeasured: dict[str, str]

    def __init__(
        self,
        num_images: int,
        numbers: Mapping[str, float] | None = None,
        by_layer: Mapping[str, list[float]] | None = None,
        unmeasured: Mapping[str, str] | None = None,
        **measured: float | Sequence[float] | None,
    ) -> None:
        self.num_images = num_images
        self.numbers, self.by_layer = dict(numbers or {}), dict(by_layer or {})
        self.unmeasured = dict(unmeasured or {})
        for name, value in measured.items():
            if isinstance(value, Sequence):
                self.by_layer[name] = list(value)
            elif value is not None:
                self.numbers[name] = value
            else:
                self.numbers.pop(name, None)
                self.by_layer.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        for measured in ("numbers", "by_layer"):
            if name in self.__dict__.get(measured, {}):
                return self.__dict__[measured][name]
        if name in _drift_names():
            return None
        raise AttributeError(f"a Drift has no {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """The drift as JSON-able values under the names above; `from_dict` restores it exactly."""
        reasons = {"unmeasured": self.unmeasured} if self.unmeasured else {}
        unknown = dict.fromkeys(_drift_names())
        return {
            "num_images": self.num_images,
            **unknown,
            **self.numbers,
            **self.by_layer,
            **reasons,
        }

    def scalars(self) -> dict[str, float]:
        """The single numbers that were measured and are finite, by the names above."""
        return {name: value for name, value in self.numbers.items() if math.isfinite(value)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Drift:
        """The drift that `to_dict` wrote; numbers that this version does not know are kept.

        Raises:
            CaptureError: it is none.
        """
        if data.get("num_images") is None or data.get("cka") is None:
            raise CaptureError("This is not a stored Drift: it has no num_images or no cka.")
        return cls(**data)


def _drift_names() -> list[str]:
    """The names of a drift's numbers, and of their values by layer."""
    return [
        name
        for one in drifts()
        for name in ([one.key, one.layer_field] if "layer" in one.exists else [one.key])
    ]


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
    embedding drift and feature distance are those of the image embeddings, which are projected
    where the encoder has a projection.

    A plug-in's metric that fails or is not finite is unmeasured, with the reason.

    Args:
        reading: the adapted model's.
        reference: the pretrained model's, of the same images in the same order.
        weights: from `signals.weights.weight_drift`, to be carried in the result.
        text: from `signals.text.text_space_drift`, to be carried in the result.

    Raises:
        CaptureError: the readings are of other images, have different numbers of blocks or no CLS
            activations, or of fewer than 4 images.
    """
    _check_comparable(reading, reference)
    result = Drift(reading.num_images, {})
    unread = {**_attention_over_other_patches(reading, reference), **reading.unread}
    for one in drifts():
        if one.key in unread:
            result.unmeasured[one.key] = unread[one.key]
            continue
        try:
            number, by_layer = _measured(one, reference, reading)
        except Exception as error:
            if not one.plug_in:
                raise
            result.unmeasured[one.key] = f"{one.plug_in} failed: {type(error).__name__}: {error}"
            continue
        if one.plug_in and number is not None and not math.isfinite(number):
            result.unmeasured[one.key] = f"{one.plug_in} gave {number}, which is no number"
            continue
        if number is not None:
            result.numbers[one.key] = number
        if by_layer is not None:
            result.by_layer[one.layer_field] = by_layer
    if weights is not None:
        result.numbers["weight_drift"] = weights.total
        result.by_layer["weight_drift_per_layer"] = weights.per_layer
    if text is not None:
        result.numbers["text_kl_nats"] = text.kl_nats
        result.numbers["text_top1_agreement_pct"] = text.top1_agreement_pct
        result.numbers["text_referee_pct"] = text.referee_pct
        if text.random_text_logit_change is not None:
            result.numbers["random_text_logit_change"] = text.random_text_logit_change
    return result


def _measured(
    one: Metric, reference: Reading, reading: Reading
) -> tuple[float | None, list[float] | None]:
    """A metric of two readings and its values by layer; None for what they do not tell."""
    if one.change_of:
        return _percent_changes(METRICS[one.change_of].field, reference, reading)
    if one.reads is None:
        return None, None
    compute = one.load_function()
    if one.reads == "blocks":
        before, after = _cls_activations(reference), _cls_activations(reading)
        by_layer = [compute(x, y) for x, y in zip(before, after, strict=True)]
        return _mean_of(by_layer), by_layer
    if one.reads == "embeddings":
        return float(compute(_image_features(reference), _image_features(reading))), None
    value = compute(reference, reading)
    if isinstance(value, Sequence):
        by_layer = [float(part) for part in value]
        return _mean_of(by_layer), by_layer
    return float(value), None


def _percent_changes(
    signal: str, reference: Reading, reading: Reading
) -> tuple[float | None, list[float] | None]:
    """The change of a level's mean, and of its mean at each layer where it has layers."""
    before, after = getattr(reference, signal), getattr(reading, signal)
    if before is None or after is None:
        return None, None
    change = percent_drift(reading.mean(signal), reference.mean(signal))
    if not isinstance(after, list):
        return change, None
    pairs = zip(reading.per_layer(signal), reference.per_layer(signal), strict=True)
    return change, [percent_drift(*pair) for pair in pairs]


def late_entropy_change_pct(reference: Reading, reading: Reading) -> float:
    """Percent change of the mean entropy in the last third of the layers."""
    late = slice(-math.ceil(reading.num_layers / 3), None)
    return percent_drift(
        *(_mean_of(one.per_layer("entropy")[late]) for one in (reading, reference))
    )


def _check_comparable(reading: Reading, reference: Reading) -> None:
    """Raises CaptureError if a drift between the two would not be one of like with like."""
    check_same_images(reading, reference)
    if reading.num_layers != reference.num_layers:
        raise CaptureError(
            f"The readings have {reading.num_layers} and {reference.num_layers} blocks; drift "
            "compares a model with its own pretrained form."
        )


def _attention_over_other_patches(reading: Reading, reference: Reading) -> dict[str, str]:
    """Why attention is not compared where the two models cut images into other patches."""
    if reading.num_patches == reference.num_patches:
        return {}
    reason = (
        f"the models cut images into {reference.num_patches} and {reading.num_patches} patches, so "
        "their attention is spread over different things"
    )
    return {one.key: reason for one in drifts() if one.group == "attention"}


def _cls_activations(reading: Reading) -> Tensor:
    if reading.cls_activations is None:
        raise CaptureError(
            "A reading restored from its numbers alone has no CLS activations to compare; store "
            "it with to_dict(tensors=True), or read the model again."
        )
    return reading.cls_activations


def check_same_images(reading: Reading, reference: Reading) -> None:
    """Raises CaptureError if two readings are not of the same images in the same order."""
    if reading.images_fingerprint != reference.images_fingerprint:
        raise CaptureError(
            f"The two readings are of different images (fingerprints {reading.images_fingerprint} "
            f"and {reference.images_fingerprint}); read both models on the same probe set, in the "
            "same order."
        )


def _image_features(reading: Reading) -> Tensor:
    if reading.embeddings is None:
        return _cls_activations(reading)[-1]
    return reading.embeddings


def _require(reading: Reading, signal: str) -> Any:
    value = getattr(reading, signal, None)
    if value is None:
        raise CaptureError(
            f"The signal {signal!r} was not read; full-map signals need maps=True, and known names "
            f"are {', '.join(one.field for one in levels())}."
        )
    return value


def _mean_of(values: Any) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())


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


def _number(name: str, held: Reading | Drift) -> Any:
    return held.__getattr__(name)


def _declare(kind: type, names: Sequence[str]) -> None:
    """Gives the class its declared numbers as attributes and keywords, for help and completion."""
    for name in names:
        setattr(kind, name, property(partial(_number, name)))
    own = [one for one in signature(kind).parameters.values() if one.kind is not one.VAR_KEYWORD]
    declared = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in names]
    kind.__signature__ = Signature([*own, *declared])  # type: ignore[attr-defined]


_declare(Reading, [one.field for one in levels()])
_declare(Drift, _drift_names())
