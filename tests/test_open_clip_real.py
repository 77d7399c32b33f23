"""open_clip and timm for real, where they are installed: in the environment, or in a folder.

`make open-clip` makes that folder. open_clip needs torchvision, which does not load beside the CPU
build of torch; `stand_in_torchvision.py` answers for it, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SITE = Path(os.environ.get("OPEN_CLIP_SITE") or Path(sys.prefix) / "open-clip")
_RUN = """
import sys
sys.path[:0] = [sys.argv[1]]
sys.path += sys.argv[2:3]
import stand_in_torchvision
stand_in_torchvision.install()
import pytest
names = [sys.argv[1] + name for name in ("/open_clip_real.py", "/library_real.py")]
options = ["-o", "addopts=--strict-markers", "-q", "-p", "no:cacheprovider", "--tb=short"]
sys.exit(pytest.main([*names, *options]))
"""


def test_open_clips_own_models_are_read_as_open_clip_reads_them() -> None:
    if not (SITE / "open_clip").is_dir() and importlib.util.find_spec("open_clip") is None:
        pytest.skip(f"open_clip is neither installed nor in {SITE}: make open-clip puts it there")
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(TESTS), str(SITE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
