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
FACTS, IDS, SPANS = "hw_facts", "hw_ids", "hw_spans"
"""Views that a connection registers for a statement."""
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
            f'SELECT i.anonymous_id, i.kind, i.user_id, epoch_us(i."time") AS time_us, i.message_id, i.settled '
            f"FROM {IDENTITY} i SEMI JOIN {IDS} n ON i.anonymous_id = n.anonymous_id"
        ).to_arrow_table()
    finally:
        base.unregister(IDS)
    return found


def settle(
    base: duckdb.DuckDBPyConnection, tables: Sequence[str], ids: Sequence[str], spans: pa.Table, rows_max: int
) -> int:
    """See port.Settling; inside a transaction."""
    changed = 0
    if spans.num_rows:
        base.register(SPANS, spans)
        try:
            for table in tables:
                changed += base.execute(corrected(table, rows_max - changed)).fetchall()[0][0]
        finally:
            base.unregister(SPANS)
    if changed < rows_max:
        with_ids(base, ids, SETTLED, FORGET)
    return changed


def corrected(table: str, rows_max: int) -> str:
    """The statement that makes rows of a table right."""
    wrong = f"""SELECT e.rowid AS at, s.user_id FROM {quoted(table)} e JOIN {SPANS} s ON e.anonymous_id = s.anonymous_id
      WHERE {OPEN} AND {TIME} >= s.begin_us AND {TIME} < s.end_us AND e.user_id IS DISTINCT FROM s.user_id
      LIMIT {rows_max:d}"""
    return f"UPDATE {quoted(table)} AS e SET user_id = w.user_id FROM ({wrong}) AS w WHERE e.rowid = w.at"


def with_ids(base: duckdb.DuckDBPyConnection, ids: Sequence[str], *statements: str) -> None:
    """Statements over these ids."""
    base.register(IDS, pa.table({"anonymous_id": pa.array(ids, pa.string())}))
    try:
        for statement in statements:
            base.execute(statement)
    finally:
        base.unregister(IDS)
