"""By what the classes of a transfer set are told, and how that is said."""

from __future__ import annotations

ZERO_SHOT, KNN, LINEAR_PROBE = "zero-shot", "k-NN", "linear probe"
"""By what the classes of a transfer set are told: their texts, or the features alone."""
ACCURACIES = {ZERO_SHOT: "zero_shot_pct", KNN: "knn_pct", LINEAR_PROBE: "linear_probe_pct"}
"""The key of the accuracy that a protocol gives."""


def name_of(transfer_set: str, protocol: str) -> str:
    """The name of a transfer set's benchmark by a protocol: what reports call it.

    >>> name_of("pets", ZERO_SHOT), name_of("pets", KNN)
    ('pets', 'pets (k-NN)')
    """
    return transfer_set if protocol == ZERO_SHOT else f"{transfer_set} ({protocol})"


def protocol_of(name: str) -> str:
    """By which protocol a benchmark of this name is scored.

    >>> protocol_of("pets"), protocol_of("pets (k-NN)")
    ('zero-shot', 'k-NN')
    """
    return next((one for one in (KNN, LINEAR_PROBE) if name.endswith(f" ({one})")), ZERO_SHOT)


def set_of(name: str) -> str:
    """The transfer set of a benchmark, without its protocol.

    >>> set_of("pets"), set_of("pets (k-NN)")
    ('pets', 'pets')
    """
    return name.removesuffix(f" ({protocol_of(name)})")


def pretrained_accuracy_key(name: str) -> str:
    """What records call the pretrained model's accuracy on a benchmark.

    >>> pretrained_accuracy_key("pets")
    'pretrained_zero_shot_pct'
    """
    return f"pretrained_{ACCURACIES[protocol_of(name)]}"


def scored_on(name: str, what: str = "") -> str:
    """A benchmark in words: its protocol and set.

    >>> scored_on("pets"), scored_on("pets (k-NN)", "accuracy")
    ('zero-shot on pets', 'k-NN accuracy on pets')
    """
    return f"{protocol_of(name)}{what and f' {what}'} on {set_of(name)}"


def ability_on(name: str) -> str:
    """What retention is a share of: "zero-shot ability on pets", "k-NN accuracy on pets"."""
    return scored_on(name, "ability" if protocol_of(name) == ZERO_SHOT else "accuracy")


WITHOUT_TEXTS = "has no text tower"
"""Of a model: why what is told by class names cannot be told. Goes on from its name."""
BY_OPTION = {"zero_shot": ZERO_SHOT, "knn": KNN, "linear_probe": LINEAR_PROBE}
"""What `transfer_by` takes -> the protocol."""
