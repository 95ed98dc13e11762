"""Times on the command line: ``2h`` ago, or a time of the clock."""

from __future__ import annotations

import datetime
import re

import click

SPAN = re.compile(r"(\d{1,6})(s|m|h|d)")
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
HELP = "30m, 2h, 7d (ago), now, or a time such as 2026-11-21T18:00 (UTC unless it says otherwise)"


class When(click.ParamType[int]):
    """A moment, as nanoseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not isinstance(value, str):
            assert isinstance(value, int)
            return value
        from headwater.kit.clock import SystemClock

        if value == "now":
            return SystemClock().wall_ns()
        if match := SPAN.fullmatch(value):
            return SystemClock().wall_ns() - int(match[1]) * UNITS_S[match[2]] * 10**9
        try:
            at = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: expected {HELP}", param, ctx)
        return int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp() * 1e6) * 1000


WHEN = When()
