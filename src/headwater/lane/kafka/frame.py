"""What the nodes put into the topic ``raw``: pieces of one writer's log for one partition (DATA of protocol.md §6, §8).

A Kafka record's value is one frame: version u8 = 1, then msgpack
``[home, writer, [log, seq] from, [log, seq] to, [[first_seq, events, header, payload], …], cut]``. Blocks are of
the log that ``to`` names, one after the other without a gap; what header and payload hold is the lane's (here they
are bytes). ``cut`` is not empty on the last frame of a cut: its T, as the lane keeps it. A frame without blocks
says that there is nothing for the partition up to ``to``.

A block may have 4 MiB (protocol.md §2): the topic needs ``TOPIC_CONFIG``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from headwater.event.position import Position, WriterId
from headwater.kit.errors import Broken

VERSION = b"\x01"
FRAME_BYTES = 1024 * 1024
"""A frame is closed above this; one block is always taken whole."""
FRAME_BYTES_MAX = 5 * 1024 * 1024
TOPIC_CONFIG = {"max.message.bytes": str(FRAME_BYTES_MAX), "message.timestamp.type": "CreateTime"}


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One block of a log, with what does not belong to the partition left out."""

    first_seq: int
    events: int
    header: bytes
    payload: bytes


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """See the module."""

    home: int
    writer: WriterId
    begin: Position
    to: Position
    blocks: tuple[Block, ...] = ()
    cut: bytes = b""


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    return VERSION + ENCODER.encode(frame)


def decode(data: bytes) -> Frame:
    """From ``encode``. Broken: other bytes, or a frame that contradicts itself."""
    if data[:1] != VERSION:
        raise Broken(
            f"not a frame of version 1: {data[:16].hex()}",
            code="lane_frame",
            help="does something else write to this topic, or a newer Headwater?",
        )
    try:
        frame = DECODER.decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise Broken(f"not a frame: {error}", code="lane_frame") from error
    check(frame)
    return frame


def check(frame: Frame) -> None:
    """Blocks without a gap, that end where the frame says."""
    if frame.begin > frame.to:
        raise Broken(f"a frame from {frame.begin} back to {frame.to}", code="lane_frame")
    for before, after in zip(frame.blocks, frame.blocks[1:], strict=False):
        if before.first_seq + before.events != after.first_seq:
            raise Broken(
                f"a gap within a frame of writer {frame.writer:016x}: {before.first_seq} + {before.events}"
                f" is followed by {after.first_seq}",
                code="lane_frame",
            )
    if frame.blocks and (end := frame.blocks[-1].first_seq + frame.blocks[-1].events) != frame.to.seq:
        raise Broken(f"a frame of blocks up to {end} that says {frame.to.seq}", code="lane_frame")


def frames(
    home: int, writer: WriterId, begin: Position, to: Position, blocks: Sequence[Block], cut: bytes = b""
) -> Iterator[Frame]:
    """Frames of bounded size that together cover [begin, to). ``blocks`` are of the log of ``to``, without gaps.

    Where ``begin`` is in an earlier log or before the first block, the first frame says that nothing is between.
    """
    taken: list[Block] = []
    size = 0
    for block in blocks:
        one = len(block.header) + len(block.payload)
        if taken and size + one > FRAME_BYTES:
            upto = Position(to.log, block.first_seq)
            yield Frame(home, writer, begin, upto, tuple(taken))
            begin, taken, size = upto, [], 0
        taken.append(block)
        size += one
    if taken and taken[-1].first_seq + taken[-1].events < to.seq:  # nothing of this partition at the end
        upto = Position(to.log, taken[-1].first_seq + taken[-1].events)
        yield Frame(home, writer, begin, upto, tuple(taken))
        begin, taken = upto, []
    yield Frame(home, writer, begin, to, tuple(taken), cut)
