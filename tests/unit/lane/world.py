"""A home with raw logs, and an owner who mirrors them, over frames that are carried by hand."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.event.position import EMPTY, Position, Vector, WriterId, writer_id
from headwater.event.record import COUNTS
from headwater.kit.disk import SystemDisk
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.threads import inline
from headwater.lane import wire
from headwater.lane.home import CUT_BYTES, RawLog, Stream
from headwater.lane.mirror import HomeMirror, Place, Wanted
from headwater.lane.wire import Moment, Outgoing
from headwater.log import recover, retain
from headwater.log.block import Secret
from headwater.log.follow import Follower
from headwater.log.read import Block
from headwater.log.write import BlockWriter
from headwater.peer.frames import Frame, Kind, decode_map, encode_header
from tests.unit.lane.raw import Record, payload_of

HOME, OWNER = 0xFEDC_BA98_7654_0000, 0x0123_4567_89AB_0000
PARTITIONS = 8
OFFSET_NS = 1_700_000_000 * 10**9
MS = 1_000_000


class HomeNode:
    """A node that accepts events, with two workers; its clock is moved by hand."""

    def __init__(self, path: Path, segment_bytes: int = 16 * 4096) -> None:
        self.disk = SystemDisk()
        self.raw = f"{path}/raw"
        self.disk.mkdir(self.raw)
        self.secret = Secret(0x5EC2E7)
        self.segment_bytes = segment_bytes
        self.time = Time()
        self.clock = SimClock(self.time)
        self.started = 1
        self.log_ids = itertools.count(1)
        self.writers: dict[int, BlockWriter] = {}
        self.counts: dict[int, dict[str, int]] = {}
        self.written: list[tuple[int, int, int, int]] = []
        """Writer, log, first number and events of each block; each was acknowledged before the next one began."""

    def folder(self, worker: int) -> str:
        return f"{self.raw}/{writer_id(HOME, worker):016x}"

    def write(self, worker: int, records: Sequence[Record], body_bytes: int = 0) -> None:
        """A block, acknowledged."""
        self.pass_time(MS)
        if worker not in self.writers:
            self.counts[worker] = {}
            self.writers[worker] = BlockWriter(
                self.disk, self.clock, self.folder(worker), writer_id(HOME, worker), next(self.log_ids),
                secret=self.secret, start=self.started, offset_ns=OFFSET_NS, segment_bytes=self.segment_bytes,
                submit=inline,
            )  # fmt: skip
        one = self.writers[worker]
        payload = payload_of(records, self.counts[worker], one.next_seq, body_bytes)
        events = COUNTS.unpack_from(payload)[1]
        self.written.append((int(one.writer), one.log_id, one.next_seq, events))
        one.write(payload, records=len(records), events=events)

    def pass_time(self, ns: int) -> None:
        self.time.advance_ns(ns)

    def restart_worker(self, worker: int) -> None:
        """Its process dies; the supervisor gives its log an end."""
        if worker in self.writers:
            self.writers.pop(worker).close()
            recover.recover_all(self.disk, self.folder(worker), self.secret)

    def restart(self) -> None:
        """The whole node."""
        for worker in list(self.writers):
            self.restart_worker(worker)
        self.started += 1

    def retire(self, below: Vector) -> None:
        """Give back all segments below a vector, and use them again."""
        for name in self.disk.listdir(self.raw):
            retain.retire(
                self.disk, f"{self.raw}/{name}", below[WriterId(int(name, 16))],
                wanted=lambda *_: False, segment_bytes=self.segment_bytes, spares_max=2,
            )  # fmt: skip

    def now(self) -> Moment:
        boot_ns = self.clock.boot_ns()
        return Moment(self.started, boot_ns, boot_ns + OFFSET_NS)

    def stream(self, asked: wire.Open, cut_bytes: int = CUT_BYTES) -> Stream:
        return Stream(RawLog(self.disk, self.raw, self.secret, PARTITIONS), asked, self.now, cut_bytes)

    def ends(self) -> Vector:
        """Behind everything."""
        follower = Follower(self.disk, self.raw, self.secret, lambda: self.now()[:2])
        at = EMPTY
        while (found := follower.take(at, lambda ns: ns, 1 << 30)) is not None:
            at = found.target
        follower.close()
        return Vector(at.entries)


class OwnerNode:
    """What the owner has of the home, for some partitions."""

    def __init__(
        self, path: Path, partitions: Collection[int], origin: Vector = EMPTY, until: Vector | None = None
    ) -> None:
        self.disk = SystemDisk()
        self.secret = Secret(0x0FF1CE)
        self.place = Place(self.disk, f"{path}/mirror", self.secret, SimClock(Time()))
        wanted = Wanted("main", sorted(partitions), origin, until)
        self.folder = f"{path}/mirror/main"
        self.disk.mkdir(self.folder)
        self.disk.mkdir(f"{path}/raw")
        self.raw = f"{path}/raw"
        self.mirror = HomeMirror(self.place, wanted, f"{HOME:016x}")

    def take(self, frames: Sequence[Outgoing]) -> None:
        """Frames as they arrive."""
        for frame in map(carried, frames):
            if frame.kind == Kind.ENDED:
                self.mirror.end_log(wire.message(frame, wire.Ended))
            else:
                self.mirror.take(wire.data(frame), frame.body)


def carried(frame: Outgoing) -> Frame:
    """What becomes of a frame on the way."""
    return Frame(frame.kind, decode_map(encode_header(frame.header)), memoryview(frame.body))


def follow(
    disk: SystemDisk, raw: str, secret: Secret, now: Moment, at: Vector, mirror: str | None = None,
    until: Vector | None = None, bytes_max: int = CUT_BYTES,
) -> tuple[list[Block], Vector]:  # fmt: skip
    """All blocks from a vector on, as a processor takes them cut by cut, and where it stands then."""
    follower = Follower(disk, raw, secret, lambda: now[:2], until=until, mirror=mirror)
    blocks: list[Block] = []
    while (found := follower.take(at, lambda ns: 0, bytes_max)) is not None:
        blocks += found.blocks
        at = found.target
    follower.close()
    return blocks, at


def told(blocks: Sequence[Block]) -> dict[int, list[Any]]:
    """Of each writer, its blocks without what belongs to others, in their order."""
    found: dict[int, list[Any]] = {}
    for one in blocks:
        header = one.header
        lost = one.payload is None
        when = None if lost else (header.start, header.boot_ns, header.node_time_ns)
        found.setdefault(one.writer, []).append((header.log_id, header.first_seq, header.events, lost, when))
    return found


def positions(vector: Mapping[WriterId, Position]) -> dict[int, Position]:
    return {int(writer): at for writer, at in vector.items()}
