import json
from pathlib import Path

import fake_runs
import pandas as pd
import pytest

from driftscope import records
from driftscope.analysis.grouping import SETTING, usable_runs
from driftscope.config import ConfigError, StudySpec, load_study_spec, run_id
from driftscope.config.study import shipped_studies
from driftscope.errors import RecordError
from driftscope.study import (
    DEMO,
    FAST_DEMO,
    StudyFolder,
    cells,
    expand,
    missing,
    plan,
    run_folder,
    select,
)
from driftscope.study.matrix import value_text
from driftscope.study.plan import (
    Sample,
    earlier_samples,
    estimate,
    representatives,
    wall_seconds,
)

MATRIX = {"method": ("full_ft", "lora"), "learning_rate": (1e-4, 1e-3), "seed": (7, 11)}


def study(**values: object) -> StudySpec:
    return StudySpec.model_validate({"name": "x", "axes": MATRIX, **values})


def ids(spec: StudySpec) -> list[str]:
    return [run_id(one) for one in expand(spec)]


def written(folder: Path, text: str, name: str = "s.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        expand(load_study_spec(path))
    return str(caught.value)


# ---------------------------------------------------------------- expansion


def test_a_study_is_its_axes_crossed() -> None:
    specs = expand(DEMO)
    assert len(specs) == 2 * 3 * 2
    assert len({run_id(spec) for spec in specs}) == len(specs)
    assert len(expand(FAST_DEMO)) == 4


def test_reordering_axes_renames_no_run() -> None:
    turned = DEMO.model_copy(update={"axes": dict(reversed(DEMO.axes.items()))})
    assert {run_id(spec) for spec in expand(turned)} == {run_id(spec) for spec in expand(DEMO)}


def test_adding_a_seed_adds_runs_and_renames_none() -> None:
    more = study(axes={**MATRIX, "seed": (7, 11, 19)})
    assert set(ids(study())) < set(ids(more))
    assert len(ids(more)) == 12


def test_comments_and_the_order_of_keys_change_nothing(tmp_path: Path) -> None:
    one = written(tmp_path, "name: x\nbase: {epochs: 2}\naxes: {method: [lora], seed: [1, 2],"
                            " learning_rate: [1e-3]}\n", "a.yaml")  # fmt: skip
    other = written(tmp_path, "# why\naxes:\n  learning_rate: [0.001] # a rate\n  seed: [2, 1]\n"
                              "  method:\n    - {rank: 8, kind: lora}\nbase:\n  epochs: 2\n"
                              "name: x\n", "b.yaml")  # fmt: skip
    assert set(ids(load_study_spec(one))) == set(ids(load_study_spec(other)))


def test_an_override_holds_for_the_runs_that_fit_and_stands_below_the_axes() -> None:
    spec = study(
        base={"epochs": 2},
        overrides=[
            {"when": {"method": "lora", "seed": 7}, "set": {"epochs": 3, "batch_size": 16}},
            {"when": {"learning_rate": [1e-3]}, "set": {"epochs": 5}},
        ],
    )
    found = {
        (one.method.kind, one.learning_rate, one.seed): (one.epochs, one.batch_size)
        for one in expand(spec)
    }
    assert found[("lora", 1e-4, 7)] == (3, 16)
    assert found[("lora", 1e-4, 11)] == (2, 64)
    assert found[("lora", 1e-3, 7)] == (5, 16)
    assert found[("full_ft", 1e-3, 11)] == (5, 64)


def test_an_extra_entry_is_crossed_with_the_axes_that_it_does_not_name() -> None:
    spec = study(extra=[{"method": "linear_probe", "learning_rate": [1e-2, 1e-3]}])
    added = [one for one in expand(spec) if one.method.kind == "linear_probe"]
    assert {(one.learning_rate, one.seed) for one in added} == {
        (1e-2, 7),
        (1e-2, 11),
        (1e-3, 7),
        (1e-3, 11),
    }
    assert len(expand(spec)) == 12


def test_a_run_that_is_declared_twice_is_one_run() -> None:
    assert ids(study(extra=[{"method": "lora"}])) == ids(study())


def test_excluded_runs_are_not_there() -> None:
    spec = study(exclude=[{"method": "lora", "learning_rate": 1e-4}, {"seed": 11}])
    left = [(one.method.kind, one.learning_rate, one.seed) for one in expand(spec)]
    assert left == [("full_ft", 1e-4, 7), ("full_ft", 1e-3, 7), ("lora", 1e-3, 7)]


def test_parts_of_a_method_and_of_regularizers_can_be_axes() -> None:
    spec = StudySpec(
        name="x",
        base={"learning_rate": 1e-3},
        axes={
            "method": ("lora",),
            "method.rank": (4, 16),
            "regularizers.apr.weight": (0.1, 1.0),
            "weight_decay": (0.0, 0.1),
        },
        extra=({"method": "full_ft"},),
    )
    specs = expand(spec)
    assert {value_text(one, "method") for one in specs} == {"lora_r4", "lora_r16", "full_ft"}
    assert {one.regularizer_label for one in specs} == {"apr_0.1", "apr_1"}
    assert len(specs) == 2 * 2 * 2 + 2 * 2


def test_what_a_run_does_without_is_none_in_every_column() -> None:
    spec = expand(study())[0]
    assert {value_text(spec, key) for key in ("budget", "pool", "regularizers")} == {"none"}


def test_a_regularizer_may_be_named_alone_where_an_axis_gives_its_weight() -> None:
    spec = study(base={"regularizers": ["apr"]}, axes={**MATRIX, "regularizers.apr.weight": (0.1,)})
    assert {one.regularizer_label for one in expand(spec)} == {"apr_0.1"}


@pytest.mark.parametrize(
    "condition",
    [
        {"method": {"kind": "lora", "targets": ["q_proj", "v_proj"]}},
        {"method.targets": ["q_proj", "v_proj"]},
        {"regularizers": []},
        {"regularizers": [{"kind": "l2_sp", "weight": 0.2}, {"kind": "apr", "weight": 0.1}]},
        {"regularizers.apr.weight": [0.1, 1.0]},
    ],
    ids=str,
)
def test_a_condition_fits_what_is_written_out(condition: dict[str, object]) -> None:
    both = [{"kind": "apr", "weight": 0.1}, {"kind": "l2_sp", "weight": 0.2}]
    axes = {"method": ("full_ft", "lora"), "regularizers": ([], both)}
    spec = study(base={"learning_rate": 1e-3}, axes=axes, exclude=[condition])
    assert len(expand(spec)) == 2


def test_cells_are_the_runs_that_differ_in_the_seed_alone() -> None:
    found = cells(expand(study(base={"epochs": 2})))
    assert [len(cell.specs) for cell in found] == [2, 2, 2, 2]
    assert found[0].labels == {"dataset": "terrain", "method": "full_ft", "learning_rate": "1e-4"}


def test_runs_are_selected_by_values_and_labels() -> None:
    specs = expand(study())
    assert len(select(specs, ["method=lora_r8"])) == 4
    assert len(select(specs, ["method=lora|full_ft,seed=7"])) == 4
    assert len(select(specs, ["learning_rate=0.001", "seed=7"])) == 2
    with pytest.raises(ConfigError, match="no run fits 'seed=8'; the study has seed: 7, 11"):
        select(specs, ["seed=8"])
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        select(specs, ["sed=8"])
    with pytest.raises(ConfigError, match="write it as method=lora or"):
        select(specs, ["lora"])
    with pytest.raises(ConfigError, match=r"'seed' is asked for twice; .* seed=7\|11"):
        select(specs, ["seed=7", "seed=11"])


# ---------------------------------------------------------------- extension


PARENT = """\
name: parent
base: {epochs: 2, learning_rate: 1e-3}
axes:
  method: [lora, full_ft]
  seed: [7, 11]
overrides:
  - {when: {method: lora}, set: {epochs: 4}}
"""


def test_an_extending_study_replaces_axes_and_base_and_adds_the_rest(tmp_path: Path) -> None:
    written(tmp_path, PARENT, "parent.yaml")
    child = written(
        tmp_path,
        "extends: parent\nname: child\nbase: {weight_decay: 0.1}\naxes: {seed: [19]}\n"
        "overrides: [{when: {method: full_ft}, set: {epochs: 1}}]\nexclude: []\n",
    )
    found = [(one.method.kind, one.seed, one.epochs, one.weight_decay)
             for one in expand(load_study_spec(child))]  # fmt: skip
    assert found == [("lora", 19, 4, 0.1), ("full_ft", 19, 1, 0.1)]


def test_what_a_child_fixes_is_an_axis_no_more_and_overrides_may_then_fit_nothing(
    tmp_path: Path,
) -> None:
    written(tmp_path, PARENT, "parent.yaml")
    child = written(tmp_path, "extends: parent.yaml\nname: child\nbase: {method: full_ft}\n")
    assert [(one.method.kind, one.seed) for one in expand(load_study_spec(child))] == [
        ("full_ft", 7),
        ("full_ft", 11),
    ]


def test_a_study_that_extends_itself_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "extends: b\nname: a\n", "a.yaml")
    written(tmp_path, "extends: a\nname: b\n", "b.yaml")
    assert "extends itself" in error_of(tmp_path / "a.yaml")


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: x\naxis: {method: [lora]}\n", 2, "did you mean 'axes'"),
        ("name: x\naxes:\n  learning_rates: [1e-3]\n", 3, "did you mean 'learning_rate'"),
        (
            "name: x\nbase:\n  learning_rate: 1e-3\n  method: lora\n  epoch: 3\n",
            5,
            "did you mean 'epochs'",
        ),
        (
            "name: x\naxes:\n  learning_rate: [1e-3]\n  method:\n    - lora\n    - lorra\n",
            6,
            "did you mean 'lora'",
        ),
        (
            "name: x\nbase: {learning_rate: 1e-3}\naxes:\n  method:\n    - full_ft\n"
            "    - kind: lora\n      ranks: 3\n",
            7,
            "did you mean 'rank'",
        ),
        (
            "name: x\nbase: {learning_rate: 1e-3, method: lora}\noverrides:\n  - when:\n"
            "      datset: stars\n    set: {epochs: 3}\n",
            5,
            "did you mean 'dataset'",
        ),
        (
            "name: x\nbase: {learning_rate: 1e-3, method: lora}\noverrides:\n"
            "  - when: {dataset: stars}\n    sets: {epochs: 3}\n",
            5,
            "did you mean 'set'",
        ),
        (
            "name: x\nbase: {learning_rate: 1e-3, method: lora}\nexclude:\n\n  - {seed: 8}\n",
            5,
            "fits no run",
        ),
        (
            "name: x\nbase: {method: lora}\naxes:\n  learning_rate:\n    - 1e-3\n    - 0\n",
            6,
            "greater than 0",
        ),
        (
            "name: x\nbase: {method: lora, learning_rate: 1e-3}\nextra:\n"
            "  - {seed: 8}\n  - seed: 9\n    epochs: none\n",
            6,
            "epochs is 'none'",
        ),
        ("name: x\nbase:\n  seed: 1\n  seed: 2\n", 4, "given twice"),
        ("name: x\nextends: no-such-study\n", 2, "no study 'no-such-study'"),
        ("name: x\nextend: mini-lr-sweep\n", 2, "did you mean 'extends'"),
        ("name: x\naxes:\n  seed: 7\n", 3, "axes.seed is 7, but it should be a list"),
        ("name: x\naxes:\n  seed:\n    - 7\n    - 7\n", 5, "names 7 twice"),
        (
            "name: x\naxes: {seed: [7]}\nbase:\n  method: lora\n  seed: 3\n",
            5,
            "'seed' is an axis and cannot be in base too",
        ),
        (
            "name: x\nbase:\n  method: flyp\n  learning_rate: 1e-3\n  label_smoothing: 0.1\n",
            5,
            "label_smoothing must be 0",
        ),
        (
            "name: x\nbase: {method: lora, learning_rate: 1e-3}\naxes:\n"
            "  regularizers.apr.weight:\n    - 1\n    - -1\n",
            6,
            "greater than 0",
        ),
        (
            "name: x\nbase: {method: lora, learning_rate: 1e-3}\naxes:\n"
            "  regularizers.aprr.weight: [1]\n",
            4,
            "did you mean 'apr'",
        ),
        (
            "name: x\nbase: {method: lora, learning_rate: 1e-3}\nexclude:\n  - method.rnk: 4\n",
            4,
            "did you mean 'method.rank'",
        ),
        (
            "name: x\nbase:\n  method: lora\n  learning_rate: 1e-3\n  class_words: {1: a, b: c}\n",
            5,
            "should be text",
        ),
        (
            "name: x\nbase:\n  method: lora\n  learning_rate: 1e-3\n  regularizers: [apr]\n",
            5,
            "regularizers.0 is 'apr'",
        ),
    ],
)
def test_a_mistake_is_answered_by_its_line_and_the_nearest_valid_key(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    message = error_of(path)
    assert message.startswith(f"{path}, line {line}: "), message
    assert words in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"axes": {"seed": ()}}, "has no values"),
        ({"axes": {"seed": (7, 7)}}, "names 7 twice"),
        ({"base": {"seed": 3}}, "cannot be in base too"),
        ({"overrides": [{"when": {"seed": 7}, "set": {"method": "lora"}}]}, "no override can set"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(
    values: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        study(**values)


@pytest.mark.parametrize("place", ["base: {epochs: %s}", "axes: {epochs: %s}"])
def test_a_long_wrong_value_is_not_shown_whole(tmp_path: Path, place: str) -> None:
    values = [*range(1, 300), 1]
    path = written(
        tmp_path, f"name: x\nextra: [{{method: lora, learning_rate: 1e-3}}]\n{place % values}\n"
    )
    assert len(error_of(path)) < len(str(path)) + 200


@pytest.mark.parametrize("axes", ["", "[method]"])
def test_a_childs_axes_that_are_no_mapping_are_answered_by_their_line(
    tmp_path: Path, axes: str
) -> None:
    written(tmp_path, PARENT, "parent.yaml")
    child = written(tmp_path, f"extends: parent\nname: child\nbase: {{seed: 1}}\naxes: {axes}\n")
    assert error_of(child).startswith(f"{child}, line 4: axes is ")


def test_a_study_has_a_name_and_title_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, f"title: The parent\n{PARENT}", "parent.yaml")
    assert load_study_spec(written(tmp_path, "extends: parent\nname: child\n")).title == ""
    nameless = written(tmp_path, "extends: parent\nbase: {epochs: 3}\n", "nameless.yaml")
    assert error_of(nameless) == f"{nameless}: the key 'name' is missing"


def test_a_mistake_in_an_extended_study_is_answered_by_its_own_file(tmp_path: Path) -> None:
    parent = written(tmp_path, PARENT.replace("epochs: 4", "epochs: -4"), "parent.yaml")
    child = written(tmp_path, "extends: parent\nname: child\n\n\n\n\n\n")
    assert error_of(child).startswith(f"{parent}, line 7: epochs is -4")


# ---------------------------------------------------------------- shipped studies


SHIPPED = {
    "paper-controlled-matrix": 80,
    "paper-lr-sweep": 5,
    "paper-rank-ablation": 5,
    "paper-regularizers": 8,
    "paper-backbones": 4,
    "paper-multiseed": 18,
    "followup-leakfree": 84,
    "mini-controlled-matrix": 80,
    "mini-budget": 210,
    "mini-budget-searched": 20,
    "mini-rescue": 80,
    "mini-onset": 32,
    "mini-interventions": 80,
    "mini-methods": 345,
    "mini-backbones": 12,
    "mini-lr-sweep": 15,
    "mini-rank-ablation": 15,
    "mini-regularizers": 24,
    "mini-multiseed": 18,
    "mini-followup-leakfree": 66,
    "rates-on-terrain": 18,
    "real-images": 8,
}


def test_every_shipped_study_is_counted_here() -> None:
    assert set(SHIPPED) == set(shipped_studies())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_expands_and_its_head_says_command_cost_and_expectation(name: str) -> None:
    spec = load_study_spec(name)
    assert spec.name == name
    assert len(expand(spec)) == SHIPPED[name]
    head = shipped_studies()[name].read_text().split("\nname:")[0]
    for words in (f"driftscope study run {name} --out", "Cost: ", "Expect"):
        assert words in head


def test_the_papers_matrix_is_the_papers() -> None:
    specs = expand(load_study_spec("paper-controlled-matrix"))
    assert {one.learning_rate for one in specs} == {1e-6, 5e-6, 1e-5, 5e-5}
    assert {one.seed for one in specs} == {7, 11, 19, 42, 123}
    assert {(one.dataset, one.epochs) for one in specs} == {("eurosat", 20), ("pets", 30)}
    assert {(one.protocol, one.batch_size, one.weight_decay, one.warmup_fraction, one.clip_norm)
            for one in specs} == {("paper", 64, 0.01, 0.05, 1.0)}  # fmt: skip
    loras = [one.method for one in specs if one.method.kind == "lora"]
    assert {(one.rank, one.alpha, one.dropout, one.targets) for one in loras} == {
        (8, 16.0, 0.05, ("q_proj", "v_proj"))
    }


def test_a_study_that_is_not_there_is_answered_by_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mini-controlled-matrix'"):
        load_study_spec("mini-controled-matrix")


# ---------------------------------------------------------------- the folder


def finish(root: Path, seed: int, values: dict[str, object] | None = None) -> Path:
    folder = run_folder(root, fake_runs.spec(seed))
    folder.mkdir(parents=True)
    records.write_json(folder / records.RESULT_FILE, {"schema": 1, **(values or {})})
    return folder


def fake_study(seeds: tuple[int, ...] = (1, 2, 3, 4, 5)) -> StudySpec:
    base = {"method": "full_ft", "learning_rate": 1e-3, "epochs": fake_runs.EPOCHS}
    return StudySpec(name="fake", base=base, axes={"seed": seeds})


def test_what_has_a_result_is_not_missing(tmp_path: Path) -> None:
    specs = expand(fake_study())
    finish(tmp_path, 1)
    assert missing(specs, tmp_path) == specs[1:]


def test_states_tell_done_failed_running_interrupted_and_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftscope.study.folder.ALIVE_SECONDS", 1e9)  # however slow we are here
    folder = StudyFolder(tmp_path)
    folder.declare(fake_study())
    specs = list(folder.runs().values())
    finish(tmp_path, 1)
    for seed, name in ((2, records.FAILURE_FILE), (3, records.SPEC_FILE), (4, records.SPEC_FILE)):
        place = run_folder(tmp_path, fake_runs.spec(seed))
        place.mkdir()
        records.write_json(place / name, {"type": "ValueError", "message": "no"})
    sign = {"worker": "host:1", "steps_done": 1, "steps_total": 3}
    records.write_json(tmp_path / "progress" / f"{run_id(fake_runs.spec(3))}.json", sign)
    states = list(folder.states(folder.runs()).values())
    assert states == ["done", "failed", "running", "interrupted", "waiting"]
    assert list(folder.failures(folder.runs()).values()) == ["ValueError: no"]
    assert [spec.seed for spec in folder.todo(specs, retry_failed=False)] == [3, 4, 5]
    assert [spec.seed for spec in folder.todo(specs, retry_failed=True)] == [2, 3, 4, 5]
    assert folder.signs_of_life()[0].share == pytest.approx(1 / 3)


def test_a_torn_sign_of_life_is_passed_over(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.declare(fake_study())
    (tmp_path / "progress" / "x.json").write_text('{"worker": ')
    (tmp_path / "progress" / "y.json").write_text("[]")
    endless = '{"worker": "w", "steps_done": 1e999, "steps_total": 1e999}'
    (tmp_path / "progress" / "z.json").write_text(endless)
    assert folder.signs_of_life() == []


def test_a_folder_of_another_study_or_of_strangers_is_refused(tmp_path: Path) -> None:
    StudyFolder(tmp_path / "a").declare(fake_study())
    with pytest.raises(RecordError, match="holds the study 'fake', not 'x'"):
        StudyFolder(tmp_path / "a").declare(study())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years")
    with pytest.raises(RecordError, match=r"thesis\.tex"):
        StudyFolder(tmp_path / "b").declare(study())
    with pytest.raises(RecordError, match="no study folder"):
        StudyFolder(tmp_path / "b").study()


@pytest.mark.parametrize("content", [{}, {"study": {"name": "x", "later": 1}}, {"study": []}])
def test_a_declaration_that_cannot_be_read_is_answered_by_a_sentence(
    tmp_path: Path, content: dict[str, object]
) -> None:
    records.write_json(tmp_path / records.STUDY_FILE, {"schema": 1, **content})
    with pytest.raises(RecordError, match=r"study\.json: "):
        StudyFolder(tmp_path).study()


def test_a_declared_study_is_read_although_what_it_extends_holds_overrides_that_fit_no_run(
    tmp_path: Path,
) -> None:
    study = load_study_spec("mini-backbones")
    folder = StudyFolder(tmp_path / "s")
    folder.declare(study)
    assert list(folder.runs().values()) == expand(study)


def test_the_declaration_survives_the_folder_whatever_its_axes_hold(tmp_path: Path) -> None:
    spec = load_study_spec("followup-leakfree")
    StudyFolder(tmp_path).declare(spec)
    assert set(StudyFolder(tmp_path).runs()) == set(ids(spec))
    assert str(tmp_path) not in json.dumps(records.read_json(tmp_path / "study.json"))


# ---------------------------------------------------------------- estimates


def test_an_estimate_takes_the_runs_most_alike_and_counts_their_epochs() -> None:
    quick, slow = (fake_runs.spec(1, method=method, epochs=1) for method in ("lora", "full_ft"))
    samples = [Sample(quick, 1.0, 10.0, 100), Sample(slow, 2.0, 20.0, 200)]
    todo = [fake_runs.spec(seed, method="lora", epochs=3) for seed in (2, 3)]
    cost = estimate([*todo, fake_runs.spec(4, epochs=2)], samples)
    assert cost is not None
    assert cost.run_seconds == pytest.approx((1 + 30, 1 + 30, 2 + 40))
    assert cost.num_bytes == 2 * 100 + 200
    unlike = estimate([fake_runs.spec(5, dataset="stars", epochs=1)], samples)
    assert unlike is not None
    assert unlike.run_seconds == pytest.approx([(11 + 22) / 2])
    rank_16 = estimate([fake_runs.spec(6, method={"kind": "lora", "rank": 16})], samples)
    assert rank_16 is not None
    assert rank_16.run_seconds == pytest.approx([1 + fake_runs.EPOCHS * 10])
    assert estimate(todo, []) is None


def test_a_calibration_needs_one_short_run_of_each_kind() -> None:
    short = representatives(expand(study(base={"epochs": 9})))
    assert [(one.method.kind, one.epochs) for one in short] == [("full_ft", 1), ("lora", 1)]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("maps", (False, True)),
        ("val_images", (100, 200)),
        ("transfer_images", (100, 1000)),
        ("protocol", ("leakfree", "paper")),
        ("precision", ("float32", "bfloat16")),
        ("probe_at", ("epoch", 5)),
    ],
)
def test_runs_that_cost_differently_are_of_different_kinds(
    option: str, values: tuple[object, ...]
) -> None:
    assert len(representatives(expand(study(axes={**MATRIX, option: values})))) == 4


def test_a_short_run_is_not_probed_at_steps_that_it_does_not_reach() -> None:
    listed = study(axes={**MATRIX, "probe_at": ([1, 500], "epoch")})
    assert [one.probe_at for one in representatives(expand(listed))] == ["epoch", "epoch"]


def test_runs_take_as_long_as_workers_that_fetch_them_one_by_one() -> None:
    assert wall_seconds([10.0] * 5, 8) == 10.0
    assert wall_seconds([10.0] * 3, 2) == 20.0
    assert wall_seconds([1.0, 1.0, 9.0], 2) == 10.0
    assert wall_seconds([], 2) == 0.0


def test_every_kind_of_run_has_its_share_of_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_SAMPLES", 4)
    folder = StudyFolder(tmp_path)
    specs = expand(study(axes={"dataset": ("terrain", "stars"), **MATRIX}))
    for spec in specs:
        folder.run(spec).mkdir(parents=True)
        result = fake_runs.fake_result(spec)
        records.write_json(folder.run(spec) / records.RESULT_FILE, result)
    samples = earlier_samples(folder, specs)
    assert len(earlier_samples(folder, specs * 3)) == 4
    kinds = [(one.spec.dataset, one.spec.method.kind) for one in samples]
    assert sorted(kinds) == [("stars", "full_ft"), ("stars", "lora"),
                             ("terrain", "full_ft"), ("terrain", "lora")]  # fmt: skip


def test_runs_of_an_earlier_declaration_are_counted_and_tell_what_later_ones_take(
    tmp_path: Path,
) -> None:
    folder = StudyFolder(tmp_path)
    before, after = study(), study(base={"train_images": 50})
    for declaration in (before, after):
        folder.declare(declaration)
        if declaration is before:
            for spec in expand(before):
                folder.run(spec).mkdir(parents=True)
                records.write_json(
                    folder.run(spec) / records.SPEC_FILE, spec.model_dump(mode="json")
                )
                result = fake_runs.fake_result(spec)
                records.write_json(folder.run(spec) / records.RESULT_FILE, result)
            assert folder.undeclared() == []
    assert folder.finished() == []
    assert len(folder.undeclared()) == 8
    found = estimate(expand(after), earlier_samples(folder, expand(after)))
    assert found is not None
    assert found.num_samples == 8


def test_an_estimate_of_more_kinds_than_samples_reads_no_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_SAMPLES", 3)
    folder = StudyFolder(tmp_path)
    specs = expand(study(axes={"train_images": tuple(range(10, 20)), "method": ("full_ft",),
                               "learning_rate": (1e-4,)}))  # fmt: skip
    for spec in specs:
        folder.run(spec).mkdir(parents=True)
        result = fake_runs.fake_result(spec)
        records.write_json(folder.run(spec) / records.RESULT_FILE, result)
    assert len(earlier_samples(folder, specs)) == 3


@pytest.mark.parametrize("name", ["mini-regularizers", "mini-controlled-matrix", "mini-backbones"])
def test_a_declared_cell_is_a_cell_of_the_tables(name: str) -> None:
    specs = expand(load_study_spec(name))
    rows = [
        {
            "run_id": run_id(spec),
            **{key: getattr(spec, key) for key in ("model", "dataset", "protocol", "seed")},
            **{key: getattr(spec, key) for key in ("learning_rate", "epochs", "batch_size")},
            **{key: getattr(spec, key) for key in ("weight_decay", "data_seed")},
            "transfer": spec.transfer[0],
            "method": spec.method.label,
            "regularizer": spec.regularizer_label,
            "options": spec.options_label,
        }
        for spec in specs
    ]
    runs, left_out = usable_runs(pd.DataFrame(rows))
    assert not left_out
    of_tables = {frozenset(own["run_id"]) for _, own in runs.groupby([*SETTING, "cell"])}
    assert of_tables == {frozenset(map(run_id, cell.specs)) for cell in cells(specs)}
