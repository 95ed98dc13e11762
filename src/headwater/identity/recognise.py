"""Rows of one run: the facts that they give, and the user of those that name none (protocol.md §10).

What is filled in here makes streams and fresh rows right at once. It is not what correctness rests on: each
destination holds the facts below its position, and settles its rows by them. Where facts may be missing here (a run
without state, an id with very many), the rows' ids travel along as wishes to settle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.event.record import OPERATOR
from headwater.identity import owner
from headwater.identity.junk import Junk
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
)
from headwater.identity.store import MANY, WHOLE, Kept, Known
from headwater.identity.table import Named, facts_table, wishes_table

OWN = "_hw_user_own"
"""Whether the event itself named the user of its row; what is false may be filled in later."""
LATE_US = 86_400_000_000
"""A time further before receipt than this counts as that (protocol.md §10)."""
NO_CRAWLERS = ("empty_user_agent", "headless", "library")
"""Reasons for which a sender is taken for a robot, and may be a person's all the same."""
LOGINS = ("identify", "alias")
RESET = "reset"
NOBODY = [Interval(BEGIN_US, END_US, None)]
Array = np.ndarray[Any, Any]
OWN_FIELD = pa.field(OWN, pa.bool_(), metadata={"kind": "boolean", "origin": "standard"})
USER_FIELD = pa.field("user_id", pa.string(), metadata={"kind": "text", "origin": "standard"})


class Recogniser:
    """Applies the facts that are known to the rows of runs, and takes theirs in."""

    def __init__(
        self,
        policy: Policy,
        junk: Junk,
        known: Known,
        complete: Callable[[int], bool] = lambda partition: True,
    ) -> None:
        """``complete``: whether all facts of a partition below the run are known here."""
        self.policy = policy
        self.junk = junk
        self.known = known
        self.complete = complete

    def apply(self, rows: pa.Table) -> tuple[pa.Table, pa.Table | None]:
        """The rows, with the user of each as far as it is known, and their facts; None: there are none."""
        user = column(rows, "user_id")
        own = np.zeros(rows.num_rows, bool) if user is None else filled(pc.not_equal(user, ""))
        anonymous, linked = column(rows, "anonymous_id"), linked_ids(rows)
        if linked is None:
            return with_users(rows, own, {}), None
        human, decided = ~crawlers(rows), decisions(rows)
        if decided is not None:
            human |= decided  # an operator has no browser, and is no robot
        times, partitions = times_us(rows), rows["_hw_partition"].to_numpy()
        facts = self._facts(
            rows, linked, user, filled(pc.is_valid(linked)) & human, own, decided, times, partitions
        )
        self.known.add((a, fact) for _, a, fact in facts)
        told = [facts_table(facts)] if facts else []
        users: dict[int, str] = {}
        if anonymous is not None:
            where = np.flatnonzero(filled(pc.is_valid(anonymous)) & human & ~own)
            users, wishes = self._recognised(anonymous, where, times, partitions)
            told += [wishes] if wishes is not None else []
        return with_users(rows, own, users), pa.concat_tables(told).combine_chunks() if told else None

    def _facts(
        self,
        rows: pa.Table,
        anonymous: pa.ChunkedArray,
        user: pa.ChunkedArray | None,
        there: Array,
        own: Array,
        decided: Array | None,
        times: Array,
        partitions: Array,
    ) -> list[Named]:
        """What the rows say of their anonymous ids."""
        kinds = column(rows, "type")
        reset = np.zeros(len(there), bool) if kinds is None else filled(pc.equal(kinds, RESET))
        where = np.flatnonzero(there & (own | reset))
        if not len(where):
            return []
        index = pa.array(where)
        ids, messages = anonymous.take(index).to_pylist(), rows["message_id"].take(index).to_pylist()
        named = [None] * len(where) if user is None else user.take(index).to_pylist()
        types = [None] * len(where) if kinds is None else kinds.take(index).to_pylist()
        found: list[Named] = []
        first: dict[tuple[str, str], Named] = {}
        junk = self.junk
        for at, a, u, kind, message in zip(where.tolist(), ids, named, types, messages, strict=True):
            if junk.anonymous(a) or (kind != RESET and (u is None or junk.user(u))):
                continue
            time_us, partition = int(times[at]), int(partitions[at])
            if kind == RESET:
                found.append((partition, a, Fact(LOGOUT, "", time_us, message)))
            elif kind in LOGINS:
                found.append((partition, a, Fact(LOGIN, u, time_us, message)))
            elif decided is not None and decided[at]:
                found.append((partition, a, Fact(UNLINK, u, time_us, message)))
            else:
                known = first.get((a, u))
                if known is None or (time_us, message) < (known[2].time_us, known[2].message_id):
                    first[a, u] = (partition, a, Fact(FIRST_SEEN, u, time_us, message))
        return [*found, *first.values()]

    def _recognised(
        self, anonymous: pa.ChunkedArray, where: Array, times: Array, partitions: Array
    ) -> tuple[dict[int, str], pa.Table | None]:
        """Row → user, of rows that name none; and wishes to settle."""
        if not len(where):
            return {}, None
        coded = anonymous.take(pa.array(where)).combine_chunks().dictionary_encode()
        ids, codes = coded.dictionary, coded.indices.to_numpy()
        kept = self.known.look(ids)
        many = [n for n, one in kept.items() if one.form == MANY]
        wishes = self._wishes(ids, many, codes, partitions[where])
        spans = {n: self._spans(one) for n, one in kept.items()}
        if not spans:
            return {}, wishes
        hit = np.zeros(len(ids), bool)
        hit[list(spans)] = True
        found: dict[int, str] = {}
        for at in np.flatnonzero(hit[codes]).tolist():
            row = int(where[at])
            user = owner.at(spans[int(codes[at])], int(times[row]))
            if user is not None:
                found[row] = user
        return found, wishes

    def _spans(self, kept: Kept) -> list[Interval]:
        """Whose an id was; nobody's where that is not known here."""
        if kept.form != WHOLE:
            return NOBODY
        if kept.spans is None:
            kept.spans = owner.intervals(kept.facts, self.policy)
        return kept.spans

    def _wishes(self, ids: pa.Array, many: list[int], codes: Array, partitions: Array) -> pa.Table | None:
        """Ids whose facts may not all be known here; of junk among them nobody has facts."""
        lacking = [p for p in np.unique(partitions).tolist() if not self.complete(p)]
        if not lacking and not many:
            return None
        partition_of = np.zeros(len(ids), np.uint16)
        partition_of[codes] = partitions
        wished = np.isin(partition_of, lacking)
        wished[many] = True
        return wishes_table(ids.filter(pa.array(wished)), partition_of[wished])


def decisions(rows: pa.Table) -> Array | None:
    """Which rows are an operator's decisions (collect/operator.py); None: none of them. They give facts only."""
    streams = column(rows, "key_id")
    if streams is None:
        return None
    found = filled(pc.equal(streams, OPERATOR))
    return found if found.any() else None


def crawlers(rows: pa.Table) -> Array:
    """Which rows come from robots that visit pages for themselves. A program without a user agent, a library or a
    headless browser may act for somebody: what says who it is, is believed."""
    robot, reason = column(rows, "is_bot"), column(rows, "bot_reason")
    if robot is None or reason is None:
        return np.zeros(rows.num_rows, bool)
    return filled(robot) & ~filled(pc.is_in(reason, value_set=pa.array(NO_CRAWLERS)))


def linked_ids(rows: pa.Table) -> pa.ChunkedArray | None:
    """The anonymous id that each row may link; of an alias without one, the id that it replaces."""
    anonymous, previous = column(rows, "anonymous_id"), column(rows, "previous_id")
    if previous is None or "type" not in rows.column_names:
        return anonymous
    replaced = pc.if_else(pc.equal(rows["type"], "alias"), previous, pa.scalar(None, pa.string()))
    return replaced if anonymous is None else pc.coalesce(anonymous, replaced)


def column(rows: pa.Table, name: str) -> pa.ChunkedArray | None:
    """A column; None where no row has it."""
    return rows[name] if name in rows.column_names else None


def filled(values: pa.ChunkedArray | None, count: int = 0) -> Array:
    """A mask; what is null, or a column that is not there, is false."""
    if values is None:
        return np.zeros(count, bool)
    found: Array = pc.fill_null(values, False).to_numpy()
    return found


def times_us(rows: pa.Table) -> Array:
    """When it happened, at most at receipt and at least a day before it."""
    received = rows["received_at"].cast(pa.int64()).to_numpy()
    said = column(rows, "timestamp")
    told = received if said is None else pc.coalesce(said, rows["received_at"]).cast(pa.int64()).to_numpy()
    found: Array = np.maximum(np.minimum(told, received), received - LATE_US)
    return found


def with_users(rows: pa.Table, own: Array, users: dict[int, str]) -> pa.Table:
    """The rows, saying whether each named its user, and with these users."""
    if users:
        mask = np.zeros(rows.num_rows, bool)
        order = sorted(users)
        mask[order] = True
        given = pa.array([users[row] for row in order], pa.string())
        old = column(rows, "user_id")
        if old is None:
            new = pc.replace_with_mask(pa.nulls(rows.num_rows, pa.string()), pa.array(mask), given)
            rows = rows.append_column(USER_FIELD, new)
        else:
            new = pc.replace_with_mask(old.combine_chunks(), pa.array(mask), given)
            rows = rows.set_column(rows.column_names.index("user_id"), USER_FIELD, new)
    return rows.append_column(OWN_FIELD, pa.array(own))
