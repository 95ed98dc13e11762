"""A warehouse file that is full, locked, missing, or of something else: the destination pauses and says why, the door
stays open, the others go on, and everything lands once when the file is right again.

One node with a destination for each fault. The one that runs full stands on a small file system of its own (tmpfs,
needs root). What `status` says is looked at from outside.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.running import Running, unique, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NAMES = ("full", "locked", "missing", "strange", "gone")
MIB = 1024 * 1024
HOLD = "import duckdb, sys; base = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


class Place:
    """The node, a folder for each destination, and what was acknowledged."""

    def __init__(self, node: Running, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.sent = 0
        self.random = random.Random(20261121)

    def file(self, name: str) -> Path:
        return self.folder / name / "w.duckdb"

    def send(self, count: int, size: int = 10) -> None:
        """Events of which each must be acknowledged, whatever a destination does."""
        while count > 0:
            numbers = range(self.sent, self.sent + min(count, 50))
            batch = [
                {"type": "track", "event": "E", "messageId": f"m{n}",
                 "properties": {"p": self.random.randbytes(size).hex()}}
                for n in numbers
            ]  # fmt: skip
            status, told = self.node.post("/v1/batch", {"batch": batch})
            assert status == 200, told
            self.sent, count = self.sent + len(numbers), count - len(numbers)

    def told(self, name: str) -> dict[str, Any]:
        """What status says about a destination."""
        status = self.node.ask("GET", "/api/status", port=self.node.ops).json
        return dict(status["destinations"].get(name, {}))

    def waits(self, name: str, code: str, words: str, help_: str) -> None:
        """Paused, with the reason in status and in the log, while the door is open and others get their events."""

        def said() -> bool:
            lines = [line for line in self.node.log_text().splitlines() if f'"destination":"{name}"' in line]
            logged = any(f'"code":"{code}"' in line and help_ in line for line in lines)
            return logged and words in json.dumps(self.told(name))

        wait_for(said, 15, lambda: f"{self.told(name)}\n{self.node.log()}", interval_s=0.1)
        assert self.told(name)["state"] == "paused", self.told(name)
        self.send(50)
        assert self.node.status_of(self.node.ops, "/ready") == 200
        self.landed("warehouse")

    def landed(self, name: str) -> None:
        """Until the destination holds each event that was acknowledged, each once."""
        there: list[str] = []

        def all_there() -> bool:
            query = (
                "sql",
                "--json",
                "--limit",
                "1000000",
                "--destination",
                name,
                "select message_id from events",
            )
            done = self.node.command(*query)
            there[:] = [row["message_id"] for row in json.loads(done.stdout)] if done.returncode == 0 else []
            return len(there) >= self.sent

        wait_for(all_there, 40, lambda: f"{self.told(name)}\n{self.node.log()}", interval_s=0.2)
        assert unique(there) == {f"m{n}" for n in range(self.sent)}


@pytest.fixture(scope="module")
def place(
    make_shared_node: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("files")
    for name in NAMES:
        (folder / name).mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=24m", "headwater-test", str(folder / "full")]
    mounted = os.geteuid() == 0 and not subprocess.run(small, capture_output=True, check=False).returncode
    lines = [
        f"  {n}: {{type: duckdb, path: '{folder}/{n}/w.duckdb', retry_interval_s: 0.3}}\n" for n in NAMES
    ]
    node = make_shared_node(more="".join(lines))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / "locked" / "w.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        made = Place(node, folder)
        node.start()
        made.send(100)
        made.waits("locked", "file_locked", "Could not set lock", "close it there")
        other.communicate()
        yield made
    finally:
        other.kill()
        other.communicate()
        node.close()
        if mounted:
            subprocess.run(["umount", "-l", str(folder / "full")], check=False)


def test_a_file_that_another_program_holds_is_waited_for(place: Place) -> None:
    """The fixture holds it while the node starts, and lets go."""
    place.landed("locked")


def test_a_full_file_system_is_waited_for_also_through_a_kill(place: Place) -> None:
    if not place.file("full").parent.is_mount():
        pytest.skip("mounting a small file system needs root")
    place.landed("full")
    ballast = place.folder / "full" / "ballast"
    with ballast.open("wb") as file:
        free = shutil.disk_usage(ballast.parent).free
        file.write(bytes(max(free - 2 * MIB, 0)))
    place.send(300, size=10_000)  # 6 MB of what cannot be packed, where there are 2
    place.waits("full", "outcome_unknown", "No space left", "free space where the file is")
    (deliverer,) = place.node.pids(" deliver full")
    place.node.kill(deliverer)
    place.waits("full", "outcome_unknown", "No space left", "free space where the file is")
    ballast.unlink()
    place.landed("full")


def test_a_file_that_is_missing_pauses_and_goes_on_when_it_is_put_back(place: Place) -> None:
    place.landed("missing")
    away = place.folder / "away"
    place.file("missing").parent.rename(away)
    place.file("missing").parent.mkdir()
    place.send(50)
    place.waits("missing", "destination_missing", "adopt missing --from now", "put it back")
    assert not place.file("missing").exists()
    place.file("missing").parent.rmdir()
    away.rename(place.file("missing").parent)
    place.landed("missing")


def test_a_file_that_is_gone_is_made_again_by_the_command_for_it(place: Place) -> None:
    place.landed("gone")
    for file in place.file("gone").parent.iterdir():
        file.unlink()
    place.send(50)
    place.waits("gone", "destination_missing", "adopt gone", "adopt gone --from now")
    done = place.node.command("destination", "adopt", "gone", "--from", "beginning")
    assert done.returncode == 0, done.stderr
    place.landed("gone")


def word(data: bytes, at: int) -> int:
    """What DuckDB's checksum of a block has of one of its words; the words are combined by exclusive or."""
    return int.from_bytes(data[at : at + 8], "little") * 0xBF58476D1CE4E5B9 & (1 << 64) - 1


def other_version(file: bytes) -> bytes:
    """The same file as a DuckDB of the far future would have written it."""
    assert file[8:12] == b"DUCK"
    changed = file[:12] + (9999).to_bytes(8, "little") + file[20:]
    checksum = int.from_bytes(file[:8], "little")
    for at in (8, 16):
        checksum ^= word(file, at) ^ word(changed, at)
    return checksum.to_bytes(8, "little") + changed[8:]


def rotten(file: bytes) -> bytes:
    """The same file with a byte of its header changed."""
    return file[:100] + bytes([file[100] ^ 1]) + file[101:]


SAID = {
    "of another version": ("file_version", "9999", "of a version that this one cannot read"),
    "empty": ("file_version", "not a valid DuckDB database", "of a version that this one cannot read"),
    "damaged": ("file_damaged", "Corrupt database file", "put an older copy in its place"),
}


@pytest.mark.parametrize("strange", SAID)
def test_a_file_of_something_else_pauses_and_is_left_alone(place: Place, strange: str) -> None:
    place.landed("strange")
    file, aside = place.file("strange"), place.folder / "aside"
    file.parent.rename(aside)
    file.parent.mkdir()
    content = {
        "of another version": other_version((aside / "w.duckdb").read_bytes()),
        "empty": b"",
        "damaged": rotten((aside / "w.duckdb").read_bytes()),
    }[strange]
    file.write_bytes(content)
    place.send(50)
    place.waits("strange", *SAID[strange])
    assert file.read_bytes() == content
    shutil.rmtree(file.parent)
    aside.rename(file.parent)
    place.landed("strange")
