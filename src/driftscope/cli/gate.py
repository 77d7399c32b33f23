"""`driftscope gate`: exit code 0 or 1, for CI. Its options are derived from `gate.GATED`."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope.cli.sentences import plain_errors
from driftscope.gate.limits import GATED, parse_limit


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
                    help=f"{gated.meaning}.",
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
            help="Accuracies and retention must pass with the lower end of their 95 % interval.",
        ),
    ] = False,
    best: Annotated[
        bool, typer.Option("--best", help="Of a monitored training, the best step's numbers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
    **asked: list[str] | None,
) -> None:
    """Judges a report by limits: exit code 0 if all are kept, 1 if not, 2 if it can't be read.

    What is asked for and was not measured has not passed. Limits of transfer sets hold for each of
    them, or for one: --min-retention pets=90.
    """
    from driftscope.gate.judging import judge, read_evidence

    limits = [
        parse_limit(gated, text) for gated in GATED for text in asked.get(gated.parameter) or ()
    ]
    evidence = read_evidence(report, best=best)
    verdicts = judge(evidence, limits, confident=confident)
    passed = all(verdict.outcome == "passed" for verdict in verdicts)
    if as_json:
        values = {
            "report": str(evidence.source),
            "what": evidence.what,
            "passed": passed,
            "confident": confident,
            "verdicts": [verdict.to_dict() for verdict in verdicts],
        }
        typer.echo(json.dumps(values, indent=1))
    else:
        from driftscope.cli.verdicts import show_verdicts

        show_verdicts(evidence, verdicts, confident=confident)
    if not passed:
        raise typer.Exit(1)
