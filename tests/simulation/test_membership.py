"""Members of a cluster under faults (protocol.md §9; lines J, F, P of kuzzle.md §8.3; M, H of jetstream.md §15)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from headwater.cluster.membership import Membership, Rules
from headwater.kit.clock import SystemClock
from headwater.kit.simulate import run
from headwater.kit.simulate.run import Simulation
from tests.simulation import member_broken as broken
from tests.simulation.member_story import story
from tests.simulation.member_world import SECOND, Node, World

SEEDS = int(os.environ.get("HEADWATER_SEEDS", "2000"))
BUDGET_NS = 85 * SECOND
H_S = 2.0


def any_faults(sim: Simulation) -> None:
    """`make simulate`: kills, pauses, cuts, stores that forget; then one view."""
    story(sim)


def some_histories(seeds: range) -> int:
    """In a process of their own."""
    return run.simulate(any_faults, seeds)


@pytest.mark.slow
def test_members_keep_the_rules_under_any_faults_and_agree_when_they_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """INV-CLU-1, INV-OWN-2; standby ≠ owner; evictions with a witness; one view at the end. 2,000 seeds, or as many as
    there is time for."""
    first = int(os.environ.get("HEADWATER_SEED", "0"))
    clock, ran = SystemClock(), 0
    end_ns = clock.boot_ns() + BUDGET_NS
    chunks = [range(first + at, first + min(at + 20, SEEDS)) for at in range(0, SEEDS, 20)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for done in pool.map(some_histories, chunks):
            ran += done
            if clock.boot_ns() > end_ns and "HEADWATER_SEEDS" not in os.environ:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    with capsys.disabled():
        print(f"\nmembership: {ran} histories in {(clock.boot_ns() - end_ns + BUDGET_NS) / 1e9:.0f} s")
    assert ran >= min(SEEDS, 100)


@pytest.mark.slow
def test_histories_hold_what_they_are_meant_to_hold() -> None:
    """Not vacuous: evictions, re-joins, pauses, refusals and leaders that change all occur."""
    met: Counter[str] = Counter()
    for seed in range(60):
        met += story(Simulation(seed)).met
    assert set(met) >= {
        "joined",
        "evicted",
        "left",
        "restarted",
        "leads",
        "rejoins",
        "stood_still",
        "draining",
    }
    assert min(met["evicted"], met["rejoins"], met["restarted"], met["stood_still"]) > 10


def test_a_seed_is_one_history() -> None:
    def digest(seed: int) -> object:
        world = story(Simulation(seed))
        return world.now_ns, world.count, world.messages, world.nodes[0].membership.table

    assert digest(5) == digest(5) != digest(6)


def found(make: Callable[..., Membership], words: str, first: int, seeds: int = 400) -> None:
    """The oracle says one of ``words`` within so many seeds from ``first`` on (those before find nothing)."""

    def scenario(sim: Simulation) -> None:
        story(sim, make)

    failure = run.first_failure(scenario, range(first, first + seeds))
    assert failure is not None, f"{seeds} seeds did not find it"
    assert any(word in str(failure[1]) for word in words.split("|")), failure


@pytest.mark.slow
@pytest.mark.broken_variant
@pytest.mark.parametrize(
    ("make", "words", "first"),
    [
        (broken.AdoptsSmaller, "INV-CLU-1", 0),
        (broken.LeadsWithoutMajority, "decides and sees", 0),
        (broken.ShrinksToItsMinority, "decides and sees", 120),
        (broken.EvictsAlone, "all others hear it", 15),
        (broken.GoesOn, "which was evicted|does not name it|no agreement", 0),
        (broken.KeepsIncarnation, "which was evicted|no agreement", 0),
        (broken.CountsItsOwnEpochs, "is not above", 10),
        (broken.TrustsItsLease, "without a lease", 0),
        (broken.KeepsTablesToItself, "no agreement", 105),
    ],
)
def test_a_broken_membership_is_found(make: Callable[..., Membership], words: str, first: int) -> None:
    """INV-CLU-1 and the rules around it."""
    found(make, words, first)


def started(seed: int, count: int, *, rules: Rules | None = None, store: bool = True) -> World:
    """A cluster that agreed, and ran for a moment."""
    world = World(Simulation(seed), count, rules=rules, store=store)
    if not store:
        world.connect_everybody()
    for node in world.nodes:
        node.start()
    assert world.run(30, world.settled)
    world.run(world.random.random() * 5)
    return world


def leader(world: World) -> Node:
    return next(node for node in world.running() if node.membership.leads(node.now_ns()))


def follower(world: World) -> Node:
    return next(node for node in reversed(world.running()) if not node.membership.leads(node.now_ns()))


def viable(world: World, *numbers: int) -> list[bool]:
    return [node.view is not None and node.view.viable for node in world.nodes if node.number in numbers]


def seconds_until(world: World, what: Callable[[], bool], most: float) -> float:
    began = world.now_ns
    assert world.run(most, what), f"not within {most} s"
    return (world.now_ns - began) / SECOND


def evicted(world: World, node: Node) -> Callable[[], bool]:
    """Everybody else who runs has a table without it."""
    return lambda: all(
        node.id not in one.membership.table.members for one in world.running() if one is not node
    )


@pytest.mark.parametrize("seed", range(5))
def test_j1_the_first_node_is_ready_within_two_seconds(seed: int) -> None:
    world = World(Simulation(seed), 1)
    world.nodes[0].start()
    assert seconds_until(world, world.agreed, 2.0) <= 2.0
    assert [one.event for one in world.nodes[0].activity if one.event == "joined"] == ["joined"]


@pytest.mark.parametrize("seed", range(5))
def test_j2_too_few_nodes_are_not_ready_and_say_why_until_the_last_one_comes(seed: int) -> None:
    """And P1: they are not ready again when one goes, without a restart."""
    world = World(Simulation(seed), 3, rules=Rules(minimum_nodes=3, partitions=16))
    for node in world.nodes[:2]:
        node.start()
    world.run(10)
    assert viable(world, 0, 1) == [False, False]
    assert world.nodes[0].view is not None
    assert "cluster.minimum_nodes is 3" in world.nodes[0].view.why
    world.nodes[2].start()
    assert world.run(2.5, world.agreed)
    world.nodes[2].kill()
    assert world.run(7, lambda: viable(world, 0, 1) == [False, False])
    world.nodes[2].start()
    assert world.run(4, world.agreed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("store", [True, False])
def test_j3_ten_nodes_at_once_agree_within_ten_seconds(seed: int, store: bool) -> None:
    world = World(Simulation(seed), 10, store=store)
    if not store:
        world.connect_everybody()
    for node in world.nodes:
        world.after(world.random.randrange(SECOND), node.start)
    world.run(1)
    assert world.run(9, world.agreed)
    assert not world.oracle.evictions


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("who", [leader, follower])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_f1_a_dead_or_stopped_node_is_evicted_within_seven_seconds(
    seed: int, who: Callable[[World], Node], how: str
) -> None:
    """H1, H2, H3; a dead leader as well: the others take its lease."""
    world = started(seed, 3 + seed % 3)
    node = who(world)
    if how == "kill":
        node.kill()
    else:
        node.paused = True
    assert seconds_until(world, evicted(world, node), 7.0) > 2
    assert any(
        one.event == "evicted" and one.reason == "heartbeat timeout" for one in seen_by_others(world, node)
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [2, 3])
def test_f1_where_the_lease_cannot_be_taken_a_dead_leader_is_evicted_when_it_runs_out(
    seed: int, count: int
) -> None:
    """Two nodes never take it: each would be half."""
    world = started(seed, count)
    world.can_break = count == 2
    node = leader(world)
    node.kill()
    assert seconds_until(world, evicted(world, node), 14.0) > 6


def seen_by_others(world: World, node: Node) -> list:
    return [
        entry for one in world.running() if one is not node for entry in one.activity if entry.node == node.id
    ]


@pytest.mark.parametrize("seed", range(5))
def test_f2_who_says_goodbye_has_left_and_was_not_evicted(seed: int) -> None:
    world = started(seed, 4)
    node = follower(world)
    node.do(node.membership.leave(node.now_ns()))
    node.kill()
    assert seconds_until(world, evicted(world, node), 0.5) <= 0.5
    assert {one.event for one in seen_by_others(world, node)} == {"joined", "left"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("who", [leader, follower])
def test_f3_a_short_stop_changes_nothing(seed: int, who: Callable[[World], Node]) -> None:
    """F4, too: a stall below 3H."""
    world = started(seed, 3)
    epoch, node = world.nodes[0].membership.table.epoch, who(world)
    node.paused = True
    world.run(1.5 * H_S)
    node.resume()
    world.run(5)
    assert world.agreed() and world.nodes[0].membership.table.epoch == epoch


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("who", [leader, follower])
def test_f3_a_node_that_was_stopped_for_long_comes_back_in_the_same_process_as_another(
    seed: int, count: int, who: Callable[[World], Node]
) -> None:
    world = started(seed, count)
    node = who(world)
    life, incarnation = node.life, node.membership.me.incarnation
    node.paused = True
    world.run(5 * H_S)
    assert evicted(world, node)() or count == 2
    world.run(5)
    assert evicted(world, node)()
    node.resume()
    assert not any(viable(world, node.number))
    assert world.run(10, world.agreed)
    assert node.life == life and node.membership.me.incarnation > incarnation
    assert {"stood_still", "rejoins"} <= {one.event for one in node.activity}


@pytest.mark.parametrize("seed", range(5))
def test_f5_without_the_store_the_members_go_on_and_nobody_comes_in(seed: int) -> None:
    """M5."""
    world = started(seed, 4)
    newcomer = Node(world, 4)
    world.nodes.append(newcomer)
    world.by_id[newcomer.id] = newcomer
    world.store_up = False
    world.run(11)  # the lease may run for a while
    newcomer.start()
    newcomer.do(newcomer.membership.met(world.nodes[0].id, newcomer.now_ns()))
    for _ in range(60):
        world.run(1)
        assert viable(world, 0, 1, 2, 3) == [True] * 4
    assert newcomer.view is not None and "no leader is heard" in newcomer.view.why
    assert not world.oracle.evictions
    world.store_up = True
    assert world.run(20, world.agreed)


@pytest.mark.parametrize("seed", range(5))
def test_f6_who_is_evicted_again_and_again_comes_back_later_each_time(seed: int) -> None:
    world = started(seed, 3)
    node, waits = world.nodes[2], []
    for _ in range(4):
        node.paused = True
        assert world.run(20, evicted(world, node))
        gone = world.now_ns
        node.resume()
        assert world.run(30, world.agreed)
        waits.append((world.now_ns - gone) / SECOND)
    for wait, least in zip(waits, (1, 2, 4, 8), strict=True):
        assert least - 0.3 <= wait <= least + 2


@pytest.mark.parametrize("seed", range(10))
def test_p2_the_side_of_three_goes_on_and_the_side_of_two_stops(seed: int) -> None:
    """H3."""
    world = started(seed, 5, rules=Rules(minimum_nodes=3, partitions=16))
    world.split({0, 1, 2}, {3, 4})
    assert seconds_until(world, lambda: viable(world, 3, 4) == [False, False], 3 * H_S + 1) > 2
    for _ in range(200):
        world.run(0.1)
        assert viable(world, 3, 4) == [False, False]
        assert viable(world, 0, 1, 2) == [True] * 3
    assert all(world.members_of(world.nodes[n]) == {0, 1, 2} for n in (0, 1, 2))
    world.heal()
    assert seconds_until(world, world.agreed, 3 * H_S) <= 3 * H_S
    assert all(node.life == 1 for node in world.nodes)


@pytest.mark.parametrize("seed", range(10))
def test_p3_of_two_halves_the_one_with_the_lease_goes_on(seed: int) -> None:
    world = started(seed, 4)
    holder = leader(world).number
    mine = {holder, (holder + 1) % 4}
    world.split(mine, {0, 1, 2, 3} - mine)
    world.run(3 * H_S + 1)
    for _ in range(300):
        world.run(0.1)
        assert viable(world, *mine) == [True, True]
        assert not any(viable(world, *({0, 1, 2, 3} - mine)))
    world.heal()
    assert world.run(10, world.agreed)


@pytest.mark.parametrize("seed", range(5))
def test_p3_without_a_store_neither_half_goes_on(seed: int) -> None:
    world = started(seed, 4, store=False)
    world.split({0, 1}, {2, 3})
    world.run(3 * H_S + 1)
    for _ in range(100):
        world.run(0.1)
        assert not any(viable(world, 0, 1, 2, 3))
    world.heal()
    assert world.run(10, world.agreed)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("deaf", [leader, follower, None])
def test_p4_of_two_ends_of_a_half_cut_link_at_most_one_leaves(
    seed: int, deaf: Callable[[World], Node] | None
) -> None:
    world = started(seed, 5)
    one = deaf(world) if deaf else next(n for n in world.nodes if n not in (leader(world), follower(world)))
    other = next(node for node in world.nodes if node is not one and node is not leader(world))
    world.cut(other, one, one_way=True)
    world.run(60)
    tables = {node.membership.table.order for node in world.nodes if node is not other}
    assert len(tables) == 1
    assert {0, 1, 2, 3, 4} - world.members_of(one) <= {other.number}
    assert {gone for _, gone, _ in world.oracle.evictions} <= {other.id}
    assert len(world.oracle.evictions) <= 1, "it came back though the link was still cut"
    world.heal()
    assert world.run(20, world.agreed)


@pytest.mark.parametrize("seed", range(5))
def test_p5_ten_nodes_killed_down_to_three_leave_three_that_go_on(seed: int) -> None:
    world = started(seed, 10)
    for node in world.nodes[:7]:
        node.kill()
        world.run(7)
    assert world.agreed() and len(world.running()) == 3


@pytest.mark.parametrize("seed", range(3))
def test_p5_ten_nodes_that_leave_one_by_one_leave_three_that_go_on(seed: int) -> None:
    world = started(seed, 10)
    for node in world.nodes[:7]:
        node.do(node.membership.leave(node.now_ns()))
        node.kill()
        assert world.run(15, world.agreed)
        assert all(viable(world, *(one.number for one in world.running())))
    assert len(world.running()) == 3
    assert {why for _, _, why in world.oracle.evictions} == {"left"}


@pytest.mark.parametrize("seed", range(3))
def test_m6_a_new_table_is_at_each_of_twenty_nodes_within_a_second(seed: int) -> None:
    world = started(seed, 20)
    before, node = world.nodes[0].membership.table.epoch, follower(world)
    node.do(node.membership.drain(node.now_ns()))
    newer = [lambda one=one: one.membership.table.epoch > before for one in world.nodes]
    assert world.run(3, lambda: any(has() for has in newer))
    assert seconds_until(world, lambda: all(has() for has in newer), 1.0) <= 1.0


@pytest.mark.parametrize("seed", range(5))
def test_j7_who_joins_through_a_node_that_dies_joins_through_another(seed: int) -> None:
    world = started(seed, 4)
    newcomer, door = Node(world, 4), follower(world)
    world.nodes.append(newcomer)
    world.by_id[newcomer.id] = newcomer
    newcomer.start()
    newcomer.do(newcomer.membership.met(door.id, newcomer.now_ns()))
    door.kill()
    assert world.run(20, world.agreed)
    assert viable(world, newcomer.number) == [True] and newcomer.life == 1


@pytest.mark.parametrize("seed", range(5))
def test_m4_a_node_that_restarts_at_once_gets_its_partitions_back_and_nothing_else_moves(seed: int) -> None:
    world = started(seed, 4)
    node, owner = follower(world), world.nodes[0].membership.table.owner
    node.kill()
    world.run(1)
    node.wall_ms -= 86_400_000  # a wall clock that went back takes nothing from its new incarnation
    node.start()
    assert world.run(8, world.agreed)
    assert world.nodes[0].membership.table.owner == owner
    assert not world.oracle.evictions


@pytest.mark.parametrize("seed", range(5))
def test_h8_a_draining_member_owns_nothing_and_stays(seed: int) -> None:
    world = started(seed, 3)
    node = leader(world)
    node.do(node.membership.drain(node.now_ns()))
    assert world.run(10, lambda: node.id not in world.nodes[0].membership.table.owner)
    assert world.run(2, world.agreed)
    node.do(node.membership.drain(node.now_ns(), draining=False))
    assert world.run(10, lambda: node.id in world.nodes[0].membership.table.owner)


@pytest.mark.parametrize("seed", range(5))
def test_an_operator_evicts_through_any_node(seed: int) -> None:
    world = started(seed, 3)
    asked, gone = follower(world), leader(world)
    asked.do(asked.membership.evict(gone.id, "old disk", asked.now_ns()))
    world.run(1)
    assert world.agreed(), "a leader does not evict itself"
    other = next(node for node in world.nodes if node not in (asked, gone))
    asked.do(asked.membership.evict(other.id, "old disk", asked.now_ns()))
    assert world.run(1, evicted(world, other))
    assert any(one.event == "evicted" and one.reason == "old disk" for one in asked.activity)
    assert world.run(5, world.agreed)


@pytest.mark.parametrize("seed", range(5))
def test_a_cluster_that_is_started_again_goes_on_from_its_last_table(seed: int) -> None:
    """M1, and the store forgot everything meanwhile."""
    world = started(seed, 3)
    before = world.nodes[0].membership.table
    for node in world.nodes:
        node.kill()
    world.empty_store()
    world.run(20)
    for node in world.nodes:
        node.start()
    assert world.run(10, world.agreed)
    after = world.nodes[0].membership.table
    assert (
        after.epoch > before.epoch and after.cluster_id == before.cluster_id and after.owner == before.owner
    )
