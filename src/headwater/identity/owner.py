"""The one function: whose an anonymous id was at a time, from its facts alone (protocol.md §10).

Times are microseconds since 1970. The order of the facts, and how often each is given, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

LOGIN, FIRST_SEEN, LOGOUT, UNLINK = "login", "first_seen", "logout", "unlink"
KINDS = (LOGIN, FIRST_SEEN, LOGOUT, UNLINK)
BEGIN_US, END_US = -(1 << 62), 1 << 62
"""Before and after all times."""


class Fact(NamedTuple):
    """What an event says of an anonymous id. A logout names no user."""

    kind: str
    user_id: str
    time_us: int
    message_id: str


class Policy(NamedTuple):
    """The settings that decide (identity/settings.py)."""

    look_back_us: int
    recognise_after_logout: bool
    shared_users_max: int


class Interval(NamedTuple):
    """From ``begin_us`` on, before ``end_us``: whose the id was; None: nobody's."""

    begin_us: int
    end_us: int
    user_id: str | None


def intervals(facts: Iterable[Fact], policy: Policy) -> list[Interval]:
    """Whose the id was at every time: intervals in order, without gaps, neighbours with different users.

    The last fact at or before a time decides where it is a login or a first event of a user. Where there is none, or a
    logout with ``recognise_after_logout``, it is the first user after that time, as far as the look-back reaches. An
    id with more users than ``shared_users_max`` is nobody's. An unlink takes back what linked its user up to its time.
    """
    known = set(facts)
    unlinked = taken_back(known)
    links = [
        f for f in known if f.kind in (LOGIN, FIRST_SEEN) and f.time_us > unlinked.get(f.user_id, BEGIN_US)
    ]
    if len({f.user_id for f in links}) > policy.shared_users_max:
        return [Interval(BEGIN_US, END_US, None)]
    marks = sorted([*links, *(f for f in known if f.kind == LOGOUT)], key=order_of)
    groups = [list(one) for _, one in groupby(marks, key=lambda f: f.time_us)]
    found: list[Interval] = []  # from the last to the first
    end, following = END_US, None
    """Where the open interval ends, and the first link behind it."""
    for group in [*reversed(groups), None]:
        last = group[-1] if group else None
        begin = last.time_us if last else BEGIN_US
        if last is not None and last.kind != LOGOUT:
            _add(found, begin, end, last.user_id)
        elif following is not None and (last is None or policy.recognise_after_logout):
            edge = min(max(begin, following.time_us - policy.look_back_us), end)
            _add(found, edge, end, following.user_id)
            _add(found, begin, edge, None)
        else:
            _add(found, begin, end, None)
        end = begin
        following = next((f for f in group or () if f.kind != LOGOUT), following)
    return found[::-1]


def redundant(facts: Iterable[Fact], settled: Iterable[Fact]) -> bool:
    """Whether no fact beyond the settled ones changes anything, whichever of them came first: each is a link of the
    user whose link stands before it among the settled ones.

    That all together say the same is not enough: a login and its unlink do, and a row that was made between the two
    has a user.
    """
    known, everything = set(settled), set(facts)
    if any(fact.kind == UNLINK for fact in everything):
        return everything == known
    order = sorted(known, key=order_of)
    keys = [order_of(fact) for fact in order]
    for fact in everything - known:
        before = bisect_right(keys, order_of(fact))
        last = order[before - 1] if before else None
        if fact.kind == LOGOUT or last is None or last.kind == LOGOUT or last.user_id != fact.user_id:
            return False
    return True


def order_of(fact: Fact) -> tuple[int, str, str, str]:
    """Facts of one time are in the order of their messages."""
    return fact.time_us, fact.message_id, fact.kind, fact.user_id


def owner_of(facts: Iterable[Fact], time_us: int, policy: Policy) -> str | None:
    """Whose the id was at this time; None: nobody's that is known."""
    return at(intervals(facts, policy), time_us)


def at(found: list[Interval], time_us: int) -> str | None:
    """The user of the interval in which a time lies."""
    return found[bisect_right(found, (time_us, END_US + 1)) - 1].user_id


def taken_back(facts: Iterable[Fact]) -> dict[str, int]:
    """User → time of the last unlink, up to which nothing links it."""
    latest: dict[str, int] = {}
    for fact in facts:
        if fact.kind == UNLINK:
            latest[fact.user_id] = max(latest.get(fact.user_id, BEGIN_US), fact.time_us)
    return latest


def _add(found: list[Interval], begin_us: int, end_us: int, user: str | None) -> None:
    """Put an interval before those found, or lengthen the first of them."""
    if begin_us >= end_us:
        return
    if found and found[-1].user_id == user:
        end_us = found.pop().end_us
    found.append(Interval(begin_us, end_us, user))
