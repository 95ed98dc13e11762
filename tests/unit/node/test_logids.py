"""The greatest log id is found wherever it stands; what cannot be read says nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.rng import SeededRng
from headwater.node import logids
from headwater.node.folder import make_folder
from headwater.process.state import Saved

DISK = SystemDisk()
HIGH = 1 << 62
BEYOND = Vector({WriterId(1 << 16): Position(HIGH, 5), WriterId(2 << 16): Position(3, 9)})


def write(path: Path, data: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def deliverer(path: Path, vectors: dict[str, list[int]], ready: dict[str, tuple[int, int]]) -> None:
    state = {"format": 1, "pipeline": "p", "vectors": vectors, "ready": ready}
    write(path / "state/deliver-x/state.json", msgspec.json.encode(state))


def processor(path: Path, ready: tuple[int, int], vectors: dict[int, bytes]) -> None:
    write(path / "state/0/fold", msgspec.msgpack.encode(Saved(ready, vectors, {})))


PLACES = {
    "raw log": lambda path: write(path / f"raw/{1 << 16:016x}/{HIGH:016x}.end"),
    "ready log": lambda path: write(path / f"ready/0/{HIGH:016x}-{0:016x}.seg"),
    "processor's vector": lambda path: processor(path, (7, 1), {3: BEYOND.encode()}),
    "processor's ready position": lambda path: processor(path, (HIGH, 1), {}),
    "deliverer's vector": lambda path: deliverer(path, {BEYOND.encode().hex(): [0, 1]}, {}),
    "deliverer's ready position": lambda path: deliverer(path, {}, {"0": (HIGH, 4)}),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_in_every_place(tmp_path: Path, place: str) -> None:
    make_folder(str(tmp_path), DISK, SeededRng(1))
    assert logids.greatest(str(tmp_path), DISK) == 0
    PLACES[place](tmp_path)
    assert logids.greatest(str(tmp_path), DISK) == HIGH


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    make_folder(str(tmp_path), DISK, SeededRng(1))
    write(tmp_path / "state/0/fold", b"\x00")
    write(tmp_path / "state/deliver-x/state.json", b"{")
    write(tmp_path / "state/deliver-y/state.json", b'{"format":1,"pipeline":"p","vectors":{"xy":[1]}}')
    assert logids.greatest(str(tmp_path), DISK) == 0


def test_a_vector_names_unknown_logs_of_its_own_folder_only(tmp_path: Path) -> None:
    folder = make_folder(str(tmp_path), DISK, SeededRng(1))
    folder.know_log_id(50)
    unknown = logids.unknown_to(str(tmp_path), DISK)
    own, other = folder.writer(3), WriterId(folder.writer(3) ^ (1 << 40))
    assert not unknown(Vector({own: Position(50, 9)}))
    assert unknown(Vector({own: Position(51, 0)}))
    assert not unknown(Vector({other: Position(51, 0)}))
    folder.know_log_id(51)
    assert not unknown(Vector({own: Position(51, 0)}))
