"""The last block for the CLS token alone, against the whole tower of transformers."""

import pytest
import torch
from random_models import normalised, random_clip, random_pixels
from torch import Tensor, nn

from driftscope.adapt import adapt
from driftscope.backbones.capture import capture_cls
from driftscope.backbones.clip import last_block_for_cls
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


def test_the_last_block_computes_one_query_one_output_and_one_mlp() -> None:
    model = trained_a_little("full_ft")
    block = model.plain.vision_model.encoder.layers[-1]
    tokens: dict[str, int] = {}

    def note(name: str) -> object:
        return lambda _module, inputs: tokens.update({name: inputs[0].shape[1]})

    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.out_proj", "mlp"):
        block.get_submodule(name).register_forward_pre_hook(note(name))
    model.image_embeddings(random_pixels(2))
    assert tokens == {
        "self_attn.q_proj": 1,
        "self_attn.k_proj": 50,
        "self_attn.out_proj": 1,
        "mlp": 1,
    }


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
