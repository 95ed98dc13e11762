"""The holder's side of copies: raw logs of other nodes, on this node's disk (protocol.md §2, INV-LOG-3).

``copies/<writer>/`` is an ordinary log folder: segments of ``SEGMENT_BYTES``, zeroed ahead, with blocks that keep the
log, numbers and times of their home and are hashed anew with this folder's secret. What the home was told to be here
is synced, and survives any crash. A holder decides nothing about a log: an end is written only when the home has said
it, and nothing goes before it lies below ``safe``, what no owner will ask for again (node/needs).

A copy begins where its home wanted it to, and has no gap from there on; where the home begins again further on (other
nodes held what came between), a new *stretch* begins. ``<log>-<seq>.range`` is an empty file that says where one does,
made durable before its first block, so that after a crash a stretch never seems longer than it is: its end is found by
reading the last segment.

Bounded: over ``bytes_max``, or where the disk is nearly full, blocks are refused (Busy), and the home looks for another
holder.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, make_folder
from headwater.kit.errors import Busy, HeadwaterError, Rejected
from headwater.kit.tasks import Report
from headwater.kit.threads import Submit, Thread, answer
from headwater.lane import wire
from headwater.lane.folder import LAST_SEGMENT_BYTES_MIN, Growing, MirrorLog
from headwater.lane.mirror import HomeMirror, Place, Wanted, node_of
from headwater.lane.wire import BlockHead, Connection, Gap, Moment
from headwater.log import files
from headwater.log.block import Header, Secret
from headwater.log.cut import WRITER
from headwater.log.files import Segment
from headwater.log.recover import block_at
from headwater.log.segment import open_segment
from headwater.log.write import Segments
from headwater.peer.frames import Frame, Kind

SEGMENT_BYTES = 16 * 1024 * 1024
SPARES_MAX = 2
ROOM_WAIT_S, ROOM_POLL_S = 2.0, 0.005
"""How long a block waits for the next segment to be zeroed."""
STRETCH = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16})\.range$")


@dataclass(slots=True)
class Stretch:
    """A part of a writer's logs that is here without a gap."""

    begins: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where copies lie, and what they may take."""

    disk: Disk
    root: str
    secret: Secret
    clock: Clock
    preparing: Submit
    """Zeroes segments."""
    allowed: Callable[[], bool]
    """Whether there is room for one more segment."""
    segment_bytes: int = SEGMENT_BYTES


class CopyLog(MirrorLog):
    """The copies of one writer. Not for two threads at once."""

    def __init__(self, shelf: Shelf, writer: WriterId) -> None:
        self.shelf = shelf
        super().__init__(shelf.disk, f"{shelf.root}/{writer:016x}", shelf.secret, ZERO)
        self.rooms = Segments(
            shelf.disk,
            self.folder,
            shelf.segment_bytes,
            shelf.preparing,
            shelf.allowed,
            pause=shelf.clock.block,
        )
        self.stretches: list[Stretch] = []
        """Oldest first; the last one grows."""
        self.newest = Moment(0, 0, 0)
        """When the last block that is here was closed, by its home's clocks."""
        self.unsynced = False
        self.recover()
        self.rooms.prepare()

    # -- taking

    def stand(self, wanted: Position) -> None:
        """The home has enough copies of what lies below: go on where the copy ends, or begin a new stretch there."""
        if wanted > self.at:
            self.begin_stretch(wanted)

    def take(self, head: BlockHead, payload: bytes | memoryview) -> None:
        """The next block, not yet durable; or a stretch that its home has lost, behind which a new one begins.
        Rejected: it begins elsewhere (INV-LANE-1). Busy: there is no room."""
        self.check(head)
        after = Position(head.log, head.first_seq + head.events)
        if head.gap is not Gap.NONE:
            return self.begin_stretch(after)
        if head.log != self.at.log:
            self.begin(head.log)
        self.append(head, payload)
        self.at = after
        self.newest = max(self.newest, Moment(head.start, head.boot_ns, head.node_time_ns))

    def append(self, head: BlockHead, payload: bytes | memoryview) -> None:
        data = self.encoded(head, payload)
        if self.growing is None or self.growing.bytes + len(data) > self.shelf.segment_bytes:
            self.grow(Segment(head.log, head.first_seq, self.path_of(head)))
        assert self.growing is not None
        written = self.disk.pwrite(self.growing.file, data, self.growing.bytes)
        if written != len(data):
            raise OSError(28, f"short write: {written} of {len(data)} bytes", self.growing.segment.path)
        self.growing.bytes += len(data)
        self.unsynced = True

    def path_of(self, head: BlockHead) -> str:
        """Of the segment that begins with a block."""
        return files.segment_path(self.folder, head.log, head.first_seq)

    def grow(self, segment: Segment) -> None:
        """Go on in a new segment; what the former has is durable before. Busy: there is no room."""
        clock = self.shelf.clock
        until_ns = clock.boot_ns() + int(ROOM_WAIT_S * 1e9)
        while not self.rooms.ready:
            self.rooms.prepare()
            waits: bool = self.rooms.preparing or self.rooms.ready
            if not waits or clock.boot_ns() > until_ns:
                raise Busy(f"no room for copies: {self.rooms.trouble or 'still zeroing'}", code="copies_full")
            self.rooms.missed = True
            clock.block(ROOM_POLL_S)
        self.seal()
        file = self.rooms.take(segment.log, segment.first)
        self.growing = Growing(segment, file)
        self.bytes += self.shelf.segment_bytes
        self.rooms.taken()

    def sync(self) -> None:
        """What was taken is durable, and may be read, on return."""
        if self.unsynced and self.growing is not None:
            self.disk.sync(self.growing.file)
            self.unsynced = False
            self.cell().set(self.at.seq)
        self.stretches[-1].end = self.at

    def seal(self) -> None:
        """The next block begins a new segment."""
        if self.growing is not None:
            self.sync()
            self.disk.close(self.growing.file)
            self.segments.append((self.growing.segment, self.shelf.segment_bytes))
            self.growing = None

    def end(self, log: int, seq: int) -> None:
        """The home has decided where a log ends; durable on return. Rejected: not all of it is here."""
        if log != self.at.log or seq > self.at.seq:
            raise Rejected(
                f"log {log:016x} is said to end at {seq}, the copy of {self.at.log:016x} is at {self.at.seq}",
                code="lane_gap",
            )
        self.sync()
        files.write_end(self.disk, self.folder, files.End(log=log, seq=seq))
        self.ended = True

    def begin_stretch(self, begins: Position) -> None:
        """What comes next begins here, and not where the copy ends. Durable on return."""
        self.close()
        self.mark(begins)
        if self.stretches and self.stretches[-1].begins == self.stretches[-1].end:
            self.unmark(self.stretches.pop().begins)
        self.stretches.append(Stretch(begins, begins))
        self.at = begins
        self.ended = files.read_end(self.disk, self.folder, begins.log) is not None

    def mark(self, begins: Position) -> None:
        """Say durably that a stretch begins here."""
        self.disk.close(self.disk.open(self.mark_path(begins), write=True, create=True))
        self.disk.sync_dir(self.folder)

    def unmark(self, begins: Position) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.disk.unlink(self.mark_path(begins))

    def mark_path(self, begins: Position) -> str:
        return f"{self.folder}/{begins.log:016x}-{begins.seq:016x}.range"

    # -- after a start

    def recover(self) -> None:
        """Find what is here: the end of each stretch by reading its last segment."""
        found = [m for m in map(STRETCH.match, self.disk.listdir(self.folder)) if m]
        marks = sorted(Position(int(m[1], 16), int(m[2], 16)) for m in found)
        held = files.segments(self.disk, self.folder)
        if not marks:
            self.begin_stretch(Position(held[0].log, held[0].first) if held else ZERO)
            marks = [self.stretches.pop().begins]
        for begins, following in zip(marks, [*marks[1:], None], strict=True):
            own = [s for s in held if begins <= s[:2] and (following is None or s[:2] < following)]
            self.stretches.append(Stretch(begins, self.recovered(own) if own else begins))
        self.at = self.stretches[-1].end
        self.ended = files.read_end(self.disk, self.folder, self.at.log) is not None

    def recovered(self, own: list[Segment]) -> Position:
        """Where the last of these segments ends; one without a block is given back."""
        last = own[-1]
        seq, newest = self.end_of(last)
        if newest is None:
            self.disk.unlink(last.path)
            own = own[:-1]
        else:
            self.newest = max(self.newest, Moment(newest.start, newest.boot_ns, newest.node_time_ns))
            watermark = self.disk.cell(files.watermark_path(self.folder, last.log), write=True)
            watermark.set(max(watermark.get(), seq))
            watermark.close()
        for segment in own:
            size = self.disk.about(segment.path).size
            self.segments.append((segment, size))
            self.bytes += size
        return Position(last.log, seq)

    def end_of(self, segment: Segment) -> tuple[int, Header | None]:
        """The number behind the last whole block of a segment, and that block."""
        file = open_segment(self.disk, segment, self.secret)
        seq, offset, newest = segment.first, 0, None
        try:
            while found := block_at(file, offset, segment.log, self.secret):
                if found[0].first_seq != seq:
                    break
                newest = found[0]
                seq, offset = newest.next_seq, offset + newest.disk_bytes
        finally:
            file.close()
        return seq, newest

    # -- giving back and reading

    def retire(self, safe: Position) -> None:
        """Give back the segments that lie below; no other."""
        if self.growing is not None and safe >= self.at and self.growing.bytes >= LAST_SEGMENT_BYTES_MIN:
            self.seal()
        starts = [Position(s.log, s.first) for s, _ in self.segments]
        last = Position(*self.growing.segment[:2]) if self.growing is not None else self.at
        below = [self.is_below(one, two, safe) for one, two in pairwise([*starts, last])]
        count = below.index(False) if False in below else len(below)
        if not count:
            return
        kept = [*starts, last][count]
        gone = [stretch for stretch in self.stretches[:-1] if stretch.end <= kept]
        first = self.stretches[len(gone)]
        old = [stretch.begins for stretch in gone]
        if (
            first.begins < kept <= first.end
        ):  # before anything goes: a crash may leave too little said, never too much
            old.append(first.begins)
            first.begins = kept
            self.mark(kept)
        self.stretches = self.stretches[len(gone) :]
        for segment, size in self.segments[:count]:
            self.give_back(segment, size)
        self.segments = self.segments[count:]
        for begins in old:
            self.unmark(begins)
        for log in files.logs(self.disk, self.folder):
            if log < self.stretches[0].begins.log:
                self.forget(log)

    def give_back(self, segment: Segment, size: int) -> None:
        """A segment that is not needed: it becomes the next one, or goes."""
        self.bytes -= size
        spares = len(files.spares(self.disk, self.folder))
        with contextlib.suppress(FileNotFoundError):
            if size == self.shelf.segment_bytes and spares < SPARES_MAX:
                self.disk.rename(segment.path, f"{self.folder}/spare-{segment.first:016d}.seg")
            else:
                self.disk.unlink(segment.path)

    def reach(self, at: Position) -> Position | None:
        """Up to where a reader that stands here can be given everything; None: its place is not held."""
        for stretch in reversed(self.stretches):
            if stretch.begins <= at <= stretch.end:
                return stretch.end
        return None


class HeldHome(HomeMirror):
    """The copies of one home."""

    def __init__(self, shelf: Shelf, node: str, submit: Submit) -> None:
        place = Place(shelf.disk, shelf.root, shelf.secret, shelf.clock)
        super().__init__(place, Wanted("copies", [], EMPTY, None), node)
        self.shelf = shelf
        self.submit = submit
        """Writes and syncs, one after the other."""
        self.turn = 0
        """Counts the connections of the home: the newest is heard."""

    @property
    def copies(self) -> dict[WriterId, CopyLog]:
        return {writer: log for writer, log in list(self.logs.items()) if isinstance(log, CopyLog)}

    def log(self, writer: WriterId) -> CopyLog:
        """The folder of a writer. Rejected: it is not this home's."""
        found = self.logs.get(writer)
        if isinstance(found, CopyLog):
            return found
        self.check_own(writer)
        made = self.logs[writer] = CopyLog(self.shelf, writer)
        return made

    def check_own(self, writer: WriterId) -> None:
        """Rejected: a writer of another node."""
        if node_of(writer) != self.node:
            raise Rejected(f"a block of the writer {writer:016x}, from node {self.node}", code="lane_format")

    def stand(self, wanted: Vector) -> wire.CopyAck:
        """The home begins: what is here, from where on without a gap."""
        with self.lock:
            self.begun, self.pieces = None, []
            for writer, at in wanted.items():
                self.log(writer).stand(at)
            begins = Vector({w: log.stretches[-1].begins for w, log in self.copies.items()})
            return wire.CopyAck(stands=Vector(self.at).encode(), begins=begins.encode())

    def end_cut(self, moment: Moment) -> None:
        """What came is durable."""
        for log in self.copies.values():
            log.sync()

    def retire(self, safe: Vector) -> None:
        """Nothing below is asked for again."""
        with self.lock:
            for writer, log in self.copies.items():
                log.retire(safe[writer])

    @property
    def newest(self) -> Moment:
        """When the newest block that is here was closed."""
        return max((log.newest for log in self.copies.values()), default=Moment(0, 0, 0))

    def told(self) -> dict[str, list[list[int]]]:
        """The stretches of each writer."""
        return {
            f"{writer:016x}": [[*one.begins, *one.end] for one in list(log.stretches)]
            for writer, log in self.copies.items()
        }


class Held:
    """All copies on this node."""

    def __init__(
        self,
        disk: Disk,
        root: str,
        secret: Secret,
        clock: Clock,
        report: Report,
        *,
        bytes_max: int,
        reserve_bytes: int = 0,
        thread: Callable[[str], Submit] = Thread,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.disk = disk
        self.bytes_max = bytes_max
        self.reserve_bytes = reserve_bytes
        self.report = report
        self.thread = thread
        make_folder(disk, root)
        self.shelf = Shelf(disk, root, secret, clock, thread("prepare-copies"), self.has_room, segment_bytes)
        self.homes: dict[str, HeldHome] = {}
        for name in disk.listdir(root):
            if WRITER.match(name):
                writer = WriterId(int(name, 16))
                self.home(node_of(writer)).log(writer)

    def home(self, node: str) -> HeldHome:
        """The copies of a home."""
        if node not in self.homes:
            self.homes[node] = HeldHome(self.shelf, node, self.thread(f"copies-{node}"))
        return self.homes[node]

    @property
    def bytes(self) -> int:
        return sum(home.bytes for home in list(self.homes.values()))

    def has_room(self) -> bool:
        """Whether one more segment may be made."""
        more = self.shelf.segment_bytes
        free = self.disk.free_bytes(self.shelf.root)
        return self.bytes + more <= self.bytes_max and free - more >= self.reserve_bytes

    async def serve(self, connection: Connection, opened: Frame) -> None:
        """The connection of a home, from its first frame on. Rejected: it sends what cannot be."""
        home = self.home(connection.peer.node)
        home.turn += 1
        mine = home.turn
        frame: Frame | None = opened
        while frame is not None and home.turn == mine:
            taken = frame

            def take(taken: Frame = taken) -> wire.CopyAck | None:
                return self.take(home, taken) if home.turn == mine else None

            try:
                ack = await answer(home.submit, take)
            except (Busy, OSError) as error:
                self.report("copies", f"of node {home.node}", error)
                ack = wire.CopyAck(stands=EMPTY.encode(), full=True)
            if ack is not None:
                kind, header, _ = wire.outgoing(ack)
                await connection.send(kind, header)
                if ack.full:
                    return
            frame = await connection.receive()

    def take(self, home: HeldHome, frame: Frame) -> wire.CopyAck | None:
        """One frame, in the home's thread; what is to be answered."""
        if frame.kind == Kind.COPY:
            return home.stand(wire.message(frame, wire.Copy).vector)
        if frame.kind == Kind.ENDED:
            home.end_log(wire.message(frame, wire.Ended))
        elif frame.kind == Kind.DATA:
            data = wire.data(frame)
            home.take(data, frame.body)
            if data.last:
                return wire.CopyAck(stands=Vector(home.at).encode())
        return None

    def retire(self, safe: Vector, known: Mapping[str, object] | set[str]) -> None:
        """Give back what lies below ``safe``, in the background; all of a home that is not ``known`` any more, once
        nobody asks for any of it again."""
        for node, home in list(self.homes.items()):
            over = node not in known and all(log.at <= safe[w] for w, log in home.copies.items())

            def work(home: HeldHome = home, over: bool = over) -> None:
                try:
                    home.retire(safe)
                    if over:
                        self.remove(home)
                except (HeadwaterError, OSError) as error:
                    self.report("copies", f"of node {home.node}", error)

            home.submit(work)

    def remove(self, home: HeldHome) -> None:
        """All of a home goes."""
        home.turn += 1
        home.close()
        for log in home.copies.values():
            shutil.rmtree(log.folder, ignore_errors=True)
        self.homes.pop(home.node, None)

    def told(self, away: Callable[[str], bool]) -> dict[str, Any]:
        """Of the homes that are away: each writer's stretches. Holders speak of no others."""
        found: dict[str, Any] = {}
        for node, home in list(self.homes.items()):
            if away(node):
                found |= home.told()
        return found

    def close(self) -> None:
        """Release the files."""
        for home in self.homes.values():
            home.close()
