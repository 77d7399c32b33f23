"""The kinds of files that others make: whole ones, how they are damaged, and who reads them."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from . import crafted
from .mutations import (
    HOSTILE,
    damaged_bytes,
    damaged_json,
    damaged_lines,
    damaged_values,
    damaged_yaml,
)


class Wrong(AssertionError):  # noqa: N818
    """A damaged input was believed: what was read is not what had been written."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: what it is called.
        share: how many of a hundred inputs are of it.
        make: writes a whole one into an empty folder, once.
        damage: damages a copy of it.
        read: reads it; raises `Wrong` where it took for true what is not.
    """

    name: str
    share: int
    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path, Path], None]


def command(*arguments: object) -> str:
    """Runs a command of the command line in this process; gives what it printed.

    Raises:
        Exception: whatever the command raised that is no sentence.
        Refused: it answered with a sentence.
    """
    from typer.testing import CliRunner

    from driftscope.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code == 0:
        return result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 70 or "Traceback" in result.output:
        raise RuntimeError(f"a fault: {result.output}")
    signs = ("driftscope:", "Error", '"sentence": "')  # the last in what --json prints
    if not any(sign in result.output for sign in signs):
        raise RuntimeError(f"exit {result.exit_code} without a sentence: {result.output}")
    raise Refused(result.output)


class Refused(Exception):  # noqa: N818
    """A command answered with a sentence."""


# ---------------------------------------------------------------- specs

_RUN = """model: mini
dataset: terrain
method: {kind: lora, rank: 4, alpha: 8}
learning_rate: 1e-3
epochs: 2
seed: 7
regularizers: [{kind: l2_sp, weight: 0.1}]
transfer: [concepts100]
"""
_STUDY = """name: small
title: A small study
base: &base
  model: mini
  dataset: terrain
  epochs: 2
axes:
  method: [full_ft, {kind: lora, rank: 4}]
  learning_rate: [1e-4, 1e-3]
  seed: [7, 11]
overrides:
  - when: {method: lora}
    set: {epochs: 3}
exclude:
  - {method: full_ft, learning_rate: 1e-3}
extra:
  - {method: linear_probe, learning_rate: 1e-2, seed: [7]}
"""


def _make_specs(folder: Path) -> None:
    (folder / "study.yaml").write_text(_STUDY)
    (folder / "run.yaml").write_text(_RUN)


def _damage_spec(folder: Path, rng: random.Random) -> None:
    name = rng.choice(("study.yaml", "study.yaml", "run.yaml"))
    (folder / ("run.yaml" if name == "study.yaml" else "study.yaml")).unlink()
    content = (folder / name).read_bytes()
    way = rng.randrange(4)
    if way < 3:
        content = (damaged_bytes, damaged_lines, damaged_yaml)[way](content, rng)
    else:
        values = damaged_values(yaml.safe_load(content), rng)
        content = yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")
    (folder / name).write_bytes(content)


def _read_spec(folder: Path, _whole: Path) -> None:
    from driftscope.config import load_run_spec, parse_run_spec, run_id

    if (folder / "study.yaml").exists():
        command("study", "plan", folder / "study.yaml", "--json")
        return
    spec = load_run_spec(folder / "run.yaml")
    if run_id(parse_run_spec(spec.model_dump(mode="json"))) != run_id(spec):
        raise Wrong("the spec is another one when it is written and read")


# ---------------------------------------------------------------- records


def make_records(folder: Path) -> None:
    """A finished study of two runs, as `driftscope study run` leaves it, with a comparison."""
    from fake_study import fake_comparison, write_fake_study

    from driftscope.config import StudySpec
    from driftscope.records import write_result, write_sealed
    from driftscope.study import StudyFolder

    study = folder / "study"
    write_fake_study(study, methods=("lora",), rates=(1e-3,), seeds=(0, 1))
    for run in (study / "runs").iterdir():
        write_result(run, json.loads((run / "result.json").read_text()))
    StudyFolder(study).declare(
        StudySpec(
            name="fuzz",
            base={"dataset": "terrain", "epochs": 4, "transfer_images": 5000},
            axes={"method": ("lora",), "learning_rate": (1e-3,), "seed": (0, 1)},
        )
    )
    comparison = fake_comparison()
    comparison["scalars"] = {"cka": 0.9, "embedding_drift": 0.1}
    write_sealed(folder / "report.json", comparison)


def _damage_record(folder: Path, rng: random.Random) -> None:
    run, other = sorted((folder / "study" / "runs").iterdir())
    name = rng.choice(
        ("result.json", "result.json", "spec.json", "events.jsonl", "attention.npz", "study.json",
         "report.json", "copied", "link")
    )  # fmt: skip
    if name == "copied":
        shutil.copy(other / rng.choice(("result.json", "spec.json", "events.jsonl")), run)
    elif name == "link":
        target = run / rng.choice(("result.json", "events.jsonl", "attention.npz"))
        target.unlink()
        target.symlink_to(rng.choice(("/dev/zero", "/nowhere", ".", "/dev/null", "spec.json")))
    else:
        places = {"study.json": folder / "study" / name, "report.json": folder / name}
        file = places.get(name, run / name)
        if name == "attention.npz" and rng.random() < 0.5:
            file.write_bytes(crafted.arrays(rng, str(folder / MARK)))
            return
        ways = {"events.jsonl": (damaged_bytes, damaged_lines), "attention.npz": (damaged_bytes,)}
        way = rng.choice(ways.get(name, (damaged_json,)))
        file.write_bytes(way(file.read_bytes(), rng))


def _read_record(folder: Path, whole: Path) -> None:
    from driftscope.errors import RecordError
    from driftscope.opened_study import Study
    from driftscope.records import load_overlay, load_run

    refusals: list[Exception] = []
    for run in sorted((folder / "study" / "runs").iterdir()):
        with suppress(RecordError):  # as it is read where no result tells its digest
            load_overlay(run)
        try:
            record = load_run(run)
            overlay = load_overlay(run, record.result.files.get("attention.npz"))
            before = load_overlay(whole / "study" / "runs" / run.name)
            if overlay and before and not np.array_equal(overlay.adapted, before.adapted):
                raise Wrong("other attention than the run wrote is shown")
        except RecordError as error:
            refusals.append(error)
    _refuse_run_code(folder)
    limits = ("--min-cka", "0.5", "--max-embedding-drift", "0.5")
    same = (folder / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    try:
        command("gate", folder, *limits)
        if not same and _values(folder / "report.json") != _values(whole / "report.json"):
            raise Wrong("a report that was changed has passed a gate")
    except Refused:
        if same:
            raise
    command("study", "export", folder / "study", "--format", "csv")
    study, written = Study(folder / "study"), Study(whole / "study")
    kept = study.runs()[~study.runs()["run_id"].isin(study.changed)]
    expected = written.runs().set_index("run_id")
    if study.folder.study() == written.folder.study():
        for row in kept.to_dict("records"):
            for name, value in expected.loc[row["run_id"]].items():
                if row[str(name)] != value and (row[str(name)] == row[str(name)] or value == value):
                    raise Wrong(f"{name} is {row[str(name)]}, and was written as {value}")
    for error in refusals:
        raise error


MARK = "code-was-run"


def _refuse_run_code(folder: Path) -> None:
    if (folder / MARK).exists():
        raise Wrong("code of the input was run")


def _values(path: Path) -> Any:
    values = json.loads(path.read_text())
    values.pop("digest", None)
    return values


# ---------------------------------------------------------------- images

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX")


def _make_images(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
    for name in _FORMATS:
        Image.fromarray(pixels).save(folder / f"picture.{name.lower()}", format=name)


def _damage_image(folder: Path, rng: random.Random) -> None:
    chosen = rng.choice(_FORMATS).lower()
    for file in folder.iterdir():
        if file.suffix != f".{chosen}":
            file.unlink()
        elif chosen == "png" and rng.random() < 0.7:
            file.write_bytes(crafted.picture(rng))
        else:
            file.write_bytes(damaged_bytes(file.read_bytes(), rng))


def _read_image(folder: Path, _whole: Path) -> None:
    from driftscope.data import open_dataset

    opened = open_dataset(str(folder))
    pixels = opened.pixels(range(len(opened)), 16)
    if pixels.shape != (1, 3, 16, 16):
        raise Wrong(f"one picture became {tuple(pixels.shape)}")


# ---------------------------------------------------------------- lists and tables


def _png(seed: int) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _make_lists(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for number in range(4):
        (folder / f"{number}.png").write_bytes(_png(number))
    rows = [{"path": f"{number}.png", "label": "ab"[number % 2]} for number in range(4)]
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "list.json").write_text(json.dumps(rows))
    images = [{"bytes": _png(number), "path": None} for number in range(4)]
    parquet.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), folder / "a.parquet")
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number in range(4):
            for name, content in ((f"{number}.png", _png(number)), (f"{number}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (folder / "classes.yaml").write_text("a: a cat\nb: a dog\n")


_LISTS = ("list.csv", "list.jsonl", "list.json", "a.parquet", "a.tar", "classes.yaml")


def _damage_list(folder: Path, rng: random.Random) -> None:
    name = rng.choice(_LISTS)
    (folder / "chosen").write_text(name)
    content = (folder / name).read_bytes()
    ways: tuple[Any, ...] = (damaged_bytes,)
    if name == "classes.yaml":
        ways = (damaged_bytes, damaged_lines, damaged_yaml)
    elif name in ("list.csv", "list.jsonl"):
        ways = (damaged_bytes, damaged_lines)
    elif name == "list.json":
        ways = (damaged_json,)
    if name in _CRAFTED and rng.random() < 0.4:
        (folder / name).write_bytes(_CRAFTED[name](rng))
    else:
        (folder / name).write_bytes(rng.choice(ways)(content, rng))


_CRAFTED: dict[str, Callable[[random.Random], bytes]] = {
    "list.csv": crafted.rows,
    "a.parquet": crafted.table,
    "a.tar": lambda rng: crafted.archive(rng, _png(0)),
}


def _read_list(folder: Path, _whole: Path) -> None:
    from driftscope.data import open_dataset
    from driftscope.data.names import read_names

    name = (folder / "chosen").read_text()
    if name == "classes.yaml":
        read_names(folder / name)
        return
    opened = open_dataset(str(folder / name))
    pixels = opened.pixels(range(len(opened)), 8)
    if len(pixels) != len(opened):
        raise Wrong(f"{len(opened)} images became {len(pixels)}")


# ---------------------------------------------------------------- model folders


def _make_models(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPModel

    from driftscope.sources.embedded import EMBEDDED

    shutil.copytree(EMBEDDED["mini-p14"], folder / "model")
    model = CLIPModel.from_pretrained(folder / "model")
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "model")
    adapted.save_pretrained(folder / "adapter")


def _damage_model(folder: Path, rng: random.Random) -> None:
    place = folder / rng.choice(("model", "model", "adapter"))
    files = [file for file in sorted(place.iterdir()) if file.suffix in (".json", ".safetensors")]
    file = rng.choice(files)
    way = damaged_bytes if file.suffix == ".safetensors" else damaged_json
    content = file.read_bytes()
    if file.suffix == ".safetensors" and rng.random() < 0.5:
        content = _crafted_weights(file, folder, rng)
    elif file.suffix == ".safetensors" and rng.random() < 0.5:  # where the header is
        content = damaged_bytes(content[:4000], rng) + content[4000:]
    else:
        content = way(content, rng)
    file.write_bytes(content)
    adapter = folder / "adapter" / "adapter_config.json"
    if place.name == "model" and rng.random() < 0.2:
        place = folder / "adapter"
    if file != adapter:
        values = json.loads(adapter.read_text())
        values["base_model_name_or_path"] = str(folder / "model")
        adapter.write_text(json.dumps(values))
    (folder / "chosen").write_text(place.name)


def _crafted_weights(file: Path, folder: Path, rng: random.Random) -> bytes:
    """Weights whose header lies; or in their place a pickle, under a name that libraries know."""
    if rng.random() < 0.7:
        return crafted.tensors(rng)
    names = {"adapter_model.safetensors": "adapter_model.bin"}
    whole = file.read_bytes()
    for name in (
        names.get(file.name, "pytorch_model.bin"),
        "training_args.bin",
        "open_clip_model.pt",
    ):
        (file.parent / name).write_bytes(crafted.pickled(str(folder / MARK)))
    return rng.choice((whole, b"", crafted.pickled(str(folder / MARK))))


def _read_model(folder: Path, _whole: Path) -> None:
    import torch

    from driftscope.errors import DriftscopeError
    from driftscope.sources import load

    try:
        model = load(folder / (folder / "chosen").read_text())
    finally:
        _refuse_run_code(folder)
    pixels = torch.zeros((1, 3, model.image_size, model.image_size), dtype=torch.uint8)
    try:
        embedded = model.embed_images(pixels)
    except DriftscopeError:
        return
    if embedded.shape[0] != 1:
        raise Wrong(f"one image became embeddings of shape {tuple(embedded.shape)}")


# ---------------------------------------------------------------- names

_FORMULA = re.compile(r"(?m)(?:^|,)\"?[=+@-](?![0-9.]|inf)")
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _damage_names(folder: Path, rng: random.Random) -> None:
    """Puts hostile texts in the place of a record's texts, and seals it as if it were whole."""
    from driftscope.records import write_result, write_sealed

    texts = [one for one in HOSTILE if isinstance(one, str) and one not in ("\ud83d", "\x00")]
    for run in sorted((folder / "study" / "runs").iterdir()):
        result = json.loads((run / "result.json").read_text())
        _rename(result, texts, rng)
        (run / "spec.json").write_text(json.dumps(result["spec"]))
        write_result(run, {key: value for key, value in result.items() if key != "digest"})
    study = json.loads((folder / "study" / "study.json").read_text())
    study["study"]["title"], study["study"]["name"] = rng.choice(texts), rng.choice(texts)
    (folder / "study" / "study.json").write_text(json.dumps(study))
    comparison = json.loads((folder / "report.json").read_text())
    _rename(comparison, texts, rng)
    comparison.pop("digest", None)
    write_sealed(folder / "report.json", comparison)


_NAMING = ("model", "dataset", "class", "taken_for", "name", "pretrained", "adapted", "images",
           "device", "platform", "doubts", "notes", "sentence", "protocol_note")  # fmt: skip


def _rename(value: Any, texts: list[str], rng: random.Random) -> None:
    """Renames what is free text, at half of its places."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(one, dict | list):
            _rename(one, texts, rng)
        elif isinstance(one, str) and key in _NAMING and rng.random() < 0.5:
            value[key] = rng.choice(texts)


def _read_names(folder: Path, _whole: Path) -> None:
    out = folder / "out"
    said = []
    for words in (
        ("study", "export", folder / "study", "--format", "csv", "--out", out),
        ("study", "report", folder / "study", "--format", "html,csv,md,tex", "--out", out),
        ("card", folder, "--out", out / "card.md"),
        ("gate", folder, "--min-cka", "0.5"),
    ):
        try:
            with patch.dict(os.environ, {"DRIFTSCOPE_MAX_PAGE_RUNS": "1"}):  # no still figures
                said.append(command(*words))
        except Refused as error:
            said.append(str(error))
    for text in said:
        if found := _COMMANDS.search(text):
            raise Wrong(f"the terminal is told {found[0]!r} in {text!r}")
    for file in out.rglob("*.csv"):
        if found := _FORMULA.search(file.read_text()):
            raise Wrong(f"{file.name} holds a formula: {file.read_text()[found.start() :][:60]!r}")
    for file in folder.parent.rglob("*"):
        if not file.is_relative_to(folder):
            raise Wrong(f"{file} was written beside what was asked for")
    for page in out.rglob("*.html"):
        if "</script><script>" in page.read_text():
            raise Wrong(f"{page.name} holds a name as markup")


KINDS = (
    Kind("spec", 40, _make_specs, _damage_spec, _read_spec),
    Kind("image", 25, _make_images, _damage_image, _read_image),
    Kind("list", 20, _make_lists, _damage_list, _read_list),
    Kind("record", 10, make_records, _damage_record, _read_record),
    Kind("model", 5, _make_models, _damage_model, _read_model),
    Kind("name", 1, make_records, _damage_names, _read_names),
)
