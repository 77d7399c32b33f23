"""A linear probe that was trained too little says so, wherever its accuracy stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

from driftscope.analysis.summaries import doubts_caveats
from driftscope.cli import terminal
from driftscope.config import parse_run_spec
from driftscope.converged import not_converged
from driftscope.report.run_facts import said
from driftscope.run import run_one

SMALL = {
    **{"method": "linear_probe", "epochs": 1, "train_images": 200, "val_images": 100},
    **{"probe_images": 20, "test_images": 20, "transfer_images": 100},
}


def test_only_what_is_surely_below_its_neighbours_has_not_converged() -> None:
    labels, bank_labels = torch.arange(100) % 4, torch.arange(400) % 4
    generator = torch.Generator().manual_seed(0)
    images, bank = (
        3 * one_hot(one, 8) + torch.randn(len(one), 8, generator=generator)
        for one in (labels, bank_labels)
    )
    told = not_converged(40, images, labels, bank, bank_labels)
    assert told.startswith(
        "the classifier seems not to have converged: it has 40.0 % of 100 validation"
    )
    assert not_converged(95, images, labels, bank, bank_labels) == ""
    noise = torch.randn(100, 8, generator=generator)  # neighbours know no better
    assert not_converged(20, noise, labels, bank, bank_labels) == ""
    assert not_converged(7, images[:10], labels[:10], bank, bank_labels) == ""  # too few to say


def test_a_probe_at_a_fine_tuning_s_rate_is_told_and_a_fitted_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = run_one(parse_run_spec({**SMALL, "learning_rate": 1e-4}), tmp_path / "low")
    high = run_one(parse_run_spec({**SMALL, "learning_rate": 0.1, "epochs": 20}), tmp_path / "high")
    (note,) = low.result.notes
    assert note.startswith("the classifier seems not to have converged")
    assert high.result.notes == []
    assert ("Note:", f"{note}.") in said(low)
    (caveat,) = doubts_caveats([low, low, high])
    assert caveat.text == f"linear_probe at 1e-4 on terrain: {note}."
    terminal.show_cells([low, high])
    told = " ".join(capsys.readouterr().out.split())
    assert caveat.text in told
