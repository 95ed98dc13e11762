"""Delivering the chain into one destination (protocol.md §5, Deliver).

One ``Deliverer`` per destination, one thread in it. A round reads ahead, asks ``plan`` what to do and does it.
Where the partitions stand is remembered after own commits and read again on any doubt: after MOVED, after an
unknown outcome, after any error, and before a destination is called off the chain. There is no other recovery:
what the destination says is what holds, and the plan goes on from there (INV-DST-1). A destination off the chain
gets what it lacks from private runs, a piece a round, until it stands on the chain again.

Trouble stays here: other destinations and the chain never notice (INV-DST-3). A paused destination says why, names
the one command that mends it, and is looked at again every ``retry_interval_s``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Protocol

import pyarrow as pa

from headwater.destinations import load, plan, refused, stand
from headwater.destinations.alarm import Alarm
from headwater.destinations.catchup import CatchUp, Tell
from headwater.destinations.chain import Chain
from headwater.destinations.pause import Held, Pause
from headwater.destinations.plan import Load, Private, Wait
from headwater.destinations.port import (
    NOWHERE,
    Destination,
    OpenChain,
    OpenPrivate,
    Outcome,
    OutcomeUnknown,
    PositionRow,
    PrivateRun,
    ProcessedAt,
    Step,
)
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.destinations.seen import Seen
from headwater.destinations.settings import DestinationSettings
from headwater.destinations.settle import Settler
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector
from headwater.kit.clock import Clock
from headwater.kit.errors import Broken, HeadwaterError, Misconfigured, Rejected, Unavailable
from headwater.kit.threads import Submit, inline

LAYOUT = "events"
REFUSED_ROUNDS_MAX = 3
SAVE_INTERVAL_S = 1.0
LATE_S, STILL_S, FEW_ROWS = 2.0, 0.3, 2000
"""Behind: the newest row waiting is older than LATE_S, FEW_ROWS wait, and the latest came within STILL_S."""
BEYOND_S = 1.0
HELD_TELL_S = 1.0
"""How often a pause tells for how long rows have waited."""
OWN_TROUBLE = ("ready_unreadable", "dead_letters")
"""Errors that are not the destination's: it stays open, and answers readers."""


class Beside(Protocol):
    """Work beside delivery. Errors are the destination's own."""

    def turn(self) -> float:
        """One bounded piece, if it is due; seconds until the next is."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Deliverer:
    """The loop of one destination. ``round`` from one thread; the rest from any."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        chains: Mapping[str, OpenChain],
        memory: Memory,
        dead: DeadLetters,
        settings: DestinationSettings,
        clock: Clock,
        *,
        partitions: int,
        owned: Iterable[int] | None = None,
        owner: str,
        node_ns: Callable[[], int],
        layouts: Mapping[str, pa.Schema] | None = None,
        unknown: Callable[[Vector], bool] = lambda vector: False,
        open_private: OpenPrivate | None = None,
        processed: Callable[[], ProcessedAt] = lambda: NOWHERE,
        stood_when: Callable[[int, Vector], Vector] = lambda at_ns, limit: limit,
        tell: Tell = lambda name, fields: None,
        pause: Pause | None = None,
        submit: Submit = inline,
    ) -> None:
        self.name = name
        self.pause = pause
        """An operator's; None: there is nowhere to keep one."""
        self.destination = destination
        self.opens = chains
        self.partitions = partitions
        self.owned = frozenset(range(partitions) if owned is None else owned)
        """The partitions that are delivered from here: all, or those that this node owns."""
        self.chains = {
            key: Chain(open_chain, settings.ahead_bytes_max, self.owned) for key, open_chain in chains.items()
        }
        self.memory = memory
        self.dead = dead
        self.settings = settings
        self.layouts = layouts or {}
        """The standard columns of each layout: the tables are there before the first event is."""
        self.clock = clock
        self.owner = owner
        self.node_ns = node_ns
        self.unknown = unknown
        """Whether a vector names a log that this node has not given out."""
        self.catch_up = CatchUp(name, open_private, memory, settings, tell, submit)
        self.settler: Settler | None = None
        """Corrects rows by facts that came later; None: the destination cannot."""
        self.replays: Beside | None = None
        """What is done beside delivery, a piece per round (replay.py)."""
        self.processed = processed
        """Where processing says that it stands."""
        self.stood_when = stood_when
        """Where the raw logs stood at a time (ns since 1970), at most at a vector."""
        self.beyond_ns = self.reckoned_ns = 0
        self.stood_at: dict[int, Vector] = {}
        self.tell = tell
        self.lock = threading.RLock()
        self.rows: dict[int, PositionRow] | None = None
        """Position rows as the destination holds them; None: they must be read."""
        self.have: dict[int, Vector] = {}
        self.groups: plan.Standing = {}
        self.moved = False
        """True when where it stands has changed since the last look."""
        self.certain = False
        """True when positions and chain were both read from the start since the last doubt."""
        self.trouble: HeadwaterError | None = None
        self.alarm = Alarm()
        self.retry_ns = 0
        self.failures = 0
        self.loaded_ns = 0
        self.load_s = 0.0
        self.last: list[Position] = []
        """The last commits that were read ahead."""
        self.grew_ns = 0
        self.waiting_ns = clock.boot_ns()
        """Since when rows wait; now, while none do."""
        self.loaded_node_ns = 0
        self.seen = Seen()
        self.counters = {
            "loads": 0,
            "rows": 0,
            "moved": 0,
            "unknown": 0,
            "refused": 0,
            "errors": 0,
        }

    def round(self) -> float:
        """Do what there is to do; seconds until the next round is useful."""
        with self.lock:
            wait_s = (self.retry_ns - self.clock.boot_ns()) / 1e9
            if wait_s > 0:
                return wait_s
            try:
                wait_s = self.advance()
            except HeadwaterError as error:
                return self.failed(error)
            except OSError as error:
                return self.failed(
                    Unavailable(f"the ready log cannot be read: {error}", code="ready_unreadable")
                )
            if self.trouble is not None:
                self.tell("destination_resumed", {"destination": self.name})
            self.trouble, self.failures = None, 0
            self.alarm.over()
            if self.held is None:
                self.look()
            return wait_s

    @property
    def held(self) -> Held | None:
        """The operator's pause, while there is one."""
        return self.pause.held if self.pause is not None else None

    def advance(self) -> float:
        """One decision of the plan, carried out; seconds to wait."""
        if self.rows is None:
            self.catch_up.end()
            self.attach()
        if self.held is not None:
            return self.hold()
        if self.catch_up.run is not None:
            return self.run_on(self.catch_up.run)
        beside_s = self.replays.turn() if self.replays is not None else self.settings.retry_interval_s
        if self.settler is not None:
            beside_s = min(beside_s, self.settler.turn())
        self.read_ahead()
        if self.memory.unreckoned or self.memory.written_off:
            self.reckon()
        decision = plan.plan(self.groups, self.links(), self.settings.load_rows)
        match decision:
            case Load():
                return min(beside_s, self.load_when_due(decision))
            case Wait():
                return min(beside_s, self.look_beyond())
            case Private():
                return self.off(decision)

    def hold(self) -> float:
        """Paused by an operator: open for readers, and seen where it stands; since when rows wait is not touched."""
        if self.moved:
            waiting_ns = self.waiting_ns
            self.look()
            self.waiting_ns = waiting_ns
        age_s = (self.clock.boot_ns() - self.waiting_ns) / 1e9
        if age_s - self.seen.age_s > HELD_TELL_S:
            self.seen = replace(self.seen, age_s=age_s)
        return self.settings.poll_interval_ms / 1000

    def links(self) -> list[list[plan.Link]]:
        """What is read ahead, as the plan sees it."""
        return [list(chain.links) for chain in self.chains.values()]

    def attach(self) -> None:
        """Open the destination and read where it stands; a new one gets its first position rows."""
        if not self.memory.vectors:
            self.memory.load()
        self.destination.open(create=not self.memory.vectors)
        rows = self.own_rows()
        if (not rows or self.shared) and (new := self.owned - rows.keys() - self.memory.vectors.keys()):
            self.begin(new)
            rows = self.own_rows()
        vectors = {p: Vector.decode(row.vector) for p, row in rows.items()}
        if vectors.keys() - self.memory.vectors.keys() and self.settings.start_ns is not None:
            self.memory.begin_skipping(self.clock.boot_ns())  # who began these may not have counted it
        if wrong := plan.examine(vectors, self.remembered(), sorted(self.owned)):
            self.tell(wrong.code, {"destination": self.name, "partitions": wrong.partitions})
            if wrong.code != "destination_went_back" or self.settings.on_restored == "pause":
                raise stand.paused(self.name, wrong)
            self.memory.note(vectors, {})  # it fills itself up again, from here
            self.memory.count_again()
            self.certain = False  # the chain from its beginning, which may hold all that is lacking
        if any(map(self.unknown, plan.standing(vectors))):
            # the next start reads it, and begins its logs behind them
            self.memory.note(vectors, self.memory.ready)
            self.memory.save(self.clock.boot_ns(), 0.0)
            raise stand.ahead(self.name)
        self.destination.fit({name: [schema] for name, schema in self.layouts.items()})
        self.rows, self.have = rows, vectors
        self.stood()
        if not self.certain:
            for name, chain in self.chains.items():
                chain.rewind(self.memory.ready.get(name, ZERO))

    def stood(self) -> None:
        """Where it stands has changed."""
        self.groups = plan.standing(self.have)
        self.moved = True

    @property
    def shared(self) -> bool:
        """Whether other nodes deliver the other partitions."""
        return len(self.owned) < self.partitions

    def own(self, partitions: Iterable[int]) -> None:
        """Deliver these partitions from the next round on: the table of the cluster has changed."""
        with self.lock:
            self.owned = frozenset(partitions)
            self.rows, self.certain, self.retry_ns = None, False, 0
            self.have = {}
            self.stood()
            for chain in self.chains.values():
                chain.owned = self.owned
                chain.rewind()

    def own_rows(self) -> dict[int, PositionRow]:
        """Where the partitions stand that are delivered from here."""
        rows = self.destination.positions(self.memory.pipeline)
        return {p: row for p, row in rows.items() if p in self.owned}

    def remembered(self) -> dict[int, Vector]:
        """Where they stood at least."""
        return {p: vector for p, vector in self.memory.vectors.items() if p in self.owned}

    def begin(self, new: Iterable[int]) -> None:
        """The first position rows of these partitions, unless another node has begun them. Unavailable: processing has
        not said where it stands."""
        partitions = sorted(new)
        rows = stand.first_rows({}, partitions, self.owner)
        if self.settings.start != "beginning":
            at = self.processed()
            if not at.vectors.keys() >= set(partitions):
                raise Unavailable("processing has not said yet where it stands", code="processing_silent")
            start_ns = self.settings.start_ns
            if start_ns is None:
                rows = stand.adopted("now", rows, (), partitions, at.outs, self.destination.empty, at.vectors)
            else:
                self.memory.begin_skipping(self.clock.boot_ns())
                begins = {end: self.stood_when(start_ns, end) for end in set(at.vectors.values())}
                starts = {p: begins[end] for p, end in at.vectors.items()}
                rows = stand.first_rows(starts, partitions, self.owner)
        self.destination.place(self.memory.pipeline, rows, missing_only=True)

    def read_ahead(self) -> None:
        """Fill the windows with commits that are not passed yet."""
        groups = self.groups
        for chain in self.chains.values():
            chain.drop_passed(groups)
            chain.fill(self.settings.load_rows)
            while chain.entries and plan.passed(groups, chain.links[0]):
                chain.drop_passed(groups)
                chain.fill(self.settings.load_rows)
        last = [chain.entries[-1].after for chain in self.chains.values() if chain.entries]
        if last != self.last:
            self.last, self.grew_ns = last, self.clock.boot_ns()

    def load_when_due(self, decision: Load) -> float:
        """Load now, or say how long to wait for company."""
        settings, now_ns = self.settings, self.clock.boot_ns()
        chain = self.chain(decision)
        least, most = settings.load_interval_min_ms, settings.load_interval_max_ms
        full = decision.rows >= settings.load_rows or decision.end < len(chain.entries) or chain.full
        if not full and self.behind(chain, now_ns):
            least = most = settings.load_interval_behind_ms
        wait_s = plan.due_s(
            (now_ns - self.loaded_ns) / 1e9 if self.loaded_ns else settings.load_interval_max_ms / 1000,
            self.load_s,
            full=full,
            shortest_s=least / 1000,
            longest_s=most / 1000,
        )
        if wait_s > 0:
            return min(wait_s, settings.poll_interval_ms / 1000)
        self.load(decision)
        self.loaded_ns = now_ns
        self.load_s = (self.clock.boot_ns() - now_ns) / 1e9
        return 0.0

    def behind(self, chain: Chain, now_ns: int) -> bool:
        """Whether processing works off a backlog: what waits is late already, and more of it keeps coming."""
        if chain.held_rows < FEW_ROWS or now_ns - self.grew_ns > STILL_S * 1e9:
            return False
        newest_ns = load.newest_ns(chain.entries[-1].commit, LAYOUT)
        return newest_ns is not None and self.node_ns() - newest_ns > LATE_S * 1e9

    def chain(self, decision: Load) -> Chain:
        """The ready log that a load comes from."""
        return list(self.chains.values())[decision.chain]

    def load(self, decision: Load) -> None:
        """One step; afterwards the positions are known, or marked as to be read."""
        entries = list(self.chain(decision).entries)[decision.first : decision.end]
        commits = [e.commit for e in entries if e.link.partitions.issuperset(decision.partitions)]
        self.load_commits(commits, decision.partitions)

    def load_commits(self, commits: Sequence[Commit], partitions: tuple[int, ...]) -> bool:
        """One step over commits that follow one another; False where the destination does not stand at the first."""
        step = load.step_of(
            commits, partitions, pipeline=self.memory.pipeline, layout=LAYOUT, owner=self.owner
        )
        self.destination.fit({name: [rows.schema for rows in sets] for name, sets in step.tables.items()})
        step, outcome = self.carry_out(step)
        if outcome is Outcome.DONE:
            self.done(step)
        else:
            self.counters["moved"] += 1
            self.rows, self.certain = None, False
        return outcome is Outcome.DONE

    def carry_out(self, step: Step) -> tuple[Step, Outcome]:
        """The step, without the rows that the destination refuses; what was really committed."""
        for _ in range(REFUSED_ROUNDS_MAX):
            try:
                return step, self.destination.step(step)
            except Rejected as error:
                left = refused.left_out(
                    self.destination, self.dead, step, error, self.settings.refused_tries_max, self.node_ns()
                )
                step, count = load.without(step, left, self.owner), sum(map(refused.count, left.values()))
                self.counters["refused"] += count
        raise Misconfigured(
            "the destination goes on refusing rows that it accepted alone", code="refuses_rows"
        )

    def done(self, step: Step) -> None:
        """Remember what was committed."""
        assert self.rows is not None
        target = Vector.decode(step.target)
        for partition in step.partitions:
            streams = dict(self.rows[partition].streams)
            for stream, counts in step.added[partition].items():
                streams[stream] = streams.get(stream, type(counts)()).plus(counts)
            self.rows[partition] = PositionRow(step.target, streams, step.config_epoch, step.owner)
            self.have[partition] = target
        self.stood()
        for chain in self.chains.values():
            chain.drop_passed(self.groups)
        if step.facts and self.settler is not None:
            self.settler.touch()
        self.counters["loads"] += 1
        self.loaded_node_ns = self.node_ns()
        self.counters["rows"] += sum(rows.num_rows for sets in step.tables.values() for rows in sets)
        self.certain = True

    def off(self, decision: Private) -> float:
        """Off the chain, it seems: look again with everything read from the start, then begin a private run."""
        if not self.certain:
            self.rows = None
            for chain in self.chains.values():
                chain.rewind()
            self.certain = True
            return self.advance()  # in this round: what is paused must not seem to go on in between
        self.certain = False
        self.catch_up.begin(decision, self.clock.boot_ns())
        return 0.0

    def look_beyond(self) -> float:
        """The chain holds nothing more. Where processing is further all the same, and this destination has not moved
        for BEYOND_S, what lies between has left the ready log; unless the log keeps it back, for a standby to have it
        first: a private run would deliver it before."""
        now_ns = self.clock.boot_ns()
        more = any(c.entries or c.waits for c in self.chains.values())
        if now_ns - self.beyond_ns > BEYOND_S * 1e9 and not more:
            self.beyond_ns, stood, self.stood_at = now_ns, self.stood_at, dict(self.have)
            ends = {p: v for p, v in self.processed().vectors.items() if not v <= self.have.get(p, v)}
            if ends and stood == self.have:
                first = min(ends)
                origin, end = self.have[first], ends[first]
                together = tuple(p for p in sorted(ends) if self.have[p] == origin and ends[p] == end)
                return self.off(Private(together, origin, origin.join(end)))
        return self.settings.poll_interval_ms / 1000

    def run_on(self, run: PrivateRun) -> float:
        """One load of the private run."""
        commits = self.catch_up.advance()
        if commits and not self.load_commits(commits, run.partitions):
            return 0.0
        if self.catch_up.ended:
            self.catch_up.end()
        return 0.0

    def reckon(self) -> None:
        """Count what was left out on the way back to the chain, once it can be told; a step that moves nothing."""
        now_ns = self.clock.boot_ns()
        if self.rows is None or now_ns - self.reckoned_ns < BEYOND_S * 1e9:
            return
        self.reckoned_ns = now_ns
        commits = [entry.commit for chain in self.chains.values() for entry in chain.entries]
        added = stand.reckoned(self.rows, self.have, self.processed(), commits)
        if added is None:
            return
        for vector, group in dict(self.groups).items():
            here = tuple(sorted(group))
            epoch = max(self.rows[p].config_epoch for p in here)
            at = vector.encode()
            mine = {p: added[p] for p in here}
            step = Step(self.memory.pipeline, here, at, at, {}, mine, epoch, self.owner)
            if self.destination.step(step) is not Outcome.DONE:
                self.rows, self.certain = None, False
                return
            self.done(step)
        skipped = sum(counts.skipped for streams in added.values() for counts in streams.values())
        if skipped:
            self.tell("destination_skipped", {"destination": self.name, "events": skipped})
        self.memory.reckoned()

    def write_off(self) -> dict[str, object]:
        """An operator's word that the raw log need not be kept for it. Durable on return."""
        with self.lock:
            self.memory.load()
            self.memory.write_off(self.clock.boot_ns())
            self.tell("destination_written_off", {"destination": self.name})
            return {"destination": self.name, "written_off": True}

    def failed(self, error: HeadwaterError) -> float:
        """Pause or back off; everything is read again afterwards."""
        error = stand.named(self.name, error)
        self.counters["errors"] += 1
        self.rows = None
        if isinstance(error, OutcomeUnknown):
            self.counters["unknown"] += 1
        if isinstance(error, Unavailable | Broken):
            self.certain = False
            if error.code not in OWN_TROUBLE:
                self.destination.close()
        if happening := self.alarm.look(error, self.clock.boot_ns()):
            self.tell(happening, {"destination": self.name, "code": error.code, "reason": str(error)})
        self.trouble = error
        wait_s = stand.retry_s(error, self.failures, self.settings.retry_interval_s)
        self.failures += 1
        self.retry_ns = self.clock.boot_ns() + int(wait_s * 1e9)
        return wait_s

    def adopt(
        self,
        start: str,
        passed: Mapping[int, Mapping[str, int]] | None = None,
        processed: Mapping[int, Vector] | None = None,
    ) -> dict[str, object]:
        """An operator's decision where a paused destination goes on; see ``stand.adopted``. Durable on return."""
        with self.lock:
            self.memory.load()
            missing = 0
            if start == "beginning":  # before a file is made: what is refused changes nothing
                missing = self.missing_below(processed or {})
            self.destination.open(create=start != "here")
            rows = self.own_rows()
            adopted = stand.adopted(
                start,
                rows,
                self.opens.values(),
                sorted(self.owned),
                passed,
                self.destination.empty,
                processed,
            )
            placed = {p: replace(row, owner=self.owner) for p, row in adopted.items()}
            if start == "beginning" and self.shared:
                # of what is empty everybody begins anew; once rows are there, nobody else could decide so any more
                rest = stand.first_rows({}, set(range(self.partitions)) - self.owned, self.owner)
                self.destination.place(self.memory.pipeline, rest, missing_only=True)
            if start != "here":
                self.destination.place(self.memory.pipeline, placed)
            self.memory.note({p: Vector.decode(row.vector) for p, row in placed.items()}, {})
            self.memory.adopted(skips=missing > 0, counted=start != "here")
            self.memory.save(self.clock.boot_ns(), 0.0)
            self.rows, self.certain, self.retry_ns = None, False, 0
            self.trouble = None
            self.alarm.over()
            skipped = missing + sum(row.total.skipped for row in placed.values())
            self.tell("destination_adopted", {"destination": self.name, "start": start, "skipped": skipped})
            return {
                "destination": self.name,
                "start": start,
                "partitions": len(placed),
                "skipped_events": skipped,
            }

    def missing_below(self, processed: Mapping[int, Vector]) -> int:
        """Events that the logs no longer hold of all that was processed. Rejected where it cannot be made again."""
        if stand.begins(self.opens.values(), processed):
            return 0
        end = reduce(Vector.join, processed.values(), EMPTY)
        if self.catch_up.open_private is None or end == EMPTY:
            raise stand.beginning_gone()
        run = self.catch_up.open_private(tuple(sorted(processed)), EMPTY, end)
        run.close()
        return run.missing

    def look(self) -> None:
        """Make what others see, and remember it."""
        if self.rows is None:
            return
        now_ns = self.clock.boot_ns()
        waiting = sum(chain.held_rows for chain in self.chains.values())
        if not waiting:
            self.waiting_ns = now_ns
        passed = {name: chain.passed for name, chain in self.chains.items()}
        if self.moved or passed != self.seen.passed:
            drift = self.destination.drift()
            self.seen = Seen(len(self.rows), dict(self.have), load.totals(self.rows), passed, drift=drift)
            self.memory.note(self.have, passed)
            self.moved = False
        self.seen = replace(
            self.seen,
            waiting_rows=waiting,
            age_s=(now_ns - self.waiting_ns) / 1e9,
            loaded_ns=self.loaded_node_ns,
        )
        self.memory.save(now_ns, SAVE_INTERVAL_S)

    def close(self) -> None:
        """Save what is known and let go; rounds must have ended."""
        with self.lock:
            try:
                self.memory.save(self.clock.boot_ns(), 0.0)
            finally:
                self.catch_up.end()
                if self.replays is not None:
                    self.replays.close()
                for chain in self.chains.values():
                    chain.close()
                self.destination.close()
                self.dead.close()
