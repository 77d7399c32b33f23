"""Shapley values by permutations that are drawn in opposite pairs (Castro et al. 2009).

Every permutation's contributions add up to the whole, so the values do, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Share:
    """A player's part of the whole.

    Attributes:
        value: its Shapley value, estimated.
        error: standard error of that, over the pairs; None of one pair.
    """

    value: float
    error: float | None


def shapley_values(
    players: Sequence[str],
    worth: Callable[[frozenset[str]], float],
    num_pairs: int,
    seed: int = 0,
) -> dict[str, Share]:
    """Each player's mean contribution over orders in which players join.

    Args:
        players: who joins.
        worth: of a set of players; it is asked once for each set.
        num_pairs: how many orders are drawn, each with its reverse.
        seed: of the orders.

    Raises:
        ValueError: no pair is to be drawn.
    """
    if num_pairs < 1:
        raise ValueError(f"{num_pairs} pairs of orders cannot be drawn; give 1 or more")
    known: dict[frozenset[str], float] = {}

    def asked(joined: frozenset[str]) -> float:
        if joined not in known:
            known[joined] = worth(joined)
        return known[joined]

    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(num_pairs):
        order = [players[at] for at in torch.randperm(len(players), generator=generator).tolist()]
        both = [_contributions(one, asked) for one in (order, order[::-1])]
        pairs.append({player: (both[0][player] + both[1][player]) / 2 for player in players})
    return {player: _share([pair[player] for pair in pairs]) for player in players}


def _contributions(
    order: Sequence[str], worth: Callable[[frozenset[str]], float]
) -> dict[str, float]:
    joined: frozenset[str] = frozenset()
    before, found = worth(joined), {}
    for player in order:
        joined |= {player}
        after = worth(joined)
        found[player] = after - before
        before = after
    return found


def _share(values: Sequence[float]) -> Share:
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Share(mean, None)
    variance = math.fsum((one - mean) ** 2 for one in values) / (count - 1)
    return Share(mean, math.sqrt(variance / count))
