"""Several nodes under load, and the faults that are drawn for them.

A fault is a context: it is there from its beginning to its end, and what it took away is back afterwards (perhaps not
ready yet). So two of them can overlap, and whoever ends early ends all.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from tests.chaos.faults import signalled
from tests.chaos.wires import Link, Wires
from tests.cluster.nodes import ClusterNode
from tests.journeys.running import wait_for
from tests.rigs.redis import Single

H_S = 2.0
"""The heartbeat, as it is by default."""
ROLES = ("collect", "process", "deliver", "lane", "member", "ops")
SHORT_S, TAKEN_OVER_S = (0.2, 2.0), (8.0, 14.0)
"""How long a fault stays: too short for anybody to be evicted, and so long that partitions have moved."""
STOP_S = 40
BACK_S = 60


class Fleet:
    """The nodes, the wires between them, and the store, if there is one."""

    def __init__(self, nodes: Sequence[ClusterNode], wires: Wires, store: Single | None) -> None:
        self.nodes = list(nodes)
        self.wires = wires
        self.store = store
        self.rng = random.Random()
        self.kills: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def start(self) -> None:
        """All nodes, until each is ready."""
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            self.answers(node, node.ops, "/ready")

    def answers(self, node: ClusterNode, port: int, path: str) -> None:
        """Until it does, with 200."""
        wait_for(lambda: node.alive() and node.status_of(port, path) == 200, BACK_S, self.log)

    def log(self) -> str:
        """What the nodes said last, for failures."""
        return "\n".join(
            f"--- {node.name} ({json.dumps(node.status())})\n{node.log()[-2500:]}" for node in self.nodes
        )

    def running(self) -> list[ClusterNode]:
        """Nodes that were not ended by another fault."""
        return [node for node in self.nodes if node.process is not None and node.process.poll() is None]

    def one(self) -> ClusterNode:
        """A node that runs."""
        return self.rng.choice(self.running() or self.nodes)

    def holder(self) -> ClusterNode:
        """The node with the DuckDB file, or any where there is none."""
        holders = [node for node in self.nodes if (node.data / "warehouse.duckdb").exists()]
        return holders[0] if holders else self.one()

    def stay(self, *ranges: tuple[float, float]) -> float:
        """How long a fault stays."""
        return self.rng.uniform(*self.rng.choice(ranges))

    def whole(self) -> None:
        """Everybody runs and is heard again, whatever the faults left."""
        self.wires.mend()
        if self.store is not None:
            self.store.up()
        for node in self.nodes:
            thaw(node)
            if node not in self.running():
                node.begin()
        for node in self.nodes:
            self.answers(node, node.collect, "/ping")


def ids(nodes: Sequence[ClusterNode]) -> dict[str, str]:
    """Name → node id, of those that have started once."""
    found: dict[str, str] = {}
    for node in nodes:
        path = node.data / "headwater.json"
        if path.exists():
            found[node.name] = f"{int(json.loads(path.read_text())['folder_id'], 16) & ~0xFFFF:016x}"
    return found


def thaw(node: ClusterNode) -> None:
    """SIGCONT to the whole node."""
    if node.process is not None and node.process.poll() is None:
        for pid in [*node.pids("supervisor"), *node.pids()]:
            signalled(pid, signal.SIGCONT)


@contextmanager
def dead(fleet: Fleet, node: ClusterNode, stay_s: float) -> Iterator[None]:
    """kill -9 of a whole node, which starts again."""
    if node not in fleet.running():
        yield
        return
    fleet.kills["node"] += 1
    node.kill_all()
    time.sleep(stay_s)
    yield
    node.begin()


def kill_role(fleet: Fleet) -> AbstractContextManager[None]:
    return killed(fleet, fleet.one(), [fleet.rng.choice(ROLES)])


def kill_roles(fleet: Fleet) -> AbstractContextManager[None]:
    """Of each role one, each on some node."""
    return killed(fleet, fleet.one(), fleet.rng.sample(ROLES, 3))


@contextmanager
def killed(fleet: Fleet, node: ClusterNode, roles: Sequence[str]) -> Iterator[None]:
    """kill -9 of a process of each of these roles."""
    for role in roles:
        for pid in node.pids(f" {role} ")[:1]:
            node.kill(pid)
            fleet.kills[role] += 1
    time.sleep(fleet.stay(SHORT_S))
    yield


def kill_node(fleet: Fleet) -> AbstractContextManager[None]:
    return dead(fleet, fleet.one(), fleet.stay(SHORT_S, TAKEN_OVER_S))


def kill_holder(fleet: Fleet) -> AbstractContextManager[None]:
    return dead(fleet, fleet.holder(), fleet.stay(SHORT_S, TAKEN_OVER_S))


@contextmanager
def frozen(fleet: Fleet, pids: Sequence[int], stay_s: float) -> Iterator[None]:
    """SIGSTOP, and SIGCONT after a while."""
    for pid in pids:
        signalled(pid, signal.SIGSTOP)
    time.sleep(stay_s)
    yield
    for pid in pids:
        signalled(pid, signal.SIGCONT)


def freeze_short(fleet: Fleet) -> AbstractContextManager[None]:
    node = fleet.one()
    return frozen(fleet, [*node.pids("supervisor"), *node.pids()], 1.5 * H_S)


def freeze_long(fleet: Fleet) -> AbstractContextManager[None]:
    """So long that it is evicted, and wakes as a zombie."""
    node = fleet.one()
    return frozen(fleet, [*node.pids("supervisor"), *node.pids()], 5 * H_S)


def freeze_role(fleet: Fleet) -> AbstractContextManager[None]:
    """One process stands still for up to ten seconds, while its node goes on."""
    role = fleet.rng.choice(ROLES)
    return frozen(fleet, fleet.one().pids(f" {role} "), fleet.stay(SHORT_S, (10.0, 10.0)))


@contextmanager
def rolling(fleet: Fleet) -> Iterator[None]:
    """Each node is drained and started again, one after the other."""
    for node in fleet.running():
        assert node.process is not None
        thaw(node)  # another fault of the round may hold it
        os.kill(node.process.pid, signal.SIGTERM)
        code = node.process.wait(STOP_S)
        assert code == 0, f"{node.name} ended with {code} after SIGTERM: {node.log()}"
        node.begin()
        fleet.answers(node, node.collect, "/ping")
    yield


@contextmanager
def drained(fleet: Fleet) -> Iterator[None]:
    """One node is drained, is away for a while, and comes back."""
    node = fleet.one()
    if node in fleet.running():
        assert node.process is not None
        thaw(node)  # another fault of the round may hold it
        os.kill(node.process.pid, signal.SIGTERM)
        code = node.process.wait(STOP_S)
        assert code == 0, f"{node.name} ended with {code} after SIGTERM: {node.log()}"
        time.sleep(fleet.stay(SHORT_S, TAKEN_OVER_S))
        yield
        node.begin()
    else:
        yield


def pairs(fleet: Fleet, count: int) -> list[Link]:
    """Some pairs of nodes."""
    names = [node.name for node in fleet.nodes]
    return [(pair[0], pair[1]) for pair in (fleet.rng.sample(names, 2) for _ in range(count))]


@contextmanager
def cut(fleet: Fleet, links: Sequence[Link], stay_s: float, *, broken: bool = False) -> Iterator[None]:
    """These links are silent, or broken."""
    (fleet.wires.break_off if broken else fleet.wires.cut)(links)
    time.sleep(stay_s)
    yield
    fleet.wires.mend()


def cut_link(fleet: Fleet) -> AbstractContextManager[None]:
    """Two nodes do not reach each other, and both reach the third."""
    ((one, other),) = pairs(fleet, 1)
    broken = fleet.rng.random() < 0.5
    return cut(fleet, [(one, other), (other, one)], fleet.stay(SHORT_S, TAKEN_OVER_S), broken=broken)


def cut_one_way(fleet: Fleet) -> AbstractContextManager[None]:
    """One node does not hear another, which hears it."""
    return cut(fleet, pairs(fleet, 1), fleet.stay(SHORT_S, TAKEN_OVER_S))


def cut_off(fleet: Fleet) -> AbstractContextManager[None]:
    """One node alone."""
    alone = fleet.one().name
    links = [
        link
        for node in fleet.nodes
        if node.name != alone
        for link in ((alone, node.name), (node.name, alone))
    ]
    return cut(fleet, links, fleet.stay(SHORT_S, TAKEN_OVER_S), broken=fleet.rng.random() < 0.5)


@contextmanager
def store_away(fleet: Fleet) -> Iterator[None]:
    """The store is gone, and comes back as empty as it was when it was new."""
    assert fleet.store is not None
    fleet.store.down()
    time.sleep(fleet.stay(SHORT_S, TAKEN_OVER_S))
    yield
    fleet.store.up()


@contextmanager
def store_frozen(fleet: Fleet) -> Iterator[None]:
    """The store says nothing for a while."""
    assert fleet.store is not None
    fleet.store.freeze()
    time.sleep(fleet.stay(SHORT_S, TAKEN_OVER_S))
    yield
    fleet.store.thaw()


Fault = Callable[[Fleet], AbstractContextManager[None]]
DRAWN: dict[str, tuple[int, Fault]] = {
    "kill a process": (6, kill_role),
    "kill three processes": (2, kill_roles),
    "kill a node": (5, kill_node),
    "kill the node with the file": (3, kill_holder),
    "freeze a node for 1.5 heartbeats": (3, freeze_short),
    "freeze a node for 5 heartbeats": (3, freeze_long),
    "freeze a process": (4, freeze_role),
    "rolling restart": (2, rolling),
    "drain a node": (2, drained),
    "cut a link": (3, cut_link),
    "cut a link one way": (3, cut_one_way),
    "cut a node off": (2, cut_off),
}
"""Name → weight, fault."""
OF_STORES: dict[str, tuple[int, Fault]] = {
    "store away, back empty": (4, store_away),
    "store frozen": (3, store_frozen),
}
ALL = DRAWN | OF_STORES


def drawn(rng: random.Random, count: int, *, store: bool) -> list[str]:
    """Names of the faults of a round."""
    table = ALL if store else DRAWN
    return rng.choices(list(table), [weight for weight, _ in table.values()], k=count)
