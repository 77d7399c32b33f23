import warnings

import pytest

from driftscope import deprecation
from driftscope.deprecation import renamed, renamed_keywords


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "_said", set())


@renamed_keywords(max_images="num_images")
def read(*, num_images: int = 0) -> int:
    return num_images


def test_an_old_keyword_still_works_and_is_told_once_where_it_is_used() -> None:
    with pytest.warns(FutureWarning) as caught:
        assert [read(max_images=number) for number in (3, 4)] == [3, 4]
    assert [str(warning.message) for warning in caught] == [
        "read(max_images=…) is now read(num_images=…); "
        "read(max_images=…) goes on working in this version"
    ]
    assert caught[0].filename == __file__


def test_a_new_keyword_is_taken_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(num_images=3) == 3


def test_an_old_keyword_beside_the_new_one_is_refused() -> None:
    with pytest.raises(TypeError, match="max_images is the old name of num_images"):
        read(num_images=1, max_images=2)


def test_each_old_name_is_told_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        renamed("Study.layers", "Study.heads")
        renamed("driftscope export", "driftscope export-model")
        renamed("Study.layers", "Study.heads")
    assert len(caught) == 2
