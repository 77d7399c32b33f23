"""`driftscope.transfer.own_classes`: what was learned, told by neighbours, one left out."""

import math

import torch
from torch import Tensor

from driftscope.analysis.zero_shot import learned_sentence
from driftscope.stats.proportions import wilson_interval_pct
from driftscope.transfer.own_classes import own_classes


def by_hand(embeddings: Tensor, labels: Tensor) -> int:
    """The same in plain loops."""
    right = 0
    for image in range(len(labels)):
        near = [
            (float(torch.cosine_similarity(embeddings[image], embeddings[other], dim=0)), other)
            for other in range(len(labels))
            if other != image
        ]
        votes: dict[int, float] = {}
        for cosine, other in sorted(near, reverse=True)[:20]:
            label = int(labels[other])
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / 0.07)
        right += max(votes, key=votes.__getitem__) == int(labels[image])
    return right


def test_each_image_is_told_by_the_others_and_never_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 4
    noise = torch.randn(48, 8, generator=generator)
    apart = noise + 3 * torch.nn.functional.one_hot(labels, 8)
    found = own_classes(labels, noise, apart)
    assert found is not None
    assert (found["num_images"], found["num_classes"]) == (48, 4)
    for side, embeddings in (("pretrained", noise), ("adapted", apart)):
        right = by_hand(embeddings, labels)
        low, high = wilson_interval_pct(right, 48)
        assert found[side] == {
            "accuracy_pct": 100 * right / 48, "wilson_low_pct": low, "wilson_high_pct": high
        }  # fmt: skip
    assert found["pretrained"]["accuracy_pct"] < 60  # voting on itself, every image would be right
    assert found["adapted"]["accuracy_pct"] > 90
    said = learned_sentence("terrain", found)
    assert "of 48 images of terrain get the right one of 4 classes before" in said
    assert "is the order right?" not in said
    swapped = {**found, "pretrained": found["adapted"], "adapted": found["pretrained"]}
    assert "is the order right?" in learned_sentence("terrain", swapped)


def test_it_is_silent_without_labels_with_one_class_and_with_few_images_a_class() -> None:
    embeddings = torch.eye(8)
    assert own_classes(None, embeddings, embeddings) is None
    assert own_classes(torch.zeros(8, dtype=torch.int64), embeddings, embeddings) is None
    assert own_classes(torch.arange(8) % 2, embeddings, embeddings) is None  # four a class
    assert own_classes(torch.full((8,), -1), embeddings, embeddings) is None
    assert own_classes(torch.arange(8) % 2, None, embeddings) is None
    assert learned_sentence("terrain", None) == ""
