"""Training under a retention budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import driftscope as ds
from driftscope import strength_search, train
from driftscope.adapt import adapt, load_classifier
from driftscope.adapt.trained_delta import TrainedDelta
from driftscope.backbones.weights import merged
from driftscope.budget import affordable_factor, first_fit_images
from driftscope.config import BUDGET_VERSION, SPEC_VERSION, canonical_spec, parse_run_spec, run_id
from driftscope.config.interventions import Restore
from driftscope.data import PixelRows
from driftscope.errors import ConfigError, ModelError, NonFiniteError
from driftscope.prepared_run import prepare, training_images
from driftscope.records import RunRecord, all_tables, budget_sentence
from driftscope.reference import Embedded
from driftscope.run import adapted_model, budget_keeper, run_one
from driftscope.train import _evaluated
from driftscope.transfer.features import linear_classifier

DAMAGING = {
    "model": "mini",
    "dataset": "terrain",
    "method": "full_ft",
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch_size": 16,
    "train_images": 48,
    "val_images": 30,
    "probe_images": 16,
    "test_images": 50,
    "transfer": ["concepts100"],
    "transfer_images": 200,
    "pool": "concepts100",
    "pool_images": 60,
}
BUDGET = {"retention_pct": 80, "images": 60}


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    spec = parse_run_spec({**DAMAGING, "budget": BUDGET})
    return run_one(spec, tmp_path_factory.mktemp("budget") / "kept")


def looks(record: RunRecord) -> list[dict]:
    return [event for event in record.events if event.kind == "budget"]


def adapted(method: str):
    spec = parse_run_spec({"method": method, "learning_rate": 1.0})
    return adapt(ds.load("mini"), spec.method, 10, 7)


def trained_of(one) -> dict:  # noqa: ANN001
    return {n: p for n, p in one.trainable().items() if not n.startswith("classifier.")}


def moved(trained: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in trained.values():
            one.add_(0.02 * torch.randn(one.shape, generator=generator))


def image_weights(one) -> dict:  # noqa: ANN001
    model = merged(one.model)
    return {
        name: weight.double()
        for name, weight in model.plain.state_dict().items()
        if model.backbone.is_encoder_weight(name)
    }


@pytest.mark.parametrize("method", ["full_ft", "last_block", "lora", "rslora", "ia3", "vera"])
def test_a_share_of_what_was_trained_is_w0_plus_that_share_of_the_change_of_the_merged_weights(
    method: str,
) -> None:
    one = adapted(method)
    trained = trained_of(one)
    delta = TrainedDelta.of(trained, one.model.module)
    with torch.no_grad():  # the second factor alone moves what the first was drawn for
        before = image_weights(one)
        moved(trained)
        after = image_weights(one)
        delta.set(trained, delta.reached(trained), 0.3)
        found = image_weights(one)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    for name in before:
        right = before[name] + 0.3 * (after[name] - before[name])
        assert torch.allclose(found[name], right, atol=2e-6), name


def test_the_ends_are_both_models_to_the_bit() -> None:
    one = adapted("full_ft")
    trained = trained_of(one)
    delta = TrainedDelta.of(trained, one.model.module)
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    moved(trained)
    reached = delta.reached(trained)
    delta.set(trained, reached, 0.5)
    delta.set(trained, reached, 1.0)
    assert all(torch.equal(trained[name], reached[name]) for name in trained)
    delta.set(trained, reached, 0.0)
    assert all(torch.equal(trained[name], before[name]) for name in trained)


def test_a_change_that_is_not_linear_in_the_adapters_weights_is_refused() -> None:
    one = adapted("dora")
    with pytest.raises(ModelError, match=r"not linear.*by: rate"):
        TrainedDelta.of(trained_of(one), one.model.module)


@pytest.mark.parametrize(
    ("left", "damage", "spent", "ahead", "factor"),
    [
        (8, 2, 1.0, 4.0, 1.0),  # 2 points a unit: the 8 left last for all 4 units ahead
        (4, 2, 1.0, 4.0, 0.5),
        (0, 2, 1.0, 4.0, 0.0),
        (-3, 2, 1.0, 4.0, 0.0),
        (4, 0, 1.0, 4.0, 1.0),  # no damage, no forecast
        (4, 2, 1.0, 0.0, 1.0),  # nothing ahead
    ],
)
def test_the_rate_falls_to_what_the_budget_can_afford(
    left: float, damage: float, spent: float, ahead: float, factor: float
) -> None:
    found = affordable_factor(left=left, damage=damage, spent=spent, ahead=ahead)
    assert found == pytest.approx(factor)
    if 0 < factor < 1:  # the whole way costs what is left
        assert found * ahead * damage / spent == pytest.approx(left)


def test_a_run_that_would_lose_more_keeps_its_budget(kept_run: RunRecord) -> None:
    found = looks(kept_run)
    assert [look["step"] for look in found] == [3, 6]
    assert found[0]["found_low_90_pct"] < 80
    assert found[0]["budget_strength"] < 1
    assert all(look["kept_low_90_pct"] >= 80 for look in found)
    assert all(look["rate_factor"] == 1 for look in found)
    epochs = [event for event in kept_run.events if event.kind == "epoch"]
    assert [one["budget_strength"] for one in epochs] == [one["budget_strength"] for one in found]
    history = ds.history_table([kept_run])
    assert history["budget_strength"].tolist() == [one["budget_strength"] for one in found]


def test_the_table_of_runs_says_which_budget_a_run_had(kept_run: RunRecord) -> None:
    assert all_tables([kept_run]).runs["budget_pct"].tolist() == [BUDGET["retention_pct"]]


def test_the_model_that_is_kept_is_the_one_that_keeps_the_budget(kept_run: RunRecord) -> None:
    """A comparison of the folder, on the same images, estimates what the last look left."""
    estimate = ds.estimate_retention(
        "mini", kept_run.folder / "adapted", "concepts100", max_images=60
    )
    at = {look["epoch"]: look for look in looks(kept_run)}[kept_run.result.selected.epoch]
    recorded = kept_run.result.selected.estimate.retention_pct
    assert recorded == pytest.approx(at["kept_retention_pct"], abs=1e-6)
    assert estimate.retention_pct == pytest.approx(at["kept_retention_pct"], abs=1e-6)
    assert estimate.low_90_pct == pytest.approx(at["kept_low_90_pct"], abs=1e-6)


def test_each_estimate_of_a_budget_says_of_which_images_it_is(kept_run: RunRecord) -> None:
    at = {look["epoch"]: look for look in looks(kept_run)}[kept_run.result.selected.epoch]
    found = f"estimated {at['kept_retention_pct']:.1f} % on the 60 images of concepts100, lower end"
    assert found in budget_sentence(kept_run)
    estimate = kept_run.result.selected.estimate
    more = estimate.model_copy(update={"num_images": 400, "retention_pct": 77.7})
    selected = kept_run.result.selected.model_copy(update={"estimate": more})
    result = kept_run.result.model_copy(update={"selected": selected})
    said = budget_sentence(replace(kept_run, result=result))
    assert (
        f"estimated {at['kept_retention_pct']:.1f} % on the 60 images of concepts100 that the "
        "budget looks at, lower end of"
    ) in said
    assert "; on all 400 that were read it is 77.7 %)" in said


@pytest.mark.parametrize(
    ("low_90_pct", "said"),
    [
        (70.0, "NOT kept (estimated 77.7 % on the 60 images of concepts100, lower end of the 90 % "
               "interval 70.0 %, of the model that is kept, with restore_queries_keys"),
        (85.0, "kept (estimated 77.7 % on the 60 images"),
        (None, "not known to be kept (nothing was estimated of the model that is kept, with "
               "restore_queries_keys"),
    ],
)  # fmt: skip
def test_a_budget_with_a_restoration_is_told_of_the_model_that_is_kept(
    low_90_pct: float | None, said: str, kept_run: RunRecord
) -> None:
    """The looks of the budget come before a part goes back to W₀."""
    at = {look["epoch"]: look for look in looks(kept_run)}[kept_run.result.selected.epoch]
    selected = kept_run.result.selected
    changed = {"retention_pct": 77.7, "low_90_pct": low_90_pct, "num_images": 60}
    estimate = selected.estimate.model_copy(update=changed)
    result = kept_run.result.model_copy(
        update={"selected": selected.model_copy(update={"estimate": estimate})}
    )
    spec = kept_run.spec.model_copy(update={"interventions": (Restore(what="queries_keys"),)})
    told = budget_sentence(replace(kept_run, result=result, spec=spec))
    assert told.startswith(f"Budget 80 %: {said}")
    assert f"; before that {at['kept_retention_pct']:.1f} %)" in told


@pytest.mark.parametrize(("retention_pct", "is_told"), [(90, False), (99, True)])
def test_a_budget_that_too_few_images_judge_is_told(
    retention_pct: float, is_told: bool, kept_run: RunRecord
) -> None:
    budget = kept_run.spec.budget.model_copy(update={"retention_pct": retention_pct})
    spec = kept_run.spec.model_copy(update={"budget": budget})
    said = budget_sentence(replace(kept_run, spec=spec))
    assert (
        "At a budget of 99 % hardly one of the 60 judging images may get another answer." in said
    ) == is_told
    assert said.endswith("More images of the budget let it change more.") == is_told


def test_what_a_look_embedded_is_not_embedded_again() -> None:
    pixels = torch.arange(6).view(6, 1, 1, 1).expand(6, 3, 2, 2).to(torch.uint8)
    asked: list[int] = []

    def embed(some: PixelRows) -> torch.Tensor:
        asked.extend(some.rows.tolist())
        return some[:][:, 0, 0].float()

    seen = Embedded((0, 2, 5), torch.tensor([[10.0, 10.0], [12.0, 12.0], [15.0, 15.0]]))
    found = seen.completed(pixels, embed)
    assert found[:, 0].tolist() == [10, 1, 12, 3, 4, 15]
    assert asked == [1, 3, 4]


@pytest.mark.parametrize("events", [[], [{"kind": "intervention"}]])
def test_an_evaluation_of_a_restored_model_embeds_the_pool_anew(events: list[dict]) -> None:
    @contextmanager
    def in_force() -> Iterator[list[dict]]:
        yield events

    task = SimpleNamespace(
        adapted=SimpleNamespace(model=SimpleNamespace(device=torch.device("cpu"))),
        spec=SimpleNamespace(compile=False),
        interventions=SimpleNamespace(in_force=in_force),
    )
    seen = Embedded((0,), torch.zeros(1, 2))
    given = _evaluated(task, lambda pool: pool, 1, 1, lambda _event: None, seen)
    assert given is (None if events else seen)


def test_within_a_run_the_classifier_goes_back_by_the_share_of_the_encoder() -> None:
    spec = parse_run_spec({**DAMAGING, "budget": BUDGET})
    prepared = prepare(spec)
    images = training_images(prepared, spec)
    one = adapted_model(prepared, spec, images)
    keeper = budget_keeper(one, prepared, spec)
    first = one.classifier.weight.detach().clone()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        one.classifier.weight.add_(1.0)
        for name, weight in trained_of(one).items():
            if name.endswith("fc1.weight"):
                weight.add_(0.4 * torch.randn(weight.shape, generator=generator))
    look = keeper.look(step=1)
    assert 0 < look.strength < 1
    torch.testing.assert_close(one.classifier.weight.detach(), first + look.strength)


def test_after_a_shrink_at_the_end_the_classifier_is_fitted_to_all_training_images(
    kept_run: RunRecord,
) -> None:
    spec = kept_run.spec
    assert looks(kept_run)[-1]["budget_strength"] < 1
    prepared = prepare(spec)
    images = training_images(prepared, spec)
    model = ds.load(kept_run.folder / "adapted")
    fitted = linear_classifier(
        model.embed_images(images.pixels).float(), images.labels, len(prepared.class_names)
    )
    kept = load_classifier(kept_run.folder / "adapted")
    assert kept_run.result.selected.epoch == spec.epochs
    torch.testing.assert_close(kept.weight, fitted.weight, atol=1e-4, rtol=1e-3)


def test_a_run_of_another_kind_of_budget_has_another_id() -> None:
    """Runs of before the classifier was fitted first must not count as done."""
    spec = parse_run_spec({**DAMAGING, "budget": BUDGET})
    now = json.dumps([SPEC_VERSION, BUDGET_VERSION, canonical_spec(spec)], sort_keys=True)
    assert run_id(spec) == hashlib.sha256(now.encode()).hexdigest()[:12]
    before = json.dumps([SPEC_VERSION, canonical_spec(spec)], sort_keys=True)
    assert run_id(spec) != hashlib.sha256(before.encode()).hexdigest()[:12]
    searched = parse_run_spec(
        {**DAMAGING, "pool_images": 210, "budget": {**BUDGET, "strengths": "searched"}}
    )
    before = json.dumps([SPEC_VERSION, BUDGET_VERSION, canonical_spec(searched)], sort_keys=True)
    assert run_id(searched) != hashlib.sha256(before.encode()).hexdigest()[:12]
    plain = parse_run_spec(DAMAGING)
    same = json.dumps([SPEC_VERSION, canonical_spec(plain)], sort_keys=True)
    assert run_id(plain) == hashlib.sha256(same.encode()).hexdigest()[:12]


def test_a_run_with_a_budget_goes_on_to_the_bit(kept_run: RunRecord, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(event: dict) -> None:
        if event["kind"] == "epoch":
            raise KilledError

    spec = parse_run_spec({**DAMAGING, "budget": BUDGET})
    with pytest.raises(KilledError):
        run_one(spec, tmp_path / "run", on_event=kill)
    resumed = run_one(spec, tmp_path / "run")
    assert looks(resumed) == looks(kept_run)
    folders = [one.folder / "adapted" for one in (resumed, kept_run)]
    weights = [{one.name: one.read_bytes() for one in at.glob("*.safetensors")} for at in folders]
    assert weights[0]
    assert weights[0] == weights[1]


def test_by_rate_the_rate_falls_and_nothing_is_shrunk(tmp_path: Path) -> None:
    budget = {**BUDGET, "by": "rate", "every": 1}
    record = run_one(parse_run_spec({**DAMAGING, "epochs": 1, "budget": budget}), tmp_path / "run")
    found = looks(record)
    assert [look["step"] for look in found] == [1, 2, 3]
    factors = [look["rate_factor"] for look in found]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] < 1
    assert all(look["budget_strength"] == 1 for look in found)


def test_a_loop_of_ones_own_keeps_the_budget() -> None:
    model = ds.load("mini").module
    budget = ds.Budget("mini", model, "concepts100", retention_pct=80, images=60)
    assert budget.step().strength == 1.0  # nothing has been trained
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.vision_model.named_parameters():
            if name.endswith("fc1.weight"):
                one.add_(0.4 * torch.randn(one.shape, generator=generator))
    look = budget.step()
    assert look.found.low_90_pct < 80 <= look.kept.low_90_pct
    assert 0 < look.strength < 1
    low, high = look.found.low_90_pct, look.found.high_90_pct
    assert str(look).startswith(
        f"step 2: {look.found.retention_pct:.1f} % ({low:.1f} to {high:.1f})"
    )
    assert f"shrunk to {look.strength:.2f} of the change" in str(look)


def test_in_a_loop_the_classifier_goes_back_with_the_encoder() -> None:
    model, head = ds.load("mini").module, torch.nn.Linear(4, 2)
    first = head.weight.detach().clone()
    budget = ds.Budget("mini", model, "concepts100", images=60, classifier=head)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head.weight.add_(1.0)
        for name, one in model.vision_model.named_parameters():
            if name.endswith("fc1.weight"):
                one.add_(0.4 * torch.randn(one.shape, generator=generator))
    look = budget.step()
    assert 0 < look.strength < 1
    torch.testing.assert_close(head.weight.detach(), first + look.strength)


def test_a_budget_that_could_take_nothing_back_is_refused_and_not_kept_in_silence() -> None:
    model = ds.load("mini").module
    with pytest.raises(ModelError, match="no parameter of the model is trained"):
        ds.Budget("mini", model.requires_grad_(False), "concepts100", images=30)
    model.logit_scale.requires_grad_(True)  # but what changes is not trained, by its word
    budget = ds.Budget("mini", model, "concepts100", images=40)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.vision_model.named_parameters():
            if name.endswith("fc1.weight"):
                one.add_(0.4 * torch.randn(one.shape, generator=generator))
    with pytest.raises(ModelError, match="the budget of 90 % cannot be kept"):
        budget.step()
    with pytest.raises(ModelError, match="it has been trained before"):
        ds.Budget("mini", model.requires_grad_(True), "concepts100", images=40)


def test_a_budget_reads_texts_by_a_text_tower_that_an_earlier_training_moved() -> None:
    model = ds.load("mini").module
    with torch.no_grad():
        model.text_projection.weight.neg_()
    model.text_model.requires_grad_(False)
    model.text_projection.requires_grad_(False)
    with pytest.raises(ModelError, match="it has been trained before"):
        ds.Budget("mini", model, "concepts100", images=40)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"retention_pct": 0.9}, "for 90 % write 90"),
        ({"every": "epoch"}, "give a whole number of optimizer steps"),
        ({"every": 0}, "give a whole number of optimizer steps"),
        ({"classifier": "head"}, "classifier is 'head'; give the torch module"),
        ({"pools": "x"}, "Budget takes no 'pools'"),
    ],
)
def test_a_budget_in_a_loop_says_what_is_wrong(options: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ds.Budget("mini", torch.nn.Linear(2, 2), "concepts100", **options)
    with pytest.raises(ConfigError, match="missing a required argument: 'pool'"):
        ds.Budget("mini", torch.nn.Linear(2, 2))


def test_steps_between_looks_are_counted() -> None:
    budget = ds.Budget("mini", ds.load("mini").module, "concepts100", every=3, images=30)
    assert [budget.step() is not None for _ in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"budget": {"retention_pct": 100}}, "budget.retention_pct is 100"),
        ({"budget": {"retention_pct": 90}, "pool": None}, "a budget needs a pool"),
        ({"budget": {"retention_pct": 90, "by": "hope"}}, "'project', 'rate' or 'both'"),
        ({"budget": {"percent": 90}}, "unknown key 'budget.percent'"),
        (
            {"budget": 90},
            "budget is 90, but it should have keys: retention_pct, every, by, strengths, images",
        ),
        ({"budget": {"retention_pct": 0.9}}, "for 90 % write 90"),
        ({"budget": {**BUDGET, "every": 2.5}}, "should be 'epoch' or 'end' or a whole number$"),
        ({"budget": {**BUDGET, "every": "end", "by": "rate"}}, "after the end there are none"),
        ({"budget": {**BUDGET, "strengths": "searched", "by": "rate"}}, "no strengths to search"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_run_spec({**DAMAGING, **values})


def test_a_pool_that_gives_no_estimate_keeps_no_budget(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 56, 3), dtype=np.uint8)
    for index, one in enumerate(noise):
        Image.fromarray(one).save(tmp_path / f"{index}.png")
    values = {**DAMAGING, "pool": str(tmp_path), "classes": "concepts100", "budget": BUDGET}
    with pytest.raises(ConfigError, match="cannot be kept, for retention is not estimated"):
        run_one(parse_run_spec(values), tmp_path / "run")


def test_a_spec_without_a_budget_keeps_its_id() -> None:
    assert "budget" not in ds.RunSpec(method="full_ft", learning_rate=1e-3).model_dump(
        exclude_defaults=True
    )


@pytest.mark.parametrize(("training", "fitted"), [(64, 64), (500, 200), (1000, 250), (9000, 400)])
def test_a_quarter_of_the_training_images_fits_the_classifier_before_training(
    training: int, fitted: int
) -> None:
    assert first_fit_images(training) == fitted


SEARCHED = {**BUDGET, "every": "end", "strengths": "searched"}


@pytest.fixture(scope="module")
def searched_runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """One that was shrunk by searched strengths at its end, and its twin of a budget of 1 %."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strength_search, "STEPS", 8)
        return [
            run_one(
                parse_run_spec({**DAMAGING, "pool_images": 100, "budget": {**SEARCHED, **own}}),
                tmp_path_factory.mktemp("budget") / "searched",
            )
            for own in ({}, {"retention_pct": 1})
        ]


def test_at_the_end_alone_the_budget_is_looked_after_once(searched_runs: list[RunRecord]) -> None:
    record = searched_runs[0]
    (look,) = looks(record)
    assert look["step"] == 6
    assert look["found_low_90_pct"] < 80 <= look["kept_low_90_pct"]
    assert 0 < look["budget_strength"] < 1
    # the first epoch's model was not held to the budget, so it is none to keep
    assert record.result.selected.epoch == 2


def test_searched_rows_go_back_each_by_a_share_of_its_own(searched_runs: list[RunRecord]) -> None:
    name = "vision_model.encoder.layers.2.mlp.fc1.weight"
    kept, reached = (
        ds.load(one.folder / "adapted").module.state_dict()[name].double() for one in searched_runs
    )
    assert looks(searched_runs[1])[0]["budget_strength"] == 1
    before = ds.load("mini").module.state_dict()[name].double()
    moved = reached - before
    shares = ((kept - before) * moved).sum(dim=1) / moved.pow(2).sum(dim=1)
    assert 0 <= shares.min() < shares.max() <= 1
    assert shares.std() > 0.005
    torch.testing.assert_close(kept, before + shares[:, None] * moved, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pool_images": 80}, "pool_images is 80; set it to 90 or more, better 210"),
        ({"pool_images": 100, "method": "flyp"}, "flyp trains class prompts"),
    ],
)
def test_a_search_that_lacks_what_it_needs_is_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_run_spec({**DAMAGING, "budget": SEARCHED, **values})


def test_a_pool_smaller_than_it_was_asked_for_leaves_nothing_to_search(tmp_path: Path) -> None:
    images = ds.open_dataset("concepts100", "test").pixels(range(70), 56)
    for index, one in enumerate(images):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    values = {"pool": str(tmp_path), "classes": "concepts100", "pool_images": 100}
    spec = parse_run_spec({**DAMAGING, **values, "budget": SEARCHED})
    with pytest.raises(ConfigError, match="gives 70 images, and the budget looks at 60 of them"):
        run_one(spec, tmp_path / "run")


def test_a_training_that_diverges_before_its_end_is_held_to_the_budget_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget would be looked after at the end alone, and there is none."""
    train_step = train._train_step

    def diverging(task: object, batch: object, flips: object, step: int) -> object:
        if step == 5:
            raise NonFiniteError("the loss is nan at step 5")
        return train_step(task, batch, flips, step)

    monkeypatch.setattr(train, "_train_step", diverging)
    spec = parse_run_spec({**DAMAGING, "budget": {**BUDGET, "every": "end"}})
    record = run_one(spec, tmp_path / "run")
    assert record.result.status == "diverged"
    (look,) = looks(record)
    assert look["step"] == 3
    assert look["kept_low_90_pct"] >= 80
    assert record.result.selected.epoch == 1
    assert (record.folder / "adapted").is_dir()
