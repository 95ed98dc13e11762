"""Recognition against the true history: whatever the batches, the crashes and the order, at rest every row has the user
that the facts of all events give it (INV-ID-1, INV-ID-3), on a real destination."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from headwater.destinations import registry
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.port import Outcome, PositionRow, Step
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.destinations.settle import Settler
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.identity.junk import Junk
from headwater.identity.owner import FIRST_SEEN, LOGIN, LOGOUT, Fact, owner_of
from headwater.identity.recognise import OWN, Recogniser
from headwater.identity.settings import IdentitySettings
from headwater.identity.store import FactStore, Known, Unknown
from headwater.kit.clock import SystemClock
from headwater.process.columns import standard_schema
from tests.rigs.postgres import Server
from tests.thorough import often

HOUR_US = 3_600_000_000
BASE_US = 1_790_000_000_000_000
PIPELINE = "cluster/warehouse/main"
SETTINGS = IdentitySettings(look_back_days=0.5, shared_users_max=2, settle_ids_max=3, settle_rows_max=4)
WRITER = WriterId(7 << 16)


class Event(NamedTuple):
    """What somebody sent. ``user`` "": it names none; ``late_us``: how long before receipt it says that it was."""

    kind: str
    anonymous: str
    user: str
    received_us: int
    late_us: int
    bot: bool

    @property
    def time_us(self) -> int:
        return self.received_us - min(self.late_us, 24 * HOUR_US)


def history_of(rng: np.random.Generator, size: int) -> list[Event]:
    """Few visitors and few people, so that everything meets everything."""
    return [
        Event(
            str(rng.choice(["track", "track", "track", "track", "identify", "alias", "reset"])),
            str(rng.choice(["v1", "v2", "v3", "v4", "00000000-0000-0000-0000-000000000000", ""])),
            str(rng.choice(["", "", "", "", "ada", "bob", "cyd", "undefined"])),
            BASE_US + int(rng.integers(0, 60)) * HOUR_US,
            int(rng.choice([0, 0, 1, 5, 30])) * HOUR_US,
            bool(rng.random() < 0.1),
        )
        for _ in range(size)
    ]


@dataclass
class World:
    """A processor and a destination; the processor may lose what it knows."""

    folder: Path
    destination: Any
    ask: Callable[[str], list[tuple[Any, ...]]]
    """The rows of `select COLUMNS from events`, in order."""
    store: FactStore | None = None
    sequence: int = 0
    at: Vector = EMPTY
    made: int = 0
    settler: Settler = field(init=False)

    def __post_init__(self) -> None:
        self.settler = Settler(self.destination, SETTINGS, SystemClock())
        self.destination.open(create=True)
        self.destination.place(PIPELINE, {0: PositionRow(EMPTY.encode())})
        self.destination.fit({"events": [standard_schema()]})
        self.renew()

    def renew(self) -> None:
        """A store that knows what was there from the beginning on."""
        if self.store is not None:
            self.store.close()
        self.made += 1
        self.store = FactStore(
            str(self.folder / f"facts-{self.made}"), 1 << 24, 2, cached_ids=2, filter_bytes=1024
        )

    def recogniser(self, *, stranger: bool) -> Recogniser:
        known: Known = Unknown() if stranger or self.store is None else self.store
        return Recogniser(SETTINGS.policy, Junk(), known, lambda partition: not stranger)

    def load(self, some: list[Event], *, stranger: bool) -> None:
        """One commit of these events, delivered."""
        rows, facts = self.recogniser(stranger=stranger).apply(table_of(some, self.sequence))
        if stranger and facts is not None and self.store is not None:
            from headwater.identity.table import facts_in

            self.store.add(facts_in(facts))  # the chain's own processor ran these events too
        self.sequence += len(some)
        target = Vector({WRITER: Position(1, self.sequence)}, self.sequence)
        step = Step(
            PIPELINE,
            (0,),
            self.at.encode(),
            target.encode(),
            {"events": [rows]},
            {0: {}},
            0,
            "",
            (facts,) if facts else (),
        )
        assert self.destination.step(step) is Outcome.DONE
        self.at = target

    def settle(self) -> None:
        """Until nothing is open."""
        for _ in range(200):
            if not self.settler.settle_some() and not self.destination.unsettled(None, 1):
                return
        raise AssertionError("settling does not end")


def table_of(some: list[Event], first: int) -> pa.Table:
    """Rows as processing shapes them."""
    time = pa.timestamp("us", tz="UTC")
    columns = {
        "message_id": pa.array([f"m{first + n:04d}" for n in range(len(some))]),
        "type": pa.array([e.kind for e in some]),
        "anonymous_id": pa.array([e.anonymous or None for e in some], pa.string()),
        "user_id": pa.array([e.user or None for e in some], pa.string()),
        "received_at": pa.array([e.received_us for e in some], pa.int64()).cast(time),
        "timestamp": pa.array([e.received_us - e.late_us for e in some], pa.int64()).cast(time),
        "is_bot": pa.array([e.bot for e in some]),
        "bot_reason": pa.array(["crawler" if e.bot else None for e in some], pa.string()),
        "_hw_seq": pa.array(range(first, first + len(some)), pa.uint64()),
        "_hw_partition": pa.array([0] * len(some), pa.uint16()),
    }
    return pa.table(columns)


def expected(history: list[Event]) -> list[str | None]:
    """By the definition, over all facts there are."""
    junk = Junk()
    facts: dict[str, list[Fact]] = {}
    for number, event in enumerate(history):
        if event.bot or not event.anonymous or junk.anonymous(event.anonymous):
            continue
        message = f"m{number:04d}"
        if event.kind == "reset":
            facts.setdefault(event.anonymous, []).append(Fact(LOGOUT, "", event.time_us, message))
        elif event.user and not junk.user(event.user):
            kind = LOGIN if event.kind in ("identify", "alias") else FIRST_SEEN
            facts.setdefault(event.anonymous, []).append(Fact(kind, event.user, event.time_us, message))
    reduced = {a: least(each) for a, each in facts.items()}
    return [e.user or (owner(reduced, e) if not e.bot else None) for e in history]


def owner(facts: dict[str, list[Fact]], event: Event) -> str | None:
    """Whose the id of an event was at its time."""
    known = facts.get(event.anonymous)
    return owner_of(known, event.time_us, SETTINGS.policy) if known is not None else None


def least(facts: list[Fact]) -> list[Fact]:
    """Of the first events of a user the least."""
    first: dict[str, Fact] = {}
    for fact in facts:
        if fact.kind == FIRST_SEEN:
            known = first.get(fact.user_id)
            if known is None or (fact.time_us, fact.message_id) < (known.time_us, known.message_id):
                first[fact.user_id] = fact
    return [*(f for f in facts if f.kind != FIRST_SEEN), *first.values()]


Ask = Callable[[str], list[tuple[Any, ...]]]


def duckdb_destination(folder: Path, request: pytest.FixtureRequest) -> tuple[Any, Ask]:
    made = registry.make(
        registry.KINDS["duckdb"].settings(), registry.Place(str(folder), str(folder), SystemClock())
    )
    assert isinstance(made, DuckDbDestination)

    def ask(columns: str) -> list[tuple[Any, ...]]:
        rows = made.sql.query(f"select {columns} from events order by _hw_seq", rows_max=1000).rows
        return [tuple(row.values()) for row in rows.to_pylist()]

    return made, ask


def postgres_destination(folder: Path, request: pytest.FixtureRequest) -> tuple[Any, Ask]:
    server: Server = request.getfixturevalue("postgres")
    schema = server.schema()
    settings = PostgresSettings(url=server.url(), schema=schema)
    made = registry.make(settings, registry.Place(str(folder), str(folder), SystemClock()))
    return made, lambda columns: server.ask(f"select {columns} from {schema}.events order by _hw_seq")


@pytest.fixture(params=[duckdb_destination, postgres_destination], ids=["duckdb", "postgres"])
def make_world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def make() -> World:
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        made.append(World(folder, *request.param(folder, request)))
        return made[-1]

    yield make
    for world in made:
        world.destination.close()


@pytest.mark.parametrize("seed", range(often(12, 40)))
def test_at_rest_every_row_has_the_user_that_all_facts_give_it(
    make_world: Callable[[], World], seed: int
) -> None:
    """Commits of any size, some by runs that know nothing, rows settled now and then."""
    rng = np.random.default_rng(seed)
    world = make_world()
    history = history_of(rng, int(rng.integers(5, 60)))
    left = list(history)
    while left:
        size = int(rng.integers(1, 8))
        some, left = left[:size], left[size:]
        world.load(some, stranger=bool(rng.random() < 0.3))
        if rng.random() < 0.4:
            world.settler.settle_some()
    world.settle()
    assert [user for (user,) in world.ask("user_id")] == expected(history)


def test_what_was_anonymous_is_of_who_logs_in_and_a_storm_comes_in_pieces(
    make_world: Callable[[], World],
) -> None:
    world = make_world()
    world.load([Event("track", "v1", "", BASE_US + n, 0, False) for n in range(10)], stranger=False)
    world.load([Event("identify", "v1", "ada", BASE_US + 100, 0, False)], stranger=False)
    changed = []
    while world.destination.unsettled(None, 1):
        before = world.settler.counters["rows"]
        world.settler.settle_some()
        changed.append(world.settler.counters["rows"] - before)
    assert changed == [4, 4, 2]
    assert world.ask(f"user_id, {OWN}") == [("ada", False)] * 10 + [("ada", True)]


def test_a_storm_holds_nobody_up(make_world: Callable[[], World]) -> None:
    world = make_world()
    world.load([Event("track", "v1", "", BASE_US + n, 0, False) for n in range(10)], stranger=False)
    world.load([Event("track", "v2", "", BASE_US, 0, False)], stranger=False)
    logins = [Event("identify", f"v{n}", f"user-{n}", BASE_US + 100, 0, False) for n in (1, 2)]
    world.load(logins, stranger=False)
    for _ in range(2):
        world.settler.settle_some()
    users = dict(world.ask("message_id, user_id"))
    assert users["m0010"] == "user-2"
    assert None in users.values(), "the storm is not over yet"
    world.settle()
    assert None not in dict(world.ask("message_id, user_id")).values()


def test_facts_that_say_nothing_new_touch_no_row(make_world: Callable[[], World]) -> None:
    world = make_world()
    login = Event("identify", "v1", "ada", BASE_US, 0, False)
    world.load([Event("track", "v1", "", BASE_US, HOUR_US, False), login], stranger=False)
    world.settle()
    rows = world.settler.counters["rows"]
    world.load([login._replace(received_us=BASE_US + HOUR_US)], stranger=False)
    world.settle()
    assert world.settler.counters["rows"] == rows
    assert len(world.destination.facts(["v1"])) == 2
