"""Work that must never be noticed by others."""

from __future__ import annotations

import contextlib
import os

NICE_MAX = 19


def lowest() -> None:
    """This process gets the time that nobody else wants, from here on: SCHED_IDLE where the system has it, nice 19
    everywhere. Never where others wait for a lock that it may hold."""
    os.nice(NICE_MAX)
    with contextlib.suppress(
        OSError, AttributeError
    ):  # a sandbox may forbid it; other systems have no such class
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
