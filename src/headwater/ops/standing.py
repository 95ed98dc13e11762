"""Who stands where: the reports of processors and deliverers as values.

A report is of one moment in itself: counters belong to the vectors beside them. Two reports are not of one moment;
what compares them must hold for any two moments, or look at the vectors first (reconcile.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.config.report import Report
from headwater.event.commit import RESTARTED
from headwater.event.position import EMPTY, Position, Vector

Streams = dict[str, dict[str, int]]
"""Stream (= key id) → counter → events."""
Vectors = dict[int, Vector]
"""Partition → where it stands."""


@dataclass(frozen=True, slots=True)
class Processed:
    """All processors together: each owns its partitions, so their counters add up."""

    vectors: Vectors = field(default_factory=dict)
    streams: Streams = field(default_factory=dict)
    restarted: int = 0
    """Partitions that were taken over without any state: what was dropped of them before is not counted."""
    unread_homes: frozenset[str] = frozenset()
    """Of those, the homes whose older events could not be read: a copy of one of them counts as new."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One destination."""

    name: str
    state: str = "starting"
    """starting | delivering | catching_up | paused"""
    reason: str | None = None
    code: str | None = None
    command: str | None = None
    """What mends it."""
    vectors: Vectors = field(default_factory=dict)
    streams: Streams = field(default_factory=dict)
    """out, rows, dead, erased, skipped, revived: cumulative, at ``vectors``."""
    ready_passed: Mapping[str, Position] = field(default_factory=dict)
    """Of each processor's ready log: below it, this destination needs nothing any more."""
    lag_rows: int = 0
    lag_age_s: float = 0.0
    loaded_ns: int = 0
    """Node time of the last load since its process started; 0 when there was none."""
    remembered: Vectors = field(default_factory=dict)
    """Where it stood at least, as its deliverer remembers it; while nobody could ask it yet."""
    written_off: bool = False
    """The raw log need not be kept for it."""
    reckoned: bool = True
    """False while it has left out events that are not counted yet."""
    catching_up: Mapping[str, int] | None = None
    """How far its private run is: events_left, of events."""

    @property
    def needs(self) -> Vectors:
        """From where on it may ask for raw events."""
        return self.vectors or self.remembered


def passed(reports: Mapping[str, Report]) -> dict[str, dict[str, Any]]:
    """What a destination must know that begins where processing stands: vectors (hex) and `out` per partition, of one
    moment of each processor."""
    vectors: dict[str, str] = {}
    out: dict[str, dict[str, int]] = {}
    for report in reports.values():
        for group in report.detail.get("vectors", []):
            vectors.update({str(p): group["vector"] for p in group["partitions"]})
        for stream, partitions in report.detail.get("out", {}).items():
            for partition, count in partitions.items():
                out.setdefault(partition, {})[stream] = count
    return {"vectors": vectors, "passed": out}


def processed(reports: Mapping[str, Report]) -> Processed:
    """From the reports of the processors."""
    vectors: Vectors = {}
    streams: Streams = {}
    for report in reports.values():
        for group in report.detail.get("vectors", []):
            vector = Vector.decode(bytes.fromhex(group["vector"]))
            vectors.update(dict.fromkeys(group["partitions"], vector))
        for stream, counters in report.detail.get("counters", {}).items():
            total = streams.setdefault(stream, {})
            for name, count in counters.items():
                total[name] = total.get(name, 0) + count
    restarted = streams.pop(RESTARTED, {}).get("in", 0)
    seeding = [report.detail.get("seeding", {}) for report in reports.values()]
    unread = frozenset(home for told in seeding for home in told.get("unread_homes", ()))
    return Processed(vectors, streams, restarted, unread)


def delivered(reports: Mapping[str, Report]) -> dict[str, Delivered]:
    """From the reports of the deliverers, by destination."""
    found: dict[str, Delivered] = {}
    for report in reports.values():
        for name, one in delivered_by(report.detail).items():
            found[name] = together(found[name], one) if name in found else one
    return found


def together(one: Delivered, other: Delivered) -> Delivered:
    """A destination to which several nodes deliver, each its own partitions. Of those that hang the one is told that
    names a command: the others may only wait for it."""
    worse = max(
        one,
        other,
        key=lambda told: (told.state in ("paused", "catching_up"), bool(told.command), told.lag_age_s),
    )
    return replace(
        worse,
        vectors=one.vectors | other.vectors,
        streams=added_up(one.streams, other.streams),
        lag_rows=one.lag_rows + other.lag_rows,
        loaded_ns=max(one.loaded_ns, other.loaded_ns),
        remembered=one.remembered | other.remembered,
        written_off=one.written_off and other.written_off,
        reckoned=one.reckoned and other.reckoned,
    )


def added_up(one: Streams, other: Streams) -> Streams:
    """Counters of both."""
    found = {stream: dict(counts) for stream, counts in one.items()}
    for stream, counts in other.items():
        total = found.setdefault(stream, {})
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return found


def delivered_by(detail: Mapping[str, Any]) -> dict[str, Delivered]:
    """From what one deliverer says."""
    return {name: destination(name, told) for name, told in detail.get("destinations", {}).items()}


def destination(name: str, told: Mapping[str, Any]) -> Delivered:
    """What a deliverer says of one destination."""
    lag = told.get("lag", {})
    return Delivered(
        name,
        told.get("state", "starting"),
        without_state(name, told.get("reason")),
        told.get("code"),
        told.get("command"),
        vectors_of(told.get("vectors", {})),
        {stream: dict(counts) for stream, counts in told.get("streams", {}).items()},
        {name: Position(*at) for name, at in told.get("ready_passed", {}).items()},
        lag.get("rows") or 0,
        lag.get("age_s") or 0.0,
        told.get("loaded_ns") or 0,
        vectors_of(told.get("remembered", {})),
        bool(told.get("written_off")),
        bool(told.get("reckoned", True)),
        told.get("catching_up"),
    )


def vectors_of(told: Mapping[str, Any]) -> Vectors:
    """From vector (hex) → partitions that stand there."""
    return {
        int(partition): vector
        for text, partitions in told.items()
        for vector in (Vector.decode(bytes.fromhex(text)),)
        for partition in partitions
    }


def without_state(name: str, reason: str | None) -> str | None:
    """A reason without what stands before it wherever it is shown: that the destination is paused."""
    return reason and reason.removeprefix(f"destination {name} is paused: ")


def state_text(state: str, reason: str | None) -> str:
    """``paused: why``, or ``paused by operator since …``."""
    if not reason:
        return state
    return f"{state} {reason}" if reason.startswith("by operator ") else f"{state}: {reason}"


def least(vectors: Vectors) -> Vector:
    """The vector that every partition has passed; EMPTY when nothing is known."""
    found = list(vectors.values())
    if not found:
        return EMPTY
    safe = found[0]
    for vector in found[1:]:
        if vector is not safe:
            safe = safe.meet(vector)
    return safe


def unmapped(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """Values that found no column: where it was seen, its name, how many since the process began, an example."""
    found: list[dict[str, Any]] = []
    for role, report in reports.items():
        for name, one in report.detail.get("unmapped", {}).items():
            found.append({"where": role, "name": name, **one})
        for destination_name, told in report.detail.get("destinations", {}).items():
            for drift in told.get("drift", []):
                kept = {"name": drift["column"], "count": drift["count"], "example": drift["example"]}
                found.append({"where": destination_name, **kept})
    return sorted(found, key=lambda one: (-one["count"], one["where"], one["name"]))


def refused(reports: Mapping[str, Report]) -> dict[str, int]:
    """What the collectors refused since they began, by reason, the most frequent first."""
    total: dict[str, int] = {}
    for report in reports.values():
        for reason, count in report.detail.get("refused", {}).items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda one: (-one[1], one[0])))


def raw(reports: Mapping[str, Report]) -> dict[str, Any] | None:
    """What the raw log takes, of what it may, and its compressed segments; None before the supervisor has said."""
    told = reports["node"].detail.get("raw") if "node" in reports else None
    return {**told, "compressed": compressed(reports)} if told else None


def compressed(reports: Mapping[str, Report]) -> dict[str, int]:
    """What the compressed raw segments take; empty where no upkeep process says so."""
    return dict(reports["upkeep-0"].detail.get("compressed", {})) if "upkeep-0" in reports else {}


def covers(vectors: Vectors, other: Vectors) -> bool:
    """Whether each partition of ``other`` stands here at least as far."""
    return all(vector <= vectors.get(partition, EMPTY) for partition, vector in other.items())
