import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import PAGES, ROOT, Block, at_hand, blocks_of, commands_of, save
from pools import InThisProcess
from typer.main import get_command
from typer.testing import CliRunner

from driftscope.cli import app
from driftscope.executors import local

LANGUAGES = {"python", "sh", "yaml", "text"}
NOT_RUN = {
    "README.md": 3,
    "docs/budget.md": 1,
    "docs/compare.md": 1,
    "docs/estimate.md": 1,
    "docs/gate.md": 1,
    "docs/install.md": 4,
    "docs/models.md": 1,
    "docs/monitor.md": 3,
    "docs/causes.md": 2,
    "docs/methods.md": 1,
    "docs/paper.md": 3,
    "docs/published.md": 1,
    "docs/real-data.md": 2,
    "docs/rescue.md": 3,
    "docs/tables.md": 1,
}
"""How many blocks of each page are marked as not run, each with its reason beside it."""
SNIPPET = re.compile(r'^--8<-- "(?P<path>[^"]+)"$')

ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: photos, and a CLIP that was fine-tuned a little."""
    import torch

    from driftscope.adapt import export_merged
    from driftscope.data import open_dataset
    from driftscope.sources import load

    folder = tmp_path_factory.mktemp("reader")
    model = load("mini")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if name.startswith("vision_model.encoder") and parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=0.4 * parameter.std().item())
    export_merged(model, folder / "my-finetuned-clip")
    from PIL import Image

    pixels = open_dataset("terrain", "test").pixels(range(24), model.image_size)
    (folder / "photos").mkdir()
    for number, image in enumerate(pixels):
        path = folder / "photos" / f"{number:02}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


def parse_only(arguments: list[str]) -> None:
    """Has the command line read its arguments, and does nothing with them."""
    command: Any = get_command(app)
    words = list(arguments)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"unknown command in {arguments}"
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def run_command(arguments: list[str]) -> None:
    words = at_hand(arguments)
    result = CliRunner().invoke(app, words)
    # a gate may fail on the cut-down runs of the test; that it can be asked is what is shown
    accepted = (0, 1) if words[0] == "gate" else (0,)
    assert result.exit_code in accepted, f"{words}: {result.output}"
    assert "Traceback" not in result.output


def check_other_command(words: list[str], block: Block) -> None:
    """What is no driftscope command: a make target or a script of this repository that exists."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] in ("python", ".venv/bin/python"):
        assert (ROOT / words[1]).exists(), block.place
    else:
        assert block.why_not_run, f"{block.place}: {' '.join(words)} is neither run nor explained"


def run_block(block: Block, namespace: dict[str, Any], folder: Path) -> None:
    if block.language == "python":
        if snippet := SNIPPET.match(block.text):
            assert (ROOT / snippet["path"]).exists()  # examples have tests of their own
            return
        code = compile(block.text, block.place, "exec")
        if not block.why_not_run:
            exec(code, namespace)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
        if block.title and not block.why_not_run:
            save(block, folder)
    elif block.language == "sh":
        for words in commands_of(block.text):
            if words[0] != "driftscope":
                check_other_command(words, block)
            elif block.why_not_run:
                parse_only(words[1:])
            else:
                run_command(words[1:])


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_code_blocks_of_a_page_run_in_order(
    page: Path, reader_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "reader"
    shutil.copytree(reader_folder, here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(local, "LocalPool", InThisProcess)  # a worker takes seconds to start
    namespace: dict[str, Any] = {"__name__": "documented"}
    for block in blocks_of(page):
        run_block(block, namespace, here)


def test_every_block_says_its_language() -> None:
    assert [block.place for block in ALL_BLOCKS if block.language not in LANGUAGES] == []


def test_the_blocks_that_are_not_run_are_these_and_no_others() -> None:
    counted = {
        str(page.relative_to(ROOT)): sum(bool(block.why_not_run) for block in blocks_of(page))
        for page in PAGES
    }
    assert {page: count for page, count in counted.items() if count} == {
        page: count for page, count in NOT_RUN.items() if count
    }


def test_the_commands_of_the_workflow_exist() -> None:
    (block,) = [block for block in ALL_BLOCKS if block.title.startswith(".github/workflows")]
    workflow = yaml.safe_load(block.text)
    assert workflow[True] == ["pull_request"]  # YAML reads the key `on` as a truth value
    steps = workflow["jobs"]["gate"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    ours = [
        words[1:]
        for step in steps
        for words in commands_of(step.get("run", ""))
        if words[0] == "driftscope"
    ]
    assert [words[0] for words in ours] == ["compare", "gate"]
    for words in ours:
        parse_only(words)
    (ours_at,) = [step["with"]["path"] for step in steps if "repository" in step.get("with", {})]
    installs = [words for step in steps for words in commands_of(step.get("run", ""))
                if words[:2] == ["pip", "install"]]  # fmt: skip
    assert installs[-1] == ["pip", "install", f"./{ours_at}"]  # the user's repository is not ours


def test_every_relative_link_leads_somewhere() -> None:
    link = re.compile(r"(?:\]\(|(?:src|href)=\")(?!https?:|mailto:|#)(?P<path>[^)#\"\s]+)")
    lost = [
        f"{page.relative_to(ROOT)}: {found['path']}"
        for page in PAGES
        for found in link.finditer(page.read_text(encoding="utf-8"))
        if not (page.parent / found["path"]).exists()
    ]
    assert lost == []


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly."""
    site = tmp_path_factory.mktemp("documentation") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return site


def test_the_site_fetches_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+stylesheet[^>]+//'
    )
    for page in pages:
        assert not fetched.search(page.read_text(encoding="utf-8")), page
    first = (site / "index.html").read_text(encoding="utf-8")
    assert (
        '<code>driftscope study run STUDY.yaml <span class="unbroken">--out</span> study' in first
    )
    assert '<span class="unbroken">' not in "".join(re.findall(r"<pre.*?</pre>", first, re.DOTALL))
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("driftscope.monitor.Monitor.step", "driftscope.comparison.compare"):
        assert f'id="{name}"' in api


def test_the_site_searches_when_it_is_opened_from_its_folder(site: Path) -> None:
    tools = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("DRIFTSCOPE_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    with tools.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        tab.on("request", lambda one: asked.append(one.url))
        tab.goto((site / "index.html").as_uri())
        tab.locator(".md-search__input").press_sequentially("intruder")  # it listens to keys
        found = tab.locator("a.md-search-result__link")
        found.first.wait_for(state="attached", timeout=60_000)
        assert "ntruder" in " ".join(found.all_text_contents())
        assert all(url.startswith("file:") for url in asked)
        browser.close()


def test_the_reference_of_commands_is_what_the_tool_makes_of_them() -> None:
    made = subprocess.run(
        [sys.executable, "tools/cli_reference.py", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made.stdout


def test_the_demo_is_what_the_pages_say() -> None:
    from driftscope.study import DEMO, expand

    words = {2: "two", 3: "three"}
    rates, seeds = (words[len(DEMO.axes[key])] for key in ("learning_rate", "seed"))
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert f"at {rates} learning rates with {seeds} seeds" in index
    assert f"# {len(expand(DEMO))} runs" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(expand(DEMO))} runs" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference() -> None:
    import driftscope as ds

    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in ds.__all__ if not re.search(rf"\.{name}$", reference, re.MULTILINE)]
    assert set(missing) == {"__version__", "DriftscopeError"}  # the latter comes with its module
    for trainer in ("hf_trainer", "lightning"):
        assert f"::: driftscope.integrations.{trainer}.MonitorCallback" in reference
