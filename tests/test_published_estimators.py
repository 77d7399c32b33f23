"""The benchmark's label-free estimators against numpy, counting and linear programming."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from test_label_free_signals import distributions, drawn_from


@pytest.fixture(scope="module")
def published() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "published_estimators.py"
    spec = importlib.util.spec_from_file_location("published_estimators", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_average_confidence_and_its_difference_are_those_of_numpy(published: ModuleType) -> None:
    before, after = distributions(60, 5), distributions(60, 5, seed=2, sharpness=1)
    mean_before, mean_after = (float(np.max(one.numpy(), axis=1).mean()) for one in (before, after))
    ratio = published.confidence_ratio_pct(before, after)
    assert ratio == pytest.approx(100 * mean_after / mean_before)
    difference = published.difference_of_confidences_pct(before, after, 0.8)
    assert difference == pytest.approx(100 * (0.8 - mean_before + mean_after) / 0.8)


def test_the_thresholded_confidence_counts_images_above_the_threshold(
    published: ModuleType,
) -> None:
    before = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    after = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.55, 0.45], [0.5, 0.5]])
    # at an accuracy of one half the threshold is the median, 0.75: two images before, one after
    assert published.thresholded_confidence_pct(before, after, 0.5) == 50


def test_the_transport_cost_is_that_of_the_linear_program(published: ModuleType) -> None:
    before, after = distributions(12, 4), distributions(12, 4, seed=6)
    labels = before.argmax(1).numpy()

    def accuracy(p: np.ndarray) -> float:
        one_hot = np.eye(4)[labels]
        cost = 0.5 * np.abs(p[:, None, :] - one_hot[None]).sum(-1)
        equal = np.full(12, 1 / 12)
        rows = np.kron(np.eye(12), np.ones(12))
        columns = np.kron(np.ones(12), np.eye(12))
        solved = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.tile(equal, 2))
        return 1 - solved.fun

    expected = 100 * accuracy(after.numpy()) / accuracy(before.numpy())
    assert published.transport_pct(before, after) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_that_labels_were_drawn_at(
    published: ModuleType, temperature: float
) -> None:
    calibrated = distributions(20_000, 6).log()
    labels = drawn_from(calibrated.softmax(1), np.random.default_rng(8))
    fitted = published.fitted_temperature(temperature * calibrated, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
