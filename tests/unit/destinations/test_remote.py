"""A destination on another node: the calls arrive as they were made, and what is lost on the way back is unknown."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.destinations import remote
from headwater.destinations.memory import MemoryDestination, Store
from headwater.destinations.port import Counts, Outcome, OutcomeUnknown, PositionRow, Redo, Step
from headwater.destinations.remote import RemoteDestination, Served
from headwater.event.position import Position, Vector, WriterId
from headwater.identity.owner import Fact
from headwater.identity.table import facts_table
from headwater.kit import ask
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable

A = Vector({WriterId(7 << 16): Position(3, 4)}, clock=9)
B = Vector({WriterId(7 << 16): Position(3, 9)}, clock=12)
ROWS = pa.table({"message_id": ["a", "b"], "_hw_partition": pa.array([1, 1], pa.uint16())})


class Wire:
    """Both ends, with everything as it travels; ``cut``: the answer is lost."""

    def __init__(self) -> None:
        self.store = Store()
        self.served = Served(MemoryDestination(self.store))
        self.served.destination.open(create=True)
        self.cut = False

    def call(self, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        travelled = ask.decode_json(ask.encode_json(request))
        try:
            reply, answer = self.served.answer(travelled, body)
        except HeadwaterError as error:
            raise ask.revive(ask.describe(error)) from None
        if self.cut:
            raise Unavailable("the connection broke")
        return ask.decode_json(ask.encode_json(reply)), answer


@pytest.fixture
def wire() -> Wire:
    return Wire()


def step(**more: Any) -> Step:
    return Step(
        "p", (1, 2), A.encode(), B.encode(), {"events": [ROWS, ROWS.slice(0, 1)]},
        {1: {"web": Counts(out=3, rows=3)}, 2: {}}, 5, "me", **more,
    )  # fmt: skip


def test_steps_places_and_positions_arrive_whole(wire: Wire) -> None:
    there = RemoteDestination(wire.call)
    there.open(create=True)
    assert there.empty()
    there.fit({"events": [ROWS.schema]})
    rows = {p: PositionRow(A.encode(), {"web": Counts(1, 1)}, 4, "x") for p in (1, 2)}
    there.place("p", rows)
    there.place("p", {1: PositionRow(B.encode()), 3: PositionRow(B.encode())}, missing_only=True)
    assert there.positions("p") == {**rows, 3: PositionRow(B.encode())}
    assert there.step(step()) is Outcome.DONE
    assert not there.empty()
    assert there.positions("p")[1] == PositionRow(B.encode(), {"web": Counts(4, 4)}, 5, "me")
    assert there.step(step()) is Outcome.MOVED  # it does not begin where it stands any more


def test_what_travels_is_what_was_sent() -> None:
    sent = step()
    head, body = remote.packed(sent)
    got = remote.unpacked(head, body)
    assert [t.to_pylist() for t in got.tables["events"]] == [t.to_pylist() for t in sent.tables["events"]]
    assert (got.partitions, got.origin, got.target, got.added, got.owner) == (
        sent.partitions, sent.origin, sent.target, sent.added, sent.owner,
    )  # fmt: skip


def test_an_answer_that_is_lost_is_an_unknown_outcome_and_the_position_tells(wire: Wire) -> None:
    there = RemoteDestination(wire.call)
    there.place("p", {p: PositionRow(A.encode()) for p in (1, 2)})
    wire.cut = True
    with pytest.raises(OutcomeUnknown):
        there.step(step())
    with pytest.raises(Unavailable):
        there.positions("p")
    wire.cut = False
    assert there.positions("p")[1].vector == B.encode()


def test_rows_that_are_refused_there_are_refused_here(wire: Wire) -> None:
    there = RemoteDestination(wire.call)

    def refuse(_: Step) -> Outcome:
        raise Rejected("no such column", code="rows")

    wire.served.destination.step = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(Rejected, match="no such column"):
        there.step(step())


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        ({"method": "close"}, b""),
        ({"method": "positions"}, b""),
        ({"method": "step", "step": {"pipeline": "p"}}, b""),
        ({"method": "try_rows", "table": "events"}, b"not arrow"),
        ({"method": "fit", "schemas": [["events", 3]]}, b"abc"),
    ],
)
def test_nonsense_is_refused(wire: Wire, request_: dict[str, Any], body: bytes) -> None:
    with pytest.raises(Rejected):
        wire.served.answer(request_, body)


def test_a_replay_is_made_where_the_destination_is(wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="node that holds"):
        RemoteDestination(wire.call).step(step(redo=Redo("events", (), 0, "p", {})))


def test_facts_travel_with_their_step(wire: Wire) -> None:
    facts = facts_table([(1, "visitor", Fact("login", "ada", 5, "m1"))])
    sent: list[Step] = []

    def take(step: Step) -> Outcome:
        sent.append(step)
        return Outcome.DONE

    wire.served.destination.step = take  # type: ignore[method-assign]
    RemoteDestination(wire.call).step(step(facts=(facts,)))
    assert sent[0].facts[0].equals(facts)
