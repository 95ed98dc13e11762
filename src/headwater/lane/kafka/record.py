"""What the nodes put into their topic: the frames of the direct lane (lane/wire), one in each Kafka record.

::

    version u8 = 1 | mac, 16 bytes | msgpack [home, session, number, begins, skip, kind, header, body]

``session`` is the home's present attempt at producing, ``number`` counts its records: a reader that misses one knows.
``begins`` says where the home's stream stood in each of its logs before this record, as far as it had sent whole
blocks: what a reader lacks below that is not coming through the topic (INV-LANE-1). The payload of a block may go on in
the next records; ``skip`` is how many bytes at the front of ``body`` belong to a block of the record before.

The mac is a keyed hash (BLAKE2b) by what all nodes of the cluster know: so nobody else's records are taken for events,
be it another cluster with the same topic. It does not hide anything.

A record has at most ``BODY_BYTES`` and the heads of ``wire.BLOCKS_MAX`` blocks, which any broker takes (1 MiB unless it
was told otherwise).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from hmac import compare_digest

import msgspec

from headwater.event.position import Position, WriterId
from headwater.kit.errors import Rejected
from headwater.lane.wire import BlockHead, Outgoing
from headwater.peer.frames import Frame, Kind, decode_map, encode_header

VERSION = b"\x01"
MAC_BYTES = 16
BODY_BYTES = 512 * 1024


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """See the module."""

    home: int
    session: int
    number: int
    begins: dict[int, Position]
    skip: int
    kind: int
    header: bytes
    body: bytes

    @property
    def frame(self) -> Frame:
        """The frame, without the bytes to skip."""
        return Frame(Kind(self.kind), decode_map(self.header), memoryview(self.body)[self.skip :])

    @property
    def whole_frame(self) -> Frame:
        """The frame, for who has the record before."""
        return Frame(Kind(self.kind), decode_map(self.header), memoryview(self.body))


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Record)


def key_of(secret: bytes, cluster: str) -> bytes:
    """What the records of a cluster are signed with."""
    return blake2b(cluster.encode(), key=blake2b(secret).digest(), person=b"headwater-kafka").digest()


def encode(record: Record, key: bytes) -> bytes:
    """The value of the Kafka record."""
    told = ENCODER.encode(record)
    return b"".join((VERSION, mac(told, key), told))


def decode(data: bytes, key: bytes) -> Record:
    """From ``encode``. Rejected: not a record of a node of this cluster."""
    told = memoryview(data)[1 + MAC_BYTES :]
    if data[:1] != VERSION or not compare_digest(mac(told, key), data[1 : 1 + MAC_BYTES]):
        raise Rejected(
            f"{len(data)} bytes that no node of this cluster has signed",
            code="lane_record",
            help="does another cluster use the topic, or a node with another cluster.secret?",
        )
    try:
        return DECODER.decode(told)
    except msgspec.DecodeError as error:
        raise Rejected(
            f"not a record of the lane: {error}",
            code="lane_record",
            help="another node runs another version of Headwater",
        ) from error


def mac(told: bytes | memoryview, key: bytes) -> bytes:
    """Of what is signed."""
    return blake2b(told, digest_size=MAC_BYTES, key=key).digest()


class Writing:
    """Makes records of the frames of one stream, in their order."""

    def __init__(self, home: int, session: int, key: bytes, begins: Mapping[WriterId, Position]) -> None:
        """``begins``: where the stream begins."""
        self.home = home
        self.session = session
        self.key = key
        self.number = 0
        self.stands: dict[int, Position] = {int(writer): at for writer, at in begins.items()}
        """Behind the blocks that were sent whole."""
        self.begun: BlockHead | None = None
        """The block of which some is still to come, and how much."""
        self.owed = 0

    def records(self, frames: Iterable[Outgoing]) -> list[bytes]:
        """Of these frames."""
        return [self.record(frame) for frame in frames]

    def record(self, frame: Outgoing) -> bytes:
        """Of the next frame."""
        begins = dict(self.stands)
        skip = min(self.owed, len(frame.body))
        self.count(frame.header.get("blocks", ()), len(frame.body))
        self.number += 1
        header = encode_header(frame.header)
        kind = int(frame.kind)
        return encode(
            Record(self.home, self.session, self.number, begins, skip, kind, header, frame.body), self.key
        )

    def count(self, blocks: Iterable[BlockHead], sent: int) -> None:
        """Where the stream stands behind a frame that begins these blocks."""
        left = sent
        for head in ((self.begun,) if self.begun is not None else ()) + tuple(blocks):
            wanted = self.owed if head is self.begun else head.bytes
            taken = min(wanted, left)
            left -= taken
            self.owed = wanted - taken
            if self.owed:
                self.begun = head
            else:
                self.begun = None
                self.stands[head.writer] = Position(head.log, head.first_seq + head.events)
