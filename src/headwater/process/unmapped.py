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
    total: dict[str, tuple[int, str]] = {}
    for one in counted:
        for name, (count, example) in dict(one.values).items():
            before, first = total.get(name, (0, example))
            total[name] = (before + count, first)
    return {name: {"count": count, "example": example} for name, (count, example) in total.items()}
