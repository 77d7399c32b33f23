"""Studies: a declared matrix of runs, what of it is missing, and where each run lives."""

from __future__ import annotations

from driftscope.study.demo import DEMO, FAST_DEMO
from driftscope.study.folder import StudyFolder, missing, run_folder
from driftscope.study.matrix import Cell, cells, expand, select

__all__ = [
    "DEMO",
    "FAST_DEMO",
    "Cell",
    "StudyFolder",
    "cells",
    "expand",
    "missing",
    "run_folder",
    "select",
]
