"""`driftscope.analysis.chart`: figures as plain data."""

import json
import math

import pandas as pd

from driftscope.analysis.answer_charts import frontier_chart
from driftscope.analysis.chart import Axis, Chart, Marks, Panel, ends, points
from driftscope.analysis.kept_chart import kept_chart
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


def test_the_frontier_labels_the_setting_that_keeps_the_budget_and_no_two_labels_collide() -> None:
    """EuroSAT of the follow-up: three points of the frontier lie within a label's room."""
    cells = pd.DataFrame(
        {
            "method": ["linear_probe", "last_block", "lora_r8", "lora_r8", "full_ft", "lora_r8"],
            "learning_rate": [1e-3, 1e-5, 3e-5, 1e-4, 1e-5, 3e-6],
            "test_accuracy_pct": [85.1, 88.6, 91.7, 95.2, 97.2, 45.5],
            "retention_pct": [100.0, 97.1, 94.5, 86.4, 41.2, 99.6],
            "lowest_retention_pct": [100.0, 96.9, 93.8, 84.0, 21.7, 99.0],
            "is_on_frontier": [True, True, True, True, True, False],
            "num_runs": 3,
        }
    )
    none = pd.DataFrame(columns=["series", "learning_rate", "seed", "run_id"])
    [panel] = frontier_chart("frontier", cells, none).flat
    told = [label for marks in panel.marks for label in marks.labels if label]
    assert sorted(told) == [
        "full_ft 1e-5",
        "lora_r8 1e-4",
        "lora_r8 3e-5: most accurate that keeps 90 %",
    ]
    assert "The most accurate whose every run keeps 90 % is lora_r8 at 3e-5" in panel.words
    long = cells.replace({"method": {"lora_r8": "lora_r8, budget_90, pool concepts100, maps true"}})
    [panel] = frontier_chart("frontier", long, none).flat
    told = [label for marks in panel.marks for label in marks.labels if label]
    assert "lora_r8, budget_90, … 1e-4" in told


def test_what_is_left_is_a_bar_a_retention_with_its_interval() -> None:
    estimate = {"retention_pct": 33.1, "low_90_pct": 30.6, "high_90_pct": 36.1, "pool": "world"}
    score = {
        **{"retention_pct": 50.0, "num_correct": 40},
        "flows": {"num_lost": 40, "num_gained": 0},
    }
    found = {"transfer": {"birds": score, "dead": {"retention_pct": None}}, "estimate": estimate}
    chart = kept_chart("kept", found)
    assert chart is not None
    [marks] = chart.flat[0].marks
    assert marks.y == ("birds, measured", "world, estimated")
    assert marks.x == (50.0, 33.1)
    low, high = marks.x_ends[0] or (0, 0)
    assert 30 < low < 50 < high < 70
    assert marks.x_ends[1] == (30.6, 36.1)
    bare = kept_chart("kept", {"estimate": {"retention_pct": 90.0, "pool": "world"}})
    assert bare is not None
    assert bare.flat[0].marks[0].x_ends == (None,)
    assert kept_chart("kept", {"estimate": {"retention_pct": None}}) is None
