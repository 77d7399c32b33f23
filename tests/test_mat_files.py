"""MATLAB's files are read as scipy reads them, and damaged ones are refused, not crashed on."""

from __future__ import annotations

import random
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from driftscope.data.layouts.mat_files import read_mat


def as_ours(value: Any) -> Any:
    """What scipy gives, as lists and dictionaries."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        return [{name: as_ours(one[name]) for name in value.dtype.names}
                for one in value.ravel(order="F")]  # fmt: skip
    if value.dtype == object:
        return [as_ours(one) for one in value.ravel(order="F")]
    if value.dtype.kind == "U":
        rows = list(map(str, value.ravel()))
        return rows if len(rows) > 1 else "".join(rows)
    return value.squeeze()


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list | dict):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype.newbyteorder("=") == theirs.dtype.newbyteorder("=")
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def held() -> dict[str, Any]:
    numbers = np.random.default_rng(0)
    structs = np.zeros((1, 3), [("fname", "O"), ("class", "O")])
    for at in range(3):
        structs[0, at] = (f"0000{at}.jpg", at + 1)
    cells = np.empty((1, 3), object)
    cells[0] = ["AM General Hummer", numbers.normal(size=(2, 2)), structs]
    return {
        "X": numbers.integers(0, 256, (4, 5, 3, 2)).astype(np.uint8),
        "y": np.array([[1], [10]], np.uint8),
        "f": numbers.normal(size=(3, 1)).astype(np.float32),
        "long_name_of_a_variable": np.int64(-7),
        "annotations": structs,
        "class_names": cells,
        "text": "a",
        "empty": np.zeros((0, 3)),
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path: Path, compressed: bool) -> None:
    savemat(tmp_path / "x.mat", held(), do_compression=compressed)
    theirs = loadmat(tmp_path / "x.mat", mat_dtype=True)
    ours = read_mat(tmp_path / "x.mat")
    assert set(ours) == set(held())
    for name in ours:
        assert_same(ours[name], as_ours(theirs[name]))


@pytest.mark.parametrize("version", ["5.3_SOL2", "6.1_SOL2", "6.5.1_GLNX86", "7.4_GLNX86"])
def test_what_matlab_writes_is_read_as_scipy_reads_it(version: str) -> None:
    folder = Path(str(resources.files("scipy.io.matlab"))) / "tests" / "data"
    kinds = (
        "cell",
        "cellnest",
        "double",
        "matrix",
        "minus",
        "multi",
        "string",
        "structarr",
        "unicode",
    )
    files = [folder / f"test{kind}_{version}.mat" for kind in (*kinds, "emptycell")]
    files = [file for file in files if file.is_file()]
    if not files:
        pytest.skip("this scipy comes without the files of its tests")
    for file in files:
        theirs = loadmat(file, mat_dtype=True)
        for name, value in read_mat(file).items():
            assert_same(value, as_ours(theirs[name]))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """scipy's reader ends the process on some of these."""
    chance, file = random.Random(0), tmp_path / "x.mat"
    savemat(file, held())
    whole = file.read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4))):
            data[chance.randrange(128, len(data))] = chance.randrange(256)
        file.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            read_mat(file)
        except ValueError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("start", "reason"),
    [(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "form 7.3"), (b"\0" * 200, "no file of")],
)
def test_files_of_other_forms_are_named(tmp_path: Path, start: bytes, reason: str) -> None:
    (tmp_path / "x.mat").write_bytes(start + bytes(600))
    with pytest.raises(ValueError, match=rf"{reason}.*; save it with -v7"):
        read_mat(tmp_path / "x.mat")
