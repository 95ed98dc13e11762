"""Measuring: one slice = a fresh server on core 0, wrk on core 1, CPU of the whole process tree before and after.

Rounds are interleaved (every server once per round, order reversed every other round) and medians are taken over
rounds. A slice during which others used the machine is repeated, and marked if it stays so.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import events, machine
from benchmarks.servers import CACHE, LOAD_CORE, SERVER_CORE, Server, Unavailable

LOAD = Path(__file__).resolve().parent / "load"
PAYLOADS = CACHE / "payload"
FOREIGN_CPU_MAX = 0.10  # of one core, during a slice
STOLEN_MAX = 0.02
ERRORS_MAX = 0.001  # of the requests; a server that refuses quickly is not fast


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float = 5.0
    rounds: int = 5
    warm_up_s: float = 1.0
    connections: int | None = None  # None: what the workload says
    events: int = 200_000
    slices_max: int = 3  # a disturbed slice is measured again until there were so many
    only: tuple[str, ...] = ()  # names of servers; empty: all
    loads: tuple[int, ...] = (30, 50, 70, 90)  # of `latency`, per cent of the saturated rate
    minutes: float = 10.0  # of `outage` and `overload`
    gigabytes: float = 10.0  # of raw log, of `recovery`
    rate: float = 5_000.0  # events/s arriving, of `outage` and `click-to-row-busy`


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk does, and how many events one request carries."""

    script: str
    events_per_request: int = 1
    connections: int = 64


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and memory between two readings of a tree, by role."""

    cpu_s: dict[str, float]
    rss_peak_mb: dict[str, float]  # largest single process of the role
    rss_mb: dict[str, float]

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())


def usage(
    before: dict[int, machine.Process], after: dict[int, machine.Process], role: Callable[[str], str]
) -> Usage:
    """A child that ended in between is in its parent's `reaped_s`; what it had used before is taken off again."""
    cpu: dict[str, float] = {}
    peak: dict[str, float] = {}
    rss: dict[str, float] = {}
    for pid, now in after.items():
        was = before.get(pid)
        r = role(now.command)
        cpu[r] = cpu.get(r, 0.0) + now.cpu_s - (was.cpu_s if was else 0.0)
        reaped = now.reaped_s - (was.reaped_s if was else 0.0)
        cpu["ended children"] = cpu.get("ended children", 0.0) + reaped
        peak[r] = max(peak.get(r, 0.0), now.rss_peak_mb)
        rss[r] = max(rss.get(r, 0.0), now.rss_mb)
    ended = [p for pid, p in before.items() if pid not in after]
    cpu["ended children"] = cpu.get("ended children", 0.0) - sum(p.cpu_s + p.reaped_s for p in ended)
    if abs(cpu["ended children"]) < 0.005:
        del cpu["ended children"]
    return Usage(cpu, peak, rss)


def wrk(port: int, load: Load, seconds: float, connections: int) -> dict[str, float]:
    """Runs wrk on its core and returns its numbers (see load/common.lua)."""
    key = base64.b64encode(f"{events.KEY}:".encode()).decode()
    wait = f"-c{connections} -d{max(1, round(seconds))}s"
    command = f"taskset -c {LOAD_CORE} wrk --latency -t1 {wait} -s".split()
    command += [str(LOAD / f"{load.script}.lua"), f"http://127.0.0.1:{port}", "--"]
    command += [str(PAYLOADS), secrets.token_hex(4), key]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("BENCH "):
            return dict(json.loads(line[6:]))
    raise RuntimeError(f"wrk said nothing useful: {done.stdout[-500:]}{done.stderr[-500:]}")


@dataclass(slots=True)
class Slice:
    """One measured slice of one server."""

    server: str
    round: int
    requests: int
    events: int
    seconds: float
    rate: float  # events per second
    p50_ms: float
    p99_ms: float
    tree_us: float  # CPU microseconds per event, whole tree
    accept_us: float  # the same, of the processes that answer requests
    norm_us: float  # accept_us at the speed of the calibration's best slice in this run (filled at the end)
    core_busy: float  # of the server's core: below about 0.95 the load generator was the limit, look at the CPU columns
    cpu_s: dict[str, float]
    rss_peak_mb: dict[str, float]
    calibration_ms: float
    errors: int
    disturbed: str = ""


def disturbance(busy_s: float, stolen_s: float, wall_s: float) -> str:
    """Why a slice is not to be trusted, or nothing. `busy_s`: CPU of everyone but us."""
    said = []
    if busy_s / wall_s > FOREIGN_CPU_MAX:
        said.append(f"others used {busy_s / wall_s:.0%} of a core")
    if stolen_s / wall_s > STOLEN_MAX:
        said.append(f"{stolen_s / wall_s:.0%} stolen")
    return ", ".join(said)


class Watch:
    """CPU of the machine, of this harness and its children (wrk), and of the server: what is left is foreign."""

    def __init__(self, server: Server, *others: Server) -> None:
        """`others` run beside by intention: what they use is not foreign."""
        self.server, self.others = server, others
        self.others_before = [one.tree() for one in others]
        self.before = server.tree()
        self.wall = time.monotonic()
        self.busy, self.stolen = machine.machine_cpu_s()
        self.own = self._own()

    @staticmethod
    def _own() -> float:
        t = os.times()
        return t.user + t.system + t.children_user + t.children_system

    def stop(self) -> tuple[Usage, float, str]:
        """(what the server used, wall seconds, why not to trust it)."""
        wall = time.monotonic() - self.wall
        busy, stolen = machine.machine_cpu_s()
        own = self._own() - self.own
        used = usage(self.before, self.server.tree(), self.server.role)
        known = used.total_cpu_s + sum(
            usage(before, one.tree(), one.role).total_cpu_s
            for before, one in zip(self.others_before, self.others, strict=True)
        )
        return used, wall, disturbance(busy - self.busy - own - known, stolen - self.stolen, wall)


def measure(server: Server, load: Load, options: Options, round_number: int) -> Slice:
    """Starts the server, warms it, loads it, stops it."""
    connections = options.connections or load.connections
    server.start()
    try:
        if options.warm_up_s:
            wrk(server.port, load, options.warm_up_s, connections)
        before = machine.calibrate(SERVER_CORE)
        watch = Watch(server)
        told = wrk(server.port, load, options.seconds, connections)
        used, wall, disturbed = watch.stop()
        calibration = (before + machine.calibrate(SERVER_CORE)) / 2
    finally:
        server.stop()
    requests = int(told["requests"])
    failed = int(sum(told[k] for k in ("connect", "read", "write", "status", "timeout")))
    if failed > ERRORS_MAX * requests:
        raise Unavailable(f"{failed:,} of {requests:,} requests failed ({told}): its numbers mean nothing")
    count = max(1, requests - int(told["status"])) * load.events_per_request
    seconds = told["duration_us"] / 1e6
    accept_s = sum(s for role, s in used.cpu_s.items() if role in server.accept_roles())
    return Slice(
        server=server.name,
        round=round_number,
        requests=requests,
        events=count,
        seconds=seconds,
        rate=count / seconds,
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        tree_us=used.total_cpu_s / count * 1e6,
        accept_us=accept_s / count * 1e6,
        norm_us=0.0,
        core_busy=used.total_cpu_s / wall,
        cpu_s=used.cpu_s,
        rss_peak_mb=used.rss_peak_mb,
        calibration_ms=calibration,
        errors=failed,
        disturbed=disturbed,
    )


@dataclass(slots=True)
class Result:
    """One workload: a table of rows (first one is the reference where there is one), notes, and everything measured."""

    workload: str
    columns: list[str]
    rows: list[list[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slices: list[dict[str, object]] = field(default_factory=list)
    disturbed: int = 0


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def interleave(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Every name once per round, the order reversed every other round."""
    return [(r, n) for r in range(rounds) for n in (names if r % 2 == 0 else list(reversed(names)))]


def compare(
    workload: str, makers: dict[str, Callable[[], Server]], load: Load, options: Options, reference: str
) -> Result:
    """Measures all servers in interleaved rounds and tables them with their ratio to `reference`, by CPU."""
    result = Result(
        workload,
        [
            "server",
            "promise",
            "events/s",
            "p50 ms",
            "p99 ms",
            "CPU µs/event",
            "norm µs",
            "tree µs/event",
            f"{reference} ÷ this",
            "core busy",
            "RSS peak MB",
            "errors",
        ],
    )
    usable = {}
    for name, make in makers.items():
        if options.only and name not in options.only:
            continue
        try:
            make().prepare()
            usable[name] = make
        except Unavailable as e:
            result.notes.append(f"{name}: not measured: {e}")
    measured: dict[str, list[Slice]] = {name: [] for name in usable}
    for round_number, name in interleave(list(usable), options.rounds):
        if name not in measured:
            continue
        best: Slice | None = None
        for _ in range(options.slices_max):
            try:
                s = measure(usable[name](), load, options, round_number)
            except Unavailable as e:
                result.notes.append(f"{name}: not measured: {e}")
                del measured[name]
                best = None
                break
            best = s
            if not s.disturbed:
                break
        if best:
            measured[name].append(best)
            mark = f"  [{best.disturbed}]" if best.disturbed else ""
            print(
                f"  {workload} round {round_number + 1} {name:16} {best.rate:10,.0f} events/s"
                f" {best.accept_us:7.2f} µs{mark}",
                flush=True,
            )
    slices = [s for each in measured.values() for s in each]
    fastest = min((s.calibration_ms for s in slices), default=1.0)
    for s in slices:
        s.norm_us = s.accept_us * fastest / s.calibration_ms
    base = median([s.accept_us for s in measured.get(reference, [])])
    for name, each in measured.items():
        if not each:
            continue

        def mid(get: Callable[[Slice], float], each: list[Slice] = each) -> float:
            return median([get(s) for s in each])

        cpu = mid(lambda s: s.accept_us)
        peak: dict[str, float] = {}
        for s in each:
            for role, mb in s.rss_peak_mb.items():
                peak[role] = max(peak.get(role, 0.0), mb)
        memory = ", ".join(
            f"{mb:.0f}" if len(peak) == 1 else f"{role} {mb:.0f}" for role, mb in sorted(peak.items())
        )
        server = usable[name]()
        result.rows.append(
            [
                name,
                "in memory" if server.ack == "memory" and server.promise != "nothing" else server.promise,
                round(mid(lambda s: s.rate)),
                round(mid(lambda s: s.p50_ms), 2),
                round(mid(lambda s: s.p99_ms), 2),
                round(cpu, 2),
                round(mid(lambda s: s.norm_us), 2),
                round(mid(lambda s: s.tree_us), 2),
                round(base / cpu, 2) if cpu and measured.get(reference) else None,
                round(mid(lambda s: s.core_busy), 2),
                memory,
                sum(s.errors for s in each),
            ]
        )
    for s in slices:
        result.slices.append({f: getattr(s, f) for f in Slice.__slots__})
    result.disturbed = sum(1 for s in slices if s.disturbed)
    return result


def prepare_payloads() -> dict[str, float]:
    """Writes the payload files if the generator changed since."""
    mark, source = PAYLOADS / "sizes.json", Path(events.__file__)
    if not mark.exists() or mark.stat().st_mtime < source.stat().st_mtime:
        print("writing payloads …", file=sys.stderr)
        sizes = events.write_payloads(PAYLOADS)
        mark.write_text(json.dumps(sizes))
    return dict(json.loads(mark.read_text()))
