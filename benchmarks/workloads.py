"""The named workloads. Each is a function from options to a table (harness.Result)."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import orjson

from benchmarks import events, harness, machine, openloop
from benchmarks.harness import Load, Options, Result, Watch, median
from benchmarks.servers import (
    CACHE,
    SERVER_CORE,
    CLoop,
    CLoopBuffered,
    Granian,
    HeadwaterServer,
    Nginx,
    Server,
    Unavailable,
)

PORT = 18420
DATA = CACHE / "run"
SETTLE_S_MAX = 300.0
CUT_EVENTS, WARM_UP_EVENTS = 12_000, 24_000  # about as many as process.cut_bytes_max holds
PIPELINED = 50  # requests on the way while preloading; so many single events are in a block then


# -- the door ----------------------------------------------------------------------------------------------------------


def accept(name: str, ack: str, load: Load, options: Options) -> Result:
    """headwater collect, C loop, granian, nginx, in interleaved rounds."""
    kinds: tuple[type[Server], ...] = (HeadwaterServer, CLoop, CLoopBuffered, Granian, Nginx)
    makers: dict[str, Callable[[], Server]] = {
        kind.name: partial(kind, ack=ack, port=PORT + 10 * n, folder=DATA / f"server-{n}")
        for n, kind in enumerate(kinds)
    }
    result = harness.compare(name, makers, load, options, CLoop.name)
    result.notes.append(
        "CPU µs/event: headwater's is the collect process, with supervisor and others in `tree`;"
        " zeroing of segments is in both."
        " nginx answers a constant, checks nothing and keeps nothing: a floor for HTTP, not a peer."
    )
    return result


# -- processing --------------------------------------------------------------------------------------------------------


def process_stages(name: str, options: Options, *, wide: bool) -> Result:
    """µs per event of each stage against `orjson.loads` of the same lines, alternating cut by cut on one core."""
    from benchmarks import product  # here: the other workloads need nothing of Headwater's inside

    result = Result(name, ["stage", "µs/event", "÷ orjson.loads", "events/s/core"])
    lines = list(events.lines(options.events, wide=wide))
    cuts = [lines[n : n + CUT_EVENTS] for n in range(0, len(lines), CUT_EVENTS)]
    warm_up = list(events.lines(WARM_UP_EVENTS, seed=8, wide=wide))
    spent: dict[str, list[float]] = {}
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        for round_number in range(options.rounds):
            total: dict[str, int] = {}
            with product.Processing(DATA / "processing") as processing:
                for n in range(0, len(warm_up), CUT_EVENTS):
                    processing.cut(warm_up[n : n + CUT_EVENTS])
                for number, cut in enumerate(cuts):
                    order = (parse_only, processing.cut)
                    for measured in order if (number + round_number) % 2 else reversed(order):
                        for stage, ns in measured(cut).items():
                            total[stage] = total.get(stage, 0) + ns
                processing.check(len(warm_up) + len(lines), len({*warm_up, *lines}))
            for stage, ns in total.items():
                spent.setdefault(stage, []).append(ns / 1e3 / len(lines))
    finally:
        os.sched_setaffinity(0, pinned)
    base = median(spent["orjson.loads"])
    own = [stage for stage in product.STAGES if stage in spent]
    spent["all stages"] = [sum(spent[stage][r] for stage in own) for r in range(options.rounds)]
    for stage in ("orjson.loads", *own, "all stages"):
        us = median(spent[stage])
        result.rows.append([stage, round(us, 2), round(us / base, 2), round(1e6 / us)])
    mean, copies = sum(map(len, lines)) / len(lines), len(lines) - len(set(lines))
    result.notes += [
        f"{len(lines):,} events in cuts of {CUT_EVENTS:,}, {mean:,.0f} B mean, {copies:,} duplicates;"
        f" CPU of all threads. A real processor on real files, warmed with {WARM_UP_EVENTS:,} other events;"
        " rows and duplicates checked.",
        f"Blocks of {product.BLOCK_RECORDS} single events; heads as of {product.HEADS}.",
    ]
    result.slices.append({"us_per_event": spent})
    return result


def parse_only(lines: list[bytes]) -> dict[str, int]:
    """CPU ns of the least that anybody who looks at JSON in Python pays."""
    begin = time.process_time_ns()
    for line in lines:
        orjson.loads(line)
    return {"orjson.loads": time.process_time_ns() - begin}


# -- the whole road ----------------------------------------------------------------------------------------------------


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> dict[str, object]:
    """POST with the run's key; raises on anything but 200."""
    key = base64.b64encode(f"{events.KEY}:".encode()).decode()
    connection.request(
        "POST", path, body, {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
    return dict(json.loads(text))


def preload(port: int, count: int, per_request: int, *, wide: bool) -> tuple[int, int]:
    """Posts `count` events, `per_request` at a time; (accepted, different message ids among them)."""
    accepted = refused = 0
    distinct: set[bytes] = set()
    source = events.lines(count, wide=wide)
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        answers = connection.makefile("rb")
        waiting: list[list[bytes]] = []
        while True:
            part = list(itertools.islice(source, (PIPELINED - len(waiting)) * per_request))
            distinct.update(part)
            waiting += [part[n : n + per_request] for n in range(0, len(part), per_request)]
            if not waiting:
                break
            connection.sendall(b"".join(map(post_of, waiting)))
            again = []
            for body in waiting:
                status, answer = read_answer(answers)
                if status == 503:
                    again.append(body)
                elif status != 200:
                    raise RuntimeError(f"preloading: {status} {answer}")
                else:
                    accepted += int(answer.get("accepted", len(body)))
            waiting = again
            if again:
                refused += len(again)
                time.sleep(0.02)
    if refused:
        print(f"  preloading: {refused:,} requests were answered 503 and sent again", flush=True)
    return accepted, len(distinct)


def post_of(body: list[bytes]) -> bytes:
    """One request: an event by itself, several as a batch."""
    path, data = (
        ("/v1/track", body[0]) if len(body) == 1 else ("/v1/batch", b'{"batch":[' + b",".join(body) + b"]}")
    )
    key = base64.b64encode(f"{events.KEY}:".encode()).decode()
    head = f"POST {path} HTTP/1.1\r\nHost: collect.shop.example\r\nAuthorization: Basic {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def read_answer(stream: BinaryIO) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the next answer."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, dict(json.loads(stream.read(length)))


def settle(server: HeadwaterServer, wanted_rows: int) -> float:
    """Waits until the warehouse holds the rows; seconds waited. More rows than wanted is a failure, as is too few."""
    start = time.monotonic()
    while (rows := server.rows()) != wanted_rows:
        if rows > wanted_rows:
            raise RuntimeError(f"{rows:,} rows for {wanted_rows:,} events: something was stored twice")
        if time.monotonic() - start > SETTLE_S_MAX:
            raise RuntimeError(f"{rows:,} of {wanted_rows:,} rows after {SETTLE_S_MAX:.0f} s")
        time.sleep(0.25)
    return time.monotonic() - start


def _node(ack: str = "disk") -> HeadwaterServer:
    return HeadwaterServer(ack=ack, port=PORT, folder=DATA / "node", destination=True)


def _by_role(used: harness.Usage, count: int) -> dict[str, float]:
    return {role: s / count * 1e6 for role, s in used.cpu_s.items()}


def _whole(
    name: str, options: Options, one_round: Callable[[HeadwaterServer], tuple[int, harness.Usage, float, str]]
) -> Result:
    """Runs `one_round` on a fresh node for each round and tables CPU per event by role."""
    result = Result(name, ["role", "CPU µs/event", "events/s per core", "RSS peak MB"])
    per_role: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    totals: list[float] = []
    try:
        _node().prepare()
        for round_number in range(options.rounds):
            server = _node()
            server.start()
            try:
                calibration = machine.calibrate(SERVER_CORE)
                count, used, wall, disturbed = one_round(server)
            finally:
                server.stop()
            shares = _by_role(used, count)
            for role, us in shares.items():
                per_role.setdefault(role, []).append(us)
            for role, mb in used.rss_peak_mb.items():
                peaks[role] = max(peaks.get(role, 0.0), mb)
            totals.append(sum(shares.values()))
            result.disturbed += bool(disturbed)
            result.slices.append(
                {
                    "round": round_number,
                    "events": count,
                    "us_per_event": shares,
                    "wall_s": wall,
                    "calibration_ms": calibration,
                    "disturbed": disturbed,
                    "rss_peak_mb": used.rss_peak_mb,
                }
            )
            print(
                f"  {name} round {round_number + 1}: {count:,} events, {totals[-1]:.2f} µs/event"
                + (f"  [{disturbed}]" if disturbed else ""),
                flush=True,
            )
    except Unavailable as e:
        result.notes.append(f"headwater: not measured: {e}")
        return result
    for role, each in sorted(per_role.items()):
        us = median(each)
        result.rows.append(
            [role, round(us, 2), round(1e6 / us) if us > 0 else None, round(peaks.get(role, 0.0))]
        )
    us = median(totals)
    result.rows.append(["all", round(us, 2), round(1e6 / us) if us > 0 else None, None])
    behind = [
        sum(each) for each in zip(*(per_role.get(r, [0.0]) for r in ("process", "deliver")), strict=False)
    ]
    if (us := median(behind)) > 0:
        result.rows.append(["process + deliver", round(us, 2), round(1e6 / us), None])
    return result


def end_to_end(name: str, per_request: int, options: Options, *, wide: bool = False) -> Result:
    """Behind: events wait in the raw log, then processing and delivery run until every row is in DuckDB."""

    def one_round(server: HeadwaterServer) -> tuple[int, harness.Usage, float, str]:
        server.pause()
        accepted, distinct = preload(server.port, options.events, per_request, wide=wide)
        if accepted != options.events:
            raise RuntimeError(f"{accepted} of {options.events} accepted")
        watch = Watch(server)
        server.go_on()
        settle(server, distinct)
        used, wall, disturbed = watch.stop()
        return accepted, used, wall, disturbed

    result = _whole(name, options, one_round)
    result.notes.append(
        f"{options.events:,} events, {per_request} per request, preloaded while processing is held, then let go;"
        " until rows = different message ids. One core for the node."
    )
    return result


def whole_path(options: Options) -> Result:
    """Saturated: single durable events as fast as the node takes them, until all are rows. Everything on one core."""

    def one_round(server: HeadwaterServer) -> tuple[int, harness.Usage, float, str]:
        watch = Watch(server)
        told = harness.wrk(server.port, Load("single"), options.seconds, options.connections or 64)
        if any(told[k] for k in ("connect", "read", "write", "status", "timeout")):
            raise RuntimeError(f"errors under load: {told}")
        # wrk stops with requests on the way: the node's own count of accepted events is what rows must equal
        accepted = server.ledger()["accepted"]
        if accepted < told["requests"]:
            raise RuntimeError(f"{told['requests']:.0f} acknowledged, {accepted} counted as accepted")
        settle(server, accepted)
        used, wall, disturbed = watch.stop()
        return accepted, used, wall, disturbed

    result = _whole("whole-path", options, one_round)
    result.notes.append(
        "Single 1.5 KB events, ack disk, 64 connections; CPU of the whole tree until every accepted event is a row"
        " (rows = accepted checked). The benchmark's questions to the node cost a little and are included."
    )
    return result


def click_to_row(options: Options) -> Result:
    """100 events/s; every tenth is followed by its receipt until the node says that it is in the warehouse."""
    return _click_to_row("click-to-row", options, per_s=100, follow=10)


def click_to_row_busy(options: Options) -> Result:
    """The same with `--rate` events/s arriving beside, and 20 events/s that are all followed."""
    return _click_to_row("click-to-row-busy", options, per_s=20, follow=1, beside=options.rate)


def _click_to_row(name: str, options: Options, *, per_s: int, follow: int, beside: float = 0.0) -> Result:
    result = Result(name, ["events", "p50 ms", "p90 ms", "p99 ms", "max ms"])
    generator: openloop.Generator | None = None
    try:
        server = _node()
        server.prepare()
        openloop.build()
        server.start()
        try:
            if beside:
                generator = openloop.Generator(server.port, seconds=86_400, rate=beside)
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            source = events.lines(10**9, seed=23, duplicates=0.0)
            watch = Watch(server)
            begin, took = time.monotonic(), []
            following: list[tuple[float, str]] = []
            sent, to_send = 0, int(options.seconds * options.rounds * per_s)
            while sent < to_send or following:
                if sent < min(to_send, (time.monotonic() - begin) * per_s):
                    at = (
                        begin + sent / per_s
                    )  # when it was due: a slow answer must not hide the wait of the next
                    answer = post(connection, "/v1/track", next(source))
                    if sent % follow == 0:
                        following.append((at, str(answer["receipt"])))
                    sent += 1
                    continue
                # oldest first: may be seen late, never early
                while following and server.delivered(following[0][1]):
                    took.append((time.monotonic() - following.pop(0)[0]) * 1e3)
                if following and time.monotonic() - following[0][0] > 30:
                    raise RuntimeError(f"receipt {following[0][1]} is not in the warehouse after 30 s")
                time.sleep(0.005 if not beside else 0.02)
            took.sort()
            if generator:
                told = openloop.stretch(generator.end())
                result.notes.append(
                    f"Beside: {told.rate:,.0f} events/s arriving (open loop), {told.refused + told.broken:,} failed;"
                    f" accept p50 {told.took.quantile_ms(0.5):.2f}, p99 {told.took.quantile_ms(0.99):.2f} ms."
                )
                result.slices.append(told.values())
            used, wall, disturbed = watch.stop()
            if generator:
                settle(server, server.ledger()["accepted"])
        finally:
            if generator:
                generator.stop()
            server.stop()
    except Unavailable as e:
        result.notes.append(f"headwater: not measured: {e}")
        return result

    def quantile(q: float) -> float:
        return round(took[min(len(took) - 1, int(len(took) * q))], 1)

    result.rows.append([len(took), quantile(0.5), quantile(0.9), quantile(0.99), round(took[-1], 1)])
    result.notes.append(
        "From when the POST was due to the first answer of /api/where that says delivered"
        " (polled, so up to some ms late, never early)."
    )
    busy = ", ".join(f"{role} {s / wall:.0%}" for role, s in sorted(used.cpu_s.items()))
    result.notes.append(f"CPU meanwhile, of a core: {busy}; {sent / wall:.0f} events/s by hand.")
    result.disturbed = int(bool(disturbed))
    result.slices.append({"ms": took, "cpu_s": used.cpu_s, "wall_s": wall, "disturbed": disturbed})
    return result


def rss(options: Options) -> Result:
    """Memory by role: after start, and the peak after saturation with singles, then with batches, all delivered."""
    result = Result("rss", ["when", "role", "RSS MB", "peak MB"])
    try:
        server = _node()
        server.prepare()
        server.start()
        try:
            for when, load in (
                ("idle", None),
                ("after singles", Load("single")),
                ("after batches", Load("batch", 100, 16)),
            ):
                if load:
                    harness.wrk(server.port, load, options.seconds * 2, load.connections)
                    settle(server, server.ledger()["accepted"])
                seen = harness.usage({}, server.tree(), server.role)
                for role in sorted(seen.rss_mb):
                    result.rows.append(
                        [when, role, round(seen.rss_mb[role], 1), round(seen.rss_peak_mb[role], 1)]
                    )
        finally:
            server.stop()
    except Unavailable as e:
        result.notes.append(f"headwater: not measured: {e}")
    result.notes.append("Largest process of each role; RSS counts shared pages and mapped files too.")
    return result


WORKLOADS: dict[str, tuple[str, Callable[[Options], Result]]] = {
    "accept-single-disk": (
        "POST of one 1.5 KB event, reply after fdatasync",
        lambda o: accept("accept-single-disk", "disk", Load("single"), o),
    ),
    "accept-single-memory": (
        "the same, reply before the write",
        lambda o: accept("accept-single-memory", "memory", Load("single"), o),
    ),
    "accept-varied-disk": (
        "as accept-single-disk, different header values in each request",
        lambda o: accept("accept-varied-disk", "disk", Load("varied"), o),
    ),
    "accept-batch-disk": (
        "POST of 100 events, reply after fdatasync",
        lambda o: accept("accept-batch-disk", "disk", Load("batch", 100, 16), o),
    ),
    "accept-batch-memory": (
        "POST of 100 events, reply before the write",
        lambda o: accept("accept-batch-memory", "memory", Load("batch", 100, 16), o),
    ),
    "accept-pixel": (
        "GET pixel with 21 parameters, reply before the write",
        lambda o: accept("accept-pixel", "memory", Load("pixel"), o),
    ),
    "process-stages": (
        "each processing stage against orjson.loads of the same lines; a table of 65 columns",
        lambda o: process_stages("process-stages", o, wide=False),
    ),
    "process-stages-wide": (
        "the same with a table of 110 columns",
        lambda o: process_stages("process-stages-wide", o, wide=True),
    ),
    "end-to-end": (
        "a backlog of single events into DuckDB, 65 columns: processing and delivery CPU per event",
        lambda o: end_to_end("end-to-end", 1, o),
    ),
    "end-to-end-wide": (
        "the same with 110 columns",
        lambda o: end_to_end("end-to-end-wide", 1, o, wide=True),
    ),
    "end-to-end-batch": (
        "the same, the events came in batches of 100",
        lambda o: end_to_end("end-to-end-batch", 100, o),
    ),
    "whole-path": ("saturated single events from socket to DuckDB row, CPU of everything", whole_path),
    "click-to-row": ("latency from the request to the row at 100 events/s", click_to_row),
    "click-to-row-busy": (
        "the same while --rate events/s arrive; --seconds × --rounds long",
        click_to_row_busy,
    ),
    "rss": ("memory of each process, idle and after load", rss),
}
