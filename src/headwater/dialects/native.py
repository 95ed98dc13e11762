"""Headwater's own: `POST /events` with one object, an array, or one object on each line (NDJSON).

Which of them it is follows from the first byte, not from Content-Type: beacons and shell scripts send what they can.
One object over several lines is one event; a body that is not one JSON value is taken line by line, where a line that
is no event is refused alone and the last line needs no end. The type is `track` when an event says none.
"""

from __future__ import annotations

import msgspec

from headwater.dialects.envelope import (
    ERRORS,
    NEWLINE,
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
from headwater.dialects.split import Split, array_of, decode_items, exactly
from headwater.event.record import Head

NAME = "native"
PATHS = ("/events",)
DEFAULT_TYPE = "track"


check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def envelope(limits: Limits) -> Envelope:
    """The door's half."""
    readers = Readers(limits)

    def read(body: bytes, path: str) -> Verdict:
        if body[:1] == b"{":
            if NEWLINE not in body:
                return readers.single(body, DEFAULT_TYPE)
            return object_or_lines(readers, body)
        start = body.lstrip()[:1]
        if start == b"[":
            return array(readers, body)
        return object_or_lines(readers, body)

    return read


def object_or_lines(readers: Readers, body: bytes) -> Verdict:
    """One object when the body is one JSON value, else lines."""
    if is_one_value(body):
        return readers.single(body, DEFAULT_TYPE)
    try:
        check_text(body)
        try:
            events = readers.lines(body)
        except ERRORS:
            events = None
        return readers.many(body, events, lambda: lines_of(body), DEFAULT_TYPE, None)
    except ERRORS as error:
        return refuse_body(body, *explain(error))


def is_one_value(body: bytes) -> bool:
    """Whether a body is read as one value, not as lines; asked again by ``split``, so it looks at the body alone.

    Lines: it is no JSON as a whole, but one of its lines is an object. Broken JSON over several lines stays one.
    """
    if is_json(body):
        return True
    lines = lines_of(body)
    return len(lines) < 2 or not any(line.lstrip()[:1] == b"{" and is_json(line) for line in lines)


def is_json(data: bytes) -> bool:
    """Whether these bytes are one JSON value of any kind."""
    try:
        check_syntax(data)
    except ERRORS:
        return False
    return True


def array(readers: Readers, body: bytes) -> Verdict:
    """All at once; one by one only when that fails or when one of them could be too large."""
    try:
        check_text(body)
        try:
            events = readers.events(body)
        except ERRORS:
            events = None
        return readers.many(body, events, lambda: decode_items(body), DEFAULT_TYPE, None)
    except ERRORS as error:
        return refuse_body(body, *explain(error))


def lines_of(body: bytes) -> list[bytes]:
    """The lines that are not empty."""
    return [line for line in body.split(b"\n") if line and not line.isspace()]


def split(head: Head, body: bytes, events: int) -> Split:
    """Processing's half."""
    if body.lstrip()[:1] == b"[":
        return array_of(body, events)
    if is_one_value(body):
        return exactly(events, body, [one_line(body)])
    return exactly(events, body, [one_line(line) for line in lines_of(body)])


def default_type(head: Head) -> str:
    """The type of an event whose body says none."""
    return DEFAULT_TYPE


def why(head: Head, item: bytes) -> tuple[str, str]:
    """Of an item that was refused."""
    return reason(item, DEFAULT_TYPE)
