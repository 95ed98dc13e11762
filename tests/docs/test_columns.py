"""docs/reference/columns.md names every standard column with its kind and meaning."""

from __future__ import annotations

from headwater.process.columns import COLUMNS
from tests.parts import ROOT


def test_every_standard_column_is_described() -> None:
    text = (ROOT / "docs/reference/columns.md").read_text()
    missing = [c.name for c in COLUMNS if f"| `{c.name}` | {c.kind} | {c.meaning} |" not in text]
    assert not missing
