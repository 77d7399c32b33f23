import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope.config import StudySpec, load_run_spec, load_study_spec, parse_run_spec, run_id
from driftscope.errors import ConfigError

# Ids as they were when the spec had its first form: folders of that time must stay findable.
KNOWN_IDS = [
    ({"method": "full_ft", "learning_rate": 1e-4}, "ae80bc26ecad"),
    ({"method": "lora", "learning_rate": 1e-4}, "e5eb275776c0"),
    (
        {
            "method": {"kind": "lora", "rank": 16},
            "learning_rate": 1e-3,
            "seed": 11,
            "dataset": "stars",
            "epochs": 5,
            "train_images": 800,
            "transfer": [],
        },
        "6be7f1f977cc",
    ),
    (
        {
            "method": "full_ft",
            "learning_rate": 1e-5,
            "protocol": "paper",
            "epochs": 20,
            "model": "openai/clip-vit-base-patch32",
        },
        "a4a87b26589a",
    ),
]


@pytest.mark.parametrize(("values", "expected"), KNOWN_IDS)
def test_new_options_do_not_rename_the_runs_of_old(values: dict, expected: str) -> None:
    assert run_id(parse_run_spec(values)) == expected


def test_a_default_written_out_names_the_same_run() -> None:
    short = parse_run_spec({"method": "lora", "learning_rate": 1e-4})
    long = parse_run_spec(
        {
            "method": {"kind": "lora", "rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"]},
            "learning_rate": 0.0001,
            "weight_decay": 0.01,
        }
    )
    assert run_id(short) == run_id(long)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["full_ft", "lora"]),
            st.sampled_from([1e-6, 1e-5]),
            st.integers(0, 3),
        ),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_different_specs_have_different_ids(pair: list[tuple[str, float, int]]) -> None:
    specs = [parse_run_spec({"method": m, "learning_rate": r, "seed": s}) for m, r, s in pair]
    assert run_id(specs[0]) != run_id(specs[1])


def test_the_papers_hyper_parameters_are_the_defaults() -> None:
    spec = parse_run_spec({"method": "lora", "learning_rate": 1e-5})
    assert (spec.weight_decay, spec.warmup_fraction, spec.batch_size) == (0.01, 0.05, 64)
    assert (spec.clip_norm, spec.horizontal_flip) == (1.0, True)
    assert spec.method.model_dump() | {"kind": "lora"} == spec.method.model_dump()
    assert (spec.method.rank, spec.method.alpha, spec.method.dropout) == (8, 16.0, 0.05)
    assert spec.method.targets == ("q_proj", "v_proj")
    assert spec.method.train_projection


def test_yaml_exponents_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("method: full_ft\nlearning_rate: 1e-3\n")
    assert load_run_spec(path).learning_rate == 0.001


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "lorra"}, r"unknown method 'lorra': did you mean 'lora'\?"),
        ({"method": "HRA"}, r"a tuner of peft is \{kind: peft, type: HRA\}$"),
        ({"method": {"kind": "lora", "rnk": 4}}, r"'method.rnk': did you mean 'rank'\?"),
        ({"lerning_rate": 1e-3}, r"'lerning_rate': did you mean 'learning_rate'\?"),
        ({"epochs": 0}, "epochs is 0, but"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', but"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, but"),
    ],
)
def test_what_is_wrong_is_said_with_the_key_the_value_and_the_valid_choices(
    change: dict, sentence: str
) -> None:
    values = {"method": "full_ft", "learning_rate": 1e-3, **change}
    with pytest.raises(ConfigError, match=sentence):
        parse_run_spec(values)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="'learning_rate' is missing"):
        parse_run_spec({"method": "full_ft"})


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [1,\n", "", "title: 2026-02-30\n", "a: &x {b: *x}\n"]
)
def test_a_file_that_holds_no_sound_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run_spec(path)


def test_the_order_of_regularizers_does_not_name_another_run_but_their_kind_and_weight_do() -> None:
    apr, floor = {"kind": "apr", "weight": 0.1}, {"kind": "entropy_floor", "weight": 0.1}
    values = {"method": "full_ft", "learning_rate": 1e-3}

    def identity(*regularizers: dict) -> str:
        return run_id(parse_run_spec({**values, "regularizers": regularizers}))

    one, other = (
        parse_run_spec({**values, "regularizers": order}) for order in ((apr, floor), (floor, apr))
    )
    assert run_id(one) == run_id(other)
    assert one == other  # so they are one cell, and one sum of penalties to the last bit
    assert one.regularizer_label == "apr_0.1+entropy_floor_0.1"
    assert len({identity(), identity(apr), identity(floor), identity({**apr, "weight": 1})}) == 4


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ({"kind": "freeze_first", "blocks": 4}, "freeze_first4"),
        ({"kind": "full_ft", "head": "zero_shot"}, "full_ft_zs_head"),
        ({"kind": "lora", "targets": ["q_proj", "k_proj"]}, "lora_r8_q-k"),
        ({"kind": "dora", "rank": 4, "train_projection": False}, "dora_r4_frozen_proj"),
        ({"kind": "lora", "alpha": 32, "dropout": 0}, "lora_r8_alpha32_dropout0"),
        ({"kind": "lp_ft", "probe_epochs": 3}, "lp_ft_probe_epochs3"),
        ("ia3", "ia3"),
        ("vera", "vera_r256"),
        ("flyp", "flyp"),
    ],
)
def test_a_methods_label_says_what_differs_from_its_default_form(
    method: object, label: str
) -> None:
    assert parse_run_spec({"method": method, "learning_rate": 1e-3}).method.label == label


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"kind": "apr", "weight": 0.1}, "apr_0.1"),
        ({"kind": "entropy_floor", "weight": 1, "rho": 0.5}, "entropy_floor_1_rho0.5"),
    ],
)
def test_a_regularizers_label_says_its_weight_and_what_differs(options: dict, label: str) -> None:
    spec = parse_run_spec({"method": "full_ft", "learning_rate": 1e-3, "regularizers": [options]})
    assert spec.regularizer_label == label


def test_all_options_without_a_column_of_their_own_are_in_one() -> None:
    plain = {"method": "lora", "learning_rate": 1e-3, "epochs": 2, "seed": 3}
    assert parse_run_spec(plain).options_label == "default"
    changed = {"train_images": 400, "probe_at": [1, 2], "precision": "bfloat16"}
    assert parse_run_spec({**plain, **changed}).options_label == (
        "precision bfloat16, probe_at [1, 2], train_images 400"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"regularizers": [{"kind": "aprr", "weight": 1}]}, "unknown regularizer 'aprr': did you"),
        ({"regularizers": [{"kind": "apr"}]}, r"'regularizers\.0\.weight' is missing"),
        ({"regularizers": [{"kind": "apr", "weight": 1}] * 2}, "of different kinds"),
        ({"method": "flyp", "micro_batches": 2}, "flyp contrasts .* micro_batches must be 1"),
        (
            {"regularizers": [{"kind": "entropy_floor", "weight": 1}], "micro_batches": 2},
            "entropy_floor holds for the mean .* micro_batches must be 1",
        ),
        ({"method": "flyp", "label_smoothing": 0.1}, "label_smoothing must be 0"),
        ({"batch_size": 2, "micro_batches": 3}, r"at most batch_size \(2\), it is 3"),
        ({"method": {"kind": "lora", "targets": []}}, "targets"),
        ({"method": {"kind": "lora", "targets": ["q_proj", "q_proj"]}}, "named once"),
        ({"epochs": 10**30}, "epochs is 10+; whole numbers end at 9,223,372,036,854,775,807"),
        ({"seed": 1 << 90_000}, "seed is a number too large to print"),
        ({"method": "freeze_first"}, r"'method\.blocks' is missing"),
    ],
)
def test_options_that_do_not_exist_or_fit_together_are_refused(change: dict, sentence: str) -> None:
    values = {"method": "full_ft", "learning_rate": 1e-3, **change}
    with pytest.raises(ConfigError, match=sentence):
        parse_run_spec(values)


@pytest.mark.parametrize("probe_at", ["epoch", "log", 5, [1, 2, 10]])
def test_probe_cadence_is_a_word_a_number_of_steps_or_a_list(probe_at: object) -> None:
    spec = parse_run_spec({"method": "full_ft", "learning_rate": 1e-3, "probe_at": probe_at})
    assert spec.probe_at == (tuple(probe_at) if isinstance(probe_at, list) else probe_at)


def test_a_run_that_is_taken_for_a_study_is_told_where_to_go(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("dataset: terrain\nmethod: full_ft\n")
    with pytest.raises(ConfigError, match="declares a run, not a study; carry it out with drift"):
        load_study_spec(str(file))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("epochs: true", "epochs is True, which is no number"),
        ("learning_rate: yes", "learning_rate is True, which is no number"),
        ("probe_at: [true]", "probe_at is True, which is no number"),
        ("method: {kind: lora, rank: true}", "rank is True, which is no number"),
        ("seed: 010", "'010' is another number in other versions of YAML"),
        ("learning_rate: 1:30", "'1:30' is another number in other versions of YAML"),
        ("learning_rate: 1:30.5", "'1:30.5' is another number in other versions of YAML"),
        ("epochs: !!bool x", "'x' is no yes or no"),
        ("epochs: !!timestamp x", "'x' is no date"),
        ('model: "\\UFFFFFFFF"', "a backslash in it stands for no character"),
    ],
)
def test_what_yaml_would_turn_into_another_number_is_refused(
    line: str, told: str, tmp_path: Path
) -> None:
    spec = {"method": "lora", "learning_rate": "1e-3"}
    spec[line.partition(":")[0]] = line.partition(": ")[2]
    file = tmp_path / "spec.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in spec.items()))
    with pytest.raises(ConfigError) as refused:
        load_run_spec(file)
    assert told in str(refused.value)


def test_a_spec_in_another_encoding_and_one_that_is_missing_are_told_in_plain_words(
    tmp_path: Path,
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("method: lora\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"spec.yaml: it is no UTF-8 text$"):
        load_run_spec(file)
    with pytest.raises(ConfigError, match=r"gone.yaml: no such file or directory$"):
        load_run_spec(tmp_path / "gone.yaml")


def test_an_axis_of_tens_of_thousands_of_values_is_looked_through_at_once() -> None:
    values = [{"kind": "lora", "rank": rank} for rank in range(1, 30_000)]
    started = time.process_time()
    StudySpec(name="wide", axes={"method": values})
    assert time.process_time() - started < 5
    with pytest.raises(ValueError, match="twice"):
        StudySpec(name="twice", axes={"method": [*values, {"rank": 7.0, "kind": "lora"}]})
