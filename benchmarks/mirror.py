"""The direct lane: what a home and an owner spend on an event that travels (`python -m benchmarks.mirror`).

Two parts, on one machine: *blank*, a block for a third of the partitions, in blocks of 16 and of 600 events; and
*stream*, one home that sends its log to three owners, each a third, over TCP connections on loopback, home and owners
in processes of their own. Single events of 1 KiB. Times of the processor are per event and of each side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from typing import Any

from headwater.event.position import EMPTY, WriterId
from headwater.event.record import SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.lane.blank import blank, unwanted
from headwater.lane.home import Home, RawLog
from headwater.lane.mirror import Mirrors, Place
from headwater.lane.wire import Moment
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.peer.connection import Connection, dial, listen
from headwater.peer.identity import Identity

PARTITIONS, OWNERS = 64, 3
BODY = b'{"type":"track","event":"Order Completed","pad":"' + b"x" * 970 + b'"}'
HOME = 0xFEDC_BA98_7654_0000
SECRET = Secret(7)


def payload(events: int, first: int, heads: int = 8) -> bytes:
    """A block's payload of single events, each visitor in another slot, with some different heads."""
    stamps = [
        STAMP.pack(n, bytes(16), len(BODY), n % heads, 1, 0, (n * 2_654_435_761 >> 7) % 4096, SINGLE, 0)
        for n in range(first, first + events)
    ]
    texts = [
        encode_head(Head("web", "native", "POST", "/", headers={"user-agent": f"{n}" * 100}))
        for n in range(heads)
    ]
    return encode_payload(stamps, [BODY] * events, texts, [], {"web": (events, first + events)}, events)


def blank_us(events: int, rounds: int) -> float:
    """Microseconds per event of the block, for one owner."""
    table = unwanted(range(0, PARTITIONS, OWNERS), PARTITIONS)
    view = memoryview(payload(events, 0))
    blank(view, table)
    begin = time.process_time()
    for _ in range(rounds):
        blank(view, table)
    return (time.process_time() - begin) * 1e6 / rounds / events


def identity(node: int) -> Identity:
    return Identity(node=f"{node:016x}", incarnation=1, folder="x", cluster="bench", secret=b"s" * 16)


def moment() -> Moment:
    boot_ns = SystemClock().boot_ns()
    return Moment(1, boot_ns, boot_ns)


def failed(owner: str, name: str, error: BaseException) -> None:
    raise error


def serve_home(path: str, said: Any) -> None:
    """The home's process: says its address, then what it has spent whenever it is asked."""

    async def run() -> None:
        home = Home(RawLog(SystemDisk(), f"{path}/raw", SECRET, PARTITIONS), moment, SystemClock(), failed)

        async def serve(connection: Connection) -> None:
            frame = await connection.receive()
            assert frame is not None
            await home.serve(connection, frame)

        listener = await listen("tcp://127.0.0.1:0", identity(HOME), serve)
        said.send(listener.address)
        while await asyncio.to_thread(said.recv):
            said.send(time.process_time())

    asyncio.run(run())


def own(path: str, number: int, address: str, events: int, said: Any) -> None:
    """An owner's process: mirrors a third of the log, and says what it spent."""

    async def run() -> None:
        me = identity((number + 1) << 16)

        async def reach(node: str) -> Connection:
            return await dial(address, me, node=node)

        place = Place(SystemDisk(), f"{path}/mirror-{number}", SECRET, SystemClock())
        loop = asyncio.get_running_loop()
        mirrors = Mirrors(place, me.node, reach, lambda name, work: loop.create_task(work), 8 << 30)
        mirrors.know({f"{HOME:016x}"})
        said.recv()
        begin = time.process_time()
        await mirrors.open("main", range(number, PARTITIONS, OWNERS), EMPTY)
        while sum(at.seq for home in mirrors.homes("main").values() for at in home.at.values()) < events:
            await SystemClock().sleep(0.005)
        said.send(time.process_time() - begin)

    asyncio.run(run())


def written(path: str, events: int, block_events: int) -> None:
    """The home's raw log."""
    disk = SystemDisk()
    disk.mkdir(f"{path}/raw")
    log = BlockWriter(
        disk, SystemClock(), f"{path}/raw/{HOME:016x}", WriterId(HOME), 1, secret=SECRET, start=1, offset_ns=0,
        segment_bytes=64 << 20, submit=inline,
    )  # fmt: skip
    disk.sync = lambda file: None  # type: ignore[method-assign] - not what is measured
    for first in range(0, events, block_events):
        log.write(payload(block_events, first), records=block_events, events=block_events)
    log.close()


def stream(events: int, block_events: int) -> dict[str, float]:
    """Home to three owners at once."""
    path = tempfile.mkdtemp(prefix="headwater-lane-", dir=os.environ.get("TMPDIR", "/tmp"))
    try:
        written(path, events, block_events)
        home, there = multiprocessing.Pipe()
        processes = [multiprocessing.Process(target=serve_home, args=(path, there))]
        processes[0].start()
        address = home.recv()
        owners = []
        for number in range(OWNERS):
            here, end = multiprocessing.Pipe()
            processes.append(multiprocessing.Process(target=own, args=(path, number, address, events, end)))
            processes[-1].start()
            owners.append(here)
        time.sleep(1.0)
        home.send(True)
        before, begin = home.recv(), time.perf_counter()
        for one in owners:
            one.send(True)
        spent = [one.recv() for one in owners]
        took = time.perf_counter() - begin
        home.send(True)
        cpu = home.recv() - before
        for process in processes:
            process.kill()
            process.join()
        return {
            "block_events": block_events,
            "events_per_s": round(events / took),
            "home_us_per_event": round(cpu * 1e6 / events, 2),
            "owners_us_per_event": round(sum(spent) * 1e6 / events, 2),
        }
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    events = parser.parse_args().events
    result = {
        "blank_us_per_event": {str(n): round(blank_us(n, 40_000 // n), 3) for n in (16, 600)},
        "stream": [stream(events // n * n, n) for n in (16, 600)],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
