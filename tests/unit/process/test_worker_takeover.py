"""A processor goes on from what its node kept, as a standby, for a processor of another node (protocol.md §7)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from headwater.event.commit import RESTARTED
from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.log.cut import home_of
from headwater.node.standby import entries
from headwater.node.standby.sink import Sink
from headwater.node.standby.source import Source
from headwater.process import idruns, state
from headwater.process.sources import Alone
from headwater.process.takeover import standby_folder
from headwater.process.worker import ProcessWorker
from tests.unit.process.test_worker import SECRET, Node, crash, drain, event

OWNER = "aaaaaaaaaaaa0000"
EVERYTHING = range(8)
DISK = SystemDisk()


class Kept(Alone):
    """What node/ownership.py says of ``standby/``."""

    def __init__(self, node: Node) -> None:
        self.folder = f"{node.data}/standby"

    def standby(self) -> list[str]:
        return [f"{self.folder}/{name}" for name in DISK.listdir(self.folder)]


@pytest.fixture
def owner(tmp_path: Path) -> Node:
    (tmp_path / "owner").mkdir()
    return Node(tmp_path / "owner")


@pytest.fixture
def other(tmp_path: Path) -> Node:
    (tmp_path / "other").mkdir()
    return Node(tmp_path / "other")


def keep(owner: Node, other: Node) -> None:
    """Bring the standby to where the owner's files are."""
    sink = Sink(DISK, standby_folder(other.data, OWNER, 0), window_minutes=60)
    known = sink.known(EVERYTHING)
    source = Source(
        DISK, owner.data, 0, EVERYTHING, secret=SECRET, window_minutes=60,
        after=entries.vectors(known.standing), ready=Position(*known.ready) if known.standing else None,
    )  # fmt: skip
    while told := source.pull(1 << 20):
        for entry in told:
            sink.take(entries.decode(entry))
    sink.save()
    source.close()
    sink.close()


def take_over(owner: Node, other: Node) -> ProcessWorker:
    """The owner is lost; its raw log can be read."""
    shutil.rmtree(f"{other.data}/raw")
    shutil.copytree(f"{owner.data}/raw", f"{other.data}/raw")
    return started(other)


def started(node: Node) -> ProcessWorker:
    worker = node.processor()
    worker.sources = Kept(node)  # it was started alone, which took nothing over
    worker.wanted = list(EVERYTHING)
    worker.step()
    return worker


def counted(node: Node) -> tuple[int, int, int]:
    counters = node.reports[0]["counters"]["web"]
    return counters["in"], counters["out"], counters["duplicate"]


def names(paths: Iterator[str]) -> list[bool]:
    return [chunk.about is not None for path in paths for chunk in idruns.chunks(path)]


def test_events_that_the_standby_has_seen_are_known_and_later_ones_are_run_again(
    owner: Node, other: Node
) -> None:
    """H7, INV-OWN-1: the base is older than where the dead owner stood."""
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(20)))
    drain(worker)
    keep(owner, other)
    owner.accept(*(event(n) for n in range(15, 30)))  # five of them are copies
    drain(worker)
    worker._save()
    crash(worker)
    drain(take_over(owner, other))
    assert counted(other) == (35, 30, 5)
    assert other.ids() == sorted(f"m{n}" for n in range(20, 30))


def test_ids_that_were_saved_ahead_of_the_fold_make_no_duplicates_after_a_takeover(
    owner: Node, other: Node
) -> None:
    """H7."""
    worker = owner.processor()
    owner.accept(event(1))
    drain(worker)
    worker._save()
    owner.accept(event(2))
    drain(worker)
    worker.store._append_pending()
    shutil.copytree(
        f"{owner.data}/state/0", standby_folder(other.data, OWNER, 0)
    )  # a folder as a crash leaves it
    crash(worker)
    drain(take_over(owner, other))
    assert counted(other) == (2, 2, 0) and other.ids() == ["m2"]


def test_what_was_taken_over_is_known_after_the_standby_folder_is_gone(owner: Node, other: Node) -> None:
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(20)))
    drain(worker)
    keep(owner, other)
    crash(worker)
    crash(take_over(owner, other))
    assert all(names(iter(idruns.paths(f"{other.data}/state/0"))))  # each says whose commit it is
    held = sum(len(Path(path).read_bytes()) for path in idruns.paths(f"{other.data}/state/0"))
    crash(started(other))
    assert sum(len(Path(path).read_bytes()) for path in idruns.paths(f"{other.data}/state/0")) == held
    shutil.rmtree(standby_folder(other.data, OWNER, 0))
    other.accept(*(event(n) for n in range(25)), worker=1)
    drain(other.processor())
    assert counted(other) == (45, 25, 20)


def test_a_partition_that_comes_back_at_a_lower_vector_takes_no_ids_from_above_it(
    owner: Node, other: Node
) -> None:
    """It was taken over at 20 events, and went on elsewhere from 10; then it comes back."""
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(10)))
    drain(worker)
    keep(owner, other)
    low = state.load(DISK, standby_folder(other.data, OWNER, 0))
    owner.accept(*(event(n) for n in range(10, 20)))
    drain(worker)
    keep(owner, other)
    crash(worker)
    again = take_over(owner, other)
    again._save()
    crash(again)
    shutil.rmtree(f"{other.data}/standby")
    (Path(other.data) / "standby").mkdir()
    shutil.rmtree(f"{other.data}/ready/0")
    state.save(DISK, f"{other.data}/state/0", low)
    drain(other.processor())
    assert counted(other) == (20, 20, 0) and other.ids() == sorted(f"m{n}" for n in range(10, 20))


def test_a_standby_folder_that_is_spoilt_is_told_and_hinders_nobody(owner: Node, other: Node) -> None:
    """H7, INV-OWN-1."""
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(5)))
    drain(worker)
    keep(owner, other)
    crash(worker)
    Path(standby_folder(other.data, OWNER, 0), "fold").write_bytes(b"\xff")
    worker = other.processor()
    worker.sources = Kept(other)
    worker.recover()
    (told,) = other.reports[0]["unreadable"]
    assert "standby" in told and "cannot be read" in told and not other.reports[0]["trouble"]
    drain(take_over(owner, other))
    assert counted(other) == (5, 5, 0)


class Standing(Kept):
    """Destinations stand at one vector with all partitions."""

    def __init__(self, node: Node, at: Vector) -> None:
        super().__init__(node)
        self.at = at

    def stood(self, partitions: Sequence[int]) -> dict[int, Vector]:
        return dict.fromkeys(partitions, self.at)


def takes_over_at(other: Node, at: Vector) -> ProcessWorker:
    worker = other.processor()
    worker.sources = Standing(other, at)
    worker._begin_again()
    return worker


def two_commits(owner: Node, other: Node) -> tuple[Vector, Vector]:
    """Ten events in each; the standby has both. Where the first one ended, and the second."""
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(10)))
    drain(worker)
    first = worker.groups[0].vector
    keep(owner, other)
    owner.accept(*(event(n) for n in range(5, 15)))
    drain(worker)
    keep(owner, other)
    second = worker.groups[0].vector
    crash(worker)
    shutil.rmtree(f"{other.data}/raw")
    shutil.copytree(f"{owner.data}/raw", f"{other.data}/raw")
    return first, second


def test_it_begins_where_destinations_stand_though_the_lost_owner_had_committed_more(
    owner: Node, other: Node
) -> None:
    first, _ = two_commits(owner, other)
    worker = takes_over_at(other, first)
    assert {group.vector for group in worker.groups} == {first}
    assert counted(other) == (10, 10, 0)  # as it was there
    drain(worker)
    assert counted(other) == (20, 15, 5) and other.ids() == [f"m{n}" for n in range(10, 15)]
    assert other.commits()[0].origin == first  # the chain goes on exactly there


def test_a_partition_of_which_nothing_is_known_begins_where_destinations_stand(
    owner: Node, other: Node
) -> None:
    _, second = two_commits(owner, other)
    shutil.rmtree(standby_folder(other.data, OWNER, 0))
    other.accept(*(event(n) for n in range(20, 25)), worker=1)
    worker = takes_over_at(other, second)
    assert worker.restarted == sorted(EVERYTHING)
    drain(worker)
    assert other.ids() == [f"m{n}" for n in range(20, 25)] and other.commits()[0].origin == second


def without_state(owner: Node, other: Node) -> Vector:
    """Of the owner's fifteen events nothing is known but the raw log and where destinations stand."""
    _, second = two_commits(owner, other)
    shutil.rmtree(standby_folder(other.data, OWNER, 0))
    return second


def test_copies_of_what_a_lost_owner_had_seen_are_known_from_the_raw_log(owner: Node, other: Node) -> None:
    """H7, protocol.md §7: ``seen`` is seeded from the raw logs where no state is left."""
    second = without_state(owner, other)
    other.accept(*(event(n) for n in range(3, 25)), worker=1)
    worker = takes_over_at(other, second)
    assert other.reports[0]["vectors"] == []  # they stand nowhere before their ids are read
    drain(worker)
    assert other.ids() == [f"m{n}" for n in range(15, 25)] and other.commits()[0].origin == second
    assert counted(other)[2] == 12
    other.accept(event(1), event(24), worker=1)
    crash(worker)
    drain(other.processor())  # what was read is state
    assert other.ids() == [f"m{n}" for n in range(15, 25)]


def test_a_crash_while_ids_are_read_changes_nothing(owner: Node, other: Node) -> None:
    second = without_state(owner, other)
    other.accept(*(event(n) for n in range(10, 20)), worker=1)
    worker = takes_over_at(other, second)
    assert worker.step() and worker.unseeded
    worker.store._append_pending()
    crash(worker)
    drain(takes_over_at(other, second))
    assert other.ids() == [f"m{n}" for n in range(15, 20)] and counted(other)[2] == 5


def test_ids_of_a_home_that_is_gone_hold_up_nobody_and_are_told(owner: Node, other: Node) -> None:
    second = without_state(owner, other)
    shutil.rmtree(f"{other.data}/raw")
    other.accept(*(event(n) for n in range(10, 20)), worker=1)

    class Gone(Standing):
        def reachable(self, needed: Mapping[WriterId, tuple[Position, Position]]) -> bool:
            return False

    worker = other.processor()
    worker.sources = Gone(other, second)
    worker._begin_again()
    drain(worker)
    assert other.ids() == [f"m{n}" for n in range(10, 20)]
    assert other.reports[0]["seeding"] == {
        "partitions": [],
        "unread_homes": [f"{home_of(w):016x}" for w in second],
    }


def test_a_state_behind_the_destinations_has_a_commit_that_ends_where_they_stand(
    owner: Node, other: Node
) -> None:
    worker = owner.processor()
    owner.accept(*(event(n) for n in range(10)))
    drain(worker)
    keep(owner, other)
    owner.accept(*(event(n) for n in range(5, 15)))
    drain(worker)  # the standby never hears of it
    stood = worker.groups[0].vector
    owner.accept(*(event(n) for n in range(12, 20)))
    crash(worker)
    shutil.rmtree(f"{other.data}/raw")
    shutil.copytree(f"{owner.data}/raw", f"{other.data}/raw")
    worker = takes_over_at(other, stood)
    drain(worker)
    assert stood in {commit.target for commit in other.commits()}
    assert counted(other) == (28, 20, 8)


def test_what_destinations_were_given_of_a_partition_without_state_counts_and_is_marked(
    owner: Node, other: Node
) -> None:
    _, second = two_commits(owner, other)
    shutil.rmtree(standby_folder(other.data, OWNER, 0))

    class Given(Standing):
        def given(
            self, partitions: Sequence[int], stood: Mapping[int, Vector]
        ) -> Mapping[int, Mapping[str, int]]:
            return {p: {"web": 3} for p in partitions if p < 5}

    worker = other.processor()
    worker.sources = Given(other, second)
    worker._begin_again()
    other.accept(*(event(n) for n in range(20, 25)), worker=1)
    drain(worker)
    assert counted(other) == (20, 20, 0)
    assert other.reports[0]["counters"][RESTARTED]["in"] == 8
    crash(worker)
    assert counted_again(other) == (20, 20, 0)  # the mark and the counters are state


def counted_again(node: Node) -> tuple[int, int, int]:
    crash(node.processor())
    assert node.reports[0]["counters"][RESTARTED]["in"] == 8
    return counted(node)
