"""One file out of a data folder, and a data folder out of it: whole, or not at all."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from headwater.config.running import NodeInfo, node_path, write_private
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from headwater.kit.rng import SeededRng
from headwater.kit.simulate.clock import SimClock, Time
from headwater.node import archive, logids, restore
from headwater.node.backup import Backup
from headwater.node.folder import Folder, log_id_at, open_folder, take_lock
from tests.unit.node.data_folder import CLOCK, DISK, Logged, numbers


def quiet(what: str, done: int, whole: int) -> None:
    pass


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    made = Logged(tmp_path / "data")
    made.write(6)
    made.writer.close()
    Path(made.data, "keys/web.secret").write_text("secret")
    Path(made.data, "keys/web.secret").chmod(0o600)
    return made


def back_up(logged: Logged, name: str = "backup.tar.zst") -> str:
    return Backup(logged.data, DISK, CLOCK).make(f"{os.path.dirname(logged.data)}/{name}").path


def restored(path: str, data: Path) -> Folder:
    restore.restore(path, str(data), DISK, CLOCK, quiet)
    return open_folder(str(data), DISK)


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.zst"])
def test_what_is_restored_is_what_was_backed_up(logged: Logged, tmp_path: Path, name: str) -> None:
    path = back_up(logged, name)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    folder = restored(path, tmp_path / "other")
    assert (folder.identity.folder_id, folder.identity.secret) == (
        logged.folder.identity.folder_id,
        logged.folder.identity.secret,
    )
    secret = tmp_path / "other/keys/web.secret"
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("secret", 0o600)
    assert numbers(str(tmp_path / "other")) == list(range(6))
    assert not os.path.exists(f"{logged.data}/run/backup/{os.getpid()}")


def test_it_is_as_large_as_what_is_in_it(logged: Logged) -> None:
    assert os.path.getsize(back_up(logged, "backup.tar")) < 64 * 1024
    assert os.path.getsize(back_up(logged)) < 4 * 1024


def test_a_folder_as_target_gets_a_file_with_folder_and_time_in_its_name(
    logged: Logged, tmp_path: Path
) -> None:
    (tmp_path / "backups").mkdir()
    path = back_up(logged, "backups")
    assert path.startswith(f"{tmp_path}/backups/headwater-{logged.folder.identity.folder_id}-20")
    assert path.endswith("Z.tar.zst")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("there.tar", "backup_exists"),
        ("backup.zip", "backup_name"),
        ("none/backup.tar", "backup_place"),
        ("data/backup.tar", "backup_inside"),
    ],
)
def test_a_target_that_cannot_be_is_refused(logged: Logged, tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "there.tar").write_text("mine")
    with pytest.raises(Rejected) as error:
        back_up(logged, name)
    assert (error.value.code, (tmp_path / "there.tar").read_text()) == (code, "mine")
    assert not list(tmp_path.rglob("*.part"))


def test_a_target_that_appears_meanwhile_stays(logged: Logged, tmp_path: Path) -> None:
    making = Backup(logged.data, DISK, CLOCK, lambda *told: (tmp_path / "backup.tar").write_text("mine"))  # type: ignore[arg-type]
    with pytest.raises(Rejected) as error:
        making.make(str(tmp_path / "backup.tar"))
    assert (error.value.code, (tmp_path / "backup.tar").read_text()) == ("backup_exists", "mine")


def test_what_a_backup_left_that_was_killed_is_used_again_and_one_that_runs_is_not(
    logged: Logged, tmp_path: Path
) -> None:
    part = tmp_path / "backup.tar.part"
    part.write_bytes(b"x" * 1_000_000)
    with part.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Rejected, match="another backup writes"):
            back_up(logged, "backup.tar")
    assert part.stat().st_size == 1_000_000
    assert os.path.getsize(back_up(logged, "backup.tar")) < 1_000_000
    assert not part.exists()


def test_the_folder_of_a_stopped_node_is_let_go_when_the_snapshot_is_there(
    logged: Logged, tmp_path: Path
) -> None:
    locked: list[str] = []

    def look(what: str, done: int, whole: int) -> None:
        take_lock(logged.data, CLOCK, 0.0).release()
        locked.append(what)

    Backup(logged.data, DISK, CLOCK, look).make(str(tmp_path / "backup.tar"))
    assert "packing" in locked


def test_a_node_that_does_not_come_to_an_end_with_starting_is_not_backed_up(
    logged: Logged, tmp_path: Path
) -> None:
    """While it recovers, the watermarks of its former logs may be old."""
    logged.folder.count_start()
    Path(logged.data, "run/config.json").write_text("{}")
    told = NodeInfo(
        pid=1, start=0, version="", folder_id="", partitions=64, started_wall_ns=0, collector="", ops="",
        configuration="",
    )  # fmt: skip
    write_private(node_path(logged.data), told)
    lock = take_lock(logged.data, CLOCK)
    with pytest.raises(Unavailable, match="starting or stopping"):
        Backup(logged.data, DISK, SimClock(Time())).make(str(tmp_path / "backup.tar"))
    lock.release()


# -- restoring


def refused(path: str | Path, data: Path) -> HeadwaterError:
    """The error of a restore, which leaves nothing behind."""
    before = sorted(data.rglob("*")) if data.exists() else None
    with pytest.raises(HeadwaterError) as error:
        restore.restore(str(path), str(data), DISK, CLOCK, quiet)
    assert (sorted(data.rglob("*")) if data.exists() else None) == before
    return error.value


def test_a_folder_that_is_not_empty_is_refused(logged: Logged, tmp_path: Path) -> None:
    path = back_up(logged)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine").write_text("mine")
    error = refused(path, tmp_path / "other")
    assert isinstance(error, Misconfigured)
    assert "it holds mine" in error.message
    (tmp_path / "other/mine").unlink()
    (tmp_path / "other/.restoring").mkdir()  # a restore that was killed left this
    (tmp_path / "other/.restoring/headwater.json").write_text("half")
    assert restored(path, tmp_path / "other").id == logged.folder.id
    assert not (tmp_path / "other/.restoring").exists()


def contents(path: str | Path) -> tuple[archive.Manifest, dict[str, bytes]]:
    """All of a backup."""
    found: dict[str, bytes] = {}

    def take(name: str, size: int, mode: int, pieces: Iterator[bytes]) -> None:
        found[name] = b"".join(pieces)

    return archive.read(str(path), take), found


def test_every_wrong_byte_is_found(logged: Logged, tmp_path: Path) -> None:
    """Data, names, head and manifest of a plain backup, which has no checksum but ours."""
    path = back_up(logged, "backup.tar")
    right, whole = contents(path), Path(path).read_bytes()
    with tarfile.open(path) as tar:
        entries = {entry.name: entry for entry in tar}
    manifest = entries[archive.MANIFEST]
    end = manifest.offset_data + manifest.size
    wrong = tmp_path / "wrong.tar"
    found = 0
    for at in [*range(0, manifest.offset, 257), *range(manifest.offset_data, end, 23)]:
        wrong.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
        try:
            told = contents(wrong)
        except Rejected as error:
            found += 1
            assert error.code in ("backup_damaged", "backup_torn", "backup_foreign", "backup_format"), at
        else:
            assert told == right, f"byte {at} was changed, and nobody saw it"
    assert found > 100


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.zst"])
def test_a_torn_backup_is_refused_wherever_it_was_torn(logged: Logged, tmp_path: Path, name: str) -> None:
    whole = Path(back_up(logged, name)).read_bytes()
    after = (
        len(whole) - 8
    )  # the end of the zstd frame and its checksum: all that it protects is known by then
    if name == "backup.tar":
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            after = max(entry.offset_data + entry.size for entry in tar)
    torn = tmp_path / f"torn-{name}"
    for length in range(0, after, after // 40):
        torn.write_bytes(whole[:length])
        error = refused(torn, tmp_path / "other")
        assert error.code in ("backup_torn", "backup_foreign", "backup_damaged"), (length, str(error))
        assert error.code == "backup_torn" or length < 2000, (length, str(error))


def made(path: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """A tar of our own."""
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind if name.startswith("data") else tarfile.REGTYPE
            entry.linkname = "/etc/passwd"
            tar.addfile(entry, io.BytesIO(data))
    return path


def head(**changed: object) -> bytes:
    known: dict[str, object] = {
        "headwater_backup": archive.FORMAT, "version": "9.9", "folder_id": "0" * 16, "began_ns": 0,
    }  # fmt: skip
    return msgspec.json.encode({**known, **changed})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "other"
    for content in (b"", b"text", b"\x1f\x8b", zstandard.compress(b"text")):
        (tmp_path / "x").write_bytes(content)
        assert refused(tmp_path / "x", data).code in ("backup_foreign", "backup_torn"), content
    assert refused(made(tmp_path / "x.tar", ("readme", b"x")), data).code == "backup_foreign"
    assert refused(tmp_path / "none", data).code == "backup_unreadable"
    assert refused(tmp_path, data).code == "backup_unreadable"


def test_a_backup_of_a_later_format_names_the_version(tmp_path: Path) -> None:
    error = refused(made(tmp_path / "x.tar", (archive.HEAD, head(headwater_backup=2))), tmp_path / "other")
    assert (error.code, "Headwater 9.9" in error.help) == ("backup_format", True)


@pytest.mark.parametrize("name", ["data/../../x", "data//etc/x", "/etc/x", "data/", "data/a/./b", "other"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    error = refused(made(tmp_path / "x.tar", (archive.HEAD, head()), (name, b"x")), tmp_path / "a/b/other")
    assert error.code == "backup_damaged"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_nothing_but_files_is_taken(tmp_path: Path, kind: bytes) -> None:
    path = made(tmp_path / "x.tar", (archive.HEAD, head()), ("data/x", b""), kind=kind)
    assert refused(path, tmp_path / "other").code == "backup_damaged"


def with_member(path: Path, member: bytes) -> Path:
    """A tar of our own with a member byte by byte behind its head."""
    made(path, (archive.HEAD, head()))
    path.write_bytes(path.read_bytes()[:1024] + member + bytes(1024))
    return path


def test_a_member_that_says_that_it_is_sparse_is_not_unpacked(tmp_path: Path) -> None:
    """A kibibyte would fill any disk."""
    entry = tarfile.TarInfo("data/x")
    entry.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + (1 << 42).to_bytes(11, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    assert (
        refused(with_member(tmp_path / "x.tar", bytes(header)), tmp_path / "other").code == "backup_damaged"
    )


def test_a_header_that_is_no_number_is_told_like_other_damage(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("data/x")
    entry.pax_headers = {"GNU.sparse.map": "abcd"}
    path = with_member(tmp_path / "x.tar", entry.tobuf(tarfile.PAX_FORMAT))
    assert refused(path, tmp_path / "other").code == "backup_torn"


# -- positions


class Epoch(SystemClock):
    """A clock that was never set."""

    def wall_ns(self) -> int:
        return 0


def next_ids(folder: Folder) -> list[int]:
    """Log ids that a folder hands out when the clock stands in 1970."""
    rng = SeededRng(3)
    return [folder.next_log_id(Epoch(), rng) for _ in range(50)]


def test_inv_log_3_a_restored_folder_gives_no_position_again_whatever_its_clock_says(
    logged: Logged, tmp_path: Path
) -> None:
    """Its original went on after the backup, for weeks; both clocks stand in 1970 from then on."""
    path = back_up(logged)
    lost_future = next_ids(logged.folder)
    logged.folder.know_log_id(lost_future[-1] + log_id_at(30 * restore.DAY_NS))
    lost_future += next_ids(logged.folder)
    restore.restore(path, str(tmp_path / "other"), DISK, Epoch(), quiet)
    folder = open_folder(str(tmp_path / "other"), DISK)
    assert min(next_ids(folder)) > max(lost_future)
    assert logids.greatest(folder.path, DISK) == 9


def test_inv_log_3_one_backup_that_is_restored_twice_gives_two_futures(
    logged: Logged, tmp_path: Path
) -> None:
    path = back_up(logged)
    first = next_ids(restored(path, tmp_path / "first"))
    assert next_ids(restored(path, tmp_path / "second"))[0] > first[0]
