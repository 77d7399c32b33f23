from pathlib import Path

import pytest

from driftscope.config import ConfigError, StudySpec, load_study_spec, run_id
from driftscope.study import DEMO, FAST_DEMO, expand, missing, run_folder


def test_a_study_is_its_axes_crossed() -> None:
    specs = expand(DEMO)
    assert len(specs) == 2 * 3 * 2
    assert len({run_id(spec) for spec in specs}) == len(specs)
    assert len(expand(FAST_DEMO)) == 4


def test_reordering_axes_renames_no_run() -> None:
    turned = DEMO.model_copy(update={"axes": dict(reversed(DEMO.axes.items()))})
    assert {run_id(spec) for spec in expand(turned)} == {run_id(spec) for spec in expand(DEMO)}


def test_what_has_a_result_is_not_missing(tmp_path: Path) -> None:
    specs = expand(FAST_DEMO)
    folder = run_folder(tmp_path, specs[0])
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert missing(specs, tmp_path) == specs[1:]


def test_an_axis_that_no_run_has_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        expand(StudySpec(name="x", axes={"learning_rates": (1e-3,), "method": ("lora",)}))


def test_a_study_file_with_an_unknown_key_is_answered_by_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: x\naxis: {method: [lora]}\n")
    with pytest.raises(ConfigError, match="did you mean 'axes'"):
        load_study_spec(tmp_path / "s.yaml")
