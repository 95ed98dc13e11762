from collections.abc import Iterator
from unittest import mock

import pytest

from headwater.event.commit import Commit
from headwater.event.position import Vector, WriterId
from headwater.kit.errors import Busy
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import ready
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)

FOLDER = "/ready/0"


@pytest.fixture(autouse=True)
def small_parts() -> Iterator[None]:
    with mock.patch.object(ready, "PART_BYTES", 4096 - 64):
        yield


def blocks(disk: SimDisk, allowed: list[bool]) -> BlockWriter:
    return BlockWriter(
        disk.process("processor"),
        SimClock(Time()),
        FOLDER,
        WriterId(0),
        7,
        start=1,
        offset_ns=0,
        segment_bytes=4 * 4096,
        submit=inline,
        allowed=lambda: allowed[0],
        secret=SECRET,
    )


def entry(size: int) -> Commit:
    return Commit((0,), Vector(), Vector(clock=size), 1, 0, {}, {"facts": memoryview(bytes(size))})


def test_a_commit_that_met_a_full_log_halfway_is_read_once_after_it_was_tried_again() -> None:
    disk, allowed = SimDisk(), [True]
    writer = ReadyWriter(blocks(disk, allowed))
    writer.append(entry(10))
    writer.append(entry(10))
    writer.append(entry(10))  # one block is left in the segment, and the next one is not allowed any more
    writer.blocks.segments.prepared.clear()
    allowed[0] = False
    large = entry(6000)
    for _ in range(3):  # tried again and again, it takes no more room than its blocks
        with pytest.raises(Busy):
            writer.append(large)
    assert (bool(writer.halfway), writer.blocks.next_seq) == (True, 4)
    allowed[0] = True
    writer.blocks.has_room(0)
    writer.append(large)
    assert (bool(writer.halfway), writer.blocks.next_seq) == (False, 5)
    reader = ReadyReader(disk.process("deliverer"), FOLDER, WriterId(0), secret=SECRET)
    assert [commit.target.clock for commit, _ in reader.read(1 << 20)] == [10, 10, 10, 6000]


def test_a_spare_is_recycled_at_the_quota_and_room_is_made_whenever_the_door_wants_it() -> None:
    disk, allowed = SimDisk(), [True]
    writer = ReadyWriter(blocks(disk, allowed))
    writer.append(entry(10))  # the first segment is in use, and the next one is made
    mine, segments = writer.blocks.disk, writer.blocks.segments
    mine.rename(f"{FOLDER}/next.seg", f"{FOLDER}/spare-0000000000000001.seg")
    segments.prepared.clear()
    allowed[0] = False
    assert writer.blocks.has_room(4 * 4096)  # though more than half of the first is left
    mine.rename(f"{FOLDER}/next.seg", f"{FOLDER}/next.gone")
    segments.prepared.clear()
    assert not writer.blocks.has_room(4 * 4096) and "quota" in segments.trouble
