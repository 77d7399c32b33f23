"""On one rendered page a number stands under one heading and with one number of decimals."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from fake_study import fake_comparison, write_fake_report, write_fake_study
from test_monitor_page import HISTORY, page_of

from driftscope.analysis.table import MEASURES
from driftscope.metrics import METRICS, find_metric
from driftscope.report.html import write_compare_report
from driftscope.report.run_pages import _number


@dataclass
class Cell:
    key: str
    heading: str
    text: str
    measure: str
    """What the row says that its numbers are of."""


@dataclass
class Page(HTMLParser):
    """A page's tables, its prose, and the JSON that its scripts draw from."""

    page: str
    tables: list[list[dict[str, str]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    data: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._columns: list[tuple[str, str]] = []
        self._row: list[str] = []
        self._script = ""
        self._prose = ""
        self._in_body = False
        self.feed(self.page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = dict(attrs)
        if tag == "table":
            self._columns, self._in_body = [], False
        elif tag == "tbody":
            self._in_body = True
        elif tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            if self._in_body:
                self._row.append("")
            else:
                self._columns.append((at.get("data-key") or "", ""))
        elif tag == "script":
            self._script = at.get("class") or at.get("id") or "code"
        elif tag in ("p", "li", "h1", "dd", "dt"):
            self._prose = ""
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._script:
            if self._script not in ("code", "plotly-source") and data.strip().startswith(
                ("{", "[")
            ):
                self.data.append((self._script, json.loads(data)))
            return
        if "small" not in self._open[-1:]:
            if self._in_body and self._row:
                self._row[-1] += data
            elif self._columns and "thead" in self._open:
                key, heading = self._columns[-1]
                self._columns[-1] = (key, heading + data)
        self._prose += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._in_body:
            said = {
                key: text.strip() for (key, _), text in zip(self._columns, self._row, strict=True)
            }
            measure = next((said[name] for name in (*MEASURES, "metric_label") if name in said), "")
            for (key, heading), text in zip(self._columns, self._row, strict=True):
                self.cells.append(Cell(key, heading.strip(), text.strip(), measure))
        elif tag == "table":
            self._in_body = False
        elif tag == "script":
            self._script = ""
        elif tag in ("p", "li", "h1", "dd", "dt"):
            self.prose.append(" ".join(self._prose.split()))
        while self._open and self._open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("pages")
    study = write_fake_study(folder / "study", seeds=(0, 1, 2))
    written = {
        "study": write_fake_report(study, folder / "study.html"),
        "compare": write_compare_report(fake_comparison(), None, folder / "compare.html"),
        "monitor": page_of(folder / "monitor", HISTORY, best=HISTORY[1]),
    }
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in written.items()}


def decimals(text: str) -> int:
    """Of the first number of a text, such as '+1.3 ± 0.2'."""
    found = re.match(r"[+−]?[\d,]+(?:\.(\d+))?", text)
    assert found, text
    return len(found[1] or "")


def declared(page: Page) -> list[Cell]:
    """The cells of columns that are a metric, by themselves or by what their row is about."""
    return [one for one in page.cells if one.key in METRICS and one.text not in ("", "–")]


@pytest.mark.parametrize("name", ["study", "compare", "monitor"])
def test_every_metric_has_its_declared_heading_in_every_table(
    pages: dict[str, Page], name: str
) -> None:
    cells = declared(pages[name])
    assert len({one.key for one in cells}) >= 4
    assert {(one.key, one.heading) for one in cells} == {
        (one.key, METRICS[one.key].heading) for one in cells
    }


@pytest.mark.parametrize("name", ["study", "compare", "monitor"])
def test_every_metric_has_its_declared_decimals_in_every_table(
    pages: dict[str, Page], name: str
) -> None:
    for one in declared(pages[name]):
        assert decimals(one.text) == METRICS[one.key].decimals, one


def test_a_row_of_an_answer_writes_its_numbers_as_the_metric_that_it_names(
    pages: dict[str, Page],
) -> None:
    by_label = {one.name_with_unit: one for one in METRICS.values()}
    means = ("mean_first", "mean_second", "at_lowest_rate", "at_highest_rate", "mean_method")
    cells = [one for one in pages["study"].cells if one.key in means and one.text != "–"]
    assert {one.key for one in cells} == set(means)
    for one in cells:
        assert decimals(one.text) == by_label[one.measure].decimals, one


@pytest.mark.parametrize("name", ["study", "compare", "monitor"])
def test_prose_writes_a_metric_with_the_decimals_of_the_tables(
    pages: dict[str, Page], name: str
) -> None:
    found = 0
    for text in pages[name].prose:
        for metric, number in _numbers_in(text):
            found += 1
            assert decimals(number) == metric.decimals, text
    assert found >= 2


def _numbers_in(text: str) -> Iterator[tuple[Any, str]]:
    """Metrics that a sentence names with their number, as in "retention 61.7 %"."""
    number = r"([+−]?\d[\d,]*(?:\.\d+)?)"
    for one in METRICS.values():
        if one.is_count or one.label in ("accuracy", "chance"):
            continue
        for found in re.finditer(
            rf"(?<![\w|] ){re.escape(one.label)} (?:is |of )?{number}(?! seeds)", text
        ):
            yield one, found[1]
    for found in re.finditer(rf"{number} % of the zero-shot ability", text):
        yield METRICS["retention_pct"], found[1]


@pytest.mark.parametrize("name", ["study", "compare", "monitor"])
def test_figures_tell_a_metric_with_the_decimals_of_the_tables(
    pages: dict[str, Page], name: str
) -> None:
    """Hover texts, in the data of charts and in the titles of still figures."""
    for kind, value in pages[name].data:
        if kind != "plot-data":
            continue
        panel = value["panel"]
        metric = find_metric(panel["y"].get("metric", "")) if panel.get("marks") else None
        for marks in panel.get("marks", ()) if metric and not panel["x"].get("metric") else ():
            for text in marks.get("hover", ()):
                line = next((one for one in text.split("\n")[1:] if ": " in one or "±" in one), "")
                if line:
                    told = line.rpartition(": ")[2]
                    assert decimals(told) == metric.decimals, text
    if name == "study":
        titles = re.findall(r"<title>([^<]*layer \d+): ([+−]?[\d.]+)\xa0?\s?%", pages[name].page)
        assert titles
        assert {decimals(number) for _, number in titles} == {1}


def test_the_numbers_of_a_runs_page_are_written_as_in_the_tables() -> None:
    """The browser rounds what it is sent: to fewer digits it would round some numbers twice."""
    draw = random.Random(0)
    for value in (98.249996, *(draw.uniform(0, 100) for _ in range(20_000))):
        for places in (1, 3, 4):
            assert f"{_number(value):.{places}f}" == f"{value:.{places}f}"


def test_a_runs_page_shows_the_headings_of_the_tables(pages: dict[str, Page]) -> None:
    runs = [value for kind, value in pages["study"].data if kind == "run-data"]
    shared: Mapping[str, Any] = dict(pages["study"].data)["run-shared"]
    headings = {one.name: one for one in METRICS.values()} | {
        one.heading: one for one in METRICS.values()
    }
    for run in runs:
        for heading, text, _detail, _explanation in run["numbers"]:
            assert decimals(text) == headings[heading].decimals
    for columns in shared["columns"].values():
        for column in columns:
            if column["key"] in METRICS:
                metric = METRICS[column["key"]]
                assert (
                    column["heading"],
                    column["decimals"] if column["kind"] == "number" else 0,
                ) == (
                    metric.heading,
                    metric.decimals,
                )


def test_the_parts_of_a_study_stand_in_order_and_each_under_one_heading(
    pages: dict[str, Page],
) -> None:
    page = pages["study"].page
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert len(set(headings)) == len(headings)
    kinds = ["What was studied", "What came out", "Against the learning rate", "Over training",
             "Entropy change, layer by layer", "What is left of each class"]  # fmt: skip
    places = [next(at for at, one in enumerate(headings) if one.startswith(kind)) for kind in kinds]
    assert places == sorted(places)
