"""A table as people read it, in every format: how each column of raw numbers is written.

HTML, Markdown and LaTeX show the written form, CSV the raw one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import pandas as pd

from driftscope.analysis.words import general_text, rate_text, spread_text, with_spread
from driftscope.files import csv_text, inner_folder, write_whole
from driftscope.metric import number_text
from driftscope.metrics import find_metric

Kind: TypeAlias = Literal["number", "text", "rate", "count", "general", "measure"]
"""How a column is written: 'mean ± sd' with fixed decimals, a word, a learning rate, a whole
number, 'mean ± sd' to three significant digits, or with the decimals of the row's own metric."""

MEASURES = ("metric", "outcome", "measure", "value", "signal")
"""Columns that name the metric that the numbers of their row are of."""

TABLE_FORMATS = ("csv", "md", "tex")
MOST_ROWS = 500
"""How many rows of a table a page shows."""

LATEX_ROWS_A_PAGE = 40
LATEX_LETTERS_A_LINE = 95
"""About as many letters of \\small as an A4 line holds, columns' gaps counted as two each."""


class Cell(NamedTuple):
    """A cell of a page's table: its text, its small print, what it is sorted by."""

    text: str
    detail: str
    value: str


@dataclass(frozen=True)
class Column:
    """One column as people read it: which numbers of the frame, and how they are written."""

    key: str
    heading: str
    explanation: str = ""
    kind: Kind = "number"
    decimals: int = 1
    signed: bool = False
    interval: tuple[str, str] | None = None
    count: str | None = None
    words: Callable[[str], str] = str

    @property
    def is_number(self) -> bool:
        """Whether the column is right-aligned and sorted by value."""
        return self.kind != "text"

    @property
    def look(self) -> str:
        """What a page's style sheet calls its cells."""
        return "number" if self.is_number else "word"

    def cell(self, row: Mapping[str, Any]) -> Cell:
        """All that a page shows of a row; a template that asks for each takes twice as long."""
        return Cell(self.text(row), self.detail(row), self.sort_value(row))

    def text(self, row: Mapping[str, Any]) -> str:
        """The main part of the cell: a word, a rate, a count, or 'mean ± sd'."""
        value = row.get(self.key)
        if self.kind == "text":
            return "–" if value is None or value != value else self.words(_plain(value))
        value = math.nan if value is None else float(value)
        if self.kind == "rate":
            return rate_text(value)
        if self.kind == "count":
            return f"{value:,.0f}" if math.isfinite(value) else "–"
        sd, decimals = float(row.get(f"{self.key}_sd", math.nan)), self.decimals_in(row)
        if decimals is None:
            return with_spread(general_text(value), general_text(sd))
        return spread_text(value, sd, decimals, signed=self.signed)

    def decimals_in(self, row: Mapping[str, Any]) -> int | None:
        """How many decimals a row's number has; None for three significant digits."""
        if self.kind == "measure":
            named = (find_metric(str(row[name])) for name in MEASURES if name in row)
            return next((metric.decimals for metric in named if metric), None)
        return None if self.kind == "general" else self.decimals

    def detail(self, row: Mapping[str, Any]) -> str:
        """The small print of the cell: interval and image count, where the column has them."""
        images = row.get(self.count) if self.count else None
        parts = [f"n = {images:,.0f}"] if images and images == images else []
        low, high = (row.get(key) for key in self.interval or ("", ""))
        if low is not None and high is not None and low == low:
            decimals = self.decimals_in(row)
            ends = [
                general_text(end) if decimals is None else number_text(end, decimals)
                for end in (low, high)
            ]
            # a dash beside a minus sign would be read as one
            parts.insert(0, (" to " if "−" in "".join(ends) else "–").join(ends))
        return ", ".join(parts)

    def sort_value(self, row: Mapping[str, Any]) -> str:
        """What the column is sorted by, as text; empty where there is no value."""
        value = row.get(self.key)
        if value is None or value != value:
            return ""
        return f"{float(value):.10g}" if self.is_number else str(value)


def _plain(value: object) -> str:
    """A value as a word; truth values as people say them."""
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    return str(value)


@dataclass(frozen=True)
class Table:
    """A titled table; `frame` holds the raw numbers, `columns` what of them is shown."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The frame's rows as mappings."""
        return [{str(k): v for k, v in row.items()} for row in self.frame.to_dict("records")]

    def short(self) -> Table:
        """The same, or of a long one its first rows, as a page can hold it."""
        if len(self.frame) <= MOST_ROWS:
            return self
        told = (
            f"The first {MOST_ROWS} of {len(self.frame):,} rows; all are in {self.name}.csv, which "
            "driftscope study report --format csv writes."
        )
        note = f"{self.note} {told}".strip()
        return replace(self, frame=self.frame.head(MOST_ROWS), note=note)

    @property
    def explained(self) -> list[Column]:
        """The columns whose heading needs more words."""
        return [column for column in self.columns if column.explanation]

    @property
    def whole_note(self) -> str:
        """The note and the columns' explanations, for formats that have one place for both."""
        explanations = "; ".join(f"{one.heading}: {one.explanation}" for one in self.explained)
        return " ".join(part for part in (self.note, explanations and f"{explanations}.") if part)

    def to_csv(self) -> str:
        """All columns of the frame, raw, full precision."""
        return csv_text(self.frame)

    def to_markdown(self) -> str:
        """The shown columns as a Markdown table under a bold title, with the note."""
        head = [_markdown_cell(column.heading) for column in self.columns]
        rule = ["---:" if column.is_number else ":---" for column in self.columns]
        body = [
            [_markdown_cell(written_cell(column, row)) for column in self.columns]
            for row in self.rows
        ]
        lines = [f"| {' | '.join(cells)} |" for cells in [head, rule, *body]]
        note = f"\n{_markdown_cell(self.whole_note)}\n" if self.whole_note else ""
        return f"**{_markdown_cell(self.title)}**\n\n" + "\n".join(lines) + "\n" + note

    def to_latex(self) -> str:
        """The shown columns as a LaTeX table in booktabs style, caption above.

        A table too long for a page is a `longtable`, which runs over several; one too wide for a
        line is scaled to it, in parts where it is long, too. pdflatex sets it where names are
        Latin; other scripts need lualatex.
        """
        headings = [column.heading for column in self.columns]
        cells = [[written_cell(column, row) for column in self.columns] for row in self.rows]
        widths = [2 + max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        body = [_latex_row(row) for row in cells]
        if sum(widths) > LATEX_LETTERS_A_LINE:
            packages, lines = "booktabs,graphicx", self._scaled_latex(body)
        elif len(body) > LATEX_ROWS_A_PAGE:
            packages, lines = "booktabs,longtable", self._long_latex(body)
        else:
            packages, lines = "booktabs", self._floating_latex(body)
        return "\n".join([rf"% needs \usepackage{{{packages}}}", *lines, ""])

    def _scaled_latex(self, body: Sequence[str]) -> list[str]:
        """Tables as wide as the line, each of a page's rows."""
        starts = range(0, max(len(body), 1), LATEX_ROWS_A_PAGE)
        lines = []
        for part, start in enumerate(starts, start=1):
            rows = body[start : start + LATEX_ROWS_A_PAGE]
            which = f" (part {part} of {len(starts)})" if len(starts) > 1 else ""
            lines += self._floating_latex(rows, which=which, is_scaled=True, has_label=part == 1)
        return lines

    def _floating_latex(
        self,
        body: Sequence[str],
        *,
        which: str = "",
        is_scaled: bool = False,
        has_label: bool = True,
    ) -> list[str]:
        opening, closing = (r"\resizebox{\linewidth}{!}{%", "}") if is_scaled else ("", "")
        lines = [
            r"\begin{table}[t]",
            r"\centering\small",
            self._latex_caption(which),
            self._latex_label if has_label else "",
            opening,
            rf"\begin{{tabular}}{{{self._latex_alignment}}}",
            *self._latex_head,
            *body,
            r"\bottomrule",
            r"\end{tabular}" + closing,
            r"\end{table}",
        ]
        return [line for line in lines if line]

    def _long_latex(self, body: Sequence[str]) -> list[str]:
        return [
            r"{\small",
            rf"\begin{{longtable}}{{{self._latex_alignment}}}",
            rf"{self._latex_caption()}{self._latex_label}\\",
            *self._latex_head,
            r"\endfirsthead",
            *self._latex_head,
            r"\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}",
            "}",
        ]

    def _latex_caption(self, which: str = "") -> str:
        title = self.title if self.title.endswith(("?", ".")) else f"{self.title}."
        return rf"\caption{{{latex_text(f'{title}{which} {self.whole_note}'.strip())}}}"

    @property
    def _latex_label(self) -> str:
        return rf"\label{{tab:{self.name}}}"

    @property
    def _latex_alignment(self) -> str:
        return "".join("r" if column.is_number else "l" for column in self.columns)

    @property
    def _latex_head(self) -> list[str]:
        headings = _latex_row(column.heading for column in self.columns)
        return [r"\toprule", headings, r"\midrule"]


def _latex_row(cells: Iterable[str]) -> str:
    # not a bare \\, which takes a bracket that the next row begins with for its own
    return " & ".join(map(latex_text, cells)) + r" \tabularnewline"


def written_cell(column: Column, row: Mapping[str, Any]) -> str:
    """A cell in one line: its text, and its small print in brackets."""
    detail = column.detail(row)
    return f"{column.text(row)} [{detail}]" if detail else column.text(row)


def slug(text: str) -> str:
    """The text as a file name or label: lower case, letters, digits and underscores.

    >>> slug("EuroSAT, openai/clip-vit-base-patch32")
    'eurosat_openai_clip_vit_base_patch32'
    """
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return "_".join(words) or "study"


def save_tables(
    tables: Iterable[Table], folder: Path, formats: Iterable[str] = TABLE_FORMATS
) -> list[Path]:
    """Writes each table as `folder`/<name>.csv, .md and .tex; returns the paths."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    inner_folder(folder.parent, folder.name)
    paths = []
    shortened: dict[str, str] = {}
    for name, table in uniquely_named((table.name, table) for table in tables):
        if len(table.name) > _LONGEST_NAME:
            shortened[name] = table.title
        writers = {"csv": table.to_csv, "md": table.to_markdown, "tex": table.to_latex}
        for kind in formats:
            path = folder / f"{name}.{kind}"
            write_whole(path, writers[kind]().encode())
            paths.append(path)
    return [*paths, *write_index(folder, shortened)]


def write_index(folder: Path, shortened: Mapping[str, str]) -> list[Path]:
    """Says what the files of shortened names are, in `index.csv`; nothing where there are none."""
    if not shortened:
        return []
    frame = pd.DataFrame({"file": shortened.keys(), "what it shows": shortened.values()})
    write_whole(folder / "index.csv", csv_text(frame).encode())
    return [folder / "index.csv"]


Thing = TypeVar("Thing")


def uniquely_named(things: Iterable[tuple[str, Thing]]) -> Iterator[tuple[str, Thing]]:
    """The same with a number behind a name that was there before: names from data may collide.

    And they may be paths of any length, which no file's name can be.
    """
    seen: dict[str, int] = {}
    for name, thing in things:
        seen[name] = seen.get(name, 0) + 1
        yield short_name(name if seen[name] == 1 else f"{name}_{seen[name]}"), thing


_LONGEST_NAME = 100


def short_name(name: str) -> str:
    """The name, or of a long one its beginning and eight digits that stand for the whole."""
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: _LONGEST_NAME - 9]}_{digest}"


def _markdown_cell(text: str) -> str:
    one_line = " ".join(text.splitlines())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u00a0": "~",
    "±": r"$\pm$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
    "–": "--",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "ρ": r"$\rho$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "`": r"\textasciigrave{}",
    "\n": " ",
    "\r": " ",
}


def latex_text(text: str) -> str:
    """The text with LaTeX's special characters and our symbols written for LaTeX."""
    # two hyphens, as of a command's option, would be set as a dash
    parts = ("".join(_LATEX.get(one, one) for one in part) for part in text.split("--"))
    return "-{}-".join(parts)
