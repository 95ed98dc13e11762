"""Whatever happens on either side, the standby's folder is the state at the vector that it names (INV-STATE)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.kit.errors import Broken
from tests.unit.node.standby import broken
from tests.unit.node.standby.world import STEPS, Lossy, World, steps, story

SEEDS = 40


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.sampled_from(STEPS), max_size=40))
def test_inv_state_a_standby_holds_the_state_at_a_vector_whatever_happens(
    seed: int, names: list[str]
) -> None:
    story(World, seed, names)


@pytest.mark.slow
def test_inv_state_a_standby_holds_the_state_at_a_vector_over_long_stories() -> None:
    told = [story(World, seed, list(steps(seed, 80))) for seed in range(SEEDS)]
    assert sum(world.bases for world in told) > SEEDS and sum(world.moves for world in told) > SEEDS


@pytest.mark.slow
def test_inv_state_a_delta_that_does_not_go_on_is_refused() -> None:
    for seed in range(SEEDS):
        story(Lossy, seed, list(steps(seed, 80)))


@pytest.mark.slow
@pytest.mark.broken_variant
def test_inv_state_taking_a_delta_that_does_not_go_on_is_found() -> None:
    class Mistaken(Lossy):
        make_sink = broken.TakesAnything

    with pytest.raises(AssertionError, match="ids missing"):
        for seed in range(SEEDS):
            story(Mistaken, seed, list(steps(seed, 80)))


@pytest.mark.slow
@pytest.mark.broken_variant
@pytest.mark.parametrize(
    ("part", "variant", "message"),
    [
        ("make_source", broken.IdsAhead, "ids ahead"),
        ("make_source", broken.RunsBeforeFold, "ids missing"),
        ("make_sink", broken.FoldFirst, "ids missing"),
    ],
)
def test_inv_state_a_mistake_in_the_order_of_things_is_found(part: str, variant: type, message: str) -> None:
    class Mistaken(World):
        pass

    setattr(Mistaken, part, variant)
    with pytest.raises((AssertionError, Broken), match=message):
        for seed in range(SEEDS * 3):
            story(Mistaken, seed, list(steps(seed, 80)))
