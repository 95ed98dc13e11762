import asyncio

from headwater.event.position import WriterId
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
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
