"""Private runs give what the chain gave, from any place to any later one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId, writer_id
from headwater.kit.errors import Unavailable
from headwater.kit.rng import SeededRng
from headwater.log import recover
from headwater.process import idruns
from headwater.process.dedupe import Seen
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Gatherer
from headwater.process.private import PrivateRun
from headwater.process.read import Reader
from headwater.process.run import Runner
from headwater.process.schema import LearnedSchema
from headwater.process.shape import Shaper
from tests.unit.process.test_worker import FOLDER_ID, SECRET, Node, crash, drain, event

EVERY = tuple(range(8))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def private(
    node: Node,
    origin: Vector,
    until: Vector,
    partitions: Sequence[int] = EVERY,
    bytes_max: int = 1 << 20,
    id_folders: Sequence[str] = (),
) -> PrivateRun:
    schema = LearnedSchema(f"{node.data}/schema.ndjson", columns_max=100)
    dialect: Any = SimpleNamespace(plain=True, default_type=lambda head: "track", split=None)
    runner = Runner(
        Gatherer(lambda name: dialect), Reader(schema, depth_max=3), Shaper(EnrichSettings(), schema),
        owned=partitions, partitions=8, damage_here=False,
    )  # fmt: skip
    return PrivateRun(
        node.disk, f"{node.data}/raw", SECRET, node.clock, runner,
        Seen(partitions=8, memory_bytes=1 << 20, window_s=3600),
        partitions=partitions, origin=origin, until=until, id_folders=id_folders,
        now=lambda: (node.start(), node.clock.boot_ns()), bytes_max=bytes_max, config_epoch=1,
    )  # fmt: skip


def run(one: PrivateRun) -> list[Commit]:
    commits = []
    for _ in range(1000):
        if one.ended:
            break
        commit = one.advance()
        if commit is not None:
            commits.append(commit)
    assert one.ended
    one.close()
    return commits


def rows_of(commits: Sequence[Commit], partitions: Sequence[int] = EVERY) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for commit in commits:
        if "rows:events" in commit.sections:
            found += pa.ipc.open_stream(commit.sections["rows:events"]).read_all().to_pylist()
    return sorted(
        (r for r in found if r["_hw_partition"] in partitions),
        key=lambda r: r["_hw_seq"] + 1e9 * (r["_hw_writer"] % 7),
    )


def state_folders(node: Node) -> list[str]:
    return [f"{node.data}/state/{number}" for number in range(node.workers)]


@pytest.mark.parametrize("from_runs", [False, True], ids=["ids of the raw log", "ids of the runs"])
def test_between_any_two_commits_the_run_gives_what_the_chain_gave(node: Node, from_runs: bool) -> None:
    """INV-DEST, INV-STATE: copies of an id fall anywhere."""
    rng = SeededRng(5)
    worker = node.processor()
    for _ in range(12):
        for collector in (0, 1):
            some = [event(rng.below(40), n=rng.below(9)) for _ in range(1 + rng.below(5))]
            node.accept(*some, worker=collector)
        drain(worker)
    worker.store.save(worker.fold)
    folders = state_folders(node) if from_runs else []
    chain = node.commits()
    ends = [EMPTY, *(c.target for c in chain)]
    for first in range(len(ends)):
        for last in range(first, len(ends)):
            partitions = (EVERY, (1, 3, 4), (7,))[rng.below(3)]
            made = run(
                private(node, ends[first], ends[last], partitions, (1, 5000, 1 << 20)[rng.below(3)], folders)
            )
            assert rows_of(made, partitions) == rows_of(chain[first:last], partitions)
            at = ends[first]
            for commit in made:
                assert commit.origin == at and commit.partitions == partitions
                at = commit.target
            assert at == ends[last]


def two_commits(node: Node) -> list[Commit]:
    """Event 1, then a copy of it and event 2; the ids of both commits are in a run."""
    worker = node.processor()
    node.accept(event(1))
    drain(worker)
    node.accept(event(1), event(2))
    drain(worker)
    worker.store.save(worker.fold)
    crash(worker)
    return node.commits()


def test_ids_that_the_runs_hold_are_not_read_from_the_raw_log(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_commits(node)
    monkeypatch.setattr(Runner, "ids", None)  # whoever calls it fails
    one = private(node, first.target, second.target, id_folders=state_folders(node))
    assert [row["message_id"] for row in rows_of(run(one))] == ["m2"]


def test_a_run_of_ids_that_is_damaged_or_gone_is_made_good_from_the_raw_log(node: Node) -> None:
    first, second = two_commits(node)
    (path,) = idruns.paths(f"{node.data}/state/0")
    data = bytearray(Path(path).read_bytes())
    for spoilt in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data[:200], b""):
        Path(path).write_bytes(spoilt)
        one = private(node, first.target, second.target, id_folders=state_folders(node))
        assert [row["message_id"] for row in rows_of(run(one))] == ["m2"]
    for at in (*range(48), *range(48, len(data), 23)):
        Path(path).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        one = private(node, first.target, second.target, id_folders=state_folders(node))
        assert [row["message_id"] for row in rows_of(run(one))] == ["m2"], at


def test_a_run_that_begins_inside_a_commit_reads_only_what_lies_below_it(node: Node) -> None:
    """What a commit added above the origin must not be taken for seen: its events would be lost."""
    worker = node.processor()
    node.accept(event(1), worker=0)
    node.accept(event(2), event(1), worker=1)
    drain(worker)
    worker.store.save(worker.fold)
    (commit,) = node.commits()
    writer = min(commit.target)
    inside = Vector({writer: commit.target[writer]}, commit.origin.clock)
    one = private(node, inside, commit.target, id_folders=state_folders(node))
    assert [row["message_id"] for row in rows_of(run(one))] == ["m2"]


def test_ids_below_the_window_are_not_read(node: Node) -> None:
    worker = node.processor()
    node.accept(event(1))
    drain(worker)
    begin = node.commits()[-1].target
    node.accept(event(1), event(2))
    drain(worker)
    one = private(node, begin, node.commits()[-1].target)
    one.seen.window_minutes = 0
    assert [row["message_id"] for row in rows_of(run(one))] == ["m2"]
    assert not one.incomplete and not one.missing


def test_what_the_raw_log_no_longer_holds_is_counted(node: Node) -> None:
    worker = node.processor()
    node.accept(*(event(n) for n in range(5)))
    drain(worker)
    end = node.commits()[-1].target
    for writer, position in end.items():
        folder = f"{node.data}/raw/{writer:016x}"
        for name in node.disk.listdir(folder):
            if name.endswith(".seg") and name.startswith(f"{position.log:016x}"):
                node.disk.unlink(f"{folder}/{name}")
    assert private(node, EMPTY, end).missing == 5
    assert private(node, end, end).missing == 0


@pytest.mark.parametrize("known", [True, False])
def test_ids_that_only_a_home_has_that_cannot_be_asked_are_told_as_missing(node: Node, known: bool) -> None:
    worker = node.processor()
    node.accept(*(event(n) for n in range(5)))
    drain(worker)
    until = worker.groups[0].vector
    crash(worker)
    away = {WriterId(0x7770000): Position(7, 3)} if not known else {}
    one = private(node, Vector(away), Vector({**dict(until.items()), **away}, until.clock))
    assert len(rows_of(run(one))) == 5
    assert one.incomplete is not known


def test_what_is_given_back_while_a_piece_is_made_breaks_the_run_off(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be left out and counted by nobody."""
    worker = node.processor()
    for n in range(3):  # three logs of one writer
        node.accept(event(n))
        node.collectors.clear()
        recover.recover_all(node.disk, f"{node.data}/raw/{writer_id(FOLDER_ID, 0):016x}", SECRET)
    drain(worker)
    end = node.commits()[-1].target
    one = private(node, EMPTY, end, bytes_max=1)
    plain = Runner.run

    def retired_meanwhile(self: Runner, *arguments: Any) -> Any:
        (folder,) = Path(f"{node.data}/raw").iterdir()
        for path in sorted(folder.glob("*.seg"))[:2]:
            if path.name[0] == "0":
                path.unlink()
        return plain(self, *arguments)

    monkeypatch.setattr(Runner, "run", retired_meanwhile)
    with pytest.raises(Unavailable, match="gave back"):
        run(one)


def test_a_run_of_ids_that_goes_while_they_are_looked_for_is_no_trouble(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_commits(node)
    plain = idruns.paths
    monkeypatch.setattr(
        idruns, "paths", lambda folder, disk: [f"{folder}/ids/gone.run", *plain(folder, disk)]
    )
    one = private(node, first.target, second.target, id_folders=state_folders(node))
    assert [row["message_id"] for row in rows_of(run(one))] == ["m2"]


def test_ids_below_are_sought_when_it_is_known_where_the_stretch_begins(node: Node) -> None:
    """Other nodes' events come later than the run begins: by then a copy must not be taken for the first."""
    worker = node.processor()
    node.accept(*(event(n) for n in range(10)))
    drain(worker)
    origin = worker.groups[0].vector
    node.accept(*(event(n) for n in range(5, 15)))
    drain(worker)
    until = worker.groups[0].vector
    crash(worker)
    there = Path(node.data) / "raw"
    there.rename(there.with_name("not-here-yet"))
    there.mkdir()
    one = private(node, origin, until)
    one.complete = lambda: there.with_name("not-here-yet").exists() is False
    for _ in range(3):
        assert one.advance() is None and not one.ids_done
    there.rmdir()
    there.with_name("not-here-yet").rename(there)
    assert [row["message_id"] for row in rows_of(run(one))] == [f"m{n}" for n in range(10, 15)]
