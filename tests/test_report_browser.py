"""The pages in a real browser. Skipped where playwright or a chromium is not installed."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_study import write_fake_report, write_fake_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("DRIFTSCOPE_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


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
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("#maps canvas")
    yield tab
    tab.close()


def _pixels(page: Any) -> str:
    return str(page.evaluate("[...document.querySelectorAll('#maps canvas')][1].toDataURL()"))


@pytest.mark.parametrize("width", [320, 400, 768, 1280, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_clean_and_never_scrolls_sideways(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("#maps canvas")
    excess = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert excess <= 0


@pytest.mark.parametrize("slider", ["layer", "head", "strength"])
def test_a_slider_changes_the_overlay(page: Any, slider: str) -> None:
    before = _pixels(page)
    page.locator(f"#{slider}").focus()
    page.keyboard.press("ArrowRight" if slider == "head" else "ArrowLeft")
    assert _pixels(page) != before


def test_the_blend_at_zero_shows_the_pretrained_map_in_the_adapted_place(page: Any) -> None:
    page.locator("#blend").fill("0")
    shown = page.evaluate(
        "[...document.querySelectorAll('.map-row')[0].querySelectorAll('canvas')]"
        ".map(canvas => canvas.toDataURL())"
    )
    assert shown[1] == shown[2]
    assert shown[0] != shown[1]


def test_sorting_sorts_by_value_both_ways(page: Any) -> None:
    heading = page.get_by_role("button", name="Retention, %").first
    table = page.locator("table").first
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
    page.get_by_text("Every run (").click()
    block = page.locator(".table-block[data-name=runs]")
    block.get_by_label("Search").fill("lora 3e-3")
    shown = block.locator("tbody tr:visible")
    assert shown.count() == 2
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
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(page_file.as_uri())
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
        for (const node of document.querySelectorAll('.panels svg text')) {
          found.add(getComputedStyle(node).fill + '|' + paper(node.ownerSVGElement.parentElement));
        }
        return [...found];
      }"""
    )
    tab.close()
    assert len(pairs) >= 3
    contrasts = {pair: _contrast(*pair.split("|")) for pair in pairs}
    assert {pair: value for pair, value in contrasts.items() if value < 4.5} == {}


def test_pointing_at_a_mark_names_the_run(page: Any) -> None:
    page.locator(".panels .hover").first.hover(force=True)
    assert re.search(r"rate 3e-[34]", page.locator("#hover-text").inner_text())


def test_copying_a_table_copies_its_csv(browser: Any, page_file: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
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
    assert not viewer.is_visible()
    context.close()


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
