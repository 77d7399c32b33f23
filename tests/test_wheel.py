"""What a user installs: the package with its data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST_MB = 10.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(place.glob("*.whl")))


def test_a_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {
        f"driftscope/{path.relative_to(ROOT / 'src' / 'driftscope')}"
        for path in (ROOT / "src" / "driftscope").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    package |= {f"driftscope/studies/{path.name}" for path in (ROOT / "studies").iterdir()}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package
    for needed in (
        "py.typed",
        "suites.yaml",
        "sources/mini/model.safetensors",
        "data/imagenet_names.tsv",
    ):
        assert f"driftscope/{needed}" in held
    beside = {name.rpartition("/")[2] for name in wheel.namelist()} - {
        name.rpartition("/")[2] for name in held
    }
    assert beside == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_a_wheel_is_small_and_holds_no_program_but_python(wheel: zipfile.ZipFile) -> None:
    assert sum(one.compress_size for one in wheel.infolist()) < LARGEST_MB * 1e6
    kinds = {Path(name).suffix for name in wheel.namelist() if ".dist-info/" not in name}
    assert kinds <= {
        ".py", ".typed", ".yaml", ".tsv", ".json", ".safetensors", ".html", ".css", ".js", ".txt",
        ".md",
    }  # fmt: skip
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(entry).decode().split() == [
        "[console_scripts]", "driftscope", "=", "driftscope.cli:main"
    ]  # fmt: skip
