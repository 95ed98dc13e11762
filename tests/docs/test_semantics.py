"""Each line of the cluster's semantics has a test that names it, or the page says why not."""

from __future__ import annotations

from scripts.semantics import LACKS, LINES, result, shown_by_tests
from tests.parts import ROOT

NO_TEST_YET = {"C10", "H6", "J4", "J5", "KR1", "M8", "R7"}
"""Lines without any test; whoever writes one takes it out of here, whoever removes one must say so."""


def test_every_line_is_named_by_a_test_or_has_its_reason() -> None:
    without = {name for name, tests in shown_by_tests(ROOT).items() if not tests}
    assert without <= NO_TEST_YET
    assert without <= LACKS.keys() <= LINES.keys()


def test_the_result_follows_from_the_tests_and_from_what_lacks() -> None:
    named = shown_by_tests(ROOT)["C1"]
    assert result("C1", named) == "shown"
    assert result("C5", named).startswith("in part: `spooled` is not built")
    assert result("M8", []).startswith("no test: not built")
