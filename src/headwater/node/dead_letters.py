"""Dead letters of processors and destinations together, read from their files."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from headwater.kit.disk import Disk

REFUSED = "writer, log, seq, row, stream, reason, help, destination, length(body)"
REFUSED_NAMES = ("writer", "log", "seq", "row", "stream", "reason", "help", "destination", "bytes")

KEY_IN_JSON = re.compile(r"""("writeKey"\s*:\s*")(?:[^"\\]|\\.)*""")
KEY_IN_QUERY = re.compile(r"((?:^|&)(?:writeKey|key)=)[^&]*")


class NodeDeadLetters:
    """``state/<n>/dead.sqlite`` (process/dead.py), ``state/deliver-<name>/dead.sqlite`` (destinations/refused.py)."""

    def __init__(self, disk: Disk, data: str) -> None:
        self.disk = disk
        self.state = f"{data}/state"

    def list(self, limit: int, stream: str | None) -> list[dict[str, Any]]:
        """The newest, without their bodies."""
        from headwater.process import dead

        processed: dict[str, dict[str, Any]] = {}  # one that was taken over is in two files for a while
        for path in self.files(processors=True):
            processed |= {
                f"{origin(one)}-{one['row']}": one for one in dead.read(path, limit=limit, stream=stream)
            }
        letters = list(processed.values())
        for path in self.files(processors=False):
            letters += refused(path, limit, stream)
        letters.sort(key=lambda letter: (letter["log"], letter["seq"]), reverse=True)
        return [{"origin": origin(letter), **letter} for letter in letters[:limit]]

    def show(self, wanted: str) -> dict[str, Any] | None:
        """One with its body, by origin or message id; write keys in the body are left out."""
        from headwater.process import dead

        for path in self.files(processors=True):
            if (letter := dead.show(path, wanted)) is not None:
                return without_keys({"origin": origin(letter), **letter})
        for path in self.files(processors=False):
            if (letter := refused_one(path, wanted)) is not None:
                return without_keys({"origin": origin(letter), **letter})
        return None

    def files(self, *, processors: bool) -> Iterator[str]:
        """The files that are there."""
        for name in self.disk.listdir(self.state):
            path = f"{self.state}/{name}/dead.sqlite"
            if name.isdigit() == processors and self.disk.exists(path):
                yield path


def without_keys(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter whose body shows no write key. (By pattern: a body may be dead because it is no JSON.)"""
    pattern = KEY_IN_JSON if letter["body"].lstrip()[:1] in ("{", "[", '"') else KEY_IN_QUERY
    return {**letter, "body": pattern.sub(r"\1***", letter["body"])}


def origin(letter: dict[str, Any]) -> str:
    """``writer-log-seq``, as ``dead show`` takes it."""
    return f"{letter['writer']}-{letter['log']}-{letter['seq']}"


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """A file of dead letters, read only."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def refused(path: str, limit: int, stream: str | None) -> list[dict[str, Any]]:
    """The newest rows that a destination refused."""
    query = f"select {REFUSED} from dead where ? is null or stream = ? order by node_ns desc limit ?"  # noqa: S608
    with opened(path) as connection:
        return [
            dict(zip(REFUSED_NAMES, row, strict=True))
            for row in connection.execute(query, (stream, stream, limit))
        ]


def refused_one(path: str, wanted: str) -> dict[str, Any] | None:
    """One refused row, by origin."""
    parts = wanted.split("-")
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    query = f"select {REFUSED}, body from dead where writer = ? and log = ? and seq = ?"  # noqa: S608
    with opened(path) as connection:
        row = connection.execute(query, (parts[0], parts[1], int(parts[2]))).fetchone()
    if row is None:
        return None
    return {
        **dict(zip(REFUSED_NAMES, row[:-1], strict=True)),
        "body": bytes(row[-1]).decode("utf-8", "replace"),
    }
