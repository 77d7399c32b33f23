"""`driftscope card`: what fine-tuning has kept, for the model that you publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import PRINTED, opt, print_or_write

HUB = "Hugging Face hub"
_BENCHMARK = (
    "SET=OWNER/DATASET:TASK says which benchmark of the hub a transfer set is. May be repeated."
)


@plain_errors
def card(
    report: Annotated[
        Path, typer.Argument(help="The folder that `driftscope compare` wrote, or its report.json.")
    ],
    out: Annotated[
        Path | None, opt("A file to write it to, instead of printing it.", "--out", panel=PRINTED)
    ] = None,
    benchmark: Annotated[list[str] | None, opt(_BENCHMARK, panel=HUB)] = None,
    eval_results: Annotated[
        Path | None,
        opt("The model's folder, which gets .eval_results/ for each --benchmark.", panel=HUB),
    ] = None,
    push: Annotated[
        str | None,
        opt("A model on the hub that gets the section and the results, in one commit.", panel=HUB),
    ] = None,
) -> None:
    """Write the section of a model card that says what fine-tuning has kept, as Markdown."""
    import yaml

    from driftscope import __version__
    from driftscope.analysis.model_card import EVAL_RESULTS, Benchmark, model_card
    from driftscope.analysis.model_card import eval_results as results_of
    from driftscope.errors import ConfigError
    from driftscope.files import inner_folder, write_whole
    from driftscope.schemas import read_comparison

    comparison = read_comparison(report)
    benchmarks = [Benchmark.parse(one) for one in benchmark or ()]
    if eval_results is not None and not benchmarks:
        raise ConfigError(
            "--eval-results needs --benchmark SET=OWNER/DATASET:TASK: the hub keeps results of "
            "its own benchmarks alone"
        )
    if benchmarks and eval_results is None and push is None:
        raise ConfigError("--benchmark needs --eval-results FOLDER or --push REPO to go to")
    files = {
        path: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        for path, entries in results_of(comparison, benchmarks, __version__).items()
    }
    section = model_card(comparison, __version__)
    print_or_write(section, out)
    if eval_results is not None:
        eval_results.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            write_whole(inner_folder(eval_results, EVAL_RESULTS) / Path(path).name, text.encode())
            say(f"Written: {eval_results / path}")
    if push is not None:
        from driftscope.hugging_face import commit_card

        say(f"Pushed: {commit_card(push, section, files)}")
