import re
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import reached_before as before

import driftscope as ds
from driftscope import deprecation
from driftscope.deprecation import RenamedWarning, keywords, renamed


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "_said", set())


@keywords(max_images="num_images")
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


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ds.Monitor("mini", "terrain", transfr="stars"), "Monitor takes no 'transfr'"),
        (lambda: ds.Monitor("mini", "terrain", transfr="stars"), "did you mean 'transfer'"),
        (lambda: ds.compare("a", "b", "c", max_image=4), "did you mean 'max_images'"),
        (lambda: ds.Thresholds(min_retention=90), "did you mean 'min_retention_pct'"),
        (lambda: ds.Selection(patient=3), "did you mean 'patience'"),
        (lambda: ds.read(None, None, batchsize=1), "did you mean 'batch_size'"),
        (lambda: ds.run_one(None, None, devices="cpu"), "did you mean 'device'"),
        (lambda: ds.answer("frontier", None, margin=1), "frontier takes no 'margin'"),
        (lambda: ds.answer("selection", None, margin=1), "did you mean 'margin_points'"),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_nearest_one(
    call: Callable[[], object], sentence: str
) -> None:
    with pytest.raises(ds.DriftscopeError, match=re.escape(sentence)) as caught:
        call()
    assert isinstance(caught.value, TypeError)  # as Python itself raises


def test_the_old_names_of_a_monitors_images_are_told_once_each(
    tiny_clip: Path, coloured_images: Path
) -> None:
    with pytest.warns(FutureWarning) as caught:
        monitor = ds.Monitor(
            str(tiny_clip), probe_images=str(coloured_images), max_probe_images=4,
            vocabulary=None, echo=None,
        )  # fmt: skip
    told = [str(one.message).split(";")[0] for one in caught if "Monitor" in str(one.message)]
    assert sorted(told) == [
        "Monitor(max_probe_images=…) is now Monitor(max_images=…)",
        "Monitor(probe_images=…) is now Monitor(images=…)",
    ]
    assert monitor.state_dict()["monitor"]["num_images"] == 4


def test_old_places_of_models_go_on_working() -> None:
    import driftscope.models as old
    from driftscope.models import open_clip_convert
    from driftscope.sources import load, open_clip

    assert (Path(old.__file__).parent / "mini" / "config.json").exists()
    with pytest.warns(RenamedWarning, match=r"driftscope\.models\.load is now driftscope\.sources"):
        assert old.load is load
    with pytest.warns(RenamedWarning, match="OPEN_CLIP_NAMES is now"):
        assert open_clip_convert.OPEN_CLIP_NAMES is open_clip.OPEN_CLIP_NAMES


@pytest.mark.parametrize("old", [*before.PLACES, "integrations.hf_trainer.DriftscopeCallback"])
def test_an_old_place_goes_on_working_and_is_told_once(old: str) -> None:
    module, _, name = f"driftscope.{old}".rpartition(".")
    with pytest.warns(RenamedWarning, match=rf"{re.escape(old)} is now driftscope\.") as caught:
        found = [getattr(import_module(module), name) for _ in range(2)]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert found[0] is found[1]
    new = {"DriftscopeCallback": "MonitorCallback"}.get(name, name)
    assert found[0].__name__ == new


@pytest.mark.parametrize("module", ["probe", "readings", "results", "models"])
def test_an_old_module_has_nothing_else(module: str) -> None:
    with pytest.raises(AttributeError, match=f"driftscope.{module}' has no attribute 'nothing'"):
        import_module(f"driftscope.{module}").nothing  # noqa: B018
