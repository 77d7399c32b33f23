"""What this process may use of the machine: its cores and its memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """CPU cores this process may use: the machine's, or less by its affinity or its cgroup."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _cgroup_cores() or sys.maxsize)


def available_bytes() -> int:
    """Memory that can be used without swapping: the machine's, or less if a cgroup says so."""
    amounts = [_machine_bytes(), _cgroup_bytes()]
    known = [amount for amount in amounts if amount is not None]
    return min(known) if known else 1 << 62


def give_back_memory() -> None:
    """Gives the system the memory that is free again, which the C library of Linux would keep."""
    with suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


def _machine_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    amounts = dict(line.split(":", 1) for line in lines)
    return int(amounts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in amounts else None


def _cgroup_cores() -> int | None:
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) // int(period) or 1
    except (OSError, ValueError):  # `max`: no limit
        return None


def _cgroup_bytes() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
