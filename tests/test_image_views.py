"""Views of images, against what they are made of."""

from __future__ import annotations

import pytest
import torch

from driftscope.image_views import mixed, shifted


def images(count: int = 6, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ways_to_mix(view: torch.Tensor, given: torch.Tensor) -> list[float]:
    """The weights at which a view is the mean of two of these images, mirrored or not."""
    found = []
    both = torch.cat([given, given.flip(-1)]).double()
    for first in both:
        for second in both:
            apart = (first - second).flatten()
            if not apart.any():
                continue
            weight = float((view.double() - second).flatten() @ apart / (apart @ apart))
            error = view.double() - weight * first - (1 - weight) * second
            if error.abs().max() <= 0.6:
                found.append(weight)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_mixed_view_is_the_mean_of_two_images_mirrored_or_not(seed: int) -> None:
    given = images()
    seen = mixed(given, drawn(seed))
    assert seen.shape == given.shape
    assert seen.dtype == torch.uint8
    for view in seen:
        weights = ways_to_mix(view, given)
        assert weights
        assert all(-0.01 <= one <= 1.01 for one in weights)


def test_two_thirds_are_mixed_and_half_of_the_others_are_mirrored() -> None:
    """Of images of one grey, left half dark, a view tells what was done to it."""
    count = 3000
    given = torch.zeros(count, 3, 4, 4, dtype=torch.uint8)
    given[..., 2:] = 200
    seen = mixed(given, drawn(0))
    left, right = seen[:, 0, 0, 0].int(), seen[:, 0, 0, 3].int()
    torch.testing.assert_close(left + right, torch.full_like(left, 200), atol=1, rtol=0)
    # a mixture of a mirrored and an unmirrored image, which is a third of all, is between
    assert 0.3 < float(((left > 0) & (right > 0)).float().mean()) < 0.37
    assert 0.3 < float((left == 200).float().mean()) < 0.37


@pytest.mark.parametrize("seed", range(5))
def test_a_shifted_view_is_the_image_moved_by_up_to_an_eighth(seed: int) -> None:
    given = images()
    wide = torch.nn.functional.pad(given.double(), [2] * 4, mode="replicate")
    for view, one in zip(shifted(given, drawn(seed)), wide, strict=True):
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(view.double(), one[:, y : y + 16, x : x + 16])
        ]
        assert len(places) == 1


def test_images_too_small_to_shift_stay() -> None:
    given = images(size=7)
    assert torch.equal(shifted(given, drawn(0)), given)


@pytest.mark.parametrize("view", [mixed, shifted])
def test_a_seed_gives_the_same_views_and_leaves_the_images(view: object) -> None:
    given = images()
    held = given.clone()
    first, again, other = (view(given, drawn(seed)) for seed in (1, 1, 2))  # type: ignore[operator]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(given, held)
