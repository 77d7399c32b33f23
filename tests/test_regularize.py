"""Penalties against written-out references, gradients against eager and finite differences."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_adapt import CLASSES, adapted_by, moved, pixels
from torch.nn import functional

import driftscope as ds
from driftscope.adapt import AdaptedModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state
from driftscope.config import REGULARIZER_KINDS, parse_run_spec
from driftscope.reading_pass import read
from driftscope.regularize import PENALTIES, Pretrained, Regularization, displacements

METHODS = [
    "full_ft",
    "bitfit",
    "last_block",
    "flyp",
    "lora",
    "rslora",
    "dora",
    "ia3",
    {"kind": "vera", "rank": 16},
]


PUSHING: dict[str, dict[str, float]] = {
    "entropy_floor": {"rho": 1.5},
    "entropy_shift": {"target_pct": 5},
}
"""Options under which a moved model pays."""


@pytest.fixture(scope="module")
def pretrained(tiny_clip: Path) -> VisionLanguageModel:
    model = ds.load(tiny_clip)
    with torch.no_grad():  # a freshly initialised CLIP attends evenly: nothing to compare
        for name, parameter in model.module.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(4)
    return model


def penalty(
    pretrained: VisionLanguageModel, adapted: AdaptedModel, step: int = 1, **regularizer: object
) -> torch.Tensor:
    spec = parse_run_spec(
        {"method": "full_ft", "learning_rate": 1e-3, "regularizers": [regularizer]}
    )
    known = Pretrained(pretrained, read(pretrained, pixels()).per_layer("entropy"))
    regularization = Regularization(spec, adapted, known)
    with regularization.watching():
        embeddings = adapted.model.image_embeddings(pixels())
        return regularization.penalty(pixels(), embeddings, step)


def eager_rows(model: VisionLanguageModel) -> list[torch.Tensor]:
    """CLS attention over the patches from transformers' own eager attention maps."""
    clip = model.plain
    clip.vision_model.set_attn_implementation("eager")
    outputs = clip.vision_model(
        pixel_values=model.normalise(pixels()), output_attentions=True, return_dict=True
    )
    clip.vision_model.set_attn_implementation("sdpa")
    rows = [layer[:, :, 0, 1:] for layer in outputs.attentions]
    return [row / row.sum(-1, keepdim=True) for row in rows]


def gradients(adapted: AdaptedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = adapted.trainable()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def test_every_regularizer_of_the_spec_has_a_penalty() -> None:
    assert set(PENALTIES) == set(REGULARIZER_KINDS)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", REGULARIZER_KINDS)
def test_an_unmoved_model_pays_nothing_and_a_moved_one_pays(
    pretrained: VisionLanguageModel, kind: str, method: object
) -> None:
    adapted = adapted_by(pretrained, method)
    adapted.model.module.eval()
    still = {"target_pct": 0} if kind == "entropy_shift" else {}
    unmoved = penalty(pretrained, adapted, kind=kind, weight=1.0, **still)
    assert unmoved.item() == pytest.approx(0, abs=1e-6)
    moved(adapted)
    adapted.model.module.eval()
    assert (
        penalty(pretrained, adapted, kind=kind, weight=1.0, **PUSHING.get(kind, {})).item() > 1e-6
    )


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_apr_is_the_divergence_of_eager_attention_and_has_its_gradient(
    pretrained: VisionLanguageModel, method: str
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    adapted.model.module.eval()
    ours = penalty(pretrained, adapted, kind="apr", weight=2.0)
    with torch.no_grad():
        before = eager_rows(pretrained)
    layers = [
        functional.kl_div(q.log(), p, reduction="none").sum(-1).mean()
        for p, q in zip(eager_rows(adapted.model), before, strict=True)
    ]
    eager = 2.0 * sum(layers) / len(layers)
    assert ours.item() == pytest.approx(eager.item(), rel=1e-4)
    expected = gradients(adapted, eager)
    found = gradients(adapted, ours)
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * float(largest))


@pytest.mark.parametrize(
    ("options", "layer_penalty"),
    [
        ({"kind": "entropy_floor", "rho": 1.1}, lambda h, h0: torch.clamp(1.1 * h0 - h, min=0)),
        ({"kind": "entropy_shift", "target_pct": 8}, lambda h, h0: (h / h0 - 1.08) ** 2),
        ({"kind": "entropy_shift", "target_pct": -8}, lambda h, h0: (h / h0 - 0.92) ** 2),
    ],
    ids=["floor", "pushed up", "pushed down"],
)
def test_penalties_of_entropy_are_those_of_eager_attention_and_have_its_gradient(
    pretrained: VisionLanguageModel,
    options: dict,
    layer_penalty: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    adapted = moved(adapted_by(pretrained, "full_ft"))
    ours = penalty(pretrained, adapted, weight=1.0, **options)
    with torch.no_grad():
        before = [torch.special.entr(rows).sum(-1).mean() for rows in eager_rows(pretrained)]
    now = [torch.special.entr(rows).sum(-1).mean() for rows in eager_rows(adapted.model)]
    parts = [layer_penalty(h, h0) for h0, h in zip(before, now, strict=True)]
    eager = sum(parts) / len(parts)
    assert eager > 0
    assert ours.item() == pytest.approx(eager.item(), rel=1e-4)
    expected, found = gradients(adapted, eager), gradients(adapted, ours)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * float(largest))


def test_a_layer_above_its_floor_pays_nothing(pretrained: VisionLanguageModel) -> None:
    adapted = moved(adapted_by(pretrained, "full_ft"))
    assert penalty(pretrained, adapted, kind="entropy_floor", weight=1.0, rho=0.01) == 0


def test_feature_distance_is_the_signal_of_that_name(pretrained: VisionLanguageModel) -> None:
    from driftscope.signals.representation import feature_distance

    adapted = moved(adapted_by(pretrained, "full_ft"))
    expected = feature_distance(
        adapted.model.embed_images(pixels()), pretrained.embed_images(pixels())
    )
    ours = penalty(pretrained, adapted, kind="feature_distance", weight=1.0)
    assert ours.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_l2_sp_is_half_the_squared_distance_of_the_effective_weights(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    before, after = encoder_state(pretrained), encoder_state(adapted.model)
    squared = sum(
        float((after[name].double() - before[name].double()).square().sum()) for name in before
    )
    ours = penalty(pretrained, adapted, kind="l2_sp", weight=1.0)
    assert ours.item() == pytest.approx(squared / 2, rel=1e-4)
    moves = displacements(adapted.model, pretrained)
    assert sum(m.square().sum() for m in moves).item() == pytest.approx(squared, rel=1e-4)


def test_random_texts_change_with_the_step_and_come_from_the_seed(
    pretrained: VisionLanguageModel,
) -> None:
    adapted = moved(adapted_by(pretrained, "full_ft"))
    regularizer = {"kind": "random_text", "weight": 1.0, "num_texts": 5}
    values = [penalty(pretrained, adapted, step, **regularizer).item() for step in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_the_random_text_penalty_is_half_the_mean_squared_change_of_the_logits(
    pretrained: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from driftscope import regularize

    texts = functional.normalize(pretrained.embed_texts(CLASSES), dim=-1)
    monkeypatch.setattr(regularize, "random_text_directions", lambda *_: texts)
    adapted = moved(adapted_by(pretrained, "full_ft"))
    logits = [
        pretrained.logit_scale
        * functional.cosine_similarity(model.embed_images(pixels())[:, None], texts[None], dim=-1)
        for model in (adapted.model, pretrained)
    ]
    expected = (logits[0] - logits[1]).square().mean() / 2
    ours = penalty(pretrained, adapted, kind="random_text", weight=1.0)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)


def test_random_texts_are_ordinary_tokens_in_the_tokenizers_frame(
    pretrained: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from driftscope.regularize import random_text_directions

    seen: list[torch.Tensor] = []
    encode = pretrained.module.get_text_features

    def noting(**tokens: torch.Tensor) -> object:
        seen.append(tokens["input_ids"])
        return encode(**tokens)

    monkeypatch.setattr(pretrained.module, "get_text_features", noting)
    directions = random_text_directions(pretrained, 40, 8, seed=1)
    (tokens,) = seen
    assert tokens.shape == (40, 10)
    assert set(tokens[:, 0].tolist()) == {2}
    assert set(tokens[:, -1].tolist()) == {3}
    assert set(tokens[:, 1:-1].flatten().tolist()) == set(range(4, 11))
    assert torch.allclose(directions.norm(dim=-1), torch.ones(40))


# DoRA treats its norm as a constant in the backward pass, so its gradient is not the derivative.
@pytest.mark.parametrize("method", [one for one in METHODS if one != "dora"], ids=str)
@pytest.mark.parametrize("kind", REGULARIZER_KINDS)
def test_gradients_are_the_finite_differences(
    pretrained: VisionLanguageModel, kind: str, method: object
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    adapted.model.module.eval()
    options = {"kind": kind, "weight": 1.0, **PUSHING.get(kind, {})}
    gradient = gradients(adapted, penalty(pretrained, adapted, **options))
    length = torch.stack([g.norm() for g in gradient.values()]).norm()
    step = 3e-4
    values = []
    for sign in (1, -2, 1):  # forth, back past the start, and to the start again
        with torch.no_grad():
            for name, parameter in adapted.trainable().items():
                if name in gradient:
                    parameter.add_(sign * step * gradient[name] / length)
            values.append(float(penalty(pretrained, adapted, **options)))
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float(length), rel=0.03)


def test_a_forward_pass_that_fails_leaves_its_attention_to_no_other(
    pretrained: VisionLanguageModel,
) -> None:
    spec = parse_run_spec(
        {
            "method": "full_ft",
            "learning_rate": 1e-3,
            "regularizers": [{"kind": "apr", "weight": 1.0}],
        }
    )
    regularization = Regularization(
        spec, adapted_by(pretrained, "full_ft"), Pretrained(pretrained, [])
    )
    with pytest.raises(RuntimeError), regularization.watching():
        raise RuntimeError
    assert regularization._captured is None


def test_a_frozen_encoder_has_nothing_to_regularize(pretrained: VisionLanguageModel) -> None:
    spec = parse_run_spec(
        {
            "method": "linear_probe",
            "learning_rate": 1e-3,
            "regularizers": [{"kind": "apr", "weight": 1.0}],
        }
    )
    adapted = adapted_by(pretrained, "linear_probe")
    assert not Regularization(spec, adapted, Pretrained(pretrained, [])).is_active
