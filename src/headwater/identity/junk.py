"""Ids that name nobody: what trackers send when they know no id (protocol.md §10)."""

from __future__ import annotations

from collections.abc import Iterable

ID_CHARS_MAX = 200
ID_BYTES_MAX = 500
"""A longer id, in UTF-8, is kept in its row, and links nobody: a store of facts has keys of 511 bytes."""
NUMBER_DIGITS_MAX = 7
"""An anonymous id of so few digits, and nothing else, is a counter: many visitors have it."""
WORDS = frozenset(
    {
        "",
        "-",
        "anon",
        "anonymous",
        "anonymousid",
        "anonymous_id",
        "false",
        "guest",
        "n/a",
        "na",
        "nan",
        "nil",
        "none",
        "not set",
        "(not set)",
        "null",
        "(null)",
        "object",
        "[object object]",
        "true",
        "undefined",
        "unknown",
        "user",
        "userid",
        "user_id",
    }
)


class Junk:
    """Which ids name nobody."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self.words = WORDS | {word.strip().lower() for word in more}

    def user(self, value: str) -> bool:
        """Whether a user id names nobody."""
        if len(value) > ID_CHARS_MAX or len(value.encode("utf-8", "surrogatepass")) > ID_BYTES_MAX:
            return True
        plain = value.strip().lower()
        return plain in self.words or ("-" in plain and len(set(plain) - {"-"}) <= 1)

    def anonymous(self, value: str) -> bool:
        """Whether an anonymous id names nobody: beside that, one sign over and over, or a few digits."""
        if self.user(value):
            return True
        plain = value.strip()
        return len(set(plain) - {"-"}) <= 1 or (plain.isdigit() and len(plain) <= NUMBER_DIGITS_MAX)
