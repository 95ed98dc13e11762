"""Facts beside the rows of a DuckDB file, and rows made right by them (protocol.md §10, Settle).

Tables: ``headwater_identity`` holds the facts below the position, ``headwater_unsettled`` the anonymous ids that they
touched. There are no indexes: a load or a pass scans a column of hashes or ids, which costs DuckDB milliseconds per
million; an index would cost every insert, and memory per visitor.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from headwater.destinations.duckdb.table import quoted
from headwater.identity.recognise import NO_CRAWLERS

IDENTITY, UNSETTLED = "headwater_identity", "headwater_unsettled"
DDL = (
    f"""CREATE TABLE IF NOT EXISTS {IDENTITY}(anonymous_id VARCHAR, kind VARCHAR, user_id VARCHAR,
  "time" TIMESTAMP WITH TIME ZONE, message_id VARCHAR, settled BOOLEAN)""",
    f"CREATE TABLE IF NOT EXISTS {UNSETTLED}(anonymous_id VARCHAR)",
)
FACTS, IDS, SPANS, WRONG = "hw_facts", "hw_ids", "hw_spans", "hw_wrong"
"""Views that a connection registers for a statement, and its table of rows to be corrected."""
SWEEP = 20
"""So many passes' rows are looked for at once, about 40 bytes each."""
OTHERS = f"""INSERT INTO {IDENTITY} SELECT DISTINCT anonymous_id, kind, user_id, "time", message_id, false
  FROM {FACTS} f WHERE kind NOT IN ('first_seen', 'settle') AND NOT EXISTS (SELECT 1 FROM {IDENTITY} i
    WHERE i.anonymous_id = f.anonymous_id AND i.kind = f.kind AND i.user_id IS NOT DISTINCT FROM f.user_id
      AND i."time" = f."time" AND i.message_id = f.message_id)
  RETURNING anonymous_id"""
LEAST = f"""SELECT anonymous_id, user_id, min(struct_pack(t := "time", m := message_id)) AS least
  FROM {FACTS} WHERE kind = 'first_seen' GROUP BY ALL"""
EARLIER = f"""UPDATE {IDENTITY} AS i SET "time" = f.least.t, message_id = f.least.m, settled = false
  FROM ({LEAST}) AS f WHERE i.kind = 'first_seen' AND i.anonymous_id = f.anonymous_id AND i.user_id = f.user_id
    AND struct_pack(t := i."time", m := i.message_id) > f.least RETURNING i.anonymous_id"""
FIRST = f"""INSERT INTO {IDENTITY} SELECT anonymous_id, 'first_seen', user_id, least.t, least.m, false
  FROM ({LEAST}) AS f WHERE NOT EXISTS (SELECT 1 FROM {IDENTITY} i WHERE i.kind = 'first_seen'
    AND i.anonymous_id = f.anonymous_id AND i.user_id = f.user_id) RETURNING anonymous_id"""
WISHED = f"""SELECT DISTINCT f.anonymous_id FROM {FACTS} f WHERE f.kind = 'settle'
  AND EXISTS (SELECT 1 FROM {IDENTITY} i WHERE i.anonymous_id = f.anonymous_id)"""
TOUCH = f"""INSERT INTO {UNSETTLED} SELECT anonymous_id FROM {IDS} n
  WHERE NOT EXISTS (SELECT 1 FROM {UNSETTLED} u WHERE u.anonymous_id = n.anonymous_id)"""
UNWISHED = (
    f"""UPDATE {IDENTITY} AS i SET settled = false FROM {IDS} n WHERE i.anonymous_id = n.anonymous_id"""
)
"""Rows came that may not agree with what is settled."""
NEEDED = frozenset(
    {"anonymous_id", "user_id", "timestamp", "received_at", "is_bot", "bot_reason", "_hw_user_own"}
)
"""Columns of a table of events."""
TIME = """greatest(least(epoch_us(coalesce(e."timestamp", e.received_at)), epoch_us(e.received_at)),
    epoch_us(e.received_at) - 86400000000)"""
"""The time of a row that counts (identity/recognise.times_us)."""
PERSONS = ", ".join(f"'{reason}'" for reason in NO_CRAWLERS)
OPEN = f"""NOT coalesce(e._hw_user_own, e.user_id IS NOT NULL)
  AND NOT (coalesce(e.is_bot, false) AND e.bot_reason IS NOT NULL AND e.bot_reason NOT IN ({PERSONS}))"""
"""Rows whose user may be filled in (identity/recognise.crawlers)."""
FACT = 'i.anonymous_id, i.kind, i.user_id, epoch_us(i."time") AS time_us, i.message_id, i.settled'
"""Columns of a fact, as port.Settling has them."""
IDS_OF_USER = f"""SELECT anonymous_id FROM {IDENTITY} WHERE user_id = ? GROUP BY anonymous_id
  ORDER BY max("time") DESC, anonymous_id LIMIT ?"""
NEWEST = f"""SELECT {FACT} FROM {IDENTITY} i WHERE i."time" >= make_timestamptz(?::BIGINT)
  ORDER BY i."time" DESC, i.message_id, i.anonymous_id LIMIT ?"""
SETTLED = f"""UPDATE {IDENTITY} AS i SET settled = true FROM {IDS} n
  WHERE i.anonymous_id = n.anonymous_id AND NOT i.settled"""
FORGET = f"DELETE FROM {UNSETTLED} USING {IDS} n WHERE {UNSETTLED}.anonymous_id = n.anonymous_id"


def keep(base: duckdb.DuckDBPyConnection, facts: Sequence[pa.Table]) -> None:
    """Facts of a step, inside its transaction."""
    base.register(FACTS, pa.concat_tables(facts))
    try:
        touched = {a for sql in (OTHERS, EARLIER, FIRST) for (a,) in base.execute(sql).fetchall()}
        wished = [a for (a,) in base.execute(WISHED).fetchall()]
    finally:
        base.unregister(FACTS)
    if wished:
        with_ids(base, wished, UNWISHED)
    if touched or wished:
        with_ids(base, sorted(touched | set(wished)), TOUCH)


def unsettled(base: duckdb.DuckDBPyConnection, limit: int) -> list[str]:
    """See port.Settling; in the order in which they came."""
    found = base.execute(f"SELECT anonymous_id FROM {UNSETTLED} LIMIT {limit:d}").fetchall()
    return [a for (a,) in found]


def facts(base: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> pa.Table:
    """See port.Settling."""
    base.register(IDS, pa.table({"anonymous_id": pa.array(ids, pa.string())}))
    try:
        found: pa.Table = base.sql(
            f"SELECT {FACT} FROM {IDENTITY} i SEMI JOIN {IDS} n ON i.anonymous_id = n.anonymous_id"
        ).to_arrow_table()
    finally:
        base.unregister(IDS)
    return found


def settle(
    base: duckdb.DuckDBPyConnection, tables: Sequence[str], ids: Sequence[str], spans: pa.Table, rows_max: int
) -> tuple[int, list[str]]:
    """See port.Settling; inside a transaction. Rows changed, and ids whose rows are all right now. Ids with few wrong
    rows come first, so that one with a million holds nobody up; that one comes in pieces."""
    changed, left = 0, set[str]()
    if spans.num_rows:
        base.register(SPANS, spans)
        try:
            for table in tables:
                count, waiting = correct(base, table, rows_max - changed)
                changed, left = changed + count, left | (set(ids) if waiting is None else waiting)
        finally:
            base.unregister(SPANS)
    done = [one for one in ids if one not in left]
    with_ids(base, done, SETTLED, FORGET)
    return changed, done


def correct(base: duckdb.DuckDBPyConnection, table: str, rows_max: int) -> tuple[int, set[str] | None]:
    """Make rows of one table right: how many, and the ids of which some are left; None: that is not known."""
    found_max = SWEEP * rows_max
    base.execute(wrong(table, found_max))
    counts = base.execute(f"SELECT anonymous_id, count(*) AS n FROM {WRONG} GROUP BY 1 ORDER BY n").fetchall()
    chosen: list[str] = []
    total = 0
    for anonymous_id, count in counts:
        if total + count > rows_max:
            break
        chosen.append(anonymous_id)
        total += count
    if not chosen and counts and rows_max > 0:
        chosen.append(counts[0][0])
    changed = 0
    if chosen:
        base.register(IDS, pa.table({"anonymous_id": pa.array(chosen, pa.string())}))
        try:
            changed = base.execute(
                f"UPDATE {quoted(table)} AS e SET user_id = w.user_id FROM (SELECT w.at, w.user_id FROM {WRONG} w "
                f"SEMI JOIN {IDS} n ON w.anonymous_id = n.anonymous_id LIMIT {rows_max:d}) AS w WHERE e.rowid = w.at"
            ).fetchall()[0][0]
        finally:
            base.unregister(IDS)
    base.execute(f"DROP TABLE {WRONG}")
    if sum(count for _, count in counts) >= found_max:
        return changed, None
    whole = {one for one, count in counts[: len(chosen)] if count <= changed}
    return changed, {one for one, _ in counts} - whole


def ids_of_user(base: duckdb.DuckDBPyConnection, user_id: str, limit: int) -> list[str]:
    """See port.Settling."""
    return [a for (a,) in base.execute(IDS_OF_USER, [user_id, limit]).fetchall()]


def newest_facts(base: duckdb.DuckDBPyConnection, since_us: int, limit: int) -> pa.Table:
    """See port.Settling."""
    found: pa.Table = base.sql(NEWEST, params=[since_us, limit]).to_arrow_table()
    return found


def rows_by_user(base: duckdb.DuckDBPyConnection, table: str, ids: Sequence[str]) -> pa.Table:
    """See port.Settling; of a table with the columns ``NEEDED``."""
    base.register(IDS, pa.table({"anonymous_id": pa.array(ids, pa.string())}))
    try:
        found: pa.Table = base.sql(
            f"SELECT e.anonymous_id, e.user_id, coalesce(e._hw_user_own, e.user_id IS NOT NULL) AS own, "
            f'count(*) AS "rows" FROM {quoted(table)} e SEMI JOIN {IDS} n ON e.anonymous_id = n.anonymous_id '
            "GROUP BY ALL ORDER BY ALL"
        ).to_arrow_table()
    finally:
        base.unregister(IDS)
    return found


def wrong(table: str, found_max: int) -> str:
    """The statement that finds rows of a table that are not right; a bounded number of them."""
    return f"""CREATE OR REPLACE TEMP TABLE {WRONG} AS SELECT e.rowid AS at, e.anonymous_id, s.user_id
      FROM {quoted(table)} e JOIN {SPANS} s ON e.anonymous_id = s.anonymous_id
      WHERE {OPEN} AND {TIME} >= s.begin_us AND {TIME} < s.end_us AND e.user_id IS DISTINCT FROM s.user_id
      LIMIT {found_max:d}"""


def with_ids(base: duckdb.DuckDBPyConnection, ids: Sequence[str], *statements: str) -> None:
    """Statements over these ids."""
    base.register(IDS, pa.table({"anonymous_id": pa.array(ids, pa.string())}))
    try:
        for statement in statements:
            base.execute(statement)
    finally:
        base.unregister(IDS)
