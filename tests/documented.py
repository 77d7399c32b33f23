"""The code blocks of the documentation, and what a reader of it has at hand."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(?P<info>.*)$")
_MARK = re.compile(r"^<!-- not run: (?P<why>.+) -->$")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')

TINY = {
    "epochs": 1,
    "train_images": 40,
    "val_images": 20,
    "probe_images": 20,
    "test_images": 20,
    "transfer_images": 100,
}
"""What every documented run is cut down to in the test; the rest of its file stays."""
NUM_VALUES = {"seed": 1}
"""Values of an axis that are kept of a study; two of those not named."""
FEWER = {"--transfer": ["--transfer-images", "100"], "--pool": ["--pool-images", "100"]}
"""What a documented comparison is cut down to, by the option that it asks with."""
AT_HAND = {"openai/clip-vit-base-patch32": "mini", "cifar100": "concepts100"}
"""What needs a network, and what stands in for it."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is to be saved as, why it is not run (or "")."""

    page: Path
    line: int
    language: str
    title: str
    why_not_run: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page in order; a fence stands at the start of its line."""
    blocks = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = number
            continue
        info = lines[start].removeprefix("```")
        title, mark = _TITLE.search(info), _MARK.match(lines[start - 1] if start else "")
        blocks.append(
            Block(
                page,
                start + 1,
                info.split()[0] if info.split() else "",
                title["title"] if title else "",
                mark["why"] if mark else "",
                "\n".join(lines[start + 1 : number]),
            )
        )
        start = None
    assert start is None, f"{page}: the fence of line {start} is not closed"
    return blocks


def commands_of(text: str) -> list[list[str]]:
    """A shell block's commands as words: continued lines joined, comments and VAR=… left out."""
    joined = text.replace("\\\n", " ")
    parts = [part for line in joined.splitlines() for part in line.split(" && ")]
    commands = [shlex.split(part, comments=True) for part in parts]
    for command in commands:
        while command and re.match(r"[A-Z_]+=", command[0]):
            del command[0]
    return [command for command in commands if command]


def smaller(document: Any) -> Any:
    """A run's or study's YAML cut down to what a test can afford."""
    if not isinstance(document, dict):
        return document
    if "axes" in document:
        axes = {
            name: values[: NUM_VALUES.get(name, 2)] for name, values in document["axes"].items()
        }
        return {**document, "base": {**document.get("base", {}), **TINY}, "axes": axes}
    return {**document, **TINY} if "learning_rate" in document else document


def at_hand(words: list[str]) -> list[str]:
    """A documented command without the network, and with no more work than a test can afford."""
    known = [AT_HAND.get(word, word) for word in words]
    if words[0] == "compare":
        return [*known, *(more for asked, few in FEWER.items() if asked in words for more in few)]
    return known


def save(block: Block, folder: Path) -> None:
    """The file that a titled block tells the reader to write."""
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(smaller(yaml.safe_load(block.text))))
