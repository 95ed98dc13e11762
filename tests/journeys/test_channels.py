"""Seed 001: applications clustered by direct channels, with stream affinity, that heal themselves.

The counter of docs/guides/channels.md, as it stands there, on three processes; one of them is killed.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.channels.topic import Directory, slot_of
from headwater.peer.connection import Identity

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guides" / "channels.md"
SECRET = b"the same on all nodes, at least 16 characters"
SLOTS = 64
NODES = ("node-1", "node-2", "node-3")


class Cluster:
    """Three counters and the file that says who owns what."""

    def __init__(self, folder):
        self.folder = folder
        self.nodes_file = folder / "nodes.json"
        (folder / "counter.py").write_text(GUIDE.read_text().split("```python\n")[1].split("```")[0])
        self.nodes_file.write_text(json.dumps({"epoch": 0, "owner": [], "nodes": {}}))
        self.epoch = 0
        self.processes = {node: self.start(node) for node in NODES}
        self.addresses = {node: self.line(node).split()[-1] for node in NODES}

    def start(self, node):
        with open(self.folder / f"{node}.out", "w") as out:
            return subprocess.Popen(
                [sys.executable, str(self.folder / "counter.py"), node, "127.0.0.1:0", str(self.nodes_file)],
                stdout=out,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            )

    def line(self, node):
        """What a node printed last, once it has printed anything."""
        while True:
            whole, newline, _ = (self.folder / f"{node}.out").read_text().rpartition("\n")
            if newline:
                return whole.splitlines()[-1]
            assert self.processes[node].poll() is None

    def counted(self, node):
        line = self.line(node)
        return {} if "listens on" in line else json.loads(line.partition(" ")[2].replace("'", '"'))

    def share(self, *nodes):
        """The next table: these nodes own the slots in turn."""
        self.epoch += 1
        table = {
            "epoch": self.epoch,
            "owner": [nodes[slot % len(nodes)] for slot in range(SLOTS)],
            "nodes": {node: self.addresses[node] for node in nodes},
        }
        draft = self.nodes_file.with_suffix(".new")
        draft.write_text(json.dumps(table))
        draft.rename(self.nodes_file)

    def discover(self):
        return Directory(**json.loads(self.nodes_file.read_text()))

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


async def clicks_of(cluster, node):
    """Wait until a node has counted something."""
    while not cluster.counted(node):  # noqa: ASYNC110 - another process tells it in a file
        await asyncio.sleep(0.01)


async def test_a_counter_on_three_processes_loses_nothing_when_one_of_them_is_killed(tmp_path):
    cluster = Cluster(tmp_path)
    try:
        cluster.share(*NODES)
        shop = Identity(node="shop-1", incarnation=1, folder="shop-1", cluster="shop", secret=SECRET)
        async with OutboundChannel("clicks", shop, cluster.discover) as clicks:
            for n in range(3000):
                await clicks.send(f"user-{n % 40}", f"user-{n % 40}/{n}".encode())
                if n == 1500:
                    await clicks_of(cluster, "node-2")
                    cluster.processes["node-2"].kill()
            assert clicks.pending_events
            cluster.share("node-1", "node-3")
            assert await clicks.drain(20) == 0
            assert clicks.counts["lost"] == 0
    finally:
        cluster.stop()
    counts = {node: cluster.counted(node) for node in NODES}
    sent = {f"user-{n % 40}/{n}" for n in range(3000)}
    assert set().union(*counts.values()) == sent  # nothing is lost
    alive = [counts["node-1"], counts["node-3"]]
    assert all(number == 1 for count in alive for number in count.values())
    assert not alive[0].keys() & alive[1].keys()
    before = ("node-1", "node-2", "node-3")
    for event in counts["node-2"]:  # affinity: the killed one counted its own users only
        assert before[slot_of(event.split("/")[0]) % SLOTS % 3] == "node-2"
