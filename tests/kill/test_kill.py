"""A dozen writers stopped at file operations."""

from __future__ import annotations

import pytest

from .campaign import attempt, expected
from .writers import Writer, writers

NAMES = ("run", "model", "csv", "parquet", "pixels")


@pytest.fixture(scope="module")
def by_name(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Writer]:
    return {one.name: one for one in writers(tmp_path_factory.mktemp("material"))}


@pytest.mark.parametrize("name", NAMES)
def test_who_is_stopped_anywhere_ends_as_if_nothing_had_happened(
    name: str, by_name: dict[str, Writer]
) -> None:
    undisturbed = expected(by_name[name])
    endings = [attempt(by_name[name], number, undisturbed) for number in range(3)]
    assert [
        (one.number, one.outcome, one.told) for one in endings if one.outcome != "the same"
    ] == []
