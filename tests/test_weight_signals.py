"""Weight drift and intruder dimensions, and the effective weights that adapters give."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft
import pytest
import torch
from random_models import random_clip
from torch import Tensor, nn

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint, encoder_weights
from driftscope.errors import CaptureError
from driftscope.signals.weights import (
    intruder_dimensions,
    intruder_dimensions_per_layer,
    numbered_block,
    weight_drift,
)

QUERY_AND_VALUE = r"vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"


def state(**tensors: Tensor) -> dict[str, Tensor]:
    return {name.replace("__", "."): tensor for name, tensor in tensors.items()}


def adapted_clip(config: peft.PeftConfig, change: float = 0.02) -> nn.Module:
    """A random CLIP with an adapter whose weights have moved away from their initial values."""
    model = peft.get_peft_model(random_clip(), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(change * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


# -------------------------------------------------------------------- the measure


def test_weight_drift_is_the_norm_of_the_change_over_the_norm_of_all_weights() -> None:
    before = state(layers__0__w=torch.tensor([3.0, 4.0]), layers__1__w=torch.tensor([12.0]))
    after = state(layers__0__w=torch.tensor([3.0, 4.5]), layers__1__w=torch.tensor([10.8]))
    drift = weight_drift(before, after)
    assert drift.total == pytest.approx((0.25 + 1.44) ** 0.5 / 13)
    assert drift.per_layer == pytest.approx([0.1, 0.1])
    assert drift.outside_layers == 0.0


def test_tensors_outside_the_blocks_count_in_the_total_and_for_themselves() -> None:
    before = state(embed=torch.tensor([1.0]), encoder__layer__0__w=torch.tensor([1.0]))
    after = state(embed=torch.tensor([1.5]), encoder__layer__0__w=torch.tensor([1.0]))
    drift = weight_drift(before, after)
    assert drift.outside_layers == 0.5
    assert drift.per_layer == [0.0]
    assert drift.total == pytest.approx(0.5 / 2**0.5)


def test_blocks_are_ordered_by_number_and_not_by_name() -> None:
    before = {f"layers.{i}.w": torch.ones(1) for i in range(12)}
    after = {f"layers.{i}.w": torch.ones(1) + i for i in range(12)}
    assert weight_drift(before, after).per_layer == [float(i) for i in range(12)]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("timm_model.blocks.3.attn.qkv.weight", 3),
        ("visual.transformer.resblocks.11.mlp.c_fc.weight", 11),
        ("timm_model.stages.2.blocks.7.mlp.fc1.weight", 2),
        ("timm_model.layers.1.blocks.0.attn.qkv.weight", 1),
        ("vision_model.encoder.layer.4.attention.q_proj.weight", 4),
        ("visual.head.proj.weight", None),
        ("timm_model.patch_embed.proj.weight", None),
    ],
)
def test_blocks_are_found_by_what_libraries_call_them(name: str, block: int | None) -> None:
    assert numbered_block(name) == block


def test_blocks_are_those_that_a_backbone_says() -> None:
    before = {f"layer{i}.0.{what}": torch.ones(2, 2) for i in (1, 2) for what in ("fc", "out")}
    after = {**before, "layer2.0.fc": 2 * torch.ones(2, 2)}

    def block_of(name: str) -> int:
        return int(name[len("layer")]) - 1

    assert weight_drift(before, after, block_of=block_of).per_layer == [0.0, 0.5**0.5]
    assert intruder_dimensions_per_layer(before, after, block_of=block_of) == [0, 0]


def test_blocks_of_kernels_alone_have_no_intruder_dimensions() -> None:
    before = {"layers.0.conv": torch.ones(2, 2, 3, 3), "head": torch.ones(2, 2)}
    assert intruder_dimensions_per_layer(before, before) == []
    with_matrix = {**before, "layers.1.fc": torch.ones(2, 2)}
    assert intruder_dimensions_per_layer(with_matrix, with_matrix) == [0, 0]


def test_nothing_moved_is_0_and_a_move_away_from_all_zeros_is_infinite() -> None:
    zeros = state(layers__0__w=torch.zeros(3))
    assert weight_drift(zeros, zeros).total == 0.0
    assert weight_drift(zeros, state(layers__0__w=torch.ones(3))).total == float("inf")


def test_a_change_below_float32_resolution_of_the_sum_is_still_seen() -> None:
    large = state(layers__0__w=torch.full((1000,), 1e4))
    nudged = state(layers__0__w=torch.full((1000,), 1e4, dtype=torch.float64) + 1e-5)
    assert weight_drift(large, nudged).total == pytest.approx(1e-9, rel=1e-3)


def test_integer_buffers_are_ignored() -> None:
    before = state(layers__0__w=torch.ones(2), position_ids=torch.arange(3))
    assert weight_drift(before, state(layers__0__w=torch.ones(2))).total == 0.0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (state(a=torch.ones(2)), state(b=torch.ones(2)), "no counterpart"),
        (state(a=torch.ones(2)), state(a=torch.ones(3)), "not one model"),
        ({}, {}, "at least one"),
    ],
)
def test_states_that_are_not_of_one_model_are_refused(
    before: dict[str, Tensor], after: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        weight_drift(before, after)


# -------------------------------------------------------------------- effective weights


def model_of(clip: Any) -> VisionLanguageModel:
    return VisionLanguageModel(clip, None, 56, mean=(0.5,) * 3, std=(0.5,) * 3, source="random")


def test_running_statistics_of_batch_norms_count_as_weights() -> None:
    before = random_clip()
    plain = encoder_fingerprint(model_of(before)), encoder_weights(before).keys()
    before.vision_model.embeddings.norm = nn.BatchNorm1d(50)
    after = copy.deepcopy(before)
    for clip in (before, after):
        clip.text_model.norm = nn.BatchNorm1d(3)
    after.vision_model.embeddings.norm.running_mean += 1.0
    new = encoder_weights(after).keys() - plain[1]
    assert {name.rpartition(".")[2] for name in new} == {
        *("weight", "bias", "running_mean", "running_var"),
    }
    change = weight_drift(encoder_weights(before), encoder_weights(after))
    size = sum(float(one.double().square().sum()) for one in encoder_weights(before).values())
    assert change.total == pytest.approx((50 / size) ** 0.5)
    assert encoder_fingerprint(model_of(before)) != encoder_fingerprint(model_of(after))


def test_no_buffer_but_a_batch_norms_is_of_the_weights() -> None:
    clip = random_clip()
    buffers = dict(clip.vision_model.named_buffers())
    assert buffers  # the numbers of positions
    clip.vision_model.register_buffer("scale", torch.ones(2))
    parameters = {f"vision_model.{n}" for n, _ in clip.vision_model.named_parameters()}
    assert encoder_weights(clip).keys() == parameters | {"visual_projection.weight"}


ADAPTERS = {
    "lora": peft.LoraConfig(target_modules=QUERY_AND_VALUE, r=4, lora_alpha=8),
    "rslora with a trained projection": peft.LoraConfig(
        target_modules=QUERY_AND_VALUE, use_rslora=True, modules_to_save=["visual_projection"]
    ),
    "dora": peft.LoraConfig(target_modules=QUERY_AND_VALUE, r=4, use_dora=True),
    "loha": peft.LoHaConfig(target_modules=QUERY_AND_VALUE, r=4),
    "lokr": peft.LoKrConfig(target_modules=QUERY_AND_VALUE, r=4),
    "ia3": peft.IA3Config(target_modules=QUERY_AND_VALUE, feedforward_modules=[]),
    "oft": peft.OFTConfig(target_modules=QUERY_AND_VALUE, r=0, oft_block_size=8),
    "vera": peft.VeraConfig(target_modules=QUERY_AND_VALUE, r=4),
}


@pytest.mark.parametrize("config", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_effective_weights_are_what_pefts_own_merge_gives_and_the_model_is_not_touched(
    config: peft.PeftConfig,
) -> None:
    model = adapted_clip(config)
    with unchanged(model):
        weights = encoder_weights(model)
    merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())
    assert weights.keys() == encoder_weights(random_clip()).keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight.float(), merged[name].detach(), atol=1e-6, rtol=1e-5)


def test_lora_counts_as_alpha_over_r_times_b_a() -> None:
    model = adapted_clip(ADAPTERS["lora"])
    change = []
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "v_proj")) and hasattr(module, "lora_A"):
            product = module.lora_B["default"].weight @ module.lora_A["default"].weight
            change.append((8 / 4 * product).detach().double())
    pretrained = encoder_weights(random_clip())
    size = sum(weight.double().square().sum() for weight in pretrained.values()).sqrt()
    expected = torch.stack([c.square().sum() for c in change]).sum().sqrt() / size
    drift = weight_drift(pretrained, encoder_weights(model))
    assert drift.total == pytest.approx(float(expected), rel=1e-6)
    assert drift.outside_layers == 0.0


def test_full_fine_tuning_by_the_same_change_gives_the_same_drift_as_the_adapter() -> None:
    adapter = adapted_clip(ADAPTERS["lora"])
    tuned = copy.deepcopy(adapter).merge_and_unload()
    pretrained = encoder_weights(random_clip())
    by_adapter = weight_drift(pretrained, encoder_weights(adapter))
    by_tuning = weight_drift(pretrained, encoder_weights(tuned))
    assert by_adapter.total == pytest.approx(by_tuning.total, rel=1e-4)
    assert by_adapter.per_layer == pytest.approx(by_tuning.per_layer, rel=1e-4)


def test_an_adapter_at_its_initial_values_has_not_moved_anything() -> None:
    model = peft.get_peft_model(random_clip(), ADAPTERS["lora"])
    drift = weight_drift(encoder_weights(random_clip()), encoder_weights(model))
    assert drift.total == 0.0


def test_a_merged_adapter_counts_once() -> None:
    model = adapted_clip(ADAPTERS["lora"])
    apart = encoder_weights(model)
    model.merge_adapter()
    merged = encoder_weights(model)
    for name, weight in apart.items():
        torch.testing.assert_close(weight.float(), merged[name].float(), atol=1e-6, rtol=1e-5)


def test_the_weights_of_a_disabled_adapter_are_refused() -> None:
    model = adapted_clip(ADAPTERS["lora"])
    with model.disable_adapter(), pytest.raises(CaptureError, match="disabled"):
        encoder_weights(model)


# -------------------------------------------------------------------- intruder dimensions


def random_matrix(seed: int = 0, rows: int = 40, columns: int = 30) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_an_unchanged_or_scaled_matrix_has_no_intruder_dimension() -> None:
    matrix = random_matrix()
    assert intruder_dimensions(matrix, matrix) == 0
    assert intruder_dimensions(matrix, 3 * matrix) == 0


def test_strong_new_directions_are_counted_as_intruders() -> None:
    matrix = torch.zeros(40, 30)
    matrix[:20] = random_matrix(rows=20)
    for rank in (1, 3):
        change = torch.zeros(40, 30)
        change[20 : 20 + rank] = 50 * random_matrix(seed=1, rows=rank)
        # The new left directions lie where the pretrained matrix has none.
        assert intruder_dimensions(matrix[:, :20], (matrix + change)[:, :20]) == rank


def test_a_weak_new_direction_stays_below_the_leading_ones() -> None:
    matrix = random_matrix()
    change = 1e-3 * torch.outer(random_matrix(2)[:, 0], random_matrix(3)[0])
    assert intruder_dimensions(matrix, matrix + change) == 0


def test_intruder_dimensions_are_summed_over_each_blocks_matrices() -> None:
    pretrained = encoder_weights(random_clip())
    adapted = dict(pretrained)
    # One strong direction across the rows: the leading left singular vector is a new one.
    strong = torch.zeros(64, 64)
    strong[:, 0] = 100.0 * torch.sign(random_matrix(7, 64, 1)[:, 0])
    for name in ("q_proj", "v_proj"):
        key = f"vision_model.encoder.layers.1.self_attn.{name}.weight"
        adapted[key] = pretrained[key] + strong
    assert intruder_dimensions_per_layer(pretrained, adapted) == [0, 2, 0]
    assert intruder_dimensions_per_layer(pretrained, pretrained) == [0, 0, 0]


def test_intruder_dimensions_refuse_what_is_not_two_matrices_of_one_shape() -> None:
    with pytest.raises(ValueError, match="one shape"):
        intruder_dimensions(random_matrix(), random_matrix(rows=3))
