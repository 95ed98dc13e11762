"""Each invariant of the main road has a test that names it."""

from __future__ import annotations

from scripts.invariants import named_by_tests
from tests.parts import ROOT


def test_every_invariant_is_named_by_a_test() -> None:
    assert [name for name, tests in named_by_tests(ROOT).items() if not tests] == []
