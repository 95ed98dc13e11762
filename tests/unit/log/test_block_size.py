"""INV-LOG-1: what is acknowledged can be read again, whatever the bytes of a block are made of."""

import asyncio

from headwater.event.position import WriterId
from headwater.event.record import Head, encode_head
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log.block import Secret
from headwater.log.group import GroupCommit
from headwater.log.read import LogReader
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)


def test_inv_log_1_many_refused_events_do_not_make_a_block_that_nobody_reads() -> None:
    disk = SimDisk()
    released: list[object] = []

    async def accept() -> None:
        blocks = BlockWriter(
            disk.process("collector"), SimClock(Time()), "/raw/1", WriterId(1), 7,
            start=1, offset_ns=0, segment_bytes=32 << 20, submit=inline, secret=SECRET,
        )  # fmt: skip
        group: GroupCommit[int] = GroupCommit(
            blocks, asyncio.get_running_loop(), lambda waiters, error: released.extend([error] * len(waiters)),
            pending_bytes_max=1 << 30, submit=inline,
        )  # fmt: skip
        head = encode_head(Head("web", "segment", "POST", "/v1/batch"))
        body = b'{"batch":[' + b"0," * 4000 + b'{"type":"track"}]}'
        for number in range(500):
            group.append(
                1, bytes(16), body, head, stream="web", events=4001, refused=range(4000), waiter=number
            )
        await group.close()

    asyncio.run(accept())
    assert released == [None] * 500
    reader = LogReader(disk.process("processor"), "/raw/1", WriterId(1), secret=SECRET)
    reader.fill(1 << 30)
    blocks = reader.take((9, 1 << 62))
    assert all(block.payload is not None for block in blocks)
    assert sum(block.header.events for block in blocks) == 500 * 4001
