"""TorchScript archives are read as torch reads them, and never run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from driftscope.errors import ModelError
from driftscope.sources.state_dict import read_tensors_of


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).half()
        self.register_buffer("resolution", torch.tensor(224))
        self.mask = torch.ones(2)  # neither a parameter nor a buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.mask


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_Block(), nn.ReLU())
        self.same = self.blocks[0].linear
        self.turned = nn.Parameter(torch.randn(4, 3).t())
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class _Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight

    @torch.jit.export
    def __getstate__(self):
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]
        torch.save(state[0], "written-by-the-archive")


def _archive(model: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(path))
    return path


def test_an_archive_has_the_weights_that_torch_finds_in_it(tmp_path: Path) -> None:
    path = _archive(_Model(), tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(path).state_dict()
    found = read_tensors_of(path)
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(one, expected[name]) and one.dtype == expected[name].dtype
        for name, one in found.items()
    )


def test_an_archive_that_writes_files_when_it_is_read_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _archive(_Writer(), tmp_path / "a.pt")
    with pytest.raises(ModelError, match="has its own way of being read"):
        read_tensors_of(path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.pt"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(path)  # what it would have done
    assert (tmp_path / "written-by-the-archive").exists()


def _named_many_times() -> object:
    held: object = {"weight": torch.ones(1)}
    for _ in range(40):
        held = {"a": held, "b": held}
    return held


def _on_itself() -> object:
    held: dict[str, object] = {}
    held["a"] = held
    return held


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (_named_many_times(), "more than 100,000 dictionaries"),
        (_on_itself(), "more than 100,000 dictionaries"),
        ({"weight": torch.ones(1).expand(10**5, 10**6)}, "would unpack to 400.0 GB from 4 bytes"),
    ],
    ids=["named many times", "on itself", "spread"],
)
def test_a_checkpoint_that_asks_for_far_more_than_it_is_is_refused(
    tmp_path: Path, content: object, sentence: str
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=sentence):
        read_tensors_of(tmp_path / "a.pt")
