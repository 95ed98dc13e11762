"""The DuckDB adapter against faults: unknown outcomes, other programs, files that are gone or strange."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from tests.chains import ListChain, chain

PARTITIONS = (0, 1, 2, 3)


def code(one: Deliverer) -> str | None:
    """Why it is paused."""
    return one.trouble.code if one.trouble is not None else None


class Cut(DuckDbDestination):
    """Loses its connection at a COMMIT, before or after it takes effect."""

    cuts: tuple[str, ...] = ()

    def commit(self) -> None:
        cut, self.cuts = (self.cuts[0], self.cuts[1:]) if self.cuts else ("", ())
        if cut != "before":
            super().commit()
        if cut:
            raise duckdb.FatalException("the connection is gone")


def destination(folder: Path) -> Cut:
    return Cut(DuckDbSettings(), str(folder / "w.duckdb"), str(folder), SystemClock())


def deliverer(folder: Path, made: DuckDbDestination, ready: ListChain) -> Deliverer:
    return Deliverer(
        "warehouse",
        made,
        {"0": ready.open},
        Memory(SystemDisk(), str(folder / "state.json"), "c/warehouse/main"),
        DeadLetters(str(folder / "dead.sqlite"), "warehouse"),
        DuckDbSettings(load_rows=10, retry_interval_s=0.01, load_interval_min_ms=0, load_interval_max_ms=0),
        SystemClock(),
        partitions=len(PARTITIONS),
        owner="me",
        node_ns=SystemClock().boot_ns,
        layouts={"events": pa.schema([("message_id", pa.string()), ("_hw_seq", pa.uint64())])},
    )


def run(one: Deliverer, rounds: int = 60) -> None:
    for _ in range(rounds):
        one.retry_ns = 0
        one.round()


def ids(folder: Path) -> list[str]:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as base:
        return [name for (name,) in base.execute("select message_id from events order by _hw_seq").fetchall()]


@pytest.mark.parametrize("cuts", [("before",), ("after",), ("after", "before", "", "after")])
def test_inv_dst_1_commit_with_an_unknown_outcome(tmp_path: Path, cuts: tuple[str, ...]) -> None:
    """INV-DST-1: COMMIT fails though it took effect, or did not; the position row tells which."""
    made, ready = destination(tmp_path), ListChain(chain([10, 10, 10, 5], PARTITIONS))
    made.cuts = cuts
    one = deliverer(tmp_path, made, ready)
    run(one)
    assert one.counters["unknown"] == sum(map(bool, cuts))
    one.close()
    assert ids(tmp_path) == [f"m{n}" for n in range(35)]


def test_inv_dst_1_a_second_writer_of_the_same_file_is_moved(tmp_path: Path) -> None:
    """INV-DST-1: two deliverers of one chain over two connections of one file."""
    ready = ListChain(chain([10, 10, 10], PARTITIONS))
    (tmp_path / "b").mkdir()
    first, second = destination(tmp_path), destination(tmp_path)
    a, b = deliverer(tmp_path, first, ready), deliverer(tmp_path / "b", second, ready)
    first.open(create=True)
    second.base, second.inode = first.cursor(), first.inode
    for _ in range(20):
        run(a, 1)
        run(b, 1)
    assert a.counters["moved"] + b.counters["moved"] > 0
    a.close()
    b.close()
    assert ids(tmp_path) == [f"m{n}" for n in range(30)]


def test_the_table_is_there_before_the_first_row(tmp_path: Path) -> None:
    made = destination(tmp_path)
    run(deliverer(tmp_path, made, ListChain()), 1)
    made.close()
    assert ids(tmp_path) == []


def test_a_file_that_vanishes_while_open_pauses(tmp_path: Path) -> None:
    made, ready = destination(tmp_path), ListChain(chain([10], PARTITIONS))
    one = deliverer(tmp_path, made, ready)
    run(one)
    (tmp_path / "w.duckdb").rename(tmp_path / "aside")
    (tmp_path / "w.duckdb.wal").rename(tmp_path / "aside.wal")
    ready.entries += chain([10], PARTITIONS, 10)
    run(one)
    assert code(one) == "destination_missing"
    assert not (tmp_path / "w.duckdb").exists()
    (tmp_path / "aside").rename(tmp_path / "w.duckdb")
    if (tmp_path / "aside.wal").exists():
        (tmp_path / "aside.wal").rename(tmp_path / "w.duckdb.wal")
    run(one)
    assert code(one) is None
    one.close()
    assert ids(tmp_path) == [f"m{n}" for n in range(20)]


def test_a_table_that_refuses_rows_gets_the_others(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as base:
        base.execute("create table events (message_id varchar check (message_id not in ('m3', 'm17')))")
    ready = ListChain(chain([10, 10], PARTITIONS))
    one = deliverer(tmp_path, destination(tmp_path), ready)
    run(one)
    assert one.counters["refused"] == 2
    assert one.dead.count() == 2
    total = [row.total for row in (one.rows or {}).values()]
    assert sum(t.dead for t in total) == 2
    assert sum(t.rows for t in total) == 18
    one.close()
    assert ids(tmp_path) == [f"m{n}" for n in range(20) if n not in (3, 17)]


def test_it_opens_again_while_a_reader_still_reads(tmp_path: Path) -> None:
    made, ready = destination(tmp_path), ListChain(chain([10], PARTITIONS))
    one = deliverer(tmp_path, made, ready)
    run(one)
    ended: list[BaseException] = []
    begun = threading.Event()

    def read() -> None:
        begun.set()
        try:
            made.sql.query(LONG, time_max_s=3)
        except HeadwaterError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    begun.wait()
    SystemClock().block(0.1)
    made.close()
    ready.entries += chain([10], PARTITIONS, 10)
    run(one)
    assert code(one) is None
    assert made.sql.query("select count(*) n from events").rows.to_pylist() == [{"n": 20}]
    with pytest.raises(Rejected):
        made.sql.query("from read_text('/etc/hostname')")
    reader.join()
    assert len(ended) == 1
    one.close()


def test_refused_rows_are_kept_from_another_thread(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as base:
        base.execute("create table events (message_id varchar check (message_id <> 'm3'))")
    one = deliverer(tmp_path, destination(tmp_path), ListChain(chain([10], PARTITIONS)))
    thread = threading.Thread(target=run, args=(one,))
    thread.start()
    thread.join()
    assert one.dead.count() == 1
    assert code(one) is None
    one.close()


LONG = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"
HOLD = "import duckdb, sys; base = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def test_a_file_that_another_program_holds_is_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        one = deliverer(tmp_path, destination(tmp_path), ListChain(chain([10], PARTITIONS)))
        run(one, 3)
        assert code(one) == "file_locked"
        assert isinstance(one.trouble, Misconfigured)
        other.stdin.close()
        other.wait(10)
    run(one)
    assert code(one) is None
    one.close()
    assert len(ids(tmp_path)) == 10


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_bytes(b"x" * 5000)
    one = deliverer(tmp_path, destination(tmp_path), ListChain(chain([10], PARTITIONS)))
    run(one, 3)
    assert code(one) == "file_version"
    one.close()
    assert (tmp_path / "w.duckdb").read_bytes() == b"x" * 5000


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    made = DuckDbDestination(
        DuckDbSettings(), str(tmp_path / "no" / "w.duckdb"), str(tmp_path), SystemClock()
    )
    with pytest.raises(Misconfigured) as raised:
        made.open(create=True)
    assert raised.value.code == "file_missing"
    with pytest.raises(Unavailable):
        made.positions("x")
