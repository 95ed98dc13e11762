"""The snapshot of a data folder, while it goes on being written to."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.kit.errors import Misconfigured
from headwater.log import files
from headwater.node import hold, snapshot
from headwater.node.snapshot import Snapshot
from tests.unit.node.data_folder import CLOCK, DISK, SEGMENT_BYTES, Logged, numbers


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    made = Logged(tmp_path / "data")
    yield made
    made.writer.close()


@pytest.fixture
def place(logged: Logged) -> Iterator[str]:
    with snapshot.place(logged.data, DISK) as path:
        yield path


def running(logged: Logged, place: str) -> Snapshot:
    return Snapshot(logged.data, place, DISK, CLOCK, stopped=False)


def laid_out(held: Snapshot, target: Path) -> str:
    """The data folder that would be restored."""
    for item in held.items.values():
        path = target / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(item.source).read_bytes()[: item.size])
        assert path.stat().st_size == item.size
    return str(target)


def test_a_log_that_grows_is_taken_up_to_its_watermark(logged: Logged, place: str, tmp_path: Path) -> None:
    logged.write(6)
    held = running(logged, place)
    held.link_logs()
    held.note_logs()
    logged.write(7)
    facts = held.finish()
    assert facts.events == 6
    assert numbers(laid_out(held, tmp_path / "other")) == list(range(6))


def test_what_a_recycled_segment_held_before_is_not_taken(logged: Logged, place: str) -> None:
    logged.write(9)
    logged.retire(8)
    logged.write(4)  # its last segment was the first one, and is full of older blocks
    held = running(logged, place)
    held.note_logs()
    held.finish()
    sizes = [item.size for path, item in sorted(held.items.items()) if path.endswith(".seg")]
    assert sizes == [SEGMENT_BYTES, 4096]


def test_a_segment_that_a_backup_holds_is_removed_and_never_written_over(
    logged: Logged, place: str, tmp_path: Path
) -> None:
    logged.write(10)
    held = running(logged, place)
    held.link_logs()
    held.note_logs()
    logged.retire(8)
    assert not files.spares(DISK, logged.folder.raw(0))
    logged.write(20)
    held.finish()
    assert numbers(laid_out(held, tmp_path / "other")) == list(range(10))


def test_a_gap_that_the_node_gave_back_is_no_damage(logged: Logged, place: str, tmp_path: Path) -> None:
    logged.write(6)
    held = running(logged, place)
    held.link_logs()  # knows the segments of 0 and 4
    logged.write(8)
    logged.retire(12)  # 8 has come and gone meanwhile
    assert logged.segments() == [12]
    held.note_logs()
    held.finish()
    assert numbers(laid_out(held, tmp_path / "other")) == [12, 13]


def test_what_the_node_gave_back_is_kept_where_it_follows(logged: Logged, place: str, tmp_path: Path) -> None:
    logged.write(6)
    held = running(logged, place)
    held.link_logs()
    logged.write(4)
    logged.retire(8)
    held.note_logs()
    held.finish()
    assert numbers(laid_out(held, tmp_path / "other")) == list(range(10))


def test_damage_stays_what_it_is(logged: Logged, place: str, tmp_path: Path) -> None:
    logged.write(10)
    logged.end()
    with open(files.segment_path(logged.folder.raw(0), 9, 4), "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    held = running(logged, place)
    held.note_logs()
    held.finish()
    assert numbers(laid_out(held, tmp_path / "other")) == [0, 1, 2, 3, 4, -1, 6, 7, 8, 9]


def test_a_stopped_log_without_an_end_is_not_cut_at_an_old_watermark(
    logged: Logged, place: str, tmp_path: Path
) -> None:
    """A crash of the machine: the watermark, which is never synced, is older than the blocks, and one is torn."""
    logged.write(6)
    logged.writer.close()
    with open(files.segment_path(logged.folder.raw(0), 9, 4), "r+b") as file:
        file.seek(2 * 4096)
        file.write(b"HWB1 torn" * 500)
    Path(files.watermark_path(logged.folder.raw(0), 9)).write_bytes((2).to_bytes(8, "little"))
    held = Snapshot(logged.data, place, DISK, CLOCK, stopped=True)
    held.note_logs()
    assert held.finish().events == 6
    logged.end()  # a start meanwhile cuts the segment
    assert numbers(laid_out(held, tmp_path / "other")) == list(range(6))


def test_nothing_is_given_back_while_links_are_made(logged: Logged) -> None:
    with hold.linking(logged.data, CLOCK), hold.retiring(logged.data) as may:
        assert not may
    with hold.retiring(logged.data) as may, hold.retiring(logged.data) as another:
        assert may and another


def test_the_state_of_a_processor_is_taken_with_what_sqlite_holds_at_that_moment(
    logged: Logged, place: str
) -> None:
    state = Path(logged.data, "state/0")
    (state / "ids").mkdir(parents=True)
    (state / "spill").mkdir()
    for name in ("fold", "ids/0.run", "spill/x", "fold.tmp"):
        (state / name).write_bytes(b"bytes")
    base = sqlite3.connect(state / "dead.sqlite", isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute("create table dead(x)")
    base.execute("insert into dead values (1)")  # in the write-ahead log only
    held = running(logged, place)
    held.note_logs()
    base.close()
    assert sorted(p for p in held.items if p.startswith("state/")) == [
        "state/0/dead.sqlite", "state/0/fold", "state/0/ids/0.run",
    ]  # fmt: skip
    copied = sqlite3.connect(held.items["state/0/dead.sqlite"].source)
    assert copied.execute("select x from dead").fetchall() == [(1,)]
    copied.close()


def test_everything_else_is_taken_but_what_only_a_running_node_needs(logged: Logged, place: str) -> None:
    for name in (
        "geo.mmdb",
        "keys/web.secret",
        "old/second.duckdb",
        "run/node.json",
        "lock",
        "x.tmp",
        "mirror/x/1.seg",
    ):
        path = Path(logged.data, name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(name)
    Path(logged.data, "keys/web.secret").chmod(0o600)
    held = running(logged, place)
    held.note_rest(lambda path: False)
    held.finish()
    assert sorted(held.items) == ["geo.mmdb", "headwater.json", "keys/web.secret", "old/second.duckdb"]
    assert held.items["keys/web.secret"].mode == 0o600


def test_copies_that_do_not_fit_beside_the_node_are_refused_before_they_begin(
    logged: Logged, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(logged.data, "warehouse.duckdb").write_bytes(bytes(1000))
    held = running(logged, place)
    held.check_room([])
    monkeypatch.setattr(DISK, "free_bytes", lambda path: snapshot.ROOM_LEFT_BYTES)
    monkeypatch.setattr(held, "shares", lambda: False)
    with pytest.raises(Misconfigured) as error:
        held.check_room([])
    assert error.value.code == "backup_room"


def test_a_snapshot_of_a_dead_process_is_swept_and_one_of_a_living_one_is_not(
    logged: Logged, place: str
) -> None:
    dead = Path(logged.data, snapshot.PLACE, "1")
    dead.mkdir()
    (dead / "x").write_text("x")
    snapshot.sweep(logged.data)
    assert not dead.exists()
    assert Path(place).exists()
    with hold.locked_folder(place) as other:
        assert not hold.taken(other, fcntl.LOCK_EX)


def test_a_segment_that_gets_another_form_while_it_is_linked_is_not_missed(
    logged: Logged, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What replaces segments need not know of the lock: the folder is listed again."""
    logged.write(6)
    first, listed = files.segment_path(logged.folder.raw(0), 9, 0), DISK.listdir
    other = files.segment_path(logged.folder.raw(0), 8, 0)

    def replaced(path: str) -> list[str]:
        names = listed(path)
        if path == logged.folder.raw(0) and os.path.exists(first):
            os.rename(first, other)
        return names

    monkeypatch.setattr(DISK, "listdir", replaced)
    running(logged, place).link_logs()
    names = sorted(name for name in os.listdir(f"{place}/data/{logged.part}"))
    assert [os.path.basename(other), os.path.basename(files.segment_path("", 9, 4))] == names


def test_a_segment_that_is_compressed_meanwhile_is_not_taken_for_given_back(
    logged: Logged, place: str, tmp_path: Path
) -> None:
    """Though a later one is damaged, behind which what was given back is left out."""
    logged.write(10)
    logged.end()
    raw = logged.folder.raw(0)
    with open(files.segment_path(raw, 9, 4), "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    held = running(logged, place)
    held.note_logs()
    os.rename(files.segment_path(raw, 9, 0), files.segment_path(raw, 9, 0) + "z")
    held.finish()
    assert numbers(laid_out(held, tmp_path / "other")) == [0, 1, 2, 3, 4, -1, 6, 7, 8, 9]
