"""`recovery`: a large raw log, `kill -9` of everything, start: how long until it accepts, and until it processes.

The log is filled by batches while processing is held; then the node processes some of it, so that the position to
go on from lies inside. After the kill the pages of the data folder are dropped from the cache (as far as the kernel
follows the advice), since after a power cut nothing is in memory either.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import openloop
from benchmarks.endurance import RAW_SHARE, wait_until
from benchmarks.harness import Options, Result, median
from benchmarks.servers import LOAD_CORE, SERVER_CORE, HeadwaterServer, Unavailable, kill
from benchmarks.workloads import DATA, PORT, post

EVENT_BYTES = 1_480
"""Of raw log for an event of a batch."""
GB = 10**9
SPARE_BYTES = 3 * GB
PROCESSED_FIRST = 50_000
UNTIL_S_MAX = 120.0


def recovery(options: Options) -> Result:
    result = Result(
        "recovery", ["raw log GB", "round", "accepting s", "ready s", "processing s", "rows grow s"]
    )
    server = HeadwaterServer(ack="disk", port=PORT, folder=DATA / "recovery", destination=True)
    raw_bytes = int(options.gigabytes * GB)
    try:
        server.prepare()
        openloop.build()
        shutil.rmtree(server.folder, ignore_errors=True)
        server.folder.mkdir(parents=True)
        free = shutil.disk_usage(server.folder).free
        # raw, and half as much again: ready log, state and warehouse of what is processed meanwhile
        if (needed := int(raw_bytes * 1.5) + SPARE_BYTES) > free:
            raise Unavailable(
                f"needs {needed / GB:.0f} GB of free disk, {free / GB:.0f} GB are there: smaller --gigabytes"
            )
        server.data_bytes_max = int((raw_bytes * 1.1 + GB) / RAW_SHARE)
    except Unavailable as e:
        result.notes.append(f"not measured: {e}")
        return result
    server.cores = f"{SERVER_CORE},{LOAD_CORE}"
    try:
        begin = time.monotonic()
        server.launch()
        wait_until("accepting", lambda: accepts(server), UNTIL_S_MAX)
        empty_s = time.monotonic() - begin
        server.wait_until_answers()
        server.pause()
        begin = time.monotonic()
        filled = openloop.fill(server.port, raw_bytes // EVENT_BYTES // 100)
        fill_s = time.monotonic() - begin
        for round_number in range(options.rounds):
            result.slices.append(one_round(server, round_number))
            s = result.slices[-1]
            result.rows.append(
                [s[k] for k in ("raw_gb", "round", "accepting_s", "ready_s", "processing_s", "rows_s")]
            )
            print(f"  recovery round {round_number + 1}: {s}", flush=True)
        server.ledger()  # raises where it does not hold: nothing was lost on the way
    finally:
        server.stop()
    if result.slices:
        each = [
            [float(str(s[k])) for s in result.slices]
            for k in ("accepting_s", "ready_s", "processing_s", "rows_s")
        ]
        result.rows.append(["", "median", *(round(median(values), 2) for values in each)])
    result.notes += [
        f"{filled:,} events in {fill_s:.0f} s. From the start of `headwater run` on a folder whose node was"
        " killed with SIGKILL, pages dropped: to the first event answered 2xx; to /ready without warnings; to the"
        " first commit of the processor in its new log; to the first new row that the deliverer tells of, which it does"
        " every 0.2 s. The ledger holds at the end.",
        f"The same start on an empty folder accepts after {empty_s:.2f} s.",
    ]
    return result


def one_round(server: HeadwaterServer, round_number: int) -> dict[str, object]:
    """Lets the node process a little, kills it, starts it, and watches."""
    stood = server.processed_events()
    server.go_on()
    wait_until("processing", lambda: server.processed_events() > stood + PROCESSED_FIRST, UNTIL_S_MAX)
    wait_until("delivering", lambda: server.delivered_rows() > 0, UNTIL_S_MAX)
    kill_all(server)
    processed, rows, committed = server.processed_events(), server.delivered_rows(), commits(server)
    raw_bytes = bytes_of(server.data / "raw")
    forget_pages(server.data)
    reports = server.data / "run" / "reports"
    shutil.rmtree(reports, ignore_errors=True)  # those of the killed node say nothing about the new one
    begin = time.monotonic()
    server.launch()
    took: dict[str, float] = {}
    waiting: dict[str, Callable[[], bool]] = {
        "accepting_s": lambda: accepts(server),
        "ready_s": server.answers,
        "processing_s": lambda: commits(server) - committed > set(),
        "rows_s": lambda: server.delivered_rows() > rows,
    }
    while waiting:
        for name, seen in list(waiting.items()):
            if seen():
                took[name] = round(time.monotonic() - begin, 3)
                del waiting[name]
        if time.monotonic() - begin > UNTIL_S_MAX:
            said = (server.folder / "server.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"not within {UNTIL_S_MAX:.0f} s: {', '.join(waiting)}; the node said: {said}")
        time.sleep(0.01)
    server.pause()
    return {
        "raw_gb": round(raw_bytes / GB, 2),
        "round": round_number + 1,
        "processed_before": processed,
        **took,
    }


def commits(server: HeadwaterServer) -> set[Path]:
    """Watermarks of the logs of the processor (each start has one of its own) that hold a durable commit."""
    found = (server.data / "ready" / "0").glob("*.wm")
    return {path for path in found if int.from_bytes(path.read_bytes(), sys.byteorder) > 0}


def kill_all(server: HeadwaterServer) -> None:
    """SIGKILL to every process of the node at once."""
    assert server.process is not None
    for pid in [server.process.pid, *server.tree()]:
        kill(pid, signal.SIGKILL)
    server.process.wait()
    wait_until("the end of all processes", lambda: not server.tree(), 10.0)
    server.paused.clear()


def accepts(server: HeadwaterServer) -> bool:
    """Whether a new event is answered 2xx."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5.0)
    try:
        body = (
            b'{"type":"track","event":"Recovered","anonymousId":"a","messageId":"%s"}'
            % os.urandom(12).hex().encode()
        )
        return bool(post(connection, "/v1/track", body))
    except (OSError, http.client.HTTPException, RuntimeError):
        return False
    finally:
        connection.close()


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget_pages(folder: Path) -> None:
    """Drops what the kernel remembers of the folder's files; what is not yet written is written first."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


WORKLOADS = {
    "recovery": (
        "kill -9 with a raw log of --gigabytes: seconds until it accepts and processes again",
        recovery,
    )
}
