"""Who is linked to what, and why, for a person to read: a pure function of facts and of counted rows."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headwater.identity.junk import Junk
from headwater.identity.owner import (
    BEGIN_US,
    END_US,
    FIRST_SEEN,
    LOGIN,
    LOGOUT,
    UNLINK,
    Fact,
    Policy,
    intervals,
    order_of,
    taken_back,
)

LINKS_MAX = 1000
"""Users, and spans of time, that are told of one anonymous id."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """An anonymous id and a user."""

    user_id: str
    state: str
    """linked | unlinked | shared (the id has too many users: it links nobody)"""
    since: str
    kind: str
    message_id: str
    """Of the first fact that links them; of those that hold, where some do."""
    unlinked_at: str | None = None
    unlinked_by: str | None = None
    """The last unlink, where there was one, and its message id."""
    rows_own: int = 0
    """Rows whose events named this user themselves."""
    rows_recognised: int = 0
    """Rows that named nobody, and carry the user by recognition."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the id is from a time on, until another; None: without end, or nobody's."""

    since: str | None
    until: str | None
    user_id: str | None


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """One anonymous id."""

    anonymous_id: str
    state: str
    """linked | unlinked | shared | junk (it names nobody, and is never linked) | anonymous (no fact names a user)"""
    links: list[Link] = []
    spans: list[Span] = []
    logouts: int = 0
    rows_anonymous: int = 0
    """Rows without a user."""
    settled: bool = True
    """Whether the rows agree with the facts already."""


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """One fact."""

    time: str
    kind: str
    anonymous_id: str
    user_id: str | None
    message_id: str


def visitors(
    ids: Sequence[str],
    facts: pa.Table,
    rows: pa.Table,
    policy: Policy,
    junk: Junk,
    open_ids: Iterable[str] = (),
) -> list[Visitor]:
    """What is known of each id. ``facts``, ``rows``: as port.Settling answers them; ``open_ids``: not settled yet."""
    known: dict[str, list[Fact]] = {}
    unsettled = set(open_ids)
    for anonymous_id, kind, user, time_us, message, settled in of_columns(facts):
        known.setdefault(anonymous_id, []).append(Fact(kind, user or "", time_us, message))
        if not settled:
            unsettled.add(anonymous_id)
    counts: dict[str, dict[tuple[str | None, bool], int]] = {}
    for anonymous_id, user, own, count in of_columns(rows):
        counts.setdefault(anonymous_id, {})[user, own] = count
    return [
        visitor(
            one,
            known.get(one, []),
            counts.get(one, {}),
            policy,
            junk=junk.anonymous(one),
            settled=one not in unsettled,
        )
        for one in ids
    ]


def visitor(
    anonymous_id: str,
    facts: Sequence[Fact],
    counts: Mapping[tuple[str | None, bool], int],
    policy: Policy,
    *,
    junk: bool,
    settled: bool,
) -> Visitor:
    """One of them. ``counts``: (user, whether the events named it) → rows."""
    until = taken_back(facts)
    links = [fact for fact in facts if fact.kind in (LOGIN, FIRST_SEEN)]
    valid = [fact for fact in links if fact.time_us > until.get(fact.user_id, BEGIN_US)]
    shared = len({fact.user_id for fact in valid}) > policy.shared_users_max
    state = "shared" if shared else "linked" if valid else "unlinked" if links else "anonymous"
    spans = intervals(facts, policy) if facts else []
    return Visitor(
        anonymous_id=anonymous_id,
        state="junk" if junk else state,
        links=[
            link(user, facts, counts, shared=shared)
            for user in sorted({fact.user_id for fact in links})[:LINKS_MAX]
        ],
        spans=[
            Span(since=bound(s.begin_us), until=bound(s.end_us), user_id=s.user_id) for s in spans[:LINKS_MAX]
        ],
        logouts=sum(fact.kind == LOGOUT for fact in facts),
        rows_anonymous=sum(count for (user, _), count in counts.items() if user is None),
        settled=settled,
    )


def link(
    user: str, facts: Iterable[Fact], counts: Mapping[tuple[str | None, bool], int], *, shared: bool
) -> Link:
    """What links an id to this user; some fact does, or did."""
    own = sorted((fact for fact in facts if fact.user_id == user), key=order_of)
    unlinks = [fact for fact in own if fact.kind == UNLINK]
    until_us = unlinks[-1].time_us if unlinks else BEGIN_US
    links = [fact for fact in own if fact.kind != UNLINK]
    valid = [fact for fact in links if fact.time_us > until_us]
    first = (valid or links)[0]
    return Link(
        user_id=user,
        state="unlinked" if not valid else "shared" if shared else "linked",
        since=text_of(first.time_us),
        kind=first.kind,
        message_id=first.message_id,
        unlinked_at=text_of(unlinks[-1].time_us) if unlinks else None,
        unlinked_by=unlinks[-1].message_id if unlinks else None,
        rows_own=counts.get((user, True), 0),
        rows_recognised=counts.get((user, False), 0),
    )


def logged(facts: pa.Table) -> list[Logged]:
    """Facts, in their order, for a person to read."""
    return [
        Logged(time=text_of(time_us), kind=kind, anonymous_id=one, user_id=user, message_id=message)
        for one, kind, user, time_us, message, _ in of_columns(facts)
    ]


def of_columns(table: pa.Table) -> Iterable[tuple[Any, ...]]:
    """Row by row."""
    return zip(*(table[name].to_pylist() for name in table.column_names), strict=True)


def bound(time_us: int) -> str | None:
    """The end of a span; None: there is none."""
    return None if time_us in (BEGIN_US, END_US) else text_of(time_us)


def text_of(time_us: int) -> str:
    """A time, UTC, to the microsecond."""
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"
