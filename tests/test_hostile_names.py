"""Names from data are text on every surface: no markup of rich, TeX or HTML, no word of a shell."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_study import fake_comparison, write_fake_report, write_fake_study
from rich.text import Text
from typer.testing import CliRunner

from driftscope.analysis.columns import known
from driftscope.analysis.table import Column, Table, slug
from driftscope.cli import _show_warning as show_warning
from driftscope.cli import app, pass_over_libraries_words, terminal
from driftscope.cli.cache import show as show_cache
from driftscope.cli.compare import show_comparison
from driftscope.cli.failures import say
from driftscope.cli.gate import show_verdicts
from driftscope.cli.watch import training_view
from driftscope.errors import DataError, NoteWarning
from driftscope.gate.judging import Evidence, Verdict
from driftscope.records.live import TrainingStatus
from driftscope.report import page
from driftscope.report.html import write_compare_report
from driftscope.schemas import read_comparison
from driftscope.transfer.doubts import DoubtWarning

NAMES = [
    "[/red] a",
    "[bold]b[/bold]",
    ":smile: c",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'both'",
    r"\input{/etc/passwd} $x^2$ 50% _under",
    "$(touch x) `touch y`; rm -rf z",
]


def hostile_comparison(name: str) -> dict[str, Any]:
    """A comparison in which every text is the name."""
    values = fake_comparison()
    score = {
        **values["transfer"]["concepts100"],
        "doubts": [name],
        "notes": [name],
        "unknown_words": [name],
        "adapted_text_tower": name,
        "chance_pct": 1.0,
        "above_chance_pct": 60.0,
        "constant_pct": 1.0,
        "pretrained_ece_pct": 1.0,
        "ece_pct": 3.0,
        "ece_change_points": 2.0,
    }
    sizes = [{"num_images": 64, "delta_entropy_pct": 1.0, "cka": 0.9}]
    return {
        **values,
        **dict.fromkeys(("pretrained", "adapted", "images"), name),
        "transfer": {name: score},
        "unmeasured": {"intruder_dimensions": name},
        "scalars": {},
        "stability": {"entropy_subset_cv": 0.01, "num_subsets": 5, "probe_sizes": sizes},
    }


def hostile_table(name: str) -> Table:
    columns = (Column("name", name, kind="text"), *known("cka"))
    return Table(slug(name), name, name, columns, pd.DataFrame({"name": [name], "cka": [0.5]}))


def hostile_verdicts(name: str) -> None:
    verdict = Verdict(name, "at least 9 %", 1.0, 1.0, "%", "failed", name)
    show_verdicts(Evidence(Path("x"), name, {}, {}), [verdict], confident=False)


def hostile_training(name: str) -> None:
    terminal.out.print(training_view(TrainingStatus(name, [], 3, [(1, name)], [name], name, 0.0)))


TERMINAL: dict[str, Callable[[str], object]] = {
    "compare": lambda name: show_comparison(hostile_comparison(name)),
    "tables": lambda name: terminal.show_table(hostile_table(name)),
    "gate": hostile_verdicts,
    "watch": hostile_training,
    "plain lines": lambda name: terminal.out.print(name),
}


@pytest.mark.parametrize("surface", TERMINAL)
@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_prints_names_as_they_are(
    name: str, surface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in printed(surface, name, monkeypatch)


def printed(surface: str, name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    text = io.StringIO()
    monkeypatch.setattr(terminal, "out", terminal.PlainConsole(file=text, width=400, **options))
    TERMINAL[surface](name)
    return text.getvalue()


COMMANDS = "a\x1b[2J\x1b]0;mine\x07b\x9b31mc\x7f\u202egpj.exe"
"""Clears the screen, names the window, turns red, and reads backwards."""
SHOWN = "a␛[2J␛]0;mine␇b�31mc␡�gpj.exe"


@pytest.mark.parametrize("surface", TERMINAL)
def test_a_name_commands_no_terminal(surface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = printed(surface, COMMANDS, monkeypatch, force_terminal=True, color_system="standard")
    assert "a␛[2J␛]0;mineb�31m" in told  # rich drops the bell
    ours = re.sub(r"\x1b\[[\d;]*m", "", told)  # styles
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ours)


def test_views_in_place_still_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = terminal.PlainConsole(file=text, width=80, force_terminal=True)
    monkeypatch.setattr(terminal, "out", console)
    terminal.show_in_place([Text(COMMANDS), Text("later")])
    assert "\x1b[2K" in text.getvalue()  # its own command
    assert "\x1b[2J" not in text.getvalue()
    assert SHOWN.replace("␇", "") in text.getvalue()


@pytest.mark.parametrize("kind", [DataError, NoteWarning, DoubtWarning])
def test_sentences_command_no_terminal_in_python_either(kind: type[Exception]) -> None:
    assert str(kind(f"bad {COMMANDS}\n\tgood")) == f"bad {SHOWN}\n\tgood"


def test_lines_and_warnings_of_the_command_line_are_plain(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(COMMANDS)
    say(COMMANDS, err=True)
    show_warning(COMMANDS, NoteWarning, "x.py", 1)
    told = capsys.readouterr()
    assert told.out == f"{SHOWN}\n"
    assert told.err.count(SHOWN) == 2
    assert "\x1b" not in told.err


def test_a_library_says_nothing_of_a_damaged_file_before_us() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pass_over_libraries_words()
        silenced = (
            "PIL.TiffImagePlugin",
            "torch._weights_only_unpickler",
            "peft.tuners.boft.layer",
        )
        for module in (*silenced, "pillows"):
            warnings.warn_explicit(module, UserWarning, "x.py", 1, module=module)
    assert [str(one.message) for one in told] == ["pillows"]


def test_the_cache_lists_sets_by_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from driftscope.data import cache as stored

    entry = stored.CacheEntry(tmp_path, "[/red] :smile:", 3, 8, 100, 0.0)
    monkeypatch.setattr(stored, "list_entries", lambda: [entry])
    show_cache()
    assert "[/red] :smile:" in capsys.readouterr().out


class Elements(HTMLParser):
    """The elements of a page and the attributes that run scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.scripts += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("name", NAMES)
def test_a_comparisons_page_has_no_element_more(name: str, tmp_path: Path) -> None:
    plain = write_compare_report(hostile_comparison("plain"), None, tmp_path / "a").read_text()
    hostile = write_compare_report(hostile_comparison(name), None, tmp_path / "b").read_text()
    assert Elements(hostile).found == Elements(plain).found
    assert not Elements(hostile).scripts


@pytest.mark.parametrize("name", NAMES)
def test_tex_takes_names_for_text(name: str) -> None:
    tex = hostile_table(name).to_latex()
    kept = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde)(\{\})?|\\[#$%&_{}]", "", tex)
    body = kept.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    assert not re.search(r"[$%#^~_]|\\input", body)
    assert r"\input" not in tex


def test_every_doubt_stands_on_a_studys_page_and_its_runs(tmp_path: Path) -> None:
    write_fake_study(tmp_path, rates=(1e-4,), seeds=(0,), maps=False)
    results = sorted(tmp_path.rglob("result.json"))
    for file in results:
        values = json.loads(file.read_text())
        for point in ("selected", "last"):
            for score in values[point]["transfer"].values():
                score["doubts"] = ["<i>half</i> of its names are no words"]
        file.write_text(json.dumps(values))
    page = write_fake_report(tmp_path, tmp_path / "page").read_text()
    assert "<b>Doubtful.</b> concepts100: &lt;i&gt;half&lt;/i&gt; of its names" in page
    pages = re.findall(r'class="run-data" data-run="[^"]*">(.*?)</script>', page, re.DOTALL)
    assert len(pages) == len(results)
    for one in pages:
        said = json.loads(one)["said"]
        assert ["Doubtful:", "concepts100: <i>half</i> of its names are no words."] in said
        assert any(sentence.startswith("Zero-shot accuracy on") for _, sentence in said)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_a_folder_whose_name_is_no_utf_8_is_compared_drawn_and_read_again(
    tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    """The chart could not draw it, and no reader of JSON took the report."""
    images = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    shutil.copytree(coloured_images, images)
    asked = ["--images", images, "--transfer", images, "--out", str(tmp_path / "out")]
    runner = CliRunner()
    done = runner.invoke(app, ["compare", str(tiny_clip), str(other_tiny_clip), *asked])
    assert done.exit_code == 0, done.output
    report = read_comparison(tmp_path / "out")
    assert report["images"].endswith(r"/\udcff\udcfe")
    assert list(report["transfer"]) == [report["images"]]
    assert runner.invoke(app, ["card", str(tmp_path / "out")]).exit_code == 0


def test_a_page_with_a_name_that_is_no_utf_8_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "rendered", lambda *_, **__: "the pool \udcff")
    page.write_page("where.html", tmp_path)
    assert (tmp_path / "report.html").read_text() == r"the pool \udcff"
