"""What a budget foretells on the way from the pretrained to the adapted model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy.interpolate import BarycentricInterpolator

from driftscope.budget_path import ChoicePath, lagrange_weights
from driftscope.estimate import Referee

SCALE = 20.0


def cosines(seed: int) -> torch.Tensor:
    drawn = torch.randn(150, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.2 * drawn


def referee(pretrained: torch.Tensor) -> Referee:
    pool = SimpleNamespace(
        logit_scale=SCALE,
        name="drawn",
        num_copies=0,
        classes=SimpleNamespace(described="30 classes"),
    )
    return Referee(pool, SCALE * pretrained, withheld="", doubts=())


def low_of(judge: Referee, at_share: torch.Tensor) -> float:
    low = judge.judge(at_share.argmax(dim=1)).low_90_pct
    assert low is not None
    return low


def test_on_a_straight_way_the_share_is_foretold_where_a_scan_finds_it() -> None:
    before, after = cosines(0), cosines(1)
    judge = referee(before)
    share = ChoicePath(judge, after).largest(90, 0.0, 1.0)
    lows = {one / 50: low_of(judge, torch.lerp(before, after, one / 50)) for one in range(5, 30)}
    scanned = max(one for one, low in lows.items() if low >= 90)
    assert scanned < 29 / 50
    assert share == pytest.approx(scanned, abs=0.03)  # a step of the scan, and the halvings


def test_a_bent_way_is_foretold_once_a_share_on_it_was_looked_at() -> None:
    before, bend, after = cosines(0), cosines(2), cosines(1)

    def there(share: float) -> torch.Tensor:
        return torch.lerp(before, after, share) + share * (1 - share) * 3 * bend

    judge = referee(before)
    path = ChoicePath(judge, there(1.0))
    first = path.largest(90, 0.0, 1.0)
    assert low_of(judge, there(first)) < 85  # it does not know of the bend yet
    path.known[first] = there(first)
    second = path.largest(90, 0.0, first)
    assert low_of(judge, there(second)) == pytest.approx(90, abs=1.5)


def test_a_next_look_goes_on_by_a_tenth_at_least() -> None:
    before = cosines(0)
    nothing_lost = ChoicePath(referee(before), before)
    nothing_lost.known |= {0.5: before, 0.9: before}
    assert nothing_lost.largest(90, 0.5, 0.9) == pytest.approx(0.86)


def test_weights_of_knots_are_those_of_the_polynomial_through_them() -> None:
    knots, values = [0.0, 0.2, 0.55, 1.0], [3.0, -1.0, 2.0, 0.5]
    found = sum(w * v for w, v in zip(lagrange_weights(knots, 0.4), values, strict=True))
    assert found == pytest.approx(float(BarycentricInterpolator(knots, values)(0.4)), abs=1e-12)
