"""What happens to a cluster that carries events: faults in any order, and the end of all faults.

Two kinds of histories. In one, a fault comes alone: the cluster has come to rest before the next. Then every event is
one row, copies that clients sent to other nodes included. In the other, anything goes beside anything else: nothing is
lost and no event is two rows, but copies of an event whose owner and standby were both away may be (protocol.md §14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headwater.kit.simulate.run import Simulation
from headwater.kit.simulate.threads import ProcessLoop
from headwater.kit.simulate.view import Dead
from tests.simulation.cluster_world import REAL, Node, Parts, World, simulated
from tests.simulation.member_world import SECOND

START_S = 40.0
REST_S = 150.0
"""After the last fault: eviction and joining again [20 s], a wait of one that was evicted often [60 s], a state of each
partition to its next standby, private runs."""
CALM_S = 12.0
"""Between faults that come alone, from when everybody has all: connections of standbys are made again [2 s], and what
they lack has been told."""

Fault = Callable[[World], None]


def other(world: World, than: Node) -> Node:
    return world.random.choice([node for node in world.nodes if node is not than])


def cut(world: World, one: str, there: str, *, one_way: bool = False) -> None:
    """For members and lanes alike."""
    for cuts in (world.network.cuts, world.members.cuts):
        cuts.add((one, there))
        if not one_way:
            cuts.add((there, one))


def split(world: World) -> None:
    alone = world.some()
    for node in world.nodes:
        if node is not alone:
            cut(world, alone.id, node.id)


def cut_one_way(world: World) -> None:
    one = world.some()
    cut(world, one.id, other(world, one).id, one_way=True)


def cut_both_ways(world: World) -> None:
    one = world.some()
    cut(world, one.id, other(world, one).id)


def cut_from_store(world: World) -> None:
    cut(world, world.some().id, "store")


def cut_from_warehouse(world: World) -> None:
    cut(world, world.some().id, "warehouse")


def warehouse_away(world: World) -> None:
    for node in world.nodes:
        cut(world, node.id, "warehouse")


def reset_connections(world: World) -> None:
    """Every connection between two nodes breaks."""
    one = world.some()
    world.network.reset(one.id, other(world, one).id)


def heal(world: World) -> None:
    world.network.latency_s = (0.0002, 0.005)
    world.members.heal()
    world.network.heal()


def slow(world: World) -> None:
    world.network.latency_s = (0.01, 0.5)
    world.members.latency_ns = (SECOND // 100, SECOND // 2)


def pause(world: World) -> None:
    """SIGSTOP of a machine: it goes on as what it was, with steps under way."""
    node = world.some()
    if node.alive and not node.machine.paused:
        node.pause()
        world.loop.call_later(world.random.choice((1, 3, 8, 20, 60)), node.resume, context=world.context)


def pause_inside(world: World) -> None:
    """Between asking the warehouse and its answer: others own what it has when it goes on."""
    node = world.some()
    if node.alive and not node.machine.paused:
        world.stops_inside = node.id


def kill(world: World) -> None:
    world.some().kill(power=False)


def power(world: World) -> None:
    """What was not synced is lost."""
    world.some().kill(power=True)


def restart(world: World) -> None:
    node = world.some()
    node.kill(power=world.random.random() < 0.5)
    node.start()


def start_dead(world: World) -> None:
    for node in world.nodes:
        if not node.alive:
            return node.start()


def kill_process(world: World) -> None:
    node = world.some()
    if node.alive and not node.machine.paused:
        node.kill_process(world.random.choice(sorted(node.lives)))


def die_inside(world: World) -> None:
    """A process dies in the middle of what it does on its disk."""
    node = world.some()
    if node.alive and not node.machine.paused:
        _, disk = node.lives[world.random.choice(("process-0", "lane-0", "process-0", "deliver-shared"))]
        disk.die_at(world.random.randrange(1, 60))


def wall_jump(world: World) -> None:
    """Seen at the next start: node time goes on with the machine."""
    node = world.some()
    seconds = world.random.choice((-1, 1)) * world.random.choice((5, 86_400))
    node.clock.jump_wall(seconds)
    node.member.wall_ms += seconds * 1000


def drain(world: World) -> None:
    """A planned hand-over: its partitions go to others, or come back."""
    node = world.some()
    if node.alive and not node.machine.paused:
        node.member.do(
            node.member.membership.drain(node.member.now_ns(), draining=world.random.random() < 0.7)
        )


def store_away(world: World) -> None:
    world.members.store_up = False


def store_back(world: World) -> None:
    world.members.store_up = True


def store_fails_over(world: World) -> None:
    world.members.store_up = True
    world.members.fail_over(world.random.randrange(1, 12))


def store_emptied(world: World) -> None:
    world.members.empty_store()


FAULTS: dict[Fault, int] = {
    split: 3, cut_one_way: 3, cut_both_ways: 2, cut_from_store: 1, cut_from_warehouse: 3, warehouse_away: 1,
    reset_connections: 2, heal: 6, slow: 1, pause: 4, pause_inside: 4, kill: 3, power: 3, restart: 3, start_dead: 6,
    kill_process: 4, die_inside: 4, wall_jump: 1, drain: 3, store_away: 1, store_back: 2, store_fails_over: 2,
    store_emptied: 1,
}  # fmt: skip
ALONE = [
    split, cut_one_way, cut_both_ways, cut_from_warehouse, warehouse_away, reset_connections, slow, pause,
    pause_inside, kill, power, restart, kill_process, die_inside, drain, store_fails_over, store_emptied, store_away,
    wall_jump,
]  # fmt: skip


async def traffic(world: World, seconds: float, until: Callable[[], bool] | None = None) -> bool:
    """Time passes, clients send, homes give back what is safe."""
    end = world.time.now_ns + round(seconds * SECOND)
    while world.time.now_ns < end:
        world.accept()
        reached = await world.run(world.random.uniform(0.2, 1.2), until)
        if until is not None and reached:
            return True
        if world.random.random() < 0.3:
            node = world.some()
            if node.alive and not node.machine.paused:
                node.retire()
        world.examine()
    return until is None


def calm(world: World) -> bool:
    """Everybody is there, and has what it shall have."""
    return world.members.settled() and world.complete()


async def come_to_rest(world: World) -> None:
    """The end of all faults: everything is delivered, exactly."""
    heal(world)
    store_back(world)
    world.stops_inside = ""
    for node in world.nodes:
        node.resume()
        if not node.alive:
            node.start()
        membership = node.member.membership
        if membership.draining:
            node.member.do(membership.drain(node.member.now_ns(), draining=False))
    if not await world.run(REST_S, lambda: calm(world)):
        raise AssertionError(f"not at rest {REST_S:.0f} s after the last fault: {world.standing()}")
    world.examine()
    for node in world.nodes:
        node.retire()


async def alone(world: World) -> None:
    """Faults one by one."""
    for _ in range(world.random.randint(1, 4)):
        fault = world.random.choice(ALONE)
        met(world, fault)
        await traffic(world, world.random.choice((0.3, 2, 5)))
        fault(world)
        await traffic(world, world.random.choice((1, 4, 12)))
        await come_to_rest(world)
        await world.run(CALM_S)


async def crossing(world: World) -> None:
    """Cuts, one by one, and clients that know nothing of them."""
    world.copies_cross = True
    for _ in range(world.random.randint(1, 2)):
        fault = world.random.choice((split, cut_one_way, cut_both_ways))
        met(world, fault)
        await traffic(world, world.random.choice((0.3, 2, 5)))
        fault(world)
        await traffic(world, world.random.choice((4, 12)))
        await come_to_rest(world)
        await world.run(CALM_S)


async def anything(world: World) -> None:
    """Faults beside each other, now and then or one upon the other."""
    world.doubtful = True
    end = world.time.now_ns + round(world.random.uniform(10, 60) * SECOND)
    waits = (0.2,) if world.sim.one_in(2) else (0.2, 1, 3, 8)
    while world.time.now_ns < end:
        await traffic(world, world.random.choice(waits))
        fault = world.random.choices(list(FAULTS), list(FAULTS.values()))[0]
        met(world, fault)
        fault(world)
    await come_to_rest(world)


def met(world: World, fault: Fault) -> None:
    world.sim.note(f"{world.time.now_ns / SECOND:.2f} {fault.__name__}")
    world.met[fault.__name__] += 1


async def story(sim: Simulation, parts: Parts, kind: Callable[[World], object] | None = None) -> World:
    """Start, faults, rest."""
    count = sim.random.choice((2, 3, 3, 3, 4))
    world = World(sim, count, parts)
    with simulated(world):
        try:
            for node in world.nodes:
                node.start()
            if not await world.run(START_S, world.members.settled):
                raise AssertionError(f"no cluster after {START_S:.0f} s: {world.standing()}")
            await (kind or sim.random.choice((alone, anything)))(world)  # type: ignore[misc]
            if world.failure is not None:
                raise world.failure
        finally:
            world.end()
    return world


def play(sim: Simulation, parts: Parts = REAL, kind: Callable[[World], object] | None = None) -> World:
    """A whole history on a loop of its own. An error that nobody waited for is raised at the end."""
    loop = ProcessLoop(sim.seed, sim.time, steps_max=5_000_000)
    asyncio.set_event_loop(loop)
    try:
        world = loop.run_until_complete(story(sim, parts, kind))
        for told in loop.unhandled:
            if isinstance(told.get("exception"), Dead):
                continue  # it died inside of a call, in a callback of the loop
            raise told.get("exception") or RuntimeError(told["message"])
        return world
    finally:
        asyncio.set_event_loop(None)
        loop.close()
