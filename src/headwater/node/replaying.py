"""What a replay needs of a node: its raw log, today's processing, the dead letters of its processors."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from headwater.destinations.port import OpenPrivate, PieceRun, PrivateRun
from headwater.destinations.replay import Plan, Span
from headwater.event.position import Position, Vector, WriterId
from headwater.log import moment
from headwater.log.cut import WRITER
from headwater.node.context import Context
from headwater.process import dead

PIECE_BYTES_MAX = 4 * 1024 * 1024
PIECE_BYTES_MIN = 64 * 1024
EVENT_BYTES = 1200
"""About what an event takes in the raw log: pieces hold about a second of the rate."""
MINUTE_US = 60_000_000
RETRIED = "retried/retried.sqlite"
"""Which letters were sent in again (ops/retried.py)."""


class NodeLetters:
    """``state/<n>/dead.sqlite`` of every processor there is or was."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def files(self) -> list[str]:
        """Those that are there."""
        state = self.context.path("state")
        paths = [f"{state}/{name}/dead.sqlite" for name in self.context.disk.listdir(state) if name.isdigit()]
        return [path for path in paths if self.context.disk.exists(path)]

    def between(self, spans: Sequence[Span]) -> list[dead.Origin]:
        """Origins of their letters in these stretches; without those that `headwater dead retry` has sent in again:
        they are events of their own by now. None where there are several destinations: a letter that became a row in
        one of them would be missing in the others, and nothing would be left to tell."""
        if len(self.context.settings.destinations) > 1:
            return []
        found = {origin for path in self.files() for origin in dead.between(path, spans)}
        retried = self.context.path("state", RETRIED)
        if found and self.context.disk.exists(retried):
            found -= set(dead.between(retried, spans, table="retried"))
        return sorted(found)

    def remove(self, origins: Sequence[dead.Origin]) -> None:
        """They are rows now."""
        for path in self.files() if origins else []:
            dead.remove(path, origins)


class NodeRaw:
    """See replay.Raw."""

    def __init__(self, context: Context, private: OpenPrivate) -> None:
        self.context = context
        self.private = private
        self.letters = NodeLetters(context)
        self.window_us = int(context.settings.process.dedupe_window_s * 1e6) + MINUTE_US

    def folders(self) -> dict[WriterId, str]:
        """Every writer's."""
        raw = self.context.path("raw")
        names = [name for name in self.context.disk.listdir(raw) if WRITER.match(name)]
        return {WriterId(int(name, 16)): f"{raw}/{name}" for name in names}

    def plan(self, from_ns: int, to_ns: int, limit: Vector) -> Plan:
        """See replay.Raw."""
        from headwater.process import private

        disk, secret = self.context.disk, self.context.secret
        begins: dict[WriterId, Position] = dict(limit)
        ends: dict[WriterId, Position] = dict(limit)
        events, late_ns = 0, 0
        for writer, folder in self.folders().items():
            stop = limit[writer]
            ends[writer] = moment.at(disk, folder, writer, to_ns, stop, secret=secret)
            begins[writer] = min(moment.at(disk, folder, writer, from_ns, stop, secret=secret), ends[writer])
            events += private.between(disk, folder, begins[writer], ends[writer])
            begin = moment.oldest(disk, folder, secret)
            if begin is not None and not begin.first and begin.closed_ns > from_ns and begin.position < stop:
                late_ns = max(late_ns, begin.closed_ns)
        missing = f"the raw log no longer holds all of it: it is whole from {text_of(late_ns)} on"
        return Plan(Vector(begins), Vector(ends), events, missing if late_ns else "")

    def open(self, origin: Vector, until: Vector, rate: float) -> PieceRun:
        """See replay.Raw."""
        from headwater.node.roles import process
        from headwater.process.replay import ReplayRun
        from headwater.process.schema import LearnedSchema

        context = self.context
        schema = LearnedSchema(
            context.path("schema.ndjson"), columns_max=context.settings.process.columns_max
        )
        shaper = process.shaper_of(context, context.settings, schema)
        partitions = tuple(range(context.node.partitions))
        return ReplayRun(
            context.disk,
            context.path("raw"),
            context.secret,
            context.clock,
            process.runner_of(context, schema, shaper, partitions, damage_here=False),
            origin=origin,
            until=until,
            now=lambda: (context.control.start, context.clock.boot_ns()),
            bytes_max=max(PIECE_BYTES_MIN, min(PIECE_BYTES_MAX, int(rate * EVENT_BYTES))),
        )

    def open_private(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> PrivateRun:
        """See replay.Raw."""
        return self.private(partitions, origin, until)

    def settled_us(self, vector: Vector) -> int:
        """See replay.Raw."""
        found = [self.context.node_ns()]
        for writer, folder in self.folders().items():
            closed = moment.closed_ns(
                self.context.disk, folder, writer, vector[writer], secret=self.context.secret
            )
            found += [closed] if closed is not None else []
        return min(found) // 1000


def text_of(node_ns: int) -> str:
    """Node time as text, UTC."""
    return f"{datetime.datetime.fromtimestamp(node_ns / 1e9, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
