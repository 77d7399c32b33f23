"""The pages: self-contained, escaped, complete; and what they say follows from the records."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_study import HOSTILE, fake_comparison, write_fake_report, write_fake_study

from driftscope.analysis import StudyTables
from driftscope.analysis.chart import Axis, Chart, Panel
from driftscope.errors import RecordError
from driftscope.records import Overlay, RunRecord, load_overlay, load_runs
from driftscope.report.html import write_compare_report, write_study_report
from driftscope.report.overlays import NamedOverlay, overlay_payload, packed_maps
from driftscope.report.page import commands, script_json, unbroken
from driftscope.report.sections import MAX_SERIES, _cut_note, _first_series


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return load_runs(write_fake_study(tmp_path_factory.mktemp("study"), rates=(3e-4, 3e-3)))


@pytest.fixture(scope="module")
def study_page(records: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    path = write_fake_report(records[0].folder.parents[1], out)
    assert path == out / "report.html"
    return path.read_text()


class _Page(HTMLParser):
    """Collects tags, ids, addresses and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._silent = tag in ("script", "style")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "xlink:href"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words += data


def test_a_study_page_asks_the_network_for_nothing(study_page: str) -> None:
    addresses = _Page(study_page).addresses
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    styles = "".join(re.findall(r"<style>(.*?)</style>", study_page, flags=re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    assert "default-src 'none'" in study_page


def test_ids_on_a_study_page_are_unique(study_page: str) -> None:
    ids = _Page(study_page).ids
    assert sorted(ids) == sorted(set(ids))


def test_every_link_within_a_page_has_its_target(study_page: str) -> None:
    page = _Page(study_page)
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets <= set(page.ids)


def test_a_study_page_leads_with_what_the_methods_keep_at_each_rate(study_page: str) -> None:
    words = " ".join(_Page(study_page).words.split())
    assert re.search(
        r"What came out (At every rate|At \d of \d rates) lora_r8 keeps (more|less) than full_ft "
        r"on \w+, in points of retention: [+−]\d+\.\d ± \d+\.\d at .* at 3e-3 \(2 seeds each, "
        r"mean ± sd\)",
        words,
    )


def test_a_study_page_warns_about_entropy_and_few_seeds(study_page: str) -> None:
    words = " ".join(_Page(study_page).words.split())
    assert "Entropy is a descriptor" in words
    assert "2 against 2 runs cannot give p below 0.33" in words


def test_names_from_data_are_escaped_everywhere(tmp_path: Path) -> None:
    one_run = {"methods": ("lora",), "rates": (1e-3,), "seeds": (0,)}
    folder = write_fake_study(tmp_path / "s", **one_run, datasets=(HOSTILE,))
    page = write_fake_report(
        folder, tmp_path / "r.html", title=HOSTILE, command=HOSTILE
    ).read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;window.harmed = 1&lt;/script&gt;" in page
    assert "\\u003cscript\\u003e" in page
    # what the parser sees as elements are ours alone: theme, data blocks and one script
    plain = write_fake_study(tmp_path / "p", **one_run)
    expected = write_fake_report(plain, tmp_path / "p.html", title="t", command="c").read_text()
    assert _Page(page).tags.count("script") == _Page(expected).tags.count("script")


def test_a_comparison_escapes_the_models_names(tmp_path: Path) -> None:
    comparison = {**fake_comparison(), "adapted": HOSTILE, "images": HOSTILE}
    page = write_compare_report(comparison, None, tmp_path / "r.html").read_text()
    assert HOSTILE not in page


def test_json_in_a_script_cannot_end_it_and_reads_back() -> None:
    value = {"name": "</script><!--", "and": "a & b \u2028"}
    text = script_json(value)
    assert "<" not in text
    assert json.loads(text) == value


def test_several_datasets_get_a_section_each(tmp_path: Path) -> None:
    one_run = {"methods": ("lora",), "rates": (1e-3,), "seeds": (0,)}
    folder = write_fake_study(tmp_path / "s", **one_run, datasets=("terrain", "stars"), maps=False)
    page = write_fake_report(folder, tmp_path, title="Two", command="").read_text()
    words = " ".join(_Page(page).words.split())
    assert "Against the learning rate: stars" in words
    assert "Against the learning rate: terrain" in words
    assert "overlay-data" not in _Page(page).ids


def test_a_run_that_diverged_is_counted_and_left_out_of_the_means(tmp_path: Path) -> None:
    folder = write_fake_study(tmp_path / "s", rates=(1e-3,), methods=("full_ft",), seeds=(0, 1))
    first = sorted(folder.glob("runs/*/result.json"))[0]
    result = json.loads(first.read_text())
    result.update(status="diverged", selected=None, last=None)
    first.write_text(json.dumps(result))
    page = write_fake_report(folder, tmp_path, title="One", command="").read_text()
    words = " ".join(_Page(page).words.split())
    assert "1 run diverged and is left out of every mean" in words
    assert "Diverged" in words


def test_a_study_in_which_every_run_diverged_still_has_a_page(tmp_path: Path) -> None:
    folder = write_fake_study(tmp_path / "s", rates=(1e-3,), methods=("lora",), seeds=(0,))
    (path,) = folder.glob("runs/*/result.json")
    result = json.loads(path.read_text())
    result.update(status="diverged", selected=None, last=None)
    path.write_text(json.dumps(result))
    page = write_fake_report(folder, tmp_path, title="None", command="").read_text()
    assert "Every run diverged." in page


def test_a_study_of_too_many_runs_is_drawn_by_its_cells_and_says_so(
    records: list[RunRecord],
    study_page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = records[0].folder.parents[1]
    monkeypatch.setenv("DRIFTSCOPE_MAX_PAGE_RUNS", "5")
    page = write_fake_report(folder, tmp_path).read_text()
    assert f"The study&#39;s {len(records)} runs are too many to draw each" in page
    assert f"The 4 notable of {len(records)} runs" in page  # one of each cell
    assert page.count("DRIFTSCOPE_MAX_PAGE_RUNS") >= 2
    assert _singles(page) == 0 < _singles(study_page)
    assert _means(page) == _means(study_page) > 0
    # nothing is drawn twice: the browser draws what others find as pictures in the page
    assert page.count('class="still none"') == len(_panels(page)) > len(_panels(study_page))
    assert 'class="still none"' not in study_page
    assert any(panel.get("heat") for panel in _panels(page))


def _panels(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'class="plot-data">(.*?)</script>', page, re.S)
    return [json.loads(one)["panel"] for one in found]


def _singles(page: str) -> int:
    """How many marks of single runs the interactive figures hold."""
    return sum(
        bool(mark.get("is_single")) for panel in _panels(page) for mark in panel.get("marks", ())
    )


def _means(page: str) -> int:
    return sum(
        not mark.get("is_single") for panel in _panels(page) for mark in panel.get("marks", ())
    )


def test_of_many_series_a_page_draws_the_first_and_says_so() -> None:
    panel = Panel("p", "p", Axis("x"), Axis("y"), ())
    names = tuple(f"series {number}" for number in range(MAX_SERIES + 1))
    chart = Chart("c", ((panel,),) * len(names), row_names=names)
    cut = _first_series(chart)
    assert cut is not None
    assert (len(cut.panels), cut.row_names) == (MAX_SERIES, names[:-1])
    assert _cut_note(chart).startswith(f"The first {MAX_SERIES} of {len(names)} series;")
    assert _cut_note(cut) == ""


def test_no_records_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to report"):
        write_study_report(
            StudyTables(pd.DataFrame(), pd.DataFrame(), pd.DataFrame()),
            [],
            tmp_path,
            title="t",
            command="c",
        )


def test_a_comparison_without_transfer_says_that_retention_is_unknown(tmp_path: Path) -> None:
    page = write_compare_report(fake_comparison(transfer=False), None, tmp_path).read_text()
    words = " ".join(_Page(page).words.split())
    lead = "CKA with the pretrained model is 0.805. To learn how much of the pretrained ability is"
    assert f"{lead} left, give a pool of unlabeled images or a labeled transfer set." in words
    assert "--transfer" in words


def test_a_comparison_with_transfer_leads_with_retention(tmp_path: Path) -> None:
    page = write_compare_report(fake_comparison(), None, tmp_path).read_text()
    words = " ".join(_Page(page).words.split())
    verdict = "Lost: retention is 61.7 % on concepts100, less than the 90 % to keep."
    assert words.count(verdict) == 1  # as the headline, and not again
    assert words.index(verdict) < words.index("What to do")
    assert "5,000 images, 95 % interval" in words


def test_a_comparison_says_what_to_do_and_what_was_forgotten(tmp_path: Path) -> None:
    comparison = fake_comparison()
    rows = [
        {"class": "owl", "num_images": 10, "pretrained_pct": 90.0, "adapted_pct": 20.0,
         "retention_pct": 22.2},
        {"class": "jay", "num_images": 10, "pretrained_pct": 50.0, "adapted_pct": 60.0,
         "retention_pct": 120.0},
    ]  # fmt: skip
    flows = [{"class": "owl", "taken_for": "jay", "num_images": 5}]
    comparison["transfer"]["concepts100"] |= {"per_class": rows, "flows": {"lost_to": flows}}
    words = " ".join(
        _Page(write_compare_report(comparison, None, tmp_path).read_text()).words.split()
    )
    assert "Lost: retention is 61.7 % on concepts100, less than the 90 % to keep." in words
    assert "driftscope rescue mini runs/abc --images photos --pool concepts100" in words
    assert "(classes that lost: 1): owl (90.0 % → 20.0 % of 10 images, now taken for jay)." in words
    assert "The same from fewer images" in words
    assert words.index("What to do") < words.index("What was forgotten")
    assert words.index("What was forgotten") < words.index("Layer by layer")


def test_a_comparison_shows_overlays_where_it_is_given_them(
    records: list[RunRecord], tmp_path: Path
) -> None:
    overlay = load_overlay(records[0].folder)
    page = write_compare_report(fake_comparison(), overlay, tmp_path).read_text()
    assert "overlay-data" in _Page(page).ids


def test_packed_maps_come_back_within_half_a_step() -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(9), size=(2, 3, 4)).reshape(2, 3, 4, 3, 3)
    packed = packed_maps(maps)
    values = np.frombuffer(base64.b64decode(packed["values"]), np.uint8).reshape(maps.shape)
    tops = np.frombuffer(base64.b64decode(packed["tops"]), "<f4").reshape(2, 3, 4)
    restored = values / 255 * tops[..., None, None]
    assert np.all(np.abs(restored - maps) <= tops[..., None, None] / 510 + 1e-6)


def test_equal_images_and_pretrained_maps_travel_once() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    before = rng.random((2, 1, 1, 2, 2)).astype(np.float32)
    overlays = [
        NamedOverlay(str(n), str(n), "", Overlay(images, before, before + n)) for n in (1, 2)
    ]
    payload = overlay_payload(overlays)
    assert len(payload["images"]) == 1
    assert len(payload["maps"]) == 3


def test_overlays_past_the_budget_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    overlays = [
        NamedOverlay(
            str(n),
            str(n),
            "",
            Overlay(images, rng.random((2, 1, 1, 2, 2)), rng.random((2, 1, 1, 2, 2))),
        )
        for n in range(3)
    ]
    payload = overlay_payload(overlays, budget_bytes=10)
    assert len(payload["runs"]) == 1
    assert payload["num_left_out"] == 2


def test_each_command_of_a_step_is_code_even_where_a_name_holds_a_backtick() -> None:
    step = "Write `budget: 90` or run `driftscope where 'a`b' x`, then <look>."
    assert str(commands(unbroken(step))) == (
        "Write <code>budget: 90</code> or run <code>driftscope where &#39;a`b&#39; x</code>, then "
        "&lt;look&gt;."
    )
