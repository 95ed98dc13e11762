import asyncio

import pytest

from headwater.event.position import Position, WriterId
from headwater.kit.errors import HeadwaterError
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import block
from headwater.log.block import BLOCK_BYTES_MAX, Secret
from headwater.log.group import GroupCommit
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)


async def test_room_that_was_refused_once_is_asked_for_again_though_more_than_half_a_segment_is_left() -> (
    None
):
    allowed = True
    blocks = BlockWriter(
        SimDisk().process("collect"), SimClock(Time()), "/raw/0", WriterId(0), 7, start=1, offset_ns=0,
        segment_bytes=2 * BLOCK_BYTES_MAX, submit=inline, allowed=lambda: allowed, secret=SECRET,
    )  # fmt: skip
    group: GroupCommit[object] = GroupCommit(
        blocks,
        asyncio.get_running_loop(),
        lambda waiters, error: None,
        pending_bytes_max=1 << 20,
        submit=inline,
    )
    assert group.full() is None
    allowed = False
    blocks.write(bytes(BLOCK_BYTES_MAX - 64), records=1, events=1)
    blocks.write(bytes(100), records=1, events=1)
    blocks.segments.prepared.clear()  # what was prepared is gone: the disk was full when the next one was made
    group.pending_bytes = 1  # so that the half that is left is too little
    trouble = group.full()
    assert trouble is not None
    assert trouble.code == "log_full"
    allowed = True
    group.full()
    assert group.full() is None


async def test_counts_of_many_streams_leave_room_in_a_block() -> None:
    """They stand in every block; a block that outgrows its maximum could not be read again."""
    written: list[int] = []

    class Counting(BlockWriter):
        def write(self, *parts: bytes | memoryview, records: int, events: int, flags: int = 0) -> Position:
            written.append(sum(map(len, parts)))
            return super().write(*parts, records=records, events=events, flags=flags)

    blocks = Counting(
        SimDisk().process("collect"), SimClock(Time()), "/raw/0", WriterId(0), 7, start=1, offset_ns=0,
        segment_bytes=4 * BLOCK_BYTES_MAX, submit=inline, secret=SECRET,
    )  # fmt: skip
    released: list[HeadwaterError | None] = []
    group: GroupCommit[object] = GroupCommit(
        blocks,
        asyncio.get_running_loop(),
        lambda waiters, error: released.extend([error] * len(waiters)),
        pending_bytes_max=1 << 24,
        submit=inline,
    )
    for number in range(3000):
        group.append(0, bytes(16), b"{}", b"", stream=f"{number:060d}", waiter=object())
    for _ in range(300):
        group.append(0, bytes(16), b"x" * 18_000, b"", stream="0" * 60, waiter=object())
    await group.close()
    assert released == [None] * 3300
    assert max(written) <= BLOCK_BYTES_MAX - 64 and len(written) == 2


def test_a_block_that_no_reader_would_take_is_not_made() -> None:
    with pytest.raises(ValueError, match="too large"):
        block.encode(
            [bytes(BLOCK_BYTES_MAX)],
            secret=SECRET,
            log_id=1,
            first_seq=0,
            events=1,
            records=1,
            node_time_ns=0,
            boot_ns=0,
        )
