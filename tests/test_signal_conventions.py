"""Conventions that the published study or its code got wrong, and what ours gives instead.

The published numbers are in the repository's neighbour `shared/`; tests that need them skip where
it is absent.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import normalised, random_clip, random_pixels

from driftscope import reading_pass, reading_subsets
from driftscope.backbones.capture import capture_cls
from driftscope.errors import CaptureError
from driftscope.reading import Reading
from driftscope.reading import drift as drift_between
from driftscope.signals import attention
from driftscope.signals.representation import linear_cka, linear_cka_debiased
from driftscope.stats.change import percent_drift

SHARED = Path(__file__).parents[2] / "shared"
PUBLISHED = SHARED / "records" / "published" / "published_numbers.json"
NUM_PATCHES = 49


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    if not PUBLISHED.exists():
        pytest.skip(f"the published numbers are not here ({PUBLISHED.name} in shared/)")
    numbers: dict[str, Any] = json.loads(PUBLISHED.read_text())
    return numbers


def features(num_images: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(num_images, dim, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ trap 1: 13 hidden states


@pytest.mark.parametrize(
    ("run", "as_published", "over_blocks"),
    [("E2_full_ft_eurosat", 0.694, 0.752), ("E5_lora_r8_eurosat", 0.815, 0.883)],
)
def test_the_published_mean_cka_averages_the_constant_embedding_in(
    published: dict[str, Any], run: str, as_published: float, over_blocks: float
) -> None:
    entry = published["layerwise_cka"][run]
    hidden_states = entry["layerwise_cka"]
    assert len(hidden_states) == 13
    assert hidden_states[0] < 0.004  # 0/0 plus rounding noise
    assert np.mean(hidden_states) == pytest.approx(entry["mean_cka"], abs=1e-6)
    assert round(np.mean(hidden_states), 3) == as_published
    assert round(np.mean(hidden_states[1:]), 3) == over_blocks


def test_the_cls_embedding_before_the_first_block_is_the_same_for_every_image() -> None:
    clip = random_clip()
    with torch.no_grad():
        states = clip.vision_model(
            pixel_values=normalised(random_pixels(6)), output_hidden_states=True
        ).hidden_states
    cls_embedding = states[0][:, 0]
    assert len(states) == 3 + 1
    assert (cls_embedding - cls_embedding[0]).abs().max() < 1e-5
    # Its CKA would be 0/0; ours is a defined 1 (nothing differs), and never enters a mean.
    assert linear_cka(cls_embedding, 2 * cls_embedding) == 1.0


def test_our_cka_has_one_value_a_block_paired_with_that_blocks_entropy() -> None:
    clip, pixels = random_clip(), normalised(random_pixels(6))
    moved = copy.deepcopy(clip)
    with torch.no_grad():
        moved.vision_model.encoder.layers[1].self_attn.v_proj.weight.mul_(0.2)
    reference, reading = reading_pass.read(clip, pixels), reading_pass.read(moved, pixels)
    drift = drift_between(reading, reference)
    assert len(drift.cka_per_block) == len(reading.entropy) == 3
    # Block 2 was changed: everything of block 1 is as it was, and block 2's own output is not.
    assert drift.cka_per_block[0] == pytest.approx(1.0, abs=1e-12)
    assert drift.cka_per_block[1] < 1 - 1e-6
    assert drift.delta_entropy_pct_per_layer[0] == 0.0


# ------------------------------------------------------------------ trap 5: batches


def test_a_mean_of_batch_means_would_weigh_a_short_last_batch_too_much() -> None:
    clip, pixels = random_clip(), normalised(random_pixels(33))
    reading = reading_pass.read(clip, pixels, batch_size=32)
    entropies = reading.per_image["entropy"].mean(dim=(1, 2)).numpy()
    mean_of_batch_means = (entropies[:32].mean() + entropies[32:].mean()) / 2
    assert reading.mean("entropy") == pytest.approx(entropies.mean(), rel=1e-12)
    assert abs(mean_of_batch_means - entropies.mean()) > 1e-4


def test_head_diversity_of_batch_means_depends_on_the_batch_size_and_ours_does_not() -> None:
    clip, pixels = random_clip(), normalised(random_pixels(32))
    with torch.no_grad(), capture_cls(clip) as captured:
        clip.get_image_features(pixel_values=pixels)
        rows = captured.rows
    published_way = {
        size: np.mean(
            [attention.head_diversity(batch.double().mean(dim=0)) for batch in rows[0].split(size)]
        )
        for size in (4, 32)
    }
    assert abs(published_way[4] - published_way[32]) > 1e-3
    small, large = (reading_pass.read(clip, pixels, batch_size=size) for size in (4, 32))
    assert small.head_diversity == pytest.approx(large.head_diversity, rel=1e-6)
    assert small.head_diversity_of_mean == pytest.approx(large.head_diversity_of_mean, rel=1e-6)
    assert large.head_diversity_of_mean[0] == pytest.approx(published_way[32], rel=1e-6)


# ------------------------------------------------------------------ trap 6: few images


def test_biased_cka_is_inflated_with_the_studys_200_images_and_768_features() -> None:
    x, y = features(200, 768, 0), features(200, 768, 1)
    assert linear_cka(x, y) > 0.75
    assert abs(linear_cka_debiased(x, y)) < 0.02


def test_biased_cka_falls_with_the_size_of_the_probe_set_and_the_debiased_one_does_not() -> None:
    reading = reading_with_activations(features(800, 256, 0))
    reference = reading_with_activations(features(800, 256, 1))
    drifts = reading_subsets.probe_size_sensitivity(reading, reference, [50, 200, 800])
    biased = [drift.cka for drift in drifts]
    assert biased[0] > 0.8 > biased[1] > 0.5 > biased[2]
    assert all(abs(drift.cka_debiased) < 0.05 for drift in drifts)


def reading_with_activations(activations: torch.Tensor) -> Reading:
    """A reading of one block whose attention is uniform and whose CLS activations are given."""
    num_images = len(activations)
    per_image = {
        "entropy": torch.full((num_images, 1, 1), np.log(NUM_PATCHES)),
        "erf95": torch.ones(num_images, 1, 1),
        "gini": torch.full((num_images, 1, 1), 0.5),
        "head_diversity": torch.full((num_images, 1), 0.5),
    }
    return Reading.from_images(
        {name: values.double() for name, values in per_image.items()},
        num_images=num_images,
        num_patches=NUM_PATCHES,
        images_fingerprint="made by hand",
        cls_activations=activations[None],
        embeddings=None,
    )


# ------------------------------------------------------------------ units and ranges as published


def test_published_rollout_and_patch_entropies_are_in_bits(published: dict[str, Any]) -> None:
    log2_n, ln_n = np.log2(NUM_PATCHES), np.log(NUM_PATCHES)
    for run in published["rollout_patch_metrics"].values():
        # Above ln 49 = 3.89 and below log2 49 = 5.61: no entropy in nats could be that high.
        assert ln_n < run["rollout_entropy_bits_mean"] < log2_n
        assert ln_n < run["patch_to_patch_entropy_bits_mean"] < log2_n
        per_layer = run["patch_to_patch_entropy_bits_per_layer"]
        assert np.mean(per_layer) == pytest.approx(run["patch_to_patch_entropy_bits_mean"])
        assert len(per_layer) == 12


def test_published_receptive_fields_are_fractions_of_49_patches(published: dict[str, Any]) -> None:
    # A mean of k/49: near 46.6/49 for nearly uniform rollouts, as our convention (smallest k with
    # at least p) gives for a uniform row: ceil(0.95·49)/49.
    uniform = attention.erf(torch.full((NUM_PATCHES,), 1 / NUM_PATCHES)).item()
    assert uniform == pytest.approx(47 / 49)
    for run in published["rollout_patch_metrics"].values():
        assert 0.9 < run["rollout_erf95_mean"] <= uniform


def test_the_published_spread_between_subsets_divides_by_the_number_of_subsets(
    published: dict[str, Any],
) -> None:
    for run in published["subset_sensitivity"].values():
        for signal in run.values():
            values = torch.tensor(signal["values"], dtype=torch.float64)
            singles = [[subset] for subset in range(len(values))]
            ours = attention.subset_coefficient_of_variation(values, singles)
            assert ours == pytest.approx(signal["cv"], rel=1e-9)


def test_the_followup_study_reports_the_change_of_the_mean_in_nats() -> None:
    folder = SHARED / "records" / "followup"
    records = sorted(folder.glob("*.json"))
    if not records:
        pytest.skip("the follow-up records are not here (shared/records/followup)")
    for path in records:
        record = json.loads(path.read_text())
        before = record["baseline"]["attention"]["entropy_mean"]
        assert before < np.log(NUM_PATCHES)
        for signal in ("entropy", "erf95", "gini"):
            means = (
                part["attention"][f"{signal}_mean"]
                for part in (record["final"], record["baseline"])
            )
            ours = percent_drift(*means)
            assert ours == pytest.approx(record["final"][f"delta_{signal}_pct"], rel=1e-6)


# ------------------------------------------------------------------ trap 8: the base path


def test_reading_an_adapter_that_is_switched_off_does_not_return_the_pretrained_signals() -> None:
    import peft

    pattern = r"vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
    model = peft.get_peft_model(random_clip(), peft.LoraConfig(target_modules=pattern))
    with model.disable_adapter(), pytest.raises(CaptureError, match="disabled"):
        reading_pass.read(model, normalised(random_pixels(4)))
