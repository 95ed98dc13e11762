"""The node of a journey as one of three: `HEADWATER_JOURNEYS_NODES=3` runs what was written for one node on a cluster.

The node that a test speaks to is called ``a``; ``b`` and ``c`` run beside it with the same configuration, own two
thirds of the visitors, and go on while the test stops, kills or starts ``a``. DuckDB's files are pinned to ``a``, so
that a test finds them where it looks for them. Like ``running.py``, nothing here imports Headwater.

What a test does to its node is done to that node alone, with two exceptions: configuration is written for all (a
cluster has one), and SIGHUP reaches all of them. The test goes on when partitions have settled after the first start.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.journeys.running import Running, wait_for
from tests.parts import free_ports

NAMES = ("a", "b", "c")
TOGETHER_S = 60.0
"""Until three nodes that start at once on a busy machine serve, and their partitions stay where they are."""
BLOCK = """
cluster:
  node: {name}
  secret: the-secret-of-this-cluster
  listen: tcp://127.0.0.1:{member}
  lane: tcp://127.0.0.1:{lane}
  peers: {peers}
"""


class OneOfThree(Running):
    """A node with the block ``cluster`` behind its configuration."""

    def __init__(self, folder: Path, name: str, block: str, **options: Any) -> None:
        self.name = name
        self.block = block
        self.started_with = ""
        """The configuration when its process was started."""
        super().__init__(folder, **options)

    def configure(self, **changed: Any) -> None:
        super().configure(**changed)
        told = self.config.read_text().replace("{type: duckdb,", "{type: duckdb, node: a,")
        self.config.write_text(told + self.block)

    def begin(self) -> None:
        self.started_with = self.config.read_text()
        super().begin()

    def runs(self) -> bool:
        """Whether its supervisor runs."""
        return self.process is not None and self.process.poll() is None

    def status(self) -> Any:
        """What it says of the cluster; None while it says nothing."""
        try:
            answer = self.ask("GET", "/cluster/status", port=self.ops, timeout_s=5)
        except OSError:
            return None
        return answer.json if answer.status == 200 else None

    def settled(self) -> bool:
        """Whether it is ready, and all three share the partitions as they will."""
        told = self.status()
        if not told or not told["viable"] or self.status_of(self.ops, "/ready") != 200:
            return False
        shares = [one["partitions"] for one in told["nodes"] if one["member"] and one["alive"]]
        return len(shares) == len(NAMES) and max(shares) - min(shares) <= 1


class Three(OneOfThree):
    """``a``, as a journey knows its node, with the others beside it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        with free_ports(4 * len(NAMES)) as ports:  # drawn together, or two could be the same
            fours = list(zip(*[iter(ports)] * 4, strict=True))
        peers = json.dumps([f"127.0.0.1:{member}" for _, _, member, _ in fours])
        own, *others = (
            BLOCK.format(name=name, member=member, lane=lane, peers=peers)
            for name, (_, _, member, lane) in zip(NAMES, fours, strict=True)
        )
        self.beside: list[OneOfThree] = []
        """The others."""
        super().__init__(folder, NAMES[0], own, **options)
        shared = {name: told for name, told in options.items() if name != "data"}
        for name, block in zip(NAMES[1:], others, strict=True):
            (folder / name).mkdir()
            self.beside.append(OneOfThree(folder / name, name, block, **shared))
        for node, (collect, ops, _, _) in zip([self, *self.beside], fours, strict=True):
            node.collect, node.ops = collect, ops
        self.configure()

    def configure(self, **changed: Any) -> None:
        super().configure(**changed)
        for node in self.beside:
            node.configure(**changed)

    def begin(self) -> None:
        """Those beside it too, where they do not run yet, or run with what is no longer the configuration."""
        for node in self.beside:
            node.environment = {**self.environment}
            if node.runs() and node.started_with != node.config.read_text():
                assert node.stop(TOGETHER_S) == 0, node.log()
            if not node.runs():
                node.begin()
        super().begin()

    def start(self, timeout_s: float = TOGETHER_S) -> None:
        together = all(node.runs() for node in self.beside)
        super().start(max(timeout_s, TOGETHER_S))
        if not together:
            wait_for(
                lambda: all(n.settled() for n in [self, *self.beside]),
                TOGETHER_S,
                self.log_of_all,
                interval_s=0.2,
            )

    def log_of_all(self) -> str:
        """What all of them say, for failures."""
        return "\n".join(
            f"{node.name}: {json.dumps(node.status())}\n{node.log()}" for node in [self, *self.beside]
        )

    def signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            for node in self.beside:
                node.signal(number)
                node.started_with = node.config.read_text()
        super().signal(number)

    def close(self) -> None:
        super().close()
        for node in self.beside:
            node.close()
