"""Each line of the cluster's semantics has a test that names it, or the page says why not."""

from __future__ import annotations

from scripts.semantics import LACKS, LINES, result, shown_by_tests
from tests.parts import ROOT

NO_TEST_YET = {"J4", "J5", "KR1", "M8"}
"""Lines without any test; whoever writes one takes it out of here, whoever removes one must say so."""


def test_every_line_is_named_by_a_test_or_has_its_reason() -> None:
    without = {name for name, tests in shown_by_tests(ROOT).items() if not tests}
    assert without <= NO_TEST_YET
    assert without <= LACKS.keys() <= LINES.keys()


def test_the_result_follows_from_the_tests_and_from_what_lacks() -> None:
    named = shown_by_tests(ROOT)["C1"]
    assert result("C1", named) == "shown"
    assert result("H7", named).startswith("in part: partitions of nodes")
    assert result("M8", []).startswith("no test: not built")
