"""The decisions of the deliver loop (destinations/plan.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.destinations.plan import (
    Link,
    Load,
    Paused,
    Private,
    Standing,
    Wait,
    due_s,
    examine,
    passed,
    plan,
    standing,
)
from headwater.event.position import EMPTY, Position, Vector, WriterId
from tests.chains import vector

ALL = frozenset({0, 1, 2, 3})


def links(*ends: int, first: int = 0, partitions: frozenset[int] = ALL) -> list[Link]:
    found = []
    for end in ends:
        found.append(Link(vector(first), vector(end), partitions, end - first))
        first = end
    return found


def at(seq: int) -> Standing:
    return standing(dict.fromkeys(ALL, vector(seq)))


def test_links_are_merged_until_a_load_is_full() -> None:
    chain = links(10, 20, 30, 40)
    assert plan(at(0), [chain], 25) == Load(0, 0, 3, (0, 1, 2, 3), 30)
    assert plan(at(0), [chain], 20) == Load(0, 0, 2, (0, 1, 2, 3), 20)
    assert plan(at(10), [chain], 1000) == Load(0, 1, 4, (0, 1, 2, 3), 30)


def test_a_commit_larger_than_a_load_goes_alone() -> None:
    assert plan(at(0), [links(100, 101)], 10) == Load(0, 0, 1, (0, 1, 2, 3), 100)


def test_ahead_of_the_chain_waits() -> None:
    assert plan(at(50), [links(10, 20)], 100) == Wait()
    assert plan(at(0), [[]], 100) == Wait()


def test_a_subset_that_fell_behind_goes_first_and_alone() -> None:
    """INV-DST-2."""
    groups = standing({0: vector(10), 1: vector(10), 2: vector(0), 3: vector(0)})
    assert plan(groups, [links(10, 20)], 100) == Load(0, 0, 2, (2, 3), 20)


def test_off_the_chain_a_private_run_leads_to_where_a_link_begins() -> None:
    chain = links(20, 30, first=10)
    assert plan(at(5), [chain], 100) == Private((0, 1, 2, 3), vector(5), vector(10))
    assert plan(at(0), [chain], 100) == Private((0, 1, 2, 3), EMPTY, vector(10))
    assert plan(at(15), [chain], 100) == Private(
        (0, 1, 2, 3), vector(15), vector(20)
    )  # inside a link: to its end
    assert plan(at(20), [chain], 100) == Load(0, 1, 2, (0, 1, 2, 3), 10)


def test_a_private_run_takes_the_partitions_that_stand_together_and_share_a_chain() -> None:
    low, high = frozenset({0, 1}), frozenset({2, 3})
    chains = [links(20, first=10, partitions=low), links(30, first=12, partitions=high)]
    assert plan(at(5), chains, 100) == Private((0, 1), vector(5), vector(10))
    groups = standing({0: vector(20), 1: vector(5), 2: vector(5), 3: vector(7)})
    assert plan(groups, chains, 100) == Private((1,), vector(5), vector(10))
    groups = standing({0: vector(20), 1: vector(20), 2: vector(5), 3: vector(7)})
    assert plan(groups, chains, 100) == Private((2,), vector(5), vector(12))


def test_one_private_run_passes_all_void_links_of_a_partition_that_moved() -> None:
    """Found by `make chaos --nodes 3`: it had been elsewhere, and is ahead of the void links with one log (2), behind
    them with another (1). One run for each link took minutes."""

    def both(one: int, two: int) -> Vector:
        return Vector({WriterId(1): Position(1, one), WriterId(2): Position(1, two)})

    void = [Link(both(n, 0), both(n + 1, 0), ALL, 1) for n in range(20)]
    again = [Link(both(n, 9), both(n + 1, 9), ALL, 1) for n in range(12, 15)]
    groups = standing(dict.fromkeys(ALL, both(5, 9)))
    assert plan(groups, [void + again], 100) == Private((0, 1, 2, 3), both(5, 9), both(12, 9))
    groups = standing(dict.fromkeys(ALL, both(5, 10)))
    assert plan(groups, [void + again], 100) == Private((0, 1, 2, 3), both(5, 10), both(15, 10))


def test_what_stands_on_the_chain_goes_before_what_does_not() -> None:
    groups = standing({0: vector(10), 1: vector(10), 2: vector(5), 3: vector(5)})
    assert plan(groups, [links(20, first=10)], 100) == Load(0, 0, 1, (0, 1), 10)


def test_a_partition_that_moved_to_another_log_waits_for_the_older_one() -> None:
    """The number of processors changed: partition 0 went from log 1 to log 0."""
    both, one = frozenset({0, 1}), frozenset({0})
    chains = [links(20, first=10, partitions=both), links(10, partitions=one)]
    groups = standing({0: vector(0), 1: vector(10)})
    assert plan(groups, chains, 100) == Load(0, 0, 1, (1,), 10)
    groups = standing({0: vector(0), 1: vector(20)})
    assert plan(groups, chains, 100) == Load(1, 0, 1, (0,), 10)
    groups = standing({0: vector(10), 1: vector(20)})
    assert plan(groups, chains, 100) == Load(0, 0, 1, (0,), 10)


def test_a_missing_row_is_told_from_a_new_destination() -> None:
    held = {0: vector(5), 1: vector(5)}
    assert examine({}, {}, range(2)) is None
    assert examine(held, {}, range(2)) is None
    assert examine(held, held, range(2)) is None
    assert examine({}, held, range(2)) == Paused("position_missing", (0, 1))
    assert examine({0: vector(5)}, held, range(2)) == Paused("position_missing", (1,))


def test_a_restored_destination_is_seen() -> None:
    remembered = {0: vector(5), 1: vector(5)}
    assert examine({0: vector(9), 1: vector(5)}, remembered, range(2)) is None
    assert examine({0: vector(5), 1: vector(4)}, remembered, range(2)) == Paused(
        "destination_went_back", (1,), "here"
    )
    elsewhere = Vector({WriterId(9 << 16): Position(1, 100)})
    assert examine({0: elsewhere, 1: vector(5)}, remembered, range(2)) == Paused(
        "destination_went_back", (0,), "here"
    )


def test_loads_are_spaced_by_what_they_cost_within_bounds() -> None:
    bounds = {"shortest_s": 0.2, "longest_s": 1.0}
    assert due_s(5.0, 0.01, full=False, **bounds) == 0
    assert due_s(0.05, 0.01, full=True, **bounds) == 0
    assert round(due_s(0.05, 0.01, full=False, **bounds), 3) == 0.15
    assert round(due_s(0.0, 0.1, full=False, **bounds), 3) == 0.4
    assert due_s(0.0, 9.0, full=False, **bounds) == 1.0


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    stands=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    rows_full=st.integers(1, 12),
)
def test_following_the_plan_passes_every_partition_over_every_link_once(
    sizes: list[int], stands: list[int], rows_full: int
) -> None:
    """Each partition, wherever on the chain it stands, is taken over each later link exactly once and in order."""
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    chain = links(*ends)
    have = {p: vector(([0, *ends])[min(n, len(ends))]) for p, n in enumerate(stands)}
    taken: dict[int, list[Link]] = {p: [] for p in ALL}
    begun = dict(have)
    for _ in range(4 * len(chain) + 1):
        decision = plan(standing(have), [chain], rows_full)
        if isinstance(decision, Wait):
            break
        assert isinstance(decision, Load)
        for p in decision.partitions:
            taken[p] += chain[decision.first : decision.end]
            have[p] = chain[decision.end - 1].target
    assert all(v == chain[-1].target for v in have.values())
    for p in ALL:
        assert taken[p] == [link for link in chain if not link.target <= begun[p]]
    assert all(passed(standing(have), link) for link in chain)


def test_an_empty_vector_is_zero() -> None:
    assert vector(0) == EMPTY
