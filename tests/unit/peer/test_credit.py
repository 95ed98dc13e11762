import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Lost, Rejected
from headwater.peer.credit import Granting, Spending

start = asyncio.create_task  # noqa: TID251 - the tests' own


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("send", "arrive", "done", "grant", "repeat")),
        st.integers(0, 10),
        st.integers(0, 100),
    ),
    max_size=80,
)


@given(STEPS)
def test_credit_is_never_exceeded_whatever_comes_when(steps):
    """A sender and a receiver with frames and grants under way between them; grants come late, twice, out of order."""
    spending, granting = Spending(10, 100), Granting(10, 100)
    way, held, grants = [], [], []
    for step, events, size in steps:
        match step:
            case "send" if events <= 7 and size <= 75 and spending.take_now(events, size):
                way.append((events, size))
            case "arrive" if way:
                granting.receive(*way[0])  # raises if the sender went over
                held.append(way.pop(0))
            case "done" if held and (totals := granting.finish(*held.pop(0))):
                grants.append(totals)
            case "grant" if grants:
                spending.grant(*grants.pop(events % len(grants)))
            case "repeat" if grants:
                spending.grant(*grants[events % len(grants)])
        assert sum(e for e, _ in way + held) <= 10
        assert sum(s for _, s in way + held) <= 100


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 75)), min_size=1, max_size=60))
def test_credit_that_is_given_back_never_runs_dry(batches):
    spending, granting = Spending(10, 100), Granting(10, 100)
    for batch in batches:
        assert spending.take_now(*batch), "no credit, and nothing under way that could give any back"
        granting.receive(*batch)
        if (totals := granting.finish(*batch)) is not None:
            spending.grant(*totals)


async def test_those_who_wait_are_served_in_order():
    spending = Spending(10, 1000)
    await spending.take(5, 5)
    await spending.take(5, 5)
    large, small = start(spending.take(6, 1)), start(spending.take(1, 1))
    await asyncio.wait([small], timeout=0)
    spending.grant(13, 1000)
    await asyncio.wait([small], timeout=0)
    assert not small.done()  # it would fit, but the large one came first
    assert not spending.take_now(1, 1)
    spending.grant(17, 1000)
    await asyncio.gather(large, small)
    assert spending.left.events == 0


async def test_giving_up_spends_nothing():
    spending = Spending(10, 1000)
    await spending.take(5, 5)
    await spending.take(5, 5)
    first, second = start(spending.take(5, 1)), start(spending.take(5, 1))
    await asyncio.wait([first], timeout=0)
    spending.grant(15, 1000)
    first.cancel()  # in the step in which its credit came
    await asyncio.wait([first, second], timeout=0)
    assert first.cancelled()
    await second
    assert spending.left.events == 0


async def test_what_never_fits_is_refused_and_the_end_wakes_all():
    spending = Spending(10, 1000)
    with pytest.raises(Rejected, match="split it"):
        spending.take_now(8, 1)
    with pytest.raises(Rejected):
        await spending.take(1, 751)
    await spending.take(5, 5)
    await spending.take(5, 5)
    waiting = start(spending.take(1, 1))
    await asyncio.wait([waiting], timeout=0)
    spending.close()
    with pytest.raises(Lost):
        await waiting
    with pytest.raises(Lost):
        spending.take_now(0, 0)


def test_more_than_was_granted_is_refused_and_counts_for_nothing():
    """C7."""
    granting = Granting(10, 100)
    granting.receive(10, 10)
    for events, size in ((1, 0), (0, 91), (-1, 0)):
        with pytest.raises(Rejected) as caught:
            granting.receive(events, size)
        assert caught.value.code == "over_credit"
    assert granting.held == (10, 10)
    with pytest.raises(ValueError, match="done of"):
        granting.finish(11, 0)


def test_a_grant_is_worth_a_frame_after_a_quarter_of_the_window():
    granting = Granting(100, 10_000)
    granting.receive(60, 600)
    assert granting.finish(24, 240) is None
    assert granting.finish(1, 10) == (125, 10_250)
    assert granting.finish(1, 10) is None
