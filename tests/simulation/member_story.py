"""A drawn history of faults for a handful of members, and what must be true when they end."""

from __future__ import annotations

from collections.abc import Callable

from headwater.cluster.membership import Membership
from headwater.kit.simulate.run import Simulation
from tests.simulation.member_world import SECOND, Node, World

STORY_S = 40.0
CONVERGE_S = 100.0
"""Back-off of a node that was evicted often [60 s], a lease that nobody gives back [10 s], four times 3H, rounds."""

Fault = Callable[[World], None]


def some(world: World) -> Node:
    return world.random.choice(world.nodes)


def other(world: World, than: Node) -> Node:
    return world.random.choice([node for node in world.nodes if node is not than])


def split(world: World) -> None:
    chosen = {node.number for node in world.nodes if world.random.random() < 0.5}
    world.split(chosen, {node.number for node in world.nodes} - chosen)


def cut_one_way(world: World) -> None:
    one = some(world)
    world.cut(one, other(world, one), one_way=True)


def cut_both_ways(world: World) -> None:
    one = some(world)
    world.cut(one, other(world, one))


def cut_from_store(world: World) -> None:
    world.cut(some(world), "store")


def heal(world: World) -> None:
    world.heal()


def slow(world: World) -> None:
    world.latency_ns = (SECOND // 100, SECOND // 2)


def lossy(world: World) -> None:
    world.lossy = 0.1


def pause(world: World) -> None:
    node = some(world)
    if node.alive and not node.paused:
        node.paused = True
        world.after(round(world.random.choice((1, 3, 5, 8, 20)) * SECOND), node.resume)


def kill(world: World) -> None:
    some(world).kill()


def kill_leader(world: World) -> None:
    for node in world.running():
        if node.membership.leads(node.now_ns()):
            return node.kill()


def restart(world: World) -> None:
    node = some(world)
    node.kill()
    node.start()


def start_dead(world: World) -> None:
    for node in world.nodes:
        if not node.alive:
            return node.start()


def leave(world: World) -> None:
    node = some(world)
    if node.alive and not node.paused:
        node.do(node.membership.leave(node.now_ns()))
        node.kill()


def drain(world: World) -> None:
    node = some(world)
    if node.alive and not node.paused:
        node.do(node.membership.drain(node.now_ns(), draining=world.random.random() < 0.5))


def wall_jump(world: World) -> None:
    some(world).wall_ms += world.random.choice((-1, 1)) * 86_400_000


def lose_disk(world: World) -> None:
    """A new, empty data folder under the same id (an operator restored ``headwater.json`` alone)."""
    node = some(world)
    node.kill()
    node.kept = None
    world.oracle.kept.pop(node.id, None)
    node.start()


def store_away(world: World) -> None:
    world.store_up = False


def store_back(world: World) -> None:
    world.store_up = world.has_store


def store_fails_over(world: World) -> None:
    world.store_up = world.has_store
    world.fail_over(world.random.randrange(1, 12))


def store_emptied(world: World) -> None:
    world.empty_store()


FAULTS: dict[Fault, int] = {
    split: 3,
    cut_one_way: 3,
    cut_both_ways: 2,
    cut_from_store: 2,
    heal: 6,
    slow: 1,
    lossy: 1,
    pause: 5,
    kill: 2,
    kill_leader: 2,
    restart: 3,
    start_dead: 5,
    leave: 1,
    drain: 1,
    wall_jump: 2,
    lose_disk: 1,
    store_away: 2,
    store_back: 4,
    store_fails_over: 2,
    store_emptied: 1,
}


def story(sim: Simulation, make: Callable[..., Membership] = Membership) -> World:
    """Start, faults, and the end of all faults: then one view, in time."""
    count = sim.random.randrange(2, 7)
    store = not sim.one_in(5)
    zones = ("a", "b") if sim.one_in(3) else ("",)
    world = World(sim, count, make=make, zones=zones, store=store)
    world.can_break = not sim.one_in(3)
    if not store:
        world.connect_everybody()
    for node in world.nodes:
        world.after(sim.random.randrange(5 * SECOND), node.start)
    weights = list(FAULTS.values())
    end = STORY_S * sim.random.random() * 2
    while world.now_ns < end * SECOND:
        world.run(sim.random.choice((0.2, 1, 3, 9, 15)))
        fault = sim.random.choices(list(FAULTS), weights)[0]
        sim.note(f"{world.now_ns / SECOND:.1f} {fault.__name__}")
        sim.disk.met[fault.__name__] += 1
        fault(world)
    mend(world)
    if not world.run(CONVERGE_S, world.settled):
        raise AssertionError(f"no agreement {CONVERGE_S:.0f} s after the last fault: {standing(world)}")
    return world


def mend(world: World) -> None:
    """All faults end."""
    world.heal()
    store_back(world)
    for node in world.nodes:
        node.resume()
        if not node.alive:
            node.start()
        if node.membership.draining:
            node.do(node.membership.drain(node.now_ns(), draining=False))


def standing(world: World) -> str:
    """Where everybody stands, for a message."""
    return "; ".join(
        f"{node.number}: {node.membership.table.order} {sorted(world.members_of(node))}"
        f" {node.view.why if node.view else 'no view'}"
        for node in world.nodes
    )
