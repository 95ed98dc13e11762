"""Each invariant of the main road has a test that names it."""

from __future__ import annotations

from scripts.invariants import tests_by_invariant
from tests.parts import ROOT


def test_every_invariant_is_named_by_a_test() -> None:
    assert [name for name, tests in tests_by_invariant(ROOT).items() if not tests] == []
