"""What a user installs: the package with its data, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LARGEST_MB = 10.0
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")


def copied_into_the_container() -> list[list[str]]:
    """What each stage of the Containerfile copies out of the repository."""
    return [
        [source for line in re.findall(r"^COPY (.+)$", stage, re.M) for source in line.split()[:-1]]
        for stage in re.split(r"^FROM ", CONTAINER, flags=re.M)[1:]
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as the container's first stage builds it: of the files that it copies alone."""
    pytest.importorskip("hatchling")
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in copied_into_the_container()[0]:
        one = ROOT / name
        unwanted = shutil.ignore_patterns("__pycache__")
        (shutil.copytree if one.is_dir() else shutil.copy)(
            one, source / name, **({"ignore": unwanted} if one.is_dir() else {})
        )
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=source,
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


def test_the_wheel_works_in_an_empty_environment(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """What it depends on comes from the environment of the tests, driftscope from the wheel."""
    venv.create(tmp_path / "empty", with_pip=False)
    bin_folder = tmp_path / "empty" / "bin"
    install = ["-m", "pip", "--python", str(bin_folder / "python"), "install", "--quiet"]
    subprocess.run(
        [sys.executable, *install, "--no-deps", "--no-index", str(wheel.filename)], check=True
    )
    (site,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    dependencies = Path(yaml.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def told(*command: str) -> str:
        done = subprocess.run(
            [str(bin_folder / command[0]), *command[1:]],
            cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert told("driftscope", "--version").endswith(PROJECT["version"])
    assert "retention" in told("driftscope", "metrics", "retention_pct")
    place = told("python", "-c", "import driftscope; print(driftscope.__file__)")
    assert place == str(site / "driftscope" / "__init__.py")


def test_the_container_copies_what_its_context_keeps_and_pins_torch_once() -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert sorted(kept) == sorted(one for stage in copied_into_the_container() for one in stage)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.M)
    installs = re.findall(r"pip install [^\n]+", CONTAINER)
    assert len(installs) == 2
    assert all("--constraint /constraints.txt" in line for line in installs)
    lowest = re.findall(r"python:(\d+)\.(\d+)-slim", CONTAINER)
    assert all((int(major), int(minor)) >= (3, 11) for major, minor in lowest)


CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Where conda-forge names a project otherwise than PyPI does."""


def test_the_conda_recipe_asks_for_what_the_project_asks_for() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["package"] == {"name": PROJECT["name"], "version": PROJECT["version"]}
    wanted = [re.fullmatch(r"([\w-]+)(.+)", one) for one in PROJECT["dependencies"]]
    python = f"python {PROJECT['requires-python']}"
    assert recipe["requirements"]["run"] == [
        python,
        *(f"{CONDA_NAMES.get(one[1], one[1])} {one[2]}" for one in wanted if one),
    ]
    assert python in recipe["requirements"]["host"]
    scripts = [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["about"]["license"] == PROJECT["license"]
