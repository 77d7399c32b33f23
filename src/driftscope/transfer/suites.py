"""Suites of datasets: what of them is here, and means over their sets with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope.data.layouts.hub import missing_of
from driftscope.errors import DataError
from driftscope.protocols import ACCURACIES, ZERO_SHOT, name_of
from driftscope.stats.groups import paired_t
from driftscope.suites import DATA_FOLDER_VARIABLE, Suite, suite_of


@dataclass(frozen=True)
class FoundSuite:
    """A suite with the members that are neither here nor on the hub within reach."""

    suite: Suite
    missing: tuple[str, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """The members that can be scored on."""
        return tuple(one.place for one in self.suite.members if one.place not in self.missing)

    def summary(
        self, scores: Mapping[str, Mapping[str, Any]], protocol: str = ZERO_SHOT
    ) -> dict[str, Any]:
        """Means over the sets by a protocol: accuracy before and after, its change, retention.

        Each mean has a 95 % interval of Student's t over the sets, None for fewer than two.
        Retention is that of the sets that have one.
        """
        found = [scores[name_of(place, protocol)] for place in self.places]
        before = [score["pretrained_accuracy_pct"] for score in found]
        after = [score["accuracy_pct"] for score in found]
        kept = [one["retention_pct"] for one in found if one["retention_pct"] is not None]
        return {
            "what": self.suite.what,
            "sets": list(self.places),
            "missing": list(self.missing),
            "pretrained_accuracy_pct": _mean(before),
            "accuracy_pct": _mean(after),
            "change_points": _mean(np.subtract(after, before).tolist()),
            "retention_pct": _mean(kept),
        }


def summaries(
    suites: Mapping[str, FoundSuite], scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The summary of every suite by each protocol that its sets are scored by."""
    return {
        name_of(name, protocol): one.summary(scores, protocol)
        for name, one in suites.items()
        for protocol in ACCURACIES
        if name_of(one.places[0], protocol) in scores
    }


def found_suites(names: Sequence[str]) -> dict[str, FoundSuite]:
    """The suites among some names, each with what is missing of it.

    Raises:
        DataError: all of one is missing.
    """
    found = {}
    for name in names:
        if suite := suite_of(name):
            found[name] = FoundSuite(suite, missing_of(suite))
            if not found[name].places:
                raise DataError(
                    f"no set of the suite {name!r} is here: the hub cannot be reached, and below "
                    f"${DATA_FOLDER_VARIABLE} is none of {', '.join(found[name].missing[:3])}, …; "
                    "put folders of these names there"
                )
    return found


def places_of(names: Sequence[str], found: Mapping[str, FoundSuite]) -> tuple[str, ...]:
    """Names of datasets, a suite's replaced by those of its members that are found."""
    places = (found[name].places if name in found else (name,) for name in names)
    return tuple(dict.fromkeys(place for of_name in places for place in of_name))


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """The mean with its interval and how many sets it is of."""
    if not values:
        return {"mean": None, "low": None, "high": None, "num_sets": 0}
    test = paired_t(values, np.zeros(len(values)))
    ends = (test.low, test.high) if np.isfinite(test.low) else (None, None)
    return {
        "mean": float(np.mean(values)),
        "low": ends[0],
        "high": ends[1],
        "num_sets": len(values),
    }
