"""Seed 001: applications clustered by direct channels, with stream affinity, that heal themselves.

The counter of examples/counter.py, as it stands there, on three processes that find each other through a real Redis;
one of them is killed. Then the seed's figure: one is stopped, its clicks wait in a real Kafka and are replayed.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.cluster.channels.topic import slot_of
from tests.parts import ROOT
from tests.rigs import kafka as kafka_rig
from tests.rigs.redis import Single

pytestmark = [pytest.mark.slow, pytest.mark.journey, pytest.mark.timeout(120)]

EXAMPLE = ROOT / "examples" / "counter.py"
GUIDE = ROOT / "docs" / "guides" / "channels.md"
SECRET = "counter-secret-of-the-journey"
NODES = ("node-1", "node-2", "node-3")
USERS = [f"user-{n}" for n in range(40)]


class Counter:
    """The processes of the example, and what they said."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.store = store
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            self.processes[name] = subprocess.Popen(
                [sys.executable, EXAMPLE, *arguments, "--store", self.store],
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COUNTER_SECRET": SECRET},
            )
        return self.processes[name]

    def count(self, *nodes: str) -> None:
        for node in nodes:
            self.start(node, "count", node)
        until(lambda: all(self.said(node) for node in nodes), "all of them listen")

    def said(self, name: str) -> list[dict[str, Any]]:
        """Whole lines only."""
        whole = (self.folder / f"{name}.out").read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def clicks(self, node: str) -> collections.Counter[str]:
        return collections.Counter(self.said(node)[-1].get("clicks", {}))

    def ends(self, name: str) -> dict[str, Any]:
        """The last that it said, when it has ended well."""
        assert self.processes[name].wait(80) == 0, (self.folder / f"{name}.err").read_text()
        return self.said(name)[-1]

    def all_said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.???")))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, f"not within 30 s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    one = Single(tmp_path_factory.mktemp("redis"), password="redis-secret-92")
    one.up()
    yield one
    one.close()


@pytest.fixture
def counter(tmp_path: Path, redis: Single) -> Iterator[Counter]:
    one = Counter(tmp_path, f"redis://:{redis.password}@127.0.0.1:{redis.port}")
    yield one
    one.close()


def total(counts: list[collections.Counter[str]]) -> collections.Counter[str]:
    return sum(counts, collections.Counter())


@pytest.mark.real("redis")
def test_a_counter_on_three_processes_loses_nothing_when_one_of_them_is_killed(counter: Counter) -> None:
    """H1, C5."""
    counter.count(*NODES)
    counter.start("shop", "click", "--clicks", "6000", "--rate", "1500")
    until(lambda: counter.clicks("node-2"), "node-2 has counted something")
    counter.processes["node-2"].kill()
    counter.processes["node-2"].wait()
    died = counter.clicks("node-2")
    end = counter.ends("shop")
    assert (end["pending"], end["accepted"], end["delivered"]) == (0, 6000, 6000)

    counts = {node: counter.clicks(node) for node in NODES}
    counted = total(list(counts.values()))
    assert all(counted[user] >= 150 for user in USERS)  # nothing is lost
    others = [user for user in USERS if user not in died]
    assert others
    assert all(counted[user] == 150 for user in others)  # whom the dead one did not count is counted exactly
    alive = [counts["node-1"], counts["node-3"]]
    both = alive[0].keys() & alive[1].keys()  # those who clicked before the third process had joined
    assert all(min(alive[0][user], alive[1][user]) < 15 for user in both)  # affinity
    assert len({slot_of(user) for user in died}) <= len(died) < len(USERS)

    for node in ("node-1", "node-3"):
        counter.processes[node].send_signal(signal.SIGTERM)
        counter.ends(node)
    assert not re.search(f"{SECRET}|redis-secret-92", counter.all_said())


@pytest.mark.real("redis", "java", "kafka")
def test_clicks_of_a_process_that_is_stopped_wait_in_kafka_and_are_replayed(
    counter: Counter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """R3, R5, H2: who was stopped wakes up, owns nothing, and joins again."""
    with kafka_rig.running(tmp_path_factory.mktemp("kafka")) as kafka:
        counter.count(*NODES)
        counter.start("replay", "replay", "--kafka", kafka.servers)
        counter.start("shop", "click", "--clicks", "8000", "--rate", "800", "--kafka", kafka.servers)
        until(lambda: counter.clicks("node-2"), "node-2 has counted something")
        stopped = counter.processes["node-2"]
        stopped.send_signal(signal.SIGSTOP)
        died = counter.clicks("node-2")
        try:
            end = counter.ends("shop")
            assert end["pending"] == 0
            assert end["delivered"] + end["spooled"] == 8000
            assert end["spooled"] > 0
            until(
                lambda: min(total([counter.clicks(node) for node in NODES])[user] for user in USERS) >= 200,
                "all are counted",
            )
        finally:
            stopped.send_signal(signal.SIGCONT)
        counted = total([counter.clicks(node) for node in NODES])
        assert all(counted[user] == 200 for user in USERS if user not in died)
        until(lambda: sum(total([counter.clicks(node) for node in NODES]).values()) >= 8000, "all of it")
        counter.processes["replay"].send_signal(signal.SIGTERM)
        assert counter.processes["replay"].wait(30) == 0
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(30) == 0
    assert "slow_consumer spooling node-2" in (counter.folder / "shop.err").read_text()
    assert not re.search(f"{SECRET}|redis-secret-92", counter.all_said())


def test_the_code_of_the_guide_is_that_of_the_example() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example = EXAMPLE.read_text("utf-8")
    assert blocks
    for block in blocks:
        assert block in example, block
