"""The envelope: the few fields of an event that decide whether it may enter, read without reading the rest.

A typed partial decode (speed.md D5): msgspec walks over everything, so syntax is checked whole, but only these fields
become objects. What msgspec does not check in what it skips is checked here: UTF-8, and nesting that is too deep.
Refused: what is no object, an unknown type, a track without an event name, ids that are no text or number or too long,
an event that is too large. Not refused: missing ids and odd timestamps, which processing can live with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import msgspec

from headwater.event.slots import NO_SLOT, affinity, slot_of

TYPES = ("track", "page", "screen", "identify", "group", "alias", "reset")
Type = Literal["track", "page", "screen", "identify", "group", "alias", "reset"]
AT = re.compile(r" - at `\$?\.?(.*)`$")
QUOTED = re.compile(r"`([^`]*)`")
MISSING = re.compile(r"^Object missing required field `(.*)`")
LENGTH = re.compile(r"^Expected `str` of length <= (\d+)")
WORDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
    "int | str | null": "text or a whole number",
    "str | null": "text",
}


class Limits(NamedTuple):
    """Bounds at the door, from collect's settings."""

    events_max: int = 5_000
    event_bytes_max: int = 262_144
    id_length_max: int = 512


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """One event that may not enter: which, why (what was expected), where in it. Answers list it as it is."""

    index: int
    reason: str
    field: str = ""


class Event(Protocol):
    """What is read of an event; an id is text, a number, or missing."""

    type: str | None
    event: str | None
    messageId: str | int | None
    anonymousId: str | int | None
    userId: str | int | None
    groupId: str | int | None
    previousId: str | int | None
    writeKey: str | None


class Verdict(msgspec.Struct, gc=False):
    """What the door learns about a body. Wholly refused when ``events`` equals the number of refusals."""

    body: bytes
    """As it is to be stored: as received, but on one line when it is a single event."""
    events: int
    """Events in the body, refused ones counted; 0 when the body as a whole could not be read."""
    refused: Sequence[Refusal] = ()
    """In order of index. With events = 0: one refusal, of the body."""
    slot: int = NO_SLOT
    single: bool = False
    """The body is one JSON object on one line."""
    write_key: str | None = None
    """The write key in the body, when there is one."""


class Envelope(Protocol):
    """The door's half of a dialect, with its limits: ``path`` is the request's path, which may tell the type."""

    def __call__(self, body: bytes, path: str) -> Verdict: ...


def event_type(limits: Limits) -> type[Any]:
    """The struct of an event under these limits, built so that msgspec checks them while it decodes."""
    text = Annotated[str, msgspec.Meta(max_length=limits.id_length_max)]
    whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    ident = text | whole | None  # other numbers are not read alike by everybody: two ids could become one
    fields: list[tuple[str, Any, Any]] = [("type", Type | None, None), ("event", str | None, None)]
    fields += [
        (name, ident, None) for name in ("messageId", "anonymousId", "userId", "groupId", "previousId")
    ]
    fields.append(("writeKey", str | None, None))
    return msgspec.defstruct("Event", fields, gc=False)


def slot_of_event(event: Event) -> int:
    """The slot of an event; NO_SLOT when it names none of the three ids."""
    anonymous = event.anonymousId
    if anonymous.__class__ is str and anonymous:
        return slot_of(anonymous)
    key = affinity(anonymous, event.previousId, event.userId, event.messageId)
    return NO_SLOT if key is None else slot_of(key)


def shortfall(event: Event, default: str | None) -> tuple[str, str] | None:
    """What a well-typed event lacks: reason and field."""
    kind = event.type or default
    if kind is None:
        return f"expected a type, one of {', '.join(TYPES)}; got none", "type"
    if kind == "track" and not event.event:
        return "expected the event's name; a track call must have one", "event"
    return None


def explain(error: BaseException) -> tuple[str, str]:
    """Reason and field of an error that decoding raised, in our words."""
    if isinstance(error, RecursionError):
        return "expected JSON that is nested less deeply", ""
    if isinstance(error, UnicodeDecodeError):
        return f"expected UTF-8: {error.reason} (byte {error.start})", ""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return f"expected JSON: {text.removeprefix('JSON is malformed: ')}", ""
    match = AT.search(text)
    field = match[1] if match else ""
    text = text[: match.start()] if match else text
    if text.startswith("Invalid enum value"):
        return (
            f"expected a type, one of {', '.join(TYPES)}; got {text.removeprefix('Invalid enum value ')}",
            field,
        )
    if missing := MISSING.match(text):
        return f"expected a field {missing[1]}", missing[1]
    if length := LENGTH.match(text):
        return f"expected at most {length[1]} characters", field
    return QUOTED.sub(lambda word: WORDS.get(word[1], word[1]), text[:1].lower() + text[1:]), field


def placed(error: BaseException, body: bytes) -> BaseException:
    """The error about text that is no UTF-8 with its place in the whole body: msgspec counts from the value's start."""
    if isinstance(error, UnicodeDecodeError):
        try:
            body.decode()
        except UnicodeDecodeError as whole:
            return whole
    return error


ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises on a bad body."""


def check_text(body: bytes) -> None:
    """UnicodeDecodeError unless the body is UTF-8; msgspec does not look at what it skips."""
    if not body.isascii():
        body.decode()


def one_line(body: bytes) -> bytes:
    """Valid JSON without raw line ends: they are allowed between tokens only, where a space means the same."""
    return body.translate(ONE_LINE) if NEWLINE in body or RETURN in body else body


NEWLINE, RETURN = b"\n\r"
"""As numbers: looking for bytes in bytes makes an exception inside (0.12 µs)."""
ONE_LINE = bytes.maketrans(b"\n\r", b"  ")


NO_CONTEXT = msgspec.Raw(b"null")


class Readers:
    """The decoders of one set of limits; envelopes of JSON dialects are written with these."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        event = event_type(limits)
        fields: list[Any] = [("batch", list[event]), ("writeKey", str | None, None)]  # type: ignore[valid-type]
        fields.append(("context", msgspec.Raw, NO_CONTEXT))
        batch = msgspec.defstruct("Batch", fields, gc=False)
        self.event = msgspec.json.Decoder(event).decode
        self.lines = msgspec.json.Decoder(event).decode_lines
        self.events = msgspec.json.Decoder(list[event]).decode  # type: ignore[valid-type]
        self.decode_batch = msgspec.json.Decoder(batch).decode

    def batch(self, body: bytes) -> tuple[list[Event], str | None, int]:
        """The events of a batch, its own write key, and the length of what it says about all of its events."""
        decoded: Any = self.decode_batch(body)
        return decoded.batch, decoded.writeKey, len(decoded.context)

    def single(self, body: bytes, default: str | None) -> Verdict:
        """A body that is one event."""
        try:
            event: Event = self.event(body)
            if not body.isascii():
                body.decode()
        except ERRORS as error:
            return refuse_body(body, *explain(placed(error, body)))
        if event.event is None or event.type is None:
            lack = shortfall(event, default)
        else:
            lack = None if event.event else shortfall(event, default)
        if len(body) > self.limits.event_bytes_max:
            lack = self.too_large(len(body)), ""
        if lack is not None:
            return Verdict(body, 1, (Refusal(0, *lack),), write_key=event.writeKey)
        return Verdict(one_line(body), 1, (), slot_of_event(event), True, event.writeKey)

    def too_large(self, size: int) -> str:
        return f"expected at most {self.limits.event_bytes_max} bytes, got {size}"

    def lacks(self, events: Iterable[Event], default: str | None) -> list[Refusal]:
        """Refusals of events that were decoded."""
        return [
            Refusal(index, *lack)
            for index, event in enumerate(events)
            if (event.type is None or not event.event) and (lack := shortfall(event, default))
        ]

    def one_by_one(
        self, raws: Iterable[bytes | msgspec.Raw], default: str | None
    ) -> tuple[list[Refusal], list[Event]]:
        """Refusals, and the good events, when decoding all at once failed or sizes must be looked at."""
        refused: list[Refusal] = []
        good: list[Event] = []
        for index, raw in enumerate(raws):
            data = bytes(raw)
            try:
                event: Event = self.event(data)
            except ERRORS as error:
                refused.append(Refusal(index, *explain(placed(error, data))))
                continue
            lack = shortfall(event, default)
            if len(data) > self.limits.event_bytes_max:
                lack = self.too_large(len(data)), ""
            if lack is None:
                good.append(event)
            else:
                refused.append(Refusal(index, *lack))
        return refused, good

    def many(
        self,
        body: bytes,
        events: Sequence[Event] | None,
        raws: Any,
        default: str | None,
        write_key: str | None,
    ) -> Verdict:
        """A body of several events: decoded ones, or ``raws()`` of them when they could not be decoded at once."""
        if events is None or len(body) > self.limits.event_bytes_max:
            items: Sequence[Any] = raws()
            count = len(items)
            if count <= self.limits.events_max:
                refused, events = self.one_by_one(items, default)
        else:
            count = len(events)
            if count <= self.limits.events_max:
                refused = self.lacks(events, default)
        if not count:
            return refuse_body(body, "expected at least one event, got none", "")
        if count > self.limits.events_max:
            return refuse_body(body, f"expected at most {self.limits.events_max} events, got {count}", "")
        if write_key is None and events:
            write_key = events[0].writeKey
        return Verdict(body, count, refused, write_key=write_key)


def refuse_body(body: bytes, reason: str, field: str = "") -> Verdict:
    """The body as a whole is refused; it counts as one event."""
    return Verdict(body, 1, (Refusal(0, reason, field),))


@cache
def usual() -> Readers:
    """Readers with the default limits."""
    return Readers(Limits())


def reason(item: bytes, default: str | None) -> tuple[str, str]:
    """(reason, field) for which the door refused an item of a batch, as far as it stands in the item itself: the
    request is answered with it, the log keeps only which items were refused."""
    refused, _ = usual().one_by_one([item], default)
    return (refused[0].reason, refused[0].field) if refused else ("refused at the door", "")
