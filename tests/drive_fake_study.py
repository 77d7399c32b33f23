"""`study run` with fake runs, as a process of its own that tests can kill: ROOT WORKERS SEEDS…"""

from __future__ import annotations

import sys
from pathlib import Path

import fake_runs

from driftscope.executors.local import LocalPool
from driftscope.executors.schedule import execute
from driftscope.study import run_folder

if __name__ == "__main__":
    root = Path(sys.argv[1])
    specs = [fake_runs.spec(int(seed)) for seed in sys.argv[3:]]
    pool = LocalPool(int(sys.argv[2]), threads=1, devices=["cpu"], run_one=fake_runs.RUN_ONE)
    for update in execute([(spec, run_folder(root, spec)) for spec in specs], pool):
        print(update.run_id, update.steps_done, update.done, update.failure, flush=True)
