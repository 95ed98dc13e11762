"""The Segment HTTP API: one call per path, or a batch; its browser SDK's short paths too.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/ — the type of a single call may be
missing in the body, the path tells it. A batch has no default: each event says its type.
"""

from __future__ import annotations

import msgspec

from headwater.dialects.envelope import (
    ERRORS,
    NO_CONTEXT,
    TYPES,
    Envelope,
    Limits,
    Readers,
    Verdict,
    check_text,
    explain,
    one_line,
    reason,
    refuse_body,
)
from headwater.dialects.split import Split, batch_of, decode_batch, exactly
from headwater.event.record import Head

NAME = "segment"
SHORT = {"t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"}
TYPE_OF_PATH = {f"/v1/{name}": name for name in TYPES} | {
    f"/v1/{short}": name for short, name in SHORT.items()
}
BATCH_PATHS = ("/v1/batch", "/v1/b", "/v1/import")
PATHS = (*TYPE_OF_PATH, *BATCH_PATHS)


class BatchKey(msgspec.Struct):
    """The write key of a batch and what it says about all of its events, nothing else of it."""

    writeKey: str | None = None
    context: msgspec.Raw = NO_CONTEXT


CONTEXT_TIMES_MAX, CONTEXT_ROOM_BYTES = 8, 65_536
"""Each event gets the batch's context: a small request must not become large rows."""
decode_key = msgspec.json.Decoder(BatchKey).decode


def envelope(limits: Limits) -> Envelope:
    """The door's half."""
    readers = Readers(limits)
    single = readers.single
    type_of_path = TYPE_OF_PATH.get

    def read(body: bytes, path: str) -> Verdict:
        default = type_of_path(path)
        return batch(readers, body) if default is None else single(body, default)

    return read


def batch(readers: Readers, body: bytes) -> Verdict:
    """All at once; one by one only when that fails or when one of them could be too large."""
    try:
        check_text(body)
        try:
            events, write_key, context_bytes = readers.batch(body)
        except ERRORS:
            rest = decode_key(body)
            events, write_key, context_bytes = None, rest.writeKey, len(rest.context)
        verdict = readers.many(body, events, lambda: decode_batch(body).batch, None, write_key)
    except ERRORS as error:
        return refuse_body(body, *explain(error))
    if context_bytes * verdict.events > CONTEXT_ROOM_BYTES + CONTEXT_TIMES_MAX * len(body):
        told = f"expected a context that makes the batch at most {CONTEXT_TIMES_MAX} times as large"
        return refuse_body(
            body, f"{told}, got {context_bytes} bytes for each of {verdict.events} events", "context"
        )
    return verdict


def split(head: Head, body: bytes, events: int) -> Split:
    """Processing's half."""
    if head.path.rstrip("/") in BATCH_PATHS:
        return batch_of(body, events)
    return exactly(events, body, [one_line(body)])


def default_type(head: Head) -> str:
    """The type of an event whose body says none."""
    return TYPE_OF_PATH.get(head.path.rstrip("/"), "track")


def why(head: Head, item: bytes) -> tuple[str, str]:
    """Of an item that was refused: in a batch each says its type."""
    return reason(item, TYPE_OF_PATH.get(head.path.rstrip("/")))
