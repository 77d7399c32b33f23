"""`driftscope gate`: exit code 0 or 1, for CI. Its options are derived from `gate.GATED`."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftscope.cli.failures import plain_errors
from driftscope.cli.options import PRINTED, AsJson, opt, write_text
from driftscope.gate.limits import GATED, parse_limit

if TYPE_CHECKING:
    from driftscope.gate.judging import Evidence, Verdict

_STYLES = {"passed": "green", "failed": "bold red", "not measured": "bold yellow"}


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for every number that can be limited; they come as keywords."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    limits = [
        inspect.Parameter(
            gated.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None,
                typer.Option(
                    gated.option,
                    metavar="[NAME=]NUMBER" if gated.of_transfer_set else "NUMBER",
                    help=f"{gated.meaning[0].upper()}{gated.meaning[1:]}.",
                    rich_help_panel="Limits",
                ),
            ],
        )
        for gated in GATED
    ]
    parameters = [*own, *limits]
    del wrapped.__wrapped__  # typer reads the signature below
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapped


@_with_limits
@plain_errors
def gate(
    report: Annotated[
        Path, typer.Argument(help="A report.json or result.json, or the folder that holds it.")
    ],
    confident: Annotated[
        bool,
        typer.Option(
            "--confident",
            help="Judge accuracies and retention by the lower end of their 95 % interval, and "
            "estimated retention by that of its 90 % interval.",
        ),
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Judge the best step of a monitored training."),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="A file of `driftscope study calibrate`, which forecasts retention from drift.",
        ),
    ] = None,
    class_words: Annotated[
        Path | None,
        typer.Option(
            "--class-words",
            help="Class words that zero-shot scores must have been measured with: the file that "
            "`driftscope compare` was given. Others do not pass.",
        ),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(
            "--templates",
            help="Prompt templates that they must have been measured with, as `driftscope compare` "
            "takes them.",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        opt(
            "A file to write the verdicts to as JUnit XML, one test case a limit.",
            "--junit",
            panel=PRINTED,
            metavar="FILE",
        ),
    ] = None,
    as_json: AsJson = False,
    **asked: list[str] | None,
) -> None:
    """Judge a report by limits: exit code 0 if all are kept, 1 if not, 2 if it can't be read.

    A number that was not measured does not pass. A limit on retention or zero-shot accuracy holds
    for every transfer set, or for one of them: --min-retention pets=90.
    """
    from driftscope.cli.terminal import show_advice
    from driftscope.errors import DriftscopeError
    from driftscope.gate.judging import asked_budget, judge, read_evidence
    from driftscope.gate.junit import junit_of_error, junit_xml

    try:
        limits = [
            parse_limit(gated, text) for gated in GATED for text in asked.get(gated.parameter) or ()
        ]
        evidence = read_evidence(report, best=best)
        if calibration is not None:
            from driftscope.analysis.calibration import load_calibration

            evidence = evidence.with_forecast(load_calibration(calibration))
        if class_words is not None or templates:
            from driftscope.gate.prompts import AskedPrompts  # what reads these files needs torch

            prompts = AskedPrompts.of(class_words, templates)
            prompts.check_used(limits)
            evidence = evidence.measured_with(prompts)
        verdicts = judge(evidence, limits, confident=confident)
    except DriftscopeError as error:
        if junit is not None:
            write_text(junit, junit_of_error(report, error), "--junit")
        raise
    passed = all(verdict.outcome == "passed" for verdict in verdicts)
    advice = evidence.advice(asked_budget(limits))
    if junit is not None:
        write_text(junit, junit_xml(evidence, verdicts), "--junit")
    if as_json:
        values = {
            "report": str(evidence.source),
            "what": evidence.what,
            "passed": passed,
            "confident": confident,
            "forecast": evidence.forecast.model_dump() if evidence.forecast else None,
            "verdicts": [verdict.to_dict() for verdict in verdicts],
            "advice": advice.to_dict(),
        }
        typer.echo(json.dumps(values, indent=1))
    else:
        show_verdicts(evidence, verdicts, confident=confident)
        show_advice([advice])
    if not passed:
        raise typer.Exit(1)


def show_verdicts(evidence: Evidence, verdicts: Sequence[Verdict], *, confident: bool) -> None:
    """A row for each limit, then why limits were not kept."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    from driftscope.cli.terminal import out

    table = RichTable(
        title=Text(evidence.what), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("Limit on")
    table.add_column("Asked")
    for heading in ("Measured", "Lower end") if confident else ("Measured",):
        table.add_column(heading, justify="right")
    table.add_column("")
    for verdict in verdicts:
        numbers = [_number(verdict.measured, verdict.unit)]
        if confident:
            is_interval = verdict.judged != verdict.measured
            numbers.append(_number(verdict.judged, verdict.unit) if is_interval else "")
        outcome = Text(verdict.outcome, style=_STYLES[verdict.outcome])
        table.add_row(Text(verdict.title), verdict.limit, *numbers, outcome)
    if evidence.forecast:
        out.print(Text(evidence.forecast.sentence), soft_wrap=True)
    out.print(table)
    missed = [verdict for verdict in verdicts if verdict.outcome != "passed"]
    for verdict in missed:
        out.print(Text(f"{verdict.outcome}: {verdict.sentence}"), soft_wrap=True)
    if not missed:
        several = f"All {len(verdicts)} limits kept."
        out.print(several if len(verdicts) > 1 else "The limit is kept.")


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.4g}{f' {unit}' if unit else ''}"
