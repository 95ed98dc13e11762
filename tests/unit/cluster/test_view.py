"""The view file: old or new, never half; read again only when it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.cluster import view
from headwater.cluster.table import NO_TABLE, View
from headwater.cluster.view import ViewReader
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Broken

ALONE = View(me="a", cluster_id="", viable=False, why="nobody", table=NO_TABLE, alive={})
LATER = View(me="a", cluster_id="", viable=False, why="still nobody", table=NO_TABLE, alive={})


def test_a_view_is_none_until_it_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "view")
    reader = ViewReader(SystemDisk(), path)
    assert reader.read() is None
    view.write(SystemDisk(), path, ALONE)
    assert reader.read() == ALONE


def test_a_view_is_decoded_again_only_when_it_changed(tmp_path: Path) -> None:
    path = str(tmp_path / "view")
    reader = ViewReader(SystemDisk(), path)
    view.write(SystemDisk(), path, ALONE)
    first = reader.read()
    view.write(SystemDisk(), path, ALONE)
    assert reader.read() is first
    view.write(SystemDisk(), path, LATER)
    assert reader.read() == LATER
    view.write(SystemDisk(), path, ALONE)
    assert reader.read() == ALONE


def test_a_spoilt_view_is_told_with_its_path_and_the_last_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "view"
    reader = ViewReader(SystemDisk(), str(path))
    view.write(SystemDisk(), str(path), ALONE)
    reader.read()
    path.write_bytes(b"\x81\xa2me\x01")
    with pytest.raises(Broken, match=r"view: not a view: .*me"):
        reader.read()
    assert reader.view == ALONE


def test_no_draft_is_left(tmp_path: Path) -> None:
    view.write(SystemDisk(), str(tmp_path / "view"), ALONE)
    assert [file.name for file in tmp_path.iterdir()] == ["view"]
