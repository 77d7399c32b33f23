"""`driftscope metrics`: every number that driftscope reports, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from driftscope.cli.failures import plain_errors
from driftscope.cli.options import AsJson
from driftscope.metric import Metric
from driftscope.metrics import METRICS, metric, numbers_schema

_BETTER = {"higher": "higher", "lower": "lower", None: "–"}


@plain_errors
def metrics(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Names such as retention_pct. By default all.")
    ] = None,
    as_json: AsJson = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a report's `scalars`.")
    ] = False,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the page of the documentation, docs/metrics.md."),
    ] = False,
) -> None:
    """List every number that driftscope reports: its name, unit, range and meaning."""
    shown = [metric(key) for key in keys] if keys else list(METRICS.values())
    if as_json:
        typer.echo(json.dumps([facts(one) for one in shown], indent=1, ensure_ascii=False))
    elif schema:
        typer.echo(json.dumps(numbers_schema(), indent=1, ensure_ascii=False))
    elif markdown:
        typer.echo(markdown_page(), nl=False)
    else:
        _show(shown)


def facts(one: Metric) -> dict[str, Any]:
    """What a metric is, as JSON holds it."""
    return {
        "key": one.key,
        "label": one.label,
        "unit": one.unit,
        "decimals": one.decimals,
        "better": one.better,
        "bounds": list(one.bounds),
        "unchanged": one.unchanged,
        "exists": sorted(one.exists),
        "group": one.group,
        "definition": one.definition,
        "source": one.source,
        "plug_in": one.plug_in,
    }


def markdown_page() -> str:
    """`docs/metrics.md`: a table a group."""
    return "\n".join(_markdown_lines()) + "\n"


_GUIDE = """\
You need few of them: retention says how much is left, CKA roughly orders models by damage, and
[what the signals mean](signals.md) tells what the others are good for.

Under *better* stands which way a number should go; – is neither. A name that begins with Δ is a
change from the pretrained model to the adapted one. ERF is the effective receptive field of
attention. HSIC is the dependence measure that CKA is made of. In the last column *paper* is
[the study that driftscope implements](paper.md), and a number such as 2308.13320 is a preprint on
arXiv."""


def _markdown_lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "Every number that driftscope reports has one name, one unit and one number of decimals."
    yield "`driftscope metrics` prints this list, `driftscope metrics --json` as JSON."
    yield "This page is written by `driftscope metrics --markdown`."
    yield ""
    yield _GUIDE
    for group in dict.fromkeys(one.group for one in METRICS.values()):
        yield ""
        yield f"## {group.capitalize()}"
        yield ""
        yield "| key | heading | meaning | range | better | decimals | source |"
        yield "|---|---|---|---|---|---|---|"
        for one in (one for one in METRICS.values() if one.group == group):
            told = (f"`{one.key}`", one.heading, one.definition)
            others = (one.range_text, _BETTER[one.better], str(one.decimals), one.source)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in told + others)} |"


def _show(shown: list[Metric]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from driftscope.cli.terminal import out

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in ("Key", "Heading", "Range", "Better", "Meaning"):
        table.add_column(heading, overflow="fold")
    group = ""
    for one in shown:
        if one.group != group:
            group = one.group
            table.add_row(Text(group, style="bold"))
        source = f" ({one.plug_in})" if one.plug_in else ""
        table.add_row(
            one.key, one.heading, one.range_text, _BETTER[one.better], one.definition + source
        )
    out.print(table)
