"""Written tables: what LaTeX and Markdown need, and names that collide."""

from pathlib import Path

import pandas as pd
import pytest

from driftscope.analysis.table import Column, Table, save_tables

NAMES = Column("a", "Name", "what it is", kind="text")


def table(*names: str, columns: int = 1, note: str = "A note.") -> Table:
    frame = pd.DataFrame({"a": list(names)})
    return Table("t", "Title", note, (NAMES,) * columns, frame)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("run --out x", r"run -{}-out x"),
        ("1–2", "1--2"),
        ("a\nb", "a b"),
        ("50 % of $x_1$", r"50 \% of \$x\_1\$"),
        ("[x]", "[x]"),
    ],
)
def test_names_from_data_are_written_for_latex(name: str, written: str) -> None:
    assert written + r" \tabularnewline" in table(name).to_latex()


def test_no_latex_row_ends_in_a_command_that_takes_the_next_rows_bracket() -> None:
    rows = table("a", "[b]", "*c").to_latex().split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert "\\\\" not in rows


def test_a_latex_table_wider_than_a_line_is_scaled_to_it() -> None:
    assert "resizebox" not in table("x" * 93).to_latex()
    assert "resizebox" in table("x", columns=16).to_latex()
    wide = table("x" * 94).to_latex()
    assert wide.startswith("% needs \\usepackage{booktabs,graphicx}")
    assert wide.count("{") - wide.count(r"\{") == wide.count("}") - wide.count(r"\}")


def test_a_latex_table_too_long_and_too_wide_comes_in_scaled_parts() -> None:
    text = table(*["x" * 94] * 41).to_latex()
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}")
    assert text.count(r"\begin{table}") == text.count("resizebox") == 2
    assert "Title. (part 1 of 2)" in text
    assert "Title. (part 2 of 2)" in text
    assert text.count(r"\label") == 1
    assert text.count("x" * 94) == 41


def test_the_caption_of_a_long_table_stands_on_its_first_page_alone() -> None:
    text = table(*"abcdefghij" * 5).to_latex()
    before, after = text.split(r"\endfirsthead")
    assert r"\caption" in before
    assert r"\caption" not in after


def test_every_format_has_the_note_and_the_explanations() -> None:
    for text in (table("x").to_latex(), table("x").to_markdown()):
        assert "A note. Name: what it is." in text


def test_a_line_break_or_bar_in_a_name_breaks_no_markdown_row() -> None:
    text = table("a\nb|c", note="left out: x|y\nz").to_markdown()
    assert "| a b\\|c |" in text
    assert "left out: x\\|y z" in text


def test_two_tables_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = save_tables([table("x"), table("y")], tmp_path, ["csv"])
    assert [path.name for path in paths] == ["t.csv", "t_2.csv"]
    assert [path.read_text() for path in paths] == ["a\nx\n", "a\ny\n"]
