"""Whose an anonymous id was at a time: the definition of protocol.md §10, line by line, against the fast form."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headwater.identity.owner import (
    BEGIN_US,
    END_US,
    FIRST_SEEN,
    LOGIN,
    LOGOUT,
    UNLINK,
    Fact,
    Interval,
    Policy,
    intervals,
    owner_of,
    redundant,
)

POLICY = Policy(look_back_us=10, recognise_after_logout=False, shared_users_max=3)


def login(user: str, time_us: int, message_id: str = "m") -> Fact:
    return Fact(LOGIN, user, time_us, message_id)


def defined(facts: list[Fact], time_us: int, policy: Policy) -> str | None:
    """The definition, as it is written."""
    unlinks = [f for f in facts if f.kind == UNLINK]
    counted = [
        f
        for f in facts
        if f.kind != UNLINK
        and not any(u.user_id == f.user_id and u.time_us >= f.time_us for u in unlinks if f.kind != LOGOUT)
    ]
    if len({f.user_id for f in counted if f.kind != LOGOUT}) > policy.shared_users_max:
        return None
    order = sorted(counted, key=lambda f: (f.time_us, f.message_id, f.kind, f.user_id))
    before = [f for f in order if f.time_us <= time_us]
    if before and before[-1].kind != LOGOUT:
        return before[-1].user_id
    if before and not policy.recognise_after_logout:
        return None
    after = [f for f in order if f.time_us > time_us and f.kind != LOGOUT]
    return after[0].user_id if after and after[0].time_us - time_us <= policy.look_back_us else None


facts_drawn = st.lists(
    st.builds(
        Fact,
        st.sampled_from([LOGIN, FIRST_SEEN, LOGOUT, UNLINK]),
        st.sampled_from(["u", "v", "w", "x", "y"]),
        st.integers(0, 40),
        st.sampled_from(["a", "b", "c"]),
    ).map(lambda f: f._replace(user_id="") if f.kind == LOGOUT else f),
    max_size=12,
)
policies = st.builds(Policy, st.integers(0, 50), st.booleans(), st.integers(1, 5))


@given(facts_drawn, policies)
def test_the_intervals_say_what_the_definition_says_at_every_time(facts: list[Fact], policy: Policy) -> None:
    for time_us in range(-60, 50):
        assert owner_of(facts, time_us, policy) == defined(facts, time_us, policy), time_us


@given(
    facts_drawn.flatmap(lambda facts: st.tuples(st.just(facts), st.permutations([*facts, *facts[:3]]))),
    policies,
)
def test_neither_order_nor_repetition_of_facts_changes_anything(
    drawn: tuple[list[Fact], list[Fact]], policy: Policy
) -> None:
    facts, again = drawn
    assert intervals(again, policy) == intervals(facts, policy)


@given(facts_drawn, policies)
def test_intervals_cover_all_times_without_gaps_and_neighbours_differ(
    facts: list[Fact], policy: Policy
) -> None:
    found = intervals(facts, policy)
    assert found[0].begin_us == BEGIN_US
    assert found[-1].end_us == END_US
    for one, following in pairwise(found):
        assert one.end_us == following.begin_us
        assert one.user_id != following.user_id


@given(facts_drawn, facts_drawn, policies)
def test_redundant_facts_change_nothing_whichever_of_them_are_known(
    settled: list[Fact], more: list[Fact], policy: Policy
) -> None:
    if not redundant([*settled, *more], settled):
        return
    for count in range(len(more) + 1):
        assert intervals([*settled, *more[:count]], policy) == intervals(settled, policy)


def test_a_user_who_logs_in_again_changes_nothing_and_one_who_was_away_does() -> None:
    settled = [login("u", 100), Fact(LOGOUT, "", 120, "m"), login("v", 130)]
    assert redundant([*settled, login("v", 140)], settled)
    assert redundant([*settled, login("u", 110)], settled)
    for fact in (
        login("u", 140),
        login("u", 90),
        login("u", 125),
        Fact(LOGOUT, "", 110, "m"),
        Fact(UNLINK, "v", 150, ""),
    ):
        assert not redundant([*settled, fact], settled)


def test_what_came_before_the_first_login_is_of_who_logs_in_as_far_as_the_look_back_reaches() -> None:
    assert intervals([login("u", 100)], POLICY) == [
        Interval(BEGIN_US, 90, None),
        Interval(90, END_US, "u"),
    ]


def test_between_two_people_a_device_is_of_the_one_who_logged_in_last() -> None:
    facts = [login("u", 100), login("v", 200)]
    assert [owner_of(facts, t, POLICY) for t in (95, 150, 199, 200, 300)] == ["u", "u", "u", "v", "v"]


def test_after_a_logout_it_is_nobodys_unless_the_policy_says_otherwise() -> None:
    facts = [login("u", 100), Fact(LOGOUT, "", 120, "m"), login("v", 130)]
    assert [owner_of(facts, t, POLICY) for t in (110, 125, 130)] == ["u", None, "v"]
    after = POLICY._replace(recognise_after_logout=True)
    assert [owner_of(facts, t, after) for t in (110, 125, 130)] == ["u", "v", "v"]


def test_an_unlink_takes_back_what_linked_its_user_until_then_and_not_what_comes_later() -> None:
    unlinked = [login("u", 100), Fact(UNLINK, "u", 150, "c")]
    assert owner_of(unlinked, 120, POLICY) is None
    assert owner_of([*unlinked, login("u", 160)], 155, POLICY) == "u"


def test_an_id_of_more_users_than_a_device_has_is_nobodys() -> None:
    facts = [login(user, 100 + n) for n, user in enumerate("uvwx")]
    assert intervals(facts, POLICY) == [Interval(BEGIN_US, END_US, None)]
    assert owner_of(facts[:3], 102, POLICY) == "w"
