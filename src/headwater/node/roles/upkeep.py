"""The upkeep process: compresses raw segments in the time that nobody else wants.

Not one event waits for it, and a node without it loses nothing but room on the disk: so it is no reason for a node not
to be ready, it stops working while the node drains, and what it had begun is thrown away.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.config.report import read_reports
from headwater.kit import priority
from headwater.log.compress import Outcome
from headwater.node import retention
from headwater.node.compressing import Compressed, Compressing
from headwater.node.context import Context
from headwater.node.happenings import CompressionFailed, SegmentNotCompressed
from headwater.node.settings import Settings

LOOK_S = 2.0
"""Between two looks for something to do."""
WORK_S = 0.02
"""In each tick of 0.05 s (node/role.py): at most about a third of the time, also where the processor is idle."""
RETRY_S = 60.0
"""After an error of the disk."""


class UpkeepRole:
    """Looks for a segment, works on it a little in each tick, looks again."""

    def __init__(self, context: Context) -> None:
        self.context = context
        log = context.settings.log
        self.compressing = Compressing(
            context.disk,
            context.path("raw"),
            context.secret,
            after_s=log.compress_after_s,
            level=log.compress_level,
            segment_bytes=log.segment_bytes,
        )
        self.look_at_ns = 0
        self.compressed = Compressed()

    async def start(self) -> None:
        priority.lowest()

    async def tick(self) -> None:
        if self.context.control.draining:
            self.compressing.close()
            return
        clock = self.context.clock
        began_ns = clock.boot_ns()
        try:
            if self.compressing.steps is None and began_ns >= self.look_at_ns:
                self.look(began_ns)
            while self.compressing.steps is not None and clock.boot_ns() - began_ns < WORK_S * 1e9:
                self.step()
        except OSError as error:
            self.look_at_ns = began_ns + int(RETRY_S * 1e9)
            self.context.happenings.emit(CompressionFailed(reason=str(error)))

    def look(self, now_ns: int) -> None:
        """Choose the next segment, by what the processors say that they have committed."""
        context = self.context
        self.look_at_ns = now_ns + int(LOOK_S * 1e9)
        self.compressed = self.compressing.measure()
        reports = read_reports(context.disk, context.path("run/reports"), context.control.start)
        committed = retention.committed(
            reports, context.node.partitions, alone=context.settings.cluster is None
        )
        self.compressing.look(committed, context.node_ns())

    def step(self) -> None:
        """One frame; what cannot be compressed is said where it is news."""
        done = self.compressing.step()
        if done is None:
            return
        segment, outcome = done
        self.look_at_ns = 0
        if outcome in (Outcome.DAMAGED, Outcome.DIFFERENT):
            self.context.happenings.emit(SegmentNotCompressed(path=segment.path, reason=outcome.value))

    async def reload(self, settings: Settings) -> None:
        pass  # nothing of it reloads

    async def drain(self) -> None:
        self.compressing.close()

    async def stop(self) -> None:
        self.compressing.close()

    def reasons(self) -> list[str]:
        return []

    def detail(self) -> dict[str, Any]:
        return {"compressed": msgspec.to_builtins(self.compressed)}
