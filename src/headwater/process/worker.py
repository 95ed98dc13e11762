"""One processor: takes cuts, runs them, commits them, folds them (protocol.md §4). A plain loop in its own process.

The order of one turn is the protocol: 1. read the time, then the watermarks, take the cut; 2. run it; 3. append the
commit to the ready log, durable; 4. only then let anybody see it, and fold it into state. A crash before 3 leaves
nothing, a crash after 3 leaves a commit that is folded at the next start (INV-PROC-1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import reduce
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from headwater.event.commit import COUNTERS, RESTARTED, Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.event.slots import slot_of
from headwater.identity.store import FactStore
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Broken, Busy, Misconfigured, Unavailable
from headwater.log import retain
from headwater.log.block import Secret
from headwater.log.cut import Cut, home_of
from headwater.log.follow import Follower
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.process import idruns, takeover, unmapped
from headwater.process.dedupe import MINUTE_NS, Seen, encode_ids
from headwater.process.groups import Group
from headwater.process.idruns import About
from headwater.process.pace import HomeTimes
from headwater.process.run import Output, Runner
from headwater.process.settings import ProcessSettings
from headwater.process.sources import ALONE, Sources
from headwater.process.state import (
    FACTS,
    NO_IDS,
    Fold,
    Part,
    StateStore,
    batches,
    held_parts,
    ids_in,
    merge,
    of_partitions,
    parts_below,
    restricted,
)
from headwater.process.takeover import Candidate, load_recent, rewound

ATTEMPTS_CAREFUL = 3
FEW_EVENTS = 500
OUT = COUNTERS.index("out")
SAVE_INTERVAL_NS = 1_000_000_000
IPC_ROOM_BYTES = 1024
"""Around the schema and the batch of a stream: lengths, padding, its end."""
FOLD_READ_BYTES = 64 * 1024 * 1024
EXPIRE_MINUTES = 5
JOIN_INTERVAL_NS = 1_000_000_000

Report = Callable[[dict[str, Any]], None]


class NodeTime(Protocol):
    """What a processor needs of the control page."""

    def start(self) -> int: ...
    def offset_ns(self) -> int: ...


class ProcessWorker:
    """One processor of a node."""

    def __init__(
        self,
        number: int,
        settings: ProcessSettings,
        data: str,
        disk: Disk,
        clock: Clock,
        node_time: NodeTime,
        ready: ReadyWriter,
        runner_for: Callable[[Sequence[int]], Runner],
        report: Report,
        *,
        secret: Secret,
        partitions: int,
        config_epoch: int,
        ids_bytes_max: int,
        owned: Sequence[int] | None = None,
        sources: Sources = ALONE,
        facts: FactStore | None = None,
    ) -> None:
        self.number = number
        self.settings = settings
        self.data = data
        self.disk = disk
        self.clock = clock
        self.node_time = node_time
        self.ready = ready
        self.runner_for = runner_for
        self.report = report
        self.secret = secret
        self.config_epoch = config_epoch
        self.ids_bytes_max = ids_bytes_max
        self.partitions = partitions
        self.owned = sorted(range(number, partitions, settings.workers) if owned is None else owned)
        self.wanted = self.owned
        """What it shall own from the next turn on; set by ``own``."""
        self.sources = sources
        self.store = StateStore(
            disk, f"{data}/state/{number}", dead_letters_max=settings.dead_letters_max, facts=facts
        )
        self.seen = self._nothing_seen()
        self.homes = HomeTimes(self.seen.window_minutes)
        self.fold = Fold()
        self.groups: list[Group] = []
        self.unreadable: list[str] = []
        """Folders of state that were kept for other nodes and cannot be read."""
        self.goals: dict[int, Vector] = {}
        """Where destinations stand with partitions that came from another node: a commit must end there."""
        self.restarted: list[int] = []
        """Partitions that came without any state: they go on from where destinations stand, and count from nothing."""
        self.unseeded: dict[int, Vector] = {}
        """Those of them of which the ids below that are not read yet: they stand nowhere until then."""
        self.seeds: list[Group] = []
        """They, by where they begin; each runs up to there for its ids alone."""
        self.seed_gaps: list[WriterId] = []
        """Writers whose older events could not be read for it: copies of those are not known."""
        self.groups_made = 0
        self.joined_ns = 0
        self.committed = Position(0, 0)
        self.cuts = 0
        self.saved_ns = 0
        self.saved_ready = Position(0, 0)
        self.expired_minute = 0
        self.trouble = ""
        self.unsaved = ""
        """Why state is not saved."""
        self.careful = False
        self.last_events = 0

    def recover(self) -> None:
        """State at the last commit of every partition: saved folds, the commits behind them, the ids seen; for those
        that come from another node, what was kept of it here (process/takeover.py)."""
        found = takeover.candidates(self.disk, self.data, self.owned, self.number, self.sources.standby())
        self.unreadable = found.unreadable
        here = {c.number: c.fold for c in found.candidates if c.number is not None}
        rest = {number: self._fold_rest(number, fold) for number, fold in here.items()}
        own = here[self.number]
        stood = self._stood(found.candidates)
        folds = [
            (c, c.fold if c.number is not None else rewound(c.fold, load_recent(self.disk, c.folder), stood))
            for c in found.candidates
        ]
        chosen = merge([fold for _, fold in folds], self.owned)
        self._aim(chosen, stood)
        former = {n: fold.ready for n, fold in here.items() if n >= self.settings.workers}
        coming = {p: at for p, at in chosen.vectors.items() if at != own.vectors.get(p, EMPTY)}
        self._remember_rest(rest, chosen.vectors, coming)
        self._remember_all(
            folds, chosen.vectors, coming, {n for n, at in former.items() if own.former.get(n) == at}
        )
        self._check_epoch(max(fold.config_epoch for fold in here.values()))
        self.committed = own.ready
        self._recall([(c, fold) for c, fold in folds if c.number is not None], chosen)
        self.fold = own.with_partitions(chosen, self.owned)
        self.fold.former = former
        self._group()
        self._begin_seeds()
        self._save()
        self._count_attempt()
        self._publish()

    def _stood(self, candidates: Sequence[Candidate]) -> Mapping[int, Vector]:
        """Where destinations stand with the partitions that come from another node, or of which nothing is known."""
        own, *others = [c.fold for c in candidates]
        coming = [
            p
            for p in self.owned
            if own.vectors.get(p, EMPTY) == EMPTY or any(p in fold.vectors for fold in others)
        ]
        return self.sources.stood(coming) if coming else {}

    def _aim(self, chosen: Fold, stood: Mapping[int, Vector]) -> None:
        """Partitions without any state will begin where destinations stand, when their ids are read; others run up to
        there first."""
        self.unseeded, self.goals, self.seed_gaps = {}, {}, []
        for partition, at in stood.items():
            here = chosen.vectors.get(partition, EMPTY)
            if here == EMPTY != at:
                self.unseeded[partition] = at
            elif here <= at != here:
                self.goals[partition] = at
        self.restarted = sorted(self.unseeded)

    def _remember_rest(
        self, rest: Mapping[int, Sequence[Part]], base: Mapping[int, Vector], coming: Mapping[int, Vector]
    ) -> None:
        """The ids of commits behind a fold, as far as the state at ``base`` has seen them."""
        for number, added in rest.items():
            for part in held_parts(added, base):
                self.seen.remember(part.ids)
                self._make_own(number, part, coming)

    def _remember_all(
        self,
        folds: Sequence[tuple[Candidate, Fold]],
        base: Mapping[int, Vector],
        coming: Mapping[int, Vector],
        known: Set[int],
    ) -> None:
        """The ids that the state at ``base`` has seen, and dead letters that become ours. ``coming``: the partitions
        that were elsewhere before; ``known``: of which former processors that was done at an earlier start."""
        newest = max(idruns.newest_minute(c.folder, self.disk) for c, _ in folds)
        minute = newest - self.seen.window_minutes - EXPIRE_MINUTES
        for candidate, fold in folds:
            if candidate.number in known:
                continue
            # of another node, those of partitions that were here before are in the own folder
            wanted = coming if candidate.number is None else base
            for parts in batches(parts_below(candidate.folder, fold, wanted, minute, self.disk)):
                self.seen.remember(idruns.joined([part.ids for part in parts]))
                for part in parts:
                    self._make_own(candidate.number, part, coming)
            if candidate.number is not None and self._inherits_dead(candidate.number):
                path = f"{candidate.folder}/dead.sqlite"
                if self.disk.exists(path):
                    self.store.dead.take_over(path)

    def knows(self, partition: int) -> bool:
        """Whether all facts of a partition below where it stands are known here."""
        facts = self.store.facts
        return facts is not None and facts.complete is not None and partition in facts.complete

    def _recall(self, here: Sequence[tuple[Candidate, Fold]], chosen: Fold) -> None:
        """The facts of partitions that come from another processor of this node, and of which partitions all are known.
        Those of partitions that come from another node are not: what they would fill in is settled where it lands."""
        facts = self.store.facts
        if facts is None:
            return
        before, complete = facts.complete, set()
        base: dict[int, list[int]] = {}
        for p in (p for p in self.owned if p not in self.unseeded):
            at = chosen.vectors.get(p, EMPTY)
            found = next((n for n, (_, fold) in enumerate(here) if fold.vectors.get(p, EMPTY) == at), None)
            if at == EMPTY or (found == 0 and (before is None or p in before)):
                complete.add(p)
            elif found:
                base.setdefault(found, []).append(p)
        for n, partitions in base.items():
            if (other := facts.beside(f"{here[n][0].folder}/{FACTS}")) is None:
                continue
            mine = frozenset(partitions)
            facts.take_over(other, lambda one, mine=mine: slot_of(one) % self.partitions in mine)  # type: ignore[misc]
            complete |= mine & (other.complete or frozenset())
            other.close()
        facts.complete = complete | ((before or set()) - set(self.owned))

    def _make_own(self, number: int | None, part: Part, coming: Mapping[int, Vector]) -> None:
        """Keep ids that stand in the folder of processor ``number`` (None: of another node) in the own one too. Those
        of processors that go on are there at the next start as well; but this processor's standby is told the own
        folder alone, so what comes from them is kept once."""
        if number == self.number:
            return
        if number is None or number >= self.settings.workers:
            self.store.take_over(part.ids, part.about)
            return
        told = part.about.partitions if part.about is not None else coming
        if mine := tuple(p for p in told if p in coming):
            taken = restricted(part, mine)
            self.store.take_over(taken.ids, taken.about)

    def own(self, partitions: Iterable[int]) -> None:
        """Own these partitions from the next turn on; from any thread."""
        wanted = sorted(partitions)
        if wanted != self.wanted:
            self.wanted = wanted

    def step(self) -> bool:
        """One turn; False when there was nothing to do."""
        if self.wanted is not self.owned:
            self._begin_again()
        seeded = bool(self.seeds) and self._seed(self.seeds[0])
        joining = bool(self.groups) and self.groups[0].until is not None
        turns = [self._advance(group) for group in (self.groups[:1] if joining else list(self.groups))]
        did = seeded or any(turns)
        self._rest()
        if (joining and not did) or (len(self.groups) > 1 and not joining):
            self._group_again()
        return did

    def _seed(self, group: Group) -> bool:
        """A piece of the ids below where partitions without state begin (protocol.md §7); False where it has to come
        yet. They are on disk before the fold that says where the partitions stand."""
        assert group.until is not None
        found = self._next_cut(group)
        if found is not None:
            ids = group.runner.ids(found.blocks) or NO_IDS
            self.seen.remember(ids)
            self.store.take_over(ids, About(tuple(group.partitions), found.origin, found.target))
            group.vector = found.target
            self.sources.trim(group.name, group.vector)
            return True
        if group.vector.entries != group.until.entries:
            if self.clock.boot_ns() - self.joined_ns < JOIN_INTERVAL_NS:
                return False
            self.joined_ns = self.clock.boot_ns()
            if self._reachable([group.vector], group.until):
                return False
            self.seed_gaps += [w for w, at in group.until.items() if group.vector[w] != at]
        self._seeded(group)
        return True

    def _seeded(self, group: Group) -> None:
        """They go on from where destinations stand, with what these were given; what was dropped is not known."""
        group.close()
        self.seeds.remove(group)
        begin = {p: self.unseeded.pop(p) for p in group.partitions}
        self.fold.vectors |= begin
        for partition in begin:
            self.fold.counters.setdefault(RESTARTED, {})[partition] = [1] + [0] * (len(COUNTERS) - 1)
        for partition, streams in self.sources.given(group.partitions, begin).items():
            for stream, out in streams.items():
                self.fold.counters.setdefault(stream, {})[partition] = counted(out)
        for one in self.groups:
            one.close()
        self._group()
        self._save()
        self._count_attempt()

    def _begin_seeds(self) -> None:
        """Read the ids of the window before those where destinations stand, as far as homes have them."""
        by_vector: dict[Vector, list[int]] = {}
        for partition, at in self.unseeded.items():
            by_vector.setdefault(at, []).append(partition)
        self.seeds = []
        for at, partitions in by_vector.items():
            since = self.sources.since(at.clock - (self.seen.window_minutes + 1) * MINUTE_NS, at)
            gaps = {w: at[w] for w in at if not self.sources.reachable({w: (since[w], at[w])})}
            self.seed_gaps += gaps
            self.seeds.append(
                self._made(sorted(partitions), Vector({**dict(since.items()), **gaps}, since.clock), at)
            )

    def _advance(self, group: Group) -> bool:
        """One cut of a group, or its joining with the others."""
        found = self._next_cut(group)
        if found is None:
            group.minute = (self.clock.boot_ns() + self.node_time.offset_ns()) // MINUTE_NS
            if group.until is None or group.vector.entries != group.until.entries:
                return False
            self._join(group, group.until)
            return True
        output = group.runner.run(found.blocks, self.seen, self.clock.boot_ns() / 1e9)
        self._commit(group, found, output)
        return True

    def _begin_again(self) -> None:
        """With other partitions: as at a start."""
        self._save()
        for group in (*self.groups, *self.seeds):
            group.close()
        self.owned = self.wanted
        self.seen = self._nothing_seen()
        self.recover()

    def _nothing_seen(self) -> Seen:
        return Seen(
            partitions=self.partitions,
            memory_bytes=self.settings.dedupe_memory_bytes,
            window_s=self.settings.dedupe_window_s,
        )

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until told to stop *and* nothing is left to process."""
        idle_turns = 0
        while True:
            if self.step():
                idle_turns = 0
                if self.last_events < FEW_EVENTS and not stopping():
                    self.clock.block(self.settings.cut_interval_s)
                continue
            idle_turns += 1
            if stopping() and idle_turns > 1:
                break
            self.clock.block(self.settings.poll_interval_s)
        self._save()
        self._publish()
        self.store.close()
        self.ready.blocks.close()

    def _next_cut(self, group: Group) -> Cut | None:
        clock = None if group.until is None else group.until.clock
        return group.take(
            self.clock.boot_ns(),
            lambda boot_ns: boot_ns + self.node_time.offset_ns() if clock is None else clock,
            self.settings.cut_bytes_max,
        )

    def _follow(self, until: Vector | None, mirror: str | None) -> Follower:
        return Follower(
            self.disk,
            f"{self.data}/raw",
            self.secret,
            lambda: (self.node_time.start(), self.clock.boot_ns()),
            until=until,
            mirror=mirror,
        )

    def _commit(self, group: Group, found: Cut, output: Output) -> None:
        """Durable first, visible afterwards."""
        entry = Commit(
            tuple(group.partitions),
            found.origin,
            found.target,
            self.config_epoch,
            output.events,
            output.changes,
            sections_of(output),
        )
        self.committed = self._append(entry)
        group.vector = found.target
        self.fold.apply(entry, self.committed)
        self.store.add(entry)
        self.sources.trim(group.name, group.vector)
        self.cuts += 1
        self.last_events = output.events
        if self.careful:
            self._careful(False)
        group.minute = self.homes.take(found.blocks, self.clock.boot_ns())
        last = min(one.minute for one in self.groups)  # the hindmost needs the oldest ids
        if last > self.expired_minute + EXPIRE_MINUTES:
            self.expired_minute = last
            self.seen.expire(last)
            window = self.seen.window_minutes + EXPIRE_MINUTES
            oldest = min(last, retain.oldest_ns(self.disk, f"{self.data}/raw", self.secret) // MINUTE_NS)
            self.store.forget_ids(oldest - window, last - window, self.ids_bytes_max)

    def _append(self, entry: Commit) -> Position:
        while True:
            try:
                position = self.ready.append(entry)
            except Busy as busy:  # no room in the ready log: processing waits, the raw log keeps everything
                self.trouble = busy.message
                self._rest()  # what is not folded cannot be given back
                self.ready.blocks.has_room(self.ready.blocks.segments.segment_bytes)
                self.clock.block(0.1)
            else:
                self.trouble = ""
                return position

    def _rest(self) -> None:
        now = self.clock.boot_ns()
        if now - self.saved_ns >= SAVE_INTERVAL_NS and (
            self.store.pending_ids or self.fold.ready != self.saved_ready
        ):
            self._save()
        self._publish()

    def _save(self) -> None:
        self.saved_ns = self.clock.boot_ns()
        try:
            self.store.save(self.fold)
        except (
            Unavailable
        ) as error:  # the ready log keeps what is not saved, and processing waits when that is full
            self.unsaved = str(error)
            return
        self.unsaved = ""
        self.saved_ready = self.fold.ready

    def _publish(self) -> None:
        runner = self.groups[0].runner if self.groups else None
        self.report(
            {
                "vectors": [
                    {"partitions": g.partitions, "vector": g.vector.encode().hex()} for g in self.groups
                ],
                "counters": totals(self.fold.counters, self.owned),
                "out": {
                    stream: {str(p): partitions[p][OUT] for p in self.owned if p in partitions}
                    for stream, partitions in self.fold.counters.items()
                    if stream != RESTARTED
                },
                "ready": list(self.committed),
                "folded": list(self.saved_ready),
                "former": {str(number): list(at) for number, at in self.fold.former.items()},
                "cuts": self.cuts,
                "fast_lines": runner.reader.fast_lines if runner else 0,
                "slow_lines": runner.reader.slow_lines if runner else 0,
                "unmapped": unmapped.told(runner.reader.unmapped, runner.shaper.unmapped) if runner else {},
                "learned_columns": len(runner.reader.schema.first_kind) if runner else 0,
                "dedupe_ids": self.seen.count,
                "dedupe_window_s": self.seen.window_s(self.expired_minute or 1 << 31)
                if self.expired_minute
                else None,
                "trouble": self.trouble or self.unsaved,
                "unreadable": self.unreadable,
                "restarted": self.restarted,
                "seeding": {
                    "partitions": sorted(self.unseeded),
                    "unread_homes": sorted({f"{home_of(w):016x}" for w in self.seed_gaps}),
                },
            }
        )

    def _count_attempt(self) -> None:
        """How often this processor has started at this place. An event that kills the process (a crash inside a
        library) would do so for ever: from the third start on, the first cut is read line by line in our own code."""
        if not self.groups:
            return
        path = f"{self.data}/state/{self.number}/attempts"
        here = self.groups[0].vector.encode().hex()
        known = msgspec.json.decode(read_whole(self.disk, path)) if self.disk.exists(path) else {}
        attempts = known["attempts"] + 1 if known.get("at") == here else 1
        write_whole(self.disk, path, msgspec.json.encode({"at": here, "attempts": attempts}))
        self._careful(attempts >= ATTEMPTS_CAREFUL)

    def _careful(self, careful: bool) -> None:
        self.careful = careful
        for group in self.groups:
            group.runner.reader.careful = careful

    def _check_epoch(self, last: int) -> None:
        """INV-PROC-4. Misconfigured: a later start of this node has committed, so this one has an older copy of
        ``headwater.json`` beside newer logs and state."""
        if self.config_epoch < last:
            raise Misconfigured(
                f"start {self.config_epoch} of this node follows commits of its start {last}: headwater.json is older "
                "than the logs beside it",
                code="start_went_back",
                help="put back headwater.json together with the rest of the data folder, from one backup",
            )

    def _fold_rest(self, number: int, fold: Fold) -> list[Part]:
        """Fold the commits behind a saved fold; the ids that they add."""
        added: list[Part] = []
        folder = f"{self.data}/ready/{number}"
        reader = ReadyReader(self.disk, folder, WriterId(number), fold.ready, secret=self.secret)
        while entries := reader.read(FOLD_READ_BYTES):
            for entry, after in entries:
                known = fold.vectors.get(entry.partitions[0], EMPTY)
                if entry.origin != known and reader.damaged:
                    continue  # it stands behind one that the disk spoilt; the raw log has all of it, and is run again
                if entry.origin != known:
                    raise Broken(
                        f"ready/{number} does not go on where its state ends: {entry.origin!r} after {known!r}",
                        code="chain_broken",
                    )
                fold.apply(entry, after)
                added.append(Part(of_partitions(ids_in(entry), self.owned), idruns.about_of(entry)))
                self.store.add_facts(entry)
                if number == self.number:
                    self.store.add(entry)
                elif self._inherits_dead(number) and "dead" in entry.sections:
                    self.store.add_dead(entry)
        reader.close()
        return added

    def _inherits_dead(self, number: int) -> bool:
        return self.number == 0 and number >= self.settings.workers

    def _group(self) -> None:
        """Partitions by vector; first those that have still to come to where destinations stand. More than one (the
        number of processors was changed, partitions came from another node): each runs up to the join of all, the
        hindmost first; vectors of different processors need not be comparable. Where the join names events that nobody
        can give us now, each goes on by itself."""
        by_vector: dict[Vector, list[int]] = {}
        aimed: dict[tuple[Vector, Vector], list[int]] = {}
        for partition in (p for p in self.owned if p not in self.unseeded):
            at = self.fold.vectors.get(partition, EMPTY)
            goal = self.goals.get(partition, at)
            if at != goal and at <= goal and self._reachable([at], goal):
                aimed.setdefault((at, goal), []).append(partition)
            else:
                by_vector.setdefault(at, []).append(partition)
        end = reduce(Vector.join, by_vector, EMPTY)
        order = sorted(by_vector, key=lambda v: (v == end, v.clock, sorted(v.items())))
        until = end if len(order) > 1 and not aimed and self._reachable(order, end) else None
        self.joined_ns = self.clock.boot_ns()
        self.groups = [self._made(sorted(mine), at, goal) for (at, goal), mine in aimed.items()]
        self.groups += [self._made(sorted(by_vector[v]), v, until) for v in order]

    def _made(self, partitions: list[int], vector: Vector, until: Vector | None) -> Group:
        self.groups_made += 1
        name = f"process-{self.number}-{self.groups_made}"
        runner = self.runner_for(partitions)
        return Group(name, partitions, vector, until, runner, self.sources, self._follow)

    def _reachable(self, vectors: Iterable[Vector], end: Vector) -> bool:
        """Whether all that lies between these vectors and their join can be read."""
        vectors = list(vectors)
        first = {w: min(v[w] for v in vectors) for w in end}
        return self.sources.reachable({w: (first[w], at) for w, at in end.items() if first[w] != at})

    def _group_again(self) -> None:
        """Groups that wait for events which nobody gives go on by themselves; those that can join, do."""
        if self.clock.boot_ns() - self.joined_ns < JOIN_INTERVAL_NS:
            return
        self.joined_ns = self.clock.boot_ns()
        vectors = [group.vector for group in self.groups]
        end = reduce(Vector.join, vectors, EMPTY)
        if self._reachable(vectors, end) == (self.groups[0].until is None):
            for group in self.groups:
                group.close()
            self._group()

    def _join(self, group: Group, end: Vector) -> None:
        """A group has everything that the others have; when it was the last, they are one from here on.

        Equal positions under another clock are another vector: a commit without events leads there, or the chain
        of the group's partitions would be broken.
        """
        if group.vector != end:
            entry = Commit(tuple(group.partitions), group.vector, end, self.config_epoch, 0, {}, {})
            self.committed = self._append(entry)
            self.fold.apply(entry, self.committed)
        for one in self.groups:
            one.close()
        self._group()


def counted(out: int) -> list[int]:
    """Counters of a partition of which only this is known."""
    return [out if name in ("in", "out") else 0 for name in COUNTERS]


def sections_of(output: Output) -> Mapping[str, memoryview]:
    """The sections of a commit."""
    sections: dict[str, memoryview] = {}
    if output.rows is not None:
        sections["rows:events"] = ipc(output.rows)
    if output.dead is not None:
        sections["dead"] = ipc(output.dead)
    if output.ids is not None and len(output.ids[0]):
        sections["ids"] = memoryview(encode_ids(output.ids))
    if output.facts is not None:
        sections["facts"] = ipc(output.facts)
    return sections


def ipc(table: pa.Table) -> memoryview:
    """A table as one Arrow IPC stream with one batch, in one buffer of the right size."""
    batches = table.combine_chunks().to_batches()
    room = IPC_ROOM_BYTES + table.schema.serialize().size + sum(map(pa.ipc.get_record_batch_size, batches))
    buffer = pa.allocate_buffer(room)
    with pa.FixedSizeBufferWriter(buffer) as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
        writer.close()
        written = sink.tell()
    return memoryview(buffer)[:written]


def totals(
    counters: Mapping[str, Mapping[int, Sequence[int]]], partitions: Iterable[int]
) -> dict[str, dict[str, int]]:
    """Counters per stream, summed over these partitions."""
    wanted = frozenset(partitions)
    found: dict[str, dict[str, int]] = {}
    for stream, per_partition in counters.items():
        if mine := [counts for partition, counts in per_partition.items() if partition in wanted]:
            found[stream] = dict(zip(COUNTERS, map(sum, zip(*mine, strict=True)), strict=True))
    return found
