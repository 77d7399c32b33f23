"""Options in words: what is written of a run is what is read back."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftscope.analysis import StudyTables, answer
from driftscope.analysis.grouping import (
    axis_values,
    cells_frame,
    measuring_of,
    series_labels,
    series_order,
    settings_apart,
    split_settings,
)
from driftscope.analysis.natural_order import by_natural_order, natural_groups
from driftscope.analysis.summaries import study_summary
from driftscope.config import parse_run_spec
from driftscope.config.options_text import options_in, options_text
from driftscope.errors import ConfigError

NAMES = st.sampled_from(["templates", "pool", "classes", "train_images", "maps"])
VALUES = st.one_of(
    st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text(), max_size=3)
)
PETS = ("a photo of a {}, a type of pet.", "one {}, a big pet")
DRAWN = ("a drawing of a {}, a type of pet.", "one {}, a big pet")


@given(st.dictionaries(NAMES, VALUES))
@example({"pool": "a, classes b"})
@example({"pool": '["torn', "classes": ""})
@example({"templates": ["one {}, a big pet", "two {}, a small pet"]})
def test_options_read_back_are_those_that_were_written(options: dict[str, object]) -> None:
    found = options_in(options_text(options))
    assert list(found) == list(options)
    for name, value in options.items():
        text = found[name]
        is_plain = isinstance(value, str) and not text.startswith('"')
        assert (text if is_plain else json.loads(text)) == value


def test_a_text_of_an_earlier_version_is_read_as_far_as_it_goes() -> None:
    assert options_in('pool [my photos, classes "names') == {
        "pool": "[my photos",
        "classes": '"names',
    }


def runs_with(*templates: tuple[str, ...]) -> pd.DataFrame:
    """Two methods by each set of templates, seed by seed; accuracy grows with the set's number."""
    rows = [
        {
            "run_id": f"{method}{number}{seed}",
            "dataset": "pets",
            "method": method,
            "learning_rate": 1e-4,
            "seed": seed,
            "model": "m",
            "protocol": "leakfree",
            "transfer": "t",
            "regularizer": "none",
            "options": parse_run_spec(
                {"method": "full_ft", "learning_rate": 1e-4, "templates": given}
            ).options_label,
            "status": "done",
            "test_accuracy_pct": 50.0 + 10 * number,
            "retention_pct": 90.0 + (method == "lora_r8"),
        }
        for number, given in enumerate(templates)
        for method in ("full_ft", "lora_r8")
        for seed in (7, 11, 19)
    ]
    return pd.DataFrame(rows).assign(epochs=3, batch_size=64, weight_decay=0.01, data_seed=0)


def test_templates_with_commas_tell_runs_apart_and_are_named_whole() -> None:
    runs = runs_with(PETS, DRAWN)
    axes = axis_values(runs)
    assert list(axes) == ["templates"]
    assert set(axes["templates"]) == {json.dumps(one) for one in (list(PETS), list(DRAWN))}
    assert set(series_labels(runs)) == {
        f"{method}, templates {json.dumps(list(one))}"
        for method in ("full_ft", "lora_r8")
        for one in (PETS, DRAWN)
    }


def test_methods_are_paired_within_one_set_of_templates() -> None:
    empty = pd.DataFrame()
    found = answer("method_contrast", StudyTables(runs_with(PETS, DRAWN), empty, empty))
    assert all(exclusion.count > 0 for exclusion in found.excluded)
    pairs = found.table[found.table["matching"] == "learning_rate"]
    kept = pairs[pairs["metric"] == "retention_pct"]
    assert kept["num_pairs"].tolist() == [3, 3]
    np.testing.assert_allclose(kept["difference"].abs(), 1.0)


# ---------------------------------------------------------------- what is measured


def measured_apart() -> StudyTables:
    """As `runs_with`, where the pretrained model's score and what is kept go by the templates."""
    runs = runs_with(PETS, DRAWN)
    is_drawn = runs["options"].str.contains("drawing")
    runs["pretrained_zero_shot_pct"] = np.where(is_drawn, 40.0, 95.0)
    runs["retention_pct"] = np.where(is_drawn, 140.0, runs["retention_pct"])
    return StudyTables(runs, pd.DataFrame(), pd.DataFrame())


def test_runs_of_other_templates_enter_no_statistic_together() -> None:
    tables = measured_apart()
    parts = {name["measuring"]: part.runs for name, part in settings_apart(tables)}
    told = [f"templates {json.dumps(list(one))}" for one in (PETS, DRAWN)]
    assert list(parts) == sorted(told)
    assert all(len(runs) == 6 for runs in parts.values())
    found = answer("frontier", tables)
    assert found.remarks[0] == "2 settings are answered apart; they differ in measuring."
    assert len(found.advice) == 2
    [drawn] = [one for one in found.advice if one.verdict.startswith(told[1])]
    assert "retention 140.0" in drawn.verdict
    assert len({chart.name for chart in found.charts}) == len(found.charts) == 2
    per_chart = answer("frontier", tables.with_runs(parts[told[0]])).charts
    assert len(per_chart) == 1


def test_what_a_dataset_alone_is_measured_with_parts_no_datasets() -> None:
    runs = runs_with(PETS)
    few = runs.assign(
        dataset="cars", run_id="c" + runs["run_id"], options=runs["options"] + ", probe_images 37"
    )
    both = StudyTables(pd.concat([runs, few], ignore_index=True), pd.DataFrame(), pd.DataFrame())
    [(name, _)] = settings_apart(both)
    assert set(name) == {"model", "protocol", "transfer"}
    assert set(measuring_of(both.runs)) == {""}


def test_the_pretrained_score_of_runs_that_are_measured_otherwise_is_a_range() -> None:
    runs = measured_apart().runs.assign(num_runs=1)
    [(setting, part)] = split_settings(runs)
    studied = study_summary(cells_frame(part), part, setting).studied
    assert "reaches 40.0 % to 95.0 % on t without training" in studied
    one = part[part["pretrained_zero_shot_pct"] == 95.0].reset_index(drop=True)
    assert "reaches 95.0 % on t without" in study_summary(cells_frame(one), one, setting).studied


# ---------------------------------------------------------------- names and their order


def test_a_plain_value_is_not_named_and_an_unknown_one_is() -> None:
    runs = runs_with(()).drop(columns=["options", "regularizer"]).iloc[:3]
    named = runs.assign(
        regularizer=["none", "l2_sp_0.1", "none"],
        options=["default", "default", "train_images 400"],
    )
    assert series_labels(named).tolist() == [
        "full_ft",
        "full_ft, l2_sp_0.1",
        "full_ft, train_images 400",
    ]
    imported = named.assign(options=["default", "default", None], regularizer="none")
    assert series_labels(imported).tolist() == ["full_ft", "full_ft", "full_ft, options unknown"]


def test_numbers_in_names_are_in_the_order_of_numbers() -> None:
    names = ["lora_r16", "lora_r8", "full_ft, epochs 12", "full_ft, epochs 3", "full_ft"]
    assert series_order(names) == [
        "full_ft",
        "full_ft, epochs 3",
        "full_ft, epochs 12",
        "lora_r8",
        "lora_r16",
    ]
    frame = pd.DataFrame({"series": names, "learning_rate": [1.0, 2, 3, 4, 5], "text": np.nan})
    ordered = by_natural_order(frame, ["text", "series", "learning_rate"])
    assert ordered["series"].tolist() == series_order(names)
    assert [key[0] for key, _ in natural_groups(frame, ["series"])] == series_order(names)


def test_runs_of_unknown_options_enter_no_statistic_with_those_of_known_ones() -> None:
    own = runs_with(())
    imported = own.assign(options=None, run_id="i" + own["run_id"], data_seed=np.nan)
    both = StudyTables(pd.concat([own, imported]), pd.DataFrame(), pd.DataFrame())
    parts = {name["measuring"]: part.runs for name, part in settings_apart(both)}
    assert list(parts) == ["options known", "options unknown"]
    assert all(len(runs) == 6 for runs in parts.values())
    mixed = axis_values(both.runs.reset_index(drop=True))
    assert mixed["options"].tolist() == ["known"] * 6 + ["unknown"] * 6


def test_methods_of_unknown_and_known_options_are_contrasted_with_a_word() -> None:
    runs = runs_with(())
    is_other = runs["method"] == "lora_r8"
    runs["options"] = runs["options"].astype(object).mask(is_other, None)
    found = answer("method_contrast", StudyTables(runs, pd.DataFrame(), pd.DataFrame()))
    assert not found.is_answered or "unknown" in found.words


# ---------------------------------------------------------------- conditions


def test_a_condition_holds_commas_and_names_an_option() -> None:
    templates = [("a photo of a {}, a type of pet.",), ("one {}, a big pet",)]
    tables = StudyTables(runs_with(*templates), pd.DataFrame(), pd.DataFrame())
    whole = tables.runs["options"].iloc[0]
    for text in (
        "templates=a photo of a {}, a type of pet.",
        f"templates={json.dumps(list(templates[0]))}",
        f"options={whole}",
    ):
        assert set(tables.where([text]).runs["options"]) == {whole}, text
        narrow = tables.where([f"{text}, seed=7,method=lora_r8"]).runs
        assert narrow[["seed", "method"]].to_numpy().tolist() == [[7, "lora_r8"]]
    others = tables.where(["templates!=a photo of a {}, a type of pet."]).runs
    assert len(others) == 6
    assert whole not in set(others["options"])
    with pytest.raises(ConfigError, match="'lora_r8' is no condition"):
        tables.where(["method=full_ft, lora_r8"])
    with pytest.raises(ConfigError, match=r"no column 'template'.*templates"):
        tables.where(["template=x"])


def test_an_option_narrows_the_missing_runs_too() -> None:
    runs = runs_with(PETS, DRAWN)
    is_missing = runs["seed"] == 19
    missing = runs[is_missing].drop(columns="status").assign(state="waiting")
    tables = StudyTables(runs[~is_missing], pd.DataFrame(), pd.DataFrame(), missing=missing)
    narrow = tables.where([f"templates={json.dumps(list(PETS))}"])
    assert (len(narrow.runs), len(narrow.missing)) == (4, 2)
    assert "is_unsure" not in narrow.missing


def test_a_condition_with_a_comma_may_fit_no_missing_run() -> None:
    runs = runs_with(PETS, DRAWN)
    is_missing = runs["options"] == runs["options"].iloc[-1]
    missing = runs[is_missing].drop(columns="status").assign(state="waiting")
    tables = StudyTables(runs[~is_missing], pd.DataFrame(), pd.DataFrame(), missing=missing)
    fitting = str(runs["options"].iloc[0])
    for text in (f"options={fitting}", f"seed=7,options={fitting}"):
        narrow = tables.where([text])
        assert len(narrow.runs) > 0
        assert len(narrow.missing) == 0


def test_quotes_hold_what_would_be_taken_for_more() -> None:
    runs = runs_with(PETS, DRAWN)
    pool = 'data/lr=1,seed=0/6" | x'
    is_first = np.arange(len(runs)) == 0
    runs["options"] = np.where(is_first, options_text({"pool": pool}), "default")
    tables = StudyTables(runs, pd.DataFrame(), pd.DataFrame())
    for text in (f"pool={json.dumps(pool)}", f"pool={json.dumps(pool)}|other"):
        assert list(tables.where([text]).runs["run_id"]) == [runs["run_id"].iloc[0]], text
    method = runs["method"].iloc[0]
    assert set(tables.where([f'method="{method}"']).runs["method"]) == {method}


def test_a_run_of_unknown_options_has_no_default() -> None:
    runs = runs_with(PETS, DRAWN)
    runs["options"] = ["probe_images 20", None, "default", *["default"] * (len(runs) - 3)]
    tables = StudyTables(runs, pd.DataFrame(), pd.DataFrame())
    ids = list(runs["run_id"])
    assert list(tables.where(["probe_images=default"]).runs["run_id"]) == ids[2:]
    assert list(tables.where(["probe_images=unknown"]).runs["run_id"]) == ids[1:2]


def test_no_two_series_of_a_study_have_the_methods_name_alone() -> None:
    """Penalised runs alone on one dataset are not called as plain ones of another."""
    runs = pd.DataFrame(
        {
            "run_id": list("abcdef"),
            "dataset": ["stars", "stars", "terrain", "terrain", "terrain", "stars"],
            "method": "full_ft",
            "learning_rate": 1e-3,
            "seed": [1, 1, 1, 2, 1, 1],
            "regularizer": ["none", "l2_sp_1", "l2_sp_1", "l2_sp_1", "l2_sp_1", "none"],
            "options": [*["default"] * 4, "train_images 9", "train_images 9"],
        }
    )
    assert list(series_labels(runs)) == [
        "full_ft",
        "full_ft, l2_sp_1",
        "full_ft, l2_sp_1",
        "full_ft, l2_sp_1",
        "full_ft, l2_sp_1, train_images 9",
        "full_ft, train_images 9",
    ]
    only = runs.iloc[[2, 3, 4]]
    assert list(series_labels(only)) == ["full_ft", "full_ft", "full_ft, train_images 9"]
