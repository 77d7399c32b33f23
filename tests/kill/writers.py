"""What writes files, and what of them counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOLATILE = (".lock", "calls")


@dataclass(frozen=True)
class Writer:
    """Something that writes a folder.

    Attributes:
        name: what it is called.
        work: does it all, or goes on with it, in a folder.
        state: what the folder then holds, as far as it must be the same every time.
        is_whole: whether every file must at all times be a former or a final one.
    """

    name: str
    work: Callable[[Path], None]
    state: Callable[[Path], Any]
    is_whole: bool = True


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path in the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in VOLATILE and not path.name.endswith(".lock")
    }


def writers(material: Path) -> list[Writer]:
    """The writers; what they read is made in `material`, once."""
    from conftest import make_tiny_clip
    from fuzz.kinds import make_records

    from driftscope.config import parse_run_spec
    from driftscope.files import write_whole
    from driftscope.prepared_run import prepare
    from driftscope.sources import load

    _make_images(material / "images")
    make_records(material)
    clip = make_tiny_clip(material / "clip", seed=0)
    spec = parse_run_spec(
        {
            "model": str(clip),
            "dataset": str(material / "images"),
            "method": "full_ft",
            "learning_rate": 1e-3,
            "epochs": 2,
            "batch_size": 16,
            "val_images": 6,
            "probe_images": 6,
            "transfer": [str(material / "images")],
        }
    )
    prepare(spec)  # children inherit what is read, and begin at once
    model = load(clip)

    def run(folder: Path) -> None:
        from driftscope.run import run_one

        run_one(spec, folder / "run")

    def export(folder: Path) -> None:
        from driftscope.adapt import export_merged

        if not (folder / "model").exists():
            export_merged(model, folder / "model")
        write_whole(folder / "written", b"yes")  # who writes there next removes what is left

    def tables(form: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            from driftscope.opened_study import Study

            Study(material / "study").export(folder, form)  # type: ignore[arg-type]

        return write

    def report(folder: Path) -> None:
        from driftscope.cli.reports import write_report

        write_report(material / "study", folder, "csv,md")

    def pixels(folder: Path) -> None:
        from driftscope.data import open_dataset

        os.environ["DRIFTSCOPE_CACHE"], os.environ["DRIFTSCOPE_CACHE_GB"] = str(folder), "1"
        opened = open_dataset(str(material / "images"), split="train")
        opened.pixels(range(len(opened)), 16)
        write_whole(folder / "written", b"yes")  # who writes there next removes what is left

    return [
        Writer("run", run, _outcome, is_whole=False),
        Writer("model", export, contents),
        Writer("csv", tables("csv"), contents),
        Writer("parquet", tables("parquet"), contents),
        Writer("report", report, contents),
        Writer("pixels", pixels, contents),
    ]


def _make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for channel, name in enumerate(("red", "green")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                values = rng.integers(0, 120, (36, 40, 3))
                values[..., channel] += 120
                Image.fromarray(values.astype("uint8")).save(folder / split / name / f"{index}.png")


def _outcome(folder: Path) -> Any:
    """All that a run leaves, but for the seconds that it took and the digests that follow them."""
    found: dict[str, Any] = dict(contents(folder))
    for name in [name for name in found if name.endswith("result.json")]:
        result = json.loads(found[name])
        for key in ("wall_seconds", "digest", "environment"):
            result.pop(key, None)
        found[name] = result
    return found
