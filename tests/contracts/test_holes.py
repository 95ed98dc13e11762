"""Findings of reference/protocol-why.md that no other test opens: shown closed, and open where what closes them is left
out. docs/faults.md says which finding is shown where."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headwater.destinations.memory import MemoryDestination
from headwater.destinations.port import Outcome, OutcomeUnknown, Step
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Broken
from headwater.log import files
from headwater.log.block import encode
from headwater.log.ready import ReadyReader
from headwater.node import nodetime
from headwater.node.retention import keep
from headwater.process.dedupe import Ids, decode_ids
from tests.chains import chain
from tests.unit.destinations.test_deliver import World
from tests.unit.process.test_private import private, rows_of, run
from tests.unit.process.test_worker import SECRET, Killed, Node, crash, drain, event, killed_at


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def spoil_commit(node: Node, number: int) -> None:
    """A byte of the numbered commit in the ready log changes."""
    (segment,) = files.segments(node.disk, f"{node.data}/ready/0")
    data = bytearray(Path(segment.path).read_bytes())
    places = [at for at in range(0, len(data), 4096) if data[at : at + 4] == b"HWB1"]
    data[places[number] + 100] ^= 1
    Path(segment.path).write_bytes(data)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_inv_proc_3_a_spoilt_commit_is_made_again_from_the_raw_log(
    node: Node, which: tuple[int, ...]
) -> None:
    """INV-PROC-3, INV-STATE: the commits behind it are not believed; those made anew have all of their events, once.

    A destination that has one of the lost commits already is off the chain, and gets the rest from a private run."""
    worker = node.processor()
    worker._save = lambda: None  # type: ignore[method-assign]
    for n in range(3):
        node.accept(event(n), event(n + 100), event(0))
        drain(worker)
    crash(worker)
    for number in which:
        spoil_commit(node, number)
    for _ in range(2):  # it holds at the start after that, too
        again = node.processor()
        drain(again)
        counts = node.reports[0]["counters"]["web"]
        assert (counts["in"], counts["out"], counts["duplicate"]) == (9, 6, 3)
        crash(again)
    made: dict[str, Any] = {}
    for row in node.rows():
        assert made.setdefault(row["message_id"], row) == row, (
            "a commit that was made again says something else"
        )
    assert sorted(made) == ["m0", "m1", "m100", "m101", "m102", "m2"]


@pytest.mark.broken_variant
def test_a_processor_that_refuses_to_go_on_behind_a_spoilt_commit_is_found(node: Node) -> None:
    """The same without the rule: it never starts again."""
    worker = node.processor()
    worker._save = lambda: None  # type: ignore[method-assign]
    for n in range(3):
        node.accept(event(n))
        drain(worker)
    crash(worker)
    spoil_commit(node, 1)
    with (
        mock.patch.object(ReadyReader, "damaged", property(lambda _: False, lambda *_: None), create=True),
        pytest.raises(Broken),
    ):
        node.processor()


@pytest.mark.broken_variant
def test_p1_state_that_is_saved_before_its_commit_is_found(node: Node) -> None:
    """P1, INV-PROC-1: ids that were saved before the commit was durable make its events duplicates of themselves."""
    node.accept(event(1))
    worker = node.processor()
    save = worker._save

    def saves_first(entry: Commit) -> Position:
        ids = decode_ids(bytes(entry.sections["ids"]))[0]
        worker.store.take_over(ids)  # broken: visible before it is durable, and not said of which commit
        save()
        raise Killed

    worker._append = saves_first  # type: ignore[method-assign]
    with pytest.raises(Killed):
        worker.step()
    crash(worker)
    drain(node.processor())
    assert node.ids() == [], "the hole is not open: this test shows nothing"


def test_p1_a_crash_before_the_commit_leaves_nothing_behind(node: Node) -> None:
    """The same crash with the parts as they are: the event is a row."""
    node.accept(event(1))
    worker = node.processor()
    killed_at(worker.ready, "append")
    with pytest.raises(Killed):
        worker.step()
    crash(worker)
    drain(node.processor())
    assert node.ids() == ["m1"]


def nothing() -> Iterator[Ids | None]:
    """No ids at all."""
    yield from ()


@pytest.mark.broken_variant
def test_p2_a_private_run_that_does_not_know_the_ids_below_it_is_found(node: Node) -> None:
    """P2, INV-DEST, INV-STATE: the copy above the position of an id below it becomes a row again."""
    worker = node.processor()
    node.accept(event(1))
    drain(worker)
    (first,) = node.commits()
    node.accept(event(1), event(2))
    drain(worker)
    end = node.commits()[-1].target
    as_it_is, broken = private(node, first.target, end), private(node, first.target, end)
    broken._ids_below = nothing  # type: ignore[method-assign]
    assert [row["message_id"] for row in rows_of(run(as_it_is))] == ["m2"]
    assert [row["message_id"] for row in rows_of(run(broken))] == ["m1", "m2"]


@pytest.mark.broken_variant
def test_d5_beginning_again_where_position_rows_are_missing_is_found(tmp_path: Path) -> None:
    """D5: a deliverer that does not remember having delivered takes lost position rows for a new destination."""
    world = World(tmp_path)
    world.ready.entries += chain([5, 3], (0, 1, 2, 3))
    remembers = world.deliverer("a")
    world.run(remembers)
    world.store.positions.clear()
    remembers.rows = None
    world.run(remembers)
    assert remembers.trouble is not None and remembers.trouble.code == "position_missing"
    forgetful = world.deliverer("b")
    world.run(forgetful)
    assert len(world.ids()) == 16, "the hole is not open: this test shows nothing"
    remembers.close()
    forgetful.close()


@pytest.mark.broken_variant
def test_d7_counting_refused_rows_apart_from_the_step_is_found(tmp_path: Path) -> None:
    """D7, INV-LED-1: a ledger that is written beside the step drifts at a crash; the one in the step does not."""
    world = World(tmp_path)
    world.ready.entries += chain([5, 3], (0, 1, 2, 3))
    beside = 0

    class Dying(MemoryDestination):
        """Loses its connection once, before the step takes effect."""

        cuts = 1

        def step(self, step: Step) -> Outcome:
            nonlocal beside
            if any(rows.num_rows for sets in step.tables.values() for rows in sets):
                beside += sum(c.dead for p in step.added.values() for c in p.values())
            if sum(c.dead for p in step.added.values() for c in p.values()) and self.cuts:
                self.cuts -= 1
                raise OutcomeUnknown("cut before")
            return super().step(step)

    deliverer = world.deliverer("a", Dying(world.store, lambda row: row["message_id"] != "m3"))
    world.run(deliverer)
    assert sum(row.total.dead for row in world.store.positions.values()) == deliverer.dead.count() == 1
    assert beside == 2, "the hole is not open: this test shows nothing"
    deliverer.close()


@pytest.mark.broken_variant
def test_l10_stamping_with_the_wall_clock_is_found() -> None:
    """L10: node time goes on at its own pace whatever the wall clock does; a stamp by the wall clock jumps with it."""
    second, day = 10**9, 86_400 * 10**9
    offset, node_times, wall_times = 0, [], []
    for tick in range(10):
        wall = tick * second + (day if 3 <= tick < 6 else -day if tick >= 6 else 0)
        offset = nodetime.slewed_ns(offset, wall, tick * second, second)
        node_times.append(tick * second + offset)
        wall_times.append(wall)
    steps = [later - earlier for earlier, later in pairwise(node_times)]
    assert all(abs(step - second) < second // 1000 for step in steps)
    assert min(later - earlier for earlier, later in pairwise(wall_times)) < -day


def test_l9_what_everybody_has_does_not_keep_new_events_out_of_a_full_log(tmp_path: Path) -> None:
    """L9: at its quota the raw log gives back what everybody has; where nothing is safe it stays full, and says 503."""
    disk, folder = SystemDisk(), tmp_path / f"{1:016x}"
    folder.mkdir()
    for number in range(3):
        data = encode([b"x"], log_id=1, first_seq=10 * number, events=10, records=1, node_time_ns=1, boot_ns=1,
                      secret=SECRET)  # fmt: skip
        (folder / f"{1:016x}-{10 * number:016x}.seg").write_bytes(data.ljust(65536, b"\0"))

    def left(safe: Vector) -> int:
        keep(disk, str(tmp_path), safe, secret=SECRET, now_ns=2, retain_s=86_400, raw_bytes_max=3 * 65536,
             headroom_bytes=65536, segment_bytes=65536, spares_max=0)  # fmt: skip
        return len(files.segments(disk, str(folder)))

    assert left(EMPTY) == 3
    assert left(Vector({WriterId(1): Position(1, 20)})) < 3
