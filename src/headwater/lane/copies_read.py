"""Reading a home that is away from its copies (protocol.md §2 "Copies", §6 WHO_HAS).

Each node asks the others every second of which homes that are away they hold copies, and how far those reach
(``Directory``). A mirror follows the home itself while that is there, else the holder that reaches furthest among those
that have what it needs next; it goes back when the home returns. A holder serves copies only while the home is away,
each writer up to the end of the stretch in which its reader stands, and never says that something is missing: what it
lacks, the home or another holder has.

The T of a cut of copies is the time at which the newest block in them was closed. Of what the home acknowledged at
`disk` shortly before, something may be missing below it that comes when the home returns: INV-ORD-1 holds for what was
acknowledged at `replicated`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.clock import Clock
from headwater.kit.errors import Rejected, Unavailable
from headwater.lane import wire
from headwater.lane.copies_held import Held, HeldHome
from headwater.lane.home import POLL_S, RawLog, Stream
from headwater.lane.mirror import Dial, node_of
from headwater.lane.wire import Connection, Moment, Outgoing, Packer
from headwater.log.read import Block, LogReader
from headwater.peer.frames import Frame, Kind, decode_map, encode_header
from headwater.peer.identity import Hello

Away = Callable[[str], bool]
"""Whether a node is not heard of, by its id."""


class CopyStream(Stream):
    """A stream of the copies of one home, as far as they reached when it was asked for."""

    def __init__(self, raw: RawLog, asked: wire.Open, held: HeldHome, away: Away, clock: Clock) -> None:
        super().__init__(raw, asked, lambda: held.newest)
        self.away = away
        self.clock = clock
        self.home = held.node
        self.stopped: set[WriterId] = set()
        """Writers of which a block here cannot be read."""
        for writer, log in held.copies.items():
            reach = log.reach(self.origin[writer])
            if reach is None:
                continue
            until = reach if self.until is None else min(reach, self.until[writer])
            self.readers[writer] = LogReader(
                raw.disk, log.folder, writer, self.origin[writer], until, secret=raw.secret
            )

    def _turn(self) -> list[Outgoing]:
        return super()._turn() if self.away(self.home) else []

    def discover(self) -> None:
        """Its writers were found when it began."""

    def boot_ns(self, now: Moment) -> int:
        return self.clock.boot_ns()

    def add(self, packer: Packer, block: Block) -> None:
        """A block; behind one that cannot be read, none of its writer: it is not for a holder to call it lost."""
        if block.payload is None:
            self.stopped.add(block.writer)
        if block.writer not in self.stopped:
            super().add(packer, block)


class Loopback:
    """A connection of this node with its own copies: what an owner would say to another holder."""

    def __init__(self, peer: Hello, open_stream: Callable[[wire.Open], Stream], clock: Clock) -> None:
        self.hello = peer
        self.open_stream = open_stream
        self.clock = clock
        self.stream: Stream | None = None
        self.frames: deque[Outgoing] = deque()

    @property
    def peer(self) -> Hello:
        return self.hello

    async def send(self, kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> None:
        """OPEN or CREDIT."""
        frame = carried(Outgoing(Kind(kind), dict(header)))
        if kind == Kind.OPEN:
            self.stream = self.open_stream(wire.message(frame, wire.Open))
        elif self.stream is not None:
            self.stream.credit += wire.message(frame, wire.Credit).bytes

    async def receive(self) -> Frame | None:
        """The next frame."""
        if self.stream is None:
            return None
        while not self.frames:
            self.frames += await asyncio.to_thread(self.stream.turn)
            if not self.frames:
                await self.clock.sleep(POLL_S)
        return carried(self.frames.popleft())

    async def close(self) -> None:
        if self.stream is not None:
            self.stream.close()


def carried(frame: Outgoing) -> Frame:
    """As it would arrive."""
    return Frame(frame.kind, decode_map(encode_header(frame.header)), memoryview(frame.body))


class Directory:
    """Who has copies of the homes that are away."""

    def __init__(self, me: str, held: Held, partitions: int, away: Away, dial: Dial, clock: Clock) -> None:
        self.me = me
        self.held = held
        self.raw = RawLog(held.disk, held.shelf.root, held.shelf.secret, partitions)
        """The copies, as streams read them."""
        self.away = away
        self.dial = dial
        self.clock = clock
        self.others: Mapping[str, Any] = {}
        """Node → writer (hex) → stretches [log, seq, log, seq], as it said last."""

    def learn(self, others: Mapping[str, Any]) -> None:
        """What the others answered."""
        self.others = others

    def told(self) -> dict[str, Any]:
        """What this node has, for others."""
        return self.held.told(self.away)

    def homes(self) -> set[str]:
        """Homes that are away, and of which somebody has copies."""
        found = {node_of(int(writer, 16)) for one in self.everything().values() for writer in one}
        return {node for node in found if self.away(node)}

    def everything(self) -> dict[str, Any]:
        return {**self.others, self.me: self.told()}

    def reach(self, holder: Mapping[str, Any], writer: WriterId, at: Position) -> Position | None:
        """Up to where a holder has everything from a position on; None: it does not have that position."""
        for begin_log, begin_seq, end_log, end_seq in reversed(holder.get(f"{writer:016x}", ())):
            if (begin_log, begin_seq) <= at <= (end_log, end_seq):
                return Position(end_log, end_seq)
        return None

    def holder(self, home: str, at: Callable[[WriterId], Position]) -> str | None:
        """The node to read the copies of a home from, for a mirror that stands ``at``: who reaches furthest. None where
        nobody has more than the mirror."""
        best: tuple[list[Position], str] | None = None
        for node, one in sorted(self.everything().items()):
            more = []
            for text in one:
                writer = WriterId(int(text, 16))
                reach = self.reach(one, writer, at(writer)) if node_of(writer) == home else None
                if reach is not None and reach > at(writer):
                    more.append(reach)
            if more and (best is None or sorted(more, reverse=True) > best[0]):
                best = sorted(more, reverse=True), node
        return best[1] if best is not None else None

    def reachable(self, needed: Mapping[WriterId, tuple[Position, Position]]) -> bool:
        """Whether each of these stretches can be read now: from its home, or from one holder."""
        told = self.everything()
        return all(
            node_of(writer) == self.me
            or not self.away(node_of(writer))
            or any((self.reach(one, writer, first) or ZERO) >= last for one in told.values())
            for writer, (first, last) in needed.items()
        )

    async def source(self, home: str, at: Callable[[WriterId], Position]) -> tuple[str, Connection]:
        """Whom a mirror of a home follows now, and the connection. Unavailable: neither the home is there, nor anybody
        with more of it than the mirror has."""
        if not self.away(home):
            return home, await self.dial(home)
        node = self.holder(home, at)
        if node is None:
            raise Unavailable(f"node {home} is away, and no node has more of it", code="no_copies")
        return node, (self.loopback() if node == self.me else await self.dial(node))

    def loopback(self) -> Loopback:
        """With the copies of this node."""
        hello = Hello(protocol=(1, 1), cluster="", node=self.me, incarnation=0, folder=self.me)
        return Loopback(hello, self.stream, self.clock)

    def stream(self, asked: wire.Open) -> Stream:
        """Copies as they are asked for. Rejected: none of that home are here, or it is not away."""
        held = self.held.homes.get(asked.home)
        if held is None or not self.away(asked.home):
            raise Rejected(f"no copies of node {asked.home[:16]!r} are given here", code="no_copies")
        return CopyStream(self.raw, asked, held, self.away, self.clock)
