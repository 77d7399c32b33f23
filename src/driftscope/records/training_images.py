"""Of how many of the training images a run's model was trained."""

from __future__ import annotations

from driftscope.records.folder import RunRecord

_MUCH = 1 / 3
"""The share of the training images above which a run says how to set fewer aside."""
_FEWER = {"val_images": 50, "probe_images": 20}
"""Enough for a first look at a small set."""


def training_images_sentence(record: RunRecord) -> str:
    """On how many images a run trained, and what the others were for.

    "" where all were trained on, where `train_images` asked for fewer, or where it is not known.
    """
    spec, splits = record.spec, record.result.splits
    if splits is None or splits.num_given is None or spec.train_images is not None:
        return ""
    used, given = splits.num_images["train"], splits.num_given
    if used >= given:
        return ""
    aside = (
        f"{splits.num_images['val']:,} chose the epoch (val_images) and "
        f"{splits.num_images['probe']:,} showed the drift (probe_images)"
    )
    unread = given - used - splits.num_images["val"] - splits.num_images["probe"]
    groups = f", and {unread:,} are of the same groups as these" if unread else ""
    return (
        f"Trained on {used:,} of the {given:,} training images: {aside}{groups}."
        f"{_way_to_more(record) if given - used > _MUCH * given else ''}"
    )


def _way_to_more(record: RunRecord) -> str:
    """What to set to train on more; "" where no fewer can be set aside."""
    asked = {name: getattr(record.spec, name) for name in _FEWER}
    lines = [f"{name}: {few}" for name, few in _FEWER.items() if asked[name] > few]
    if not lines:
        return ""
    price = "fewer images choose and show less surely"
    return f" To train on more, set {' and '.join(lines)} in the run's YAML; {price}."
