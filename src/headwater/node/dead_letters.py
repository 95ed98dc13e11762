"""Dead letters of processors and destinations together, read from their files; works on a stopped node too.

A body is shown as text where it is UTF-8, under ``body``, else as base64, under ``body_base64``; never as something
that could be either. Write keys in it are replaced by ``***``: `dead show` and `dead export` show no secret, while the
files keep the bytes as they came.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from headwater.event.position import Position
from headwater.kit.disk import Disk
from headwater.kit.errors import Rejected
from headwater.ops import bodies
from headwater.ops.retried import Retried

PROCESSED = ("writer", "log", "seq", "row", "stream", "reason", "field", "message_id", "received")
REFUSED = ("writer", "log", "seq", "row", "stream", "reason", "help", "destination", "node_ns")
PAGE = 200
"""Letters that are read at once."""
PAGE_ELSEWHERE = 50
"""The same, for another node, which gets them in one message."""
ORIGIN = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-(\d{1,19})(?:-(\d{1,9}))?")

Place = tuple[str, str, int]
"""Writer, log, number."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters; everything that is said must hold."""

    stream: str | None = None
    reason: str | None = None
    """Part of the reason, in either case."""
    since_ns: int | None = None


EVERY = Wanted()


class NodeDeadLetters:
    """``state/<n>/dead.sqlite`` (process/dead.py), ``state/deliver-<name>/dead.sqlite`` (destinations/refused.py)."""

    def __init__(self, disk: Disk, data: str) -> None:
        self.disk = disk
        self.state = f"{data}/state"
        self.retried = Retried(disk, data)

    def list(self, limit: int, stream: str | None, reason: str | None = None) -> Sequence[dict[str, Any]]:
        """The newest, without their bodies."""
        wanted = Wanted(stream=stream, reason=reason)
        processed: dict[str, dict[str, Any]] = {}  # one that was taken over is in two files for a while
        for path in self.files(processors=True):
            processed |= {
                f"{origin(one)}-{one['row']}": one
                for one in select(path, PROCESSED, *conditions(wanted, PROCESSED), newest=limit)
            }
        letters = list(processed.values())
        for path in self.files(processors=False):
            letters += select(path, REFUSED, *conditions(wanted, REFUSED), newest=limit)
        letters.sort(key=lambda letter: (letter["log"], letter["seq"]), reverse=True)
        return self.told(letters[:limit])

    def show(self, wanted: str) -> dict[str, Any] | None:
        """One with its body, by origin (with or without its row) or message id; write keys are left out."""
        for letter in self.find([wanted], origins=[wanted]):
            return shown(letter)
        return None

    def find(
        self, message_ids: Sequence[str] = (), places: Iterable[Place] = (), origins: Sequence[str] = ()
    ) -> Sequence[dict[str, Any]]:
        """All letters with one of these message ids or at one of these places, with their bytes under ``bytes``; those
        of processing first."""
        wanted = {*places, *(place for text in origins if (place := place_of(text)) is not None)}
        found: dict[tuple[object, ...], dict[str, Any]] = {}
        for path in self.files(processors=True):
            for message_id in message_ids:
                keep(found, select(path, PROCESSED, ["message_id = ?"], [message_id], body=True))
            for place in wanted:
                keep(found, select(path, PROCESSED, AT, place, body=True))
        for path in self.files(processors=False):
            for place in wanted:
                keep(found, select(path, REFUSED, AT, place, body=True))
        return self.told(found.values())

    def export(self, wanted: Wanted = EVERY) -> Iterator[dict[str, Any]]:
        """Every letter that is wanted, with its bytes, those of each file in the order of their origins; a page of them
        is in memory at a time. One that was taken over from a former processor may come twice for a while."""
        for processors, names in ((True, PROCESSED), (False, REFUSED)):
            for path in self.files(processors=processors):
                where, values = conditions(wanted, names)
                after: tuple[object, ...] = ("", "", -1, -1)
                while page := select(
                    path, names, [*where, "(writer, log, seq, row) > (?, ?, ?, ?)"], [*values, *after],
                    body=True, page=PAGE,
                ):  # fmt: skip
                    yield from self.told(page)
                    after = tuple(page[-1][name] for name in ("writer", "log", "seq", "row"))

    def page(
        self, asked: Mapping[str, Any], at: Sequence[Any] | None
    ) -> tuple[Sequence[dict[str, Any]], Sequence[Any] | None]:
        """``export`` in pieces, for another node: some letters with their bytes, and ``at`` for the next ones; None
        behind the last. ``asked``: a Wanted, as it travels."""
        wanted = msgspec.convert(asked, Wanted)
        files = [
            (path, names)
            for processors, names in ((True, PROCESSED), (False, REFUSED))
            for path in self.files(processors=processors)
        ]
        begun = at is None
        for path, names in files:
            if not begun and path.removeprefix(self.state) != at[0]:  # type: ignore[index]
                continue
            after = tuple(at[1:]) if not begun and at is not None else ("", "", -1, -1)
            begun = True
            where, values = conditions(wanted, names)
            letters = select(
                path, names, [*where, "(writer, log, seq, row) > (?, ?, ?, ?)"], [*values, *after],
                body=True, page=PAGE_ELSEWHERE,
            )  # fmt: skip
            if letters:
                last = [letters[-1][name] for name in ("writer", "log", "seq", "row")]
                return self.told(letters), [path.removeprefix(self.state), *last]
        return [], None

    def told(self, letters: Iterable[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """Letters with their origin, and what was done to retry them."""
        listed = [{"origin": origin(letter), **letter} for letter in letters]
        retries = self.retried.of([(one["writer"], one["log"], one["seq"], one["row"]) for one in listed])
        for one in listed:
            if retry := retries.get((one["writer"], one["log"], one["seq"], one["row"])):
                one["retried_at"], one["retried_as"] = retry.at, retry.receipt or None
        return listed

    def files(self, *, processors: bool) -> Iterator[str]:
        """The files that are there."""
        for name in self.disk.listdir(self.state) if self.disk.exists(self.state) else ():
            path = f"{self.state}/{name}/dead.sqlite"
            if (name.isdigit() if processors else name.startswith("deliver-")) and self.disk.exists(path):
                yield path


AT = ["writer = ?", "log = ?", "seq = ?"]


def keep(found: dict[tuple[object, ...], dict[str, Any]], letters: Iterable[dict[str, Any]]) -> None:
    """Add letters, each once."""
    for one in letters:
        found.setdefault((one.get("destination"), one["writer"], one["log"], one["seq"], one["row"]), one)


def conditions(wanted: Wanted, names: Sequence[str]) -> tuple[list[str], list[object]]:
    """As SQL and its values."""
    where: list[str] = []
    values: list[object] = []
    if wanted.stream is not None:
        where, values = [*where, "stream = ?"], [*values, wanted.stream]
    if wanted.reason is not None:
        where, values = [*where, "instr(lower(reason), lower(?)) > 0"], [*values, wanted.reason]
    if wanted.since_ns is not None:
        if "received" in names:
            where, values = [*where, "received >= ?"], [*values, text_of(wanted.since_ns)]
        else:
            where, values = [*where, "node_ns >= ?"], [*values, wanted.since_ns]
    return where, values


def text_of(node_ns: int) -> str:
    """A time as ``received`` holds it."""
    return datetime.datetime.fromtimestamp(node_ns / 1e9, datetime.UTC).isoformat()


def select(
    path: str,
    names: Sequence[str],
    where: Sequence[str] = (),
    values: Sequence[object] = (),
    *,
    body: bool = False,
    newest: int | None = None,
    page: int | None = None,
) -> list[dict[str, Any]]:
    """Letters of a file: the ``newest``, or a ``page`` in the order of their origins. With their bytes, or how many."""
    time = "received" if "received" in names else "node_ns"
    query = f"select {', '.join(names)}, {'body' if body else 'length(body)'} from dead"  # noqa: S608 - own names
    query += f" where {' and '.join(where)}" if where else ""
    if newest is not None:
        query += f" order by {time} desc limit {newest}"
    elif page is not None:
        query += f" order by writer, log, seq, row limit {page}"
    last = "body" if body else "bytes"
    try:
        with opened(path) as connection:
            return [dict(zip((*names, last), row, strict=True)) for row in connection.execute(query, values)]
    except sqlite3.Error as error:
        raise Rejected(f"cannot read the dead letters in {path}: {error}", code="dead_letters") from error


def shown(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter as JSON can hold it and anybody may read it (ops/bodies.py)."""
    rest = {name: value for name, value in letter.items() if name != "body"}
    return {**rest, **bodies.shown(bytes(letter["body"]))}


def origin(letter: dict[str, Any]) -> str:
    """``writer-log-seq``, as ``dead show`` takes it."""
    return f"{letter['writer']}-{letter['log']}-{letter['seq']}"


def place_of(text: str) -> Place | None:
    """The place that an origin names; None where it is none."""
    match = ORIGIN.fullmatch(text)
    return (match[1], match[2], int(match[3])) if match else None


def position_of(place: Place) -> Position:
    """A place as a position in its writer's logs."""
    return Position(int(place[1], 16), place[2])


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """A file of dead letters, read only."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()
