"""Each invariant of the main road has a test that names it."""

from __future__ import annotations

import re

from scripts.invariants import named_by_tests
from tests.parts import ROOT


def test_every_invariant_is_named_by_a_test() -> None:
    assert [name for name, tests in named_by_tests(ROOT).items() if not tests] == []


def test_what_says_that_a_mistake_is_found_is_marked_as_a_broken_variant() -> None:
    named = [one for tests in named_by_tests(ROOT).values() for one in tests]
    assert [one for one in named if re.search("_(is|are)_found$", one.test) and not one.broken] == []
    assert any(one.broken for one in named) and not all(one.broken for one in named)
