"""What a log owes to those whom it answered and to those who read it; knows nothing of how it is done.

``Obligations`` hears of every answer, every block that a reader takes and every end that is decided. It raises
``Violation`` with the id of the invariant that does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from headwater.event.position import Position, Vector, WriterId
from headwater.event.record import decode_payload
from headwater.log.cut import Cut
from headwater.log.files import End
from headwater.log.read import Block


class Violation(AssertionError):
    """An invariant does not hold."""


class Place(NamedTuple):
    """Where the events of one record begin."""

    writer: int
    log: int
    first: int


@dataclass(slots=True)
class Sent:
    """A record as its client knows it; moments count appends and answers."""

    place: Place
    events: int
    body: bytes
    received: int
    answered: int | None = None


def violated(invariant: str, text: str) -> None:
    raise Violation(f"{invariant}: {text}")


@dataclass
class Obligations:
    """The oracle of one simulation."""

    moment: int = 0
    acknowledged: dict[Place, Sent] = field(default_factory=dict)
    content: dict[Place, bytes] = field(default_factory=dict)
    """Every record that any reader ever saw, by place; never forgotten: a place is given once (INV-LOG-3)."""
    seen: dict[Place, bytes] = field(default_factory=dict)
    """Those of them that nobody may take away again."""
    ends: dict[tuple[int, int], End] = field(default_factory=dict)
    assigned: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of each log: the next number that nobody was promised."""
    creators: dict[tuple[int, int], str] = field(default_factory=dict)
    disorder: str = ""
    retired: dict[WriterId, Position] = field(default_factory=dict)
    harmed: dict[tuple[int, int], list[range]] = field(default_factory=dict)
    """Of each log: numbers whose bytes the disk did harm to, or said falsely that they are durable."""
    promised: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of each log: what its watermark said when its end was decided."""
    lost: dict[tuple[int, int], set[range]] = field(default_factory=dict)
    """Of each log: the stretches that were told to be damaged."""

    def sent(self, place: Place, events: int, body: bytes) -> Sent:
        """A client has sent a record; nothing is owed yet."""
        self.moment += 1
        log = (place.writer, place.log)
        self.assigned[log] = max(self.assigned.get(log, 0), place.first + events)
        return Sent(place, events, body, self.moment)

    def answered(self, sent: Sent) -> None:
        """A client got its 2xx."""
        self.moment += 1
        sent.answered = self.moment
        known = self.acknowledged.setdefault(sent.place, sent)
        if known is not sent:
            violated("INV-LOG-3", f"{sent.place} was acknowledged twice")
        self.once(sent.place, sent.body)

    def once(self, place: Place, body: bytes) -> None:
        """A place holds one content, for ever."""
        if self.content.setdefault(place, body) != body:
            violated("INV-LOG-3", f"{place} was given twice, with different content")

    def written(self, writer: int, log: int, process: str) -> None:
        """A process writes into a segment of a log."""
        creator = self.creators.setdefault((writer, log), process)
        if creator != process:
            violated("INV-LOG-4", f"log {log:x} of {creator} is written by {process}")

    def ended(self, writer: int, end: End) -> None:
        """Somebody can see the end of a log."""
        known = self.ends.setdefault((writer, end.log), end)
        if known != end:
            violated("INV-LOG-4", f"the end of {end.log:x} was {known}, now it is {end}")
        if end.seq > self.assigned.get((writer, end.log), 0):
            violated("INV-LOG-3", f"{end.log:x} ends at {end.seq}, where nothing of it was ever written")
        for stretch in end.damaged:
            self.damage(writer, end.log, range(stretch.first, stretch.next))
            if stretch.next == end.seq != self.promised.get((writer, end.log)):
                violated("INV-LOG-1", f"the torn tail of {end.log:x} is called damage: {end}")

    def harm(self, writer: int, log: int, numbers: range) -> None:
        """The disk has spoilt these events, or will have if the machine goes now."""
        self.harmed.setdefault((writer, log), []).append(numbers)

    def survived(self, watermarks: dict[tuple[int, int], int], decided: set[tuple[int, int]]) -> None:
        """What the watermarks say before a recovery; of a log whose end is decided, what was said then stands."""
        self.promised = watermarks | {log: self.promised.get(log, 0) for log in decided}

    def damage(self, writer: int, log: int, numbers: range) -> None:
        """Somebody was told that these events are damaged: nobody may be told so of what the disk kept."""
        self.lost.setdefault((writer, log), set()).add(numbers)
        harmed = self.harmed.get((writer, log), [])
        for place in self.acknowledged:
            here = place[:2] == (writer, log) and place.first in numbers
            if here and not any(place.first in one for one in harmed):
                violated("INV-LOG-1", f"{place} was acknowledged and is called damaged: {numbers}")
        if not harmed:
            violated("INV-LOG-1", f"more than one block of {log:x} was not durable: {numbers}")

    def excused(self, place: Place) -> bool:
        """Gone through the disk's fault, and told: as damage, or because not even the watermark knew of it."""
        log = place[:2]
        if not any(place.first in one for one in self.harmed.get(log, [])):
            return False
        end = self.ends.get(log)
        unknown = end is not None and place.first >= end.seq >= self.promised.get(log, 0)
        return unknown or any(place.first in numbers for numbers in self.lost.get(log, ()))

    def records(self, block: Block) -> dict[Place, tuple[bytes, int]]:
        """Bodies and numbers of events of a block."""
        if block.payload is None:
            header = block.header
            self.damage(block.writer, header.log_id, range(header.first_seq, header.next_seq))
            return {}
        payload = decode_payload(block.payload)
        first = block.header.first_seq
        return {
            Place(block.writer, block.header.log_id, first + int(payload.first_event[i])): (
                bytes(payload.body(i)),
                int(payload.stamps["events"][i]),
            )
            for i in range(len(payload.stamps))
        }

    def took(self, reader: Follower, cut: Cut) -> None:
        """A reader got a cut: everything in it was in order, new to it, and is there for good."""
        latest = 0
        for block in cut.blocks:
            reader.step(block, self.ends)
            for place, (body, _) in self.records(block).items():
                self.once(place, body)
                self.seen[place] = body
                reader.consumed.add(place)
                if place in self.acknowledged:
                    latest = max(latest, self.acknowledged[place].received)
                elif place in reader.received:
                    latest = max(latest, reader.received[place])
        for place, sent in self.acknowledged.items():
            late = sent.answered is not None and sent.answered < latest
            missing = place not in reader.consumed and not self.is_retired(place)
            if late and missing and not self.excused(place):
                self.disorder = self.disorder or f"a cut left out {place}, acknowledged before a part of it"

    def in_order(self) -> None:
        """Asked at the end, so that a loss is called a loss."""
        if self.disorder:
            violated("INV-ORD-1", self.disorder)

    def is_retired(self, place: Place) -> bool:
        """Everybody has passed it; it may be gone."""
        return (place.log, place.first) < self.retired.get(WriterId(place.writer), Position(0, 0))

    def given_back(self, writer: WriterId, safe: Position, reader: Follower) -> None:
        """What lies below ``safe`` may go, since the reader has it; whether it really has, is looked at here."""
        for place in self.acknowledged:
            passed = place.writer == writer and (place.log, place.first) < safe and not self.is_retired(place)
            if passed and place not in reader.consumed and not self.excused(place):
                violated(
                    "INV-LOG-1", f"{place} was acknowledged, and a reader went past it without getting it"
                )
        self.retired[writer] = max(safe, self.retired.get(writer, safe))

    def read_again(self, blocks: list[Block]) -> None:
        """After everything: what was acknowledged or seen is there, at its place, byte by byte."""
        found: dict[Place, bytes] = {}
        for block in blocks:
            for place, (body, _) in self.records(block).items():
                self.once(place, body)
                found[place] = body
        for place, sent in self.acknowledged.items():
            if not self.is_retired(place) and found.get(place) != sent.body and not self.excused(place):
                violated("INV-LOG-1", f"{place} was acknowledged and is gone")
        for place, body in self.seen.items():
            if not self.is_retired(place) and found.get(place) != body and not self.excused(place):
                violated("INV-LOG-2", f"{place} was read and is gone")

    def restored(self, acknowledged: dict[Place, Sent], seen: dict[Place, bytes], ends: dict) -> None:
        """The folder is an older copy: what came after it is not owed any more, but its places stay given."""
        self.acknowledged = dict(acknowledged)
        self.seen = dict(seen)
        self.ends = dict(ends)


@dataclass
class Follower:
    """A reader that goes on from where it stood, across crashes; its vector is kept elsewhere."""

    at: Vector = field(default_factory=Vector)
    consumed: set[Place] = field(default_factory=set)
    received: dict[Place, int] = field(default_factory=dict)
    """Moments of records that were never answered."""
    lost: set[tuple[WriterId, int]] = field(default_factory=set)
    """Logs in which it stood when the folder became an older copy."""
    next: dict[WriterId, Position] = field(default_factory=dict)

    def step(self, block: Block, ends: dict[tuple[int, int], End]) -> None:
        """One block after the other, no gap, no log left early (INV-LOG-5)."""
        log, seq = self.next.get(block.writer, Position(0, 0))
        header = block.header
        if header.log_id == log:
            if header.first_seq != seq:
                violated("INV-LOG-5", f"a reader at {log:x}.{seq} got {header.log_id:x}.{header.first_seq}")
        else:
            if header.log_id < log or header.first_seq != 0:
                violated("INV-LOG-5", f"a reader at {log:x}.{seq} got {header.log_id:x}.{header.first_seq}")
            between = [end for (w, g), end in ends.items() if w == block.writer and log <= g < header.log_id]
            for end in between:
                if end.seq > (seq if end.log == log else 0):
                    violated("INV-LOG-5", f"a reader at {log:x}.{seq} left out {end.log:x} up to {end.seq}")
            if log and (block.writer, log) not in ends and (block.writer, log) not in self.lost:
                violated("INV-LOG-5", f"a reader left {log:x} before its end was decided")
        self.next[block.writer] = block.after
