"""The home's side of copies: this node's raw log on other nodes' disks, for `ack: replicated` (protocol.md §2 "Copies").

While any key has `ack: replicated`, everything in the raw log goes to ``cluster.copies`` - 1 other nodes, all of its
writers to the same ones, in order and without gaps: the holders are chosen by rendezvous hashing, those of other zones
first, and are kept while they answer. What is durable here is sent at once (collect workers ring a bell; without one,
the watermarks are looked at every ``POLL_S``), at most ``WINDOW`` cuts ahead of what a holder has synced: what comes
meanwhile is the next cut, so a slow holder gets fewer and larger ones.

*Copied* of a writer is the position below which everything is on so many other disks; it never goes back, and is the
least of where the present holders stand. A holder that does not answer for ``SILENT_S`` is lost: another one is chosen
and begins at that position, which is the first block without enough copies. Where nothing is known of what was copied
(the node has just started), the copies of the holders tell, and what is below ``safe`` is never sent.

Collect workers are told through ``run/copies/`` (lane/copies_told).

The home keeps nothing durable about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from xxhash import xxh3_64_intdigest

from headwater.cluster.table import NodeRecord, View
from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId
from headwater.kit.bell import Bell, Ringer
from headwater.kit.clock import Clock
from headwater.kit.disk import Cell
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.kit.tasks import Group, Report
from headwater.lane import copies_told, wire
from headwater.lane.home import Now, RawLog, Stream
from headwater.lane.mirror import Dial, Start
from headwater.lane.wire import Connection
from headwater.log.cut import WRITER
from headwater.peer.frames import Kind

POLL_S = 0.05
WINDOW = 2
"""Cuts that are sent and not yet synced: one that is being synced, one on its way."""
CUT_BYTES = 512 * 1024
CREDIT = 1 << 62
SILENT_S = 2.0
"""A holder answers every cut, and there is one each second; after so long it is lost."""
FORGET_S = 10.0
"""How long a node that was lost is passed over: as long as the table takes to lose it too."""
SAFE_WAIT_S = 3.0
"""How long a start waits to hear what nobody needs any more, before it sends all there is."""


def choose(
    me: NodeRecord, others: Mapping[str, NodeRecord], present: Iterable[str], lost: Iterable[str], count: int
) -> list[str]:
    """The holders of a home: those that it has, as long as they are there; then those in other zones, in an order of
    its own; those that were just lost only where nobody else is left."""
    lost = set(lost)
    kept = [node for node in present if node in others]

    def order(node: str) -> tuple[bool, bool, int]:
        same_zone = bool(me.zone) and others[node].zone == me.zone
        return node in lost, same_zone, xxh3_64_intdigest(f"{me.node} {node}".encode())

    fresh = sorted((node for node in others if node not in kept), key=order)
    return [*kept, *fresh][:count]


class Link:
    """One holder, as long as it answers."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.task: asyncio.Task[None] | None = None
        self.stands: dict[WriterId, Position] | None = None
        """What it has synced; None: it has not said yet."""
        self.unacknowledged = 0
        self.wake = asyncio.Event()


class Copies:
    """Sends the raw log of this node to its holders. In the event loop of the lane."""

    def __init__(
        self,
        raw: RawLog,
        run: str,
        now: Now,
        clock: Clock,
        dial: Dial,
        start: Start,
        report: Report,
        *,
        count: int,
    ) -> None:
        """``count``: on how many other nodes everything is to be."""
        self.raw = raw
        self.run = run
        self.now = now
        self.clock = clock
        self.dial = dial
        self.start = start
        self.report = report
        self.count = count
        self.links: dict[str, Link] = {}
        self.lost: dict[str, int] = {}
        """Node → when it was lost."""
        self.copied: dict[WriterId, Position] = {}
        self.cells: dict[WriterId, tuple[int, Cell]] = {}
        self.ringers: dict[WriterId, Ringer] = {}
        self.began_ns = 0
        self.sent_bytes = 0
        self.me: NodeRecord | None = None
        self.candidates: dict[str, NodeRecord] = {}
        raw.disk.mkdir(copies_told.folder(run))
        self.others = raw.disk.cell(copies_told.others(run), write=True)
        self.bell = Bell(copies_told.home_bell(run), asyncio.get_running_loop(), self.rung)

    # -- who holds

    def look(self, view: View | None, safe: Vector, *, wanted: bool) -> None:
        """Who is there now, and what nobody needs any more; called several times a second. Not ``wanted``: no key asks
        for copies."""
        self.me = view.alive.get(view.me) if view is not None else None
        if view is None or self.me is None or not wanted:
            self.candidates = {}
            self.began_ns = 0
        else:
            self.candidates = {n: r for n, r in view.alive.items() if n != view.me and r.lane_address}
        now_ns = self.clock.boot_ns()
        self.lost = {
            node: at_ns
            for node, at_ns in self.lost.items()
            if node in self.candidates and now_ns - at_ns < FORGET_S * 1e9
        }
        for writer, at in safe.items() if self.candidates else ():
            if self.is_own(writer):
                self.raise_to(writer, at)
        if self.candidates and not self.began_ns:
            self.began_ns = now_ns
        self.fill(ready=safe != EMPTY or bool(self.copied) or now_ns - self.began_ns > SAFE_WAIT_S * 1e9)

    def is_own(self, writer: WriterId) -> bool:
        return self.raw.disk.exists(f"{self.raw.path}/{writer:016x}")

    def fill(self, *, ready: bool = True) -> None:
        """Have as many holders as are wanted and there are."""
        for node in self.links.keys() - self.candidates.keys():
            self.drop(self.links[node])
        if self.me is not None and ready:
            for node in choose(self.me, self.candidates, self.links, self.lost, self.count):
                if node not in self.links:
                    link = self.links[node] = Link(node)
                    link.task = self.start(f"copies to {node}", self.hold(link))
        self.others.set(len(self.candidates.keys() - self.lost.keys()))

    def drop(self, link: Link) -> None:
        """It holds nothing more for us."""
        if self.links.get(link.node) is link:
            del self.links[link.node]
        if link.task is not None:
            link.task.cancel()

    # -- sending

    async def hold(self, link: Link) -> None:
        """One holder, until it is lost; then another one is looked for."""
        try:
            connection = await self.dial(link.node)
            try:
                await self.feed(link, connection)
            finally:
                await connection.close()
        except (HeadwaterError, OSError, TimeoutError) as error:
            self.report("copies", f"to {link.node}", error)
        self.lost[link.node] = self.clock.boot_ns()
        if self.links.get(link.node) is link:
            del self.links[link.node]
        self.fill()

    async def feed(self, link: Link, connection: Connection) -> None:
        """Send, and hear what is synced. Unavailable: it is lost."""
        kind, header, _ = wire.outgoing(wire.Copy(stands=self.floor().encode()))
        await connection.send(kind, header)
        stands = await self.hear(link, connection)
        asked = wire.Open(
            stream="copies",
            partitions=list(range(self.raw.partitions)),
            origin=stands.encode(),
            credit=CREDIT,
        )
        stream = Stream(self.raw, asked, self.now, CUT_BYTES)
        self.lost.pop(link.node, None)
        try:
            async with Group(f"copies to {link.node}", lambda *told: None) as group:
                group.start("acknowledgements", self.hear_forever(link, connection))
                await self.send_forever(link, connection, stream)
        finally:
            stream.close()

    def floor(self) -> Vector:
        """From where on each own writer needs copies."""
        names = self.raw.disk.listdir(self.raw.path)
        writers = [WriterId(int(name, 16)) for name in names if WRITER.match(name)]
        return Vector({writer: self.copied.get(writer, ZERO) for writer in writers})

    async def send_forever(self, link: Link, connection: Connection, stream: Stream) -> None:
        """What is durable here, cut by cut, in the order of each log."""
        while True:
            link.wake.clear()  # before the watermarks are read
            frames = stream.turn() if link.unacknowledged < WINDOW else []
            for kind, header, body in frames:
                await connection.send(kind, header, body)
                self.sent_bytes += len(body)
            if frames:
                link.unacknowledged += 1
                continue
            try:
                async with asyncio.timeout(POLL_S):
                    await link.wake.wait()
            except TimeoutError:
                pass

    async def hear_forever(self, link: Link, connection: Connection) -> None:
        while True:
            await self.hear(link, connection)
            link.unacknowledged -= 1
            link.wake.set()

    async def hear(self, link: Link, connection: Connection) -> Vector:
        """The next acknowledgement. Unavailable: none comes, or there is no room."""
        try:
            async with asyncio.timeout(SILENT_S):
                frame = await connection.receive()
        except TimeoutError:
            raise Unavailable(f"no word for {SILENT_S:.0f} s", code="holder_silent") from None
        if frame is None or frame.kind != Kind.COPY_ACK:
            raise Unavailable("it ended the connection", code="holder_gone")
        ack = wire.message(frame, wire.CopyAck)
        if ack.full:
            raise Unavailable("it has no room for copies", code="holder_full")
        stands = Vector.decode(ack.stands)
        link.stands = dict(stands.entries)
        if ack.begins:
            for writer, at in Vector.decode(ack.begins).items():
                self.raise_to(writer, at)
        self.settle()
        return stands

    def rung(self) -> None:
        """A collect worker has something that waits for copies."""
        for link in self.links.values():
            link.wake.set()

    # -- what is copied

    def settle(self) -> None:
        """Add up what the holders have."""
        known = [link.stands for link in self.links.values() if link.stands is not None]
        if len(known) < self.count:
            return
        for writer in known[0]:
            self.raise_to(writer, min(stands.get(writer, ZERO) for stands in known))

    def raise_to(self, writer: WriterId, at: Position) -> None:
        """Everything of a writer below this position has enough copies, or needs none."""
        if at <= self.copied.get(writer, ZERO):
            return
        self.copied[writer] = at
        self.cell(writer, at.log).set(at.seq)
        if writer not in self.ringers:
            self.ringers[writer] = Ringer(copies_told.collect_bell(self.run, writer & 0xFFFF))
        self.ringers[writer].ring()

    def cell(self, writer: WriterId, log: int) -> Cell:
        """Where it is told for a log."""
        known = self.cells.get(writer)
        if known is not None and known[0] == log:
            return known[1]
        if known is not None:
            known[1].close()
        made = self.raw.disk.cell(copies_told.cell(self.run, log), write=True)
        self.cells[writer] = log, made
        return made

    def told(self) -> dict[str, object]:
        """For the report of the process."""
        return {
            "holders": sorted(node for node, link in self.links.items() if link.stands is not None),
            "lost": sorted(self.lost),
            "wanted": self.count if self.candidates else 0,
            "sent_bytes": self.sent_bytes,
            "copied": Vector(self.copied).encode().hex(),
        }

    def close(self) -> None:
        """Release the files."""
        self.bell.close()
        for ringer in self.ringers.values():
            ringer.close()
        for _, cell in self.cells.values():
            cell.close()
        self.others.close()
