"""The GitHub Action's own steps, run in bash as a runner does: all but the installation."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from fake_study import (
    METHODS,
    NUM_EPOCHS,
    NUM_TRANSFER_IMAGES,
    RATES,
    SEEDS,
    write_fake_study,
)

from driftscope.config import StudySpec
from driftscope.study import StudyFolder

ACTION = yaml.safe_load((Path(__file__).parents[1] / "action.yml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {
    step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step
}


def run_step(name: str, folder: Path, inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    given = {key: one.get("default", "") for key, one in ACTION["inputs"].items()} | inputs
    own = {
        key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: given[found[1]], value)
        for key, value in STEPS[name]["env"].items()
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    summary = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
        env={**os.environ, "PATH": path, **summary, **own},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_inputs_reach_the_shell_as_variables_alone() -> None:
    assert list(STEPS) == ["Install", "Compare", "Frontier", "Judge"]
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
    used = re.findall(r"\$\{\{ inputs\.([a-z-]+) \}\}", yaml.safe_dump(ACTION["runs"]))
    assert sorted(used) == sorted(ACTION["inputs"])


def test_its_steps_compare_judge_and_write_the_summary(
    tiny_clip: Path, other_tiny_clip: Path, coloured_images: Path, tmp_path: Path
) -> None:
    name = "after $(touch stolen) `touch stolen`; touch stolen"
    (tmp_path / name).symlink_to(other_tiny_clip)
    images = str(coloured_images)
    inputs = {"before": str(tiny_clip), "after": name, "images": images}
    inputs |= {"transfer": f"{images}\n", "pool": images}
    compared = run_step("Compare", tmp_path, inputs)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "driftscope-compare" / "report.html").exists()

    for limits, code, words, counted in (
        ("--max-embedding-drift 2\n  --min-cka 0", 0, "All 2 limits kept.", ("2", "0", "0")),
        ("--min-cka 1 --max-embedding-drift 2", 1, "failed: CKA is", ("2", "1", "0")),
        ("--min-cka $(touch${IFS}stolen)", 2, "takes a number, not", ("1", "0", "1")),
    ):
        judged = run_step("Judge", tmp_path, {"limits": limits})
        assert judged.returncode == code, judged.stdout + judged.stderr
        summary = (tmp_path / "summary.md").read_text().split("### driftscope\n\n")[-1]
        assert words in summary
        assert all(line.startswith("    ") for line in summary.splitlines() if line.strip())
        assert words in judged.stdout
        junit = ElementTree.parse(tmp_path / "driftscope-compare" / "junit.xml").getroot()
        assert tuple(map(junit.get, ("tests", "failures", "errors"))) == counted
    assert not list(tmp_path.rglob("stolen"))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_valid_bash(name: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", STEPS[name]["run"]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_summary_shows_a_studys_frontier(tmp_path: Path) -> None:
    axes = {"method": METHODS, "learning_rate": RATES, "seed": SEEDS}
    base = {"epochs": NUM_EPOCHS, "transfer_images": NUM_TRANSFER_IMAGES}
    StudyFolder(tmp_path / "study").declare(StudySpec(name="made-up", base=base, axes=axes))
    study = write_fake_study(tmp_path / "study", maps=False)
    done = run_step("Frontier", tmp_path, {"study": str(study)})
    assert done.returncode == 0, done.stderr
    title, _, *lines = (tmp_path / "summary.md").read_text().splitlines()
    assert title == "### Accuracy against retention"
    assert all(line.startswith("    ") for line in lines if line.strip())
    assert "lora" in "".join(lines)
    assert "etention" in "".join(lines)
