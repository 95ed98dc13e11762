"""The standby's end: follows the processors of the nodes for which this node is the standby.

One connection for each such node, dialled from here, made anew when it breaks or when the partitions change; it goes on
from what the folders hold. Each second what has come is made durable, and the owner is told up to where (``Synced``).
Files are touched on one thread only, in order, so that what a cancelled task has begun is done before the next begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from headwater.cluster.table import View
from headwater.event.position import Vector
from headwater.kit import tasks
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Broken, HeadwaterError
from headwater.kit.threads import Submit, answer
from headwater.node.standby import entries, retire
from headwater.node.standby.entries import Assembler, Entry, Follow, Known, Synced, Whole
from headwater.node.standby.serve import Peer, marked_of, minutes
from headwater.node.standby.sink import Sink
from headwater.peer.frames import Frame, Kind
from headwater.peer.identity import STANDBY_MARKS
from headwater.process.takeover import standby_folder, standby_names, standby_of

LOOK_INTERVAL_S = 1.0
SAVE_INTERVAL_S = 1.0
RETRY_S = 2.0
RETIRE_INTERVAL_NS = 10_000_000_000


class Closing(Peer, Protocol):
    """A connection that was dialled."""

    async def close(self) -> None: ...


Dial = Callable[[str], Awaitable[Closing]]
"""A connection with the lane of a node, by its id. Unavailable, Refused: there is none."""


class Views(Protocol):
    """cluster/view.py's ViewReader."""

    def read(self) -> View | None: ...


class StandbyKeeper:
    """All folders below ``standby/``."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        data: str,
        submit: Submit,
        report: tasks.Report,
        views: Views,
        dial: Dial,
        *,
        window_s: float,
    ) -> None:
        """``submit``: a thread of its own for the files."""
        self.disk = disk
        self.clock = clock
        self.data = data
        self.submit = submit
        self.report = report
        self.views = views
        self.dial = dial
        self.window_minutes = minutes(window_s)
        self.trouble: dict[str, str] = {}
        """Per node followed, why that does not work now, and under ``folders`` why old ones stay; for status."""
        self.standing: dict[str, dict[int, Vector]] = {}
        """Per node followed and partition, what is on disk here."""
        self.whole: dict[str, frozenset[int]] = {}
        """Per node followed, the partitions of which all that it had on its disk is on the disk here."""
        self.unused_since: dict[str, int] = {}
        self.retired_ns = 0

    async def run(self) -> None:
        """Follow whom the view names, until cancelled."""
        following: dict[str, tuple[tuple[str, tuple[int, ...]], asyncio.Task[None]]] = {}
        async with tasks.Group("standby", self.report) as group:
            while True:
                view = self.views.read()
                wanted = followed(view) if view is not None else {}
                for node in [n for n, (what, _) in following.items() if wanted.get(n) != what]:
                    _, task = following.pop(node)
                    task.cancel()
                    await asyncio.wait([task])
                    self.trouble.pop(node, None)
                    self.standing.pop(node, None)
                for node, what in wanted.items():
                    if node not in following:
                        following[node] = what, group.start(f"follow {node}", self.follow(node, what[1]))
                if view is not None:
                    await self.tidy(view)
                await self.clock.sleep(LOOK_INTERVAL_S)

    async def follow(self, node: str, partitions: Sequence[int]) -> None:
        """Follow one node, for ever."""
        while True:
            try:
                connection = await self.dial(node)
                try:
                    await self.attend(connection, node, partitions)
                finally:
                    await connection.close()
                self.trouble[node] = "the connection was closed"
            except (HeadwaterError, OSError) as error:
                self.trouble[node] = str(error)
            await self.clock.sleep(RETRY_S)

    async def attend(self, connection: Peer, node: str, partitions: Sequence[int]) -> None:
        """Take what comes on one connection, until it ends."""
        feed = Feed(self.disk, self.data, node, partitions, self.window_minutes)
        try:
            known = await answer(self.submit, feed.begin)
            self.standing[node] = dict(feed.synced())
            await connection.send(Kind.STATE, {"follow": 1}, entries.encode(Follow(list(partitions), known)))
            await self.said(connection, feed)
            async with tasks.Group(f"standby of {node}", self.unreported) as group:
                group.start("save", self.saving(connection, feed, node))
                while (frame := await connection.receive()) is not None:
                    if frame.kind != Kind.STATE:
                        continue
                    if "whole" in frame.header:
                        await self.save(connection, feed, node)
                        self.whole[node] = feed.whole(whole_of(connection, frame, partitions))
                        continue
                    if "mark" in frame.header:
                        marked, at = marked_of(frame.header, "mark")
                        await connection.send(Kind.STATE, {"taken": marked, "at": list(at)})
                        continue
                    number, last = numbered(frame.header)
                    entry = feed.assembled(number, frame.body, last)
                    if entry is not None:
                        await answer(self.submit, feed.taking(number, entry))
                        self.trouble.pop(node, None)
        except (Broken, OSError):
            feed.broken = True
            raise
        finally:
            self.submit(feed.end)
            self.whole.pop(node, None)
            self.submit(feed.close)

    async def saving(self, connection: Peer, feed: Feed, node: str) -> None:
        """Each second make durable what came."""
        while True:
            await self.clock.sleep(SAVE_INTERVAL_S)
            await self.save(connection, feed, node)

    async def save(self, connection: Peer, feed: Feed, node: str) -> None:
        """Make durable what came, and say so."""
        if await answer(self.submit, feed.save):
            self.standing[node] = dict(feed.synced())
            await self.said(connection, feed)

    async def said(self, connection: Peer, feed: Feed) -> None:
        """Tell the owner what is on disk."""
        synced = Synced(entries.standing(feed.synced(), feed.partitions))
        await connection.send(Kind.STATE, {"synced": 1}, entries.encode(synced))

    def unreported(self, owner: str, name: str, error: BaseException) -> None:
        """A connection that breaks while saving is told as trouble of its node."""
        if not isinstance(error, HeadwaterError | OSError):
            self.report(owner, name, error)

    async def tidy(self, view: View) -> None:
        """Remove folders that have done their work."""
        now = self.clock.boot_ns()
        if now - self.retired_ns < RETIRE_INTERVAL_NS:
            return
        self.retired_ns = now
        try:
            await answer(
                self.submit, lambda: retire.retire(self.disk, self.data, view, self.unused_since, now)
            )
        except (HeadwaterError, OSError) as error:
            self.trouble["folders"] = str(error)
        else:
            self.trouble.pop("folders", None)


class Feed:
    """What comes from one node, for the folders of its processors."""

    def __init__(
        self, disk: Disk, data: str, node: str, partitions: Sequence[int], window_minutes: int
    ) -> None:
        self.disk = disk
        self.data = data
        self.node = node
        self.partitions = partitions
        self.window_minutes = window_minutes
        self.sinks: dict[int, Sink] = {}
        self.assemblers: dict[int, Assembler] = {}
        self.broken = False
        """What came did not go on where the folders stand."""

    def begin(self) -> dict[int, Known]:
        """What is there already."""
        for name in standby_names(self.disk, self.data):
            of = standby_of(name)
            if of is not None and of[0] == self.node:
                self.sink(of[1])
        return {number: sink.known(self.partitions) for number, sink in self.sinks.items()}

    def sink(self, number: int) -> Sink:
        """The folder of one processor."""
        if number not in self.sinks:
            folder = standby_folder(self.data, self.node, number)
            self.sinks[number] = Sink(self.disk, folder, window_minutes=self.window_minutes)
        return self.sinks[number]

    def assembled(self, number: int, piece: memoryview, last: bool) -> Entry | None:
        """The entry that a piece ends."""
        return self.assemblers.setdefault(number, Assembler()).add(piece, last)

    def taking(self, number: int, entry: Entry) -> Callable[[], None]:
        """Work that takes an entry in."""
        return lambda: self.sink(number).take(entry)

    def save(self) -> bool:
        """Make everything durable; whether there was anything."""
        saved = [sink.save() for sink in self.sinks.values()]
        return any(saved)

    def end(self) -> None:
        """Nothing more will come; who takes over reads what came until now, unless that was nonsense."""
        if not self.broken:
            with suppress(HeadwaterError, OSError):
                self.save()

    def synced(self) -> Mapping[int, Vector]:
        """Per partition followed the state that is on disk."""
        found: dict[int, Vector] = {}
        for sink in self.sinks.values():
            for partition, vector in sink.synced.items():
                if found.get(partition, vector) <= vector:
                    found[partition] = vector
        return {p: found[p] for p in self.partitions if p in found}

    def whole(self, said: Whole) -> frozenset[int]:
        """The partitions followed that the owner has told whole, and that are on disk."""
        return frozenset(self.partitions) & ((self.synced().keys() & set(said.told)) | set(said.empty))

    def close(self) -> None:
        """Release the files; what was not saved is sent again."""
        for sink in self.sinks.values():
            sink.close()


def followed(view: View) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Whom to follow by this view: node → address of its lane and the partitions that it owns and this node stands by
    for. Only those that can be heard."""
    partitions: dict[str, list[int]] = {}
    for partition in view.table.standby_of(view.me):
        partitions.setdefault(view.table.owner[partition], []).append(partition)
    return {
        node: (view.alive[node].lane_address, tuple(mine))
        for node, mine in partitions.items()
        if node in view.alive and view.alive[node].lane_address
    }


def whole_of(connection: Peer, frame: Frame, partitions: Sequence[int]) -> Whole:
    """What an owner says that it has told whole. One of protocol 1 may say it once, without a body, of everything that
    it has on its disk; what it never spoke of stands nowhere there. Broken: it is something else."""
    if not frame.body and connection.protocol < STANDBY_MARKS:
        return Whole(list(partitions), list(partitions))
    return entries.decode_as(frame.body, Whole)


def numbered(header: Mapping[str, object]) -> tuple[int, bool]:
    """The processor that a piece is of, and whether it is the last of its entry."""
    number, last = header.get("n"), header.get("last")
    if not isinstance(number, int) or not 0 <= number < 1 << 16 or not isinstance(last, bool):
        raise Broken(f"a STATE frame without its processor: {dict(header)!r}", code="standby_format")
    return number, last
