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
os.environ["DRIFTSCOPE_CACHE_GB"] = "0"

from .campaign import BAD, FOUND, attempt, shared_out, table, wholes
from .kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--kind", choices=[kind.name for kind in KINDS])
    parser.add_argument("--seed", type=int, default=0, help="which million of numbers")
    parser.add_argument("--from", type=int, default=0, dest="start", help="the first number of it")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.kind in (None, kind.name)]
    first = options.seed * 1_000_000 + options.start
    endings = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="driftscope-fuzz-") as scratch:
        whole = wholes(Path(scratch), kinds)
        for kind, number in shared_out(options.count, kinds):
            ending = attempt(kind, first + number, whole[kind.name], FOUND)
            endings.append(ending)
            if ending.outcome in BAD:
                print(f"{kind.name} {ending.number}: {ending.outcome}\n{ending.told}", flush=True)
    print(table(endings))
    print(f"\n{time.monotonic() - started:.0f} s; slowest {max(e.seconds for e in endings):.1f} s")
    return any(ending.outcome in BAD for ending in endings)


if __name__ == "__main__":
    raise SystemExit(main())
