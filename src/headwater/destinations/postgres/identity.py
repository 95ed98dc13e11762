"""Facts beside the rows of a PostgreSQL schema, and rows made right by them (protocol.md §10, Settle).

Tables: ``headwater_identity`` holds the facts below the position, ``headwater_unsettled`` who they touched. Both are
found by ``visitor``, a 64-bit hash of the anonymous id: as long as the id may be, the key has 8 bytes, and no collation
decides. Two ids of one hash are settled together, which is right for both. Rows are found by an index over the same
hash (``visitor_index``).

Nodes work side by side. Who writes facts of a visitor, or settles its rows, holds the visitor's row in
``headwater_unsettled``: a step takes those of its facts first, in rising order, and waits; ``settle`` takes those
that are free (SKIP LOCKED) and waits for no step. What stands behind them (facts, rows) is then touched by one at a
time, so that facts never come between reading them and marking them settled, and two never wait for each other. What
others hold, such as a row that a replay takes away, ``settle`` waits for only ``YIELD`` long, which is less than the
server's ``deadlock_timeout``: it gives in, and comes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from headwater.destinations.port import Settled, Whose
from headwater.destinations.postgres.cast import REPLACEMENT
from headwater.destinations.postgres.session import Cursor, sql
from headwater.destinations.postgres.table import TEXTS, own_name, quoted
from headwater.identity.owner import BEGIN_US, FIRST_SEEN
from headwater.identity.recognise import NO_CRAWLERS
from headwater.identity.table import ROWS_BY_USER_SCHEMA, SETTLE

IDENTITY, UNSETTLED = "headwater_identity", "headwater_unsettled"
DDL = (
    """CREATE TABLE IF NOT EXISTS {identity}(visitor bigint, fact bigint, anonymous_id text NOT NULL,
  kind text NOT NULL, user_id text, "time" timestamp with time zone NOT NULL, message_id text NOT NULL,
  settled boolean NOT NULL, PRIMARY KEY (visitor, fact)) WITH (fillfactor = 70)""",
    """CREATE TABLE IF NOT EXISTS {unsettled}(visitor bigint PRIMARY KEY, partition integer NOT NULL,
  passes integer NOT NULL DEFAULT 0, touched_at timestamp with time zone NOT NULL DEFAULT now())
  WITH (fillfactor = 50)""",
)
"""``fact`` is a hash of what makes it another one. ``passes``: how many a visitor has filled alone; who has filled none
comes first, so that one with a million rows holds nobody up."""
YIELD = "500ms"
TABLE_BYTES_MAX = 256 * 1024**2
"""Up to this size, the index is made on a table that is there: a second, in which loads wait."""
NEEDED = {
    "anonymous_id": TEXTS,
    "user_id": TEXTS,
    "timestamp": {"timestamptz"},
    "received_at": {"timestamptz"},
    "is_bot": {"bool"},
    "bot_reason": TEXTS,
    "_hw_user_own": {"bool"},
}
"""Columns of a table of events, and the types with which its rows can be settled."""

VISITOR = "hashtextextended({}.anonymous_id, 0)"
OF_FACT = VISITOR.format("f")
AT = "timestamptz 'epoch' + {} * interval '1 microsecond'"
FACTS = """unnest(%(ids)s::text[], %(kinds)s::text[], %(users)s::text[], %(times)s::bigint[], %(messages)s::text[],
  %(partitions)s::integer[]) WITH ORDINALITY AS f(anonymous_id, kind, user_id, at_us, message_id, partition, n)"""
FACT = f"""CASE f.kind WHEN '{FIRST_SEEN}' THEN hashtextextended(f.user_id, 0)
  ELSE hashtextextended(f.message_id, hashtextextended(coalesce(f.user_id, ''), hashtextextended(f.kind, f.at_us)))
  END"""
EARLIER = '({0}."time", {0}.message_id COLLATE "C") < (i."time", i.message_id COLLATE "C")'
NEWS = f"""SELECT f.n - 1, f.kind = '{SETTLE}'
  FROM (SELECT f.*, {AT.format("f.at_us")} AS "time", {OF_FACT} AS visitor, {FACT} AS fact FROM {FACTS}) AS f
  LEFT JOIN {{identity}} i ON i.visitor = f.visitor AND i.fact = f.fact
  WHERE CASE f.kind WHEN '{SETTLE}' THEN EXISTS (SELECT 1 FROM {{identity}} k WHERE k.visitor = f.visitor)
    WHEN '{FIRST_SEEN}' THEN i.fact IS NULL OR {EARLIER.format("f")} ELSE i.fact IS NULL END"""
TOUCH = f"""INSERT INTO {{unsettled}} AS u (visitor, partition)
  SELECT DISTINCT ON (1) {OF_FACT}, f.partition FROM {FACTS} ORDER BY 1
  ON CONFLICT (visitor) DO UPDATE SET partition = excluded.partition"""
"""It changes the row that is there, so as to hold it; one that is settled meanwhile comes anew."""
KEEP = f"""INSERT INTO {{identity}} AS i
  SELECT DISTINCT ON (1, 2) {OF_FACT}, {FACT}, f.anonymous_id, f.kind, f.user_id, {AT.format("f.at_us")}, f.message_id,
    false
  FROM {FACTS} WHERE f.kind <> '{SETTLE}' ORDER BY 1, 2, f.at_us, f.message_id COLLATE "C"
  ON CONFLICT (visitor, fact) DO UPDATE SET "time" = excluded."time", message_id = excluded.message_id, settled = false
  WHERE i.kind = '{FIRST_SEEN}' AND {EARLIER.format("excluded")}"""
UNWISHED = f"""UPDATE {{identity}} AS i SET settled = false FROM {FACTS}
  WHERE f.kind = '{SETTLE}' AND i.visitor = {OF_FACT} AND i.settled"""
"""Rows came that may not agree with what is settled."""

WAITING = """SELECT visitor FROM {unsettled} WHERE %(partitions)s::integer[] IS NULL OR partition = ANY(%(partitions)s)
  ORDER BY passes, touched_at LIMIT %(limit)s"""
UNSETTLED_IDS = (
    f"""SELECT DISTINCT i.anonymous_id FROM ({WAITING}) AS u JOIN {{identity}} i USING (visitor)"""
)
FACTS_OF = (
    'SELECT visitor, anonymous_id, kind, user_id, "time", message_id, settled FROM {identity} AS i WHERE '
)
OF_VISITORS = f"{FACTS_OF} visitor = ANY(%(visitors)s)"
OF_IDS = f"""{FACTS_OF} anonymous_id = ANY(%(ids)s)
  AND visitor IN (SELECT {OF_FACT} FROM unnest(%(ids)s::text[]) AS f(anonymous_id))"""
IDS_OF_USER = """SELECT anonymous_id FROM {identity} WHERE user_id = %(user)s GROUP BY anonymous_id
  ORDER BY max("time") DESC, anonymous_id COLLATE "C" LIMIT %(limit)s"""
NEWEST = f"""{FACTS_OF} "time" >= to_timestamp(%(since)s)
  ORDER BY "time" DESC, message_id COLLATE "C", anonymous_id COLLATE "C" LIMIT %(limit)s"""
ROWS_BY_USER = f"""SELECT e.anonymous_id, e.user_id, coalesce(e._hw_user_own, e.user_id IS NOT NULL), count(*)
  FROM {{table}} e WHERE e.anonymous_id = ANY(%(ids)s)
    AND {VISITOR.format("e")} IN (SELECT {OF_FACT} FROM unnest(%(ids)s::text[]) AS f(anonymous_id))
  GROUP BY 1, 2, 3 ORDER BY e.anonymous_id COLLATE "C", e.user_id COLLATE "C", 3"""
DONE = (
    "UPDATE {identity} SET settled = true WHERE visitor = ANY(%(visitors)s) AND NOT settled",
    "DELETE FROM {unsettled} WHERE visitor = ANY(%(visitors)s)",
)
FILLED = "UPDATE {unsettled} SET passes = passes + 1 WHERE visitor = %(visitor)s"
LIMITS = f"""SELECT set_config('lock_timeout', '{YIELD}', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
  set_config('jit', 'off', true)"""
"""Of a pass. Each of its statements goes by an index, whatever the server believes of a table that it has not counted
yet: rows by their visitor, then each by its place (ctid). To compile it takes longer (0.45 s) than to run it."""
TIME = """greatest(least(coalesce(e."timestamp", e.received_at), e.received_at), e.received_at - interval '24 hours')"""
"""The time of a row that counts (identity/recognise.times_us)."""
PERSONS = ", ".join(f"'{reason}'" for reason in NO_CRAWLERS)
OPEN = f"""NOT coalesce(e._hw_user_own, e.user_id IS NOT NULL)
        AND NOT (coalesce(e.is_bot, false) AND e.bot_reason IS NOT NULL AND e.bot_reason NOT IN ({PERSONS}))"""
"""Rows whose user may be filled in (identity/recognise.crawlers)."""
CORRECT = f"""WITH spans AS (SELECT n, anonymous_id, array_agg(begin_at ORDER BY begin_us) AS begins,
      array_agg(user_id ORDER BY begin_us) AS users
    FROM (SELECT s.*, CASE WHEN begin_us = {BEGIN_US} THEN '-infinity' ELSE {AT.format("begin_us")} END AS begin_at
      FROM unnest(%(ranks)s::integer[], %(ids)s::text[], %(begins)s::bigint[], %(users)s::text[])
        AS s(n, anonymous_id, begin_us, user_id)) AS s GROUP BY n, anonymous_id ORDER BY n),
  wrong AS MATERIALIZED (SELECT s.n, e.within, e.at, e.owner FROM spans s CROSS JOIN LATERAL (
      SELECT e.tableoid AS within, e.ctid AS at, o.owner FROM {{table}} e
      CROSS JOIN LATERAL (SELECT s.users[width_bucket({TIME}, s.begins)] AS owner) AS o
      WHERE {VISITOR.format("e")} = {VISITOR.format("s")} AND e.anonymous_id = s.anonymous_id
        AND {OPEN} AND e.user_id IS DISTINCT FROM o.owner LIMIT %(limit)s) AS e
    ORDER BY s.n LIMIT %(limit)s),
  changed AS (UPDATE {{table}} AS e SET user_id = w.owner FROM wrong w
    WHERE e.ctid = w.at AND e.tableoid = w.within RETURNING w.n)
  SELECT n, sum(found), sum(done) FROM (SELECT n, 1 AS found, 0 AS done FROM wrong
    UNION ALL SELECT n, 0, 1 FROM changed) AS counted GROUP BY n"""
"""Who is first in turn is finished first: ids in the order of their numbers, all wrong rows of each, up to the limit.
Rows that somebody changed at that moment are found, and not changed: their ids come again."""

Named = Mapping[str, str]
"""What stands for {identity}, {unsettled} and {table}: quoted names."""


def worded(text: str, names: Named) -> Any:
    """A statement about these tables."""
    for name, quoted_name in names.items():
        text = text.replace("{" + name + "}", quoted_name)
    return sql(text)


def visitor_index(table: str) -> str:
    """What a table's index over the visitor is called."""
    return own_name(f"{table}_hw_visitor")


def index_ddl(table: str, named: str, *, concurrently: bool = False) -> str:
    """The statement that makes it; ``named``: the table, quoted, with its schema."""
    how = "CONCURRENTLY " if concurrently else ""
    return f"CREATE INDEX {how}{quoted(visitor_index(table))} ON {named} (hashtextextended(anonymous_id, 0))"


def settles(columns: Mapping[str, str]) -> bool:
    """Whether a table (column → type) has rows whose user can be corrected."""
    return all(columns.get(name) in kinds for name, kinds in NEEDED.items())


def keep(cursor: Cursor, names: Named, facts: Sequence[pa.Table]) -> None:
    """Facts of a step, inside its transaction, before anything else that somebody may wait for but its positions. What
    is known already costs one look."""
    whole = pa.concat_tables(facts)
    found = cursor.execute(worded(NEWS, names), fact_values(whole)).fetchall()
    if not found:
        return
    news = fact_values(whole.take(pa.array([n for n, _ in found], pa.int64())))
    cursor.execute(worded(TOUCH, names), news)
    if any(not wished for _, wished in found):
        cursor.execute(worded(KEEP, names), news)
    if any(wished for _, wished in found):
        cursor.execute(worded(UNWISHED, names), news)


def fact_values(facts: pa.Table) -> dict[str, object]:
    """The parameters of FACTS; a character that PostgreSQL lacks is replaced as it is in rows."""
    return {
        "ids": texts(facts["anonymous_id"]),
        "kinds": facts["kind"].to_pylist(),
        "users": texts(facts["user_id"]),
        "times": facts["time"].cast(pa.int64()).to_pylist(),
        "messages": texts(facts["message_id"]),
        "partitions": facts["partition"].to_pylist(),
    }


def texts(column: pa.ChunkedArray) -> list[str | None]:
    """Values as they stand in rows."""
    return [text and text.replace("\0", REPLACEMENT) for text in column.to_pylist()]


def unsettled(cursor: Cursor, names: Named, partitions: Sequence[int] | None, limit: int) -> list[str]:
    """See port.Settling."""
    values = {"partitions": None if partitions is None else list(partitions), "limit": limit}
    return [a for (a,) in cursor.execute(worded(UNSETTLED_IDS, names), values).fetchall()]


def facts(cursor: Cursor, names: Named, ids: Sequence[str]) -> pa.Table:
    """See port.Settling."""
    return told(cursor.execute(worded(OF_IDS, names), {"ids": list(ids)}).fetchall())


def ids_of_user(cursor: Cursor, names: Named, user_id: str, limit: int) -> list[str]:
    """See port.Settling; reads all facts, which only an operator's question does."""
    values = {"user": user_id.replace("\0", REPLACEMENT), "limit": limit}
    return [a for (a,) in cursor.execute(worded(IDS_OF_USER, names), values).fetchall()]


def newest_facts(cursor: Cursor, names: Named, since_us: int, limit: int) -> pa.Table:
    """See port.Settling."""
    values = {"since": max(since_us, 0) / 1e6, "limit": limit}
    return told(cursor.execute(worded(NEWEST, names), values).fetchall())


def rows_by_user(cursor: Cursor, table: str, ids: Sequence[str]) -> pa.Table:
    """See port.Settling; ``table``: quoted, one that ``settles``."""
    found = cursor.execute(worded(ROWS_BY_USER, {"table": table}), {"ids": list(ids)}).fetchall()
    columns = list(zip(*found, strict=True)) or [()] * 4
    arrays = [pa.array(c, f.type) for c, f in zip(columns, ROWS_BY_USER_SCHEMA, strict=True)]
    return pa.table(arrays, schema=ROWS_BY_USER_SCHEMA)


def told(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Facts as a table."""
    _, ids, kinds, users, times, messages, done = list(zip(*rows, strict=True)) or [()] * 7
    return pa.table(
        {
            "anonymous_id": pa.array(ids, pa.string()),
            "kind": pa.array(kinds, pa.string()),
            "user_id": pa.array(users, pa.string()),
            "time_us": pa.array(times, pa.timestamp("us", tz="UTC")).cast(pa.int64()),
            "message_id": pa.array(messages, pa.string()),
            "settled": pa.array(done, pa.bool_()),
        }
    )


def settle(
    cursor: Cursor,
    names: Named,
    tables: Sequence[str],
    partitions: Sequence[int] | None,
    whose: Whose,
    *,
    ids_max: int,
    rows_max: int,
) -> Settled:
    """See port.Settling; inside a transaction. ``tables``: quoted."""
    cursor.execute(LIMITS)
    values = {"partitions": None if partitions is None else list(partitions), "limit": ids_max}
    waiting = cursor.execute(worded(f"{WAITING} FOR UPDATE SKIP LOCKED", names), values).fetchall()
    visitors = [visitor for (visitor,) in waiting]
    if not visitors:
        return Settled(0, 0, more=False)
    known = cursor.execute(worded(OF_VISITORS, names), {"visitors": visitors}).fetchall()
    spans = whose(told(known))
    rank = {visitor: n for n, visitor in enumerate(visitors)}
    ranks = {a: rank[visitor] for visitor, a, *_ in known}
    still: set[int] = set()
    left, changed = rows_max, 0
    for table in tables if spans.num_rows else ():
        found = correct(cursor, table, spans, ranks, left)
        still |= {n for n, wrong, done in found if done < wrong}
        changed += sum(done for _, _, done in found)
        left -= sum(wrong for _, wrong, _ in found)
        if left <= 0:
            last = max(n for n, _, _ in found)
            still |= set(range(last, len(visitors)))
            cursor.execute(worded(FILLED, names), {"visitor": visitors[last]})
            break
    settled = [visitor for n, visitor in enumerate(visitors) if n not in still]
    for statement in DONE:
        cursor.execute(worded(statement, names), {"visitors": settled})
    return Settled(len(settled), changed, more=bool(still) or len(visitors) == ids_max)


def correct(
    cursor: Cursor, table: str, spans: pa.Table, ranks: Mapping[str, int], rows_max: int
) -> list[tuple[int, int, int]]:
    """Make rows of one table right: rank of a visitor, wrong rows found, rows changed."""
    ids = spans["anonymous_id"].to_pylist()
    values = {
        "ranks": [ranks[a] for a in ids],
        "ids": ids,
        "begins": spans["begin_us"].to_pylist(),
        "users": spans["user_id"].to_pylist(),
        "limit": rows_max,
    }
    return [
        (n, int(wrong), int(done))
        for n, wrong, done in cursor.execute(worded(CORRECT, {"table": table}), values)
    ]
