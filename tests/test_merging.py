"""Merged weights are the published formulas, in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monitored import clip_of, moved
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import driftscope as ds
from driftscope.cli import app
from driftscope.errors import ConfigError, ModelError
from driftscope.report.merge_page import write_merge_page
from driftscope.rescuing import merging
from driftscope.rescuing.merging import Judged, model_stock, task_arithmetic, ties
from driftscope.rescuing.target import Accuracy
from driftscope.sources.live import from_module
from driftscope.transfer import score


def random_state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (5,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


BASE, STATES = random_state(0), [random_state(seed) for seed in (1, 2, 3)]


def flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([one.numpy().ravel() for one in state.values()])


def test_task_arithmetic_adds_the_scaled_changes() -> None:
    found = flat(task_arithmetic(BASE, STATES, 0.4))
    base = flat(BASE)
    expected = base + 0.4 * np.sum([flat(one) - base for one in STATES], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kept", [0.2, 0.5, 1.0])
def test_ties_trims_elects_and_averages_entry_by_entry(kept: float) -> None:
    base = flat(BASE)
    changes = [flat(one) - base for one in STATES]
    count = round(kept * len(base))
    trimmed = []
    for change in changes:
        smallest = np.sort(np.abs(change))[-count]
        trimmed.append([one if abs(one) >= smallest else 0.0 for one in change])
    expected = []
    for at, start in enumerate(base):
        entries = [change[at] for change in trimmed]
        sign = np.sign(sum(entries))
        agreeing = [one for one in entries if one and np.sign(one) == sign]
        expected.append(start + 0.7 * (sum(agreeing) / len(agreeing) if agreeing else 0.0))
    np.testing.assert_allclose(flat(ties(BASE, STATES, 0.7, kept)), expected, rtol=1e-12)


def test_model_stock_is_the_point_nearest_to_the_centre_of_the_models() -> None:
    """Where the paper's assumptions hold: models lie around a centre, at right angles."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(6, 6)))[0]
    start, centre = generator.normal(size=6), 2.0 * axes[0]
    models = [start + centre + 1.5 * axis for axis in axes[1:4]]
    mean = np.mean(models, axis=0) - start
    nearest = start + mean * (centre @ mean) / (mean @ mean)
    found = model_stock(_one(start), [_one(one) for one in models])["w"].numpy()
    np.testing.assert_allclose(found, nearest, rtol=1e-12)
    opposite = [_one(start + sign * axes[0]) for sign in (1, -1)]
    np.testing.assert_allclose(model_stock(_one(start), opposite)["w"].numpy(), start)


def _one(values: np.ndarray) -> dict[str, torch.Tensor]:
    return {"w": torch.from_numpy(values)}


@pytest.fixture(scope="module")
def models(tiny_clip: Path) -> list[ds.VisionLanguageModel]:
    adapted = [moved(clip_of(tiny_clip)).eval()]
    other = clip_of(tiny_clip)
    with torch.no_grad():
        for one in other.parameters():
            one.mul_(1.1)
    return [ds.load(tiny_clip), *map(from_module, (*adapted, other.eval()))]


def test_a_uniform_soup_of_models_is_their_mean(models: list, tmp_path: Path) -> None:
    base, *adapted = models
    found = ds.merge(adapted, base)
    states = [one.module.state_dict() for one in adapted]
    for name, one in found.model.module.state_dict().items():
        expected = (states[0][name].double() + states[1][name].double()) / 2
        torch.testing.assert_close(one.double(), expected, atol=1e-7, rtol=1e-6)
    found.save(tmp_path / "out")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    again = ds.load(tmp_path / "out")
    torch.testing.assert_close(again.embed_images(pixels), found.model.embed_images(pixels))
    told = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert (told["recipe"], len(told["judged"])) == ("uniform", 4)


def test_a_greedy_soup_takes_what_does_not_lower_the_accuracy() -> None:
    def judged(pct: float) -> Judged:
        return Judged("x", None, Accuracy(pct, score("x", 1, 2), None))

    states = [{"w": torch.tensor([float(value)])} for value in (1, 2, 4)]
    worth = {3.0: 79.0, 2.5: 81.0}  # with the second best it falls, with the third it rises
    chosen, soup = merging._greedy(
        states, [judged(70), judged(75), judged(80)], lambda state: judged(worth[float(state["w"])])
    )
    assert chosen == [2, 0]
    assert float(soup["w"]) == 2.5


def test_what_cannot_be_merged_is_refused(models: list, other_tiny_clip: Path) -> None:
    base, *adapted = models
    with pytest.raises(ConfigError, match="give two or more"):
        ds.merge(adapted[:1], base)
    with pytest.raises(ConfigError, match="there is no recipe 'stew'"):
        ds.merge(adapted, base, by="stew")
    with pytest.raises(ConfigError, match="needs a labeled dataset"):
        ds.merge(adapted, base, by="greedy")
    with pytest.raises(ConfigError, match="scale is nan; give a number"):
        ds.merge(adapted, base, by="ties", scale=float("nan"))
    with pytest.raises(ConfigError, match="uniform has no scale"):
        ds.merge(adapted, base, scale=2)
    with pytest.raises(ConfigError, match="give a share above 0"):
        ds.merge(adapted, base, by="ties", kept=0)
    with pytest.raises(ModelError):
        ds.merge([adapted[0], ds.load("mini")], base)
    with pytest.raises(ModelError, match="equals the base"):
        ds.merge([adapted[0], base], base)
    with pytest.raises(ModelError, match="equals another of the models"):
        ds.merge([adapted[0], adapted[0]], base)


def test_the_command_merges_folders(tiny_clip: Path, other_tiny_clip: Path, tmp_path: Path) -> None:
    third = tmp_path / "third\x1b[31m"
    shutil.copytree(other_tiny_clip, third)
    weights = {n: 1.1 * one for n, one in load_file(third / "model.safetensors").items()}
    save_file(weights, third / "model.safetensors", {"format": "pt"})
    arguments = ["merge", str(third), str(other_tiny_clip), "--base", str(tiny_clip)]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--by", "ties"])
    assert done.exit_code == 0, done.output
    assert "Merged of 2" in done.output
    assert "third␛[31m" in done.output  # no name commands the terminal
    assert "\x1b" not in done.output
    assert ds.load(tmp_path / "out").source == str(tmp_path / "out")


def test_the_page_of_a_merge_has_a_point_for_every_model(tmp_path: Path) -> None:
    def judged(name: str, retention: float, correct: int) -> dict:
        estimate = {"retention_pct": retention, "low_90_pct": retention - 3,
                    "high_90_pct": retention + 3, "sentence": f"Keeps {retention} %.",
                    "pool": "world", "num_images": 50, "classes": "9 names"}  # fmt: skip
        refitted = score("terrain", correct, 200).to_dict()
        accuracy = {"measures": "accuracy", "choosing_pct": 0.0, "refitted": refitted}
        accuracy["kept_head"] = None
        return {"name": name, "estimate": estimate, "accuracy": accuracy}

    models = [judged("mini", 100.0, 182), judged("one", 41.5, 195), judged("other", 52.5, 193),
              judged("a soup", 84.5, 189)]  # fmt: skip
    told = {"recipe": "greedy", "base": "mini", "ingredients": ["one"], "judged": models}
    page = write_merge_page(told, tmp_path).read_text()
    pictured = page[page.index('id="frontier"') : page.index('id="what-to-do"')]
    table = page[page.index('id="table"') : page.index('id="provenance"')]
    assert pictured.count("<svg") >= 1
    assert "The merged model: keeps 84.5 %." in page.replace("\N{NO-BREAK SPACE}", " ")
    for one, part in zip(models, ("base", "ingredient", "left out", "merged"), strict=True):
        accuracy = f"{one['accuracy']['refitted']['accuracy_pct']:.1f}"
        assert one["name"] in table
        assert accuracy in table
        assert part in pictured
    assert "a linear probe on the untouched model" in pictured
    told_first = page[page.index('id="what-to-do"') : page.index('id="table"')]
    assert "driftscope compare mini MERGED" in told_first
    assert "driftscope rescue mini MERGED" in told_first
    assert "You may need no" not in told_first
    as_good = [*models[:2], judged("other", 84.5, 189), models[3]]
    page = write_merge_page({**told, "judged": as_good}, tmp_path).read_text()
    assert "You may need no merge: other is" in page
    probe_does = [judged("mini", 100.0, 189), *models[1:]]
    page = write_merge_page({**told, "judged": probe_does}, tmp_path).read_text()
    assert "You may need no fine-tuning: a linear probe on the untouched mini" in page
    without = [{**one, "estimate": None} for one in models]
    assert write_merge_page({**told, "judged": without}, tmp_path) is None
