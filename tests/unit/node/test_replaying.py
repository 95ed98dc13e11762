"""What a node tells a replay of its raw log and of its processors' dead letters."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headwater.event.position import ZERO, Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Unavailable
from headwater.log import files
from headwater.node.replaying import NodeRaw
from headwater.process import dead
from headwater.process.run import DEAD_SCHEMA
from tests.unit.log.test_moment import SECOND, SECRET, WRITER, Logs

END = Position(9, 20)


def never(*arguments: Any) -> Any:
    raise AssertionError("nobody asked for a private run")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    folder = tmp_path / "raw" / f"{WRITER:016x}"
    folder.mkdir(parents=True)
    (tmp_path / "state" / "0").mkdir(parents=True)
    return Logs(folder)


@pytest.fixture
def raw(logs: Logs, tmp_path: Path) -> NodeRaw:
    context: Any = SimpleNamespace(
        disk=SystemDisk(),
        secret=SECRET,
        path=lambda *names: "/".join([str(tmp_path), *names]),
        node_ns=lambda: 1000 * SECOND,
        settings=SimpleNamespace(
            process=SimpleNamespace(dedupe_window_s=60), destinations={"warehouse": None}
        ),
    )
    return NodeRaw(context, never)


def at(position: Position) -> Vector:
    return Vector({WRITER: position})


def test_a_plan_is_the_blocks_between_two_times_that_are_delivered(raw: NodeRaw) -> None:
    plan = raw.plan(3 * SECOND, 12 * SECOND, at(END))
    assert (plan.origin, plan.until) == (at(Position(5, 8)), at(Position(9, 6)))
    assert plan.events == 18 and plan.missing == ""
    plan = raw.plan(3 * SECOND, 12 * SECOND, at(Position(5, 12)))
    assert plan.until == at(Position(5, 12)) and plan.events == 4
    assert raw.plan(50 * SECOND, 60 * SECOND, at(END)).events == 0
    assert raw.plan(0, 60 * SECOND, at(ZERO)).events == 0


def test_a_writer_without_a_log_here_stays_where_it_is(raw: NodeRaw) -> None:
    other = Vector({WRITER: END, WriterId(7): Position(3, 3)})
    plan = raw.plan(0, 60 * SECOND, other)
    assert plan.origin[WriterId(7)] == plan.until[WriterId(7)] == Position(3, 3)


def test_a_beginning_that_is_gone_is_told_with_its_time(raw: NodeRaw, logs: Logs) -> None:
    for segment in files.segments(logs.disk, logs.folder):
        if segment.log == 5:
            logs.disk.unlink(segment.path)
    plan = raw.plan(3 * SECOND, 12 * SECOND, at(END))
    assert plan.missing.endswith("it is whole from 1970-01-01T00:00:10Z on")
    assert plan.origin == at(Position(9, 0)) and plan.events == 6
    assert raw.plan(11 * SECOND, 12 * SECOND, at(END)).missing == ""


def test_settled_is_what_nothing_undelivered_can_be_older_than(raw: NodeRaw) -> None:
    assert raw.settled_us(at(Position(5, 8))) == 4_000_000
    assert raw.settled_us(at(END)) == 1000 * 1_000_000


def test_letters_of_all_processors_are_found_and_go(raw: NodeRaw, tmp_path: Path) -> None:
    letters = dead.DeadLetters(f"{tmp_path}/state/0/dead.sqlite")
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    one = {"writer": WRITER, "log": 5, "row": 0, "stream": "web", "reason": "r", "field": "", "message_id": "m",
           "received": when, "body": b"{}"}  # fmt: skip
    letters.add(pa.Table.from_pylist([{**one, "seq": seq} for seq in (1, 4, 9)], schema=DEAD_SCHEMA))
    span = [(WRITER, Position(5, 2), Position(9, 1))]
    assert raw.letters.between(span) == [(WRITER, 5, 4), (WRITER, 5, 9)]
    assert raw.letters.between([(WRITER, Position(5, 4), Position(5, 9))]) == [(WRITER, 5, 4)]
    assert raw.letters.between([(WriterId(1), ZERO, END)]) == []
    (tmp_path / "state" / "retried").mkdir()
    with sqlite3.connect(f"{tmp_path}/state/retried/retried.sqlite") as base:
        base.execute("create table retried (writer text, log text, seq integer, row integer)")
        base.execute("insert into retried values (?, ?, 9, 0)", (f"{WRITER:016x}", f"{5:016x}"))
    assert raw.letters.between(span) == [(WRITER, 5, 4)]  # the other was sent in again: an event of its own
    (tmp_path / "state" / "retried" / "retried.sqlite").unlink()
    destinations: Any = raw.context.settings.destinations
    destinations["second"] = None
    assert raw.letters.between(span) == []  # as a row in one of them, it would be missing in the other
    del destinations["second"]
    raw.letters.remove([(WRITER, 5, 4)])
    assert raw.letters.between(span) == [(WRITER, 5, 9)]
    letters.close()


def test_letters_that_cannot_be_written_now_are_said(tmp_path: Path) -> None:
    (tmp_path / "dead.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable):
        dead.remove(str(tmp_path / "dead.sqlite"), [(1, 2, 3)])
