"""The long campaign."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from .campaign import attempt, expected, table
from .writers import writers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--writer")
    parser.add_argument("--seed", type=int, default=0, help="which million of numbers")
    parser.add_argument("--from", type=int, default=0, dest="start", help="the first number of it")
    options = parser.parse_args()
    first = options.seed * 1_000_000 + options.start
    started, endings = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="driftscope-kill-") as scratch:
        os.environ["DRIFTSCOPE_CACHE"] = f"{scratch}/cache"
        chosen = [one for one in writers(Path(scratch)) if options.writer in (None, one.name)]
        for writer in chosen:
            undisturbed = expected(writer)
            for number in range(-(-options.count // len(chosen))):
                ending = attempt(writer, first + number, undisturbed)
                endings.append(ending)
                if ending.outcome != "the same":
                    print(f"{writer.name} {ending.number}: {ending.outcome}: {ending.told}")
    print(table(endings))
    print(f"\n{time.monotonic() - started:.0f} s")
    return any(ending.outcome != "the same" for ending in endings)


if __name__ == "__main__":
    raise SystemExit(main())
