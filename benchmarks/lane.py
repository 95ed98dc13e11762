"""`direct-lane`: two processes on loopback, one connection of headwater.peer, 1 KB events in opaque batches, acked.

The sender takes events one by one, batches them as the lane does (512 events, 256 KiB or 5 ms), spends credit and
waits for acknowledgements; the receiver checks numbers and hash of each batch, acknowledges it, grants credit
again, and keeps nothing. `saturated` sends as fast as credit allows; `paced` sends 20,000 events/s at times fixed
beforehand, and an event's latency is from its time to the acknowledgement of its batch. The reference moves the
same batches with plain blocking sockets and threads: no frames, no credit, no hash; what loopback and Python's
`send` cost anybody.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque

import uvloop
import xxhash

from benchmarks import harness, machine
from benchmarks.harness import Options, Result, median
from benchmarks.servers import LOAD_CORE, ROOT, SERVER_CORE
from headwater.peer import connection
from headwater.peer.batch import WAIT_S, Batch, pack
from headwater.peer.connection import Connection, Identity, Kind
from headwater.peer.credit import Granting, Spending

EVENT_BYTES = 1024
DIFFERENT_EVENTS = 4096
PACED_RATE = 20_000
SECRET = b"a secret of the benchmark"
ACK_BYTES = 8
WINDOW_BYTES = 16 * 1024 * 1024


def direct_lane(options: Options) -> Result:
    """Events/s, latency and CPU of both sides, in interleaved rounds with plain sockets."""
    result = Result(
        "direct-lane", ["what", "events/s", "p50 ms", "p99 ms", "sender µs/event", "receiver µs/event"]
    )
    kinds = ("plain sockets", "saturated", "paced")
    told: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for round_number, kind in harness.interleave(kinds, options.rounds):
        slice_told, disturbed = slice_of(kind, options.seconds)
        told[kind].append(slice_told)
        result.disturbed += bool(disturbed)
        result.slices.append({"kind": kind, "round": round_number, "disturbed": disturbed, **slice_told})
    for kind in kinds:
        numbers = {name: median([one[name] for one in told[kind]]) for name in told[kind][0]}
        result.rows.append(
            [
                kind,
                round(numbers["rate"]),
                round(numbers["p50_ms"], 2),
                round(numbers["p99_ms"], 2),
                round(numbers["sender_us"], 2),
                round(numbers["receiver_us"], 2),
            ]
        )
    result.notes += [
        f"{EVENT_BYTES} B events, {DIFFERENT_EVENTS} different random ones; one connection on loopback, receiver on"
        f" core {SERVER_CORE}, sender on core {LOAD_CORE}; every batch acknowledged, numbers and hashes checked.",
        f"paced: {PACED_RATE:,} events/s, latency from an event's scheduled time to the acknowledgement of its batch;"
        " saturated: from the batch's handing over.",
        "Nothing is kept at either end: this is the connection, not the lane's logs.",
    ]
    return result


def slice_of(kind: str, seconds: float) -> tuple[dict[str, float], str]:
    """One slice in two fresh processes."""
    busy, stolen = machine.machine_cpu_s()
    began = time.monotonic()
    receiver = start("receive", kind, SERVER_CORE)
    assert receiver.stdout is not None
    address = receiver.stdout.readline().strip()
    sender = start("send", kind, LOAD_CORE, address, str(seconds))
    sent = json.loads(sender.communicate(timeout=seconds + 60)[0])
    received = json.loads(receiver.communicate(timeout=60)[0])
    if sent["events"] != received["events"]:
        raise RuntimeError(f"{sent['events']} events were sent, {received['events']} received")
    wall = time.monotonic() - began
    now_busy, now_stolen = machine.machine_cpu_s()
    own = sent["cpu_s"] + received["cpu_s"] + sent["start_cpu_s"] + received["start_cpu_s"]
    told = {
        "rate": sent["events"] / sent["seconds"],
        "p50_ms": sent["p50_ms"],
        "p99_ms": sent["p99_ms"],
        "sender_us": sent["cpu_s"] / sent["events"] * 1e6,
        "receiver_us": received["cpu_s"] / received["events"] * 1e6,
    }
    return told, harness.disturbance(now_busy - busy - own, now_stolen - stolen, wall)


def start(side: str, kind: str, core: int, *more: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.lane", side, kind, *more]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


# -- the two processes -------------------------------------------------------------------------------------------------


def identity(node: str) -> Identity:
    return Identity(node=node, incarnation=1, folder=node, cluster="bench", secret=SECRET)


async def receive() -> dict[str, float]:
    """Takes one connection and says what came."""
    counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    cpu: list[float] = []

    async def serve(peer: Connection) -> None:
        cpu.append(time.process_time())
        granting, expected = Granting(bytes_window=WINDOW_BYTES), 0
        while (frame := await peer.receive()) is not None:
            header, body = frame.header, frame.body
            events = header["events"]
            if header["first"] != expected or xxhash.xxh3_64_intdigest(body) != header["hash"]:
                raise RuntimeError(f"batch {header} came where {expected} was expected, or is damaged")
            expected += events
            granting.receive(events, len(body))
            await peer.send(Kind.ACK, {"to": expected})
            if (totals := granting.finish(events, len(body))) is not None:
                await peer.send(Kind.CREDIT, {"events": totals.events, "bytes": totals.size_bytes})
        counted.set_result(expected)

    listener = await connection.listen("127.0.0.1:0", identity("a" * 16), serve)
    print(listener.address, flush=True)
    events = await counted
    used = time.process_time() - cpu[0]
    await listener.close()
    return {"events": events, "cpu_s": used, "start_cpu_s": cpu[0]}


class Sender:
    """Batches, spends credit, remembers when what was handed over."""

    def __init__(self, peer: Connection) -> None:
        self.peer = peer
        self.batch = Batch()
        self.credit = Spending(bytes_window=WINDOW_BYTES)
        self.first = 0
        self.acked = 0
        self.under_way: deque[tuple[int, list[float]]] = deque()
        self.latencies: list[float] = []
        self.all_acked = asyncio.Event()

    async def flush(self, times: list[float]) -> None:
        """Send what waits; `times` are those from which latency is counted."""
        events = len(self.batch.events)
        body = self.batch.take()
        header = {"first": self.first, "events": events, "hash": xxhash.xxh3_64_intdigest(body)}
        self.first += events
        if not self.credit.take_now(events, len(body)):
            await self.credit.take(events, len(body))
        self.under_way.append((self.first, times))
        self.all_acked.clear()
        await self.peer.send(Kind.DATA, header, body)

    async def listen(self) -> None:
        while (frame := await self.peer.receive()) is not None:
            if frame.kind == Kind.CREDIT:
                self.credit.grant(frame.header["events"], frame.header["bytes"])
                continue
            now, self.acked = time.monotonic(), frame.header["to"]
            while self.under_way and self.under_way[0][0] <= self.acked:
                self.latencies += [now - then for then in self.under_way.popleft()[1]]
            if not self.under_way:
                self.all_acked.set()


async def send(kind: str, address: str, seconds: float) -> dict[str, float]:
    """Sends for so long, waits for the last acknowledgement."""
    pool = random_events()
    peer = await connection.dial(address, identity("b" * 16))
    sender = Sender(peer)
    listening = asyncio.get_running_loop().create_task(sender.listen())
    start_cpu, began = time.process_time(), time.monotonic()
    await (saturate if kind == "saturated" else pace)(sender, pool, began, began + seconds)
    await sender.all_acked.wait()
    wall, used = time.monotonic() - began, time.process_time() - start_cpu
    await peer.close()
    await listening
    return {"events": sender.acked, "seconds": wall, "cpu_s": used, "start_cpu_s": start_cpu} | shares(
        sender.latencies
    )


async def saturate(sender: Sender, pool: list[bytes], now: float, until: float) -> None:
    while now < until:
        for event in pool:
            if sender.batch.add(event):
                now = time.monotonic()
                await sender.flush([now])


async def pace(sender: Sender, pool: list[bytes], began: float, until: float) -> None:
    """An event's time is fixed beforehand; whoever comes late sends late and counts from then all the same."""
    number, times = 0, []
    due = began
    while due < until:
        now = time.monotonic()
        while due <= now:
            times.append(due)
            full = sender.batch.add(pool[number % len(pool)])
            number += 1
            due = began + number / PACED_RATE
            if full:
                await sender.flush(times)
                times = []
        if times and now - times[0] >= WAIT_S:
            await sender.flush(times)
            times = []
        await asyncio.sleep(0.001)
    if times:
        await sender.flush(times)


def random_events() -> list[bytes]:
    drawn = random.Random(5)
    return [drawn.randbytes(EVENT_BYTES) for _ in range(DIFFERENT_EVENTS)]


def shares(latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}


def receive_plain() -> dict[str, float]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        print(f"127.0.0.1:{door.getsockname()[1]}", flush=True)
        taken, _ = door.accept()
    start_cpu, size, events = time.process_time(), len(pack(random_events()[:256])), 0
    space = memoryview(bytearray(size))
    with taken:
        while taken.recv_into(space, size, socket.MSG_WAITALL) == size:
            events += 256
            taken.sendall(events.to_bytes(ACK_BYTES, "big"))
    return {"events": events, "cpu_s": time.process_time() - start_cpu, "start_cpu_s": start_cpu}


def send_plain(address: str, seconds: float) -> dict[str, float]:
    pool, latencies = random_events(), []
    under_way: deque[float] = deque()
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def acknowledged() -> None:
            while len(peer.recv(ACK_BYTES, socket.MSG_WAITALL)) == ACK_BYTES:
                latencies.append(time.monotonic() - under_way.popleft())

        reading = threading.Thread(target=acknowledged)
        reading.start()
        start_cpu, began, sent = time.process_time(), time.monotonic(), 0
        while time.monotonic() < began + seconds:
            for n in range(0, len(pool), 256):
                under_way.append(time.monotonic())
                peer.sendall(pack(pool[n : n + 256]))
                sent += 256
        peer.shutdown(socket.SHUT_WR)
        reading.join()
    wall, used = time.monotonic() - began, time.process_time() - start_cpu
    return {"events": sent, "seconds": wall, "cpu_s": used, "start_cpu_s": start_cpu} | shares(latencies)


def main() -> None:
    side, kind, *more = sys.argv[1:]
    if kind == "plain sockets":
        told = receive_plain() if side == "receive" else send_plain(more[0], float(more[1]))
    else:
        told = uvloop.run(receive() if side == "receive" else send(kind, more[0], float(more[1])))
    print(json.dumps(told))


WORKLOADS = {
    "direct-lane": (
        "1 KB events over one authenticated connection between two processes: acked, saturated and at 20,000/s",
        direct_lane,
    )
}

if __name__ == "__main__":
    main()
