"""What image features alone tell of labeled images: nearest neighbours, and a linear probe.

No texts are needed, so this is how an encoder without a text tower is scored. As in DINO's
protocol (2104.14294), images with labels are the bank, and those of the test split are told by it:
by the votes of the nearest in the bank, or by a linear classifier that is fitted to the bank. Both
are made anew for every model that is scored, from its own features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data import EncodedSet, ImageSet, PixelSource, labelled, rows_of
from driftscope.data.copies import told_of_copies, told_of_shared
from driftscope.data.prompts import PromptRules
from driftscope.data.splits import balanced_subset, open_train_and_test
from driftscope.errors import ConfigError, ModelError, did_you_mean
from driftscope.protocols import BY_OPTION, KNN, LINEAR_PROBE, ZERO_SHOT, name_of
from driftscope.transfer.classification import LabelledSet, notes_of_absent, transfer_set
from driftscope.transfer.doubts import DoubtWarning
from driftscope.transfer.scores import Outcome, outcome_of_scores

NUM_NEIGHBOURS = 20
TEMPERATURE = 0.07
INVERSE_PENALTY = 0.316
"""How little weights are punished, as CLIP's authors do in their example of a linear probe."""
_MOST_ITERATIONS = 1000

Scores = Float[Tensor, "image class"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureSet(LabelledSet):
    """A labeled set that is told from features alone.

    Attributes:
        set_name: the set's name without the protocol's.
        protocol: `KNN` or `LINEAR_PROBE`.
        bank_pixels, bank_labels: the labeled images that the others are told by.
    """

    set_name: str
    protocol: str
    bank_pixels: PixelSource
    bank_labels: Int64[Tensor, " bank"]

    def image_sets(self) -> dict[str, PixelSource]:
        """The images to embed, by names that the protocols of one set share."""
        return {
            f"labeled: {self.set_name}": self.pixels,
            f"bank: {self.set_name}": self.bank_pixels,
        }

    def outcome_from(
        self,
        embeddings: Mapping[str, Tensor],
        model: VisionLanguageModel | None = None,
        *,
        has_own_texts: bool = False,
    ) -> Outcome:
        """The score and the predictions, from the embeddings of `image_sets`."""
        del model, has_own_texts
        images, bank = (embeddings[name] for name in self.image_sets())
        num_classes = len(self.class_names)
        scores = _SCORES[self.protocol](images, bank, self.bank_labels, num_classes)
        return outcome_of_scores(scores, self.labels, self.name)


def labelled_sets(
    names: str | Iterable[str],
    model: VisionLanguageModel,
    max_images: int | None = None,
    rules: PromptRules | None = None,
    *,
    by: str | Sequence[str] = (),
    skip_bad_images: bool = False,
) -> list[LabelledSet]:
    """Labeled datasets as benchmarks of the pretrained model by every protocol that is wanted.

    Args:
        names: one dataset or several; their benchmarks come one dataset after the other.
        model, max_images, rules, skip_bad_images: as for `transfer_set`.
        by: `zero_shot`, `knn`, `linear_probe`. By default zero-shot where the model has a text
            tower, and the other two where it has none.

    Raises:
        ConfigError: an unknown protocol.
        ModelError: zero-shot is asked of a model without a text tower.
        DataError: as for `transfer_set` and `feature_sets`.
    """
    protocols = _protocols(model, by)
    of_features = tuple(one for one in protocols if one != ZERO_SHOT)
    skips = {"skip_bad_images": skip_bad_images}
    found: list[LabelledSet] = []
    for name in [names] if isinstance(names, str) else names:
        if ZERO_SHOT in protocols:
            found.append(transfer_set(name, model, max_images, rules, **skips))
        if of_features:
            found += feature_sets(name, model, max_images, protocols=of_features, **skips)
    return found


def refuse_protocols_of_none(by: object, transfer: Sequence[str]) -> None:
    """Refuses protocols that no labeled set is scored by.

    Raises:
        ConfigError: they are given, and no transfer set is.
    """
    if checked_protocols(by) and not transfer:
        raise ConfigError(
            f"transfer_by is {short(by)}, but no transfer set is given; give one (--transfer), or "
            "leave it out"
        )


def checked_protocols(by: object) -> tuple[str, ...]:
    """The protocols that an option names, each once.

    Raises:
        ConfigError: it names something else.
    """
    names = [by] if isinstance(by, str) else by
    if not isinstance(names, Sequence) or not all(isinstance(one, str) for one in names):
        raise ConfigError(f"transfer_by is {short(by)}; give {', '.join(BY_OPTION)}, or several")
    for one in names:
        if one not in BY_OPTION:
            raise ConfigError(f"there is no transfer_by {one!r}: {did_you_mean(one, BY_OPTION)}")
    return tuple(protocol for option, protocol in BY_OPTION.items() if option in names)


def _protocols(model: VisionLanguageModel, by: str | Sequence[str]) -> tuple[str, ...]:
    named = checked_protocols(by)
    if ZERO_SHOT in named and not model.has_text:
        raise ModelError(
            f"{model.source} has no text tower, so nothing is scored zero-shot; ask for "
            "transfer_by knn and linear_probe"
        )
    return named or ((ZERO_SHOT,) if model.has_text else (KNN, LINEAR_PROBE))


def feature_sets(
    name: str,
    model: VisionLanguageModel,
    max_images: int | None = None,
    *,
    protocols: tuple[str, ...] = (KNN, LINEAR_PROBE),
    skip_bad_images: bool = False,
) -> list[FeatureSet]:
    """A labeled dataset as one benchmark a protocol; its training split is the bank.

    A dataset of one split is divided, a fifth of every class for testing.

    Args:
        name: a dataset's name or place, as for `open_dataset`.
        model: whose input the images become.
        max_images: so many images of either split, evenly over classes; None for all.
        protocols: `KNN`, `LINEAR_PROBE`.
        skip_bad_images: whether unreadable images are left out or an error.

    Raises:
        DataError: no such dataset, one without labels, or splits of different classes.
    """
    train, test = open_train_and_test(name, 0)
    _, class_names = labelled(test)
    bank, of_bank, bank_labels = _chosen(train, max_images, skip_bad=skip_bad_images)
    images, chosen, labels = _chosen(test, max_images, skip_bad=skip_bad_images)
    notes = [f"told by {len(bank_labels):,} labeled images of its split {train.split}"]
    if max_images is not None and max_images < len(test):
        notes.append(f"{max_images:,} of its {len(test):,} images, drawn evenly over classes")
    notes += notes_of_absent(labels, class_names)
    notes += notes_of_absent(bank_labels, class_names, "tell the classes")
    doubts: list[str] = []
    if isinstance(images, EncodedSet) and isinstance(bank, EncodedSet):
        of_copies, of_shared = told_of_copies(images), told_of_shared(images, bank)
        notes += [*images.notes, *bank.notes, *of_copies[0], *of_shared[0]]
        doubts += [*images.doubts, *bank.doubts, *of_copies[1], *of_shared[1]]
    for doubt in dict.fromkeys(doubts):
        warnings.warn(f"{name}: {doubt}", DoubtWarning, stacklevel=2)
    pixels = rows_of(images, chosen, model.framing)
    bank_pixels = rows_of(bank, of_bank, model.framing)
    return [
        FeatureSet(
            name=name_of(name, protocol),
            protocol=protocol,
            set_name=name,
            split=test.split,
            fingerprint=f"{images.fingerprint}-{bank.fingerprint}",
            pixels=pixels,
            labels=labels,
            bank_pixels=bank_pixels,
            bank_labels=bank_labels,
            class_names=class_names,
            doubts=tuple(dict.fromkeys(doubts)),
            notes=tuple(dict.fromkeys(notes)),
        )
        for protocol in protocols
    ]


def knn_scores(
    images: Float[Tensor, "image dim"],
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int64[Tensor, " bank"],
    num_classes: int,
) -> Scores:
    """Votes of the 20 nearest images of the bank by cosine, each e^(cosine / 0.07).

    Of equally near images those come first that the bank has first.
    """
    return neighbour_votes(images, bank, bank_labels, num_classes)


def neighbour_votes(
    images: Float[Tensor, "image dim"],
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int64[Tensor, " bank"],
    num_classes: int,
    *,
    leave_out: bool = False,
) -> Scores:
    """As `knn_scores`; with `leave_out` the images are the bank, and none has a vote on itself."""
    cosines = _directions(images) @ _directions(bank).T
    if leave_out:
        cosines.fill_diagonal_(-torch.inf)
    order = cosines.sort(dim=-1, descending=True, stable=True)
    nearest = order.indices[:, :NUM_NEIGHBOURS]
    votes = (order.values[:, :NUM_NEIGHBOURS] / TEMPERATURE).exp()
    scores = torch.zeros(len(images), num_classes, dtype=torch.float64)
    return scores.scatter_add(1, bank_labels[nearest], votes)


def linear_probe_scores(
    images: Float[Tensor, "image dim"],
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int64[Tensor, " bank"],
    num_classes: int,
) -> Scores:
    """Logits of the softmax regression that fits the bank.

    Every feature is taken off its mean over the bank and divided by its deviation there, so that
    the features' scale does not enter. Weights (not biases) are punished by ‖W‖² / (2·0.316·n)
    beside the mean cross-entropy over the n images of the bank. The minimum is unique; it is found
    by L-BFGS in float64.
    """
    mean, deviation = _spread_of(bank)
    seen, told = (((one.double() - mean) / deviation).cpu() for one in (bank, images))
    weights, biases = _fitted(seen.numpy(), bank_labels.numpy(), num_classes)
    return told @ torch.from_numpy(weights).T + torch.from_numpy(biases)


def linear_classifier(
    bank: Float[Tensor, "bank dim"], bank_labels: Int64[Tensor, " bank"], num_classes: int
) -> nn.Linear:
    """The classifier of `linear_probe_scores` as one linear layer on unnormalised embeddings."""
    mean, deviation = _spread_of(bank)
    weights, biases = _fitted(
        ((bank.double() - mean) / deviation).cpu().numpy(), bank_labels.numpy(), num_classes
    )
    scaled = torch.from_numpy(weights) / deviation.cpu()
    classifier = nn.Linear(bank.shape[1], num_classes)
    with torch.no_grad():
        classifier.weight.copy_(scaled)
        classifier.bias.copy_(torch.from_numpy(biases) - scaled @ mean.cpu())
    return classifier


def _spread_of(bank: Float[Tensor, "bank dim"]) -> tuple[Tensor, Tensor]:
    """Every feature's mean over the bank, and its deviation there; 1 where it is constant."""
    mean, deviation = bank.double().mean(dim=0), bank.double().std(dim=0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)


_SCORES: dict[str, Callable[..., Scores]] = {KNN: knn_scores, LINEAR_PROBE: linear_probe_scores}


def _fitted(
    features: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weights [class, dim] and biases [class] of the regression."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    count, dim = features.shape
    targets = np.eye(num_classes)[labels]
    penalty = 1 / (INVERSE_PENALTY * count)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, biases = flat[:-num_classes].reshape(num_classes, dim), flat[-num_classes:]
        logs = log_softmax(features @ weights.T + biases, axis=1)
        loss = -(targets * logs).sum() / count + penalty * (weights**2).sum() / 2
        excess = (np.exp(logs) - targets) / count
        by_weight = excess.T @ features + penalty * weights
        return float(loss), np.concatenate([by_weight.ravel(), excess.sum(axis=0)])

    found = minimize(
        loss_and_gradient,
        np.zeros(num_classes * (dim + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_ITERATIONS, "gtol": 1e-6, "ftol": 1e-12},
    ).x
    return found[:-num_classes].reshape(num_classes, dim), found[-num_classes:]


def _directions(features: Tensor) -> Tensor:
    return functional.normalize(features.double().cpu(), dim=-1)


def _chosen(
    images: ImageSet, max_images: int | None, *, skip_bad: bool
) -> tuple[ImageSet, Int64[Tensor, " image"], Int64[Tensor, " image"]]:
    """A split, with some of its images, evenly over classes, by index; and their labels.

    Of encoded images it is a set of those alone, so that no more is read than is scored on.
    """
    labels, _ = labelled(images)
    chosen = balanced_subset(labels, max_images)
    if isinstance(images, EncodedSet):
        images = images.select(chosen)
        if skip_bad:
            images = images.only_readable()
        labels, _ = labelled(images)
        chosen = torch.arange(len(images))
    return images, chosen, labels[chosen]
