"""What a node knows of events besides the raw log: rows in destinations, dead letters, where everybody stands.

``ask`` collects it in a running node; ``of_files`` collects what files tell of a stopped one, and says what it could
not ask. ``explain`` (explain.py) makes a story of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headwater.event.position import Vector
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.ops import find, standing
from headwater.ops.look import ASK_S, LOOK, Look

PLACES_MAX, IDS_MAX = 200, 200
ROWS_MAX = 500

Place = tuple[str, str, int]
"""Writer, log, number."""
Row = dict[str, Any]


class Stand(msgspec.Struct, kw_only=True):
    """One destination."""

    state: str = "unknown"
    reason: str | None = None
    command: str | None = None
    vectors: dict[str, list[int]] = {}
    """Vector (hex) → the partitions that stand there."""
    rows: list[Row] = []
    error: str | None = None
    """Why its rows could not be asked."""


class Known(msgspec.Struct, kw_only=True):
    """Everything that is known."""

    partitions: int
    letters: list[dict[str, Any]] = []
    """Dead letters, as they are listed, without bodies; those of destinations say which ``destination``."""
    processed: dict[str, list[int]] = {}
    destinations: dict[str, Stand] = {}
    warnings: list[str] = []
    """What the node says is wrong with it."""
    running: bool = True
    silent: list[str] = []
    """Nodes of the cluster that did not answer: what only they know is missing."""


AskSql = Callable[[str, object, object], Awaitable[tuple[dict[str, Any], bytes]]]


async def ask(look: Look, sql: AskSql, message_ids: Sequence[str], places: Sequence[Place]) -> Known:
    """From a running node. Destinations are read first: whoever is found there has been processed."""
    names = list(look.parts().destinations)
    rows = {name: await rows_of(sql, name, message_ids, places) for name in names}
    found, unheard = await asyncio.to_thread(look.dead_find, message_ids, places)
    letters = [*map(without_body, found)]
    silent = set(unheard)
    reports = await asyncio.to_thread(look.all_reports, silent)
    delivered = standing.delivered(reports)
    stands = {name: stand(delivered.get(name), rows[name]) for name in names}
    return Known(
        partitions=look.node.partitions,
        letters=letters,
        processed=grouped(standing.processed(reports).vectors),
        destinations=stands,
        silent=sorted(silent),
        warnings=[*look.readiness().reasons, *look.readiness().warnings],
    )


def searched_elsewhere(
    look: Look, asked: str, search_s: float, **span: int
) -> tuple[list[find.Looked], list[str]]:
    """What the raw logs of the other nodes hold of an event, and who did not say so. ``span``: since_ns, until_ns."""
    if look.nodes is None:
        return [], []
    request = {"op": "search", "id": asked, "search_s": search_s, **span}
    answers = look.nodes.ask_all(LOOK, request, search_s + ASK_S)
    return [find.of_told(told) for told in answers.parts.values()], look.unheard(answers)


def without_body(letter: Mapping[str, Any]) -> dict[str, Any]:
    """A letter as it is listed."""
    return {name: value for name, value in letter.items() if name != "body"}


def stand(one: standing.Delivered | None, rows: list[Row] | HeadwaterError) -> Stand:
    """A destination as it says it stands."""
    found = Stand() if one is None else Stand(state=one.state, reason=one.reason, command=one.command)
    found.vectors = {} if one is None else grouped(one.vectors)
    if isinstance(rows, HeadwaterError):
        found.error = str(rows)
    else:
        found.rows = rows
    return found


def grouped(vectors: Mapping[int, Vector]) -> dict[str, list[int]]:
    """Vector (hex) → partitions."""
    groups: dict[str, list[int]] = {}
    for partition, vector in sorted(vectors.items()):
        groups.setdefault(vector.encode().hex(), []).append(partition)
    return groups


def vectors_of(groups: Mapping[str, Sequence[int]]) -> dict[int, Vector]:
    """Back from ``grouped``."""
    return {p: v for text, ps in groups.items() for v in (Vector.decode(bytes.fromhex(text)),) for p in ps}


async def rows_of(
    sql: AskSql, name: str, message_ids: Sequence[str], places: Sequence[Place]
) -> list[Row] | HeadwaterError:
    """The rows of these events in a destination; an error says why they cannot be had."""
    parts = [*by_id(message_ids), *by_place(places)]
    if not parts:
        return []
    query = f"select * from events where {' or '.join(parts)} order by received_at"  # noqa: S608 - literals below
    try:
        _, body = await sql(query, ROWS_MAX, name)
    except HeadwaterError as error:
        return error
    rows: list[Row] = msgspec.json.decode(body)
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def by_id(message_ids: Sequence[str]) -> list[str]:
    """A condition over message ids. (A text with NUL cannot stand in a statement; no row has one.)"""
    literals = [literal(one) for one in message_ids if "\0" not in one]
    return [f"message_id in ({', '.join(literals)})"] if literals else []


def by_place(places: Iterable[Place]) -> list[str]:
    """Conditions over positions, one for each log."""
    logs: dict[tuple[str, str], list[int]] = {}
    for writer, log, seq in places:
        logs.setdefault((writer, log), []).append(seq)
    return [
        f"(_hw_writer = {int(writer, 16)} and _hw_log = {int(log, 16)} and _hw_seq in ({', '.join(map(str, seqs))}))"
        for (writer, log), seqs in logs.items()
    ]


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def of_files(
    data_letters: Iterable[Mapping[str, Any]],
    processed: Mapping[int, Vector],
    remembered: Mapping[str, Mapping[int, Vector]],
    partitions: int,
) -> Known:
    """Of a node that does not run: its dead letters, where its processors stood, and where each destination stood when
    its deliverer saw it last."""
    why = str(Unavailable("the node does not answer, so its rows were not asked", code="no_node"))
    return Known(
        partitions=partitions,
        letters=[without_body(letter) for letter in data_letters],
        processed=grouped(processed),
        destinations={
            name: Stand(state="not running", vectors=grouped(vectors), error=why)
            for name, vectors in remembered.items()
        },
        running=False,
    )
