"""Several transfer sets in a study: its advice and its caveats speak of all of them."""

import pandas as pd

from driftscope.analysis import Answer, StudyTables, answer
from driftscope.analysis.summaries import scope_caveat
from driftscope.analysis.tables import retention_columns

SETTING = {"model": "m", "dataset": "d", "transfer": "concepts100"}


def study(cifar: dict[str, float]) -> StudyTables:
    """Two methods, three seeds: on concepts100 both keep 95 %, on cifar100 what is given."""
    rows = [
        {
            **SETTING,
            "run_id": f"{method}{seed}",
            "protocol": "leakfree",
            "method": method,
            "learning_rate": 1e-4,
            "seed": seed,
            "regularizer": "none",
            "options": "default",
            "status": "done",
            "test_accuracy_pct": 90.0 if method == "full_ft" else 80.0,
            "retention_pct": 95.0,
            "retention_pct_cifar100": kept - seed,
        }
        for method, kept in cifar.items()
        for seed in (0, 1, 2)
    ]
    return StudyTables(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame())


def frontier(cifar: dict[str, float]) -> Answer:
    return answer("frontier", study(cifar))


def test_the_setting_to_take_keeps_the_budget_on_every_set_that_was_measured() -> None:
    found = frontier({"full_ft": 91.0, "lora_r8": 99.0})
    [advice] = found.advice
    assert advice.verdict.startswith("d: take lora_r8 at 1e-4")
    assert advice.verdict.endswith(
        "the most accurate whose every run keeps 90 % on each of concepts100 and cifar100."
    )
    assert "keeps 90 % on average, but its lowest run keeps 89.0 % on cifar100." in advice.steps[0]
    by_method = found.table.set_index("method")
    assert by_method["lowest_retention_pct"].to_dict() == {"full_ft": 89.0, "lora_r8": 95.0}
    assert by_method["lowest_on"].to_dict() == {"full_ft": "cifar100", "lora_r8": "concepts100"}
    assert "Retention is that on concepts100." in found.words


def test_a_set_that_some_runs_were_not_measured_on_judges_none_and_is_named() -> None:
    found = frontier({"full_ft": float("nan"), "lora_r8": 99.0})
    [advice] = found.advice
    assert advice.verdict.startswith("d: take full_ft at 1e-4")
    assert "whose every run keeps 90 % on concepts100, and the most accurate" in advice.verdict
    assert "No cell is judged by cifar100: some runs have no retention there" in found.words
    assert "lowest_on" not in found.table


def test_where_every_setting_loses_another_set_none_is_advised() -> None:
    [advice] = frontier({"full_ft": 12.0, "lora_r8": 40.0}).advice
    assert advice.outcome == "lost"
    assert "no setting keeps 90 % in every run on each of concepts100 and" in advice.verdict
    assert "lora_r8 at 1e-4" in advice.verdict
    assert advice.verdict.endswith("keeps most: its lowest run keeps 38.0 % on cifar100.")


def test_one_set_alone_is_said_to_be_alone_and_no_further_set_is_denied() -> None:
    tables = study({"full_ft": 91.0})
    assert list(retention_columns(tables.runs)) == ["concepts100", "cifar100"]
    one = tables.runs.drop(columns="retention_pct_cifar100")
    assert "on concepts100 alone;" in scope_caveat([SETTING], [*retention_columns(one)]).text
    both = scope_caveat([SETTING], [*retention_columns(tables.runs)]).text
    assert "alone" not in both
    assert "zero-shot on concepts100; of cifar100 the tables and the advice tell" in both
    bare = answer("frontier", StudyTables(one, pd.DataFrame(), pd.DataFrame()))
    assert "lowest_on" not in bare.table
    assert "on each of" not in bare.advice[0].verdict
