"""Several real nodes on loopback, each with a data folder, ports and processes of its own, as a user would start them.

Like ``tests/journeys/running.py``, nothing here imports Headwater: it knows HTTP, the commands and signals.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.journeys.running import Running, wait_for
from tests.parts import free_ports

SECRET, ADMIN_TOKEN = "the-secret-of-this-cluster", "the-admin-token-of-this-cluster"
CONFIG = """
collect: {{listen: "127.0.0.1:{collect}"}}
ops: {{listen: "127.0.0.1:{ops}"}}
log: {{compress_after_s: 0}}
keys:
  - {{id: web, secret: "${{env.WEB_KEY}}", origins: ["*"], ack: disk}}
shutdown_timeout: 5
drain_timeout_s: 5
cluster:
  node: {name}
  secret: {secret}
  admin_token: {admin_token}
  listen: tcp://127.0.0.1:{member}
  lane: tcp://127.0.0.1:{lane}
{cluster}
{sections}
"""


class ClusterNode(Running):
    """One of several nodes."""

    def __init__(self, folder: Path, name: str, cluster: str, secret: str = SECRET) -> None:
        self.name = name
        self.cluster = cluster
        self.secret = secret
        self.sections = ""
        """Other sections of the configuration."""
        with free_ports(2) as (self.member, self.lane):
            super().__init__(folder)

    def configure(self, **changed: Any) -> None:
        """Write the configuration; ``self.cluster`` is the rest of its block."""
        told = CONFIG.format(
            name=self.name, secret=self.secret, admin_token=ADMIN_TOKEN, cluster=self.cluster,
            collect=self.collect, ops=self.ops, member=self.member, lane=self.lane, sections=self.sections,
        )  # fmt: skip
        self.config.write_text(told)

    def read(self, path: str) -> Any:
        """The JSON of a page of the ops listener; None while nobody answers, or where the answer is an error."""
        try:
            answer = self.ask("GET", path, port=self.ops, timeout_s=5)
        except OSError:
            return None
        return answer.json if answer.status == 200 else None

    def status(self) -> Any:
        """What it says of the cluster; None while it says nothing."""
        return self.read("/cluster/status")

    def reasons(self) -> str:
        """Why it is not ready."""
        return " ".join(self.ask("GET", "/ready", port=self.ops).json["reasons"])

    def waits_for(self) -> str:
        """What hinders it, as far as it says anything."""
        told = self.status()
        return " ".join(told["waits_for"]) if told else ""

    def order(self, what: str, body: Any, token: str = ADMIN_TOKEN) -> int:
        """An order over HTTP; its status."""
        return self.ask(
            "POST", f"/cluster/{what}", body, {"Authorization": f"Bearer {token}"}, port=self.ops
        ).status

    def member_pid(self) -> int:
        """The member process."""
        (pid,) = self.pids("role member")
        return pid

    def freeze(self, role: str = "") -> list[int]:
        """SIGSTOP the processes of a role, or the whole node; who was stopped."""
        pids = self.pids(role) if role else [*self.pids("supervisor"), *self.pids()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def here(self) -> set[str]:
        """Names of those whom it hears."""
        told = self.status()
        return {one["name"] for one in told["nodes"] if one["alive"]} if told else set()

    def sees(self, *names: str) -> bool:
        """Whether it is viable and its table has just these nodes."""
        told = self.status()
        if not told or not told["viable"]:
            return False
        return {one["name"] for one in told["nodes"] if one["member"]} == {*names} <= self.here()

    def events(self, event: str) -> list[dict[str, Any]]:
        """What happened, of one kind."""
        told = self.status()
        return [one for one in told["activity"] if one["event"] == event] if told else []


@contextmanager
def cluster_of(
    folder: Path,
    count: int,
    store: str = "",
    more: str = "",
    settings: Sequence[str] = (),
    *,
    sections: str = "",
    host: str = "127.0.0.1",
) -> Iterator[list[ClusterNode]]:
    """Nodes ``a``, ``b``, …, not started; ended whatever happens. ``store`` is the block of one; without it they have a
    static list of each other, on ``host``. ``more`` is in every block, ``settings[n]`` in that of node n; ``sections``
    stands beside the block in every configuration."""
    nodes: list[ClusterNode] = []
    try:
        for number in range(count):
            name = chr(ord("a") + number)
            (folder / name).mkdir()
            own = settings[number] if number < len(settings) else ""
            nodes.append(ClusterNode(folder / name, name, f"{store}\n{more}\n{own}"))
            nodes[-1].sections = sections
        with free_ports(4 * count) as ports:  # drawn together, or two nodes could get the same one
            for node, four in zip(nodes, zip(*[iter(ports)] * 4, strict=True), strict=True):
                node.collect, node.ops, node.member, node.lane = four
        if not store:
            peers = json.dumps([f"{host}:{node.member}" for node in nodes])
            for node in nodes:
                node.cluster += f"\n  peers: {peers}"
        for node in nodes:
            node.configure()
        yield nodes
    finally:
        for node in nodes:
            if node.process is not None:
                for pid in [*node.pids("supervisor"), *node.pids()]:
                    with_no_such_process(lambda pid=pid: os.kill(pid, signal.SIGCONT))  # type: ignore[misc]
            node.close()


def with_no_such_process(act: Callable[[], None]) -> None:
    """Do it; whoever is gone already needs nothing."""
    try:
        act()
    except ProcessLookupError:
        pass


def begin(nodes: Sequence[ClusterNode]) -> None:
    """Start all at once."""
    for node in nodes:
        node.begin()


def wait_view(nodes: Sequence[ClusterNode], within_s: float) -> None:
    """Until all see just each other."""
    names = [node.name for node in nodes]
    wait_for(
        lambda: all(node.alive() and node.sees(*names) for node in nodes),
        within_s,
        lambda: "\n".join(f"{node.name}: {json.dumps(node.status())}\n{node.log()}" for node in nodes),
        interval_s=0.1,
    )
