"""`driftscope.analysis.chart`: figures as plain data."""

import json
import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from driftscope.analysis.answer_charts import frontier_chart
from driftscope.analysis.chart import OTHERS, Axis, Chart, Marks, Panel, ends, points
from driftscope.analysis.kept_chart import kept_chart
from driftscope.analysis.label_places import SIZES, Ends, label_offsets
from driftscope.metrics import METRICS
from driftscope.report.drawing import draw


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


CELLS = pd.DataFrame(
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
"""EuroSAT of the follow-up: three points of the frontier lie within a label's room."""
NO_RUNS = pd.DataFrame(columns=["series", "learning_rate", "seed", "run_id"])


def told_of(panel: Panel) -> list[str]:
    return [label for marks in panel.marks for label in marks.labels if label]


def test_the_frontier_labels_every_cell_and_marks_the_one_that_keeps_the_budget() -> None:
    [panel] = frontier_chart("frontier", CELLS, NO_RUNS).flat
    assert sorted(told_of(panel)) == [
        "full_ft 1e-5",
        "last_block 1e-5",
        "linear_probe 1e-3",
        "lora_r8 1e-4",
        "lora_r8 3e-5:\nmost accurate\nthat keeps 90 %",
        "lora_r8 3e-6",
    ]
    assert "The most accurate whose every run keeps 90 % is lora_r8 at 3e-5" in panel.words
    long = CELLS.replace({"method": {"lora_r8": "lora_r8, budget_90, pool concepts100, maps true"}})
    [panel] = frontier_chart("frontier", long, NO_RUNS).flat
    assert "lora_r8, budget_90, … 1e-4" in told_of(panel)


def test_of_many_methods_the_legend_names_those_on_the_frontier() -> None:
    beaten = pd.DataFrame([{**CELLS.iloc[5], "method": f"beaten_{n}"} for n in range(9)])
    chart = frontier_chart("frontier", pd.concat([CELLS, beaten]), NO_RUNS)
    assert chart.legend == ("linear_probe", "last_block", "lora_r8", "full_ft", OTHERS)
    [others] = [one for one in chart.flat[0].marks if one.name == OTHERS]
    assert len(others.x) == 9
    assert others.hover[8].startswith("beaten_8, rate 3e-6")


def test_lines_lead_to_few_labels_of_a_long_frontier_and_many_cells_have_few_names() -> None:
    steps = range(30)
    long = pd.DataFrame(
        {
            "method": [f"method_{step}" for step in steps],
            "learning_rate": 1e-3,
            "test_accuracy_pct": [60.0 + step for step in steps],
            "retention_pct": [99.0 - step for step in steps],
            "lowest_retention_pct": [98.0 - step for step in steps],
            "is_on_frontier": [step != 3 for step in steps],
            "num_runs": 3,
        }
    )
    marks = frontier_chart("frontier", long, NO_RUNS).flat[0].marks
    named = {
        label: places
        for one in marks
        for label, places in zip(one.labels, one.label_offsets, strict=True)
        if label
    }
    assert not any(name.startswith("method_3 ") for name in named)  # beaten
    far = {
        name
        for name, places in named.items()
        for one in places
        if one is not None and math.hypot(*one) > 40
    }
    assert far <= {name for name in named if "most accurate" in name}


def test_no_label_lies_on_another_or_outside_the_axes_as_drawn() -> None:
    """Asked of matplotlib, which lays the texts out by itself."""
    figure = draw(frontier_chart("frontier", CELLS, NO_RUNS))
    figure.draw_without_rendering()
    [axes] = figure.axes
    texts = [one for one in axes.texts if one.get_text()]
    boxes = [Text.get_window_extent(one) for one in texts]  # without their lines
    assert len(texts) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)


def test_a_label_stands_apart_from_the_one_below_it_and_is_not_read_as_its_next_line() -> None:
    ends, text = Ends(0.0, 1.0), "lora_r8 1e-3"
    points = [(0.3, 0.2 + 0.055 * step) for step in range(8)]  # little more than a line of text
    by_size = zip(*label_offsets(points, [text] * len(points), ends, ends), strict=True)
    for (_, height), places in zip(SIZES, by_size, strict=True):
        middles = [  # of the labels that stand to the right of their points
            y * height + place[1]
            for (_, y), place in zip(points, places, strict=True)
            if place is not None and 5 < place[0] < 60
        ]
        assert len(middles) > 2
        gaps = np.diff(sorted(middles)) - 13.0  # the height of a line
        assert gaps.min() >= 6


def test_no_label_stands_nearer_to_the_point_of_another_than_to_its_own() -> None:
    random, ends = np.random.default_rng(0), Ends(0.0, 1.0)
    points = [(float(x), float(y)) for x, y in random.uniform(0.1, 0.9, (14, 2))]
    by_size = zip(*label_offsets(points, ["lora_r8 1e-3"] * 14, ends, ends), strict=True)
    for size, places in zip(SIZES, by_size, strict=True):
        spots = [np.multiply(point, size) for point in points]
        placed = [(at, place) for at, place in enumerate(places) if place is not None]
        assert len(placed) > 8
        for at, place in placed:
            edge = spots[at] + place  # of the label, where it is nearest to its point
            others = [math.dist(edge, spot) for number, spot in enumerate(spots) if number != at]
            assert min(others) >= min(math.hypot(*place), 22) - 1e-9


def test_without_room_labels_are_left_out_and_what_is_placed_first_has_its_place() -> None:
    ends = Ends(0.0, 1.0)
    many = label_offsets([(0.5, 0.5)] * 400, ["a long label of a cell"] * 400, ends, ends)
    assert all(many[0])
    assert not any(many[-1])
    assert not any(label_offsets([(0.5, 0.5)], [""], ends, ends)[0])
    points = [(0.5, 0.5), (0.51, 0.5), (0.5, 0.52), (0.51, 0.52)]
    near = label_offsets(points, ["one", "two", "three", "four"], ends, ends, num_far=1)
    assert all(near[0])
    assert all(math.hypot(*one) < 40 for places in near[1:] for one in places if one)


def test_what_is_left_is_a_bar_a_retention_with_its_interval() -> None:
    estimate = {"retention_pct": 33.1, "low_90_pct": 30.6, "high_90_pct": 36.1, "pool": "world"}
    score = {
        **{"retention_pct": 50.0, "num_correct": 40},
        "flows": {"num_lost": 40, "num_gained": 0},
    }
    found = {"transfer": {"birds": score, "dead": {"retention_pct": None}}, "estimate": estimate}
    chart = kept_chart("kept", found)
    assert chart is not None
    marks, budget = chart.flat[0].marks
    assert (budget.x, budget.y) == ((90.0, 90.0), (-0.6, 1.6))  # across both bars
    assert marks.y == ("birds, measured", "world, estimated")
    assert marks.x == (50.0, 33.1)
    low, high = marks.x_ends[0] or (0, 0)
    assert 30 < low < 50 < high < 70
    assert marks.x_ends[1] == (30.6, 36.1)
    bare = kept_chart("kept", {"estimate": {"retention_pct": 90.0, "pool": "world"}})
    assert bare is not None
    assert bare.flat[0].marks[0].x_ends == (None,)
    assert kept_chart("kept", {"estimate": {"retention_pct": None}}) is None


def test_axes_without_a_legend_are_as_large_and_reach_as_far_as_labels_were_placed_for() -> None:
    """Or a label that was placed beside a bar is drawn on it."""
    x = Axis(METRICS["retention_pct"].heading, limits=(40.0, 110.0), metric="retention_pct")
    near = (((8.0, 8.0),) * 4,)
    dots = Marks((50.0,), (70.0,), "dots", "one", labels=("here",), label_offsets=near)
    panel = Panel("p", "accuracy", x, Axis("accuracy, %", limits=(60.0, 104.0)), (dots,))
    figure = draw(Chart("p", ((panel,),), legend=("one",)), legend=False)
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((40.0, 110.0), (60.0, 104.0))
    size = axes.get_window_extent()
    drawn = np.array([size.width, size.height]) / figure.dpi * 96
    assert drawn == pytest.approx(SIZES[0], rel=0.07)
