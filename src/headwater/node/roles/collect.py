"""The collect process: requests → raw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headwater.cluster.settings import ClusterSettings
from headwater.collect.again import Again
from headwater.collect.copied import Copied
from headwater.collect.keys import KeyTable
from headwater.collect.worker import CollectWorker
from headwater.kit import ask
from headwater.kit.bell import Bell, Ringer
from headwater.kit.disk import Cell
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.kit.threads import Thread
from headwater.lane import copies_told
from headwater.log.write import BlockWriter
from headwater.node import arrived, salt
from headwater.node.context import Context
from headwater.node.settings import Settings, named_destinations, secret_reader

SEGMENTS_AHEAD = 2
"""Prepared segments, where the quota has room: while the disk is slow, a segment may be full before the next one is
made, and whoever comes then is answered 503 `log_preparing`."""
ARRIVED_LOOK_S = 0.1
"""How often positions of destinations are read while a request waits for one; reports come five times a second."""
ROOM_SAID_NS = 5_000_000_000
"""After this the control page knows what was taken; the supervisor looks every 2 s (node/supervise.py)."""


class Room:
    """What a worker may still add to raw: what the control page says, less what was taken since it said so."""

    def __init__(self, said: Callable[[], int], segment_bytes: int, boot_ns: Callable[[], int]) -> None:
        self.said = said
        self.segment_bytes = segment_bytes
        self.boot_ns = boot_ns
        self.before = -1
        self.taken_bytes = 0
        self.taken_ns = 0

    def take(self) -> bool:
        """Whether one more segment may be made; it counts as taken then."""
        said, now = self.said(), self.boot_ns()
        if said != self.before or now - self.taken_ns > ROOM_SAID_NS:
            self.before, self.taken_bytes = said, 0
        if said - self.taken_bytes < self.segment_bytes:
            return False
        self.taken_bytes += self.segment_bytes
        self.taken_ns = now
        return True


class CollectRole:
    """requests → raw."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.told: dict[str, Any] = {}
        segment_bytes = context.settings.log.segment_bytes
        room = Room(lambda: context.control.raw_room_bytes, segment_bytes, context.clock.boot_ns)
        self.committing = Thread("commit")
        self.preparing = Thread("prepare-raw")
        self.blocks = BlockWriter(
            context.disk,
            context.clock,
            context.path("raw", f"{context.writer():016x}"),
            context.writer(),
            context.log_id,
            secret=context.secret,
            start=context.control.start,
            offset_ns=context.control.offset_ns,
            segment_bytes=segment_bytes,
            submit=self.preparing,
            allowed=room.take,
            ahead=SEGMENTS_AHEAD,
        )
        self.ringer: Ringer | None = None
        self.bell: Bell | None = None
        self.cells: list[Cell] = []
        self.copied = self.copies(context.settings.cluster)
        self.keys = self.keys_of(context.settings, None)
        self.worker = CollectWorker(
            context.settings.collect,
            self.keys,
            blocks=self.blocks,
            submit=self.committing,
            control=context.control,
            clock=context.clock,
            publish=self.tell,
            salt=salt.salt_bytes(context.disk, context.data),
            copied=self.copied,
            partitions=context.node.partitions,
        )
        self.watching: asyncio.Task[None] | None = None

    def copies(self, cluster: ClusterSettings | None) -> Copied | None:
        """What the lane process tells of this log's copies; None on a node that is alone."""
        if cluster is None:
            return None
        context, run = self.context, self.context.path("run")
        context.disk.mkdir(copies_told.folder(run))
        seq = context.disk.cell(copies_told.cell(run, context.log_id), write=True)
        others = context.disk.cell(copies_told.others(run), write=True)
        self.cells = [seq, others]
        self.ringer = Ringer(copies_told.home_bell(run))
        return Copied(
            seq,
            others,
            self.ringer.ring,
            context.clock.boot_ns,
            copies=cluster.copies,
            timeout_s=cluster.copies_timeout_s,
        )

    def keys_of(self, settings: Settings, before: KeyTable | None) -> KeyTable:
        """The keys of the settings; quotas of ``before`` go on."""
        return KeyTable.build(
            named_destinations(settings),
            rng=self.context.rng,
            read=secret_reader(self.context.data),
            workers=settings.collect.workers,
            address_policy=settings.collect.client_address,
            before=before,
        )

    async def start(self) -> None:
        segments = self.blocks.segments
        while segments.preparing and not segments.ready:  # nobody is turned away because the door was quicker
            await self.context.clock.sleep(0.01)
        await self.worker.start()
        if self.copied is not None:
            path = copies_told.collect_bell(self.context.path("run"), self.context.number)
            self.bell = Bell(path, asyncio.get_running_loop(), self.copied.look)
        again = Again(
            self.context.settings.collect, self.worker.door, self.worker.group, self.context.clock.boot_ns
        )
        self.watching = asyncio.get_running_loop().create_task(self.watch())
        self.again = await ask.serve(self.context.path("run", f"{self.context.name}.sock"), again.answer)

    async def watch(self) -> None:
        """Read where destinations stand, while anybody waits for one: once for all, and until the door is closed."""
        context, arrivals = self.context, self.worker.door.arrivals
        reports, start = context.path("run", "reports"), context.control.start
        while True:
            if names := arrivals.waited_for():
                try:
                    told = await asyncio.to_thread(
                        arrived.read, context.disk, reports, start, names, context.writer(), context.log_id
                    )
                except (HeadwaterError, OSError, ValueError):
                    context.counters.add("headwater_collect_positions_unread_total")
                    told = {}
                for name, (passed, paused) in told.items():
                    arrivals.of(name).hear(passed, paused=paused)
            await context.clock.sleep(ARRIVED_LOOK_S)

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    async def tick(self) -> None:
        if self.watching is not None and self.watching.done():
            self.watching.result()
        if self.blocks.ended:  # the disk failed: recovery decides where this log ends, a new one begins
            raise Unavailable(f"the raw log has ended: {self.blocks.ended}", code="log_ended")

    async def reload(self, settings: Settings) -> None:
        self.keys = self.keys_of(settings, self.keys)
        self.worker.reload(self.keys, salt.salt_bytes(self.context.disk, self.context.data))

    async def drain(self) -> None:
        await self.again.close()
        await self.worker.drain(self.context.settings.shutdown_timeout)

    async def stop(self) -> None:
        if self.watching is not None:
            self.watching.cancel()
            await asyncio.wait((self.watching,))
        self.committing.close()
        self.preparing.close()
        if self.bell is not None:
            self.bell.close()
        if self.ringer is not None:
            self.ringer.close()
        for cell in self.cells:
            cell.close()

    def reasons(self) -> list[str]:
        segments = self.blocks.segments
        return [segments.trouble] if segments.trouble and not segments.ready else []

    def detail(self) -> dict[str, Any]:
        return self.told
