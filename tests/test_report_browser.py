"""The pages in a real browser. Skipped where playwright or a chromium is not installed.

Screenshots stay in a temporary folder, which is printed: CI keeps it for the eye.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_study import HOSTILE, fake_comparison, write_fake_report, write_fake_study

from driftscope.analysis import StudyTables
from driftscope.analysis.difference import study_difference
from driftscope.records import all_tables, load_runs
from driftscope.report.html import write_compare_report
from driftscope.report.side_by_side import OneStudy, write_side_by_side

CLOSE_RATES = tuple(1e-4 * 1.5**step for step in range(9))
SCREENSHOTS = Path(tempfile.gettempdir()) / "driftscope-screenshots"

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("DRIFTSCOPE_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium: install Debian's, or name another by DRIFTSCOPE_CHROMIUM",
)


@pytest.fixture(scope="module")
def screenshots(pytestconfig: pytest.Config) -> Path:
    SCREENSHOTS.mkdir(exist_ok=True)
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # a worker of xdist has none
        reporter.write_line(f"screenshots: {SCREENSHOTS}")
    return SCREENSHOTS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_fake_report(write_fake_study(folder, rates=(3e-4, 3e-3)), folder)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("#viewer canvas")
    yield tab
    tab.close()


def _draw_all(tab: Any) -> None:
    """Shows every figure once, since they are drawn when they come into view."""
    figures = tab.locator("figure:has(> .plot-data)")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
    undrawn = tab.locator("figure:has(> .plot-data):not(:has(.plot .main-svg))")
    playwright.expect(undrawn).to_have_count(0)


def _pixels(page: Any) -> str:
    return str(page.evaluate("[...document.querySelectorAll('#viewer canvas')][1].toDataURL()"))


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (768, "dark"), (1280, "light"), (2560, "dark")]
)
def test_it_loads_clean_and_never_scrolls_sideways(
    browser: Any, page_file: Path, screenshots: Path, width: int, scheme: str
) -> None:
    tab = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    problems: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("#viewer canvas")
    _draw_all(tab)
    excess = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    tab.screenshot(path=screenshots / f"study-{width}-{scheme}.png", full_page=True)
    tab.evaluate("location.hash = document.querySelector('#runs ~ .table-block a').hash")
    tab.wait_for_selector("#run-view .plot .main-svg")
    run_excess = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.screenshot(path=screenshots / f"run-{width}-{scheme}.png", full_page=True)
    tab.close()
    assert problems == []
    assert run_excess <= 0
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert excess <= 0


_COVERED = """() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
  const labels = [...plot.querySelectorAll('.annotation-text')].map((node) => {
    const box = node.getBoundingClientRect();
    return { text: node.textContent, left: box.left + 1, right: box.right - 1,
      top: box.top + 3, bottom: box.bottom - 3 };
  });
  const lies = (one, x, y) => x > one.left && x < one.right && y > one.top && y < one.bottom;
  const found = [];
  labels.forEach((one, at) => labels.slice(at + 1).forEach((other) => {
    const across = one.left < other.right && other.left < one.right;
    const upright = one.top < other.bottom && other.top < one.bottom;
    if (across && upright) found.push([one.text, other.text]);
  }));
  const cover = (x, y, what) => labels.forEach((one) => {
    if (lies(one, x, y)) found.push([one.text, what]);
  });
  plot.querySelectorAll('.scatterlayer .point').forEach((node) => {
    const box = node.getBoundingClientRect();
    cover(box.left + box.width / 2, box.top + box.height / 2, 'a point');
  });
  plot.querySelectorAll('.js-line, .errorbar path').forEach((node) => {
    const toScreen = node.getScreenCTM();
    for (let along = 0; along <= node.getTotalLength(); along += 2) {
      const spot = node.getPointAtLength(along).matrixTransform(toScreen);
      cover(spot.x, spot.y, node.getAttribute('class') || 'a spread');
    }
  });
  return found;
})"""


@pytest.fixture(scope="module")
def many_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of so many cells that most of them lie close beside others."""
    folder = tmp_path_factory.mktemp("many cells")
    methods = ("full_ft", "lora", "last_block")
    study = write_fake_study(folder, methods=methods, rates=CLOSE_RATES, maps=False)
    return write_fake_report(study, folder)


@pytest.mark.parametrize("width", [400, 1280, 1920])
def test_no_label_of_the_frontier_lies_on_a_line_a_point_or_another(
    browser: Any, many_cells: Path, page_file: Path, screenshots: Path, width: int
) -> None:
    for page_of in (many_cells, page_file):
        tab = browser.new_page(viewport={"width": width, "height": 1000}, reduced_motion="reduce")
        tab.goto(page_of.as_uri())
        tab.wait_for_selector(".first-screen .plot .main-svg")
        frontier = tab.locator(".first-screen .plot").first
        labels = frontier.locator(".annotation-text").all_text_contents()
        covered = tab.evaluate(_COVERED)
        frontier.screenshot(path=screenshots / f"frontier-{width}-{page_of.parent.name}.png")
        tab.close()
        assert len(labels) >= 3
        assert any(one.endswith("most accuratethat keeps 90 %") for one in labels)  # three lines
        assert covered == []


@pytest.fixture(scope="module")
def other_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of two compared models, and that of two studies side by side."""
    folder = tmp_path_factory.mktemp("other pages")
    studies = []
    for name, rates in (("A", (3e-4, 3e-3)), ("B", (3e-3, 1e-2))):
        root = write_fake_study(folder / name, rates=rates, maps=False)
        read = all_tables(records := load_runs(root))
        studies.append(OneStudy(name, StudyTables(read.runs, read.history, read.layers), records))
    difference = study_difference(studies[0].study, studies[1].study)
    return {
        "compare": write_compare_report(fake_comparison(), None, folder / "compare"),
        "side by side": write_side_by_side(studies, difference, folder / "two", command="report"),
    }


@pytest.mark.parametrize("name", ["compare", "side by side"])
def test_the_other_pages_load_clean_and_never_scroll_sideways(
    browser: Any, other_pages: dict[str, Path], screenshots: Path, name: str
) -> None:
    address = other_pages[name].as_uri()
    for width, scheme in ((320, "light"), (1280, "dark"), (2560, "light")):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        problems: list[str] = []
        tab.on("console", lambda message, told=problems: told.append(message.text))
        tab.on("pageerror", lambda error, told=problems: told.append(str(error)))
        tab.on("request", lambda request, told=problems: told.append(request.url))
        tab.goto(address)
        excess = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        tab.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png", full_page=True)
        tab.close()
        assert [one for one in problems if not one.startswith(("data:", address))] == []
        assert excess <= 0, width


_CUT = """() => [...document.querySelectorAll('caption span, .panels .picture, .fits .picture')]
  .filter((one) => one.checkVisibility() && one.clientWidth)
  .filter((one) => one.scrollWidth > one.clientWidth + 1
    || one.getBoundingClientRect().right > innerWidth)
  .map((one) => one.textContent.trim().slice(0, 60))"""


@pytest.mark.parametrize("width", [400, 1280, 1920])
def test_captions_panels_and_maps_of_few_layers_are_not_cut(
    browser: Any, page_file: Path, other_pages: dict[str, Path], width: int
) -> None:
    for address in (page_file.as_uri(), other_pages["compare"].as_uri()):
        tab = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        tab.goto(address)
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        tab.evaluate(  # of six layers
            "document.querySelectorAll('h2').forEach((one) => one.parentElement.classList.toggle("
            "'fits', one.textContent.includes('layer by')))"
        )
        cut = tab.evaluate(_CUT)
        tab.close()
        assert cut == []


@pytest.fixture(scope="module")
def without_stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of more runs than are drawn one by one: it has no still pictures."""
    folder = tmp_path_factory.mktemp("without stills")
    study = write_fake_study(folder, methods=("full_ft",), maps=False)
    with pytest.MonkeyPatch.context() as here:
        here.setenv("DRIFTSCOPE_MAX_PAGE_RUNS", "4")
        return write_fake_report(study, folder)


@pytest.mark.parametrize("width", [400, 1280])
def test_maps_of_a_study_without_still_pictures_have_their_width(
    browser: Any, without_stills: Path, width: int
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    tab.goto(without_stills.as_uri())
    figures = tab.locator(".heatmaps figure:has(> .plot-data)")
    widths = [figures.nth(at).bounding_box()["width"] for at in range(figures.count())]
    tab.close()
    assert len(widths) >= 2
    assert min(widths) > 350


def test_on_a_phone_the_name_of_an_axis_stays_within_its_figure(
    browser: Any, many_cells: Path, tmp_path: Path
) -> None:
    long = "Retention moved by, points (in brackets: entropy), and what else is told"
    text, count = re.subn('Spearman[^"<]*with retention', long, many_cells.read_text())
    assert count
    (tmp_path / "long.html").write_text(text)
    tab = browser.new_page(viewport={"width": 400, "height": 900}, reduced_motion="reduce")
    tab.goto((tmp_path / "long.html").as_uri())
    _draw_all(tab)
    outside = tab.evaluate(
        """() => [...document.querySelectorAll('.plot .xtitle')].filter((one) =>
          one.getBoundingClientRect().right > one.closest('.plot').getBoundingClientRect().right)
          .map((one) => one.textContent)"""
    )
    tab.close()
    assert outside == []


def test_a_long_fact_has_a_row_of_its_own(browser: Any, other_pages: dict[str, Path]) -> None:
    for width in (400, 1280):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto(other_pages["compare"].as_uri())
        row = tab.locator(".wide-fact", has_text="driftscope compare")
        facts = tab.locator(".facts", has=row)
        assert row.bounding_box()["width"] == pytest.approx(facts.bounding_box()["width"], abs=2)
        tab.close()


def test_a_long_name_breaks_in_its_cell_and_does_not_push_the_numbers_away(
    browser: Any, other_pages: dict[str, Path]
) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(other_pages["side by side"].as_uri())
    widths = tab.evaluate(
        """() => {
          const cell = document.querySelector('tbody td.word');
          cell.textContent = 'full_ft, epochs 2, batch 16, train_images 160, '.repeat(4);
          const before = cell.getBoundingClientRect().width;
          cell.classList.add('long');
          return [before, cell.getBoundingClientRect().width];
        }"""
    )
    tab.close()
    assert widths[0] > 1000
    assert widths[1] < 900


def test_what_came_out_stands_beside_a_high_picture(page: Any) -> None:
    top = page.locator("#came-out").bounding_box()["y"]
    picture = page.locator(".first-screen figure").first.bounding_box()
    assert top < picture["y"] + picture["height"]
    page.set_viewport_size({"width": 400, "height": 900})
    tops = [
        page.locator(f".first-screen {one}").first.bounding_box()["y"]
        for one in (".advice", "figure", ".findings", ".caveats")
    ]
    assert tops == sorted(tops)


_TICKS = """() => [...document.querySelectorAll('.panels .plot')].flatMap((plot) => {
  const boxes = [...plot.querySelectorAll('.xtick text')].map((one) => one.getBoundingClientRect());
  return boxes.slice(1).map((box, at) => box.left - boxes[at].right);
})"""


@pytest.mark.parametrize("width", [400, 1280])
def test_rates_that_lie_close_are_named_as_far_as_there_is_room(
    browser: Any, many_cells: Path, width: int
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    tab.goto(many_cells.as_uri())
    tab.locator(".panels figure").first.scroll_into_view_if_needed()
    tab.wait_for_selector(".panels .plot .xtick text")
    names = tab.locator(".panels .plot").first.locator(".xtick text").all_text_contents()
    gaps = tab.evaluate(_TICKS)
    tab.close()
    assert names[0] == "1e-4"
    assert 3 <= len(names) <= len(CLOSE_RATES)
    assert max(map(len, names)) <= len("5.06e-4")
    assert min(gaps) > 2


def test_ticks_write_small_numbers_out(page: Any) -> None:
    _draw_all(page)
    ticks = page.locator(".ytick text").all_text_contents()
    assert len(ticks) > 20
    assert [one for one in ticks if re.search("[a-zµ]", one)] == []


def test_on_paper_nothing_leaves_the_page(page: Any, screenshots: Path) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 within its margins, CSS pixels
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    excess = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.pdf(path=screenshots / "study.pdf", format="A4")
    assert excess <= 0
    assert page.locator("#analysis details[open]").count() == 0  # the statistics' numbers
    assert page.locator("#tables details:not([open])").count() == 0


@pytest.mark.parametrize("slider", ["layer", "head", "strength"])
def test_a_slider_changes_the_overlay(page: Any, slider: str) -> None:
    before = _pixels(page)
    page.locator(f"#viewer [data-control={slider}]").focus()
    page.keyboard.press("ArrowRight" if slider == "head" else "ArrowLeft")
    assert _pixels(page) != before


def test_the_blend_at_zero_shows_the_pretrained_map_in_the_adapted_place(page: Any) -> None:
    page.locator("#viewer [data-control=blend]").fill("0")
    shown = page.evaluate(
        "[...document.querySelectorAll('.map-row')[0].querySelectorAll('canvas')]"
        ".map(canvas => canvas.toDataURL())"
    )
    assert shown[1] == shown[2]
    assert shown[0] != shown[1]


def test_sorting_sorts_by_value_both_ways(page: Any) -> None:
    table = page.locator("table").first
    heading = table.get_by_role("button", name="Retention, %")
    column = table.locator("thead th").all_inner_texts().index("Retention, %")
    read = "(table, at) => [...table.tBodies[0].rows].map((row) => +row.cells[at].dataset.value)"
    heading.click()
    rising = table.evaluate(read, column)
    heading.click()
    falling = table.evaluate(read, column)
    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_searching_hides_what_does_not_match(page: Any) -> None:
    block = page.locator(".table-block[data-name=runs]")
    block.get_by_label("Search").fill("lora 3e-3")
    shown = block.locator("tbody tr:visible")
    assert shown.count() == 2
    assert block.get_by_role("status").inner_text() == "2 of 8 rows"
    assert all("lora_r8" in text for text in shown.all_inner_texts())


def test_the_theme_button_changes_paper_and_ink_with_contrast_in_both(page: Any) -> None:
    read = """() => {
        const style = getComputedStyle(document.body);
        return [style.color, style.backgroundColor];
    }"""
    seen = []
    for _ in range(2):
        seen.append(page.evaluate(read))
        page.locator("#theme").click()
    assert seen[0] != seen[1]
    for ink, paper in seen:
        assert _contrast(ink, paper) >= 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_the_page_has_a_contrast_of_at_least_four_and_a_half(
    browser: Any, page_file: Path, scheme: str
) -> None:
    tab = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
    tab.goto(page_file.as_uri())
    _draw_all(tab)
    pairs = tab.evaluate(
        """() => {
        const paper = (node) => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
          }
        };
        const found = new Set();
        for (const node of document.querySelectorAll('main *')) {
          const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
          const skipped = ['SCRIPT', 'STYLE', 'title', 'text'].includes(node.tagName);
          if (!own || skipped) continue;
          found.add(getComputedStyle(node).color + '|' + paper(node));
        }
        const drawn = [...document.querySelectorAll('.picture svg text')].filter(
          (node) => node.getClientRects().length && node.textContent.trim());
        for (const node of drawn) {
          // the numbers within a heatmap stand on its colours, which `ink_on` sees to
          if (node.closest('.heatmaps')) continue;
          found.add(getComputedStyle(node).fill + '|' + paper(node.ownerSVGElement.parentElement));
        }
        return [...found];
      }"""
    )
    tab.close()
    assert len(pairs) >= 3
    contrasts = {pair: _contrast(*pair.split("|")) for pair in pairs}
    assert {pair: value for pair, value in contrasts.items() if value < 4.5} == {}


def test_pointing_at_a_cell_of_a_heatmap_says_its_value(page: Any) -> None:
    maps = page.locator("section:has(> h2[id$='-layers']) .heatmaps .hover")
    maps.first.hover(force=True)
    page.locator("#hover-text").wait_for()
    assert re.search(
        r"3e-[34], layer \d: [+−\d.]+ % \(by seed 0: [+−\d.]+, 1: [+−\d.]+\)",
        page.locator("#hover-text").inner_text(),
    )


def _plot_of_runs(page: Any) -> Any:
    """The first figure that has a dot a run; a frontier's are cells."""
    find = "(plots) => plots.findIndex((plot) => plot.data.some((one) => one.customdata))"
    plots = page.locator(".plot")
    return plots.nth(plots.evaluate_all(find))


def _run_dot(page: Any) -> dict[str, Any]:
    """Where the first dot of a single run stands, and its series' runs."""
    place = _plot_of_runs(page)
    place.scroll_into_view_if_needed()
    page.wait_for_selector(".plot .scatterlayer .point")
    found: dict[str, Any] = place.evaluate(
        """(place) => {
        const trace = place.data.findIndex((one) => one.customdata);
        const box = place.getBoundingClientRect(), axes = place._fullLayout;
        const { x, y } = place.data[trace];
        return {
          runs: place.data[trace].customdata,
          x: box.x + axes.xaxis._offset + axes.xaxis.d2p(x[0]),
          y: box.y + axes.yaxis._offset + axes.yaxis.d2p(y[0]),
        };
      }"""
    )
    return found


def test_pointing_at_a_dot_names_its_run_and_seed(page: Any) -> None:
    _draw_all(page)
    dot = _run_dot(page)
    page.mouse.move(dot["x"], dot["y"])
    page.wait_for_selector(".plot .hoverlayer .hovertext")
    text = " ".join(page.locator(".plot .hoverlayer text").all_text_contents())
    assert re.search(r"seed \d", text)
    assert re.search(r"run (\w+)", text)[1] in dot["runs"]


def test_a_click_on_a_dot_opens_its_run_and_back_returns(page: Any) -> None:
    _draw_all(page)
    dot = _run_dot(page)
    page.mouse.click(dot["x"], dot["y"])
    page.wait_for_selector("#run-view:not([hidden])")
    assert page.evaluate("location.hash").removeprefix("#run-") in dot["runs"]
    assert not page.locator("#report-view").is_visible()
    page.go_back()
    page.wait_for_selector("#report-view:not([hidden])")
    assert not page.locator("#run-view").is_visible()


def test_arrow_keys_read_a_figure_aloud(page: Any) -> None:
    _draw_all(page)
    _plot_of_runs(page).focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#announcer").inner_text()
    page.keyboard.press("ArrowRight")
    assert re.match(r"full_ft, rate 3e-4, seed \d: [\d.]+ %, run \w+", first)
    assert page.locator("#announcer").inner_text() != first


def test_a_run_page_opens_by_keyboard_and_is_announced_by_its_heading(page: Any) -> None:
    page.locator(".table-block[data-name=runs] tbody a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run-view:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "run-title"
    words = page.locator("#run-view").inner_text()
    for part in ("Over training", "Layer by layer", "Head by head", "Attention", "Configuration"):
        assert part in words
    page.get_by_role("link", name="Next run").focus()
    before = page.locator("#run-title").inner_text()
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#run-title")).not_to_have_text(before)


def test_a_run_page_holds_what_the_record_says(page: Any) -> None:
    page.locator("#run-picker").select_option(index=1)
    page.wait_for_selector("#run-view canvas")
    facts = page.locator("#run-view .facts").all_inner_texts()
    assert "learning_rate" in facts[0]
    assert "fingerprints.probe" in facts[1]
    assert "2.13.0+cpu" in facts[1]
    verdict = page.locator("#run-view .advice .verdict").inner_text()
    assert re.match(r"(Kept|Lost|Unsure): retention is [\d.]+\u00a0%", verdict)
    assert page.locator("#run-view .advice li code").first.inner_text().startswith("driftscope ")
    forgotten = page.locator("#run-view [data-name=flows] tbody tr").first.inner_text()
    assert HOSTILE in forgotten
    assert page.evaluate("window.harmed") is None


@pytest.mark.parametrize("slider", ["layer", "head", "blend"])
def test_a_slider_changes_the_overlay_of_a_run_page(page: Any, slider: str) -> None:
    page.locator("#run-picker").select_option(index=1)
    page.wait_for_selector("#run-view canvas")
    read = "[...document.querySelectorAll('#run-view .map-row canvas')][%d].toDataURL()"
    seen = page.evaluate(read % 2)
    page.locator(f"#run-view [data-control={slider}]").focus()
    page.keyboard.press("ArrowRight" if slider == "head" else "ArrowLeft")
    assert page.evaluate(read % 2) != seen


def test_the_legend_switches_a_series_off_in_every_figure_of_its_section(page: Any) -> None:
    _draw_all(page)
    name = page.get_by_role("button", name="lora_r8").first
    name.click()
    hidden = page.locator(".panels .plot").first.evaluate(
        "(place) => place.data.filter((t) => t.visible === false).map((t) => t.name)"
    )
    assert set(hidden) == {"lora_r8"}
    assert name.get_attribute("aria-pressed") == "false"


def test_figures_take_the_colours_of_the_theme(page: Any) -> None:
    _draw_all(page)
    read = "document.querySelector('.plot')._fullLayout.font.color"
    light = page.evaluate(read)
    page.locator("#theme").click()
    dark = light
    while dark == light:  # a test's own time limit ends it
        page.wait_for_timeout(20)
        dark = page.evaluate(read)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert _contrast(_rgb(dark), paper) >= 7


def test_paper_gets_the_still_figures(page: Any) -> None:
    _draw_all(page)
    page.emulate_media(media="print")
    assert page.locator(".panels .still").first.is_visible()
    assert not page.locator(".panels .plot").first.is_visible()


def test_copying_a_table_copies_its_csv(browser: Any, page_file: Path) -> None:
    context = browser.new_context(
        reduced_motion="reduce", permissions=["clipboard-read", "clipboard-write"]
    )
    tab = context.new_page()
    tab.goto(page_file.as_uri())
    tab.locator(".copy").first.click()
    tab.get_by_text("Copied").wait_for()
    text = tab.evaluate("navigator.clipboard.readText()")
    context.close()
    assert text.splitlines()[0].startswith("method,series,learning_rate")


def test_without_script_the_still_picture_stands_in(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page_file.as_uri())
    still, viewer = tab.locator(".still img"), tab.locator("#viewer")
    assert still.is_visible()
    assert tab.locator(".panels .still svg").first.is_visible()
    assert not viewer.is_visible()
    context.close()


def _rgb(colour: str) -> str:
    return ", ".join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


SMALL_TEXTS = """() => {
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, box = text.parentElement;
    if (!text.textContent.trim() || !box.getClientRects().length) continue;
    if (box.closest('script, style, template')) continue;
    const matrix = box.closest('svg') ? box.getScreenCTM() : null;
    const scale = matrix ? Math.hypot(matrix.a, matrix.b) : 1;
    const pixels = scale * parseFloat(getComputedStyle(box).fontSize);
    if (pixels < 9) found.push(`${text.textContent.trim()}: ${pixels.toFixed(1)}`);
  }
  return found;
}"""
UNCUED = """() => [...document.querySelectorAll('table, .still > svg')].filter((one) => {
  if (!one.getClientRects().length || one.getBoundingClientRect().right <= innerWidth) return false;
  const holder = one.closest('.scroll');
  return !holder || !getComputedStyle(holder).backgroundImage.includes('gradient');
}).map((one) => one.outerHTML.slice(0, 80))"""


def test_no_text_is_too_small_and_what_is_wider_than_the_page_shows_that_it_scrolls(
    page: Any,
) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    _draw_all(page)
    assert page.evaluate(SMALL_TEXTS) == []
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.querySelector('.scroll table').scrollWidth > 400")
    assert page.evaluate(UNCUED) == []
