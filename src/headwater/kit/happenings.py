"""Happenings: one class per thing that can happen emits the log line and the counter together.

::

    class RoleEnded(Happening):
        \"""A process of the node ended unasked.\"""
        level = "warning"
        role: str
        exit_code: int

    happenings.emit(RoleEnded(role="collect-0", exit_code=-9))
    → {"time":"2026-11-21T13:00:00.000Z","level":"warning","happening":"role_ended","by":"node","role":"collect-0",…}
    → headwater_happenings_total{happening="role_ended"} 1

Nothing per event: lines of one class are limited to ``LINES_MAX`` per ``WINDOW_S``; what is left out is counted in the
next line that passes. ``info`` is rare, ``error`` means that a person must act. Lines go to one stream (stderr), whole.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TextIO

import msgspec

from headwater.kit.clock import Clock
from headwater.kit.counters import Counters

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
LINES_MAX = 10
WINDOW_S = 10.0
SECRET_FIELD = re.compile(r"secret|token|password")


class Happening(msgspec.Struct):
    """Base. The class name in snake case is the stable name; the fields are the line's."""

    level: ClassVar[Level] = "info"

    @classmethod
    def name(cls) -> str:
        """``RoleEnded`` → ``role_ended``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class Happenings:
    """Where happenings go, for one process."""

    def __init__(
        self, by: str, clock: Clock, counters: Counters, out: TextIO, *, least: Level = "info"
    ) -> None:
        """Lines below the level ``least`` are only counted."""
        self.by = by
        self.clock = clock
        self.counters = counters
        self.out = out
        self.least = LEVELS.index(least)
        self.windows: dict[str, tuple[int, int, int]] = {}
        """Name → start of its window (boot ns), lines in it, lines left out."""

    def emit(self, happening: Happening) -> None:
        """Count it, and write its line unless the same happened too often just now. Never raises."""
        name = happening.name()
        self.counters.add("headwater_happenings_total", happening=name)
        if LEVELS.index(happening.level) < self.least:
            return
        left_out = self.passes(name)
        if left_out is None:
            return
        line = {
            "time": wall_text(self.clock.wall_ns()),
            "level": happening.level,
            "happening": name,
            "by": self.by,
            **dict(shown_fields(happening)),
        }
        if left_out:
            line["left_out"] = left_out
        try:
            self.out.write(msgspec.json.encode(line).decode() + "\n")
            self.out.flush()
        except (OSError, ValueError):
            pass  # nobody reads the log: that must not stop the node

    def passes(self, name: str) -> int | None:
        """How many lines were left out before this one; None when this one is left out too."""
        now = self.clock.boot_ns()
        begin, lines, left_out = self.windows.get(name, (now, 0, 0))
        if now - begin >= WINDOW_S * 1e9:
            begin, lines = now, 0
        if lines >= LINES_MAX:
            self.windows[name] = (begin, lines, left_out + 1)
            return None
        self.windows[name] = (begin, lines + 1, 0)
        return left_out


def shown_fields(happening: Happening) -> Iterator[tuple[str, Any]]:
    """The fields as they may be logged: a field named like a secret never shows its value."""
    for name in happening.__struct_fields__:
        value = getattr(happening, name)
        yield name, "…" if SECRET_FIELD.search(name) else value


def wall_text(wall_ns: int) -> str:
    """A wall clock reading as ISO 8601 in UTC, milliseconds."""
    at = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
