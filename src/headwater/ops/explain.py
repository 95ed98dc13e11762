"""``headwater explain``: where an event is and why, as a story. Pure functions over what was found in the raw log
(find.py) and what the node knows besides (known.py).

A message id may stand in the log several times: clients try again. Each copy has a position of its own, and a fate of
its own: one becomes a row, the others are duplicates, or rows too where they came further apart than the window.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headwater.event.position import EMPTY, Vector, WriterId
from headwater.event.record import OPERATOR
from headwater.kit.plural import counted
from headwater.ops.bodies import without_keys
from headwater.ops.find import Found, Searched
from headwater.ops.known import Known, Place, Row, Stand, vectors_of
from headwater.ops.standing import state_text

COPIES_MAX = 100
"""Copies that a story tells of."""


class Processing(msgspec.Struct, kw_only=True):
    """What became of an event."""

    state: str
    """row | duplicate | dead | filtered | pending | damaged | unknown"""
    says: str
    of: str | None = None
    """Of a duplicate: the position of the copy that is the row, where it is known."""
    reason: str | None = None
    field: str | None = None
    retried_at: str | None = None
    retried_as: str | None = None
    """Of a dead letter that was retried: the receipt of the new event."""


class Delivery(msgspec.Struct, kw_only=True):
    """An event in one destination."""

    state: str
    """there | pending | refused | nothing | missing | unknown"""
    says: str
    row: Row | None = None
    command: str | None = None
    """What mends it, or helps."""


class Copy(msgspec.Struct, kw_only=True):
    """One event at one position."""

    position: str
    found_by: str
    """message id | receipt | position: what was asked, as it was understood."""
    message_id: str
    stream: str
    received_at: str | None
    closed_ms: float | None
    """How long after its receipt its block was on its way to the disk, milliseconds."""
    in_raw: bool
    request: str | None
    """How it came, where the raw log still says so."""
    event: str | None = None
    """The event as it came, where the raw log still has it: text, without write keys and bytes that are no UTF-8."""
    acknowledged: bool = True
    retry_of: str | None = None
    processing: Processing
    destinations: dict[str, Delivery]


class Story(msgspec.Struct, kw_only=True):
    """The answer."""

    asked: str
    found: bool
    copies: list[Copy]
    more: int = 0
    """Copies beyond those that are told of."""
    searched: dict[str, Any]
    not_asked: list[str]
    """What could not be asked, and why."""


class Seen(msgspec.Struct, kw_only=True):
    """What is known of one position, wherever from."""

    place: Place
    message_id: str
    stream: str
    raw: Found | None = None
    letter: dict[str, Any] | None = None
    refused: dict[str, dict[str, Any]] = {}
    rows: dict[str, Row] = {}
    partition: int | None = None
    damaged: bool = False

    @property
    def position(self) -> str:
        """As text."""
        return text_of(self.place)

    @property
    def received(self) -> str:
        """When, as text that sorts."""
        if self.raw is not None:
            return time_text(self.raw.received_ns)
        if self.letter is not None:
            return str(self.letter["received"])
        return next((str(row.get("received_at", "")) for row in self.rows.values()), "")


def text_of(place: Place) -> str:
    """A position as text."""
    return f"{place[0]}-{place[1]}-{place[2]}"


def time_text(ns: int) -> str:
    """A node time, UTC, to the microsecond."""
    at = datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns % 10**9 // 1000:06d}Z"


def tell(
    asked: str,
    found: Sequence[Found],
    known: Known,
    searched: Searched | None,
    damaged: Sequence[Place] = (),
    places: Mapping[Place, str] | None = None,
) -> Story:
    """The story of what was found. ``damaged``: positions at which the raw log cannot be read. ``places``: only of
    these, which were asked for as a receipt or a position; other copies of their ids say what they are duplicates of.
    """
    seen = gathered(found, known)
    for place in damaged:
        seen.setdefault(place, Seen(place=place, message_id="", stream="", damaged=True))
    order = sorted(seen.values(), key=lambda one: (one.received, one.place))
    wanted = order if places is None else [one for one in order if one.place in places]
    told = [copy_of(one, order, known, places or {}) for one in wanted[:COPIES_MAX]]
    return Story(
        asked=asked,
        found=bool(told),
        copies=told,
        more=len(wanted) - len(told),
        searched=where(searched, known),
        not_asked=not_asked(known),
    )


def gathered(found: Iterable[Found], known: Known) -> dict[Place, Seen]:
    """Everything, by position."""
    seen: dict[Place, Seen] = {}
    for one in found:
        at = seen.setdefault(
            one.position, Seen(place=one.position, message_id=one.message_id, stream=one.stream)
        )
        at.raw, at.partition = one, one.slot % known.partitions
    for letter in known.letters:
        place = (letter["writer"], letter["log"], letter["seq"])
        if place not in seen and "destination" in letter:
            continue  # a destination's letter has no message id of its own; its position is known otherwise
        at = seen.setdefault(
            place, Seen(place=place, message_id=letter.get("message_id", ""), stream=letter["stream"])
        )
        if "destination" in letter:
            at.refused = {**at.refused, letter["destination"]: letter}
        else:
            at.letter = letter
    for name, stand in known.destinations.items():
        for row in stand.rows:
            if (place_ := place_of(row)) is None:
                continue
            at = seen.setdefault(
                place_,
                Seen(
                    place=place_, message_id=str(row.get("message_id", "")), stream=str(row.get("key_id", ""))
                ),
            )
            at.rows = {**at.rows, name: row}
            at.partition = int(row.get("_hw_partition", at.partition or 0))
    return seen


def place_of(row: Row) -> Place | None:
    """The origin of a row; None of one that Headwater did not write."""
    try:
        return f"{int(row['_hw_writer']):016x}", f"{int(row['_hw_log']):016x}", int(row["_hw_seq"])
    except (KeyError, ValueError):
        return None


def copy_of(one: Seen, order: Sequence[Seen], known: Known, places: Mapping[Place, str]) -> Copy:
    """One copy's part of the story."""
    raw = one.raw
    processing = processing_of(one, order, known)
    return Copy(
        position=one.position,
        found_by=places.get(one.place, "message id"),
        message_id=one.message_id,
        stream=one.stream,
        received_at=one.received or None,
        closed_ms=None if raw is None else round(max(0, raw.closed_ns - raw.received_ns) / 1e6, 3),
        in_raw=raw is not None,
        request=None if raw is None else request_of(raw),
        event=None if raw is None else without_keys(raw.body).decode("utf-8", "replace"),
        retry_of=raw.retry_of or None if raw is not None else None,
        processing=processing,
        destinations={
            name: delivery_of(one, name, stand, processing) for name, stand in known.destinations.items()
        },
    )


def request_of(raw: Found) -> str:
    """How it came."""
    place = f", event {raw.index + 1} of {raw.events}" if raw.events > 1 else ""
    return f"{raw.method} {raw.path} ({raw.dialect}){place}"


# -- processing


def processing_of(one: Seen, order: Sequence[Seen], known: Known) -> Processing:
    """What became of an event: from its dead letter or row where there is one, else from where processing stands."""
    if one.damaged:
        says = (
            "the raw log cannot be read there; `headwater log inspect` names the place, reconcile counts it"
        )
        return Processing(state="damaged", says=says)
    if one.letter is not None:
        return dead(one.letter)
    if one.rows or one.refused:
        return Processing(state="row", says="became a row")
    passed, behind = passes(vectors_of(known.processed), one)
    if passed is None:
        return Processing(state="unknown", says="nobody said how far processing is")
    if not passed:
        says = f"processing has not reached it: {behind}" if behind else "processing has not reached it"
        return Processing(state="pending", says="; ".join([says, *known.warnings]))
    if one.raw is not None and one.raw.refused:
        return Processing(
            state="dead", says=f"dead: {one.raw.refused}", reason=one.raw.refused, field=one.raw.field or None
        )
    return row_or_duplicate(one, order, known)


def dead(letter: Mapping[str, Any]) -> Processing:
    """From its dead letter."""
    field = letter.get("field") or None
    says = f"dead: {letter['reason']}" + (f" (field {field})" if field else "")
    retried = letter.get("retried_at")
    if retried:
        receipt = letter.get("retried_as")
        says += f"; retried at {retried}, " + (f"receipt {receipt}" if receipt else "outcome unknown")
    return Processing(
        state="dead",
        says=says,
        reason=letter["reason"],
        field=field,
        retried_at=retried,
        retried_as=letter.get("retried_as"),
    )


def row_or_duplicate(one: Seen, order: Sequence[Seen], known: Known) -> Processing:
    """Of an event that was processed, is no dead letter, and of which no destination showed a row."""
    others = [
        other
        for other in order
        if other is not one and (other.stream, other.message_id) == (one.stream, one.message_id)
    ]
    there = next((other for other in others if other.rows or other.refused), None)
    if there is not None:
        sure = any(covers(stand, one) for stand in known.destinations.values() if stand.error is None)
        says = f"duplicate of {there.position}" + (", within the dedupe window" if sure else ", as it seems")
        return Processing(state="duplicate", of=there.position, says=says)
    if one.stream == OPERATOR:
        return Processing(state="filtered", says="an operator's decision: it became a fact, and has no row")
    asked = [name for name, stand in known.destinations.items() if stand.error is None]
    earlier = next((o for o in others if o.place != one.place and not is_dead(o) and before(o, one)), None)
    if earlier is not None:
        return Processing(
            state="duplicate",
            of=earlier.position,
            says=f"duplicate of {earlier.position}, as it seems: no destination that was asked has a row of either",
        )
    if not asked or all(not covers(known.destinations[name], one) for name in asked):
        return Processing(
            state="row", says="processed: a row, unless a copy of it came before what was searched"
        )
    return Processing(
        state="unknown",
        says="processed, but no row of it and no earlier copy was found: the raw log no longer holds that copy, or "
        "its row was deleted by hand, or `destination adopt` left it out",
    )


def is_dead(one: Seen) -> bool:
    """Whether it never entered the ids seen."""
    return one.letter is not None or (one.raw is not None and bool(one.raw.refused))


def before(one: Seen, other: Seen) -> bool:
    """In the order of processing."""
    return (one.received, one.place) < (other.received, other.place)


def passes(vectors: Mapping[int, Vector], one: Seen) -> tuple[bool | None, str]:
    """Whether these vectors have passed an event, and in words how far they are from it. None: nobody knows."""
    if not vectors or (one.partition is not None and one.partition not in vectors):
        return None, ""  # of many nodes, its owner may not have answered
    writer, log, seq = int(one.place[0], 16), int(one.place[1], 16), one.place[2]
    known = [vectors.get(one.partition, EMPTY)] if one.partition is not None else list(vectors.values())
    least = min(vector[WriterId(writer)] for vector in known)
    if least > (log, seq):
        return True, ""
    if least.log == log:
        if seq == least.seq:
            return False, "it is the next one of its log"
        return False, f"{counted(seq - least.seq, 'event')} of its log come before it"
    return (
        False,
        "it stands in an earlier log of this writer" if least.log else "it has read nothing of this writer",
    )


# -- destinations


def covers(stand: Stand, one: Seen) -> bool:
    """Whether a destination has passed an event."""
    return bool(passes(vectors_of(stand.vectors), one)[0])


def delivery_of(one: Seen, name: str, stand: Stand, processing: Processing) -> Delivery:
    """An event in one destination."""
    if (row := one.rows.get(name)) is not None:
        return Delivery(state="there", says="there", row=row)
    if (letter := one.refused.get(name)) is not None:
        help_ = letter.get("help")
        return Delivery(
            state="refused",
            says=f"refused: {letter['reason']}" + (f" ({help_})" if help_ else ""),
            command=f"headwater dead show {one.position}",
        )
    if processing.state in ("duplicate", "dead", "filtered", "damaged"):
        return Delivery(state="nothing", says="nothing to deliver")
    passed, behind = passes(vectors_of(stand.vectors), one)
    if passed:
        if stand.error is not None:
            return Delivery(state="unknown", says=f"passed it; its row was not read: {stand.error}")
        if processing.state == "row":
            return Delivery(
                state="missing",
                says="passed it, and has no row of it: deleted by hand, or left out by its `start` or by "
                "`destination adopt`",
                command="headwater reconcile --deep",
            )
        return Delivery(state="unknown", says="passed it, and has no row of it")
    if passed is None:
        error = stand.error or "it has not said where it stands"
        return Delivery(state="unknown", says=error, command=stand.command)
    why = f": it is {state_text(stand.state, stand.reason)}"
    return Delivery(
        state="pending",
        says=f"not there yet{why}" + (f"; {behind}" if behind else ""),
        command=stand.command,
    )


# -- what was looked at


def where(searched: Searched | None, known: Known) -> dict[str, Any]:
    """What was searched."""
    raw: dict[str, Any] | None = None
    if searched is not None:
        raw = {
            "bytes": searched.bytes,
            "events": searched.events,
            "damaged_events": searched.damaged,
            "from": None if searched.first_ns is None else time_text(searched.first_ns),
            "to": None if searched.last_ns is None else time_text(searched.last_ns),
            "cut": searched.cut or None,
        }
    return {
        "raw": raw,
        "dead_letters": True,
        "destinations": [name for name, stand in known.destinations.items() if stand.error is None],
    }


def not_asked(known: Known) -> list[str]:
    """What could not be asked, and why."""
    unknown = [f"{name}: {one.error}" for name, one in known.destinations.items() if one.error is not None]
    return [*unknown, *(f"{name} does not answer: what only it knows is missing" for name in known.silent)]
