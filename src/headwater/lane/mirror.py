"""The owner side: mirrors of other nodes' logs, for those who own partitions here (docs/decisions/0007-cluster.md).

A stream is asked for by a name, with its partitions and the vector from which on it is read; its folder is
``mirror/<stream>/``. Each home is followed over a connection of its own, dialled again with back-off, always from where
the mirror ends: so a connection that is cut anywhere costs nothing but time, and what was written stands.
``<node>.cut`` moves after the last frame of a cut, so whoever reads it first and the watermarks afterwards has whole
cuts (INV-ORD-1).

Nothing here is synced, and at a start of the process all of it is gone: its readers open their streams again. The size
is bounded: each home of each stream has an equal share, and over it gets no more credit.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.config.report import replace
from headwater.event.position import Position, Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable
from headwater.lane import wire
from headwater.lane.folder import SEGMENT_BYTES, MirrorLog
from headwater.lane.wire import BlockHead, Connection, Moment
from headwater.log.block import BLOCK_BYTES_MAX, HEADER_BYTES, Secret
from headwater.log.cut import home_of
from headwater.log.follow import CUT
from headwater.peer.frames import Frame, Kind

CREDIT_BYTES = 8 * 1024 * 1024
"""What a home may send before it is granted more."""
GRANT_BYTES_MIN = CREDIT_BYTES // 4
SHARE_BYTES_MIN = 4 * SEGMENT_BYTES
SILENT_S = 5.0
"""A home says something every second; after so long without a word it is dialled again."""
RETRY_S_MIN, RETRY_S_MAX = 0.05, 2.0
HOLDER_S = 2.0
"""How long copies are followed until it is asked again who reaches furthest, and whether the home is back."""
STREAM_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Dial = Callable[[str], Awaitable[Connection]]
"""A connection with the node of this id; HeadwaterError where there is none."""
Source = Callable[[str, Callable[[WriterId], Position]], Awaitable[tuple[str, Connection]]]
"""Whom a mirror of a home that stands so follows now: the home itself, or a holder of its copies while it is away
(lane/copies_read), and a connection with it. HeadwaterError where there is nobody."""
Start = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


def node_of(writer: int) -> str:
    """The id of the node that a writer belongs to."""
    return f"{home_of(writer):016x}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream, as it was asked for."""

    name: str
    partitions: list[int]
    origin: Vector
    until: Vector | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where mirrors lie."""

    disk: Disk
    root: str
    secret: Secret
    clock: Clock


class HomeMirror:
    """What one stream has of one home. ``take``, ``trim`` and ``close`` exclude each other, in whatever thread."""

    def __init__(self, place: Place, wanted: Wanted, node: str) -> None:
        self.place = place
        self.wanted = wanted
        self.node = node
        self.folder = f"{place.root}/{wanted.name}"
        self.logs: dict[WriterId, MirrorLog] = {}
        self.moment = Moment(0, 0, 0)
        """The T of the newest complete cut."""
        self.heard_ns = 0
        self.trouble = "not reached yet"
        self.owed = 0
        """Received and not granted again."""
        self.begun: BlockHead | None = None
        """The block whose payload goes on in the next frame."""
        self.pieces: list[memoryview] = []
        self.connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None
        self.lock = threading.Lock()
        self.closed = False

    @property
    def at(self) -> dict[WriterId, Position]:
        """Where the logs of this home end here."""
        return {writer: log.at for writer, log in list(self.logs.items())}

    @property
    def bytes(self) -> int:
        return sum(log.bytes for log in list(self.logs.values()))

    def opening(self, node: str = "") -> wire.Open:
        """What is asked for, of the home or of the node that has its copies: from where the mirror ends on."""
        self.begun, self.pieces, self.owed = None, [], 0
        wanted = self.wanted
        return wire.Open(
            stream=wanted.name,
            partitions=wanted.partitions,
            origin=Vector({**wanted.origin.entries, **self.at}, wanted.origin.clock).encode(),
            until=None if wanted.until is None else wanted.until.encode(),
            credit=CREDIT_BYTES,
            home="" if node in ("", self.node) else self.node,
        )

    def stands(self, writer: WriterId) -> Position:
        """Up to where a writer's log is here, or is not wanted."""
        log = self.logs.get(writer)
        return log.at if log is not None else self.wanted.origin[writer]

    def take(self, data: wire.Data, body: memoryview) -> None:
        """The blocks of a frame, and the end of its cut. Rejected: INV-LANE-1."""
        with self.lock:
            if self.closed:
                return
            if self.begun is not None:
                body = self.go_on(self.begun, body)
            for head in data.blocks:
                body = self.go_on(head, body)
            if body:
                raise Rejected(f"{len(body)} bytes more than the blocks of a frame have", code="lane_format")
            if data.last:
                self.end_cut(data.moment)

    def go_on(self, head: BlockHead, body: memoryview) -> memoryview:
        """Take a block, or as much of it as there is; the rest of the body."""
        if head.bytes > BLOCK_BYTES_MAX - HEADER_BYTES:
            raise Rejected(f"a block with {head.bytes} bytes", code="lane_format")
        missing = head.bytes - sum(map(len, self.pieces))
        piece, rest = body[:missing], body[missing:]
        self.owed += len(piece)
        if len(piece) < missing:
            self.begun = head
            self.pieces.append(piece)
            return rest
        payload = b"".join((*self.pieces, piece)) if self.pieces else piece
        self.begun, self.pieces = None, []
        self.log(WriterId(head.writer)).take(head, payload)
        return rest

    def end_cut(self, moment: Moment) -> None:
        """Everything up to this time is there."""
        if self.begun is not None:
            raise Rejected("a cut ended in the middle of a block", code="lane_format")
        if moment.start == self.moment.start:
            moment = max(
                moment, self.moment
            )  # a cut that a backlog cut short may end before one that was whole
        if moment != self.moment:
            replace(self.place.disk, f"{self.folder}/{self.node}.cut", CUT.pack(*moment))
            self.moment = moment

    def end_log(self, ended: wire.Ended) -> None:
        """A log of the home has its end."""
        with self.lock:
            if not self.closed:
                self.log(WriterId(ended.writer)).end(ended.log, ended.seq)

    def log(self, writer: WriterId) -> MirrorLog:
        """The folder of a writer. Rejected: it is not this home's."""
        if writer not in self.logs:
            if node_of(writer) != self.node:
                raise Rejected(
                    f"a block of the writer {writer:016x}, from node {self.node}", code="lane_format"
                )
            folder = f"{self.folder}/{writer:016x}"
            place, origin = self.place, self.wanted.origin[writer]
            self.logs[writer] = MirrorLog(place.disk, folder, place.secret, origin)
        return self.logs[writer]

    def trim(self, below: Vector) -> None:
        """Nothing below is read again."""
        with self.lock:
            if not self.closed:
                for writer, log in self.logs.items():
                    log.trim(below[writer])

    def close(self) -> None:
        """Release the files; nothing is written afterwards."""
        with self.lock:
            self.closed = True
            for log in self.logs.values():
                log.close()

    def silent(self, now_ns: int) -> bool:
        """Whether nothing was heard for a while."""
        return not self.heard_ns or now_ns - self.heard_ns > SILENT_S * 1e9

    # -- on the event loop

    async def follow(self, source: Source, share: Callable[[], int]) -> None:
        """Follow the home, or its copies, until cancelled, over one connection after the other."""
        wait_s = RETRY_S_MIN
        while True:
            began_ns = self.place.clock.boot_ns()
            try:
                node, connection = await source(self.node, self.stands)
                await self.receive(connection, share, node)
                self.trouble = "the connection ended" if node == self.node else ""
            except HeadwaterError as error:
                self.trouble = str(error)
            except OSError as error:
                self.trouble = f"the mirror cannot be written: {error}"
            lasted = self.place.clock.boot_ns() - began_ns > RETRY_S_MAX * 1e9
            wait_s = RETRY_S_MIN if lasted else min(wait_s * 2, RETRY_S_MAX)
            await self.place.clock.sleep(wait_s)

    async def receive(self, connection: Connection, share: Callable[[], int], node: str = "") -> None:
        """Take what a connection brings, until it ends or is silent for too long; from a holder, for a while."""
        self.connection = connection
        from_home = node in ("", self.node)
        until_ns = self.place.clock.boot_ns() + int(HOLDER_S * 1e9)
        try:
            opening = wire.outgoing(self.opening(node))
            await connection.send(opening.kind, opening.header)
            while True:
                async with asyncio.timeout(SILENT_S if from_home else HOLDER_S):
                    frame = await connection.receive()
                if frame is None:
                    return
                await self.handle(frame)
                await self.grant(share())
                if not from_home and self.place.clock.boot_ns() > until_ns:
                    return
        except TimeoutError:
            raise Unavailable(f"no word for {SILENT_S:.0f} s", code="home_silent") from None
        finally:
            self.connection = None
            await connection.close()

    async def handle(self, frame: Frame) -> None:
        """One frame of the home."""
        if frame.kind == Kind.DATA:
            data = wire.data(frame)
            if data.blocks or frame.body:
                await asyncio.to_thread(self.take, data, frame.body)
            else:
                self.take(data, frame.body)
        elif frame.kind == Kind.ENDED:
            self.end_log(wire.message(frame, wire.Ended))
        else:
            return
        self.trouble = ""
        self.heard_ns = self.place.clock.boot_ns()

    async def grant(self, share_bytes: int) -> None:
        """Let the home send as much more as was taken, while there is room."""
        if self.connection is None or self.owed < GRANT_BYTES_MIN or self.bytes >= share_bytes:
            return
        credit = wire.outgoing(wire.Credit(stream=self.wanted.name, bytes=self.owed))
        self.owed = 0
        with contextlib.suppress(Unavailable):  # the reading side sees it too
            await self.connection.send(credit.kind, credit.header)


class Mirrors:
    """The streams of this node."""

    def __init__(
        self, place: Place, me: str, dial: Dial, start: Start, bytes_max: int, source: Source | None = None
    ) -> None:
        """``start`` runs a coroutine as a task of the owner; ``source``: where a home is read from, else from itself.
        What ``place.root`` holds is of a former start: gone."""
        self.place = place
        self.me = me
        self.dial = dial
        self.source = source or self.home_itself
        self.start = start
        self.bytes_max = bytes_max
        self.nodes: frozenset[str] = frozenset()
        self.streams: dict[str, tuple[Wanted, dict[str, HomeMirror]]] = {}
        shutil.rmtree(place.root, ignore_errors=True)
        place.disk.mkdir(place.root)

    def know(self, nodes: Collection[str]) -> None:
        """The nodes of the cluster, as far as they are known; each of them is a home of every stream from now on."""
        self.nodes = frozenset(nodes) - {self.me}
        for wanted, homes in self.streams.values():
            for node in sorted(self.nodes - homes.keys()):
                homes[node] = self.followed(HomeMirror(self.place, wanted, node))

    def followed(self, home: HomeMirror) -> HomeMirror:
        """Begin to follow a home."""
        name = f"{home.wanted.name} of {home.node}"
        home.task = self.start(name, home.follow(self.source, self.share))
        return home

    async def home_itself(self, home: str, stands: Callable[[WriterId], Position]) -> tuple[str, Connection]:
        """A ``Source`` without copies."""
        return home, await self.dial(home)

    def share(self) -> int:
        """What one home of one stream may take."""
        count = sum(len(homes) for _, homes in self.streams.values())
        return max(self.bytes_max // max(count, 1), SHARE_BYTES_MIN)

    def full(self) -> float:
        """The share that the fullest mirror of a home takes of what it may."""
        most = max((home.bytes for _, homes in self.streams.values() for home in homes.values()), default=0)
        return min(1.0, most / self.share())

    async def open(
        self, name: str, partitions: Collection[int], origin: Vector, until: Vector | None = None
    ) -> str:
        """Begin a stream, anew where there is one of this name; its folder. Rejected: no name for a folder."""
        if not STREAM_NAME.fullmatch(name):
            raise Rejected(
                f"not the name of a stream: {name[:80]!r}",
                code="stream_name",
                help="expected 1 to 64 of a-z, 0-9, `_`, `-`",
            )
        await self.close(name)
        wanted = Wanted(name, sorted(partitions), origin, until)
        self.place.disk.mkdir(f"{self.place.root}/{name}")
        self.streams[name] = (wanted, {})
        self.know(self.nodes)
        return f"{self.place.root}/{name}"

    async def close(self, name: str) -> None:
        """End a stream, and remove its folder; nothing where there is none."""
        _, homes = self.streams.pop(name, (None, {}))
        for home in list(homes.values()):  # ``know`` may add one meanwhile
            if home.task is not None:
                home.task.cancel()
            await asyncio.to_thread(home.close)
        await asyncio.to_thread(shutil.rmtree, f"{self.place.root}/{name}", ignore_errors=True)

    async def trim(self, name: str, below: Vector) -> None:
        """Nothing of a stream below this vector is read again."""
        for home in list(self.homes(name).values()):  # ``know`` may add one meanwhile
            await asyncio.to_thread(home.trim, below)
            await home.grant(self.share())

    def homes(self, name: str) -> dict[str, HomeMirror]:
        """Of a stream. Rejected: there is none of this name (any more)."""
        return self.found(name)[1]

    def found(self, name: str) -> tuple[Wanted, dict[str, HomeMirror]]:
        if name not in self.streams:
            raise Rejected(
                f"there is no stream {name[:80]!r}",
                code="no_stream",
                help="open it; none outlives its process",
            )
        return self.streams[name]

    def status(self, name: str) -> dict[str, Any]:
        """How far a stream is. Complete: whatever lies below its ``until`` is there, or is known to be missing."""
        wanted, homes = self.found(name)
        now_ns = self.place.clock.boot_ns()
        at = self.at(wanted, homes)
        left = [w for w, end in (wanted.until or {}).items() if node_of(w) != self.me and at[w] < end]
        silent = {node for node, home in homes.items() if home.silent(now_ns)}
        silent |= {node_of(writer) for writer in left} - homes.keys()
        return {
            "complete": wanted.until is not None and not left,
            "at": at.encode().hex(),
            "missing": {
                f"{writer:016x}": log.missing
                for home in homes.values()
                for writer, log in list(home.logs.items())
                if log.missing
            },
            "silent": sorted(silent),
        }

    def at(self, wanted: Wanted, homes: Mapping[str, HomeMirror]) -> Vector:
        """Up to where a stream's mirror goes; what it never had anything of stands at its origin. The clock is that of
        the home that is furthest behind."""
        entries = dict(wanted.origin.entries)
        for home in homes.values():
            entries |= home.at
        return Vector(entries, min((home.moment.node_time_ns for home in homes.values()), default=0))

    def told(self) -> dict[str, Any]:
        """For the report of the process."""
        now_ns = self.place.clock.boot_ns()
        return {
            name: {
                "partitions": len(wanted.partitions),
                "bytes": sum(home.bytes for home in homes.values()),
                "homes": {
                    node: {"bytes": home.bytes, "silent": home.silent(now_ns), "trouble": home.trouble}
                    for node, home in homes.items()
                },
            }
            for name, (wanted, homes) in self.streams.items()
        }
