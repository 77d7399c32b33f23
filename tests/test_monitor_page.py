"""The page of a monitored training, from histories made by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitored import observed

import driftscope as ds
from driftscope.monitor.reporting import report_of, write_report
from driftscope.records import Overlay

CHROMIUM = os.environ.get("DRIFTSCOPE_CHROMIUM") or shutil.which("chromium")


def page_of(
    folder: Path, history: Sequence[ds.Observation], *, transfer: bool = True, **options: Any
) -> Path:
    sets = [{"name": "birds", "num_images": 100, "pretrained_zero_shot_pct": 90.0}]
    header = {
        "pretrained": "base",
        "pretrained_fingerprint": "0" * 16,
        "probe_images": "fields & <b>meadows</b>",
        "num_images": 8,
        "images_fingerprint": "1" * 32,
        "transfer": sets if transfer else [],
        "vocabulary": None,
        "selection": asdict(ds.Selection(by="retention_pct")),
    }
    settings = {"best": None, "alerts": [], "stop_reason": None, **options}
    report = report_of(history, header=header, cost_share_pct=4, **settings)
    random = np.random.default_rng(0)
    maps = random.dirichlet(np.ones(16), (2, 3, 4)).reshape(2, 3, 4, 4, 4).astype(np.float32)
    overlay = Overlay(random.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8), maps, maps[::-1])
    return write_report(report, {"latest (step 3)": overlay}, folder)


def scored(step: int, accuracy: float, kept: float) -> ds.Observation:
    score = {"accuracy_pct": 0.9 * kept, "retention_pct": kept, "num_images": 100}
    limits = {"wilson_low_pct": kept - 5, "wilson_high_pct": kept + 5}
    one = observed(step, accuracy)
    return ds.Observation(
        one.step, step / 10, accuracy, one.drift, {}, {"birds": {**score, **limits}}, (), 1.0
    )


HISTORY = [scored(10, 80.0, 95.0), scored(20, 90.0, 70.0), scored(30, 91.0, 60.0)]


def test_it_says_what_is_left_what_is_best_and_why_it_stopped(tmp_path: Path) -> None:
    alert = ds.Alert("low_retention", "Retention is <low>.", 30)
    text = page_of(
        tmp_path, HISTORY, best=HISTORY[1], alerts=[alert], stop_reason="Enough is enough."
    ).read_text()
    assert "Lost: retention is <strong>60.0\u00a0%</strong> on birds, less than the 90" in text
    assert "up to step 30" in text
    assert "The best step is 20" in text
    assert "Training was to stop:</strong> Enough is enough." in text
    assert "<b>Step 30.</b> Retention is &lt;low&gt;." in text
    assert "fields &amp; &lt;b&gt;meadows&lt;/b&gt;" in text
    assert text.count("over the steps:") == 5  # accuracy, retention, embedding drift, CKA, entropy


def test_without_a_transfer_set_it_says_that_ability_was_not_measured(tmp_path: Path) -> None:
    text = page_of(tmp_path, [observed(10)], transfer=False).read_text()
    first, rest = text.split('id="in-numbers"')
    assert "At step 10: CKA with the pretrained model is <strong>0.900</strong>." in first
    assert "To learn how much of the pretrained ability is left, give a pool of unlabeled" in first
    assert "moved by" not in first
    assert 'aria-label="CKA at each layer:' in first
    assert "Image embeddings moved by 0.100 (1 − mean cosine), a drift that saturates." in rest
    assert "Embedding drift over the steps: 0.000 at step 0, 0.100 at step 10." in text
    assert "Validation accuracy" not in text.partition("Layer by layer")[0]  # not known before


def test_retention_and_cka_stand_before_embedding_drift(tmp_path: Path) -> None:
    text = page_of(tmp_path, HISTORY).read_text()
    panels = ["Retention, %", "CKA", "Validation accuracy, %", "Embedding drift", "Δ entropy, %"]
    places = [text.index(f'aria-label="{name} over the steps') for name in panels]
    assert places == sorted(places)


def test_a_path_begins_at_the_pretrained_model_by_what_it_is_or_by_a_look(tmp_path: Path) -> None:
    text = page_of(tmp_path, HISTORY).read_text()
    assert "Retention, % over the steps: 100.0 at step 0, 95.0 at step 10," in text
    assert "Validation accuracy, % over the steps: 80.0 at step 10," in text
    looked = page_of(tmp_path, [observed(0, embedding_drift=0.001), observed(10)]).read_text()
    assert "Embedding drift over the steps: 0.001 at step 0, 0.100 at step 10." in looked


def test_a_look_that_read_nothing_is_left_out_of_the_pictures(tmp_path: Path) -> None:
    blind = ds.Observation(40, None, 50.0, None)
    text = page_of(tmp_path, [*HISTORY, blind]).read_text()
    assert "Layer by layer at step 30" in text
    assert "read 4 times" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [320, 1280])
def test_it_loads_clean_and_never_scrolls_sideways(width: int, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page = page_of(tmp_path, HISTORY)
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 900})
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(page.as_uri())
        tab.wait_for_selector("#viewer canvas")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert problems == []
        browser.close()
