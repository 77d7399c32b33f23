"""The last block for the CLS token alone, against the whole tower of transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_models import normalised, random_clip, random_pixels
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.clip.modeling_clip import CLIPAttention

from driftscope.adapt import adapt
from driftscope.backbones.capture import capture_cls
from driftscope.backbones.clip import Clip, last_block_for_cls
from driftscope.backbones.model import VisionLanguageModel
from driftscope.config import parse_run_spec

METHODS = ["full_ft", "last_block", "bitfit", "lora", "dora", "ia3", "vera"]
every_method = pytest.mark.parametrize("method", METHODS)


def trained_a_little(method: str, **vision: object) -> VisionLanguageModel:
    """A model in the middle of that method's training, without the randomness of dropout."""
    model = VisionLanguageModel(
        random_clip(**vision), None, 56, mean=(0.5,) * 3, std=(0.5,) * 3, source="random"
    )
    options = {"kind": method, "dropout": 0.0} if method in ("lora", "dora", "vera") else method
    spec = parse_run_spec({"method": options, "learning_rate": 1e-3})
    adapted = adapt(model, spec.method, 3, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return adapted.model


def whole(model: VisionLanguageModel, pixels: Tensor) -> Tensor:
    """Embeddings by transformers' own forward."""
    return model.module.get_image_features(pixel_values=model.normalise(pixels)).pooler_output


def gradients(module: nn.Module, embeddings: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    embeddings.square().sum().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


@every_method
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_embeddings_and_gradients_are_those_of_the_whole_tower(method: str, kernel: str) -> None:
    model, pixels = trained_a_little(method), random_pixels(3)
    model.plain.set_attn_implementation(kernel)
    model.module.train()
    expected, found = whole(model, pixels), model.image_embeddings(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    whole_gradients, own = gradients(model.module, expected), gradients(model.module, found)
    assert own.keys() == whole_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in own.values())
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, whole_gradients[name], rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_the_last_block_computes_one_query_one_output_and_one_mlp(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained_a_little(method)
    block = model.plain.vision_model.encoder.layers[-1]
    names = {one: name for name, one in block.named_modules() if "lora" not in name}
    tokens: dict[str, int] = {}
    linear = functional.linear

    def noted(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        for module, name in names.items():
            if getattr(module, "weight", None) is weight:
                tokens[name.removesuffix(".base_layer")] = values.shape[1]
        return linear(values, weight, bias)

    monkeypatch.setattr(functional, "linear", noted)
    model.image_embeddings(random_pixels(2))
    assert tokens == {
        "self_attn.q_proj": 1,
        "self_attn.k_proj": 50,
        "self_attn.v_proj": 50,
        "self_attn.out_proj": 1,
        "mlp.fc1": 1,
        "mlp.fc2": 1,
    }


def _hook_on_the_attention(block: Any) -> None:
    block.self_attn.register_forward_hook(lambda _m, _i, given: (0 * given[0], *given[1:]))


def _hook_before_the_attention(block: Any) -> None:
    block.self_attn.register_forward_pre_hook(
        lambda _m, _i, named: ((), {**named, "hidden_states": 2 * named["hidden_states"]}),
        with_kwargs=True,
    )


def _hook_on_the_block(block: Any) -> None:
    block.register_forward_hook(lambda _m, _i, tokens: tokens.mean(dim=1, keepdim=True) + tokens)


def _hook_on_the_mlp(block: Any) -> None:
    block.mlp.register_forward_hook(lambda _m, _i, tokens: tokens.mean(dim=1, keepdim=True))


def _another_forward_of_the_attention(block: Any) -> None:
    own = block.self_attn.forward
    block.self_attn.forward = lambda **named: (2 * own(**named)[0], None)


class _Doubled(CLIPAttention):
    def forward(self, *args: Any, **named: Any) -> Any:
        return 2 * super().forward(*args, **named)[0], None


def _subclass_of_the_attention(block: Any) -> None:
    block.self_attn.__class__ = _Doubled


class _OverTokens(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).cumsum(dim=1).flip(1)


def _output_over_all_tokens(block: Any) -> None:
    block.self_attn.out_proj.__class__ = _OverTokens


CHANGES = (
    *(_hook_on_the_attention, _hook_before_the_attention, _hook_on_the_block, _hook_on_the_mlp),
    *(_another_forward_of_the_attention, _subclass_of_the_attention, _output_over_all_tokens),
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_put_into_the_last_block_acts_on_its_embeddings(
    change: Callable[[Any], None],
) -> None:
    model, pixels = trained_a_little("full_ft"), random_pixels(3)
    before = whole(model, pixels)
    change(model.plain.vision_model.encoder.layers[-1])
    expected = whole(model, pixels)
    assert not torch.allclose(expected, before, atol=1e-3)
    torch.testing.assert_close(model.image_embeddings(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_class_whose_forward_somebody_has_replaced_is_left_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, pixels = trained_a_little("full_ft"), random_pixels(3)
    own = CLIPAttention.forward
    monkeypatch.setattr(CLIPAttention, "forward", lambda *a, **k: (2 * own(*a, **k)[0], None))
    torch.testing.assert_close(
        model.image_embeddings(pixels), whole(model, pixels), rtol=1e-4, atol=1e-5
    )


def test_captured_rows_and_states_are_those_of_the_whole_tower() -> None:
    model, pixels = trained_a_little("lora"), random_pixels(3)
    with torch.no_grad(), capture_cls(model.module) as captured:
        whole(model, pixels)
        rows, states = captured.rows, captured.cls_states
        model.image_embeddings(pixels)
        for found, expected in zip(captured.rows + captured.cls_states, rows + states, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was_even_after_an_error() -> None:
    model = trained_a_little("full_ft")
    vision = model.plain.vision_model
    with pytest.raises(RuntimeError), last_block_for_cls(vision):
        raise RuntimeError
    assert "forward" not in vars(vision.encoder.layers[-1])
    tokens = vision(pixel_values=normalised(random_pixels(2))).last_hidden_state
    assert tokens.shape == (2, 50, 64)


def test_a_block_that_somebody_else_has_replaced_is_left_to_them() -> None:
    model = trained_a_little("full_ft")
    block = model.plain.vision_model.encoder.layers[-1]
    block.forward = lambda hidden_states, *_args, **_kwargs: hidden_states
    with last_block_for_cls(model.plain.vision_model):
        assert block(torch.ones(1, 50, 64)).shape == (1, 50, 64)
    assert "forward" in vars(block)


def test_gradient_checkpointing_still_works() -> None:
    model, pixels = trained_a_little("full_ft"), random_pixels(2)
    model.module.train()
    expected = gradients(model.module, model.image_embeddings(pixels))
    model.plain.gradient_checkpointing_enable({"use_reentrant": False})
    found = gradients(model.module, model.image_embeddings(pixels))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)


def test_a_hook_on_the_projection_beside_a_tower_acts_on_its_embeddings() -> None:
    clip = random_clip()
    projection = clip.visual_projection
    tower = Clip().tower_with_projection(clip.vision_model, projection)
    values = normalised(random_pixels(2))
    before = Clip().embed_images(tower, values)
    projection.register_forward_hook(lambda _m, _i, embedded: 2 * embedded)
    torch.testing.assert_close(Clip().embed_images(tower, values), 2 * before)
