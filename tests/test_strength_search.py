"""The search for strengths of rows, against formulas in float64 and weights set by hand."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import driftscope as ds
from driftscope import strength_search
from driftscope.adapt import adapt
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config.variants import Lora
from driftscope.data.prompts import prompt_rules
from driftscope.estimate import make_pool
from driftscope.image_views import mixed, shifted
from driftscope.sources.live import from_module
from driftscope.strength_search import Change, ToKeep, ToLearn, found_strengths, price_of

PROJECTION = "visual_projection.weight"


@pytest.fixture(scope="module")
def mini() -> VisionLanguageModel:
    return ds.load("mini")


@pytest.fixture(scope="module")
def moved(mini: VisionLanguageModel) -> VisionLanguageModel:
    """A model whose projection alone was pushed at random."""
    after = deepcopy(mini.module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = after.visual_projection.weight
        weight += 0.7 * weight.std() * torch.randn(weight.shape, generator=generator)
    return from_module(after)


@pytest.fixture(scope="module")
def change(mini: VisionLanguageModel, moved: VisionLanguageModel) -> Change:
    ends = ({PROJECTION: one.module.state_dict()[PROJECTION].clone()} for one in (mini, moved))
    return Change(from_module(deepcopy(mini.module)), *ends)


@pytest.fixture(scope="module")
def kept(mini: VisionLanguageModel) -> ToKeep:
    images = ds.open_dataset("concepts100", "test").pixels(range(30), mini.framing)
    pool = make_pool(mini, images, "concepts100", prompt_rules(None, None), None)
    return ToKeep.of(pool, 90)


@pytest.fixture(scope="module")
def wanted(mini: VisionLanguageModel, moved: VisionLanguageModel) -> ToLearn:
    images = ds.open_dataset("terrain", "test").pixels(range(24), mini.framing)
    return ToLearn(images, moved.embed_images(images), None)


def with_classifier(wanted: ToLearn) -> ToLearn:
    torch.manual_seed(1)
    return ToLearn(wanted.pixels, wanted.tuned, nn.Linear(wanted.tuned.shape[1], 5))


def test_what_stays_is_the_divergence_from_the_pretrained_distributions(
    mini: VisionLanguageModel, kept: ToKeep
) -> None:
    before = mini.embed_images(kept.pixels)
    found = before + 0.3 * torch.randn(before.shape, generator=torch.Generator().manual_seed(2))

    def shares(embeddings: torch.Tensor) -> torch.Tensor:
        embeddings, texts = embeddings.double(), kept.texts.double()
        cosines = embeddings / embeddings.norm(dim=1, keepdim=True) @ texts.T
        exponentials = (mini.logit_scale * cosines).exp()
        return exponentials / exponentials.sum(dim=1, keepdim=True)

    p, q = shares(before), shares(found)
    expected = (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(kept.loss(before, found).double(), expected, rtol=1e-4, atol=1e-6)
    assert kept.loss(before, before).abs() < 1e-6


@pytest.mark.parametrize(("keep_pct", "price"), [(60, 0.316), (90, 0.632), (99, 2.0), (100, 2.828)])
def test_the_less_may_be_lost_the_dearer_it_is(keep_pct: float, price: float) -> None:
    assert price_of(keep_pct) == pytest.approx(price, abs=0.001)


def test_what_comes_along_is_the_divergence_from_the_trained_answers(wanted: ToLearn) -> None:
    classified = with_classifier(wanted)
    head = classified.new_head()
    places, tuned = torch.arange(24), classified.tuned
    # the head starts as the classifier, so that the trained model's own answers cost nothing
    assert classified.loss(tuned, places, head, lambda: tuned).abs() < 1e-6
    found = classified.tuned + 0.3
    with torch.no_grad():
        p, q = (
            classified.classifier(one).double().softmax(dim=1) for one in (classified.tuned, found)
        )
    expected = (p * (p / q).log()).sum(dim=1).mean()
    given = classified.loss(found, places, head, lambda: tuned).double()
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-6)


def test_with_labels_it_is_their_cross_entropy(wanted: ToLearn) -> None:
    classified = with_classifier(wanted)
    labels = torch.arange(24) % 5
    labelled = ToLearn(wanted.pixels, wanted.tuned, classified.classifier, labels)
    places = torch.tensor([5, 2, 11])
    with torch.no_grad():
        shares = classified.classifier(wanted.tuned[places]).double().softmax(dim=1)
    expected = -shares[torch.arange(3), labels[places]].log().mean()
    found = wanted.tuned[places]
    given = labelled.loss(found, places, labelled.new_head(), lambda: found).double()
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


def test_without_a_classifier_it_is_the_distance_of_directions(wanted: ToLearn) -> None:
    found = wanted.tuned.flip(0)
    a, b = (one.double() / one.double().norm(dim=1, keepdim=True) for one in (wanted.tuned, found))
    given = wanted.loss(found, torch.arange(24), None, lambda: wanted.tuned).double()
    torch.testing.assert_close(given, ((a - b) ** 2).sum(dim=1).mean(), rtol=1e-5, atol=1e-7)


def test_embeddings_are_those_of_a_model_with_these_rows(
    change: Change, mini: VisionLanguageModel, kept: ToKeep
) -> None:
    rows = torch.rand(len(change.before[PROJECTION]), generator=torch.Generator().manual_seed(3))
    by_hand = deepcopy(mini.module)
    before, after = change.before[PROJECTION], change.after[PROJECTION]
    with torch.no_grad():
        for row, strength in enumerate(rows):
            by_hand.visual_projection.weight[row] = before[row] + strength * (
                after[row] - before[row]
            )
    expected = from_module(by_hand).embed_images(kept.pixels)
    given = change.embedded({PROJECTION: rows}, kept.pixels[torch.arange(30)])
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_both_ends_are_the_two_models(
    change: Change, mini: VisionLanguageModel, moved: VisionLanguageModel, kept: ToKeep
) -> None:
    pixels = kept.pixels[torch.arange(30)]
    for given, model in ((change.pretrained(pixels), mini), (change.trained(pixels), moved)):
        torch.testing.assert_close(given, model.embed_images(kept.pixels), rtol=1e-4, atol=1e-5)
        assert not given.requires_grad


@pytest.mark.parametrize(("start", "used"), [(0.3, 0.3), (0.0, 0.02), (1.0, 1.0)])
def test_all_rows_start_at_one_strength_that_can_still_move(
    start: float, used: float, change: Change, kept: ToKeep, wanted: ToLearn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(strength_search, "STEPS", 0)
    (rows,) = found_strengths(change, kept, wanted, start, seed=0).values()
    torch.testing.assert_close(rows, torch.full_like(rows, used))


def test_the_search_finds_what_one_strength_for_all_rows_cannot(
    change: Change, kept: ToKeep, wanted: ToLearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength_search, "STEPS", 60)
    monkeypatch.setattr(strength_search, "BATCH", 16)
    held = {name: one.clone() for name, one in change.model.module.state_dict().items()}
    (found,) = found_strengths(change, kept, wanted, 0.5, seed=0).values()

    generator = torch.Generator().manual_seed(9)  # other views than those of the search
    pool = torch.cat([mixed(kept.pixels[torch.arange(30)], generator) for _ in range(8)])
    task = torch.cat([shifted(wanted.pixels[torch.arange(24)], generator) for _ in range(4)])

    def loss(rows: torch.Tensor) -> float:
        lost, missed = (change.embedded({PROJECTION: rows}, one) for one in (pool, task))
        learnt = wanted.loss(missed, torch.arange(24), None, lambda: change.trained(task))
        return float((kept.price * kept.loss(change.pretrained(pool), lost) + learnt).detach())

    singles = [loss(torch.full_like(found, one / 10)) for one in range(11)]
    assert loss(found) < 0.95 * min(singles) < 0.9 * max(singles)
    # the model that computes is left as it was
    assert all(torch.equal(one, held[n]) for n, one in change.model.module.state_dict().items())
    assert all(one.grad is None for one in change.model.module.parameters())


def test_what_helps_and_does_no_harm_goes_beyond_what_was_trained_but_not_beyond_the_most(
    change: Change, kept: ToKeep, wanted: ToLearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the trained model is wanted twice over and nothing else is, rows go up to the most."""
    monkeypatch.setattr(strength_search, "STEPS", 30)
    monkeypatch.setattr(strength_search, "BATCH", 8)
    monkeypatch.setattr(ToKeep, "loss", lambda self, before, found: 0 * found.sum())
    rows = torch.full((len(change.before[PROJECTION]),), 2.0)
    monkeypatch.setattr(
        Change, "trained", lambda self, pixels: self.embedded({PROJECTION: rows}, pixels).detach()
    )
    (free,) = found_strengths(change, kept, wanted, 0.5, seed=0).values()
    (held,) = found_strengths(change, kept, wanted, 0.5, seed=0, most=1.0).values()
    assert free.mean() > 1.3
    assert free.max() <= 2
    assert held.max() <= 1


def test_a_model_in_training_is_searched_as_it_is_evaluated(
    mini: VisionLanguageModel, kept: ToKeep, wanted: ToLearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout would draw from the global seed, so that a resumed run found other strengths."""
    monkeypatch.setattr(strength_search, "STEPS", 2)
    adapted = adapt(mini, Lora(dropout=0.5), 5, 0)
    inside = {id(one): name for name, one in adapted.model.plain.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    before = {
        inside[id(one)]: one.detach().clone()
        for name, one in adapted.trainable().items()
        if "lora_B" in name
    }
    after = {
        n: one + 0.1 * torch.randn(one.shape, generator=generator) for n, one in before.items()
    }
    change = Change(adapted.model, before, after)
    adapted.train()
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        found.append(found_strengths(change, kept, wanted, 0.3, seed=0))
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())
    assert adapted.model.module.training


def test_a_seed_gives_the_same_strengths(
    change: Change, kept: ToKeep, wanted: ToLearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength_search, "STEPS", 3)
    of = with_classifier(wanted)
    first, again, other = (
        found_strengths(change, kept, of, 0.3, seed)[PROJECTION] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
