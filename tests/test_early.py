"""What is no model, has no images or no labels is told before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from driftscope.cli import app


@pytest.fixture
def flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of unlabeled images beside an empty one, where no model may be loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    for place in ("related_models.load", "sources._found", "prepared_run.load"):
        monkeypatch.setattr(f"driftscope.{place}", refuse)
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("compare mini empty --images flat", "empty holds no model"),
        ("compare flat mini --images flat", "flat holds no model"),
        ("compare mini mini --images empty", "no images in empty"),
        ("compare mini mini --images flat --transfer flat", "flat has no labels"),
        ("compare mini mini --images flat --transfer nosuch", "no dataset 'nosuch'"),
        ("compare mini mini --images flat --pool flat", "the pool has no class names of its own"),
        ("compare mini mini --images flat --pool empty --classes general", "no images in empty"),
        ("rescue mini mini --images flat --pool flat --out o", "the pool has no class names"),
        ("rescue mini flat --images flat --pool terrain --out o", "flat holds no model"),
        ("where mini mini --transfer flat", "flat has no labels"),
        ("merge flat empty --base mini --out o", "flat holds no model"),
        ("run spec.yaml --out o", "flat has no labels"),
    ],
)
def test_a_place_that_does_not_fit_is_told_before_a_model_is_loaded(
    command: str, said: str, flat: Path
) -> None:
    (flat.parent / "spec.yaml").write_text(
        "method: full_ft\nlearning_rate: 1.0e-3\ndataset: flat\n"
    )
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


def test_suites_and_sets_of_the_hub_are_not_opened_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from driftscope.early import refuse_unfit

    monkeypatch.setattr("driftscope.early.open_labelled", None)
    refuse_unfit(["mini"], [], ["vtab", "owner/name", "cifar100"], None, None)
