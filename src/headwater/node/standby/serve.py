"""The owner's end: tells one standby what the processors of this node do, over one connection (entries.py: frames).

The lane role calls ``serve`` for a connection whose first frame is of kind STATE; ``synced`` is what it may count on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from headwater.event.position import Position, Vector
from headwater.kit import tasks
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Broken, HeadwaterError, Unavailable
from headwater.kit.threads import Submit, answer
from headwater.log.block import Secret
from headwater.node.standby import entries
from headwater.node.standby.entries import Follow, Synced, Whole
from headwater.node.standby.source import Source
from headwater.peer.frames import Frame, Kind
from headwater.peer.identity import STANDBY_MARKS

POLL_S = 0.1
PULL_BYTES = 1024 * 1024
PARTITIONS_MAX = 1 << 16


class Peer(Protocol):
    """What is needed of a connection (peer/connection.py)."""

    @property
    def protocol(self) -> int: ...
    async def send(self, kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> None: ...
    async def receive(self) -> Frame | None: ...


class Named(Protocol):
    """Who is at the other end."""

    @property
    def node(self) -> str: ...


class Authenticated(Peer, Protocol):
    """A connection whose other end has shown who it is."""

    @property
    def peer(self) -> Named: ...


class StandbyServer:
    """All standbys of this node's processors."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        data: str,
        submit: Submit,
        report: tasks.Report,
        *,
        secret: Secret,
        workers: int,
        window_s: float,
    ) -> None:
        """``submit``: a thread that reads files; ``workers``: how many processors this node runs."""
        self.disk = disk
        self.clock = clock
        self.data = data
        self.submit = submit
        self.report = report
        self.secret = secret
        self.workers = workers
        self.window_minutes = minutes(window_s)
        self.told: dict[str, dict[int, Vector]] = {}
        self.taken: dict[str, dict[int, Position]] = {}
        """Per standby that is connected and processor: up to where in its ready log it has taken everything in."""
        self.trouble: dict[int, str] = {}
        """Per processor, why its files cannot be told; for status."""

    def synced(self, node: str) -> Mapping[int, Vector]:
        """Per partition the vector of the state that this standby has on its disk, as it said last. Raw events at or
        above it are what it needs if it has to take over; a partition that is missing would be taken over from where
        the destinations stand, and needs nothing."""
        return self.told.get(node, {})

    async def serve(self, connection: Peer, node: str, opened: Frame) -> None:
        """Tell ``node`` all that it asked for, until the connection ends. Broken: it asked for what is nonsense."""
        asked = entries.decode_as(opened.body, Follow)
        sources = self.sources(asked)
        self.told.setdefault(node, {})
        try:
            async with tasks.Group(f"standby {node}", self.report) as group:
                hearing = group.start("synced", self.hear(connection, node))
                said = Whole([], [])
                marked: dict[int, Position] = {}
                while not hearing.done():
                    if await self.tell(connection, sources):
                        continue
                    if connection.protocol >= STANDBY_MARKS:
                        await self.mark(connection, sources, marked)
                    whole = self.whole(sources)
                    if whole != said and may_say(whole, asked, connection):
                        said = whole
                        await connection.send(Kind.STATE, {"whole": 1}, entries.encode(whole))
                    await self.clock.sleep(POLL_S)
        except Unavailable:
            pass  # the connection broke; the standby comes back
        finally:
            self.taken.pop(node, None)
            for source in sources.values():
                self.submit(source.close)

    def sources(self, asked: Follow) -> dict[int, Source]:
        """One for each processor that owns some of the partitions asked for."""
        found: dict[int, Source] = {}
        for number in range(self.workers):
            mine = [p for p in asked.partitions if 0 <= p < PARTITIONS_MAX and p % self.workers == number]
            known = asked.known.get(number)
            if mine:
                found[number] = Source(
                    self.disk,
                    self.data,
                    number,
                    mine,
                    secret=self.secret,
                    window_minutes=self.window_minutes,
                    after=entries.vectors(known.standing) if known else None,
                    ready=Position(*known.ready) if known and known.standing else None,
                )
        return found

    async def tell(self, connection: Peer, sources: Mapping[int, Source]) -> bool:
        """One round; whether there was anything to tell."""
        any_told = False
        for number, source in sources.items():
            for entry in await self.pulled(number, source):
                any_told = True
                for piece, last in entries.pieces(entry):
                    await connection.send(Kind.STATE, {"n": number, "last": last}, piece)
        return any_told

    async def mark(
        self, connection: Peer, sources: Mapping[int, Source], marked: dict[int, Position]
    ) -> None:
        """Say up to where in the ready logs everything has been told, where that is further than ``marked``."""
        for number, source in sources.items():
            if source.at is not None and source.at != marked.get(number):
                marked[number] = source.at
                await connection.send(Kind.STATE, {"mark": number, "at": list(source.at)})

    def whole(self, sources: Mapping[int, Source]) -> Whole:
        """Of all processors whose files can be read."""
        found = [source.whole() for number, source in sources.items() if number not in self.trouble]
        return Whole([p for one in found for p in one.told], [p for one in found for p in one.empty])

    async def pulled(self, number: int, source: Source) -> Sequence[bytes]:
        """The next of what a processor does; nothing while its files cannot be read, which is reported once."""
        try:
            found = await answer(self.submit, partial(source.pull, PULL_BYTES))
        except (HeadwaterError, OSError) as error:
            if self.trouble.get(number) != str(error):
                self.report("standby", f"processor {number}", error)
            self.trouble[number] = str(error)
            return []
        self.trouble.pop(number, None)
        return found

    async def hear(self, connection: Peer, node: str) -> None:
        """What the standby has on its disk, until the connection ends."""
        while (frame := await connection.receive()) is not None:
            if frame.kind == Kind.STATE and "synced" in frame.header:
                self.told[node] |= entries.vectors(entries.decode_as(frame.body, Synced).standing)
            elif frame.kind == Kind.STATE and "taken" in frame.header:
                number, at = marked_of(frame.header, "taken")
                self.taken.setdefault(node, {})[number] = at


def may_say(whole: Whole, asked: Follow, connection: Peer) -> bool:
    """Whether the standby understands it: one of protocol 1 takes it for everything that it asked for."""
    return connection.protocol >= STANDBY_MARKS or set(whole.told) >= set(asked.partitions)


def marked_of(header: Mapping[str, object], name: str) -> tuple[int, Position]:
    """The processor and the position of a mark. Broken: it is none."""
    try:
        number, at = msgspec.convert((header[name], header["at"]), tuple[int, tuple[int, int]])
    except (KeyError, msgspec.ValidationError) as error:
        raise Broken(f"not a mark: {dict(header)!r}", code="standby_format") from error
    return number, Position(*at)


def minutes(window_s: float) -> int:
    """The dedupe window in whole minutes, as process/dedupe.py counts it."""
    return max(1, int(-(-window_s // 60)))
