"""Copies are the same bytes, or an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headwater.kit import copies
from headwater.kit.errors import Unavailable


@pytest.fixture(params=["kernel", "by hand"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file system can."""

    def cannot(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "not here")

    if request.param == "by hand":
        monkeypatch.setattr(os, "copy_file_range", cannot)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 1, copies.CHUNK_BYTES + 1])
def test_a_copy_is_the_same(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(os.urandom(64) * (size // 64 + 1))
    os.truncate(tmp_path / "a", size)
    copies.copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copies.copy_file(str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_file_that_changes_meanwhile_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "cloned", lambda reading, writing: False)
    (tmp_path / "a").write_bytes(b"1234")

    def change() -> None:
        (tmp_path / "a").write_bytes(b"12345")

    with pytest.raises(Unavailable) as error:
        copies.copy_file(str(tmp_path / "a"), str(tmp_path / "b"), between=change)
    assert error.value.code == "copy_changed"


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="cannot be read"):
        copies.copy_sqlite(str(tmp_path / "a"), str(tmp_path / "b"))
