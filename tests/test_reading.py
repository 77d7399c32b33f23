"""One pass against the usual two eager passes; batch sizes; readings and drifts as data."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from random_models import TINY, build, normalised, random_clip, random_pixels
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, ViTConfig, ViTModel

from driftscope import reading_pass as probe
from driftscope import reading_subsets
from driftscope.backbones import find_image_tower
from driftscope.backbones.capture import capture_cls
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_weights
from driftscope.errors import CaptureError
from driftscope.metric import Metric
from driftscope.metrics import METRICS, change_key, change_of, units
from driftscope.reading import Drift, Reading
from driftscope.reading import drift as drift_between
from driftscope.signals.representation import linear_cka
from driftscope.signals.text import TextSpaceDrift, text_space_drift
from driftscope.signals.weights import weight_drift
from driftscope.sources import load
from driftscope.stats.change import percent_drift

PIXELS = random_pixels(33)
HALF = (0.5, 0.5, 0.5)
LAYERWISE = ("entropy", "erf95", "gini")
WITH_MAPS = ("rollout_entropy_bits", "rollout_erf95", "rollout_gini")


def loaded(clip: nn.Module, image_size: int = 56) -> VisionLanguageModel:
    return VisionLanguageModel(clip, None, image_size, HALF, HALF, "random")


def perturbed(clip: nn.Module, share: float = 0.1, seed: int = 7) -> nn.Module:
    """A copy whose image tower has moved by a share of each weight's spread."""
    moved = copy.deepcopy(clip)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.vision_model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(share * parameter.std(correction=0) * noise)
    return moved


def lora_clip(change: float) -> nn.Module:
    pattern = r"vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
    module = peft.get_peft_model(random_clip(), peft.LoraConfig(target_modules=pattern, r=4))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(change * torch.randn(parameter.shape, generator=generator))
    return module.eval()


# ---------------------------------------------------- the usual way, in float64 NumPy


def eager_reference(clip: nn.Module, pixels: Tensor) -> dict[str, np.ndarray]:
    """Every signal from output_attentions and output_hidden_states of an eager copy."""
    eager = copy.deepcopy(clip)
    eager.vision_model.set_attn_implementation("eager")
    with torch.no_grad():
        out = eager.vision_model(
            pixel_values=normalised(pixels), output_attentions=True, output_hidden_states=True
        )
        embeddings = eager.visual_projection(out.pooler_output)
    maps = np.stack([layer.double().numpy() for layer in out.attentions])
    rows = maps[:, :, :, 0, 1:] / maps[:, :, :, 0, 1:].sum(axis=-1, keepdims=True)
    patches = maps[..., 1:, 1:] / maps[..., 1:, 1:].sum(axis=-1, keepdims=True)
    rollout = numpy_rollout(maps)
    return {
        "entropy": numpy_entropy(rows).mean(axis=1),
        "erf95": numpy_erf(rows).mean(axis=1),
        "gini": numpy_gini(rows).mean(axis=1),
        "head_diversity": numpy_diversity(rows).mean(axis=1),
        "head_diversity_of_mean": numpy_diversity(rows.mean(axis=1)),
        "rollout_entropy_bits": numpy_entropy(rollout).mean() / np.log(2),
        "rollout_erf95": numpy_erf(rollout).mean(),
        "rollout_gini": numpy_gini(rollout).mean(),
        "patch_to_patch_entropy_bits": numpy_entropy(patches).mean(axis=(1, 3)) / np.log(2),
        "cls_activations": np.stack([s[:, 0].double().numpy() for s in out.hidden_states[1:]]),
        "embeddings": embeddings.double().numpy(),
    }


def numpy_entropy(rows: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(rows > 0, rows * np.log(rows), 0.0).sum(axis=-1)


def numpy_erf(rows: np.ndarray) -> np.ndarray:
    mass = np.sort(rows, axis=-1)[..., ::-1].cumsum(axis=-1)
    return ((mass < 0.95 - 1e-7).sum(axis=-1) + 1) / rows.shape[-1]


def numpy_gini(rows: np.ndarray) -> np.ndarray:
    n = rows.shape[-1]
    ranks = np.arange(1, n + 1)
    return 2 * (ranks * np.sort(rows, axis=-1)).sum(axis=-1) / n - (n + 1) / n


def numpy_diversity(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    cosines = unit @ np.swapaxes(unit, -1, -2)
    heads = rows.shape[-2]
    if heads == 1:
        return np.zeros(rows.shape[:-2])
    above = np.triu_indices(heads, k=1)
    return (1 - cosines[..., above[0], above[1]]).mean(axis=-1)


def numpy_rollout(maps: np.ndarray) -> np.ndarray:
    identity = np.eye(maps.shape[-1])
    product = identity
    for layer in maps.mean(axis=2):
        product = (0.5 * layer + 0.5 * identity) @ product
    row = product[:, 0, 1:]
    return row / row.sum(axis=-1, keepdims=True)


CONFIGURATIONS = {
    "mini-like": {},
    "one head": {"num_attention_heads": 1},
    "one patch": {"image_size": 8},
    "many heads, wide": {"hidden_size": 96, "num_attention_heads": 12, "num_hidden_layers": 2},
    "196 patches": {"image_size": 112, "num_hidden_layers": 2},
    "one layer": {"num_hidden_layers": 1, "patch_size": 14},
}


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_one_pass_equals_the_eager_passes_in_float64(name: str, sharpness: float) -> None:
    clip = random_clip(seed=len(name), sharpness=sharpness, **CONFIGURATIONS[name])
    pixels = random_pixels(6, size=clip.config.vision_config.image_size)
    reading = probe.read(clip, normalised(pixels), batch_size=4, maps=True)
    for signal, expected in eager_reference(clip, pixels).items():
        np.testing.assert_allclose(
            np.asarray(getattr(reading, signal)), expected, atol=1e-5, err_msg=signal
        )


# ---------------------------------------------------- batches, images, devices of reading


@pytest.mark.parametrize("batch_size", [1, 7, 32, None])
def test_the_batch_size_does_not_enter_the_reading(batch_size: int | None) -> None:
    clip = random_clip()
    together = probe.read(clip, normalised(PIXELS), batch_size=33, maps=True)
    batched = probe.read(clip, normalised(PIXELS), batch_size=batch_size, maps=True)
    numbers, expected = batched.to_dict(), together.to_dict()
    for signal in (*LAYERWISE, "head_diversity", "head_diversity_of_mean", *WITH_MAPS):
        np.testing.assert_allclose(numbers[signal], expected[signal], rtol=1e-6, err_msg=signal)
    torch.testing.assert_close(
        batched.cls_activations, together.cls_activations, atol=1e-5, rtol=1e-5
    )
    # Unequal last batches (33 = 4·7 + 5) are weighted by image, so means agree exactly here too.
    assert batched.num_images == together.num_images == 33
    assert batched.images_fingerprint == together.images_fingerprint


def test_a_loaded_model_and_a_bare_module_give_one_reading() -> None:
    clip = random_clip()
    by_model = probe.read(loaded(clip), PIXELS)
    by_module = probe.read(clip, PIXELS, mean=HALF, std=HALF)
    assert by_model.to_dict() == by_module.to_dict()
    assert by_model.embeddings.equal(by_module.embeddings)


def test_embeddings_are_the_models_own() -> None:
    clip = random_clip()
    reading = probe.read(loaded(clip), PIXELS)
    torch.testing.assert_close(reading.embeddings, loaded(clip).embed_images(PIXELS))


def test_an_encoder_without_projection_gives_its_pooled_token() -> None:
    projected = build(CLIPVisionModelWithProjection, CLIPVisionConfig(**TINY, projection_dim=24))
    pixels = normalised(PIXELS[:5])
    reading = probe.read(projected, pixels)
    assert reading.embeddings.shape == (5, 24)
    plain = build(ViTModel, ViTConfig(**TINY))
    reading = probe.read(plain, pixels)
    with torch.no_grad():
        expected = plain(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(reading.embeddings, expected)
    moved = probe.read(build(ViTModel, ViTConfig(**TINY), seed=1), pixels)
    assert drift_between(moved, reading).embedding_drift > 0.0


def test_reading_leaves_modes_gradients_and_parameters_alone() -> None:
    clip = random_clip().train()
    clip.vision_model.encoder.layers[0].eval()
    modes = [module.training for module in clip.modules()]
    before = copy.deepcopy(clip.state_dict())
    reading = probe.read(clip, normalised(PIXELS), maps=True)
    assert [module.training for module in clip.modules()] == modes
    assert all(before[name].equal(tensor) for name, tensor in clip.state_dict().items())
    assert all(parameter.grad is None for parameter in clip.parameters())
    assert not reading.cls_activations.requires_grad
    assert torch.is_grad_enabled()


def test_train_mode_dropout_does_not_enter_the_reading() -> None:
    clip = random_clip(attention_dropout=0.5)
    expected = probe.read(clip, normalised(PIXELS)).to_dict()
    assert probe.read(clip.train(), normalised(PIXELS)).to_dict() == expected


def test_a_peft_model_reads_as_its_merged_form_and_at_its_start_as_the_base() -> None:
    base = probe.read(random_clip(), normalised(PIXELS))
    assert probe.read(lora_clip(0.0), normalised(PIXELS)).to_dict() == base.to_dict()
    adapter = lora_clip(0.1)
    live = probe.read(adapter, normalised(PIXELS))
    merged = probe.read(copy.deepcopy(adapter).merge_and_unload(), normalised(PIXELS))
    np.testing.assert_allclose(live.entropy, merged.entropy, atol=1e-5)
    assert abs(live.mean("entropy") - base.mean("entropy")) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "of_one_head", "of_the_mean"),
    [(torch.bfloat16, 0.015, 2e-3), (torch.float16, 0.005, 5e-4)],
)
def test_autocast_changes_the_signals_by_no_more_than_stated(
    dtype: torch.dtype, of_one_head: float, of_the_mean: float
) -> None:
    # Measured here, relative to float32, one layer and head / mean over all: bf16 erf 0.0069 /
    # 0.0009, entropy 0.0018 / 0.0002; fp16 erf 0.0022 / 0.0001, entropy 0.0003 / 0.00001. ERF
    # moves most, being a step function. CKA between the two: 0.99998 and 0.9999997.
    clip = random_clip()
    exact = probe.read(clip, normalised(PIXELS), maps=True)
    with torch.autocast("cpu", dtype=dtype):
        rounded = probe.read(clip, normalised(PIXELS), maps=True)
    for signal in (*LAYERWISE, "patch_to_patch_entropy_bits"):
        ratio = np.asarray(getattr(rounded, signal)) / np.asarray(getattr(exact, signal))
        assert np.abs(ratio - 1).max() < of_one_head, signal
        assert abs(rounded.mean(signal) / exact.mean(signal) - 1) < of_the_mean, signal
    drift = drift_between(rounded, exact)
    assert drift.cka > 0.9999
    assert drift.embedding_drift < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_cpus_reading() -> None:
    clip = random_clip()
    on_cpu = probe.read(loaded(clip), PIXELS, maps=True)
    on_cuda = probe.read(loaded(clip.to("cuda")), PIXELS, maps=True)
    assert on_cuda.cls_activations.device.type == "cpu"
    for signal in (*LAYERWISE, "head_diversity", *WITH_MAPS, "patch_to_patch_entropy_bits"):
        np.testing.assert_allclose(
            getattr(on_cuda, signal), getattr(on_cpu, signal), rtol=1e-3, err_msg=signal
        )
    assert drift_between(on_cuda, on_cpu).cka > 0.9999


def rows_of(clip: nn.Module, pixels: Tensor) -> Tensor:
    """The CLS attention of each image [image, layer, head, patch], captured in one forward pass."""
    with evaluating(clip), capture_cls(clip) as captured:
        find_image_tower(clip).backbone.embed_images(clip, pixels)
        return torch.stack(captured.rows, dim=1)


def test_shown_rows_are_distributions_over_the_patches_with_the_readings_entropy() -> None:
    clip = random_clip()
    reading = probe.read(loaded(clip), PIXELS[:3], batch_size=2, shown=range(3))
    assert reading.shown_rows is not None
    rows = reading.shown_rows.numpy()
    assert rows.shape == (3, 3, 4, 49)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=-1), 1.0, atol=1e-5)
    entropy = numpy_entropy(rows.astype(np.float64)).mean(axis=0)
    np.testing.assert_allclose(entropy, reading.entropy, atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "conventions", "message"),
    [
        (PIXELS, {}, "uint8 pixels together with mean="),
        (normalised(PIXELS), {"mean": HALF, "std": HALF}, "float pixels"),
        (normalised(PIXELS[:0]), {}, "at least one image"),
        (normalised(PIXELS)[0], {}, r"\[image, 3, height, width\]"),
        (normalised(random_pixels(2, size=64)), {}, "56×56 pixels, got 64×64"),
    ],
    ids=["raw bytes", "twice normalised", "no image", "one image without batch", "other size"],
)
def test_pixels_that_do_not_fit_are_refused(
    pixels: Tensor, conventions: dict[str, Any], message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        probe.read(random_clip(), pixels, **conventions)


def test_float_pixels_for_a_loaded_model_are_refused() -> None:
    with pytest.raises(CaptureError, match="are uint8"):
        probe.read(loaded(random_clip()), normalised(PIXELS))


# ---------------------------------------------------- drift


def with_entropy(reading: Reading, entropy: list[list[float]]) -> Reading:
    return replace(reading, levels={**reading.levels, "entropy": entropy}, per_image=None)


def test_drift_is_the_percent_change_of_the_mean_and_not_the_mean_of_changes() -> None:
    reference = probe.read(random_clip(), normalised(PIXELS[:6]))
    before = with_entropy(reference, [[1.0, 1.0], [4.0, 2.0]])
    after = with_entropy(reference, [[1.5, 1.5], [4.0, 1.0]])
    drift = drift_between(after, before)
    assert drift.delta_entropy_pct == pytest.approx(0.0)
    assert drift.delta_entropy_pct_per_layer == pytest.approx([50.0, 100 * (2.5 / 3 - 1)])


def test_a_model_has_not_drifted_from_itself() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS), maps=True)
    drift = drift_between(reading, reading)
    numbers = drift.to_dict()
    for name, value in numbers.items():
        if name.startswith("delta_"):
            assert not np.any(value), name
    assert drift.cka == pytest.approx(1.0)
    assert drift.cka_debiased == pytest.approx(1.0)
    assert drift.embedding_drift == pytest.approx(0.0, abs=1e-9)
    assert drift.feature_distance == 0.0


def test_drift_grows_with_the_change_and_its_parts_equal_their_own_functions() -> None:
    clip = random_clip()
    reference = probe.read(loaded(clip), PIXELS, maps=True)
    little = drift_between(probe.read(loaded(perturbed(clip, 0.05)), PIXELS, maps=True), reference)
    moved = probe.read(loaded(perturbed(clip, 0.5)), PIXELS, maps=True)
    much = drift_between(moved, reference)
    assert much.cka < little.cka < 1
    assert much.embedding_drift > little.embedding_drift > 0
    expected = [
        linear_cka(x, y)
        for x, y in zip(reference.cls_activations, moved.cls_activations, strict=True)
    ]
    assert much.cka_per_block == pytest.approx(expected)
    assert much.cka == pytest.approx(np.mean(expected))
    means = moved.mean("rollout_entropy_bits"), reference.mean("rollout_entropy_bits")
    assert much.delta_rollout_entropy_pct == pytest.approx(100 * (means[0] / means[1] - 1))
    assert len(much.delta_patch_to_patch_entropy_pct_per_layer) == 3


def test_weights_and_texts_are_carried_and_otherwise_absent() -> None:
    clip = random_clip()
    moved = perturbed(clip)
    reference, reading = (probe.read(m, normalised(PIXELS)) for m in (clip, moved))
    plain = drift_between(reading, reference)
    assert plain.weight_drift is None
    assert plain.text_kl_nats is None
    assert plain.delta_rollout_entropy_pct is None
    weights = weight_drift(encoder_weights(clip), encoder_weights(moved))
    text = TextSpaceDrift(0.5, 80.0, None, 90.0)
    full = drift_between(reading, reference, weights=weights, text=text)
    assert full.weight_drift == weights.total
    assert full.weight_drift_per_layer == weights.per_layer
    assert (full.text_kl_nats, full.text_top1_agreement_pct) == (0.5, 80.0)
    assert full.text_referee_pct == 90.0
    assert full.random_text_logit_change is None


def test_a_change_from_zero_has_a_defined_percentage() -> None:
    assert percent_drift(0.0, 0.0) == 0.0
    assert percent_drift(0.1, 0.0) == float("inf")
    assert percent_drift(-0.1, 0.0) == float("-inf")
    assert percent_drift(1.5, 1.0) == 50.0


def test_readings_of_other_or_reordered_images_are_not_compared() -> None:
    clip = random_clip()
    reading = probe.read(clip, normalised(PIXELS))
    for other in (random_pixels(33, seed=9), PIXELS.flip(0), PIXELS[:20]):
        with pytest.raises(CaptureError, match="different images"):
            drift_between(probe.read(clip, normalised(other)), reading)


def test_readings_of_models_of_different_depth_are_not_compared() -> None:
    deep, shallow = random_clip(num_hidden_layers=3), random_clip(num_hidden_layers=2)
    readings = [probe.read(clip, normalised(PIXELS)) for clip in (deep, shallow)]
    with pytest.raises(CaptureError, match="3 and 2 blocks"):
        drift_between(*readings)


def test_a_drift_on_too_few_images_is_refused() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS[:3]))
    with pytest.raises(CaptureError, match="at least 4 images, got 3"):
        drift_between(reading, reading)


# ---------------------------------------------------- subsets


def test_a_subset_is_what_reading_those_images_alone_gives() -> None:
    clip = random_clip()
    reading = probe.read(clip, normalised(PIXELS), maps=True)
    chosen = [30, 2, 17, 5, 11]
    subset = reading.subset(chosen)
    alone = probe.read(clip, normalised(PIXELS[chosen]), maps=True)
    for signal in (*LAYERWISE, "head_diversity", *WITH_MAPS, "patch_to_patch_entropy_bits"):
        np.testing.assert_allclose(
            getattr(subset, signal), getattr(alone, signal), rtol=1e-6, err_msg=signal
        )
    torch.testing.assert_close(subset.cls_activations, alone.cls_activations)
    assert subset.num_images == 5
    assert subset.head_diversity_of_mean is None


def test_equal_subsets_can_be_compared_and_different_ones_cannot() -> None:
    clip = random_clip()
    a, b = (probe.read(m, normalised(PIXELS)) for m in (clip, perturbed(clip)))
    assert drift_between(b.subset(range(8)), a.subset(range(8))).num_images == 8
    with pytest.raises(CaptureError, match="different images"):
        drift_between(b.subset(range(8)), a.subset(range(1, 9)))


@pytest.mark.parametrize("images", [[], [0, 1]])
def test_subsets_of_nothing_are_refused(images: list[int]) -> None:
    reading = probe.read(random_clip(), normalised(PIXELS[:4]))
    restored = Reading.from_dict(reading.to_dict())
    with pytest.raises(CaptureError, match="cannot be taken"):
        (restored if images else reading).subset(images)


def test_probe_size_sensitivity_is_nested_and_ends_at_the_whole_drift() -> None:
    clip = random_clip()
    a, b = (probe.read(m, normalised(PIXELS)) for m in (clip, perturbed(clip, 0.3)))
    drifts = reading_subsets.probe_size_sensitivity(b, a, [4, 16, 33], seed=3)
    assert [drift.num_images for drift in drifts] == [4, 16, 33]
    whole = drift_between(b, a)
    assert drifts[-1].delta_entropy_pct == pytest.approx(whole.delta_entropy_pct)
    assert drifts[-1].cka == pytest.approx(whole.cka)
    again = reading_subsets.probe_size_sensitivity(b, a, [16], seed=3)
    assert again[0] == drifts[1]


@pytest.mark.parametrize("size", [3, 34])
def test_probe_sizes_that_cannot_be_drawn_are_refused(size: int) -> None:
    reading = probe.read(random_clip(), normalised(PIXELS))
    with pytest.raises(CaptureError, match=f"4 to 33 images .* got {size}"):
        reading_subsets.probe_size_sensitivity(reading, reading, [size])


def test_the_spread_between_subsets_comes_from_the_same_reading() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS))
    subsets = [range(0, 11), range(11, 22), range(22, 33)]
    means = [reading.subset(subset).mean("entropy") for subset in subsets]
    expected = np.std(means) / np.mean(means)
    assert reading.subset_coefficient_of_variation(subsets) == pytest.approx(expected)


def test_the_spread_of_a_rollout_signal_has_one_value_an_image() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS[:6]), maps=True)
    values = reading.per_image["rollout_entropy_bits"].numpy()
    expected = np.std(values) / np.mean(values)
    singles = [[image] for image in range(6)]
    spread = reading.subset_coefficient_of_variation(singles, "rollout_entropy_bits")
    assert spread == pytest.approx(expected)


def test_the_spread_of_a_signal_that_was_not_read_is_refused() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS[:6]))
    with pytest.raises(CaptureError, match="no per-image values of 'rollout_gini'"):
        reading.subset_coefficient_of_variation([[0]], "rollout_gini")


# ---------------------------------------------------- text space


@pytest.fixture(scope="module")
def mini() -> VisionLanguageModel:
    return load("mini")


def test_random_texts_are_reproducible_and_as_many_as_asked_for(mini: VisionLanguageModel) -> None:
    first, again, other = (
        probe.random_texts(mini.tokenizer, num_texts=9, seed=seed) for seed in (0, 0, 1)
    )
    assert len(first) == 9
    assert first == again != other


def text_probe(mini: VisionLanguageModel, *vocabulary: str) -> probe.TextProbe:
    at_random = mini.embed_texts(probe.random_texts(mini.tokenizer))
    return probe.TextProbe(mini.embed_texts(vocabulary), at_random, mini.logit_scale)


def test_text_space_drift_of_readings_is_that_of_their_embeddings(
    mini: VisionLanguageModel,
) -> None:
    pixels = random_pixels(8, size=mini.image_size)
    reference = probe.read(mini, pixels)
    moved = probe.read(replace(mini, module=perturbed(mini.module, 0.3)), pixels)
    texts = text_probe(mini, "a red circle", "a blue square", "a green star")
    drift = probe.text_drift(moved, reference, texts)
    assert drift == text_space_drift(
        reference.embeddings, moved.embeddings, texts.vocabulary, texts.logit_scale,
        texts.random_texts,
    )  # fmt: skip
    assert drift.kl_nats > 0
    assert drift.random_text_logit_change > 0
    assert drift_between(moved, reference, text=drift).text_kl_nats == drift.kl_nats
    unmoved = probe.text_drift(reference, reference, texts)
    assert (unmoved.kl_nats, unmoved.top1_agreement_pct) == (pytest.approx(0, abs=1e-9), 100.0)


def test_text_space_drift_refuses_other_images_and_readings_without_embeddings(
    mini: VisionLanguageModel,
) -> None:
    texts = text_probe(mini, "a red circle")
    reading = probe.read(mini, random_pixels(4, size=mini.image_size))
    other = probe.read(mini, random_pixels(4, size=mini.image_size, seed=5))
    with pytest.raises(CaptureError, match="different images"):
        probe.text_drift(other, reading, texts)
    restored = Reading.from_dict(reading.to_dict())
    with pytest.raises(CaptureError, match="projected image embeddings"):
        probe.text_drift(restored, reading, texts)


# ---------------------------------------------------- as data


def test_a_reading_survives_json_exactly_with_and_without_its_tensors() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS), maps=True)
    numbers = json.loads(json.dumps(reading.to_dict()))
    restored = Reading.from_dict(numbers)
    assert restored.to_dict() == reading.to_dict()
    assert restored.cls_activations is None
    full = Reading.from_dict(json.loads(json.dumps(reading.to_dict(tensors=True))))
    assert full.to_dict() == reading.to_dict()
    assert full.cls_activations.equal(reading.cls_activations)
    assert full.embeddings.equal(reading.embeddings)
    assert all(full.per_image[name].equal(reading.per_image[name]) for name in reading.per_image)
    assert drift_between(full, reading) == drift_between(reading, reading)


def test_a_reading_without_tensors_cannot_be_compared() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS))
    restored = Reading.from_dict(reading.to_dict())
    with pytest.raises(CaptureError, match="no CLS activations"):
        drift_between(reading, restored)


def test_a_drift_survives_json_exactly() -> None:
    clip = random_clip()
    a, b = (probe.read(m, normalised(PIXELS), maps=True) for m in (clip, perturbed(clip)))
    drift = drift_between(b, a)
    assert Drift.from_dict(json.loads(json.dumps(drift.to_dict()))) == drift


def test_what_is_no_stored_reading_or_drift_is_refused() -> None:
    with pytest.raises(CaptureError, match="not a stored Reading"):
        Reading.from_dict({"entropy": []})
    with pytest.raises(CaptureError, match="not a stored Drift"):
        Drift.from_dict({"unknown": 1})


def test_every_number_has_a_unit() -> None:
    before = probe.read(random_clip(), normalised(PIXELS), maps=True)
    numbers = {**before.to_dict(), **drift_between(before, before).to_dict()}
    assert numbers.keys() - {"images_fingerprint"} <= units().keys()


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_attention_of_shown_images_is_kept_whatever_the_batch_size(batch_size: int) -> None:
    model, shown = random_clip(), [0, 2, 3, 7]
    reading = probe.read(model, normalised(PIXELS[:8]), batch_size=batch_size, shown=shown)
    rows = rows_of(model, normalised(PIXELS[:8]))[shown]
    assert reading.shown_rows is not None
    torch.testing.assert_close(reading.shown_rows, rows, atol=1e-6, rtol=1e-5)


def test_the_late_entropy_change_is_that_of_the_last_third_of_the_layers() -> None:
    before = probe.read(random_clip(0), normalised(PIXELS[:8]))
    after = probe.read(random_clip(1), normalised(PIXELS[:8]))
    change = drift_between(after, before)
    assert before.num_layers == 3  # so the last layer alone is late
    assert change.delta_late_entropy_pct == pytest.approx(change.delta_entropy_pct_per_layer[-1])


def test_the_scalars_of_a_drift_are_its_finite_numbers() -> None:
    before = probe.read(random_clip(0), normalised(PIXELS[:8]))
    change = replace(drift_between(before, before), delta_gini_pct=float("inf"), weight_drift=None)
    scalars = change.scalars()
    assert scalars["delta_entropy_pct"] == 0
    assert {"delta_gini_pct", "weight_drift", "cka_per_block", "num_images"}.isdisjoint(scalars)


def test_signals_that_were_not_read_are_named_in_the_error() -> None:
    reading = probe.read(random_clip(), normalised(PIXELS[:4]))
    with pytest.raises(CaptureError, match=r"'rollout_gini' was not read.*maps=True"):
        reading.mean("rollout_gini")


# ---------------------------------------------------- declared signals


def largest_weight(rows: torch.Tensor) -> torch.Tensor:
    return rows.amax(dim=-1)


def wrong_shape(rows: torch.Tensor) -> torch.Tensor:
    return rows


def declared(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> Metric:
    """A signal of attention rows, declared as those of metrics.py are."""
    level = Metric(
        "largest_weight", "largest weight", "largest share of a patch", "attention",
        bounds=(0, 1), exists=frozenset({"layer", "head"}), function=function, reads="rows",
    )  # fmt: skip
    known = {**METRICS, level.key: level, change_key(level): change_of(level)}
    monkeypatch.setitem(METRICS.__dict__, "_all", known)
    return level


def test_a_declared_signal_is_read_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    level = declared(monkeypatch, largest_weight)
    clip, moved = random_clip(), perturbed(random_clip())
    before, after = (probe.read(one, normalised(PIXELS)) for one in (clip, moved))
    expected = rows_of(clip, normalised(PIXELS)).amax(dim=-1)
    np.testing.assert_allclose(before.per_image["largest_weight"], expected, atol=1e-6)
    drift = drift_between(after, before)
    change = 100 * (after.mean("largest_weight") / before.mean("largest_weight") - 1)
    assert drift.delta_largest_weight_pct == pytest.approx(change)
    assert len(drift.delta_largest_weight_pct_per_layer) == before.num_layers
    assert drift.scalars()[change_key(level)] == drift.delta_largest_weight_pct
    assert Reading.from_dict(before.to_dict()).largest_weight == before.largest_weight


def test_a_signal_of_a_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    declared(monkeypatch, wrong_shape)
    with pytest.raises(CaptureError, match=r"largest_weight .* must be \[image, head\] or \[image"):
        probe.read(random_clip(), normalised(PIXELS))
