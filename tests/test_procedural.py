"""The procedural image world: images are pure functions of (set, index), classes are balanced."""

from __future__ import annotations

import itertools
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_images import describe, pretraining_batch

from driftscope.data import procedural
from driftscope.data.procedural import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    FILLS,
    PROCEDURAL_SETS,
    SHAPES,
    ProceduralSet,
    concept_surroundings,
    load_procedural,
)
from driftscope.data.rendering import SHAPE_DISTANCES, Draws, pixel_grid, star_distance
from driftscope.errors import DataError

EVERY_SPLIT = [(name, split) for name, spec in PROCEDURAL_SETS.items() for split in spec.sizes]


@pytest.fixture(params=EVERY_SPLIT, ids="/".join)
def dataset(request: pytest.FixtureRequest) -> ProceduralSet:
    return load_procedural(*request.param)


def test_sets_have_the_promised_sizes_and_numbers_of_classes():
    found = {
        (name, split): (len(load_procedural(name, split)), len(spec.class_names))
        for name, spec in PROCEDURAL_SETS.items()
        for split in spec.sizes
    }
    assert found == {
        ("concepts100", "test"): (5000, 100),
        ("terrain", "train"): (2000, 10),
        ("terrain", "test"): (1000, 10),
        ("stars", "train"): (2400, 12),
        ("stars", "test"): (1200, 12),
    }


def test_images_are_bytes_of_the_stated_size(dataset: ProceduralSet):
    images = dataset.render([0, 5])
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, dataset.image_size, dataset.image_size) == (2, 3, 56, 56)


def test_an_image_is_bit_equal_whatever_the_batch_and_order(dataset: ProceduralSet):
    whole = dataset.render(range(100))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dataset.render(order), whole[order])
    assert torch.equal(torch.cat([dataset.render([i]) for i in range(0, 100, 9)]), whole[::9])


def test_an_image_is_bit_equal_whatever_the_number_of_threads(dataset: ProceduralSet):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = dataset.render(range(70))
        torch.set_num_threads(3)
        together = dataset.render(range(70))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 999), max_size=6))
def test_any_selection_is_the_selection_of_the_whole(indices: list[int]):
    dataset = load_procedural("terrain", "test")
    expected = [dataset.render([i])[0] for i in indices]
    rendered = dataset.render(indices)
    assert len(rendered) == len(indices)
    assert all(torch.equal(a, b) for a, b in zip(rendered, expected, strict=True))


def test_classes_are_balanced_and_shuffled(dataset: ProceduralSet):
    num_classes = len(dataset.class_names)
    assert len(dataset.labels) == len(dataset)
    assert dataset.labels.bincount(minlength=num_classes).unique().tolist() == [
        len(dataset) // num_classes
    ]
    assert len(dataset.labels[: 3 * num_classes].unique()) > num_classes // 2
    assert not torch.equal(dataset.labels[: 2 * num_classes], dataset.labels.sort().values)


@pytest.mark.parametrize("name", ["terrain", "stars"])
def test_train_and_test_share_no_image(name: str):
    def images(split: str) -> list[bytes]:
        return [i.numpy().tobytes() for i in load_procedural(name, split).render(range(200))]

    train, test = images("train"), images("test")
    assert len(set(train + test)) == 400


def test_another_seed_gives_other_images_in_another_order(dataset: ProceduralSet):
    other = load_procedural(dataset.name, dataset.split, seed=1)
    assert not torch.equal(other.labels, dataset.labels)
    assert not torch.equal(other.render([0]), dataset.render([0]))


def test_fingerprints_tell_name_split_and_seed_apart():
    fingerprints = [
        load_procedural(name, split, seed).fingerprint
        for (name, split), seed in itertools.product(EVERY_SPLIT, (0, 1))
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_fingerprint_follows_the_renderer_version_and_the_size(monkeypatch: pytest.MonkeyPatch):
    before = load_procedural("terrain", "test").fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(procedural, "RENDERER_VERSION", 0)
        assert load_procedural("terrain", "test").fingerprint != before
    monkeypatch.setitem(PROCEDURAL_SETS["terrain"].sizes, "test", 999)
    assert load_procedural("terrain", "test").fingerprint != before


# Records name images by fingerprint alone: if this fails on purpose, raise RENDERER_VERSION.
GOLDEN = {
    ("concepts100", "test"): 1485650325,
    ("terrain", "train"): 201972399,
    ("terrain", "test"): 619754580,
    ("stars", "train"): 426584190,
    ("stars", "test"): 3858248467,
}


def test_images_are_those_of_this_renderer_version(dataset: ProceduralSet):
    checksum = zlib.crc32(dataset.render(range(24)).numpy().tobytes())
    assert checksum == GOLDEN[dataset.name, dataset.split]


def test_no_indices_give_no_images(dataset: ProceduralSet):
    assert dataset.render([]).shape == (0, 3, 56, 56)


@pytest.mark.parametrize("indices", [[-1], [1000], [3, 1000]])
def test_an_index_outside_the_set_is_refused(indices: list[int]):
    with pytest.raises(DataError, match="terrain/test, which holds images 0 to 999"):
        load_procedural("terrain", "test").render(indices)


def test_an_unknown_set_or_split_is_refused_with_the_nearest_name():
    with pytest.raises(DataError, match="did you mean 'terrain'"):
        load_procedural("terain", "train")
    with pytest.raises(DataError, match="no split 'train'; valid: test"):
        load_procedural("concepts100", "train")


def test_concept_labels_name_colour_and_shape():
    names = load_procedural("concepts100", "test").class_names
    assert names[0] == f"{COLOURS[0]} {SHAPES[0]}"
    assert len(set(names)) == 100


def test_concept_images_have_the_colour_of_their_class():
    """Solid red, green and blue squares are reddest, greenest and bluest inside."""
    dataset = load_procedural("concepts100", "test")
    solid = concept_surroundings(dataset)[:, 0] == FILLS.index("solid")
    for channel, colour in enumerate(("red", "green", "blue")):
        of_class = dataset.labels == dataset.class_names.index(f"{colour} square")
        images = dataset.render((of_class & solid).nonzero().flatten()[:5]).float()
        own = images[:, channel] - images.sum(1).sub(images[:, channel]) / 2
        assert (own.flatten(1).quantile(0.9, dim=1) > 60).all(), colour


def test_concept_surroundings_cover_every_fill_and_background_evenly():
    fills, backgrounds = concept_surroundings(load_procedural("concepts100", "test")).unbind(1)
    for values, names in ((fills, FILLS), (backgrounds, BACKGROUNDS)):
        shares = values.bincount(minlength=len(names)) / len(values)
        assert (shares - 1 / len(names)).abs().max() < 0.02


def test_draws_are_uniform_and_uncorrelated():
    draws = Draws(1, torch.arange(50_000))
    first, second = draws.uniform().flatten(), draws.uniform().flatten()
    assert first.mean().item() == pytest.approx(0.5, abs=0.006)
    assert first.std().item() == pytest.approx(12**-0.5, abs=0.004)
    neighbours = torch.stack([first[:-1], first[1:], second[1:]])
    assert torch.corrcoef(neighbours).fill_diagonal_(0).abs().max() < 0.02


def test_draws_of_some_images_are_those_of_the_whole():
    draws = Draws(3, torch.arange(10))
    draws.uniform()
    some = draws.of(torch.tensor([7, 2])).uniform()
    assert torch.equal(some, draws.uniform()[[7, 2]])


def test_integers_cover_their_range():
    assert set(Draws(5, torch.arange(500)).integers(6).tolist()) == set(range(6))


@pytest.mark.parametrize("shape", SHAPE_DISTANCES)
def test_signed_distances_change_no_faster_than_one_per_unit_of_length(shape: str):
    """Steeper ones would look jagged: anti-aliasing takes the value for a length."""
    x, y = (grid.double() for grid in pixel_grid())
    distance = SHAPE_DISTANCES[shape](x, y)
    step = 2 / 56
    for difference in (distance.diff(dim=1), distance.diff(dim=2)):
        assert difference.abs().max() <= step * 1.01
    assert distance.min() < -0.05
    assert distance.max() > 0.05


def test_a_star_without_notches_is_the_regular_polygon():
    x, y = (grid.double() for grid in pixel_grid())
    square = star_distance(x, y, 4, torch.tensor(0.5**0.5, dtype=torch.double))
    diamond = (x.abs() + y.abs() - 1) * 0.5**0.5
    assert torch.allclose(square, diamond)


def test_pretraining_samples_do_not_depend_on_their_batch():
    images, captions, attributes = pretraining_batch(0, range(40))
    some = [31, 4, 4]
    few_images, few_captions, few_attributes = pretraining_batch(0, some)
    assert torch.equal(few_images, images[some])
    assert few_captions == [captions[i] for i in some]
    assert torch.equal(few_attributes, attributes[some])
    assert not torch.equal(pretraining_batch(1, range(40))[2], attributes)


def test_captions_say_only_what_is_true_and_sometimes_everything():
    _, captions, attributes = pretraining_batch(0, range(1000))
    mentions = dict.fromkeys(ATTRIBUTES, 0)
    for caption, values in zip(captions, attributes.tolist(), strict=True):
        words = set(caption.split())
        for (attribute, names), value in zip(ATTRIBUTES.items(), values, strict=True):
            said = words & set(names)
            assert said <= {names[value]}, caption
            mentions[attribute] += bool(said)
    shares = {attribute: count / 1000 for attribute, count in mentions.items()}
    assert min(shares.values()) > 0.4
    assert max(shares.values()) < 0.95


def test_hard_negatives_keep_to_the_allowed_values():
    _, captions, attributes = pretraining_batch(0, range(64), {"shape": [2], "fill": [1, 3]})
    assert attributes[:, 1].unique().tolist() == [2]
    assert attributes[:, 2].unique().tolist() == [1, 3]
    assert any(SHAPES[2] in caption for caption in captions)


@pytest.mark.parametrize(
    ("mention", "phrase"),
    [
        ((True, True, True, True), "a striped orange ring on an olive background"),
        ((True, True, False, False), "an orange ring"),
        ((False, True, False, True), "a ring on an olive background"),
        ((False, False, True, False), "a striped shape"),
    ],
)
def test_captions_are_grammatical(mention: tuple[bool, ...], phrase: str):
    values = (COLOURS.index("orange"), SHAPES.index("ring"), 1, BACKGROUNDS.index("olive"))
    assert describe(values, mention) == phrase
