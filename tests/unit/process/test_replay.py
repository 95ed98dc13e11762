"""The raw log read again for a replay: every event by itself, whatever the cutting."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.event.piece import Piece, Range
from headwater.event.position import EMPTY, Vector
from headwater.kit.errors import Unavailable
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Gatherer
from headwater.process.read import Reader
from headwater.process.replay import ReplayRun
from headwater.process.run import Runner
from headwater.process.schema import LearnedSchema
from headwater.process.shape import Shaper
from tests.unit.process.test_worker import SECRET, Node, drain, event

EVERY = tuple(range(8))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def replayed(node: Node, origin: Vector, until: Vector, bytes_max: int = 1 << 20) -> list[Piece]:
    schema = LearnedSchema(f"{node.data}/schema.ndjson", columns_max=100)
    dialect: Any = SimpleNamespace(plain=True, default_type=lambda head: "track", split=None)
    runner = Runner(
        Gatherer(lambda name: dialect), Reader(schema, depth_max=3), Shaper(EnrichSettings(), schema),
        owned=EVERY, partitions=8, damage_here=False,
    )  # fmt: skip
    run = ReplayRun(
        node.disk, f"{node.data}/raw", SECRET, node.clock, runner, origin=origin, until=until,
        now=lambda: (node.start(), node.clock.boot_ns()), bytes_max=bytes_max,
    )  # fmt: skip
    pieces = []
    while not run.ended:
        piece = run.advance()
        if piece is not None:
            pieces.append(piece)
    assert run.advance() is None
    run.close()
    return pieces


def ids(pieces: list[Piece]) -> list[str]:
    return sorted(i for p in pieces if p.rows is not None for i in p.rows["message_id"].to_pylist())


def fill(node: Node) -> Vector:
    """Two collectors, six blocks each, with copies; where processing then stands."""
    worker = node.processor()
    for block in range(6):
        for collector in (0, 1):
            node.accept(event(block), event(block + 1), event(100 + 10 * block + collector), worker=collector)
        drain(worker)
    return node.commits()[-1].target


@pytest.mark.parametrize("bytes_max", [1, 5000, 1 << 20])
def test_every_event_is_a_row_of_one_piece_copies_too(node: Node, bytes_max: int) -> None:
    end = fill(node)
    pieces = replayed(node, EMPTY, end, bytes_max)
    assert len(ids(pieces)) == 36 and len(set(ids(pieces))) == 19
    assert sum(piece.events for piece in pieces) == 36
    assert pieces[-1].target == end
    covered = sorted(one for piece in pieces for one in piece.ranges)
    for before, after in itertools.pairwise(covered):
        assert before[:2] != after[:2] or before.end == after.first


def test_any_stretch_gives_its_own_events_only(node: Node) -> None:
    fill(node)
    commits = node.commits()
    targets = [EMPTY, *(commit.target for commit in commits)]
    for first in range(len(targets)):
        for last in range(first, len(targets)):
            pieces = replayed(node, targets[first], targets[last], 2000)
            assert sum(piece.events for piece in pieces) == sum(c.events for c in commits[first:last])


def test_an_event_that_cannot_be_processed_is_a_letter(node: Node) -> None:
    worker = node.processor()
    node.accept(event(1), {"type": 5, "messageId": "m2"}, event(3))
    drain(worker)
    end = node.commits()[-1].target
    (piece,) = [p for p in replayed(node, EMPTY, end) if p.events]
    dead = 0 if piece.dead is None else piece.dead.num_rows
    assert len(ids([piece])) + dead == piece.events == 3


def test_what_cannot_be_read_is_in_no_range(node: Node) -> None:
    """Damage: the rows of these events must not be taken away."""
    worker = node.processor()
    for number in range(3):
        node.accept(event(number))
    drain(worker)
    end = node.commits()[-1].target
    (writer,) = end
    folder = f"{node.data}/raw/{writer:016x}"
    (path,) = [
        f"{folder}/{n}"
        for n in node.disk.listdir(folder)
        if n.startswith(f"{end[writer].log:016x}") and n.endswith(".seg")
    ]
    with open(path, "r+b") as file:  # the second block begins on the second page
        file.seek(4096 + 100)
        file.write(b"\xff" * 8)
    pieces = replayed(node, EMPTY, end)
    log = end[writer].log
    assert [one for piece in pieces for one in piece.ranges] == [
        Range(writer, log, 0, 1),
        Range(writer, log, 2, 3),
    ]
    assert ids(pieces) == ["m0", "m2"] and sum(piece.unread for piece in pieces) == 1


def test_a_log_that_ends_too_soon_is_said(node: Node) -> None:
    end = fill(node)
    (writer, position), *_ = end.items()
    beyond = end.join(Vector({writer: position._replace(seq=position.seq + 5)}))
    with pytest.raises(Unavailable) as raised:
        replayed(node, EMPTY, beyond)
    assert raised.value.code == "raw_short"
