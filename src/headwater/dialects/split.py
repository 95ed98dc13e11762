"""What splitting a record gives to processing: canonical JSON objects, exactly as many as the door counted."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.dialects.envelope import ERRORS, one_line


class Split(msgspec.Struct, frozen=True):
    """The events of one record. ``items[i]`` is the i-th event as one line of JSON; what the door refused, or what
    failed, stands there as it came and is dead."""

    items: Sequence[bytes]
    sent_at: str | None = None
    """The client's clock when it sent the batch, as text; events may have their own `sentAt`."""
    context: bytes | None = None
    """JSON object whose members an event's own `context` lacks: what the batch says about all of its events."""
    failure: str | None = None
    """Why the record could not be split: all of its items are dead."""


class BatchBody(msgspec.Struct):
    """A batch, its events unread."""

    batch: list[msgspec.Raw]
    sentAt: msgspec.Raw = msgspec.Raw(b"null")
    context: msgspec.Raw = msgspec.Raw(b"null")


decode_batch = msgspec.json.Decoder(BatchBody).decode
decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def failed(body: bytes, events: int, reason: str) -> Split:
    """As many items as were counted, all dead; the first holds the body."""
    return Split([body, *[b""] * (events - 1)], failure=reason)


def exactly(
    events: int, body: bytes, items: Sequence[bytes], sent_at: str | None = None, context: bytes | None = None
) -> Split:
    """A split that kept the door's count, else a failed one."""
    if len(items) != events:
        return failed(body, events, f"the door counted {events} events, splitting gave {len(items)}")
    return Split(items, sent_at, context)


def batch_of(body: bytes, events: int) -> Split:
    """`{"batch": [...], "sentAt": …, "context": {…}}`."""
    try:
        batch = decode_batch(one_line(body))
    except ERRORS as error:
        return failed(body, events, f"not a batch: {error}")
    sent_at = batch.sentAt
    try:
        text = msgspec.json.decode(sent_at) if len(sent_at) < 64 else None
    except ERRORS:
        text = None
    context = bytes(batch.context)
    return exactly(
        events,
        body,
        [bytes(item) for item in batch.batch],
        text if isinstance(text, str) else None,
        context if context.startswith(b"{") else None,
    )


def array_of(body: bytes, events: int) -> Split:
    """`[{…}, {…}]`."""
    try:
        return exactly(events, body, [bytes(item) for item in decode_items(one_line(body))])
    except ERRORS as error:
        return failed(body, events, f"not an array: {error}")
