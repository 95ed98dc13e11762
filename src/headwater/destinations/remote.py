"""A destination that another node holds (protocol.md §17.22): a DuckDB file belongs to one process of the cluster.

Each owner delivers its own partitions as to any destination; the calls travel to the process that holds the file, which
compares and commits there (``Served``). What is lost on the way back is an unknown outcome: the position is read again.
Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa

from headwater.destinations.port import (
    Capabilities,
    Counts,
    Destination,
    Drift,
    Outcome,
    OutcomeUnknown,
    PositionRow,
    Step,
)
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable

Call = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]
"""Sends a request with its bytes to the deliverer of this destination on its node; its errors are raised again."""

METHODS = ("open", "positions", "place", "empty", "fit", "step", "try_rows", "drift")


class RemoteStep(msgspec.Struct, frozen=True):
    """A step without its rows, which follow as Arrow streams."""

    pipeline: str
    partitions: list[int]
    origin: str
    target: str
    tables: dict[str, list[int]]
    """Table → bytes of each of its row sets, in order."""
    added: dict[int, dict[str, tuple[int, ...]]]
    config_epoch: int
    owner: str
    facts: list[int] = []
    """Bytes of each table of facts, behind the row sets."""


class RemoteDestination:
    """See port.Destination. From one thread."""

    capabilities = Capabilities("T", "exactly once")

    def __init__(self, call: Call, holder: str = "another node") -> None:
        """``holder``: the name of the node that holds it."""
        self.call = call
        self.holder = holder

    def ask(self, method: str, body: bytes = b"", **more: Any) -> tuple[dict[str, Any], bytes]:
        """One call."""
        try:
            return self.call({"op": "remote", "method": method, **more}, body)
        except HeadwaterError as error:
            if error.code == OutcomeUnknown.code:
                raise OutcomeUnknown(error.message) from error
            raise

    def open(self, *, create: bool) -> None:
        self.ask("open")

    def close(self) -> None:
        pass

    def positions(self, pipeline: str) -> dict[int, PositionRow]:
        told, _ = self.ask("positions", pipeline=pipeline)
        return {int(p): row_of(row) for p, row in told["rows"].items()}

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        told = {str(p): told_of(row) for p, row in rows.items()}
        self.ask("place", pipeline=pipeline, rows=told, missing_only=missing_only)

    def empty(self) -> bool:
        return bool(self.ask("empty")[0]["empty"])

    def fit(self, tables: Mapping[str, Sequence[pa.Schema]]) -> None:
        schemas = [
            (name, schema.serialize().to_pybytes()) for name, each in tables.items() for schema in each
        ]
        sizes = [(name, len(data)) for name, data in schemas]
        self.ask("fit", b"".join(data for _, data in schemas), schemas=sizes)

    def step(self, step: Step) -> Outcome:
        if step.redo is not None:
            raise Rejected(
                "a step of a replay must be made on the node that holds the destination", code="remote_redo"
            )
        head, body = packed(step)
        try:
            told, _ = self.ask("step", body, step=msgspec.to_builtins(head, str_keys=True))
        except Unavailable as error:
            raise OutcomeUnknown(f"nobody knows whether the step was made: {error.message}") from error
        return Outcome(told["outcome"])

    def try_rows(self, table: str, rows: pa.Table) -> None:
        self.ask("try_rows", stream_of(rows), table=table)

    def drift(self) -> Sequence[Drift]:
        return ()  # the node that holds it tells


class Served:
    """The other end: calls of other nodes, carried out on the destination that this process holds."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    def answer(self, request: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """One call; the caller holds the destination. Rejected: no such call, or it does not fit together."""
        method = str(request.get("method"))
        if method not in METHODS:
            raise Rejected(f"method {method!r}: expected one of {', '.join(METHODS)}", code="remote_method")
        with naming(method):
            reply: dict[str, Any] = getattr(self, method)(request, body)
        return reply, b""

    def open(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return {}

    def positions(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        rows = self.destination.positions(request["pipeline"])
        return {"rows": {str(p): told_of(row) for p, row in rows.items()}}

    def place(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        rows = {int(p): row_of(row) for p, row in request["rows"].items()}
        self.destination.place(request["pipeline"], rows, missing_only=bool(request["missing_only"]))
        return {}

    def empty(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return {"empty": self.destination.empty()}

    def fit(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        tables: dict[str, list[pa.Schema]] = {}
        at = 0
        for name, size in request["schemas"]:
            tables.setdefault(name, []).append(pa.ipc.read_schema(pa.py_buffer(body[at : at + size])))
            at += size
        self.destination.fit(tables)
        return {}

    def step(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        head = msgspec.convert(request["step"], RemoteStep, strict=False)
        return {"outcome": self.destination.step(unpacked(head, body)).value}

    def try_rows(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        self.destination.try_rows(request["table"], pa.ipc.open_stream(body).read_all())
        return {}

    def drift(self, request: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return {}


@contextmanager
def naming(method: str) -> Iterator[None]:
    """What does not fit together is the caller's mistake."""
    try:
        yield
    except (KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
        raise Rejected(f"remote {method}: {error}", code="remote_format") from error


def packed(step: Step) -> tuple[RemoteStep, bytes]:
    """As it travels."""
    sets = {name: [stream_of(rows) for rows in each] for name, each in step.tables.items()}
    facts = [stream_of(one) for one in step.facts]
    head = RemoteStep(
        step.pipeline,
        list(step.partitions),
        step.origin.hex(),
        step.target.hex(),
        {name: [len(data) for data in each] for name, each in sets.items()},
        {
            p: {stream: tuple(counts) for stream, counts in streams.items()}
            for p, streams in step.added.items()
        },
        step.config_epoch,
        step.owner,
        [len(data) for data in facts],
    )
    return head, b"".join([*(data for each in sets.values() for data in each), *facts])


def unpacked(head: RemoteStep, body: bytes) -> Step:
    """As it was."""
    tables: dict[str, list[pa.Table]] = {}
    at = 0
    for name, sizes in head.tables.items():
        for size in sizes:
            rows = pa.ipc.open_stream(pa.py_buffer(body[at : at + size])).read_all()
            tables.setdefault(name, []).append(rows)
            at += size
    facts = []
    for size in head.facts:
        facts.append(pa.ipc.open_stream(pa.py_buffer(body[at : at + size])).read_all())
        at += size
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes behind the row sets and facts")
    return Step(
        head.pipeline,
        tuple(head.partitions),
        bytes.fromhex(head.origin),
        bytes.fromhex(head.target),
        tables,
        {
            p: {stream: Counts(*counts) for stream, counts in streams.items()}
            for p, streams in head.added.items()
        },
        head.config_epoch,
        head.owner,
        tuple(facts),
    )


def stream_of(rows: pa.Table) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def told_of(row: PositionRow) -> dict[str, Any]:
    """A position row as JSON."""
    streams = {stream: list(counts) for stream, counts in row.streams.items()}
    return {
        "vector": row.vector.hex(),
        "streams": streams,
        "config_epoch": row.config_epoch,
        "owner": row.owner,
    }


def row_of(told: Mapping[str, Any]) -> PositionRow:
    """From ``told_of``."""
    streams = {stream: Counts(*counts) for stream, counts in told["streams"].items()}
    return PositionRow(bytes.fromhex(told["vector"]), streams, told["config_epoch"], told["owner"])
