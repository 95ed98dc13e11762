"""What systemd is told, on a real socket; and nobody where there is none."""

from __future__ import annotations

import os
import socket

import pytest

from headwater.kit.disk import SystemDisk
from headwater.node.heartbeat import Heartbeats, own_cell
from headwater.node.service_manager import ServiceManager

SECOND = 1_000_000_000


@pytest.fixture(params=["path", "abstract", "long path"])
def listening(request, tmp_path):
    folder = tmp_path / ("long" * 30) if request.param == "long path" else tmp_path
    folder.mkdir(exist_ok=True)
    abstract = f"@headwater-test-{os.getpid()}-{tmp_path.name}"
    address = abstract if request.param == "abstract" else f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        if request.param == "long path":
            file = os.open(folder, os.O_PATH)
            made.bind(f"/proc/self/fd/{file}/notify")
            os.close(file)
        else:
            made.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        made.setblocking(False)
        yield address, made


def received(made):
    found = []
    while True:
        try:
            found += made.recv(4096).decode().split("\n")
        except BlockingIOError:
            return found


def test_lines_arrive_in_one_datagram(listening):
    address, made = listening
    ServiceManager(address).tell("READY=1", "STATUS=fine")
    assert made.recv(4096) == b"READY=1\nSTATUS=fine"
    assert received(made) == []


def test_pings_go_twice_in_the_time_of_the_watchdog_while_the_node_is_alive(listening):
    address, made = listening
    manager = ServiceManager(address, watchdog_s=4.0)
    for tick in range(40, 80):
        manager.look(tick * SECOND // 4, alive=True)
    assert received(made) == ["WATCHDOG=1"] * 5
    for tick in range(80, 120):
        manager.look(tick * SECOND // 4, alive=False)
    assert received(made) == []


def test_no_watchdog_no_pings(listening):
    address, made = listening
    ServiceManager(address).look(10 * SECOND, alive=True)
    assert received(made) == []


def test_what_finds_the_socket_full_is_sent_with_the_next(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"{tmp_path}/notify")
        made.setblocking(False)
        manager = ServiceManager(f"{tmp_path}/notify")
        sent = 0
        while not manager.unsent:
            manager.tell(f"STATUS={sent}")
            sent += 1
            assert sent < 10_000
        manager.tell("READY=1")
        assert received(made)[-1] == f"STATUS={sent - 2}"
        manager.look(SECOND, alive=True)
        assert received(made) == [f"STATUS={sent - 1}", "READY=1"]


def test_a_socket_that_is_gone_takes_nothing_and_hurts_nobody(tmp_path):
    manager = ServiceManager(f"{tmp_path}/none", 1.0)
    manager.tell("READY=1")
    manager.look(10 * SECOND, alive=True)
    assert manager.unsent == []


@pytest.mark.parametrize(
    ("told", "address", "interval_s"),
    [
        ({}, "", 0),
        ({"NOTIFY_SOCKET": "/x"}, "/x", 0),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000"}, "@x", 15),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, "/x", 1.5),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, "/x", 0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "/x", 0),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"}, "", 0.5),
    ],
)
def test_the_environment_tells_and_is_cleared_for_children(told, address, interval_s):
    environment = {**told, "HOME": "/root"}
    manager = ServiceManager.of(environment, 7)
    assert (manager.address, manager.interval_ns) == (address, interval_s * SECOND)
    assert environment == {"HOME": "/root"}


def test_a_process_is_silent_since_its_start_or_its_last_sign_of_life(tmp_path):
    disk = SystemDisk()
    heartbeats = Heartbeats(disk, str(tmp_path))
    assert heartbeats.silent_s("collect-0", 0, 50 * SECOND) == 0
    heartbeats.expect("collect-0")
    assert heartbeats.silent_s("collect-0", 40 * SECOND, 50 * SECOND) == 10
    cell = own_cell(disk, str(tmp_path), "collect-0")
    assert cell is not None
    cell.set(49 * SECOND)
    assert heartbeats.silent_s("collect-0", 40 * SECOND, 50 * SECOND) == 1
    heartbeats.expect("collect-0")
    assert heartbeats.silent_s("collect-0", 30 * SECOND, 50 * SECOND) == 20
