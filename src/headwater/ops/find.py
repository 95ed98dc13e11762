"""Finding events in the raw log by their message id, or by position. Reads files only, so it works on a stopped node.

Each block below the watermark is verified and searched for the bytes of the id; only records that contain them are
taken apart, with their dialect, as processing does it. Memory: what is read at once (4 MiB) and its decoding. Measured:
1.2 s of CPU for a GiB in the page cache, with a `\\u` escape in every event; half of it is reading and hashing.

What the bytes of an id may look like in a body: as they are, JSON-escaped in the usual ways (`\\"`, `\\/`, `\\u00e9`),
with any character written as `\\uXXXX`, URL-encoded and as base64 (the pixel). Not found: an id in an event that an
erasure has blanked, and one whose URL-encoding escapes letters or digits.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

from headwater.dialects.registry import DIALECTS
from headwater.event.position import Position, WriterId
from headwater.event.record import DEAD, ELSEWHERE, ERASED, SINGLE, Head, Payload, decode_head, decode_payload
from headwater.event.slots import NO_SLOT, affinity, slot_of
from headwater.kit.disk import Disk
from headwater.log import files, retain
from headwater.log.block import BLOCK_BYTES_MAX, Secret
from headwater.log.cut import WRITER
from headwater.log.files import Segment
from headwater.log.read import Block, LogReader
from headwater.log.ready import EVERYTHING

ID_CHARS_MAX = 512
FOUND_MAX = 1000
"""Copies of one id; more of them tell nothing more."""
TOLD_MAX = 100
"""Of them, what one node tells another."""
LIKE_AN_ID = re.compile(rb'"messageId"\s*:\s*"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,200})"')
"""In text that is not JSON."""
DERIVED = "hw-"
"""How the id begins that an event without one gets (protocol.md §17.14)."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One event in the raw log."""

    writer: str
    log: str
    seq: int
    message_id: str
    stream: str
    """The id of its write key."""
    received_ns: int
    closed_ns: int
    """When its block was written to disk, node time."""
    dialect: str
    method: str
    path: str
    slot: int
    events: int
    """Of its request."""
    index: int
    """Its place among them."""
    refused: str = ""
    """Why the door refused it; "" where it did not."""
    field: str = ""
    retry_of: str = ""
    """The dead letter that it was retried from (`headwater dead retry`)."""
    body: bytes = b""
    """The event as it came."""

    @property
    def position(self) -> tuple[str, str, int]:
        """Writer, log and number."""
        return self.writer, self.log, self.seq


@dataclass(slots=True)
class Searched:
    """What was looked at."""

    bytes: int = 0
    events: int = 0
    damaged: int = 0
    """Events in stretches that cannot be read."""
    first_ns: int | None = None
    """Node time of the oldest and the newest block that was searched."""
    last_ns: int | None = None
    cut: str = ""
    """Why the search stopped before the end; "" where it did not."""

    def add(self, block: Block) -> None:
        """A block was searched."""
        self.bytes += block.header.disk_bytes
        if block.payload is None:
            self.damaged += block.header.events
            return
        self.events += block.header.events
        at = block.header.node_time_ns
        self.first_ns = at if self.first_ns is None else min(self.first_ns, at)
        self.last_ns = at if self.last_ns is None else max(self.last_ns, at)


Progress = Callable[[int, int], bool]
"""Bytes searched and in all; False ends the search."""


@dataclass(frozen=True, slots=True)
class RawLog:
    """The raw log of a data folder."""

    disk: Disk
    path: str
    secret: Secret

    def writers(self) -> list[tuple[WriterId, str]]:
        """Each writer with its folder."""
        names = self.disk.listdir(self.path) if self.disk.exists(self.path) else []
        return [(WriterId(int(name, 16)), f"{self.path}/{name}") for name in names if WRITER.match(name)]

    def segments(self, folder: str, since_ns: int | None, until_ns: int | None) -> list[Segment]:
        """The segments of a writer that can hold events received in this time."""
        found = files.segments(self.disk, folder)
        if since_ns is None and until_ns is None:
            return found
        begins = [retain.node_time_ns(self.disk, segment, self.secret) for segment in found]
        ends = [*begins[1:], 1 << 63]
        return [
            segment
            for segment, begin, end in zip(found, begins, ends, strict=True)
            if (until_ns is None or begin <= until_ns + CLOSING_NS) and (since_ns is None or end >= since_ns)
        ]


CLOSING_NS = 60_000_000_000
"""A block is written after its events were received: soon, unless the disk hangs."""


class Search:
    """A search for one message id; ``run`` gives what is found, ``searched`` says where."""

    def __init__(
        self, raw: RawLog, message_id: str, *, since_ns: int | None = None, until_ns: int | None = None
    ) -> None:
        self.raw = raw
        self.message_id = message_id
        self.needles = Needles(message_id)
        self.since_ns = since_ns
        self.until_ns = until_ns
        self.searched = Searched()
        self.chunk: object = None
        """What was read from a file at once, which holds several blocks; it is searched as a whole first, without a
        copy."""
        self.chunk_has_it = False

    def run(self, progress: Progress = lambda done, total: True) -> Iterator[Found]:
        """Every event with the id, in the order of writers and logs."""
        parts = [
            (writer, folder, self.raw.segments(folder, self.since_ns, self.until_ns))
            for writer, folder in self.raw.writers()
        ]
        total = sum(size(self.raw.disk, one.path) for _, _, segments in parts for one in segments)
        count = 0
        for writer, folder, segments in parts:
            for block in blocks(self.raw, folder, writer, segments):
                self.searched.add(block)
                for found in self.look(block):
                    yield found
                    count += 1
                if count >= FOUND_MAX:
                    self.searched.cut = f"{FOUND_MAX} copies were found"
                    return
                if not progress(self.searched.bytes, total):
                    self.searched.cut = "its time was over"
                    return

    def look(self, block: Block) -> Iterator[Found]:
        """What a block holds of it."""
        if block.payload is None or not self.in_chunk(block.payload):
            return
        data = bytes(block.payload)
        payload = decode_payload(memoryview(data))
        bodies_at = len(data) - len(payload.bodies)
        for record in self.needles.records(data, bodies_at, payload):
            for found in events_of(block, payload, record):
                if found.message_id == self.message_id and self.in_time(found.received_ns):
                    yield found

    def in_chunk(self, payload: memoryview) -> bool:
        """Whether the id may stand in what was read together with this payload."""
        if payload.obj is not self.chunk:
            self.chunk = payload.obj
            self.chunk_has_it = not isinstance(payload.obj, bytes) or self.needles.in_block(payload.obj)
        return self.chunk_has_it

    def in_time(self, received_ns: int) -> bool:
        """Whether it was asked for."""
        return (self.since_ns is None or received_ns >= self.since_ns) and (
            self.until_ns is None or received_ns <= self.until_ns
        )


def size(disk: Disk, path: str) -> int:
    """Bytes of a file; 0 where it has just been given back."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return 0
    try:
        return disk.size(file)
    finally:
        disk.close(file)


def blocks(raw: RawLog, folder: str, writer: WriterId, segments: list[Segment]) -> Iterator[Block]:
    """The durable blocks of these segments, which follow one another."""
    if not segments:
        return
    first, last = segments[0], segments[-1]
    behind = [s for s in files.segments(raw.disk, folder) if (s.log, s.first) > (last.log, last.first)]
    until = Position(behind[0].log, behind[0].first) if behind else None
    start = Position(first.log, first.first)
    reader = LogReader(raw.disk, folder, writer, start, until, secret=raw.secret)
    try:
        while True:
            reader.fill(BLOCK_BYTES_MAX)
            taken = reader.take(EVERYTHING)
            if not taken:
                return
            yield from taken
    except FileNotFoundError:  # given back meanwhile: everybody has what it held
        return
    finally:
        reader.close()


@dataclass(slots=True)
class Looked:
    """What the raw log holds of what was asked for, and how to ask others for it."""

    found: list[Found]
    message_ids: list[str]
    places: dict[tuple[str, str, int], str] | None
    """Positions that were asked for, and whether as a receipt or a position; None: it was a message id."""
    damaged: list[tuple[str, str, int]]
    searched: Searched | None
    """None where positions told where to look."""


def told(looked: Looked) -> dict[str, Any]:
    """As it travels to another node: at most ``TOLD_MAX`` copies, then it says that there are more."""
    searched = looked.searched
    if searched is not None and len(looked.found) > TOLD_MAX:
        searched = replace(searched, cut=f"{TOLD_MAX} copies were found there")
    return {
        "found": looked.found[:TOLD_MAX],
        "message_ids": looked.message_ids,
        "places": None
        if looked.places is None
        else [[*place, kind] for place, kind in looked.places.items()],
        "damaged": looked.damaged,
        "searched": searched,
    }


def of_told(told: Mapping[str, Any]) -> Looked:
    """Back from ``told`` and JSON."""
    places = told["places"]
    searched = told["searched"]
    return Looked(
        [msgspec.convert(one, Found) for one in told["found"]],
        list(told["message_ids"]),
        None if places is None else {(one[0], one[1], one[2]): one[3] for one in places},
        [(one[0], one[1], one[2]) for one in told["damaged"]],
        None if searched is None else Searched(**searched),
    )


def together(own: Looked, others: Iterable[Looked]) -> Looked:
    """What the raw logs of several nodes hold."""
    every = [own, *others]
    places = {place: kind for one in every for place, kind in (one.places or {}).items()}
    known = [one.searched for one in every if one.searched is not None]
    return Looked(
        [found for one in every for found in one.found],
        list(dict.fromkeys(text for one in every for text in one.message_ids)),
        places or None,
        [place for one in every for place in one.damaged],
        searched_together(known) if known else None,
    )


def searched_together(known: Sequence[Searched]) -> Searched:
    """What was looked at in all of them."""
    firsts = [one.first_ns for one in known if one.first_ns is not None]
    lasts = [one.last_ns for one in known if one.last_ns is not None]
    return Searched(
        sum(one.bytes for one in known),
        sum(one.events for one in known),
        sum(one.damaged for one in known),
        min(firsts, default=None),
        max(lasts, default=None),
        next((one.cut for one in known if one.cut), ""),
    )


POSITION = re.compile(r"(hw-)?([0-9a-f]{16})-([0-9a-f]{16})-(\d{1,19})(-\d{1,9})?")


def look(
    raw: RawLog,
    asked: str,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    progress: Progress = lambda done, total: True,
) -> Looked:
    """Look for a message id, a receipt, the origin of a dead letter (with or without its row), or an id that was made
    of a position."""
    match = POSITION.fullmatch(asked)
    if match is None:
        search = Search(raw, asked, since_ns=since_ns, until_ns=until_ns)
        found = list(search.run(progress))
        return Looked(found, [asked], None, [], search.searched)
    writer, log, seq = int(match[2], 16), int(match[3], 16), int(match[4])
    place = (match[2], match[3], seq)
    here = at_position(raw, writer, log, seq)
    damaged = [place] if not here and is_damaged(raw, writer, log, seq) else []
    request = [] if match[1] or match[5] else of_receipt(raw, writer, log, seq)
    ids = list(dict.fromkeys(one.message_id for one in (*request, *here)))
    places = {place: "position", **{one.position: "receipt" for one in request}}
    return Looked([*request, *here], ids, places, damaged, None)


def at_position(raw: RawLog, writer: int, log: int, seq: int) -> list[Found]:
    """The event at a position; none where the raw log does not hold it (any more)."""
    return [found for found in near(raw, writer, log, seq) if found.seq == seq]


def of_receipt(raw: RawLog, writer: int, log: int, seq: int) -> list[Found]:
    """The events of the request that got this receipt: those of the record that ends below ``seq``."""
    found = near(raw, writer, log, seq - 1) if seq else []
    last = next((one for one in found if one.seq == seq - 1), None)
    if last is None or last.index != last.events - 1:
        return []
    return [one for one in found if seq - last.events <= one.seq < seq]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the raw log still says about the request that an event came with."""

    head: Head
    address: bytes
    flags: int
    first_seq: int
    """Of its first event."""
    events: int


class Requests:
    """Requests by the positions of their events; asked in rising order, each block is read once."""

    def __init__(self, raw: RawLog) -> None:
        self.raw = raw
        self.block: Block | None = None

    def of(self, writer: int, log: int, seq: int) -> Request | None:
        """The request of an event; None where the raw log does not hold it any more."""
        if not self.holds(writer, log, seq):
            self.block = block_of(self.raw, writer, log, seq)
        if self.block is None or self.block.payload is None:
            return None
        payload = decode_payload(self.block.payload)
        first = self.block.header.first_seq
        record = int(payload.first_event.searchsorted(seq - first, "right")) - 1
        stamp = payload.stamps[record]
        if stamp["flags"] & ELSEWHERE:
            return None
        return Request(
            head=decode_head(payload.heads[int(stamp["head"])]),
            address=stamp.tobytes()[8:24],
            flags=int(stamp["flags"]),
            first_seq=first + int(payload.first_event[record]),
            events=int(stamp["events"]),
        )

    def holds(self, writer: int, log: int, seq: int) -> bool:
        """Whether the block in hand has the event."""
        if self.block is None or int(self.block.writer) != writer or self.block.header.log_id != log:
            return False
        return self.block.header.first_seq <= seq < self.block.header.next_seq


def near(raw: RawLog, writer: int, log: int, seq: int) -> list[Found]:
    """The events of the block that holds a position."""
    block = block_of(raw, writer, log, seq)
    if block is None or block.payload is None:
        return []
    payload = decode_payload(block.payload)
    return [one for record in range(len(payload.stamps)) for one in events_of(block, payload, record)]


def is_damaged(raw: RawLog, writer: int, log: int, seq: int) -> bool:
    """Whether a position lies in a stretch of the log that cannot be read."""
    block = block_of(raw, writer, log, seq)
    return block is not None and block.payload is None


def block_of(raw: RawLog, writer: int, log: int, seq: int) -> Block | None:
    """The block that holds a position; None where the log does not hold it (any more)."""
    folder = f"{raw.path}/{writer:016x}"
    fitting = [s for s in files.segments(raw.disk, folder) if s.log == log and s.first <= seq]
    for block in blocks(raw, folder, WriterId(writer), fitting[-1:]):
        if block.header.log_id == log and block.header.next_seq > seq:
            return block
    return None


# -- from a record to its events


def events_of(block: Block, payload: Payload, record: int) -> Iterator[Found]:
    """The events of one record, as processing takes them apart (process/gather.py)."""
    stamp = payload.stamps[record]
    flags, events = int(stamp["flags"]), int(stamp["events"])
    if flags & ELSEWHERE:
        return
    head = decode_head(payload.heads[int(stamp["head"])])
    body = bytes(payload.body(record))
    first = block.header.first_seq + int(payload.first_event[record])
    items, reasons = taken_apart(head, body, flags, events, refused_in(payload, record))
    for index, item in enumerate(items):
        reason, field = reasons.get(index, ("", ""))
        place = f"{int(block.writer):016x}-{block.header.log_id:016x}-{first + index}"
        told = ids_of(item)
        message_id = told[3] or DERIVED + place
        yield Found(
            writer=f"{int(block.writer):016x}",
            log=f"{block.header.log_id:016x}",
            seq=first + index,
            message_id=message_id,
            stream=head.key_id,
            received_ns=int(stamp["received"]),
            closed_ns=block.header.node_time_ns,
            dialect=head.dialect,
            method=head.method,
            path=head.path,
            slot=slot(int(stamp["slot"]), told, message_id, bool(reason)),
            events=events,
            index=index,
            refused=reason,
            field=field,
            retry_of=retry_of(head),
            body=item,
        )


def refused_in(payload: Payload, record: int) -> list[int]:
    """Which events of a record the door refused."""
    before = int(payload.stamps["refused"][:record].sum())
    return [int(one) for one in payload.refused[before : before + int(payload.stamps["refused"][record])]]


def taken_apart(
    head: Head, body: bytes, flags: int, events: int, refused: list[int]
) -> tuple[list[bytes], dict[int, tuple[str, str]]]:
    """The items of a record, and (reason, field) of those that are refused."""
    if flags & ERASED:
        return [b"{}"] * events, {}
    if flags & DEAD:
        reason, _, field = head.refusal.partition("|")
        return [body, *[b"{}"] * (events - 1)], dict.fromkeys(
            range(events), (reason or "refused at the door", field)
        )
    if flags & SINGLE:
        return [body], {}
    dialect = DIALECTS[head.dialect]
    split = dialect.split(head, body, events)
    if split.failure is not None:
        return list(split.items), dict.fromkeys(range(events), (split.failure, ""))
    return list(split.items), {index: dialect.why(head, split.items[index]) for index in refused}


RETRY = "retry-of="
"""In the query of the head of a retried letter's record (collect/again.py)."""


def retry_of(head: Head) -> str:
    """The dead letter that a record was retried from."""
    return head.query.removeprefix(RETRY) if head.query.startswith(RETRY) else ""


Ids = tuple[Any, Any, Any, str | None]


def ids_of(item: bytes) -> Ids:
    """Anonymous id, previous id, user id and message id of an event; of what is no JSON, what looks like the last."""
    try:
        event = msgspec.json.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        looks = LIKE_AN_ID.search(item)
        return None, None, None, looks[1].decode() if looks else None
    if not isinstance(event, dict):
        return None, None, None, None
    told = event.get("messageId")
    if isinstance(told, int) and not isinstance(told, bool):
        told = str(told)
    named = (event.get(name) for name in ("anonymousId", "previousId", "userId"))
    return *named, told if isinstance(told, str) and told else None  # type: ignore[return-value]


def slot(stamped: int, ids: Ids, message_id: str, refused: bool) -> int:
    """The slot of an event: of what was refused only the message id is looked at (process/run.py)."""
    if stamped != NO_SLOT:
        return stamped
    anonymous, previous, user = (None, None, None) if refused else ids[:3]
    return slot_of(affinity(anonymous, previous, user, message_id) or "")


# -- the bytes to look for


class Needles:
    """What the bytes of an id may look like."""

    def __init__(self, message_id: str) -> None:
        self.plain = sorted(spelled(message_id))
        self.pixel = sorted(spelled_in_a_query(message_id) - set(self.plain))
        digits = [f"{unit:04x}" for unit in sorted(set(units(message_id)))]
        self.suspect = re.compile(rf"\\u(?:{'|'.join(digits)})".encode(), re.IGNORECASE)
        """Somewhere a character of the id is written as an escape."""
        self.escaped = re.compile(b"".join(map(any_way, message_id)))

    def in_block(self, data: bytes) -> bool:
        """Whether a payload may hold the id."""
        if any(needle in data for needle in self.plain):
            return True
        if b"pixel" in data and any(needle in data for needle in self.pixel):
            return True
        return b"\\u" in data and self.suspect.search(data) is not None and bool(self.escaped.search(data))

    def records(self, data: bytes, bodies_at: int, payload: Payload) -> list[int]:
        """The records whose bodies may hold it."""
        places = {at for needle in (*self.plain, *self.pixel) for at in all_places(data, needle, bodies_at)}
        places |= {match.start() for match in self.escaped.finditer(data, bodies_at)}
        starts = payload.body_start
        return sorted({int(starts.searchsorted(at - bodies_at, "right")) - 1 for at in places})


def all_places(data: bytes, needle: bytes, start: int) -> Iterator[int]:
    """Where a needle stands."""
    at = data.find(needle, start)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def spelled(text: str) -> set[bytes]:
    """An id as most serializers write it between quotes: as UTF-8, slashes plain or not. Other escapes: ``escaped``."""
    plain = msgspec.json.encode(text)[1:-1]
    return {plain, plain.replace(b"/", rb"\/")}


def spelled_in_a_query(text: str) -> set[bytes]:
    """An id as it stands in a URL: encoded, or inside of base64 at any of the three offsets."""
    encoded = {f(text, safe=safe) for f in (quote, quote_plus) for safe in ("", "/:@!$'()*,;~")}
    found = {one.encode() for one in encoded}
    found |= {re.sub(rb"%[0-9A-F]{2}", lambda m: m[0].lower(), one) for one in found}
    inside = msgspec.json.encode(text)[1:-1]
    for offset in range(3):
        whole = base64.urlsafe_b64encode(b"\0" * offset + inside).rstrip(b"=")
        known = whole[(0, 2, 3)[offset] : len(whole) - (0 if (offset + len(inside)) % 3 == 0 else 1)]
        if len(known) >= 4:
            found |= {known, known.replace(b"-", b"+").replace(b"_", b"/")}
    return found


def units(text: str) -> list[int]:
    """The UTF-16 code units of a text, which JSON escapes."""
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


def any_way(letter: str) -> bytes:
    """A pattern for all ways in which JSON may write a character."""
    ways = {re.escape(way) for way in spelled(letter)} | {re.escape(letter.encode("utf-8", "surrogatepass"))}
    ways.add("".join(rf"\\u(?i:{unit:04x})" for unit in units(letter)).encode())
    return b"(?:" + b"|".join(sorted(ways)) + b")"
