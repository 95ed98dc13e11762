"""What a person is told of an anonymous id follows from its facts, as the rows do."""

from __future__ import annotations

import pytest

from headwater.identity.audit import Visitor, bound, text_of, visitor
from headwater.identity.owner import BEGIN_US, END_US, FIRST_SEEN, LOGIN, LOGOUT, UNLINK, Fact, Policy

DAY_US = 86_400_000_000
POLICY = Policy(30 * DAY_US, False, 2)


def told(
    *facts: Fact, junk: bool = False, counts: dict[tuple[str | None, bool], int] | None = None
) -> Visitor:
    return visitor("v", facts, counts or {}, POLICY, junk=junk, settled=True)


def states(one: Visitor) -> dict[str, str]:
    return {link.user_id: link.state for link in one.links}


def test_a_link_names_the_first_fact_that_holds() -> None:
    one = told(Fact(LOGIN, "ada", 50, "m5"), Fact(FIRST_SEEN, "ada", 20, "m2"), Fact(LOGOUT, "", 60, "m6"))
    (link,) = one.links
    assert (one.state, link.kind, link.message_id, link.since) == ("linked", FIRST_SEEN, "m2", text_of(20))
    assert (one.logouts, link.unlinked_by) == (1, None)


def test_a_login_after_an_unlink_links_anew_and_the_unlink_is_still_told() -> None:
    unlinked = (Fact(LOGIN, "ada", 20, "m2"), Fact(UNLINK, "ada", 30, "u3"))
    one = told(*unlinked)
    assert (one.state, states(one), one.links[0].message_id) == ("unlinked", {"ada": "unlinked"}, "m2")
    again = told(*unlinked, Fact(LOGIN, "ada", 40, "m4"))
    (link,) = again.links
    assert (again.state, link.state, link.message_id) == ("linked", "linked", "m4")
    assert (link.unlinked_by, link.unlinked_at) == ("u3", text_of(30))


def test_an_unlink_takes_back_its_own_user_only() -> None:
    one = told(Fact(LOGIN, "ada", 1, "a"), Fact(LOGIN, "bob", 2, "b"), Fact(UNLINK, "ada", 9, "u"))
    assert (one.state, states(one)) == ("linked", {"ada": "unlinked", "bob": "linked"})


def test_an_id_with_too_many_users_is_shared_until_some_are_taken_back() -> None:
    many = [Fact(LOGIN, user, n, user) for n, user in enumerate(("ada", "bob", "cyd"))]
    one = told(*many)
    assert (one.state, set(states(one).values())) == ("shared", {"shared"})
    assert [span.user_id for span in one.spans] == [None]
    fewer = told(*many, Fact(UNLINK, "cyd", 9, "u"))
    assert (fewer.state, states(fewer)) == ("linked", {"ada": "linked", "bob": "linked", "cyd": "unlinked"})


def test_rows_are_counted_by_what_names_their_user() -> None:
    one = told(
        Fact(LOGIN, "ada", 1, "a"), counts={("ada", True): 2, ("ada", False): 3, (None, False): 4}
    )  # fmt: skip
    assert (one.links[0].rows_own, one.links[0].rows_recognised, one.rows_anonymous) == (2, 3, 4)


@pytest.mark.parametrize(("junk", "state"), [(False, "anonymous"), (True, "junk")])
def test_an_id_without_facts_is_anonymous_or_junk(*, junk: bool, state: str) -> None:
    one = told(junk=junk)
    assert (one.state, one.links, one.spans) == (state, [], [])


def test_times_are_told_to_the_microsecond_and_ends_of_time_are_none() -> None:
    assert text_of(1_790_000_000_000_042) == "2026-09-21T14:13:20.000042Z"
    assert bound(BEGIN_US) is None and bound(END_US) is None and bound(0) == "1970-01-01T00:00:00.000000Z"
