"""Several nodes settle the rows of one PostgreSQL schema: no fact is lost between two, none waits for the other, and
one visitor with very many rows holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater.destinations.port import Outcome, PositionRow, Redo, Settled, Step
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.destinations.settle import TROUBLE_INTERVAL_S, Settler
from headwater.event.piece import Range
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.identity.owner import FIRST_SEEN, LOGIN, Fact
from headwater.identity.settings import IdentitySettings
from headwater.identity.table import SETTLE, Named, facts_table
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError
from headwater.process.columns import standard_schema
from tests.rigs.postgres import Server

pytest.importorskip("psycopg")
from headwater.destinations.postgres import identity
from headwater.destinations.postgres.write import PostgresDestination

PIPELINE = "cluster/pg/main"
WRITER = WriterId(7 << 16)
BASE_US = 1_790_000_000_000_000
PARTITIONS = (0, 1)
VISITORS = 200
Row = tuple[str, str | None]
"""Anonymous id, and the user that the event names."""


def login(partition: int, anonymous: str, user: str, at_us: int = 1000) -> Named:
    return partition, anonymous, Fact(LOGIN, user, BASE_US + at_us, f"login-{user}-{at_us}")


@dataclass
class Node:
    """A node's connection to the schema, delivering some partitions."""

    place: Place
    partitions: tuple[int, ...] = PARTITIONS
    settings: IdentitySettings = field(default_factory=IdentitySettings)
    destination: PostgresDestination = field(init=False)
    settler: Settler = field(init=False)

    def __post_init__(self) -> None:
        self.destination = PostgresDestination(self.place.settings, "/", SystemClock())
        self.destination.open(create=True)
        self.destination.place(
            PIPELINE, {p: PositionRow(EMPTY.encode()) for p in PARTITIONS}, missing_only=True
        )
        self.destination.fit({"events": [standard_schema()]})
        self.settler = Settler(self.destination, self.settings, SystemClock(), lambda: self.partitions)

    def load(self, rows: list[Row], *facts: Named, partition: int = 0, redo: Redo | None = None) -> Outcome:
        """A step of one partition."""
        at = self.destination.positions(PIPELINE)[partition].vector
        here, first = Vector.decode(at).get(WRITER), self.place.next(len(rows) + 1)
        assert here is None or here.seq <= first
        target = Vector({WRITER: Position(1, first + len(rows) + 1)}, 0)
        tables = {"events": [rows_of(rows, first, partition)]} if rows else {}
        known = (facts_table(facts),) if facts else ()
        return self.destination.step(
            Step(PIPELINE, (partition,), at, target.encode(), tables, {partition: {}}, facts=known, redo=redo)
        )

    def settle(self) -> None:
        """Until nothing is open."""
        for _ in range(100):
            self.settler.settle_some()
            if not self.destination.unsettled(self.partitions, 1):
                return
        raise AssertionError("settling does not end")

    def settle_with(self, during: Callable[[], None]) -> Settled:
        """A pass; ``during`` is called in the middle of it."""

        def whose(facts: pa.Table) -> pa.Table:
            during()
            return self.settler.whose(facts)

        return self.destination.settle(self.partitions, whose, ids_max=100, rows_max=1000)


@dataclass
class Place:
    """A schema of its own."""

    server: Server
    schema: str
    sequence: int = 0

    @property
    def settings(self) -> PostgresSettings:
        return PostgresSettings(url=self.server.url(), schema=self.schema)

    def next(self, count: int) -> int:
        self.sequence += count
        return self.sequence - count

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """``statement`` about {events}."""
        return self.server.ask(statement.replace("{events}", f"{self.schema}.events"), *values)

    def users(self) -> list[Row]:
        return [(a, u) for a, u in self.ask("select anonymous_id, user_id from {events} order by _hw_seq")]


def rows_of(rows: list[Row], first: int, partition: int) -> pa.Table:
    """As processing shapes them, of runs that know no facts."""
    times = pa.array([BASE_US] * len(rows), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            "message_id": [f"m{first + n}" for n in range(len(rows))],
            "anonymous_id": pa.array([a for a, _ in rows], pa.string()),
            "user_id": pa.array([u for _, u in rows], pa.string()),
            "received_at": times,
            "timestamp": times,
            "is_bot": [False] * len(rows),
            "_hw_user_own": [u is not None for _, u in rows],
            "_hw_writer": pa.array([int(WRITER)] * len(rows), pa.uint64()),
            "_hw_log": pa.array([1] * len(rows), pa.uint64()),
            "_hw_seq": pa.array(range(first, first + len(rows)), pa.uint64()),
            "_hw_partition": pa.array([partition] * len(rows), pa.uint16()),
        }
    )


@pytest.fixture
def make_node(postgres: Server) -> Iterator[Callable[..., Node]]:
    place = Place(postgres, postgres.schema())
    made: list[Node] = []

    def make(*partitions: int, **settings: Any) -> Node:
        made.append(Node(place, partitions or PARTITIONS, IdentitySettings(**settings)))
        return made[-1]

    yield make
    for node in made:
        node.destination.close()


MakeNode = Callable[..., Node]


def test_a_node_settles_what_is_in_its_partitions_and_nothing_else(make_node: MakeNode) -> None:
    here, there = make_node(0), make_node(1)
    here.load([("v0", None)], login(0, "v0", "ada"))
    there.load([("v1", None)], login(1, "v1", "bob"), partition=1)
    here.settle()
    assert here.place.users() == [("v0", "ada"), ("v1", None)]
    assert there.destination.unsettled((1,), 10) == ["v1"]
    there.settle()
    assert here.place.users() == [("v0", "ada"), ("v1", "bob")]


def test_two_nodes_that_settle_at_once_do_not_wait_for_each_other(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    one.load([("v0", None)], login(0, "v0", "ada"))
    others: list[Settled] = []

    def during() -> None:
        two.load([("v1", None)], login(0, "v1", "bob"))
        others.append(two.settle_with(lambda: None))
        assert two.place.users() == [("v0", None), ("v1", "bob")]

    assert one.settle_with(during) == Settled(1, 1, more=False)
    assert others == [Settled(1, 1, more=False)]
    assert one.place.users() == [("v0", "ada"), ("v1", "bob")]
    assert one.destination.unsettled(None, 10) == []


def test_a_fact_that_comes_in_the_middle_of_a_pass_is_settled_too(make_node: MakeNode) -> None:
    """Another node has taken the partition over, and loads the next login of this visitor meanwhile."""
    one, two = make_node(), make_node()
    one.load([("v0", None), ("v0", None)], login(0, "v0", "ada", 1000))
    outcomes: list[Outcome] = []
    step = threading.Thread(target=lambda: outcomes.append(two.load([], login(0, "v0", "bob", 500))))

    def during() -> None:
        step.start()
        step.join(0.3)
        assert step.is_alive()  # it waits for the pass

    one.settle_with(during)
    step.join(10)
    assert outcomes == [Outcome.DONE]
    assert one.place.users() == [("v0", "ada")] * 2
    two.settle()
    assert one.place.users() == [("v0", "bob")] * 2


def test_steps_that_name_the_same_visitors_in_another_order_do_not_lock_each_other_out(
    make_node: MakeNode,
) -> None:
    one, two = make_node(0), make_node(1)
    one.load([], login(0, "v0", "ada"), login(0, "v1", "ada"))
    table = f"{one.place.schema}.{identity.UNSETTLED}"
    low, high = one.place.ask(f"select visitor from {table} order by 1")
    names = {v: one.place.ask("select hashtextextended(%s, 0)", v)[0] for v in ("v0", "v1")}
    first, last = sorted(names, key=lambda v: names[v])
    assert (names[first], names[last]) == (low, high)
    outcomes: list[Outcome] = []

    def load(node: Node, partition: int, visitors: list[str]) -> threading.Thread:
        facts = [login(partition, v, "bob", 50 + partition) for v in visitors]
        step = threading.Thread(target=lambda: outcomes.append(node.load([], *facts, partition=partition)))
        step.start()
        step.join(0.3)
        assert step.is_alive()
        return step

    with closing(one.place.server.connect()) as other:
        other.execute("begin")
        other.execute(f"select 1 from {table} where visitor = %s for update", high)
        steps = [load(one, 0, [last, first]), load(two, 1, [first, last])]
        other.execute("rollback")
    for step in steps:
        step.join(10)
    assert outcomes == [Outcome.DONE] * 2


def test_a_pass_gives_in_to_who_holds_a_row_and_comes_again(make_node: MakeNode) -> None:
    one = make_node()
    one.load([("v0", None)], login(0, "v0", "ada"))
    with closing(one.place.server.connect()) as other:
        other.execute("begin")
        other.execute(f"select 1 from {one.place.schema}.events for update")
        assert one.settle_with(lambda: None) == Settled(0, 0, more=False)
        other.execute("rollback")
    one.settle()
    assert one.place.users() == [("v0", "ada")]


def test_a_row_that_somebody_changes_during_the_pass_is_looked_at_again(make_node: MakeNode) -> None:
    one = make_node()
    one.load([("v0", None)], login(0, "v0", "ada"))
    with closing(one.place.server.connect()) as other:
        other.execute("begin")
        other.execute(f"update {one.place.schema}.events set event = 'by hand'")
        end = threading.Timer(0.2, lambda: other.execute("commit"))
        end.start()
        done = one.settle_with(lambda: None)
        end.join()
    assert done == Settled(0, 0, more=True)
    one.settle()
    assert one.place.users() == [("v0", "ada")]


def test_a_visitor_with_very_many_rows_holds_up_nobody_for_more_than_a_pass(make_node: MakeNode) -> None:
    one = make_node(settle_rows_max=10)
    one.load([("storm", None)] * 35, login(0, "storm", "ada"))
    one.settler.settle_some()
    one.load([("small", None)], login(0, "small", "bob"))
    one.settler.settle_some()
    assert ("small", "bob") in one.place.users()
    assert one.destination.unsettled(None, 10) == ["storm"]
    one.settle()
    assert one.place.users() == [("storm", "ada")] * 35 + [("small", "bob")]


def test_who_is_finished_in_a_pass_that_is_full_is_settled(make_node: MakeNode) -> None:
    one = make_node(settle_rows_max=10)
    one.load([("small", None)] * 4, login(0, "small", "bob"))
    one.load([("storm", None)] * 35, login(0, "storm", "ada"))
    one.settler.settle_some()
    assert one.destination.unsettled(None, 10) == ["storm"]
    assert one.settler.counters == {"passes": 1, "ids": 1, "rows": 10}


def test_facts_that_are_known_already_change_nothing_and_open_nothing(make_node: MakeNode) -> None:
    one = make_node()
    first = (0, "v0", Fact(FIRST_SEEN, "ada", BASE_US + 50, "m5"))
    one.load([("v0", None)], login(0, "v0", "ada"), first)
    one.settle()
    known = one.destination.facts(["v0"])
    later = (0, "v0", Fact(FIRST_SEEN, "ada", BASE_US + 60, "m4"))
    one.load([], login(0, "v0", "ada"), first, later, (0, "nobody", Fact(SETTLE, "", 0, "")))
    assert one.destination.unsettled(None, 10) == []
    assert one.destination.facts(["v0"]).equals(known)
    one.load([], (0, "v0", Fact(FIRST_SEEN, "ada", BASE_US + 40, "m6")))
    assert one.destination.unsettled(None, 10) == ["v0"]
    seen = one.destination.facts(["v0"]).filter(
        pa.compute.equal(one.destination.facts(["v0"])["kind"], FIRST_SEEN)
    )
    assert seen.select(["time_us", "message_id", "settled"]).to_pylist() == [
        {"time_us": BASE_US + 40, "message_id": "m6", "settled": False}
    ]


def test_ids_of_any_length_and_with_characters_that_the_server_lacks_are_settled(make_node: MakeNode) -> None:
    """An index over the id itself would refuse the row."""
    one = make_node()
    noise = np.random.default_rng(1).integers(0x4E00, 0x9FFF, 10_000)
    long, odd = "".join(map(chr, noise)), "nul-\0-id"
    one.load([(long, None), (odd, None)], login(0, long, "ada"), login(0, odd, "b\0b"))
    one.settle()
    assert one.place.users() == [(long, "ada"), ("nul-�-id", "b�b")]


def test_a_large_table_without_the_index_waits_for_an_operators_and_loses_nothing(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_node()
    place, index = first.place, identity.visitor_index("events")
    first.load([("v0", None)], login(0, "v0", "ada"))
    place.ask(f"drop index {place.schema}.{index}")
    monkeypatch.setattr(identity, "TABLE_BYTES_MAX", 0)
    large = make_node()
    assert large.settler.turn() == TROUBLE_INTERVAL_S
    trouble = large.settler.trouble
    assert trouble is not None
    assert trouble.code == "visitor_index"
    assert large.load([("v0", None)]) is Outcome.DONE  # rows come as ever
    place.ask(trouble.help.partition(";")[0])
    large.settle()
    assert place.users() == [("v0", "ada")] * 2


def test_a_constraint_that_refuses_a_user_is_told_and_keeps_no_row_waiting(make_node: MakeNode) -> None:
    one = make_node()
    one.load([("v0", None)], login(0, "v0", "ada"))
    one.place.ask("alter table {events} add constraint nobody check (user_id is null)")
    told: list[HeadwaterError] = []
    one.settler = Settler(one.destination, one.settings, SystemClock(), tell=told.append)
    assert one.settler.turn() == TROUBLE_INTERVAL_S
    one.settler.touch()
    assert one.settler.turn() > TROUBLE_INTERVAL_S / 2  # other facts do not hurry it
    one.settler.due_ns = 0
    assert one.settler.turn() == TROUBLE_INTERVAL_S
    assert [trouble.code for trouble in told] == ["row_refused"]
    assert one.settler.told["reason"] == told[0].message
    assert one.load([("v0", None)]) is Outcome.DONE
    one.place.ask("alter table {events} drop constraint nobody")
    one.settler.due_ns = 0
    one.settler.turn()
    assert one.settler.trouble is None
    assert one.place.users() == [("v0", "ada")] * 2


def test_a_small_table_that_is_there_gets_the_index(make_node: MakeNode) -> None:
    first = make_node()
    index = identity.visitor_index("events")
    first.place.ask(f"drop index {first.place.schema}.{index}")
    assert make_node().destination.indexed("events")


def test_nodes_that_load_and_settle_the_same_visitors_at_once_end_with_every_row_right(
    make_node: MakeNode,
) -> None:
    """Facts of the same visitors in both partitions, in any order: no deadlock, no lost fact."""
    nodes = [make_node(0), make_node(1)]
    troubles: list[HeadwaterError] = []

    def work(node: Node, seed: int) -> None:
        rng = np.random.default_rng(seed)
        (partition,) = node.partitions
        try:
            for n in range(12):
                some = [f"v{v}" for v in rng.permutation(VISITORS)]
                facts = [login(partition, v, f"u{seed}-{n}", int(rng.integers(1, 10_000))) for v in some]
                node.load([(v, None) for v in some], *facts, partition=partition)
                if n % 3 == 0:
                    node.settler.settle_some()
        except HeadwaterError as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(node, seed)) for seed, node in enumerate(nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert troubles == []
    last = make_node()
    last.settle()
    place = last.place
    wanted = place.ask(
        f"select anonymous_id, (array_agg(user_id order by time, message_id))[1] "
        f"from {place.schema}.{identity.IDENTITY} group by 1"
    )
    users: dict[str, set[str | None]] = {}
    for visitor, user in place.users():
        users.setdefault(visitor, set()).add(user)
    assert users == {visitor: {user} for visitor, user in wanted}
    assert len(wanted) == VISITORS


def test_rows_that_a_replay_makes_again_are_settled(make_node: MakeNode) -> None:
    one = make_node()
    one.load([("v0", None)], login(0, "v0", "ada"))
    one.settle()
    again = Redo("events", (Range(WRITER, 1, 0, 1),), 1, PIPELINE, {0: {}})
    one.load([("v0", None)], (0, "v0", Fact(SETTLE, "", 0, "")), redo=again)
    assert one.place.users() == [("v0", None)]
    one.settle()
    assert one.place.users() == [("v0", "ada")]
