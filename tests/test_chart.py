"""`driftscope.analysis.chart`: figures as plain data."""

import json
import math

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, ends, points
from driftscope.metrics import METRICS


def test_an_axis_of_a_metric_has_its_heading_and_words_of_its_own_go_first() -> None:
    assert Axis(metric="retention_pct").heading == METRICS["retention_pct"].heading
    assert Axis("Spearman's ρ").heading == "Spearman's ρ"
    assert Axis("share", metric="retention_pct").heading == "share"


def test_missing_and_infinite_values_are_gaps_not_numbers() -> None:
    assert points([1, None, math.nan, math.inf]) == (1.0, None, None, None)
    assert ends([10, 10, math.nan], [2, math.nan, 1]) == ((8.0, 12.0), None, None)


def test_a_chart_is_short_json_without_defaults_and_with_twelve_digits() -> None:
    marks = Marks((0.1, None), (1 / 3, math.nan), name="lora", hover=("a", "b"))
    panel = Panel("p", "A panel", Axis("x"), Axis(metric="cka"), (marks,))
    written = json.loads(json.dumps(Chart("c", ((panel,),), ("lora",)).to_dict(), allow_nan=False))
    assert written == {
        "name": "c",
        "panels": [
            [
                {
                    "name": "p",
                    "title": "A panel",
                    "x": {"title": "x"},
                    "y": {"metric": "cka"},
                    "marks": [
                        {
                            "x": [0.1, None],
                            "y": [0.333333333333, None],
                            "name": "lora",
                            "hover": ["a", "b"],
                        }
                    ],
                }
            ]
        ],
        "legend": ["lora"],
    }
