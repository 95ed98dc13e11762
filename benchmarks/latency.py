"""`latency`: how long a durable accept takes from its scheduled time, at shares of the saturated rate, with processing
and delivery beside on the same two cores.

Who stands against whom:

* **headwater**, at a share of its own saturated rate; beside it runs its own processing and delivery.
* **headwater alone**: the same rate with processing held. What processing costs the door is the difference.
* **C loop own share**: at the same share of *its* saturated rate. Beside it runs the equal burden.
* **C loop same rate**: at Headwater's rate, beside the equal burden.
* **C loop alone**: at Headwater's rate, nothing beside.

The *equal burden* is the processor and the deliverer of another Headwater node that works off a backlog. They are
stopped and continued (every 10 ms) so that they use as much CPU per second as Headwater's own did at that load; same
niceness, same kind of work on memory and disk. The saturated rates are measured first, closed loop, in the same
arrangement (Headwater beside its own processing, the C loop beside an unthrottled burden). Nothing is pinned but the
generator: whoever operates a node does not pin either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine, openloop
from benchmarks.harness import Options, Result, Watch, median
from benchmarks.openloop import Told
from benchmarks.servers import LOAD_CORE, SERVER_CORE, CLoop, HeadwaterServer, Server, Unavailable
from benchmarks.workloads import DATA, PORT

BOTH_CORES = f"{SERVER_CORE},{LOAD_CORE}"
BEHIND = ("process", "deliver")
BESIDE_PORT = PORT + 40
THROTTLE_S = 0.01
BACKLOG_MORE = 1.6
"""The backlog is larger than what the burden should need by this, since a batch's events cost less to process."""
SATURATING_ROUNDS_MAX = 3


class Burden:
    """A node that works off a backlog, as fast as it is told to."""

    def __init__(self) -> None:
        self.node = HeadwaterServer(ack="disk", port=BESIDE_PORT, folder=DATA / "beside", destination=True)
        self.node.cores = BOTH_CORES

    def start(self, events: int) -> None:
        """Runs, held, with so many events in its raw log."""
        self.node.start()
        self.node.pause()
        if openloop.fill(BESIDE_PORT, events // 100 + 1) < events:
            raise RuntimeError("the backlog of the burden could not be made in time")

    def stop(self) -> None:
        self.node.stop()

    def cpu_s(self) -> float:
        """What processor and deliverer have used."""
        return sum(p.cpu_s for pid in self.pids if (p := machine.read_process(pid)))

    def run(self, cpu_per_s: float | None, stop: threading.Event) -> None:
        """Until `stop`: let them use so much per second (None: whatever they get), then hold them."""
        self.pids = list(self.node.paused)
        begin, before, running = time.monotonic(), self.cpu_s(), False
        while not stop.wait(THROTTLE_S):
            due = cpu_per_s is None or self.cpu_s() - before < cpu_per_s * (time.monotonic() - begin)
            if due and not running:
                self.node.go_on()
            elif not due and running:
                self.node.pause()
            running = due
        if running:
            self.node.pause()
        self.used = (self.cpu_s() - before) / (time.monotonic() - begin)


@dataclass(slots=True)
class Seen:
    """One slice."""

    told: Told
    server_cpu: float  # CPU seconds per second of what answers
    behind_cpu: float  # … of what processes and delivers beside
    disturbed: bool
    said: str


@dataclass(slots=True)
class Contender:
    """A line of the table at each load."""

    name: str
    beside: str
    make: Callable[[], Server]
    burden: bool = False
    own_share: bool = False  # of the C loop's saturated rate, not of Headwater's
    seen: dict[int, list[Seen]] = field(default_factory=dict)


def headwater() -> HeadwaterServer:
    server = HeadwaterServer(ack="disk", port=PORT, folder=DATA / "latency", destination=True)
    server.cores = BOTH_CORES
    return server


def headwater_alone() -> HeadwaterServer:
    server = HeadwaterServer(ack="disk", port=PORT, folder=DATA / "latency")
    server.cores = BOTH_CORES
    return server


def c_loop() -> CLoop:
    server = CLoop(ack="disk", port=PORT + 20, folder=DATA / "latency-c")
    server.cores = BOTH_CORES
    return server


def contenders() -> list[Contender]:
    return [
        Contender("headwater", "its own processing", headwater),
        Contender("headwater alone", "nothing", headwater_alone),
        Contender("C loop own share", "equal burden", c_loop, burden=True, own_share=True),
        Contender("C loop same rate", "equal burden", c_loop, burden=True),
        Contender("C loop alone", "nothing", c_loop),
    ]


def one_slice(make: Callable[[], Server], rate: float, burden_cpu: float | None, options: Options) -> Seen:
    """A fresh server, the warm-up, the load at `rate` (0: closed loop). `burden_cpu`: CPU per second that a burden
    takes beside, inf for all that it gets, None for no burden."""
    server, burden = make(), Burden() if burden_cpu is not None else None
    warm_up_s = max(1.0, options.warm_up_s)
    try:
        if burden is not None:
            seconds, share = warm_up_s + options.seconds, min(burden_cpu or 0.0, 1.2)
            burden.start(int(seconds * share / 20e-6 * BACKLOG_MORE) + 20_000)
        server.start()
        stop = threading.Event()
        limit = None if burden_cpu == float("inf") else burden_cpu
        beside = threading.Thread(target=burden.run, args=(limit, stop)) if burden else None
        if beside:
            beside.start()
        watch = Watch(server, *([burden.node] if burden else []))
        try:
            told = openloop.run(
                server.port,
                warm_up_s,
                options.seconds,
                rate=rate,
                connections=options.connections or 64,
                interval_s=0.5,
            )
        finally:
            stop.set()
            if beside:
                beside.join()
        used, wall, disturbed = watch.stop()
    finally:
        server.stop()
        if burden:
            burden.stop()
    answering = sum(s for role, s in used.cpu_s.items() if role in server.accept_roles())
    behind = sum(s for role, s in used.cpu_s.items() if role in BEHIND)
    failed = told.refused + told.broken
    said = [disturbed] if disturbed else []
    said += [f"{failed:,} of {told.done + failed:,} requests failed: {told.status}"] if failed else []
    return Seen(
        told, answering / wall, burden.used if burden else behind / wall, bool(disturbed), "; ".join(said)
    )


def autogroup() -> str:
    """Whether the kernel weighs sessions before it weighs processes."""
    try:
        return Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip()
    except FileNotFoundError:
        return "absent"


def saturated(make: Callable[[], Server], burden: bool, options: Options) -> float:
    """Requests per second, closed loop."""
    seen = one_slice(make, 0.0, float("inf") if burden else None, options)
    return seen.told.rate


def latency(options: Options) -> Result:
    result = Result(
        "latency",
        [
            "load",
            "server",
            "beside",
            "requests/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "server CPU",
            "beside CPU",
            "generator CPU",
            "late p99 ms",
            "failed",
        ],
    )
    try:
        headwater().prepare()
        c_loop().prepare()
        openloop.build()
    except Unavailable as e:
        result.notes.append(f"not measured: {e}")
        return result
    rates: dict[bool, list[float]] = {False: [], True: []}
    for round_number in range(min(options.rounds, SATURATING_ROUNDS_MAX)):
        order = (False, True) if round_number % 2 == 0 else (True, False)
        for own in order:
            rates[own].append(saturated(c_loop if own else headwater, own, options))
            name = "C loop" if own else "headwater"
            print(f"  latency saturated {name:10} {rates[own][-1]:10,.0f} requests/s", flush=True)
    full = {own: median(each) for own, each in rates.items()}
    everyone = [
        c for c in contenders() if not options.only or c.name in options.only or c.name == "headwater"
    ]
    own_processing: dict[int, list[float]] = {}
    for round_number in range(options.rounds):
        for load in options.loads:
            order_of = everyone if round_number % 2 == 0 else list(reversed(everyone))
            for c in order_of:
                burden = median(own_processing[load]) if c.burden else None
                seen = one_slice(c.make, full[c.own_share] * load / 100, burden, options)
                c.seen.setdefault(load, []).append(seen)
                if c.name == "headwater":
                    own_processing.setdefault(load, []).append(seen.behind_cpu)
                t = seen.told
                print(
                    f"  latency round {round_number + 1} {load} % {c.name:18} {t.rate:8,.0f}/s"
                    f" p50 {t.took.quantile_ms(0.5):7.2f} p99 {t.took.quantile_ms(0.99):7.2f} ms"
                    + (f"  [{seen.said}]" if seen.said else ""),
                    flush=True,
                )
    tabulate(result, everyone, options)
    result.notes += [
        f"Saturated, closed loop: headwater {full[False]:,.0f}/s with its own processing beside, C loop"
        f" {full[True]:,.0f}/s with an unthrottled burden beside. Medians over {options.rounds} rounds;"
        " max is the largest of all.",
        "Open loop: Poisson arrivals, latency from the scheduled time to the answer's last byte, waiting for one of"
        f" {options.connections or 64} connections counted. Two cores for everything; the generator has precedence on"
        f" core {LOAD_CORE} and takes what `generator CPU` says. CPU columns: of a core.",
        f"kernel.sched_autogroup_enabled = {autogroup()}: with 1, niceness counts within Headwater's own processes but"
        " not between the C loop and its burden; with 0 both are weighed alike.",
        "`late p99`: how long after its time the generator sent a request although a connection was free.",
    ]
    return result


def tabulate(result: Result, everyone: list[Contender], options: Options) -> None:
    """Rows, ratios as notes, everything measured."""
    p99: dict[tuple[int, str], float] = {}
    for load in options.loads:
        for c in everyone:
            each = c.seen.get(load, [])
            if not each:
                continue

            def mid(get: Callable[[Seen], float], each: list[Seen] = each) -> float:
                return median([get(s) for s in each])

            quantiles = [
                round(mid(lambda s, q=q: s.told.took.quantile_ms(q)), 2)  # type: ignore[misc]
                for q in (0.5, 0.9, 0.99, 0.999)
            ]
            p99[load, c.name] = quantiles[2]
            result.rows.append(
                [
                    f"{load} %",
                    c.name,
                    c.beside,
                    round(mid(lambda s: s.told.rate)),
                    *quantiles,
                    round(max(s.told.took.quantile_ms(1.0) for s in each), 1),
                    round(mid(lambda s: s.server_cpu), 2),
                    round(mid(lambda s: s.behind_cpu), 2),
                    round(mid(lambda s: s.told.cpu_s / s.told.seconds), 2),
                    round(mid(lambda s: s.told.late.quantile_ms(0.99)), 2),
                    sum(s.told.refused + s.told.broken for s in each),
                ]
            )
            for number, s in enumerate(each):
                result.slices.append(
                    {
                        "load": load,
                        "server": c.name,
                        "round": number,
                        "server_cpu": s.server_cpu,
                        "beside_cpu": s.behind_cpu,
                        "said": s.said,
                        "disturbed": s.disturbed,
                        **s.told.values(),
                    }
                )
    result.disturbed = sum(bool(s["disturbed"]) for s in result.slices)
    for load in options.loads:
        own = p99.get((load, "headwater"))
        said = [
            f"{own / p99[load, name]:.2f} × {words}"
            for name, words in (
                ("C loop own share", "the C loop's at its own share, equal burden beside"),
                ("C loop same rate", "at the same rate, equal burden"),
                ("C loop alone", "at the same rate, nothing beside"),
            )
            if own and p99.get((load, name))
        ]
        if said:
            result.notes.append(f"p99 of headwater at {load} %: " + "; ".join(said) + ".")


WORKLOADS = {"latency": ("durable accept from scheduled send time at shares of the saturated rate", latency)}
