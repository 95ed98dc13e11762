"""Values that found no column: how many by name, with the first of each as an example. Names are bounded."""

from __future__ import annotations

NAMES_MAX = 100
EXAMPLE_CHARS_MAX = 120
OTHERS = "…"
"""The name under which the rest is counted."""


class Unmapped:
    """Counts since the process began; the values themselves stand in ``_unmapped``."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[int, str]] = {}

    def note(self, name: str, value: object) -> None:
        """One more value of this name."""
        if name not in self.values and len(self.values) >= NAMES_MAX:
            name = OTHERS
        count, example = self.values.get(name, (0, str(value)[:EXAMPLE_CHARS_MAX]))
        self.values[name] = (count + 1, example)


def told(*counted: Unmapped) -> dict[str, dict[str, object]]:
    """Name → count and example, for reports."""
    found: dict[str, dict[str, object]] = {}
    for one in counted:
        for name, (count, example) in dict(one.values).items():
            before = found.get(name)
            total = count + (int(str(before["count"])) if before else 0)
            found[name] = {"count": total, "example": before["example"] if before else example}
    return found
