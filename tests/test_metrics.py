import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftscope.cli import app
from driftscope.errors import ConfigError
from driftscope.metric import Metric
from driftscope.metrics import METRICS, find_metric, metric, units


@pytest.mark.parametrize("one", METRICS.values(), ids=METRICS)
def test_a_metric_says_what_it_is(one: Metric) -> None:
    assert one.definition
    assert one.label == one.label.strip()
    low, high = one.bounds
    if one.unchanged is not None:
        assert one.is_possible(one.unchanged)
    if one.limits is not None:
        assert low is None or low <= one.limits[0]
        assert high is None or one.limits[1] <= high


def test_no_two_metrics_have_one_heading() -> None:
    headings = [one.heading for one in METRICS.values()]
    assert sorted(headings) == sorted(set(headings))


@pytest.mark.parametrize(
    ("key", "value", "text", "with_unit"),
    [
        ("retention_pct", 91.24, "91.2", "91.2 %"),
        ("delta_entropy_pct", -1.26, "−1.3", "−1.3 %"),
        ("delta_entropy_pct", 2.0, "+2.0", "+2.0 %"),
        ("delta_entropy_pct", -0.01, "0.0", "0.0 %"),
        ("cka", 0.75239, "0.752", "0.752"),
        ("total_parameters", 151277313, "151,277,313", "151,277,313 parameters"),
        ("cka", math.nan, "–", "–"),
        ("retention_pct", None, "–", "–"),
    ],
)
def test_a_number_is_written_in_one_way(
    key: str, value: float | None, text: str, with_unit: str
) -> None:
    assert metric(key).text(value) == text
    assert metric(key).with_unit(value) == with_unit


@pytest.mark.parametrize(
    ("key", "value", "is_possible"),
    [
        ("cka", 1.0, True),
        ("cka", -0.1, False),
        ("cka_debiased", -0.1, True),
        ("cka_debiased", 1.1, False),
        ("embedding_drift", 2.0, True),
        ("retention_pct", 120.0, True),
        ("retention_pct", 1e6, False),
        ("retention_pct", math.nan, False),
        ("weight_drift", math.inf, False),
        ("delta_gini_pct", -101.0, False),
    ],
)
def test_bounds_are_what_a_number_can_be(key: str, value: float, is_possible: bool) -> None:
    assert metric(key).is_possible(value) is is_possible


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cka_per_block", "cka"),
        ("entropy", "entropy_nats"),
        ("zero_shot_pct_pets", "zero_shot_pct"),
        ("pretrained_erf95", "erf95"),
        ("pretrained_pct", "pretrained_pct"),
        ("delta_entropy_pct_layer_03", "delta_entropy_pct"),
        ("retention_pct_sd", "retention_pct"),
    ],
)
def test_a_column_leads_to_its_metric(name: str, key: str) -> None:
    found = find_metric(name)
    assert found is not None
    assert found.key == key


def test_a_name_without_a_metric_leads_to_none() -> None:
    assert find_metric("method") is None
    with pytest.raises(ConfigError, match="retention_pct"):
        metric("retention")


def test_units_name_every_number_of_a_report() -> None:
    found = units()
    assert found["entropy"] == found["entropy_nats"] == "nats"
    assert found["cka_per_block"] == "1"
    assert found["delta_gini_pct_per_layer"] == "%"
    assert found["weight_drift"] == "‖ΔW‖/‖W₀‖"


@pytest.mark.parametrize(
    "wrong",
    [{"key": "My Metric"}, {"bounds": (1, 0)}, {"decimals": -1}, {"label": ""}],
    ids=lambda one: next(iter(one)),
)
def test_a_metric_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    right = {"key": "mine", "label": "mine", "definition": "a number of my own"}
    with pytest.raises(ConfigError):
        Metric(**{**right, **wrong})  # type: ignore[arg-type]


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["metrics", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_lists_every_metric() -> None:
    assert [one["key"] for one in json.loads(listed("--json"))] == list(METRICS)
    assert "Retention, %" in listed("retention_pct")


def test_an_unknown_metric_is_answered_by_the_nearest_name() -> None:
    result = CliRunner().invoke(app, ["metrics", "retention_pc"])
    assert result.exit_code == 2
    assert "retention_pct" in " ".join(result.output.split())


def test_the_page_of_metrics_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == listed("--markdown")


def test_the_schema_of_a_reports_numbers_tells_their_ranges() -> None:
    schema = json.loads(listed("--schema"))
    assert schema["properties"]["cka_debiased"]["minimum"] == -1
    assert schema["properties"]["embedding_drift"]["maximum"] == 2
    assert "maximum" not in schema["properties"]["weight_drift"]
    (pattern,) = [
        one for one in schema["patternProperties"] if re.search(one, "retention_pct_pets")
    ]
    assert schema["patternProperties"][pattern]["title"] == "Retention, %"
