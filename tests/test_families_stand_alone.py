"""A family is one file: another package can bring one, and nothing else names any."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import save_family, toy_family_installed
from torch import nn
from toy_family import Toy, ToyTower

import driftscope
from driftscope.backbones import families
from driftscope.backbones.weights import encoder_weights
from driftscope.config import RunSpec
from driftscope.errors import NoteWarning

SOURCE = Path(driftscope.__file__).parent
FAMILY = re.compile(
    r"(?<![a-z])(?<!open_)(clip|siglip|vit|dino|tips|deit|eva02)"
    r"(?!_?(norm|grad_norm_|board|ping|ped|benchmark|s\b)|-benchmark)",
    re.IGNORECASE,
)
"""A family's name in an identifier or a text; no word that begins so, and not the library."""
ALLOWED = {
    "sources/open_clip/": "the form of open_clip's files, which become CLIPModels",
    "adapt/storage.py": "the one class of transformers' processors that says all that is written",
    "adapt/model.py": "reads checkpoints of older versions, whose names began so",
    "cli/": "examples of commands, and a hint at what is slow",
    "metrics.py": "a publication",
    "paper/": "what the published study was run on",
}
"""Modules outside `backbones` that may name one, and why."""


def named_in(path: Path) -> Iterator[str]:
    """What of a module's code, and of the texts that it uses, names a family."""
    text = path.read_text(encoding="utf-8")
    if not FAMILY.search(text):
        return
    tree = ast.parse(text)
    explained = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        found = {
            ast.Name: lambda one: one.id,
            ast.Attribute: lambda one: one.attr,
            ast.arg: lambda one: one.arg,
            ast.keyword: lambda one: one.arg,
            ast.alias: lambda one: one.name,
            ast.FunctionDef: lambda one: one.name,
            ast.ClassDef: lambda one: one.name,
        }.get(type(node))
        word = found(node) if found else None
        if isinstance(node, ast.Constant) and id(node) not in explained:
            word = node.value
        if isinstance(word, str) and word != "clip" and FAMILY.search(word):  # numpy's is no model
            yield word


def test_no_module_but_a_backbone_names_a_family() -> None:
    found = {
        path: words
        for file in sorted(SOURCE.rglob("*.py"))
        if not (path := file.relative_to(SOURCE).as_posix()).startswith("backbones/")
        if (words := sorted(set(named_in(file))))
    }
    unexplained = {
        path: words for path, words in found.items() if not path.startswith(tuple(ALLOWED))
    }
    assert unexplained == {}
    assert [one for one in ALLOWED if not any(path.startswith(one) for path in found)] == []


# ---------------------------------------------------------------- a family of another package


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    """A folder of a model of the family, which an installed package brings."""
    with toy_family_installed(tmp_path / "site", "broken = toy_family:NOT_THERE\n"):
        told = r"family 'broken' \(toy_family:NOT_THERE\) is left out"
        with pytest.warns(NoteWarning, match=told):
            assert isinstance(families()[-1], Toy)
        yield save_family("toy", tmp_path / "toy")


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_a_family_of_one_file_is_compared_trained_monitored_and_reported(
    toy: Path, method: str, coloured_images: Path, tmp_path: Path
) -> None:
    spec = RunSpec.model_validate(
        {
            **{"model": str(toy), "dataset": str(coloured_images), "method": method},
            **{"learning_rate": 1e-2, "epochs": 1, "batch_size": 16, "val_images": 9},
            **{"probe_images": 9, "transfer": [str(coloured_images)]},
        }
    )
    record = driftscope.run_one(spec, tmp_path / "run")
    drifted = record.result.selected.drift.number("weight_drift")
    assert drifted > 0
    found = driftscope.compare(toy, tmp_path / "run", coloured_images / "test")
    assert found.drift.weight_drift == pytest.approx(drifted)
    again = driftscope.load(tmp_path / "run")
    weights = [
        torch.cat(
            [one.double().flatten() for _, one in sorted(encoder_weights(model.module).items())]
        )
        for model in (driftscope.load(toy), again)
    ]
    assert drifted == pytest.approx(float((weights[1] - weights[0]).norm() / weights[0].norm()))

    monitor = driftscope.Monitor(toy, coloured_images / "test", out=tmp_path / "out", echo=None)
    seen = monitor.observe(nn.ModuleDict({"net": again.module, "head": nn.Linear(16, 3)}), step=1)
    assert seen.drift is not None
    assert seen.drift.weight_drift == pytest.approx(drifted)
    assert seen.drift.delta_entropy_pct == pytest.approx(found.drift.delta_entropy_pct)
    assert monitor.report().exists()
    assert isinstance(again.backbone, Toy)
    assert ToyTower.__module__ == "toy_family"
