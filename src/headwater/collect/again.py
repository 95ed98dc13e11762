"""Events that come once more: dead letters that an operator retries (``headwater dead retry``); and his own decisions.

They come over ``run/collect-<n>.sock`` (kit/ask.py; who may open it is trusted) and go the way of every event: read by
the door's own rules, appended to this worker's log, answered when they are durable. Each gets a position of its own, so
the ledger counts it as accepted once more. What the door still refuses is not appended: its letter stays as it is.

``append``: letters (``Letter``, as JSON), their bodies one after the other behind it, dry_run? → results, one each:
{"receipt", "events"} · {"refused", "field"} · {"busy"}: not appended · {"unknown"}: the log failed, it may be there.
``decide``: a decision (operator.py) as body → receipt, when it is durable.

The record says that it is a retry: its path is that of an import, because the times in it are the sender's and the
clock of the first request is long past, and its query names the letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from headwater.collect import operator
from headwater.collect.door import STOPPED, Door, Waiter
from headwater.collect.owed import Promise as OwedPromise
from headwater.collect.settings import CollectSettings
from headwater.dialects import native
from headwater.dialects.envelope import ERRORS, Limits, Readers, Verdict
from headwater.dialects.registry import DIALECTS
from headwater.dialects.segment import BATCH_PATHS
from headwater.event.record import ADDRESS_NONE, OPERATOR, SINGLE, Head, encode_head
from headwater.event.slots import slot_of
from headwater.kit.errors import HeadwaterError, Rejected
from headwater.log.group import GroupCommit

LETTERS_MAX = 200
IMPORT_PATH = "/v1/import"
RETRY = "retry-of="


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it is to be appended; ``bytes`` is the length of its body."""

    stream: str
    bytes: int
    origin: str
    dialect: str = native.NAME
    path: str = native.PATHS[0]
    """Of the request that it came with, as everything down to ``address``."""
    content_type: str = ""
    headers: dict[str, str] = {}
    https: bool = False
    address: str = "00" * 16
    address_flags: int = ADDRESS_NONE
    whole: bool = True
    """The body is that of the whole request, to be read as the request's path says; else one event."""
    add: dict[str, str] = {}
    """Members that a single event gets where it lacks them: its message id, its time."""


class Promise:
    """Somebody who waits for the log's word; the only call that a waiter gets for it is ``released``."""

    def __init__(self, told: asyncio.Future[HeadwaterError | None]) -> None:
        self.told = told

    def released(self, error: HeadwaterError | None) -> None:
        """The block is durable, or the log failed."""
        if not self.told.done():
            self.told.set_result(error)


class Again:
    """Answers the socket of a worker."""

    def __init__(
        self,
        settings: CollectSettings,
        door: Door,
        log: GroupCommit[Waiter | OwedPromise],
        boot_ns: Callable[[], int],
    ) -> None:
        self.door = door
        self.log = log
        self.boot_ns = boot_ns
        limits = Limits(settings.batch_events_max, settings.event_bytes_max, settings.id_length_max)
        self.envelopes = {name: dialect.envelope(limits) for name, dialect in DIALECTS.items()}
        self.readers = Readers(limits)

    async def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One request."""
        if request.get("op") == "ping":
            return {"log": self.log.receipt_prefix}, b""
        if request.get("op") == "decide":
            return await self.decide(request.get("body", b"")), b""
        letters, bodies = parsed(request)
        dry_run = request.get("dry_run") is True
        results: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], asyncio.Future[HeadwaterError | None]]] = []
        for letter, body in zip(
            letters, bodies, strict=True
        ):  # in one turn of the loop: their numbers are dense
            verdict = self.read(letter, body)
            if verdict.refused:
                result = refused(verdict)
            elif (busy := self.busy()) is not None:
                result = {"busy": str(busy)}
            elif dry_run:
                result = {"receipt": None, "events": verdict.events}
            else:
                told = asyncio.get_running_loop().create_future()
                result = {"receipt": self.append(letter, verdict, told), "events": verdict.events}
                waiting.append((result, told))
            results.append(result)
        for result, told in waiting:
            if (error := await told) is not None:
                result.clear()
                result["unknown"] = str(error)
        return {"results": results}, b""

    async def decide(self, body: bytes) -> dict[str, Any]:
        """An operator's decision, durable on return. Busy, Unavailable: it was not appended, or nobody knows; sent
        again with its message id, it counts once."""
        decision, line = operator.unlink_of(body)
        if (busy := self.busy()) is not None:
            raise busy
        told = asyncio.get_running_loop().create_future()
        seq = self.log.append(
            self.boot_ns() + self.door.offset_ns,
            bytes(16),
            line,
            encode_head(operator.HEAD),
            stream=OPERATOR,
            events=1,
            slot=slot_of(decision.anonymousId),
            flags=ADDRESS_NONE | SINGLE,
            waiter=cast(Waiter, Promise(told)),
        )
        if (error := await told) is not None:
            raise error
        return {"receipt": f"{self.log.receipt_prefix}{seq}"}

    def busy(self) -> HeadwaterError | None:
        """Why nothing can be appended now."""
        if self.door.stopped or self.door.leaving:
            return STOPPED
        return self.door.held or self.log.full()

    def read(self, letter: Letter, body: bytes) -> Verdict:
        """The body as the door reads it."""
        dialect = DIALECTS.get(letter.dialect, DIALECTS[native.NAME])
        head = Head("", dialect.name, "POST", letter.path)
        in_batch = dialect.name == "segment" and letter.path.rstrip("/") in BATCH_PATHS
        default = None if in_batch else dialect.default_type(head)
        add = {**letter.add, "type": default} if default is not None else letter.add
        body = completed(body, add)
        if letter.whole:
            return self.envelopes[dialect.name](body, letter.path)
        return self.readers.single(body, default)

    def append(self, letter: Letter, verdict: Verdict, told: asyncio.Future[HeadwaterError | None]) -> str:
        """Into the next block; the receipt."""
        head = Head(
            letter.stream,
            letter.dialect,
            "POST",
            IMPORT_PATH,
            RETRY + letter.origin,
            letter.content_type,
            dict(letter.headers),
            letter.https,
        )
        seq = self.log.append(
            self.boot_ns() + self.door.offset_ns,
            bytes.fromhex(letter.address),
            verdict.body,
            encode_head(head),
            stream=letter.stream,
            events=verdict.events,
            slot=verdict.slot,
            flags=letter.address_flags | (SINGLE if verdict.single else 0),
            waiter=cast(Waiter, Promise(told)),
        )
        return f"{self.log.receipt_prefix}{seq}"


def parsed(request: Mapping[str, Any]) -> tuple[list[Letter], list[bytes]]:
    """Letters and their bodies. Rejected: they do not fit together."""
    data = request.get("body", b"")
    try:
        letters = msgspec.convert(request.get("letters"), list[Letter])
    except msgspec.ValidationError as error:
        raise Rejected(f"`letters`: {error}") from error
    if request.get("op") != "append" or len(letters) > LETTERS_MAX:
        raise Rejected(f"expected op `append` with at most {LETTERS_MAX} letters")
    if sum(letter.bytes for letter in letters) != len(data) or any(letter.bytes < 0 for letter in letters):
        raise Rejected("the bodies are not as long as the letters say")
    bodies, at = [], 0
    for letter in letters:
        bodies.append(bytes(data[at : at + letter.bytes]))
        at += letter.bytes
    return letters, bodies


def refused(verdict: Verdict) -> dict[str, Any]:
    """What the door says against a body."""
    first, count = verdict.refused[0], len(verdict.refused)
    more = f" ({count} of {verdict.events} events are refused)" if verdict.events > 1 else ""
    return {"refused": first.reason + more, "field": first.field}


def completed(body: bytes, add: Mapping[str, str]) -> bytes:
    """A single event with the members that it lacks; anything else as it is. A time is added only where the event says
    none at all."""
    try:
        event = msgspec.json.decode(body)
    except ERRORS:
        return body
    if not isinstance(event, dict) or "batch" in event:
        return body
    lacks = {name: value for name, value in add.items() if name not in event}
    if "originalTimestamp" in event:
        lacks.pop("timestamp", None)
    if not lacks:
        return body
    inside = msgspec.json.encode(lacks)[1:-1]
    return b"{" + inside + (b"," if event else b"") + body.lstrip()[1:]
