import json
import math
from pathlib import Path

import pytest
import torch

from driftscope.adapt import AdaptedModel
from driftscope.backbones.model import VisionLanguageModel
from driftscope.budget import fit_classifier
from driftscope.checkpoints import Checkpoints, Training
from driftscope.config import RunSpec, parse_run_spec
from driftscope.errors import ConfigError
from driftscope.prepared_run import PreparedRun, prepare, training_images
from driftscope.reference import Embedded
from driftscope.regularize import Pretrained, Regularization
from driftscope.run import adapted_model
from driftscope.train import (
    Evaluation,
    OnEvent,
    TrainingImages,
    learning_rate_at,
    make_optimizer,
    probe_steps,
    steps_per_epoch,
    train,
)
from driftscope.transfer.features import linear_classifier


def begun(values: dict) -> tuple[RunSpec, PreparedRun, TrainingImages, AdaptedModel]:
    spec = parse_run_spec(values)
    prepared = prepare(spec)
    images = training_images(prepared, spec)
    return spec, prepared, images, adapted_model(prepared, spec, images)


def trained(
    values: dict, folder: Path, on_event: OnEvent = lambda _event: None
) -> tuple[AdaptedModel, Training]:
    spec, prepared, images, adapted = begun(values)
    entropy = prepared.reference.reading.per_layer("entropy")

    def evaluate(_pool: Embedded | None) -> Evaluation:
        torch.rand(1)  # whatever an evaluation draws, the training must not see it
        return prepared.evaluate(adapted)

    training = train(
        adapted,
        images if adapted.encoder_is_frozen else prepared.images,
        spec,
        Checkpoints(folder, spec),
        evaluate,
        regularization=Regularization(spec, adapted, Pretrained(prepared.pretrained, entropy)),
        on_event=on_event,
    )
    return adapted, training


def weights(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in adapted.trainable().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_rate_warms_up_linearly_and_falls_by_a_cosine_to_zero() -> None:
    spec = parse_run_spec({"method": "full_ft", "learning_rate": 1.0})
    rates = [learning_rate_at(step, 200, spec) for step in range(200)]
    assert rates[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert rates[10] == 1.0
    assert rates[105] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_schedule_is_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    spec = parse_run_spec({"method": "full_ft", "learning_rate": 3e-4})
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=3e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, 5, 100)
    for step in range(5, 100):
        while schedule.last_epoch < step:
            optimizer.step()
            schedule.step()
        assert learning_rate_at(step, 100, spec) == pytest.approx(schedule.get_last_lr()[0])


def test_training_fits_what_can_be_learned(tiny_run: dict, tmp_path: Path) -> None:
    _, training = trained({**tiny_run, "epochs": 12, "learning_rate": 3e-3}, tmp_path)
    losses = [event["train_loss"] for event in training.events]
    assert losses[-1] < 0.5 * losses[0]
    assert training.selected["val_accuracy_pct"] > 90


def test_two_trainings_of_one_seed_are_equal_to_the_bit_and_another_seed_differs(
    tiny_run: dict, tmp_path: Path
) -> None:
    runs = [
        weights(trained({**tiny_run, "method": "lora", "seed": seed}, tmp_path / str(i))[0])
        for i, seed in enumerate((1, 1, 2))
    ]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_training_leaves_the_global_random_state_alone(tiny_run: dict, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained(tiny_run, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_and_rates_of_a_seed_see_the_same_images_in_the_same_order(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    embed = VisionLanguageModel.image_embeddings

    def noting(self: VisionLanguageModel, pixels: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen[run].append(pixels.clone())
        return embed(self, pixels)

    monkeypatch.setattr(VisionLanguageModel, "image_embeddings", noting)
    for run, change in {
        "full": {"method": "full_ft"},
        "lora": {"method": "lora", "learning_rate": 1e-2},
        "other": {"method": "full_ft", "seed": 3},
    }.items():
        seen[run] = []
        trained({**tiny_run, **change}, tmp_path / run)
    assert len(seen["full"]) == len(seen["lora"]) == 2 * 2
    assert all(map(torch.equal, seen["full"], seen["lora"]))
    assert not all(map(torch.equal, seen["full"], seen["other"]))


def test_a_run_whose_loss_is_not_finite_ends_as_diverged_with_its_last_good_weights(
    tiny_run: dict, tmp_path: Path
) -> None:
    values = {**tiny_run, "epochs": 3}
    good = trained(values, tmp_path / "good")[1]
    spec, prepared, images, adapted = begun(values)
    kept: list[dict[str, torch.Tensor]] = []

    def spoil(event: dict) -> None:
        kept.append(weights(adapted))
        if event["kind"] == "epoch" and event["epoch"] == 2:
            with torch.no_grad():
                adapted.classifier.weight.fill_(math.inf)

    checkpoints = Checkpoints(tmp_path / "bad", spec)
    training = train(
        adapted,
        images,
        spec,
        checkpoints,
        lambda pool: prepared.evaluate(adapted, pool),
        on_event=spoil,
    )
    assert training.diverged
    assert training.events[:2] == good.events[:2]
    assert training.events[2]["kind"] == "diverged"
    assert "the loss is nan at step" in training.events[2]["reason"]
    assert equal(weights(adapted), kept[1])


@pytest.mark.parametrize(
    ("method", "spoiled"),
    [
        ("full_ft", "encoder.visual_projection.weight"),
        ("full_ft", "classifier.weight"),
        ("flyp", "encoder.text_projection.weight"),
    ],
)
def test_a_part_whose_output_is_not_finite_ends_the_run_as_diverged(
    tiny_run: dict, tmp_path: Path, method: str, spoiled: str
) -> None:
    spec, prepared, images, adapted = begun({**tiny_run, "method": method, "epochs": 1})

    def evaluate_spoiled(_pool: Embedded | None) -> Evaluation:
        with torch.no_grad():
            adapted.trainable()[spoiled].fill_(math.nan)
        return prepared.evaluate(adapted)

    training = train(adapted, images, spec, Checkpoints(tmp_path, spec), evaluate_spoiled)
    assert training.diverged
    assert training.last is None
    assert "NaN or infinite values" in training.events[0]["reason"]


def test_an_epoch_has_a_step_for_every_started_batch(tiny_run: dict) -> None:
    prepared = prepare(parse_run_spec(tiny_run))
    num_images = len(prepared.images.labels)
    for batch_size in (1, 7, num_images, num_images + 1):
        spec = parse_run_spec({**tiny_run, "batch_size": batch_size})
        assert steps_per_epoch(spec, prepared.images) == math.ceil(num_images / batch_size)


def test_events_are_json_and_the_accuracy_is_that_of_the_weights(
    tiny_run: dict, tmp_path: Path
) -> None:
    adapted, training = trained({**tiny_run, "epochs": 1}, tmp_path)
    event = json.loads(json.dumps(training.events[0]))
    evaluator = prepare(parse_run_spec(tiny_run))
    again = evaluator.evaluate(adapted)
    assert event["val_accuracy_pct"] == again.val_accuracy_pct
    assert again.scalars.items() <= event.items()
    assert (event["epoch"], event["step"]) == (1, 2)


@pytest.mark.parametrize("method", ["full_ft", "lora", "flyp"])
@pytest.mark.parametrize("probe_at", [1, "log", [1, 3]])
def test_a_probed_and_an_unprobed_run_train_identically(
    tiny_run: dict, tmp_path: Path, method: str, probe_at: object
) -> None:
    values = {**tiny_run, "method": method, "batch_size": 8}
    plain = trained(values, tmp_path / "plain")
    probed = trained({**values, "probe_at": probe_at}, tmp_path / "probed")
    assert equal(weights(plain[0]), weights(probed[0]))
    epochs = [event for event in probed[1].events if event["kind"] == "epoch"]
    assert epochs == plain[1].events
    between = [event["step"] for event in probed[1].events if event["kind"] == "probe"]
    assert between == {1: [1, 2, 3, 5, 6, 7], "log": [1, 2], str([1, 3]): [1, 3]}.get(
        probe_at if not isinstance(probe_at, list) else str(probe_at)
    )


def test_drift_grows_from_the_first_probe_on(tiny_run: dict, tmp_path: Path) -> None:
    _, training = trained({**tiny_run, "batch_size": 4, "probe_at": "log"}, tmp_path)
    probes = [event for event in training.events if event["kind"] == "probe"]
    assert [event["step"] for event in probes] == [1, 2, 4]  # 8 ends the epoch
    assert 0 < probes[0]["weight_drift"] < probes[-1]["weight_drift"]
    assert "retention_pct" in probes[0]


def test_probe_steps_are_every_so_many_or_listed_or_powers_of_two() -> None:
    def steps(probe_at: object) -> list[int]:
        values = {"method": "full_ft", "learning_rate": 1e-3, "probe_at": probe_at}
        return sorted(probe_steps(parse_run_spec(values), 20))

    assert steps("epoch") == []
    assert steps(6) == [6, 12, 18]
    assert steps("log") == [1, 2, 4, 8, 16]
    assert steps([3, 20]) == [3, 20]
    with pytest.raises(ConfigError, match="lists step 21, but the run has 20 steps"):
        steps([3, 21])


@pytest.mark.parametrize(
    ("method", "penalties"),
    [
        ("full_ft", ()),
        ("full_ft", ("apr", "l2_sp", "feature_distance", "random_text")),
        ({"kind": "lora", "dropout": 0.0}, ()),  # masks are drawn per forward pass
        ("linear_probe", ()),
    ],
    ids=["full_ft", "full_ft with penalties", "lora", "linear_probe"],
)
def test_micro_batches_give_the_step_of_the_whole_batch_up_to_rounding(
    tiny_run: dict, tmp_path: Path, method: object, penalties: tuple[str, ...]
) -> None:
    regularizers = [{"kind": kind, "weight": 1.0} for kind in penalties]
    values = {**tiny_run, "method": method, "epochs": 1, "regularizers": regularizers}
    whole = trained(values, tmp_path / "whole")[0]
    parts = trained({**values, "micro_batches": 3}, tmp_path / "parts")[0]
    start = weights(begun(values)[3])
    for name, tensor in weights(whole).items():
        if name.endswith("k_proj.bias"):  # its gradient is rounding alone, which AdamW scales up
            continue
        moved = (tensor - start[name]).norm()
        assert (weights(parts)[name] - tensor).norm() <= 0.02 * moved + 1e-7, name


def test_norms_and_biases_are_spared_from_weight_decay_on_demand(tiny_run: dict) -> None:
    spec, _, _, adapted = begun({**tiny_run, "decay_norms_and_biases": False})
    groups = make_optimizer(adapted, spec).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    spared = {id(parameter) for parameter in groups[1]["params"]}
    names = {name for name, p in adapted.trainable().items() if id(p) in spared}
    assert all(name.endswith((".bias", "embedding")) or "norm" in name for name in names)
    assert len(groups[0]["params"]) + len(spared) == len(adapted.trainable())

    *_, scaled = begun({**tiny_run, "method": "ia3"})
    spared = {id(parameter) for parameter in make_optimizer(scaled, spec).param_groups[1]["params"]}
    scales = {id(tensor) for name, tensor in scaled.trainable().items() if "ia3_l" in name}
    assert len(scales & spared) == 6

    default = make_optimizer(adapted, parse_run_spec(tiny_run)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in default] == [
        (len(adapted.trainable()), 0.01)
    ]


def test_bfloat16_is_refused_on_a_cpu_without_its_instructions(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(ConfigError, match="but this run is on a cpu without"):
        trained({**tiny_run, "precision": "bfloat16"}, tmp_path)


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this CPU does not multiply bfloat16"
)
@pytest.mark.parametrize(
    "change",
    [
        {"method": "full_ft"},
        {"method": "lora", "regularizers": [{"kind": "apr", "weight": 0.1}]},
        {"method": "flyp"},
    ],
    ids=["full_ft", "lora with a penalty", "flyp"],
)
def test_bfloat16_trains_nearly_as_float32_and_keeps_float32_weights(
    tiny_run: dict, tmp_path: Path, change: dict
) -> None:
    _, exact = trained({**tiny_run, **change}, tmp_path / "exact")
    halved, half = trained({**tiny_run, **change, "precision": "bfloat16"}, tmp_path / "half")
    assert all(tensor.dtype == torch.float32 for tensor in halved.trainable().values())
    for one, other in zip(exact.events, half.events, strict=True):
        assert other["train_loss"] != one["train_loss"]
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.03)


def test_a_linear_probe_trains_on_features_as_it_would_through_the_encoder(
    tiny_run: dict, tmp_path: Path
) -> None:
    values = {**tiny_run, "method": "linear_probe", "epochs": 3}
    cached = trained(values, tmp_path / "cached")[0]
    spec, prepared, _, adapted = begun(values)
    train(
        adapted,
        prepared.images,
        spec,
        Checkpoints(tmp_path / "live", spec),
        lambda pool: prepared.evaluate(adapted, pool),
    )
    for name, tensor in weights(adapted).items():
        torch.testing.assert_close(weights(cached)[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_linear_probe_never_runs_the_encoder_in_training(
    tiny_run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**tiny_run, "method": "linear_probe"}
    begun(values)  # features and reference are taken here

    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was run")

    monkeypatch.setattr(VisionLanguageModel, "image_embeddings", refuse)
    _, training = trained(values, tmp_path)
    assert training.last["drift"]["cka"] == pytest.approx(1.0)
    assert training.last["drift"]["weight_drift"] == 0.0


def test_lp_ft_starts_from_the_head_of_a_linear_probe(tiny_run: dict) -> None:
    probe = {"method": {"kind": "lp_ft", "probe_epochs": 30, "probe_learning_rate": 0.03}}
    *_, from_probe = begun({**tiny_run, **probe})
    *_, from_scratch = begun(tiny_run)
    evaluator = prepare(parse_run_spec(tiny_run))
    fitted = evaluator.evaluate(from_probe)
    assert fitted.val_accuracy_pct > evaluator.evaluate(from_scratch).val_accuracy_pct
    assert fitted.scalars["weight_drift"] == 0.0


UNDER_A_BUDGET = {
    "pool": "concepts100",
    "pool_images": 40,
    "budget": {"retention_pct": 90, "images": 40},
}


def test_under_a_budget_training_starts_from_a_classifier_of_the_pretrained_embeddings(
    tiny_run: dict,
) -> None:
    _, prepared, images, adapted = begun({**tiny_run, **UNDER_A_BUDGET})
    embeddings = prepared.pretrained.embed_images(images.pixels).float().cpu()
    fitted = linear_classifier(embeddings, images.labels, len(prepared.class_names))
    assert torch.equal(adapted.classifier.weight, fitted.weight)
    assert torch.equal(adapted.classifier.bias, fitted.bias)
    encoders = [
        {n: one for n, one in weights(found).items() if n.startswith("encoder.")}
        for found in (adapted, begun(tiny_run)[-1])
    ]
    assert encoders[0]
    assert equal(*encoders)


@pytest.mark.parametrize(
    "method",
    [{"kind": "full_ft", "head": "zero_shot"}, {"kind": "lp_ft", "probe_epochs": 2}, "flyp"],
    ids=["zero-shot head", "lp_ft", "flyp"],
)
def test_a_budget_leaves_a_classifier_that_tells_something_already(
    tiny_run: dict, method: dict | str
) -> None:
    plain = begun({**tiny_run, "method": method})[-1]
    kept = begun({**tiny_run, "method": method, **UNDER_A_BUDGET})[-1]
    assert equal(weights(plain), weights(kept))


def test_a_classifier_is_fitted_to_all_images_where_some_would_leave_out_a_class(
    tiny_run: dict,
) -> None:
    _, prepared, images, adapted = begun(tiny_run)
    embeddings = prepared.pretrained.embed_images(images.pixels).float().cpu()
    fit_classifier(adapted, images.pixels, images.labels, at_most=2)
    fitted = linear_classifier(embeddings, images.labels, len(prepared.class_names))
    assert torch.equal(adapted.classifier.weight, fitted.weight)


def test_a_penalty_of_vanishing_weight_trains_to_the_same_bits(
    tiny_run: dict, tmp_path: Path
) -> None:
    values = {**tiny_run, "method": "lora"}
    kinds = ("apr", "entropy_floor", "l2_sp", "feature_distance", "random_text")
    every = [{"kind": kind, "weight": 1e-30} for kind in kinds]
    plain = trained(values, tmp_path / "plain")[0]
    watched = trained({**values, "regularizers": every}, tmp_path / "watched")[0]
    assert equal(weights(plain), weights(watched))


@pytest.mark.parametrize(
    ("kind", "weight", "signal"),
    [("feature_distance", 100.0, "feature_distance"), ("l2_sp", 100.0, "weight_drift")],
)
def test_a_strong_penalty_holds_back_the_drift_it_is_about(
    tiny_run: dict, tmp_path: Path, kind: str, weight: float, signal: str
) -> None:
    values = {**tiny_run, "epochs": 4}
    free = trained(values, tmp_path / "free")[1]
    held = trained(
        {**values, "regularizers": [{"kind": kind, "weight": weight}]}, tmp_path / "held"
    )
    assert held[1].last["drift"][signal] < 0.5 * free.last["drift"][signal]
    assert held[1].events[-1]["penalty"] > 0
    assert "penalty" not in free.events[-1]


@pytest.mark.parametrize("regularizers", [[], [{"kind": "apr", "weight": 0.1}]], ids=str)
def test_a_compiled_model_trains_as_an_uncompiled_one_up_to_rounding(
    tiny_run: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    regularizers: list[dict],
) -> None:
    compiled: list[tuple[torch.nn.Module, bool]] = []
    compile_module = torch.nn.Module.compile

    # no C++ compiler, which takes minutes
    def trace_only(self: torch.nn.Module, *, dynamic: bool) -> None:
        compiled.append((self, dynamic))
        compile_module(self, backend="eager", dynamic=dynamic)

    monkeypatch.setattr(torch.nn.Module, "compile", trace_only)
    values = {**tiny_run, "probe_at": [1], "regularizers": regularizers}
    plain = trained(values, tmp_path / "plain")
    traced = trained({**values, "compile": True}, tmp_path / "traced")
    # not dynamic: a graph depends on the batch alone, not on those that this process had before
    assert compiled == [(traced[0].model.plain.vision_model, False)]
    for one, other in zip(plain[1].events, traced[1].events, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["cka"] == pytest.approx(other["cka"], rel=1e-3)
