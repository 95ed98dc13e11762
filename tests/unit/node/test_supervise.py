"""The supervisor over stub processes: it starts, starts again, reloads, drains in order, and nobody outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.config.control import ControlPage
from headwater.event.position import Position, Vector, WriterId
from headwater.event.record import encode_payload
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log.write import BlockWriter
from headwater.node.folder import open_folder
from tests.parts import free_port

CLOCK, DISK = SystemClock(), SystemDisk()
pytestmark = pytest.mark.slow
KEYS = 'keys: [{id: web, secret: "secret-of-web-1", origins: ["*"]}]\n'


class Stubs:
    """A supervisor in a process of its own."""

    def __init__(self, path: Path, more: str = "") -> None:
        self.path = path
        self.data = path / "data"
        self.config = path / "headwater.yaml"
        self.listen = (
            f'collect: {{listen: "127.0.0.1:{free_port()}"}}\nops: {{listen: "127.0.0.1:{free_port()}"}}\n'
        )
        self.write(more)
        (self.data / "stub").mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[str] | None = None

    def write(self, more: str) -> None:
        self.config.write_text(self.listen + KEYS + "destinations: {warehouse: {type: duckdb}}\n" + more)

    def start(self) -> Stubs:
        with (self.path / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.node.run_stubs", str(self.config), str(self.data)],
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log()
        return self

    def close(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(10)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(15)

    def log(self) -> str:
        return (self.path / "log").read_text()

    def said(self, name: str) -> list[dict]:
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["happening"] == name]

    def notes(self, name: str) -> list[list[str]]:
        file = self.data / "stub" / name
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def control(self) -> ControlPage:
        return ControlPage.attach(f"{self.data}/run/control")


@pytest.fixture
def stubs(tmp_path):
    # The data folder of these tests is not empty before its first start: the stubs' notes lie in it.
    from headwater.kit.rng import SystemRng
    from headwater.node import folder

    folder.make_folder(str(tmp_path / "data"), SystemDisk(), SystemRng())
    made = Stubs(tmp_path)
    yield made
    made.close()


def now_s() -> float:
    return CLOCK.boot_ns() / 1e9


def until(condition, within_s: float = 10.0):
    end = now_s() + within_s
    while not (found := condition()):
        assert now_s() < end, "not in time"
        CLOCK.block(0.02)
    return found


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_every_role_is_started_and_named_in_its_command_line(stubs):
    stubs.start()
    started = until(lambda: len(stubs.notes("starts")) == 5 and stubs.notes("starts"))
    assert {name for name, _, _ in started} == {
        "ops-0",
        "upkeep-0",
        "deliver-warehouse",
        "process-0",
        "collect-0",
    }
    for name, pid, _ in started:
        assert name.partition("-")[0].encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    node = json.loads((stubs.data / "run/node.json").read_text())
    assert node["pid"] == stubs.process.pid
    assert (stubs.data / "run/config.json").stat().st_mode & 0o777 == 0o600


def test_a_killed_process_is_started_again_with_a_new_log(stubs):
    stubs.start()
    first = next(note for note in until(lambda: stubs.notes("starts")) if note[0] == "collect-0")
    os.kill(int(first[1]), signal.SIGKILL)
    again = until(lambda: [n for n in stubs.notes("starts") if n[0] == "collect-0"][1:])[0]
    assert int(again[2], 16) > int(first[2], 16)
    assert until(lambda: stubs.said("role_ended"))[0]["exit_code"] == -9


def test_acknowledged_bytes_that_are_gone_are_said_aloud(stubs):
    folder = stubs.data / "raw" / f"{1 << 16:016x}"
    writer = BlockWriter(
        DISK, CLOCK, str(folder), WriterId(1 << 16), 7,
        start=1, offset_ns=0, segment_bytes=1 << 16, submit=inline, secret=open_folder(str(stubs.data), DISK).secret,
    )  # fmt: skip
    stamp = bytes(24) + (2).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + bytes(12)
    for count in (1, 2):
        writer.write(encode_payload([stamp], [b"{}"], [b""], [], {"web": (1, count)}, 1), records=1, events=1)
    writer.close()
    with (folder / f"{7:016x}-{0:016x}.seg").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    stubs.start()
    said = until(lambda: stubs.said("log_damaged"))
    assert [(one["log"], one["first"], one["next"]) for one in said] == [(f"{7:016x}", 1, 2)]


def test_log_ids_are_above_those_that_a_destination_remembers(stubs):
    """INV-LOG-5: the node's own file is older than what its deliverer knows, and so is the clock."""
    known = 15 << 60
    folder = stubs.data / "state" / "deliver-warehouse"
    folder.mkdir(parents=True)
    vector = Vector({WriterId(1 << 16): Position(known, 3)}).encode().hex()
    (folder / "state.json").write_text(
        json.dumps({"format": 1, "pipeline": "x/warehouse/main", "vectors": {vector: [0]}})
    )
    stubs.start()
    given = until(lambda: len(stubs.notes("starts")) == 5 and stubs.notes("starts"))
    assert sorted(int(log, 16) > known for _, _, log in given) == [False, False, False, True, True]


def test_log_ids_of_a_node_are_never_two_alike(stubs):
    stubs.start()
    given = [
        int(note[2], 16) for note in until(lambda: len(stubs.notes("starts")) == 5 and stubs.notes("starts"))
    ]
    logs = [log for log in given if log]
    assert len(logs) == len(set(logs)) == 2


def test_a_process_that_dies_again_and_again_is_started_ever_more_rarely_and_makes_the_node_unready(stubs):
    stubs.start()
    (stubs.data / "stub/process").write_text("die")
    started = until(lambda: [note for note in stubs.notes("starts") if note[0] == "process-0"])
    os.kill(int(started[0][1]), signal.SIGKILL)
    ended = until(lambda: len(stubs.said("role_ended")) >= 4 and stubs.said("role_ended"))
    waits = [line["again_in_s"] for line in ended]
    assert waits[3] > waits[0]
    report = stubs.data / "run/reports/node.json"
    until(
        lambda: any(
            "process-0 ended 3 times" in reason for reason in json.loads(report.read_text())["reasons"]
        )
    )


def test_sigterm_drains_door_processing_delivery_ops_in_this_order(stubs):
    stubs.start()
    until(lambda: len(stubs.notes("starts")) == 5)
    stubs.signal(signal.SIGTERM)
    assert stubs.wait() == 0
    assert [note[0] for note in stubs.notes("ends")] == [
        "collect-0",
        "process-0",
        "deliver-warehouse",
        "upkeep-0",
        "ops-0",
    ]
    assert stubs.said("node_stopped")[0]["in_order"] is True


def test_the_door_stays_open_for_the_shutdown_delay_while_draining_is_told(stubs):
    stubs.write("shutdown_delay: 0.8\n")
    stubs.start()
    until(lambda: len(stubs.notes("starts")) == 5)
    control = stubs.control()
    began = now_s()
    stubs.signal(signal.SIGTERM)
    until(lambda: control.draining)
    assert stubs.notes("ends") == []
    assert stubs.wait() == 0
    assert now_s() - began >= 0.8


def test_a_second_ctrl_c_stops_at_once(stubs):
    stubs.write("shutdown_delay: 60\n")
    stubs.start()
    stubs.signal(signal.SIGINT)
    until(lambda: stubs.said("node_draining"))
    began = now_s()
    stubs.signal(signal.SIGINT)
    assert stubs.wait() == 1
    assert now_s() - began < 5


def test_a_process_that_does_not_stop_in_its_time_is_killed(stubs):
    stubs.write("shutdown_timeout: 0.1\n")
    (stubs.data / "stub/collect").write_text("stubborn")
    stubs.start()
    stubs.signal(signal.SIGTERM)
    assert stubs.wait() == 0
    assert stubs.said("role_cut")[0]["role"] == "collect-0"


def test_nobody_outlives_a_killed_supervisor_and_the_next_start_takes_over(stubs):
    stubs.start()
    pids = [note[1] for note in until(lambda: len(stubs.notes("starts")) == 5 and stubs.notes("starts"))]
    assert all(map(alive, pids))
    stubs.process.kill()
    stubs.process.wait()
    until(lambda: not any(map(alive, pids)), 5)
    stubs.close()
    stubs.start()
    until(lambda: len(stubs.notes("starts")) == 10)
    assert stubs.control().start == 2


def test_sighup_takes_keys_and_destinations_over(stubs):
    stubs.start()
    control = stubs.control()
    until(lambda: len(stubs.notes("starts")) == 5)
    stubs.config.write_text(
        stubs.listen
        + KEYS.replace("web", "shop", 1)
        + "destinations: {lake: {type: duckdb, path: lake.duckdb}}\n"
    )
    stubs.signal(signal.SIGHUP)
    until(lambda: stubs.said("reloaded"))
    assert control.generation == 1
    assert "shop" in (stubs.data / "run/config.json").read_text()
    until(lambda: [n for n in stubs.notes("starts") if n[0] == "deliver-lake"])
    assert [n[0] for n in stubs.notes("ends")] == ["deliver-warehouse"]
    assert len(stubs.notes("starts")) == 6


@pytest.mark.parametrize(
    ("more", "told"),
    [("process: {workers: 2}\n", "process.workers"), ("keys: [\n", "not YAML"), ("x: 1\n", "unknown key")],
)
def test_sighup_refuses_what_it_cannot_take_over_and_changes_nothing(stubs, more, told):
    stubs.start()
    before = (stubs.data / "run/config.json").read_bytes()
    stubs.write(more)
    stubs.signal(signal.SIGHUP)
    assert told in until(lambda: stubs.said("reload_refused"))[0]["reason"]
    assert (stubs.data / "run/config.json").read_bytes() == before
    assert stubs.control().generation == 0
    report = stubs.data / "run/reports/node.json"
    until(lambda: told in "".join(json.loads(report.read_text())["detail"]["warnings"]))
    stubs.write("")
    stubs.signal(signal.SIGHUP)
    until(lambda: json.loads(report.read_text())["detail"]["warnings"] == [])


def test_a_second_node_on_the_same_folder_says_who_holds_it(stubs):
    stubs.start()
    second = subprocess.run(
        [sys.executable, "-m", "headwater", "run", "--config", str(stubs.config), "--data", str(stubs.data)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert f"in use by process {stubs.process.pid}" in second.stderr


def test_a_taken_port_is_told_before_anything_starts(tmp_path, stubs):
    stubs.start()
    other = tmp_path / "other.yaml"
    other.write_text(stubs.config.read_text())
    import socket

    port = int(stubs.listen.split('"')[1].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        second = subprocess.run(
            [sys.executable, "-m", "headwater", "run", "--config", str(other), "--data", str(tmp_path / "new")],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert second.returncode == 2
    assert "collect.listen: cannot listen on" in second.stderr


def test_a_node_without_compression_has_no_upkeep_process(stubs):
    stubs.write("log: {compress_after_s: 0}\n")
    stubs.start()
    until(lambda: len(stubs.notes("starts")) == 4)
    assert not [note for note in stubs.notes("starts") if note[0] == "upkeep-0"]


def test_a_node_of_a_cluster_has_a_lane_that_ends_after_those_who_read_through_it(stubs):
    listen = f'listen: "tcp://127.0.0.1:{free_port()}", lane: "tcp://127.0.0.1:{free_port()}"'
    stubs.write(f'cluster: {{secret: "sixteen-and-more", {listen}}}\n')
    stubs.start()
    named = {"lane-0", "ops-0", "process-0", "deliver-warehouse"}
    until(lambda: named <= {note[0] for note in stubs.notes("starts")})
    stubs.signal(signal.SIGTERM)
    assert stubs.wait() == 0
    ends = [note[0] for note in stubs.notes("ends")]
    assert (
        max(map(ends.index, ("process-0", "deliver-warehouse"))) < ends.index("lane-0") < ends.index("ops-0")
    )


def test_an_upkeep_process_that_dies_again_and_again_does_not_make_the_node_unready(stubs):
    (stubs.data / "stub").mkdir(exist_ok=True)
    (stubs.data / "stub/upkeep").write_text("die")
    stubs.start()
    until(lambda: len([one for one in stubs.said("role_ended") if one["role"] == "upkeep-0"]) >= 4)
    assert json.loads((stubs.data / "run/reports/node.json").read_text())["reasons"] == []
