"""What the capture reads, against eager attentions; what it leaves behind; what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import pytest
import torch
from full_map_signals import attention_rollout, patch_to_patch_entropy_bits
from random_models import (
    GEOMETRIES,
    TINY,
    build,
    normalised,
    random_clip,
    random_pixels,
    sharpen,
)
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    ViTConfig,
    ViTModel,
)

from driftscope.backbones import find_image_tower
from driftscope.backbones.capture import (
    capture_cls,
    check_rows,
)
from driftscope.backbones.transformers_attention import ATTENTION_NAME
from driftscope.backbones.weights import encoder_weights
from driftscope.errors import CaptureError
from driftscope.signals import attention

QUERY_AND_VALUE = r"vision_model\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
PIXELS = normalised(random_pixels(5))


def vision_encoders() -> dict[str, nn.Module]:
    """One random encoder of every supported kind, with attention far from uniform."""
    encoders = {
        "CLIPModel": random_clip(),
        "CLIPVisionModelWithProjection": build(
            CLIPVisionModelWithProjection, CLIPVisionConfig(**TINY, projection_dim=32)
        ),
        "ViTModel": build(ViTModel, ViTConfig(**TINY, initializer_range=0.1)),
        "Dinov2Model": build(Dinov2Model, Dinov2Config(**TINY, initializer_range=0.1)),
        "Dinov2WithRegistersModel": build(
            Dinov2WithRegistersModel,
            Dinov2WithRegistersConfig(**TINY, num_register_tokens=4, initializer_range=0.1),
        ),
    }
    sharpen(encoders["CLIPVisionModelWithProjection"], 4.0)
    return encoders


ENCODERS = vision_encoders()
PREFIX = {"Dinov2WithRegistersModel": 5}


def forward(module: nn.Module, pixels: Tensor = PIXELS, **kwargs: Any) -> Any:
    if hasattr(module, "get_image_features"):
        return module.get_image_features(pixel_values=pixels, **kwargs)
    return module(pixel_values=pixels, **kwargs)


def eager_maps(module: nn.Module, pixels: Tensor = PIXELS) -> list[Tensor]:
    """The usual way: every layer's full attention map from an eager copy of the model."""
    eager = copy.deepcopy(module)
    tower: Any = find_image_tower(eager).module
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        return list(tower(pixel_values=pixels, output_attentions=True).attentions)


def eager_hidden_states(module: nn.Module, pixels: Tensor = PIXELS) -> list[Tensor]:
    tower: Any = find_image_tower(module).module
    with torch.no_grad():
        return list(tower(pixel_values=pixels, output_hidden_states=True).hidden_states)


def cls_rows_of(maps: list[Tensor], num_prefix: int = 1) -> list[np.ndarray]:
    rows = [layer[:, :, 0, num_prefix:].double().numpy() for layer in maps]
    return [layer / layer.sum(axis=-1, keepdims=True) for layer in rows]


# ------------------------------------------------------------------ what is read, is right


@pytest.mark.parametrize(
    ("geometry", "expected"), [("B/32", 13), ("B/16", 3), ("L/14-336", 1), (None, 64)]
)
def test_fewer_images_of_a_larger_tower_are_run_at_once(
    geometry: str | None, expected: int
) -> None:
    clip = random_clip(**({**GEOMETRIES[geometry], "num_hidden_layers": 1} if geometry else {}))
    assert find_image_tower(clip).images_per_forward == expected


@pytest.mark.parametrize("name", ENCODERS)
def test_rows_and_states_equal_the_eager_pass(name: str) -> None:
    module = ENCODERS[name]
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    expected_rows = cls_rows_of(eager_maps(module), PREFIX.get(name, 1))
    assert len(captured.rows) == TINY["num_hidden_layers"]
    for rows, expected in zip(captured.rows, expected_rows, strict=True):
        assert rows.dtype == torch.float32
        np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    # The first hidden state is the embedding; blocks 1…L come after it.
    states = eager_hidden_states(module)[1:]
    for state, expected_state in zip(captured.cls_states, states, strict=True):
        torch.testing.assert_close(state, expected_state[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_map_signals_equal_those_of_the_full_eager_maps(name: str) -> None:
    module, num_prefix = ENCODERS[name], PREFIX.get(name, 1)
    with torch.no_grad(), capture_cls(module, maps=True) as captured:
        forward(module)
    maps = eager_maps(module)
    rollout = attention_rollout(maps, num_prefix)
    np.testing.assert_allclose(captured.rollout.numpy(), rollout.numpy(), atol=1e-5)
    for layer, full in zip(captured.patch_to_patch_entropy_bits, maps, strict=True):
        expected = patch_to_patch_entropy_bits(full, num_prefix)
        np.testing.assert_allclose(layer.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_rows_are_right_at_the_published_geometries(geometry: str) -> None:
    # Real width, heads, resolution and patch size. To stay quick: two of the 12 or 24 layers
    # (all are alike), a narrow MLP (which attention does not see), and one image.
    shape = GEOMETRIES[geometry]
    module = random_clip(**shape, num_hidden_layers=2, intermediate_size=64, sharpness=2.0)
    pixels = normalised(random_pixels(1, size=shape["image_size"]))
    with torch.no_grad(), capture_cls(module, maps=True) as captured:
        forward(module, pixels)
    maps = eager_maps(module, pixels)
    num_patches = (shape["image_size"] // shape["patch_size"]) ** 2
    assert captured.rows[0].shape == (1, shape["num_attention_heads"], num_patches)
    for rows, expected in zip(captured.rows, cls_rows_of(maps), strict=True):
        np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    rollout = attention_rollout(maps)
    np.testing.assert_allclose(captured.rollout.numpy(), rollout.numpy(), atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_output_does_not_change_by_a_bit(implementation: str) -> None:
    module = random_clip()
    module.set_attn_implementation(implementation)
    with torch.no_grad():
        before = forward(module).pooler_output
        with capture_cls(module, maps=True):
            during = forward(module).pooler_output
    assert before.equal(during)


def test_the_capture_holds_the_latest_forward_and_forgets_on_request() -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module, maps=True) as captured:
        forward(module, PIXELS[:2])
        forward(module, PIXELS[2:])
        later = captured.rows[0]
        rollout = captured.rollout
        captured.clear()
        with pytest.raises(CaptureError, match="0 of 3"):
            _ = captured.rows
    with torch.no_grad(), capture_cls(module, maps=True) as alone:
        forward(module, PIXELS[2:])
    assert later.equal(alone.rows[0])
    assert rollout.equal(alone.rollout)


def test_captured_states_do_not_keep_the_block_outputs_alive() -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    states = captured.cls_states
    held = states[0].untyped_storage().nbytes()
    assert held == sum(state.numel() * state.element_size() for state in states)


def test_what_a_caller_holds_is_not_written_over_by_the_next_forward() -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module, PIXELS[:2])
        rows, states = captured.rows, captured.cls_states
        before = [tensor.clone() for tensor in (*rows, *states)]
        forward(module, PIXELS[2:4])
    assert all(a.equal(b) for a, b in zip(before, (*rows, *states), strict=True))


# ------------------------------------------------------------------ wrappers, modes, precision


def lora_clip(trained: bool = True) -> nn.Module:
    module = peft.get_peft_model(
        random_clip(), peft.LoraConfig(target_modules=QUERY_AND_VALUE, r=4, lora_dropout=0.5)
    )
    if trained:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1, generator=generator)
    return module.eval()


def test_rows_of_a_peft_model_are_those_of_its_merged_model() -> None:
    module = lora_clip()
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    merged = copy.deepcopy(module).merge_and_unload()
    for rows, expected in zip(captured.rows, cls_rows_of(eager_maps(merged)), strict=True):
        np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    base_rows = cls_rows_of(eager_maps(random_clip()))
    assert (
        max(np.abs(a.numpy() - b).max() for a, b in zip(captured.rows, base_rows, strict=True))
        > 0.01
    )


def test_a_tower_inside_a_module_of_ones_own_is_found() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = random_clip()
            self.head = nn.Linear(32, 10)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.head(self.module.get_image_features(pixel_values=pixels).pooler_output)

    module = Classifier().eval()
    with torch.no_grad(), capture_cls(module) as captured:
        module(PIXELS)
    assert len(captured.rows) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_are_float32_softmaxes_under_autocast(dtype: torch.dtype) -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module, maps=True) as captured:
        with torch.autocast("cpu", dtype=dtype):
            forward(module)
        rows = captured.rows
    exact = cls_rows_of(eager_maps(module))
    for layer, expected in zip(rows, exact, strict=True):
        assert layer.dtype == torch.float32
        assert (layer.sum(dim=-1) - 1).abs().max() < 1e-5
        # What is left is the rounding of q and k themselves.
        assert np.abs(layer.numpy() - expected).max() < 0.1
    assert captured.rollout.dtype == torch.float32


def test_a_model_in_half_precision_is_read_too() -> None:
    module = random_clip().to(torch.bfloat16)
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    assert captured.rows[0].dtype == torch.float32
    assert (captured.rows[0].sum(dim=-1) - 1).abs().max() < 1e-5


def test_attention_dropout_in_train_mode_does_not_enter_the_rows() -> None:
    module = random_clip(attention_dropout=0.5)
    expected = cls_rows_of(eager_maps(module))[0]
    module.train()
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    np.testing.assert_allclose(captured.rows[0].numpy(), expected, atol=1e-5)


def compiled_wrapper(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.vision_model.compile(backend="eager")
    return module


@pytest.mark.parametrize("compiled", [compiled_wrapper, compiled_in_place])
def test_a_compiled_model_is_read_as_it_was_written_and_stays_compiled(
    compiled: Callable[[nn.Module], nn.Module],
) -> None:
    reference = random_clip()
    with torch.no_grad(), capture_cls(reference) as expected:
        forward(reference)
    module = compiled(random_clip())
    with torch.no_grad():
        warm = forward(module).pooler_output
        with capture_cls(module) as captured:
            forward(module)
        assert forward(module).pooler_output.equal(warm)
    assert all(a.equal(b) for a, b in zip(captured.rows, expected.rows, strict=True))


def test_a_compiled_function_around_the_model_is_read_too() -> None:
    module = random_clip()
    embed = torch.compile(lambda x: module.get_image_features(x).pooler_output, backend="eager")
    with torch.no_grad():
        embed(PIXELS)
        with capture_cls(module) as captured:
            embed(PIXELS)
    assert len(captured.rows) == 3


# ------------------------------------------------------------------ gradients


def test_differentiable_rows_have_the_gradients_of_eager_attention() -> None:
    ours, eager = random_clip(sharpness=2.0), random_clip(sharpness=2.0)
    eager.vision_model.set_attn_implementation("eager")
    with capture_cls(ours, differentiable=True) as captured:
        forward(ours)
    sum(attention.entropy(rows).mean() for rows in captured.rows).backward()
    maps = eager.vision_model(pixel_values=PIXELS, output_attentions=True).attentions
    rows = [m[:, :, 0, 1:] / m[:, :, 0, 1:].sum(dim=-1, keepdim=True) for m in maps]
    sum(attention.entropy(layer).mean() for layer in rows).backward()
    for (name, a), b in zip(ours.named_parameters(), eager.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-3)
    assert ours.vision_model.encoder.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0


def test_differentiable_states_carry_gradients_and_plain_captures_do_not() -> None:
    module = random_clip()
    with capture_cls(module, differentiable=True) as captured:
        forward(module)
    assert captured.cls_states[-1].requires_grad
    assert captured.rows[0].requires_grad
    with capture_cls(module) as captured:
        forward(module).pooler_output.sum().backward()
    assert not captured.cls_states[-1].requires_grad
    assert not captured.rows[0].requires_grad


def test_capturing_does_not_change_the_models_own_gradients() -> None:
    plain, watched = random_clip(), random_clip()
    forward(plain).pooler_output.square().sum().backward()
    with capture_cls(watched, differentiable=True):
        forward(watched).pooler_output.square().sum().backward()
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or a.grad.equal(b.grad)


# ------------------------------------------------------------------ everything is put back


def hooks_of(module: nn.Module) -> int:
    return sum(len(child._forward_hooks) for child in module.modules())


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("fails", [False, True])
def test_attention_hooks_and_modes_are_put_back_also_after_an_error(
    implementation: str, fails: bool
) -> None:
    module = random_clip()
    module.set_attn_implementation(implementation)
    module.train()
    module.vision_model.encoder.layers[1].eval()
    modes = [child.training for child in module.modules()]
    too_small = torch.zeros(1, 3, 24, 24)
    try:
        with torch.no_grad(), capture_cls(module):
            assert module.vision_model.config._attn_implementation == ATTENTION_NAME
            assert module.text_model.config._attn_implementation == implementation
            forward(module, too_small if fails else PIXELS)
    except ValueError:
        assert fails
    assert module.vision_model.config._attn_implementation == implementation
    assert module.text_model.config._attn_implementation == implementation
    assert hooks_of(module) == 0
    assert [child.training for child in module.modules()] == modes


def test_a_second_capture_of_the_same_model_is_refused_and_the_first_goes_on() -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module) as captured:
        with pytest.raises(CaptureError, match="already"), capture_cls(module):
            pass
        forward(module)
        assert len(captured.rows) == 3
    assert hooks_of(module) == 0


def test_another_model_with_the_same_config_object_is_left_alone() -> None:
    watched = random_clip()
    other = type(watched)(watched.config).eval()
    with torch.no_grad():
        before = forward(other).pooler_output
        with capture_cls(watched) as captured:
            forward(watched)
            rows = captured.rows[0]
            assert forward(other).pooler_output.equal(before)
            assert captured.rows[0].equal(rows)


def test_two_models_can_be_captured_at_once() -> None:
    first, second = random_clip(seed=0), random_clip(seed=1)
    with torch.no_grad(), capture_cls(first) as a, capture_cls(second) as b:
        forward(first)
        forward(second)
    assert not a.rows[0].equal(b.rows[0])


# ------------------------------------------------------------------ what is refused


def test_naflex_is_refused_by_name_and_with_the_reason() -> None:
    sizes = {name: TINY[name] for name in ("hidden_size", "num_attention_heads", "patch_size")}
    module = build(Siglip2VisionModel, Siglip2VisionConfig(**sizes, num_hidden_layers=1))
    with (
        pytest.raises(CaptureError, match=r"Siglip2VisionModel .*NaFlex .*needs one grid"),
        capture_cls(module),
    ):
        pass


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (nn.Linear(2, 2), "no image tower"),
        (nn.ModuleList([random_clip(), random_clip()]), "2 image"),
    ],
    ids=["none", "two"],
)
def test_a_module_without_one_clear_tower_is_refused(module: nn.Module, found: str) -> None:
    with pytest.raises(CaptureError, match=found), capture_cls(module):
        pass


def test_a_capture_without_a_forward_has_no_rows() -> None:
    with capture_cls(random_clip()) as captured:
        pass
    with pytest.raises(CaptureError, match="0 of 3 layers' attention rows"):
        _ = captured.rows


def test_attention_that_bypasses_the_interface_is_noticed() -> None:
    module = random_clip()
    block = module.vision_model.encoder.layers[1]
    block.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    with pytest.raises(CaptureError, match="2 of 3"):
        _ = captured.rows


def test_maps_that_were_not_asked_for_are_not_invented() -> None:
    module = random_clip()
    with torch.no_grad(), capture_cls(module) as captured:
        forward(module)
    for name in ("rollout", "patch_to_patch_entropy_bits"):
        with pytest.raises(CaptureError, match="maps were not asked for"):
            getattr(captured, name)


def test_a_diverged_model_is_refused_with_the_layer_named() -> None:
    module = random_clip()
    with torch.no_grad():
        module.vision_model.encoder.layers[1].self_attn.q_proj.bias[0] = float("nan")
        with capture_cls(module) as captured:
            forward(module)
    with pytest.raises(CaptureError, match=r"Layer 2 .*NaN"):
        _ = captured.rows


def test_rows_that_do_not_sum_to_one_are_refused() -> None:
    good = torch.full((2, 3, 4), 0.25)
    check_rows([good])
    with pytest.raises(CaptureError, match=r"Layer 2 .*sum of 1 by 0\.2"):
        check_rows([good, 0.8 * good])


def test_masked_attention_is_refused() -> None:
    module = ENCODERS["ViTModel"]
    mask = torch.ones(5, 50)
    mask[:, 40:] = 0
    with (
        torch.no_grad(),
        capture_cls(module),
        pytest.raises(CaptureError, match="mask"),
    ):
        forward(module, attention_mask=mask)


def test_a_disabled_adapter_is_refused() -> None:
    module = lora_clip()
    with (
        module.disable_adapter(),
        pytest.raises(CaptureError, match="present but disabled"),
        capture_cls(module),
    ):
        pass


def test_an_inactive_adapter_is_refused() -> None:
    module = lora_clip()
    for layer in module.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer._active_adapter = ["of_another_run"]
    with (
        pytest.raises(CaptureError, match=r"'default'.* inactive .*'of_another_run'"),
        capture_cls(module),
    ):
        pass


def two_adapters() -> Any:
    """A CLIP with a moved adapter on the image tower, `img`, and one on the text tower, `txt`."""
    towers = {"img": "vision_model", "txt": "text_model"}
    lora = {
        name: peft.LoraConfig(target_modules=rf"{tower}.*\.(q|v)_proj", init_lora_weights=False)
        for name, tower in towers.items()
    }
    module = peft.get_peft_model(random_clip(), lora["img"], adapter_name="img")
    module.add_adapter("txt", lora["txt"])
    return module


def test_an_inactive_adapter_of_the_image_tower_is_refused_where_one_of_the_texts_acts() -> None:
    module = two_adapters()
    module.set_adapter("txt")
    with pytest.raises(CaptureError, match=r"'img'.* inactive .*'txt'"), capture_cls(module):
        pass
    with pytest.raises(CaptureError, match=r"'img'.* inactive .*'txt'"):
        encoder_weights(module)
    module.set_adapter("img")
    with capture_cls(module):
        forward(module)


@pytest.mark.parametrize("state", ["active", "inactive", "disabled"])
def test_an_adapter_of_the_texts_alone_leaves_the_images_to_be_read(state: str) -> None:
    config = peft.LoraConfig(target_modules=r"text_model.*\.(q|v)_proj", init_lora_weights=False)
    module = peft.get_peft_model(random_clip(), config)
    for layer in module.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer.enable_adapters(state != "disabled")
            layer._active_adapter = ["default"] if state == "active" else ["of_another_run"]
    plain = random_clip()
    with torch.no_grad(), capture_cls(plain) as expected:
        forward(plain)
    with torch.no_grad(), capture_cls(module) as found:
        forward(module)
    for own, wanted in zip(found.rows, expected.rows, strict=True):
        torch.testing.assert_close(own, wanted)
    assert encoder_weights(module).keys() == encoder_weights(plain).keys()


def test_an_inactive_adapter_of_the_projection_alone_is_refused() -> None:
    module = peft.get_peft_model(
        random_clip(), peft.LoraConfig(target_modules=["visual_projection"])
    )
    with (
        module.disable_adapter(),
        pytest.raises(CaptureError, match="present but disabled"),
        capture_cls(module),
    ):
        pass


def test_a_merged_adapter_acts_and_is_read() -> None:
    module = lora_clip()
    with torch.no_grad(), capture_cls(module) as apart:
        forward(module)
    module.merge_adapter()
    with torch.no_grad(), capture_cls(module) as merged:
        forward(module)
    for a, b in zip(apart.rows, merged.rows, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_an_active_adapter_beside_another_merged_one_is_refused() -> None:
    module = lora_clip()
    module.add_adapter("second", peft.LoraConfig(target_modules=QUERY_AND_VALUE, r=2))
    module.set_adapter("second")
    module.merge_adapter(["default"])
    with pytest.raises(CaptureError, match="merged while"), capture_cls(module):
        pass


def test_differentiable_maps_and_checkpointing_are_refused() -> None:
    module = random_clip()
    with (
        pytest.raises(CaptureError, match="differentiably"),
        capture_cls(module, maps=True, differentiable=True),
    ):
        pass
    module.gradient_checkpointing_enable()
    with (
        pytest.raises(CaptureError, match="checkpointing"),
        capture_cls(module, differentiable=True),
    ):
        pass


def test_gradient_checkpointing_does_not_disturb_a_plain_capture() -> None:
    module = random_clip()
    expected = cls_rows_of(eager_maps(module))[0]
    module.gradient_checkpointing_enable()
    module.train()
    with capture_cls(module) as captured:
        forward(module).pooler_output.sum().backward()
    np.testing.assert_allclose(captured.rows[0].numpy(), expected, atol=1e-5)


def test_an_attention_that_is_not_known_to_be_a_softmax_is_refused() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register("linear_attention", lambda *_args, **_kwargs: None)
    module = random_clip()
    module.vision_model.config._attn_implementation = "linear_attention"
    with pytest.raises(CaptureError, match="'linear_attention' is not known"), capture_cls(module):
        pass
