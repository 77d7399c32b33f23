"""Options in words: what is written of a run is what is read back."""

import json

import numpy as np
import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from driftscope.analysis import StudyTables, answer
from driftscope.analysis.grouping import axis_values, series_labels
from driftscope.config import parse_run_spec
from driftscope.config.options_text import options_in, options_text

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
def test_options_read_back_are_those_that_were_written(options):
    found = options_in(options_text(options))
    assert list(found) == list(options)
    for name, value in options.items():
        text = found[name]
        is_plain = isinstance(value, str) and not text.startswith('"')
        assert (text if is_plain else json.loads(text)) == value


def test_a_text_of_an_earlier_version_is_read_as_far_as_it_goes():
    assert options_in('pool [my photos, classes "names') == {
        "pool": "[my photos",
        "classes": '"names',
    }


def runs_with(*templates):
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


def test_templates_with_commas_tell_runs_apart_and_are_named_whole():
    runs = runs_with(PETS, DRAWN)
    axes = axis_values(runs)
    assert list(axes) == ["templates"]
    assert set(axes["templates"]) == {json.dumps(one) for one in (list(PETS), list(DRAWN))}
    assert set(series_labels(runs)) == {
        f"{method}, templates {json.dumps(list(one))}"
        for method in ("full_ft", "lora_r8")
        for one in (PETS, DRAWN)
    }


def test_methods_are_paired_within_one_set_of_templates():
    empty = pd.DataFrame()
    found = answer("method_contrast", StudyTables(runs_with(PETS, DRAWN), empty, empty))
    assert all(exclusion.count > 0 for exclusion in found.excluded)
    pairs = found.table[found.table["matching"] == "learning_rate"]
    kept = pairs[pairs["metric"] == "retention_pct"]
    assert kept["num_pairs"].tolist() == [6]
    np.testing.assert_allclose(kept["difference"].abs(), 1.0)
