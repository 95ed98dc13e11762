"""One process that delivers: its destinations, a thread for each, and a socket that answers for them.

A slow or broken destination holds up its own thread only (INV-DST-3). The socket is ``run/deliver-<group>.sock``
(kit/ask.py); requests name a ``destination``, which may be left out where there is one:

=============  =====================================================  ==========================================
op             request                                                reply
=============  =====================================================  ==========================================
``sql``        query, rows_max?, time_max_s?, format? (json | arrow)  columns, rows, truncated, ms; the rows
``export``     query, rows_max?                                       rows, truncated, ms; before it, pieces of an
                                                                      Arrow IPC stream, as they are made
``deep``       time_max_s?                                            streams: rows counted, and what is said of them
``positions``  –                                                      partitions: vector (hex), counters per stream
``status``     –                                                      what the report holds
``adopt``      from (now | here | beginning), passed?                 partitions, skipped_events
``pause``      reason?                                                since, reason
``resume``     –                                                      since, reason of the pause that ended
``copy``       folder: below ``run/backup``                           files, held_ms: delivery waited so long
``write_off``  –                                                      written_off
``replay``     do (start | list | cancel | resume | drop), …          see replay.py
``retry``      origins (writer-log-seq, …), or all                    retried, refused_again: see retry.py
``identity``   do (show | log), …                                     –; the answer as JSON: see audit.py
=============  =====================================================  ==========================================
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pyarrow as pa

from headwater.destinations import audit, copying, pause, replay, retry
from headwater.destinations.deliver import LAYOUT, Deliverer
from headwater.destinations.pause import Held, Pause
from headwater.destinations.remote import RemoteDestination, Served
from headwater.event.position import Vector
from headwater.kit.clock import Clock
from headwater.kit.errors import Busy, HeadwaterError, Rejected, Unavailable

if TYPE_CHECKING:
    from headwater.destinations.duckdb.sql import Sql

IDLE_WAIT_S = 0.5
LOOK_INTERVAL_S = 0.05
"""How soon after a step the report has it; ``report`` bounds how often it is written."""
REQUESTS_MAX = 16
DEEP_S, DEEP_S_MAX = 600.0, 24 * 3600.0
"""How long counting may take where the request does not say, and at most."""
OPEN_WAIT_S = 5.0
"""How long a query waits for a destination that is starting; a large write-ahead log is read first."""

Reply = tuple[dict[str, Any], bytes | AsyncGenerator[bytes, None]]
Handler = Callable[[dict[str, Any]], Awaitable[Reply]]


class Server(Protocol):
    """A listening socket (kit/ask.py)."""

    async def close(self) -> None: ...


Serve = Callable[[str, Handler], Awaitable[Server]]
Report = Callable[[dict[str, Any]], None]


class DeliverWorker:
    """Runs the deliverers of one group. ``report`` is called from the event loop's thread."""

    def __init__(
        self, group: str, deliverers: Sequence[Deliverer], report: Report, clock: Clock, socket: str
    ) -> None:
        self.group = group
        self.deliverers = {deliverer.name: deliverer for deliverer in deliverers}
        self.report = report
        self.clock = clock
        self.socket = socket
        self.stopping = threading.Event()
        self.going = threading.Event()
        """Clear while somebody waits for the end of a round: rounds follow each other so closely that nobody else
        would get their lock."""
        self.going.set()
        self.broken: BaseException | None = None
        self.counting = threading.Lock()
        self.stop_counting: Callable[[], None] = lambda: None
        self.pool = ThreadPoolExecutor(REQUESTS_MAX, thread_name_prefix="deliver-ask")

    async def run(self, serve: Serve) -> None:
        """Deliver and answer until cancelled; then the step under way ends, and everything is closed.

        An error that is not one of ours is a bug: it ends the process, and the supervisor starts it again.
        """
        threads = [
            threading.Thread(target=self.turn, args=(deliverer,), name=f"deliver-{name}")
            for name, deliverer in self.deliverers.items()
        ]
        server = await serve(self.socket, self.answer)
        try:
            for thread in threads:
                thread.start()
            told: list[object] = []
            while self.broken is None:
                now = [(d.seen, d.trouble, d.held) for d in self.deliverers.values()]
                if now != told:
                    told = list(now)
                    self.report(self.status())
                await self.clock.sleep(LOOK_INTERVAL_S)
        finally:
            self.stopping.set()
            await server.close()
            for thread in threads:
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
            self.report(self.status())
            self.close()
        raise self.broken

    def close(self) -> None:
        """Let go of every destination; the threads have ended."""
        self.stop_counting()
        self.pool.shutdown(wait=True, cancel_futures=True)
        for deliverer in self.deliverers.values():
            deliverer.close()

    def turn(self, deliverer: Deliverer) -> None:
        """The thread of one destination."""
        try:
            while not self.stopping.is_set():
                self.going.wait()
                wait_s = deliverer.round()
                if wait_s > 0:
                    self.stopping.wait(min(wait_s, IDLE_WAIT_S))
        except BaseException as error:
            self.broken = error
            raise

    # -- answering

    async def answer(self, request: dict[str, Any]) -> Reply:
        """One request of the socket."""
        operations: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "export": self.export,
            "sql": self.sql,
            "deep": self.deep,
            "positions": self.positions,
            "status": self.tell_status,
            "adopt": self.adopt,
            "copy": self.copy,
            "pause": self.pause,
            "resume": self.resume,
            "write_off": self.write_off,
            "replay": self.replay,
            "retry": self.retry,
            "identity": self.identity,
            "remote": self.remote,
        }
        operation = operations.get(str(request.get("op")))
        if operation is None:
            raise Rejected(f"op {request.get('op')!r}: expected one of {', '.join(operations)}", code="op")
        return await asyncio.get_running_loop().run_in_executor(self.pool, operation, request)

    def chosen(self, request: Mapping[str, Any]) -> Deliverer:
        """The deliverer that a request is about."""
        name = request.get("destination") or (
            next(iter(self.deliverers)) if len(self.deliverers) == 1 else None
        )
        deliverer = self.deliverers.get(str(name))
        if deliverer is None:
            known = ", ".join(self.deliverers)
            raise Rejected(
                f"destination {name!r} is not here: expected one of {known}", code="destination_name"
            )
        return deliverer

    def reader(self, request: Mapping[str, Any]) -> Sql:
        """What answers SQL at the destination that a request is about."""
        from headwater.destinations.duckdb.write import DuckDbDestination

        deliverer = self.chosen(request)
        destination = deliverer.destination
        if not isinstance(destination, DuckDbDestination):
            raise Rejected("this destination answers no SQL", code="sql_none")
        self.await_open(deliverer)
        return destination.sql

    def export(self, request: dict[str, Any]) -> Reply:
        """All rows of a reading statement; what is told stands after them."""
        from headwater.destinations.duckdb import export

        self.refuse_elsewhere(
            request, "its rows are written to a file on that node only: run the command there"
        )
        told: dict[str, Any] = {}
        made = export.pieces(
            self.reader(request), str(request.get("query", "")), request.get("rows_max"), self.clock, told
        )
        return told, export.in_threads(made, self.pool)

    def elsewhere(self, request: dict[str, Any]) -> RemoteDestination | None:
        """The destination of a request, where another node holds it."""
        destination = self.chosen(request).destination
        return destination if isinstance(destination, RemoteDestination) else None

    def refuse_elsewhere(self, request: dict[str, Any], help: str) -> None:
        """Rejected, with the name of the node, where another one holds the destination."""
        if (there := self.elsewhere(request)) is not None:
            raise Rejected(
                f"destination {self.chosen(request).name} is held by {there.holder}",
                code="elsewhere",
                help=help,
            )

    def sql(self, request: dict[str, Any]) -> Reply:
        """Rows of a reading statement."""
        from headwater.destinations.duckdb import sql

        if (there := self.elsewhere(request)) is not None:
            return there.call(request, b"")
        began_ns = self.clock.boot_ns()
        answer = self.reader(request).query(
            str(request.get("query", "")),
            rows_max=request.get("rows_max"),
            time_max_s=request.get("time_max_s"),
        )
        body = arrow_bytes(answer.rows) if request.get("format") == "arrow" else sql.as_json(answer.rows)
        told = {
            "columns": sql.columns_of(answer.rows),
            "rows": answer.rows.num_rows,
            "truncated": answer.truncated,
            "ms": (self.clock.boot_ns() - began_ns) / 1e6,
        }
        return told, body

    def deep(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The rows of each stream, counted in the destination; one count at a time."""
        from headwater.destinations.duckdb import deep
        from headwater.destinations.duckdb.write import DuckDbDestination

        if (there := self.elsewhere(request)) is not None:
            return there.call(request, b"")
        deliverer = self.chosen(request)
        destination = deliverer.destination
        if not isinstance(destination, DuckDbDestination):
            raise Rejected("this destination cannot be counted", code="deep_none")
        if not self.counting.acquire(blocking=False):
            raise Busy("its rows are being counted for somebody else", code="deep_busy")
        try:
            self.await_open(deliverer)
            time_max_s = min(float(request.get("time_max_s") or DEEP_S), DEEP_S_MAX)
            cursor, pipeline = destination.cursor(), deliverer.memory.pipeline
            self.stop_counting = cursor.interrupt
            found = deep.count(cursor, destination.path, pipeline, LAYOUT, time_max_s)
        finally:
            self.stop_counting = lambda: None
            self.counting.release()
        return {"streams": msgspec.to_builtins(found)}, b""

    def await_open(self, deliverer: Deliverer) -> None:
        """Let a destination that is only just starting open first; its trouble, or the time, ends the wait."""
        until_ns = self.clock.boot_ns() + int(OPEN_WAIT_S * 1e9)
        while not deliverer.seen.rows and deliverer.trouble is None and self.clock.boot_ns() < until_ns:
            if self.stopping.is_set():
                return
            self.clock.block(0.01)

    def positions(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The position rows."""
        rows = self.chosen(request).rows or {}
        told = {
            str(partition): {
                "vector": row.vector.hex(),
                "config_epoch": row.config_epoch,
                "owner": row.owner,
                "streams": {stream: counts._asdict() for stream, counts in row.streams.items()},
            }
            for partition, row in sorted(dict(rows).items())
        }
        return {"partitions": told}, b""

    def tell_status(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What the report holds."""
        return self.status(), b""

    def adopt(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """An operator's decision; see Deliverer.adopt."""
        passed = request.get("passed")
        known = None if passed is None else {int(p): dict(streams) for p, streams in passed.items()}
        vectors = request.get("vectors")
        at = (
            None if vectors is None else {int(p): Vector.decode(bytes.fromhex(v)) for p, v in vectors.items()}
        )
        deliverer = self.chosen(request)
        if deliverer.trouble is None:
            raise Rejected(
                f"destination {deliverer.name} is not paused: there is nothing to decide", code="not_paused"
            )
        return deliverer.adopt(str(request.get("from", "")), known, at), b""

    def copy(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """A copy of the destination's file for a backup, between two rounds."""
        deliverer, folder = self.chosen(request), os.path.realpath(str(request.get("folder", "")))
        if not folder.startswith(os.path.realpath(os.path.dirname(self.socket)) + "/backup/"):
            raise Rejected(f"folder {folder}: expected one below run/backup", code="copy_folder")
        self.await_open(deliverer)
        self.going.clear()
        try:
            return copying.copy(deliverer, folder, self.check_going_on), b""
        finally:
            self.going.set()

    def remote(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """A call of another node's deliverer on the destination that this process holds; between two rounds."""
        with self.between_rounds(deliverer := self.chosen(request)):
            return Served(deliverer.destination).answer(request, request.get("body", b""))

    def identity(self, request: dict[str, Any]) -> Reply:
        """What it knows of people; see audit.py."""
        if (there := self.elsewhere(request)) is not None:
            return there.call(request, b"")
        deliverer = self.chosen(request)
        self.await_open(deliverer)
        with self.between_rounds(deliverer):
            return {}, msgspec.json.encode(audit.answer(deliverer, LAYOUT, request))

    @contextmanager
    def between_rounds(self, deliverer: Deliverer) -> Iterator[None]:
        """The destination for the caller alone. Unavailable: it is not open here."""
        self.going.clear()
        try:
            with deliverer.lock:
                if deliverer.rows is None:
                    raise not_open(deliverer)
                yield
        finally:
            self.going.set()

    def check_going_on(self) -> None:
        """Unavailable when the process is about to end."""
        if self.stopping.is_set():
            raise Unavailable("the node is stopping", code="stopping")

    def pause(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """An operator's pause; durable on return."""
        deliverer = self.chosen(request)
        held = pause_of(deliverer).begin(str(request.get("reason") or ""), self.clock.wall_ns())
        deliverer.tell("destination_held", {"destination": deliverer.name, "reason": held.reason})
        return {"destination": deliverer.name, "since": held.since, "reason": held.reason}, b""

    def resume(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The end of an operator's pause; durable on return."""
        deliverer = self.chosen(request)
        held = pause_of(deliverer).end()
        deliverer.tell("destination_resumed", {"destination": deliverer.name})
        return {"destination": deliverer.name, "since": held.since, "reason": held.reason}, b""

    def write_off(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """An operator's decision; see Deliverer.write_off."""
        return self.chosen(request).write_off(), b""

    def replay(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What an operator asks of replays; see replay.py."""
        if (there := self.elsewhere(request)) is not None:
            return there.call(request, b"")
        deliverer = self.chosen(request)
        self.await_open(deliverer)
        return replay.answer(deliverer, request), b""

    def retry(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Letters of rows that the destination refused, tried again; see retry.py."""
        self.refuse_elsewhere(
            request, "a row that it refused is tried again only where the owner of the row holds it, too"
        )
        deliverer = self.chosen(request)
        self.await_open(deliverer)
        return retry.retry(deliverer, request), b""

    # -- telling

    def status(self) -> dict[str, Any]:
        """What ``run/reports/deliver-<group>.json`` holds."""
        return {"group": self.group, "destinations": {n: status_of(d) for n, d in self.deliverers.items()}}


def pause_of(deliverer: Deliverer) -> Pause:
    """Where a destination's pause is kept."""
    if deliverer.pause is None:
        raise Rejected(f"destination {deliverer.name} cannot be paused here", code="no_pause")
    return deliverer.pause


def arrow_bytes(rows: pa.Table) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def state_of(deliverer: Deliverer) -> str:
    """In one word; ``catching_up``: a private run is under way."""
    if deliverer.trouble is not None or deliverer.held is not None:
        return "paused"
    if deliverer.catch_up.run is not None:
        return "catching_up"
    return "delivering" if deliverer.seen.rows else "starting"


def status_of(deliverer: Deliverer) -> dict[str, Any]:
    """Where a destination stands, as others read it; all its numbers are of one moment or an older one."""
    seen = deliverer.seen
    trouble, held = deliverer.trouble, deliverer.held
    age_s = seen.age_s  # as of the last round; in a pause nobody looks at what waits, and the wait goes on
    if trouble is not None or held is not None:
        age_s = (deliverer.clock.boot_ns() - deliverer.waiting_ns) / 1e9
    return {
        "state": state_of(deliverer),
        **why_paused(deliverer.name, trouble, held),
        "vectors": vectors_of(seen.vectors),
        "remembered": {} if seen.vectors else vectors_of(deliverer.memory.vectors),
        "streams": {stream: counts._asdict() for stream, counts in seen.streams.items()},
        "ready_passed": {name: list(at) for name, at in seen.passed.items()},
        "lag": {"rows": seen.waiting_rows, "age_s": age_s},
        "loaded_ns": seen.loaded_ns,
        "catching_up": deliverer.catch_up.progress,
        "reckoned": not deliverer.memory.unreckoned,
        "written_off": deliverer.memory.written_off,
        "counters": {**deliverer.counters, "private_runs": deliverer.catch_up.runs},
        "recognition": deliverer.settler.told if deliverer.settler is not None else None,
        "replays": replay.listed(deliverer),
        "drift": [
            {"table": d.table, "column": d.column, "count": d.count, "example": d.example} for d in seen.drift
        ],
    }


def not_open(deliverer: Deliverer) -> Unavailable:
    """For another node's deliverer: why the destination is not open at the node that holds it."""
    trouble = deliverer.trouble
    if trouble is None:
        return Unavailable(f"destination {deliverer.name} is not open here", code="not_open")
    message = f"destination {deliverer.name} is not open at the node that holds it: {trouble.message}"
    return Unavailable(message, code="not_open", help=trouble.help)


def why_paused(name: str, trouble: HeadwaterError | None, held: Held | None) -> dict[str, Any]:
    """Reason and remedy; trouble comes first, since resuming would not mend it."""
    if trouble is not None:
        command = trouble.fields.get("command")
        return {"reason": trouble.message, "code": trouble.code, "help": trouble.help, "command": command}
    if held is not None:
        command = pause.command(name)
        return {"reason": held.text(), "code": pause.CODE, "help": command, "command": command}
    return dict.fromkeys(("reason", "code", "help", "command"))


def vectors_of(vectors: Mapping[int, Vector]) -> dict[str, list[int]]:
    """Vector (hex) → partitions that stand there."""
    groups: dict[str, list[int]] = {}
    for partition, vector in sorted(vectors.items()):
        groups.setdefault(vector.encode().hex(), []).append(partition)
    return groups
