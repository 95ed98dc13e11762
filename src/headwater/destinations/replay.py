"""Replays of one destination: the raw log processed again with today's configuration, beside ordinary delivery.

One piece per round of the deliverer, in its thread: fresh events go first, and wait for one piece at most. A piece is
an atomic step of pipeline ``…/replay:<id>``, which compares its own position (INV-DST-1); the main position is never
moved, and nothing at or above it is touched: ``until`` lies at or below it when the replay is planned, and it falls
only when an older copy of the destination is put in its place, which has no position rows of this replay, or the main
position that it had with them. So a replay can be killed anywhere and goes on where its position stands.

* *the same table*: rows are taken away and made again, origin by origin; why no id is lost or doubled: redo.py.
* *a shadow table* ``events_SUFFIX``: a private run (process/private.py) into a table of its own, deduplicated from the
  raw log alone, from the first event of the stretch on.

What the raw log no longer holds stays as it is. Trouble of the raw log or of a row's table ends the replay
(``failed``, with the reason; ``resume`` goes on); trouble of the destination itself is the deliverer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from headwater.destinations import load
from headwater.destinations.port import (
    Outcome,
    PieceRun,
    PositionRow,
    PrivateRun,
    Replayable,
    Step,
)
from headwater.destinations.redo import ORIGIN, Known, Origin, redone
from headwater.destinations.replays import OPEN, Book, Counted, Replay
from headwater.event.piece import Range
from headwater.event.position import EMPTY, Position, Vector
from headwater.kit.errors import Broken, HeadwaterError, Misconfigured, Rejected, Unavailable

if TYPE_CHECKING:
    from headwater.destinations.deliver import Deliverer

T = TypeVar("T")
LAYOUT = "events"
RAW_UNREADABLE = "raw_unreadable"
SWEEP = 100
"""Origins looked up at once."""
SUFFIX = re.compile(r"^[a-z0-9_]{1,40}$")
SAVE_INTERVAL_S = 1.0
IDLE_S = 3600.0


Span = tuple[int, Position, Position]
"""Events of a writer: from a position on, up to another."""


class Plan(NamedTuple):
    """A stretch of the raw log for two times."""

    origin: Vector
    until: Vector
    events: int
    missing: str
    """What is no longer there of it, in words; "" where it is whole."""


class Letters(Protocol):
    """Dead letters of processing (process/dead.py, of every processor), or of a destination (refused.py)."""

    def between(self, spans: Sequence[Span]) -> list[Origin]:
        """Those of events in the spans."""
        ...

    def remove(self, origins: Sequence[Origin]) -> None:
        """They are rows now."""
        ...


class Raw(Protocol):
    """The raw log, as a replay needs it; wired by the node."""

    @property
    def letters(self) -> Letters:
        """Those of processing."""
        ...

    @property
    def window_us(self) -> int:
        """The dedupe window, and a minute: receive times lie a little before blocks."""
        ...

    def plan(self, from_ns: int, to_ns: int, limit: Vector) -> Plan:
        """The blocks closed in (from, to], at most up to ``limit``."""
        ...

    def open(self, origin: Vector, until: Vector, rate: float) -> PieceRun:
        """Read the stretch event by event; pieces are small enough for the rate."""
        ...

    def open_private(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> PrivateRun:
        """The stretch as the chain would give it."""
        ...

    def settled_us(self, vector: Vector) -> int:
        """Received before this moment: nothing at or above the vector was (node time)."""
        ...


class Replays:
    """See the module. ``turn`` from the deliverer's thread; the rest under its lock."""

    def __init__(self, deliverer: Deliverer, book: Book, raw: Raw, rate: float) -> None:
        self.deliverer = deliverer
        self.book = book
        self.raw = raw
        self.rate = rate
        self.pieces: PieceRun | None = None
        self.private: PrivateRun | None = None
        self.at = EMPTY
        self.next_ns = self.saved_ns = 0
        self.begun: tuple[int, int] = (0, 0)
        """When this process began or went on with the current one, and how much was done then: for the estimate."""
        self.revive_before_us = 0

    # -- asked by an operator

    def start(
        self,
        from_ns: int,
        to_ns: int,
        *,
        into: str = "",
        rate: float | None = None,
        partial: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Plan a replay, and begin it unless ``dry_run``. Rejected: nothing to do, or the beginning is gone."""
        rate = self.rate if rate is None else rate
        if not rate > 0:
            raise Rejected(f"rate: expected events per second above 0, got {rate}", code="replay_rate")
        if from_ns >= to_ns:
            raise Rejected("from: expected a time before to", code="replay_times")
        table = self.table_for(into)
        plan = self.raw.plan(from_ns, to_ns, self.limit())
        if not plan.events:
            raise Rejected(
                "the raw log holds no delivered events between these times",
                code="replay_empty",
                help="times are UTC unless they say otherwise; `headwater log inspect` shows what is kept",
            )
        told = {"events": plan.events, "missing": plan.missing, "table": table, "rate": rate}
        told["seconds"] = round(plan.events / rate, 1)
        if dry_run:
            return {"id": None, **told}
        if plan.missing and not partial:
            raise Rejected(plan.missing, code="raw_gone", help="--partial replays what is left of it")
        with self.deliverer.lock:
            number = self.book.state.last + 1
            while self.deliverer.destination.positions(self.pipeline(str(number))):
                number += 1
            one = Replay(
                id=str(number),
                state="waiting",
                into=into,
                origin=plan.origin.encode().hex(),
                until=plan.until.encode().hex(),
                from_ns=from_ns,
                to_ns=to_ns,
                rate=rate,
                events=plan.events,
                began_ns=self.deliverer.node_ns(),
            )
            self.book.add(number, one)
        return {"id": one.id, **told}

    def table_for(self, into: str) -> str:
        """The table of a replay; Rejected where the suffix is none, or taken."""
        self.able()
        if not into:
            return LAYOUT
        if not SUFFIX.match(into):
            raise Rejected(
                f"into {into!r}: expected 1 to 40 of a-z, 0-9 and _, the table is {LAYOUT}_<into>",
                code="replay_into",
            )
        table = f"{LAYOUT}_{into}"
        if any(one.into == into for one in self.book.state.replays) or self.destination.has(table):
            raise Rejected(
                f"the table {table} is there already",
                code="replay_into",
                help=f"take another name, or remove it: headwater replay drop {into}",
            )
        return table

    def able(self) -> None:
        """Rejected where the destination cannot, Unavailable while it is paused or starting."""
        if not self.deliverer.destination.capabilities.replays:
            raise Rejected(f"destination {self.deliverer.name} cannot replay", code="replay_none")
        if self.deliverer.trouble is not None:
            raise Unavailable(f"destination {self.deliverer.name} is paused", code="destination_paused")
        if self.deliverer.rows is None:
            raise Unavailable(f"destination {self.deliverer.name} is starting", code="destination_starting")

    def limit(self) -> Vector:
        """What the destination has got of every partition."""
        vectors = list(self.deliverer.have.values())
        least = vectors[0]
        for vector in vectors[1:]:
            least = least.meet(vector)
        return Vector(least.entries)

    def cancel(self, name: str) -> dict[str, Any]:
        """End one where it stands; what it has done stays."""
        with self.deliverer.lock:
            one = self.book.get(name)
            if not one.open and one.state != "failed":
                raise Rejected(f"replay {name} is {one.state} already", code="replay_ended")
            self.end(one, "cancelled", "")
            return self.told(self.book.get(name))

    def resume(self, name: str) -> dict[str, Any]:
        """Go on with one that failed."""
        with self.deliverer.lock:
            one = self.book.get(name)
            if one.state != "failed":
                raise Rejected(
                    f"replay {name} is {one.state}: only a failed one resumes", code="replay_state"
                )
            return self.told(self.book.change(name, {"state": "waiting", "reason": "", "ended_ns": 0}))

    def drop(self, into: str) -> dict[str, Any]:
        """Remove a shadow table with what is known of it."""
        with self.deliverer.lock:
            self.able()
            found = [one for one in self.book.state.replays if one.into == into and into]
            if not found:
                raise Rejected(f"no replay into {into!r}", code="replay_into")
            (one,) = found
            if one.open:
                raise Rejected(
                    f"replay {one.id} is {one.state}",
                    code="replay_open",
                    help=f"headwater replay cancel {one.id}",
                )
            self.destination.forget(self.pipeline(one.id), f"{LAYOUT}_{into}")
            self.book.remove(one.id)
            return {"dropped": f"{LAYOUT}_{into}"}

    def list(self) -> list[dict[str, Any]]:
        """All that are known, oldest first."""
        return [self.told(one) for one in self.book.state.replays]

    def told(self, one: Replay) -> dict[str, Any]:
        """One as others see it."""
        left = one.events - one.done
        return {
            "id": one.id,
            "state": one.state,
            "reason": one.reason,
            "table": f"{LAYOUT}_{one.into}" if one.into else LAYOUT,
            "from_ns": one.from_ns,
            "to_ns": one.to_ns,
            "events": one.events,
            "done": one.done,
            "rate": one.rate,
            "seconds_left": round(left / self.speed(one), 1) if one.open else 0.0,
            **{name: getattr(one.counted, name) for name in Counted.__struct_fields__},
        }

    def speed(self, one: Replay) -> float:
        """Events per second: as measured since this process took it up, else as asked for."""
        since_ns, before = self.begun
        seconds = (self.deliverer.clock.boot_ns() - since_ns) / 1e9
        measured = (one.done - before) / seconds if since_ns and seconds > 1 else 0.0
        return measured or one.rate

    # -- carried on

    def turn(self) -> float:
        """One piece of the current replay, when it is due; seconds until the next one is."""
        one = self.book.current
        deliverer = self.deliverer
        if one is None or deliverer.rows is None:
            return IDLE_S
        wait_s = (self.next_ns - deliverer.clock.boot_ns()) / 1e9
        if wait_s > 0:
            return wait_s
        began_ns = deliverer.clock.boot_ns()
        try:
            events = self.advance(one)
        except HeadwaterError as error:
            self.let_go()
            if isinstance(error, Unavailable | Broken) and error.code != RAW_UNREADABLE:
                raise  # the destination's trouble: it is opened again, and the replay goes on where it stands
            self.fail(one, str(error))
            return 0.0
        except Exception as error:  # a bug: the process ends, but not again and again
            self.fail(one, f"{type(error).__name__}: {error}")
            raise
        self.next_ns = began_ns + int(events / one.rate * 1e9)
        return 0.0

    def fail(self, one: Replay, reason: str) -> None:
        """It ends here until somebody resumes it."""
        ended_ns = self.deliverer.node_ns()
        self.book.change(one.id, {"state": "failed", "reason": reason, "ended_ns": ended_ns})
        told = {"destination": self.deliverer.name, "id": one.id, "reason": reason}
        self.deliverer.tell("replay_failed", told)

    def advance(self, one: Replay) -> int:
        """Begin, go on or end; how many events were done."""
        if self.pieces is None and self.private is None:
            self.begin(one)
            return 0
        until = Vector.decode(bytes.fromhex(one.until))
        if self.at == until:
            self.end(one, "done", "")
            return 0
        return self.shadow_step(one) if self.private is not None else self.same_step(one)

    def begin(self, one: Replay) -> None:
        """Open the stretch where the replay stands."""
        rows = self.destination.positions(self.pipeline(one.id))
        origin, until = (Vector.decode(bytes.fromhex(text)) for text in (one.origin, one.until))
        if not rows and one.placed:
            raise Misconfigured(
                "its position is gone: an older copy of the destination was put in its place",
                code="destination_went_back",
                help="begin it again",
            )
        if not rows:
            partitions = sorted(self.deliverer.owned)
            placed = {p: PositionRow(origin.encode(), owner=self.deliverer.owner) for p in partitions}
            self.destination.place(self.pipeline(one.id), placed)
            rows = placed
        self.at = Vector.decode(rows[0].vector)
        if not all(until <= have for have in self.deliverer.have.values()):
            raise Misconfigured(
                "the destination stands below it: an older copy was put in its place",
                code="destination_went_back",
                help="begin it again when it has caught up",
            )
        one = self.book.change(one.id, {"state": "running", "placed": True})
        if one.into:
            self.private = self.raw.open_private(tuple(sorted(self.deliverer.owned)), self.at, until)
        else:
            self.pieces = self.raw.open(self.at, until, one.rate)
            self.revive_before_us = self.raw.settled_us(self.limit()) - self.raw.window_us
            self.sweep(one)
        self.begun = self.deliverer.clock.boot_ns(), one.done

    def same_step(self, one: Replay) -> int:
        """The next piece into the table that is there."""
        assert self.pieces is not None
        deliverer, memory = self.deliverer, self.deliverer.memory
        piece = self.read(self.pieces.advance)
        if piece is None:
            return 0
        spans = [span_of(one) for one in piece.ranges]
        known = Known(
            deliverer.dead.between(spans),
            self.raw.letters.between(spans),
            self.revive_before_us,
            self.raw.window_us,
        )
        assert deliverer.rows is not None
        made = redone(
            piece,
            self.destination,
            LAYOUT,
            known,
            deliverer.rows,
            self.empty_step(one, piece.target),
            memory.pipeline,
        )
        if made.lost is not None:
            deliverer.dead.add_letters(made.lost, deliverer.node_ns())
        step = self.carry_out(one, made.step)
        if step is None:
            return 0
        deliverer.rows = self.destination.positions(memory.pipeline)
        deliverer.moved = True
        if known.refused or known.dead:
            there = origins_of(step)
            deliverer.dead.remove(sorted(there.intersection(known.refused)))
            self.raw.letters.remove(sorted(there.intersection(known.dead)))
        refused = made.made - sum(rows.num_rows for rows in step.tables[LAYOUT])
        lost = 0 if made.lost is None else made.lost.num_rows
        self.count(
            one,
            piece.target,
            piece.events + piece.unread,
            Counted(made.made - refused, made.gained, lost, refused, made.too_young, piece.unread),
        )
        return piece.events

    def shadow_step(self, one: Replay) -> int:
        """The next commit of a private run into a table of its own."""
        assert self.private is not None
        commit = self.read(self.private.advance)
        if commit is None:
            return 0
        partitions = tuple(sorted(self.deliverer.owned))
        step = load.step_of(
            [commit],
            partitions,
            pipeline=self.pipeline(one.id),
            layout=LAYOUT,
            owner=self.deliverer.owner,
        )
        shadow = f"{LAYOUT}_{one.into}"
        done = self.carry_out(one, replace(step, tables={shadow: step.tables[LAYOUT]}))
        if done is None:
            return 0
        made = sum(rows.num_rows for rows in done.tables[shadow])
        asked = sum(rows.num_rows for rows in step.tables[LAYOUT])
        self.count(one, commit.target, commit.events, Counted(made, 0, 0, asked - made))
        return commit.events

    def empty_step(self, one: Replay, target: Vector) -> Step:
        """The step without rows."""
        partitions = tuple(sorted(self.deliverer.owned))
        origin = self.at.encode()
        return Step(
            self.pipeline(one.id), partitions, origin, target.encode(), {}, {}, 0, self.deliverer.owner
        )

    def carry_out(self, one: Replay, step: Step) -> Step | None:
        """The step as it was committed; None where the replay stands elsewhere, and is read again."""
        self.destination.fit({name: [rows.schema for rows in sets] for name, sets in step.tables.items()})
        step, outcome = self.deliverer.carry_out(step)
        if outcome is Outcome.MOVED:
            self.let_go()
            return None
        return step

    def read(self, advance: Callable[[], T]) -> T:
        """A piece of the raw log; its trouble is never the destination's."""
        try:
            return advance()
        except (HeadwaterError, OSError) as error:
            raise Unavailable(f"the raw log cannot be read: {error}", code=RAW_UNREADABLE) from error

    def count(self, one: Replay, target: Vector, events: int, more: Counted) -> None:
        """Take down how far it is."""
        self.at = target
        now_ns = self.deliverer.clock.boot_ns()
        names = Counted.__struct_fields__
        total = Counted(*(getattr(one.counted, name) + getattr(more, name) for name in names))
        durable = now_ns - self.saved_ns > SAVE_INTERVAL_S * 1e9
        self.book.change(one.id, {"done": one.done + events, "counted": total}, durable=durable)
        self.saved_ns = now_ns if durable else self.saved_ns

    def end(self, one: Replay, state: str, reason: str) -> None:
        """It is over. Position rows of a shadow table stay with it; others have no use any more."""
        changes: dict[str, object] = {"state": state, "reason": reason, "ended_ns": self.deliverer.node_ns()}
        if state == "done":
            changes["done"] = one.events
        self.book.change(one.id, changes)
        if self.book.current is None or self.book.current.id != one.id:
            self.let_go()
        if not one.into and self.deliverer.rows is not None:
            self.destination.forget(self.pipeline(one.id), None)
        self.deliverer.tell(
            "replay_ended",
            {"destination": self.deliverer.name, "id": one.id, "state": state, "events": one.done},
        )

    def sweep(self, one: Replay) -> None:
        """Letters of events that are rows already: a crash came between their step and their removal."""
        origin = Vector.decode(bytes.fromhex(one.origin))
        spans = [(writer, origin[writer], end) for writer, end in self.at.items()]
        stores: tuple[Letters, ...] = (self.deliverer.dead, self.raw.letters)
        for letters in stores:
            known = letters.between(spans)
            for some in (known[at : at + SWEEP] for at in range(0, len(known), SWEEP)):
                exact = [Range(writer, log, seq, seq + 1) for writer, log, seq in some]
                letters.remove(sorted(rows_as_origins(self.destination.origins(LAYOUT, exact))))

    def let_go(self) -> None:
        """Close what is read; it is opened again where the position stands."""
        for run in (self.pieces, self.private):
            if run is not None:
                run.close()
        self.pieces = self.private = None

    def close(self) -> None:
        """Save the counts and let go."""
        self.let_go()
        if self.book.current is not None:
            self.book.save(self.book.state)

    @property
    def destination(self) -> Replayable:
        return cast(Replayable, self.deliverer.destination)

    def pipeline(self, name: str) -> str:
        """Of a replay: beside the main one's."""
        return f"{self.deliverer.memory.pipeline.removesuffix('/main')}/replay:{name}"


def span_of(one: Range) -> Span:
    """A range as positions."""
    return one.writer, Position(one.log, one.first), Position(one.log, one.end)


def origins_of(step: Step) -> set[Origin]:
    """The origins of the rows of a step."""
    return {origin for sets in step.tables.values() for rows in sets for origin in rows_as_origins(rows)}


def rows_as_origins(rows: Any) -> set[Origin]:
    """Origins out of a table of rows."""
    return set(zip(*(rows[name].to_pylist() for name in ORIGIN), strict=True))


def of(deliverer: Deliverer) -> Replays:
    """The replays of a deliverer; Rejected where none are wired."""
    if not isinstance(deliverer.replays, Replays):
        raise Rejected(f"destination {deliverer.name} cannot replay", code="replay_none")
    return deliverer.replays


def listed(deliverer: Deliverer) -> list[dict[str, Any]]:
    """Those that are under way, for the report."""
    if not isinstance(deliverer.replays, Replays):
        return []
    return [one for one in deliverer.replays.list() if one["state"] in OPEN]


def answer(deliverer: Deliverer, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request of the deliverer's socket; ``do`` says what."""
    replays = of(deliverer)
    name = str(request.get("id", ""))
    match request.get("do"):
        case "start":
            return replays.start(
                whole(request, "from_ns"),
                whole(request, "to_ns"),
                into=str(request.get("into") or ""),
                rate=request.get("rate"),
                partial=bool(request.get("partial")),
                dry_run=bool(request.get("dry_run")),
            )
        case "list":
            return {"replays": replays.list()}
        case "cancel":
            return replays.cancel(name)
        case "resume":
            return replays.resume(name)
        case "drop":
            return replays.drop(str(request.get("into", "")))
        case other:
            raise Rejected(f"do {other!r}: expected start, list, cancel, resume or drop", code="replay_do")


def whole(request: Mapping[str, Any], name: str) -> int:
    """A time out of a request."""
    value = request.get(name)
    if not isinstance(value, int):
        raise Rejected(f"{name}: expected node time in nanoseconds, got {value!r}", code="replay_times")
    return value
