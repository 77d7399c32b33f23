"""Quick dropout against what dropout is."""

import pytest
import torch
from torch import nn

from driftscope.adapt import adapt, seeded
from driftscope.adapt.dropout import QuickDropout, use_quick_dropout
from driftscope.config import parse_run_spec
from driftscope.sources import load

CPU = torch.device("cpu")


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_entries_are_dropped_as_often_as_asked_and_the_rest_scaled_up(probability: float) -> None:
    with seeded(CPU, 0):
        output = QuickDropout(probability)(torch.ones(1001, 999))
    share = float((output == 0).double().mean())
    error = (probability * (1 - probability) / output.numel()) ** 0.5
    assert share == pytest.approx(probability, abs=5 * error + 2**-17)
    assert torch.unique(output)[1:].tolist() == pytest.approx([1 / (1 - probability)], rel=2e-4)
    assert float(output.double().mean()) == pytest.approx(1, abs=6 * error / (1 - probability))


def test_neighbouring_entries_are_dropped_independently() -> None:
    with seeded(CPU, 1):
        dropped = QuickDropout(0.5)(torch.ones(400_000)).eq(0).double()
    for distance in (1, 2, 3, 4, 5):
        both = float((dropped[distance:] * dropped[:-distance]).mean())
        assert both == pytest.approx(0.25, abs=0.005)


def test_the_gradient_is_that_of_the_kept_entries() -> None:
    values = torch.randn(7, 5, requires_grad=True)
    with seeded(CPU, 2):
        output = QuickDropout(0.4)(values)
    output.sum().backward()
    torch.testing.assert_close(values.grad * values.detach(), output.detach())


def test_the_seed_decides_the_mask() -> None:
    masks = []
    for seed in (3, 3, 4):
        with seeded(CPU, seed):
            masks.append(QuickDropout(0.5)(torch.ones(1000)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("probability", [0.0, 0.05, 1.0])
def test_outside_training_and_at_the_ends_it_is_torchs(probability: float) -> None:
    values = torch.randn(50)
    assert torch.equal(QuickDropout(probability).eval()(values), values)
    if probability != 0.05:
        expected = nn.Dropout(probability)(values)
        assert torch.equal(QuickDropout(probability)(values), expected)


def test_a_compiled_model_stays_one_graph() -> None:
    dropout = QuickDropout(0.5).train()
    compiled = torch.compile(dropout, backend="eager", fullgraph=True)
    with seeded(CPU, 3):
        found = compiled(torch.ones(1000))
    with seeded(CPU, 3):
        assert torch.equal(found, nn.Dropout(0.5)(torch.ones(1000)))


def test_every_dropout_of_an_adapter_is_quick_and_in_its_modules_mode() -> None:
    spec = parse_run_spec({"method": "lora", "learning_rate": 1e-3})
    adapted = adapt(load("mini"), spec.method, 3, seed=0)
    kinds = [type(m) for m in adapted.model.module.modules() if isinstance(m, nn.Dropout)]
    assert kinds == [QuickDropout] * 12  # q and v of six blocks
    module = nn.Sequential(nn.Dropout(0.1).eval())
    use_quick_dropout(module)
    assert type(module[0]) is QuickDropout
    assert not module[0].training
