"""Links that an operator takes back, against the true history: at rest every row has the user that all facts, unlinks
among them, give it; and what a destination tells of people is what its rows say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from headwater.destinations.port import Outcome, Step
from headwater.event.position import Position, Vector
from headwater.event.record import OPERATOR
from headwater.identity import audit
from headwater.identity.junk import Junk
from headwater.identity.owner import FIRST_SEEN, LOGIN, LOGOUT, UNLINK, Fact
from headwater.identity.table import facts_in
from headwater.process.run import without_decisions
from tests.contracts import test_recognition as recognition
from tests.contracts.test_recognition import BASE_US, HOUR_US, PIPELINE, SETTINGS, WRITER, Event, World
from tests.thorough import often

make_world = recognition.make_world
"""The fixture."""


def load(world: World, some: list[Event], *, stranger: bool = False) -> None:
    """One commit of these events, delivered; an operator's decisions among them have no rows."""
    table = recognition.table_of(some, world.sequence)
    keys = pa.array([OPERATOR if event.kind == UNLINK else "web" for event in some])
    made, facts = world.recogniser(stranger=stranger).apply(table.append_column("key_id", keys))
    rows = without_decisions(made)
    if stranger and facts is not None and world.store is not None:
        world.store.add(facts_in(facts))
    world.sequence += len(some)
    target = Vector({WRITER: Position(1, world.sequence)}, world.sequence)
    step = Step(
        PIPELINE, (0,), world.at.encode(), target.encode(), {"events": [rows] if rows is not None else []},
        {0: {}}, facts=(facts,) if facts is not None else (),
    )  # fmt: skip
    assert world.destination.step(step) is Outcome.DONE
    world.at = target


def history_of(rng: np.random.Generator, size: int) -> list[Event]:
    """As recognition's, with an operator who takes links back. He has no browser, so his rows look like a bot's."""
    some = recognition.history_of(rng, size)
    for at in rng.choice(size, max(1, size // 8), replace=False).tolist():
        visitor, user = str(rng.choice(["v1", "v2", "v3", "v4"])), str(rng.choice(["ada", "bob", "cyd"]))
        some[at] = Event(UNLINK, visitor, user, some[at].received_us, 0, bool(rng.random() < 0.5))
    return some


def expected(history: list[Event]) -> list[str | None]:
    """By the definition, over all facts there are; of the rows that are there."""
    junk = Junk()
    facts: dict[str, list[Fact]] = {}
    for number, event in enumerate(history):
        if not event.anonymous or junk.anonymous(event.anonymous) or (event.bot and event.kind != UNLINK):
            continue
        message = f"m{number:04d}"
        if event.kind == "reset":
            facts.setdefault(event.anonymous, []).append(Fact(LOGOUT, "", event.time_us, message))
        elif event.user and not junk.user(event.user):
            kind = {"identify": LOGIN, "alias": LOGIN, UNLINK: UNLINK}.get(event.kind, FIRST_SEEN)
            facts.setdefault(event.anonymous, []).append(Fact(kind, event.user, event.time_us, message))
    known = {anonymous: recognition.least(each) for anonymous, each in facts.items()}
    return [
        event.user or (recognition.owner(known, event) if not event.bot else None)
        for event in history
        if event.kind != UNLINK
    ]


@pytest.mark.parametrize("seed", range(often(12, 40)))
def test_at_rest_every_row_has_the_user_that_no_unlink_has_taken_back(
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
        load(world, some, stranger=bool(rng.random() < 0.3))
        if rng.random() < 0.4:
            world.settler.settle_some()
    world.settle()
    assert [user for (user,) in world.ask("user_id")] == expected(history)


def track(visitor: str, hour: int, user: str = "") -> Event:
    return Event("track", visitor, user, BASE_US + hour * HOUR_US, 0, False)


def login(visitor: str, user: str, hour: int) -> Event:
    return Event("identify", visitor, user, BASE_US + hour * HOUR_US, 0, False)


def told(world: World, *ids: str) -> list[audit.Visitor]:
    """What the destination knows of these ids."""
    facts = world.destination.facts(ids)
    rows = world.destination.rows_by_user("events", ids)
    return audit.visitors(ids, facts, rows, SETTINGS.policy, Junk())


def test_what_is_told_of_a_visitor_agrees_with_its_rows(make_world: Callable[[], World]) -> None:
    world = make_world()
    load(
        world, [track("v1", 1), track("v1", 2), login("v1", "ada", 3), track("v1", 3, "ada"), track("v2", 4)]
    )
    (before,) = told(world, "v1")
    assert not before.settled
    world.settle()
    one, two = told(world, "v1", "v2")
    (link,) = one.links
    assert (one.state, one.settled, one.rows_anonymous) == ("linked", True, 0)
    assert (link.user_id, link.kind, link.message_id) == ("ada", "login", "m0002")
    assert (link.rows_own, link.rows_recognised) == (2, 2)
    assert (two.state, two.links, two.rows_anonymous) == ("anonymous", [], 1)

    load(world, [Event(UNLINK, "v1", "ada", BASE_US + 5 * HOUR_US, 0, True)])
    world.settle()
    (one,) = told(world, "v1")
    (link,) = one.links
    assert (one.state, one.rows_anonymous, link.state, link.unlinked_by) == (
        "unlinked",
        2,
        "unlinked",
        "m0005",
    )
    assert (link.rows_own, link.rows_recognised) == (2, 0)


def test_the_devices_of_a_user_come_with_the_newest_facts_first(make_world: Callable[[], World]) -> None:
    world = make_world()
    load(world, [login("v1", "ada", 1), login("v2", "ada", 3), login("v3", "ada", 2), login("v4", "bob", 9)])
    assert world.destination.ids_of_user("ada", 9) == ["v2", "v3", "v1"]
    assert world.destination.ids_of_user("ada", 2) == ["v2", "v3"]
    assert world.destination.ids_of_user("nobody", 2) == []


def test_the_newest_facts_come_first_and_reach_back_as_far_as_asked(make_world: Callable[[], World]) -> None:
    world = make_world()
    load(world, [login("v1", "ada", 1), login("v2", "bob", 3), login("v3", "cyd", 2)])
    destination = world.destination
    assert destination.newest_facts(0, 2)["anonymous_id"].to_pylist() == ["v2", "v3"]
    assert destination.newest_facts(BASE_US + 2 * HOUR_US, 9)["anonymous_id"].to_pylist() == ["v2", "v3"]
    newest = audit.logged(destination.newest_facts(0, 1))[0]
    assert (newest.kind, newest.user_id, newest.message_id) == ("login", "bob", "m0001")
    assert destination.rows_by_user("no_such_table", ["v1"]).num_rows == 0
