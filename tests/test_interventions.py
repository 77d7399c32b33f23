"""Interventions: what each changes, and that it changes nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from families import FAMILIES, toy_family_installed
from test_adapt import adapted_by, moved
from test_train import equal, weights

import driftscope as ds
from driftscope.adapt import AdaptedModel, adapt, load_classifier
from driftscope.adapt.parts import trained_parts
from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_state
from driftscope.config import RunSpec, parse_run_spec
from driftscope.config.interventions import Restore
from driftscope.errors import ConfigError, ModelError
from driftscope.interventions import Interventions, freeze
from driftscope.prepared_run import prepare
from driftscope.records import ADAPTED_FOLDER, RunRecord, intervention_sentences
from driftscope.run import run_one
from driftscope.train import make_optimizer
from driftscope.transfer.features import linear_classifier

QUERIES_KEYS, VALUES_OUT = ("q_proj", "k_proj"), ("v_proj", "out_proj")


@pytest.fixture(scope="module")
def pretrained(tiny_clip: Path) -> VisionLanguageModel:
    return ds.load(tiny_clip)


def spec_of(method: object, *interventions: dict, **more: object) -> RunSpec:
    values = {"method": method, "learning_rate": 1e-3, "interventions": interventions, "epochs": 2}
    return parse_run_spec({**values, **more})


def of(adapted: AdaptedModel, spec: RunSpec) -> Interventions:
    return Interventions(adapted, spec, 4, lambda: None)


def layer_of(name: str) -> str:
    return next((one for one in QUERIES_KEYS + VALUES_OUT if f".{one}." in name), "")


# ---------------------------------------------------------------- the parts


OF_ITSELF = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Attention's layers in a block that has no part of its own for it, as the toy family's."""


@pytest.fixture(scope="module", autouse=True)
def _toy_family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toy_family_installed(tmp_path_factory.mktemp("site")):
        yield


@cache
def adapted_family(name: str) -> AdaptedModel:
    half = (0.5,) * 3
    model = VisionLanguageModel(FAMILIES[name].module(), None, 32, half, half, name)
    return adapt(model, spec_of("full_ft").method, 3, 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_attention_projections_are_found_and_nothing_else(name: str) -> None:
    adapted = adapted_family(name)
    found = {
        what: set(trained_parts(adapted, Restore(what=what)))
        for what in ("queries_keys", "values_out", "attention", "blocks")
    }
    attentions = {
        one
        for one in found["blocks"]
        if (".self_attn." in one or ".attention." in one or one.split(".")[-2] in OF_ITSELF)
        and "norm" not in one
    }
    assert found["attention"] == attentions
    assert found["queries_keys"] | found["values_out"] == attentions
    assert not found["queries_keys"] & found["values_out"]
    assert len(found["queries_keys"]) in (4 * 2, 3 * 2)  # two blocks; keys of DINOv3 have no bias
    second = set(trained_parts(adapted, Restore(what="blocks", blocks=(2,))))
    assert 0 < len(second) == len(found["blocks"]) / 2


@pytest.mark.parametrize(
    ("method", "intervention", "sentence"),
    [
        ("linear_probe", {"what": "blocks"}, "of which this training changes nothing"),
        ({"kind": "lora", "targets": ["v_proj"]}, {"what": "queries_keys"}, "queries and keys of"),
        ("full_ft", {"what": "blocks", "blocks": [3]}, r"names block 3, but .* has 2"),
    ],
)
def test_what_a_training_does_not_have_is_refused_in_a_sentence(
    pretrained: VisionLanguageModel, method: object, intervention: dict, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        of(adapted_by(pretrained, method), spec_of(method, {"kind": "restore", **intervention}))


@pytest.mark.parametrize(
    ("method", "intervention", "sentence"),
    [
        ("full_ft", {"kind": "max_norm", "share": 0.1}, "use lora or rslora"),
        ("full_ft", {"kind": "reset", "what": "blocks"}, "give epoch or step, not both"),
        ("full_ft", {"kind": "rest", "what": "blocks"}, r"unknown intervention 'rest': .*'reset'"),
        ("full_ft", {"kind": "freeze", "what": "qk"}, "queries_keys"),
        ("full_ft", {"kind": "reset", "what": "blocks", "epoch": 2}, "the run has 8 steps"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    pretrained: VisionLanguageModel, method: str, intervention: dict, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        of(adapted_by(pretrained, method), spec_of(method, intervention))


def test_interventions_name_the_run_and_stand_in_its_label_in_one_order() -> None:
    bound, back = {"kind": "max_norm", "share": 0.1}, {"kind": "restore", "what": "queries_keys"}
    one, other = spec_of("lora", bound, back), spec_of("lora", back, bound)
    assert one == other
    assert one.regularizer_label == "max_norm_0.1+restore_queries_keys"
    late = spec_of("full_ft", {"kind": "reset", "what": "blocks", "blocks": [6, 5], "step": 9})
    assert late.regularizer_label == "reset_blocks_step9_of5-6"
    assert one.options_label == "default"
    assert len({ds.config.run_id(spec) for spec in (one, late, spec_of("lora"))}) == 3


# ---------------------------------------------------------------- one at a time


@pytest.mark.parametrize("method", ["full_ft", "lora", "dora", {"kind": "peft", "type": "HRA"}])
def test_a_reset_puts_its_part_and_its_momentum_back_and_leaves_all_else_to_the_bit(
    pretrained: VisionLanguageModel, method: object
) -> None:
    adapted = adapted_by(pretrained, method)
    spec = spec_of(method, {"kind": "reset", "what": "queries_keys", "blocks": [2], "step": 3})
    interventions, optimizer = of(adapted, spec), make_optimizer(adapted, spec)
    start = weights(adapted)
    for parameter in adapted.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved(adapted)
    assert interventions.after_step(2, optimizer) == []
    before, state = weights(adapted), copy.deepcopy(optimizer.state_dict()["state"])
    (event,) = interventions.after_step(3, optimizer)
    assert event["intervention"] == "reset_queries_keys_step3_of2"
    part = {n for n in before if ".layers.1." in n and layer_of(n) in QUERIES_KEYS}
    undone = sum((before[n].double() - start[n].double()).square().sum() for n in part) ** 0.5
    assert event["undone_norm"] == pytest.approx(float(undone))
    now, momenta = weights(adapted), optimizer.state_dict()["state"]
    for index, name in enumerate(
        n for group in optimizer.param_groups for p in group["params"]
        for n, one in adapted.trainable().items() if one is p
    ):  # fmt: skip
        assert torch.equal(now[name], (start if name in part else before)[name]), name
        assert torch.equal(momenta[index]["exp_avg_sq"], state[index]["exp_avg_sq"])
        kept = torch.zeros_like(start[name]) if name in part else state[index]["exp_avg"]
        assert torch.equal(momenta[index]["exp_avg"], kept), name


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_a_bound_shrinks_what_is_too_large_to_the_bound_and_nothing_else(
    pretrained: VisionLanguageModel, method: str
) -> None:
    adapted = moved(adapted_by(pretrained, method))
    before, deltas = weights(adapted), changes(adapted, pretrained)
    shares = {name: delta.norm() / base.norm() for name, (delta, base) in deltas.items()}
    share = float(sorted(shares.values())[len(shares) // 2])
    events = of(adapted, spec_of(method, {"kind": "max_norm", "share": share})).after_step(
        4, make_optimizer(adapted, spec_of(method))
    )
    too_large = {name for name, one in shares.items() if one > share * 1.0001}
    assert len(too_large) in (1, 2)  # of four: q and v of two blocks
    assert events[0]["num_shrunk"] in (len(too_large), len(too_large) + 1)  # the median may round
    for name, (delta, base) in changes(adapted, pretrained).items():
        if name in too_large:
            factor = share / shares[name]
            # float32 products of rank 8, on either side
            torch.testing.assert_close(delta, factor * deltas[name][0], rtol=1e-4, atol=1e-7)
            assert delta.norm() <= share * base.norm() * (1 + 1e-5)
    untouched = {n for n in before if "lora_B" not in n}
    assert equal(*({n: one[n] for n in untouched} for one in (weights(adapted), before)))


def changes(
    adapted: AdaptedModel, pretrained: VisionLanguageModel
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each adapted layer, what merging adds to its weight, and that weight."""
    after, before = encoder_state(adapted.model), encoder_state(pretrained)
    return {
        name: (after[name].double() - base.double(), base.double())
        for name, base in before.items()
        if name.endswith(("q_proj.weight", "v_proj.weight"))
    }


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_what_is_frozen_is_not_trained_and_all_else_is(
    pretrained: VisionLanguageModel, method: str
) -> None:
    adapted = adapted_by(pretrained, method)
    every = set(adapted.trainable())
    freeze(adapted, spec_of(method, {"kind": "freeze", "what": "queries_keys"}))
    frozen = every - set(adapted.trainable())
    assert frozen == {name for name in every if layer_of(name) in QUERIES_KEYS}
    moved(adapted)
    after, before = encoder_state(adapted.model), encoder_state(pretrained)
    same = {name for name in before if torch.equal(after[name].to(before[name]), before[name])}
    assert {name for name in before if layer_of(name) in QUERIES_KEYS} <= same


def test_a_freeze_that_leaves_nothing_to_train_is_refused(pretrained: VisionLanguageModel) -> None:
    method = {"kind": "lora", "train_projection": False}
    with pytest.raises(ModelError, match="use linear_probe"):
        freeze(
            adapted_by(pretrained, method), spec_of(method, {"kind": "freeze", "what": "blocks"})
        )


# ---------------------------------------------------------------- whole runs


def run(tiny_run: dict, folder: Path, **change: object) -> RunRecord:
    return run_one(parse_run_spec({**tiny_run, **change}), folder)


def kept(folder: Path, pretrained: VisionLanguageModel) -> dict[str, torch.Tensor]:
    """The encoder that a run keeps, adapters merged."""
    before = encoder_state(pretrained)
    after = encoder_state(ds.load(folder))
    return {name: one.to(before[name].dtype) for name, one in after.items()}


@pytest.mark.parametrize("method", ["full_ft", "lora"])
@pytest.mark.parametrize("what", ["queries_keys", "values_out"])
def test_a_restored_run_trains_as_without_and_keeps_the_part_at_w0(
    tiny_run: dict, tmp_path: Path, pretrained: VisionLanguageModel, method: str, what: str
) -> None:
    values = {**tiny_run, "method": method, "epochs": 1}
    plain = run(values, tmp_path / "plain")
    back = run(values, tmp_path / "back", interventions=[{"kind": "restore", "what": what}])
    losses = [
        [event["train_loss"] for event in one.events if event.kind == "epoch"]
        for one in (plain, back)
    ]
    assert losses[0] == losses[1]
    (event,) = [event for event in back.events if event.kind == "intervention"]
    assert (event["intervention"], event["epoch"]) == (f"restore_{what}", 1)
    assert event["undone_norm"] > 0
    before = encoder_state(pretrained)
    found, trained = kept(tmp_path / "back", pretrained), kept(tmp_path / "plain", pretrained)
    part = QUERIES_KEYS if what == "queries_keys" else VALUES_OUT
    for name in before:
        right = before if layer_of(name) in part else trained
        assert torch.equal(found[name], right[name]), name
    assert any(not torch.equal(trained[n], before[n]) for n in before if layer_of(n) in part)
    drifts = [one.result.selected.drift.weight_drift for one in (plain, back)]
    assert drifts[1] < drifts[0]  # the record is of the model that is kept


def test_a_reset_run_is_the_plain_one_until_then_and_tells_it(
    tiny_run: dict, tmp_path: Path
) -> None:
    plain = run(tiny_run, tmp_path / "plain")
    back = [{"kind": "reset", "what": "blocks", "epoch": 1}]
    reset = run(tiny_run, tmp_path / "reset", interventions=back)
    first, second = (
        [event for event in one.events if event.kind == "epoch"] for one in (plain, reset)
    )
    assert first[0]["train_loss"] == second[0]["train_loss"]
    assert first[0]["weight_drift"] > second[0]["weight_drift"]
    assert first[1]["train_loss"] != second[1]["train_loss"]
    (event,) = [event for event in reset.events if event.kind == "intervention"]
    assert event["step"] == 2
    norm = f"{event['undone_norm']:.3g}"
    sentence = f"Step 2: reset_blocks_epoch1 undid a change of norm {norm}."
    assert intervention_sentences(reset) == [sentence]
    assert intervention_sentences(plain) == []


def test_a_restored_model_scores_on_the_test_images_by_the_classifier_it_keeps(
    tiny_run: dict, tmp_path: Path
) -> None:
    back = [{"kind": "restore", "what": "queries_keys"}]
    record = run(tiny_run, tmp_path / "run", interventions=back)
    prepared = prepare(record.spec)
    embeddings = ds.load(tmp_path / "run").embed_images(prepared.test_pixels)
    classifier = load_classifier(tmp_path / "run" / ADAPTED_FOLDER)
    fitted = linear_classifier(
        ds.load(tmp_path / "run").embed_images(prepared.images.pixels).float(),
        prepared.images.labels,
        3,
    )
    assert equal(*(dict(one.state_dict()) for one in (classifier, fitted)))
    hits = (classifier(embeddings).argmax(-1) == prepared.test_labels).double().mean()
    assert record.result.selected.test_accuracy_pct == pytest.approx(100 * float(hits))


def test_a_step_of_high_loss_goes_at_a_lower_rate(
    tiny_run: dict, tmp_path: Path, pretrained: VisionLanguageModel
) -> None:
    def adaptive(loss: float) -> dict:
        return {"interventions": [{"kind": "loss_adaptive_rate", "loss_nats": loss}]}

    rule = of(adapted_by(pretrained, "full_ft"), spec_of("full_ft", **adaptive(0.1)))
    assert [rule.rate_factor(loss) for loss in (0.4, 0.1, 0.01)] == pytest.approx([0.5, 1.0, 1.0])
    (event,) = rule.after_step(4, make_optimizer(rule.adapted, rule.spec))
    assert event["mean_factor"] == pytest.approx(2.5 / 3)
    plain = run({**tiny_run, "epochs": 1}, tmp_path / "plain")
    same = run({**tiny_run, "epochs": 1}, tmp_path / "same", **adaptive(1e6))
    slow = run({**tiny_run, "epochs": 1}, tmp_path / "slow", **adaptive(1e-8))
    drifts = [one.result.selected.drift.weight_drift for one in (plain, same, slow)]
    assert drifts[0] == drifts[1]
    assert 0 < drifts[2] < 0.01 * drifts[0]
    assert intervention_sentences(same) == [
        "Step 2: loss_adaptive_rate_1e+06 let the steps of the epoch run at 100 % of their "
        "learning rates on average."
    ]
