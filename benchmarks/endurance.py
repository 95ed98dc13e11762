"""`outage` and `overload`: what the door feels, and what memory does, while a node cannot do what it should.

* `outage`: events arrive at a steady rate. After a while the destination is away: its process is killed and another
  program (this one) holds the lock of its file, so that it cannot be opened. After `--minutes` the lock is let go, and
  the backlog must drain while events go on arriving.
* `overload`: singles arrive as fast as the node answers, for `--minutes`. That is more than it can process, so
  raw fills up to its quota and the rest is refused with 503; then the backlog drains.

Every second the memory of each process is noted: all of it in the JSON and in `.cache/bench/NAME-memory.csv`, in
short in the table.
"""

from __future__ import annotations

import csv
import fcntl
import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import openloop
from benchmarks.harness import Options, Result
from benchmarks.openloop import Generator, Told
from benchmarks.servers import CACHE, HeadwaterServer, Unavailable, data_bytes_max
from benchmarks.workloads import DATA, PORT, settle

EVENT_BYTES = 1_700
"""Of raw log, for one single event with its stamp and its share of head and padding."""
READY_AND_WAREHOUSE = 1.0
"""What ready log, state and warehouse take beside raw, as a share of it."""
RAW_SHARE, READY_SHARE = 0.70, 0.15
BEFORE_S, AFTER_S = 20.0, 10.0
CAUGHT_UP_S = 2.0
"""So many seconds of arrivals may still be on the way when it has caught up."""
DRAIN_S_MAX = 1800.0
OVERLOAD_BYTES = 3 << 30


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory of one process at one moment."""

    at_s: float
    phase: str
    role: str
    pid: int
    rss_mb: float


@dataclass(slots=True)
class Sampler:
    """Reads the memory of every process of a node once a second, in a thread."""

    server: HeadwaterServer
    interval_s: float = 1.0
    phase: str = "before"
    begun: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    phases: list[tuple[str, float]] = field(default_factory=list)  # and when each began
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.begun = time.monotonic()
        self.enter(self.phase)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def enter(self, phase: str) -> None:
        """From now on."""
        self.phase = phase
        self.phases.append((phase, self.at_s()))

    def at_s(self) -> float:
        return time.monotonic() - self.begun

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        while not self.stopping.wait(self.interval_s):
            at, phase = self.at_s(), self.phase
            for pid, p in self.server.tree().items():
                if p.rss_mb:
                    self.samples.append(Sample(at, phase, self.server.role(p.command), pid, p.rss_mb))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(("seconds", "phase", "role", "pid", "rss_mb"))
            out.writerows((f"{s.at_s:.1f}", s.phase, s.role, s.pid, f"{s.rss_mb:.1f}") for s in self.samples)

    def rows(self) -> list[list[object]]:
        """By phase and role: least, most, and the slope of a straight line through its second half, MB per hour."""
        rows: list[list[object]] = []
        for phase in dict.fromkeys(phase for phase, _ in self.phases):
            for role in sorted({s.role for s in self.samples if s.phase == phase}):
                points = [(s.at_s, s.rss_mb) for s in self.samples if s.phase == phase and s.role == role]
                late = points[len(points) // 2 :]
                slope = slope_per_s(late)
                rows.append(
                    [
                        phase,
                        role,
                        round(min(mb for _, mb in points), 1),
                        round(max(mb for _, mb in points), 1),
                        None if slope is None else round(slope * 3600, 1),
                    ]
                )
        return rows


def slope_per_s(points: Sequence[tuple[float, float]]) -> float | None:
    """Of the straight line nearest to the points; None where there are too few to tell."""
    if len(points) < 10:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else None


class Lock:
    """The lock that DuckDB puts on its file, held by this program: nobody else can open it."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, -1

    def take(self, within_s: float = 10.0) -> None:
        self.file = os.open(self.path, os.O_RDWR)
        end = time.monotonic() + within_s
        while True:
            try:
                return fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError(f"the lock of {self.path} could not be had") from None
                time.sleep(0.001)

    def release(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def node(name: str) -> HeadwaterServer:
    return HeadwaterServer(ack="disk", port=PORT, folder=DATA / name, destination=True)


def room_for(server: HeadwaterServer, wanted_bytes: int) -> int:
    """Size of a data folder that holds so much raw log; Unavailable, with the numbers, where the disk is too small."""
    size = int(wanted_bytes / RAW_SHARE * 1.1) + (1 << 30)
    server.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(server.folder).free
    needed = int(wanted_bytes * (1 + READY_AND_WAREHOUSE)) + (2 << 30)
    if needed > free:
        raise Unavailable(
            f"needs about {needed / 1e9:.0f} GB of free disk, {free / 1e9:.0f} GB are there:"
            " fewer --minutes, or a smaller --rate"
        )
    return max(size, data_bytes_max(server.folder))


def kill_deliverer(server: HeadwaterServer, lock: Lock) -> None:
    """The destination is away from here on."""
    for pid, p in server.tree().items():
        if server.role(p.command) == "deliver":
            os.kill(pid, signal.SIGKILL)
    lock.take()


def accepted_events(server: HeadwaterServer) -> int:
    """As the collect worker last said; all of a run are different. It must be the worker of the first start."""
    return int(server.report("collect-0").get("detail", {}).get("next_seq", 0))


def backlog(server: HeadwaterServer, rows_before: int = 0) -> int:
    """Events accepted that are no rows yet. `rows_before`: at least so many are, which a deliverer that cannot open its
    destination does not know."""
    return accepted_events(server) - max(rows_before, server.delivered_rows())


def wait_until(what: str, done: Callable[[], bool], seconds_max: float) -> float:
    """Seconds waited."""
    begin = time.monotonic()
    while not done():
        if time.monotonic() - begin > seconds_max:
            raise RuntimeError(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - begin


def finish(result: Result, sampler: Sampler, server: HeadwaterServer, events: int) -> None:
    """Rows must be what was accepted; memory goes into the result."""
    waited = settle(server, events)
    path = CACHE / f"{result.workload}-memory.csv"
    sampler.write(path)
    result.notes.append(
        f"{events:,} events accepted, as many rows {waited:.1f} s after the last look. Memory, MB, every second:"
        f" {path}. Slope: MB per hour of the second half of a phase; of short phases it says little."
    )
    result.slices.append(
        {
            "phases": sampler.phases,
            "memory": [[s.at_s, s.phase, s.role, s.pid, s.rss_mb] for s in sampler.samples],
        }
    )


def outage(options: Options) -> Result:
    """Destination away, then back: memory, the door, and how quickly it catches up."""
    result = Result("outage", ["phase", "what", "least", "most", "slope/h"])
    server, lock = node("outage"), Lock(DATA / "outage" / "data" / "warehouse.duckdb")
    away_s = options.minutes * 60
    before_s = min(BEFORE_S, max(5.0, away_s / 2))
    try:
        server.prepare()
        openloop.build()
        server.data_bytes_max = room_for(server, int((away_s * 1.3 + before_s) * options.rate * EVENT_BYTES))
    except Unavailable as e:
        result.notes.append(f"not measured: {e}")
        return result
    server.start()
    sampler = Sampler(server)
    generator: Generator | None = None
    try:
        generator = Generator(server.port, seconds=86_400, rate=options.rate)
        sampler.start()
        time.sleep(before_s)
        sampler.enter("destination away")
        rows_before = server.delivered_rows()
        kill_deliverer(server, lock)
        time.sleep(away_s)
        behind = backlog(server, rows_before)
        lock.release()
        sampler.enter("catching up")
        caught_s = wait_until(
            "catching up", lambda: backlog(server, rows_before) <= CAUGHT_UP_S * options.rate, DRAIN_S_MAX
        )
        sampler.enter("after")
        time.sleep(AFTER_S)
        ended_s = sampler.at_s()
        lines = generator.end()
        accepted = int(server.ledger()["accepted"])
        sampler.stop()
        finish(result, sampler, server, accepted)
    finally:
        lock.release()
        sampler.stop()
        if generator:
            generator.stop()
        server.stop()
    result.rows += sampler.rows()
    bounds = [*sampler.phases, ("", ended_s)]
    for (phase, begin), (_, end) in itertools.pairwise(bounds):
        # a second of warm-up, and whole intervals only
        told = openloop.stretch(lines, begin + (1.0 if begin == 0 else 0.0), end)
        result.rows.append(door(phase, told))
        result.slices.append({"phase": phase, "begin_s": begin, "end_s": end, **told.values()})
    times = 1 + behind / caught_s / options.rate
    result.notes.insert(
        0,
        f"{options.rate:,.0f} events/s arriving; destination away for {away_s:.0f} s, {behind:,} events behind when it"
        f" came back, caught up after {caught_s:.1f} s: **{times:.1f} × real time** (events that became rows meanwhile,"
        " divided by those that arrived in that time).",
    )
    result.notes.insert(
        1,
        "Memory in MB by process; `accept` in ms from the scheduled time: p50 and p99 stand under `least` and `most`.",
    )
    return result


def door(phase: str, told: Told) -> list[object]:
    """What clients felt."""
    failed = told.refused + told.broken
    what = f"accept p50, p99 ms ({told.rate:,.0f}/s{f', {failed:,} failed' if failed else ''})"
    return [phase, what, round(told.took.quantile_ms(0.5), 2), round(told.took.quantile_ms(0.99), 2), None]


def overload(options: Options) -> Result:
    """More than can be processed, until raw is full and beyond; then nothing, until all are rows."""
    result = Result("overload", ["phase", "what", "least", "most", "slope/h"])
    server = node("overload")
    seconds = options.minutes * 60
    try:
        server.prepare()
        openloop.build()
        server.data_bytes_max = OVERLOAD_BYTES
        room_for(server, OVERLOAD_BYTES)
    except Unavailable as e:
        result.notes.append(f"not measured: {e}")
        return result
    server.start()
    sampler = Sampler(server, phase="overload")
    generator: Generator | None = None
    try:
        generator = Generator(server.port, seconds=seconds)
        sampler.start()
        lines = generator.wait()
        behind = backlog(server)
        sampler.enter("draining")
        drained_s = wait_until("draining", lambda: backlog(server) == 0, DRAIN_S_MAX)
        accepted = int(server.ledger()["accepted"])
        sampler.stop()
        finish(result, sampler, server, accepted)
    finally:
        sampler.stop()
        if generator:
            generator.stop()
        server.stop()
    result.rows += sampler.rows()
    told = openloop.stretch(lines, 1.0)
    result.rows.append(door("overload", told))
    result.slices.append({"phase": "overload", **told.values()})
    result.notes.insert(
        0,
        f"Closed loop for {seconds:.0f} s with {server.data_bytes_max / 1e9:.1f} GB of data folder:"
        f" {told.done:,} accepted, {told.refused:,} refused ({told.status}), {behind:,} behind at the end, drained in"
        f" {drained_s:.1f} s. Refused clients come again after 20 ms, though Retry-After asks for more.",
    )
    return result


WORKLOADS = {
    "outage": (
        "the destination away for --minutes at --rate, then back: memory, accept, catching up",
        outage,
    ),
    "overload": ("more than can be processed for --minutes, raw at its quota: memory, refusals", overload),
}
