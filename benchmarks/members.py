"""How long many members take to agree, and what they say meanwhile: ``python -m benchmarks.members --nodes 1000``.

Real ``Membership`` objects on the simulated network of tests/simulation (0.2 to 10 ms, one process, virtual time). The
seconds are virtual: what a network of that latency and nodes with time to spare would take. ``cpu`` is what one node
spent per virtual second in this process, all of its messages included, but neither sockets nor encoding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from headwater.cluster.membership import Rules
from headwater.kit.simulate.run import Simulation
from tests.simulation.member_world import SECOND, Node, World

IDLE_S = 4


class Broadcasts(World):
    """What one node says to many at once arrives everywhere at the same moment: fewer steps to simulate."""

    def send(self, sender: Node, to: tuple[str, ...], message: Any) -> None:
        self.messages[type(message).__name__] += len(to)

        def arrive() -> None:
            for one in to:
                node = self.by_id[one]
                if node.alive:
                    node.got(sender.id, message)

        self.after(self.random.randrange(*self.latency_ns), arrive)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[3, 10, 100], help="cluster sizes, one after another"
    )
    parser.add_argument("--partitions", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for nodes in options.nodes:
        print(json.dumps(measure(nodes, options.partitions, options.seed)), flush=True)
    return 0


def measure(nodes: int, partitions: int, seed: int) -> dict[str, object]:
    """Start all within a second; one dies; one joins; between them, for 4 s, nothing happens."""
    world = Broadcasts(Simulation(seed), nodes + 1, rules=Rules(partitions=partitions))
    world.oracle.look = lambda node: None  # type: ignore[method-assign]  # judged in the tests; here it would be measured
    for node in world.nodes[:-1]:
        world.after(world.random.randrange(SECOND), node.start)
    began = time.process_time()
    world.run(1)
    result: dict[str, object] = {"nodes": nodes, "partitions": partitions}
    result["start_s"] = 1 + timed(world, world.agreed)
    print(f"{nodes} nodes agree after {result['start_s']:.2f} s", file=sys.stderr, flush=True)
    before = owners(world)
    result["start_messages"] = dict(world.messages)
    world.run(3)
    world.messages.clear()
    spent, at = time.process_time(), world.now_ns
    world.run(IDLE_S)
    result["idle_messages_per_node_per_s"] = round(sum(world.messages.values()) / nodes / IDLE_S, 1)
    result["idle_cpu_per_node"] = round(
        (time.process_time() - spent) / nodes / ((world.now_ns - at) / SECOND), 5
    )
    world.nodes[nodes // 2].kill()
    result["death_s"] = timed(world, world.agreed)
    after_death = owners(world)
    result["death_moves"] = sum(a != b for a, b in zip(before, after_death, strict=True))
    world.nodes[-1].start()
    result["join_s"] = timed(world, world.agreed)
    result["join_moves"] = sum(a != b for a, b in zip(after_death, owners(world), strict=True))
    result["real_s"] = round(time.process_time() - began, 1)
    return result


def owners(world: World) -> list[str]:
    return world.running()[0].membership.table.owner


def timed(world: World, what: Callable[[], bool]) -> float:
    """Virtual seconds until it is so."""
    began = world.now_ns
    if not world.run(120, what):
        raise SystemExit("no agreement within 120 s")
    return round((world.now_ns - began) / SECOND, 2)


if __name__ == "__main__":
    sys.exit(main())
