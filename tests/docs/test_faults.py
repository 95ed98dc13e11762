"""docs/faults.md names tests that exist, each in the file that stands before it."""

from __future__ import annotations

import re

from tests.parts import ROOT

TEXT = (ROOT / "docs" / "faults.md").read_text("utf-8")


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    everywhere = {p: p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+)`", TEXT)
    assert len(named) > 30
    assert [name for name in named if not any(f"def {name}(" in text for text in everywhere.values())] == []


def test_every_file_that_the_table_of_faults_names_holds_what_stands_behind_it() -> None:
    for path, tests in re.findall(r"`(tests/[\w/]+\.py)`((?: `test_\w+`,?)*)", TEXT):
        assert (ROOT / path).is_file(), path
        text = (ROOT / path).read_text("utf-8") if path != "tests/docs/test_faults.py" else ""
        assert [name for name in re.findall(r"`(test_\w+)`", tests) if f"def {name}(" not in text] == [], path
