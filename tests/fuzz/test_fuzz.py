"""A few hundred damaged inputs, and those that once ended badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from .campaign import BAD, FOUND, again, attempt, reading, wholes
from .kinds import KINDS

NUMBERS = {"spec": 120, "image": 120, "list": 60, "record": 16, "model": 10, "name": 1}
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return wholes(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_damaged_input_is_read_as_it_is_or_refused_in_a_sentence(
    name: str, whole: dict[str, Path]
) -> None:
    endings = [attempt(BY_NAME[name], number, whole[name]) for number in range(NUMBERS[name])]
    assert [(one.number, one.outcome, one.told) for one in endings if one.outcome in BAD] == []
    is_damaged = name != "name"  # a hostile name is a name
    assert any(one.outcome == "refused" for one in endings) == is_damaged


@pytest.mark.parametrize("place", sorted(FOUND.glob("*-*")), ids=lambda place: place.name)
def test_what_once_ended_badly_does_so_no_more(place: Path, whole: dict[str, Path]) -> None:
    name, number = place.name.rsplit("-", 1)
    ending = again(place, BY_NAME[name], int(number), whole[name])
    assert ending.outcome not in BAD, ending.told


def test_the_same_number_makes_the_same_input(whole: dict[str, Path]) -> None:
    first, again = (attempt(BY_NAME["spec"], 3, whole["spec"]) for _ in range(2))
    assert (first.outcome, len(first.told)) == (again.outcome, len(again.told))


def test_a_reader_that_believes_damage_is_found_out(whole: dict[str, Path]) -> None:
    believed = reading(BY_NAME["record"], 0, whole["record"], whole["record"])
    assert believed.outcome == "read", believed.told
