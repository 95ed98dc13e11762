"""A node under systemd, played by a real socket: ready, alive, stopping; and a node that stands still falls silent."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.running import Running, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.one_node("systemd looks after one node"),
]
WATCHDOG_S = 1.0


class Manager:
    """The socket, and what came."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.lines: list[tuple[float, str]] = []

    def take(self) -> list[str]:
        """All lines so far."""
        while True:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                return [line for _, line in self.lines]
            self.lines += [(time.monotonic(), line) for line in data.decode().split("\n")]

    def pinged(self, within_s: float) -> bool:
        self.take()
        return any(line == "WATCHDOG=1" and time.monotonic() - at < within_s for at, line in self.lines)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(f"{tmp_path}/notify")
    yield made
    made.socket.close()


@pytest.fixture
def watched(make_node: Callable[..., Running], manager: Manager, tmp_path: Path) -> Running:
    node = make_node(workers=2)
    node.environment |= {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    return node


def test_ready_is_said_when_events_are_accepted_and_stopping_when_it_drains(
    watched: Running, manager: Manager
) -> None:
    watched.begin()
    wait_for(lambda: "READY=1" in manager.take(), 40, watched.log)
    assert watched.post("/events", {"event": "First"})[0] == 200
    said = manager.take()
    assert said[0] == "STATUS=recovering what the last start left"
    assert f"STATUS=accepting events on http://127.0.0.1:{watched.collect}" in said
    assert "WATCHDOG=1" not in said[: said.index("READY=1")]
    assert "STOPPING=1" not in said
    assert watched.stop() == 0
    said = manager.take()
    assert said.count("READY=1") == said.count("STOPPING=1") == 1
    assert any(line.startswith("STATUS=draining") for line in said[said.index("STOPPING=1") :])


def test_a_collector_that_stands_still_ends_the_signs_of_life(watched: Running, manager: Manager) -> None:
    watched.start()
    for pid in watched.pids("role ops"), watched.pids("role deliver"):
        environment = Path(f"/proc/{pid[0]}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG_USEC" not in environment
    wait_for(lambda: manager.pinged(WATCHDOG_S), 10)
    stopped, _ = watched.pids("role collect")
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        time.sleep(5)
        assert manager.pinged(WATCHDOG_S)  # a short stop is none
        wait_for(lambda: not manager.pinged(2 * WATCHDOG_S), 20)
        assert time.monotonic() - began < 16
        assert any(f"(process {stopped}) stands still" in line for line in manager.take())
        assert '"role_silent"' in watched.log_text()
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: manager.pinged(WATCHDOG_S), 10)
    watched.kill(stopped)  # one that is dead is started again, which is no reason to end the node
    for _ in range(10):
        time.sleep(0.3)
        assert manager.pinged(1.5 * WATCHDOG_S)


def test_a_supervisor_that_stands_still_says_nothing(watched: Running, manager: Manager) -> None:
    watched.start()
    wait_for(lambda: manager.pinged(WATCHDOG_S), 10)
    watched.signal(signal.SIGSTOP)
    time.sleep(1.5 * WATCHDOG_S)
    silent = not manager.pinged(WATCHDOG_S)
    watched.signal(signal.SIGCONT)
    assert silent
