"""Settings of recognition."""

from __future__ import annotations

import msgspec

from headwater.identity.owner import Policy

DAY_US = 86_400_000_000


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose an anonymous visitor's events are. Rows that are there follow when facts of their visitor come next."""

    look_back_days: float = 30.0
    """How long before a login the events of an anonymous id belong to the one who logs in, days."""
    recognise_after_logout: bool = False
    """Whether what comes after a logout belongs to the next one who logs in, as what comes before the first does."""
    shared_users_max: int = 64
    """An anonymous id with more users than this is a shared device: its events stay anonymous."""
    junk_ids: list[str] = []
    """Ids that name nobody, beside those that are known (docs/guides/recognition.md); case does not matter."""
    settle_interval_ms: int = 200
    """How long a destination waits after facts came before it corrects rows, milliseconds: one pass for many logins."""
    settle_ids_max: int = 2000
    """Anonymous ids of one pass."""
    settle_rows_max: int = 50_000
    """Rows that one pass corrects; fresh rows go between two."""
    cached_ids: int = 100_000
    """Anonymous ids that a processor keeps in memory, about 300 bytes each; others are looked up on disk."""
    filter_bytes: int = 16 * 1024**2
    """Memory of each processor's filter of ids that have facts; enough for 10 million of them."""
    store_bytes_max: int = 16 * 1024**3
    """How large the facts of one processor may grow on disk, bytes; a visitor who never logs in takes none."""

    def __post_init__(self) -> None:
        for name, least, most in IDENTITY_BOUNDS:
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}: expected a number from {least} to {most}, got {value}")

    @property
    def policy(self) -> Policy:
        """What the function needs of them."""
        return Policy(int(self.look_back_days * DAY_US), self.recognise_after_logout, self.shared_users_max)


IDENTITY_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("look_back_days", 0, 3650),
    ("shared_users_max", 1, 100_000),
    ("settle_interval_ms", 0, 3_600_000),
    ("settle_ids_max", 1, 1_000_000),
    ("settle_rows_max", 1, 100_000_000),
    ("cached_ids", 1, 100_000_000),
    ("filter_bytes", 1024, 1 << 36),
    ("store_bytes_max", 16 * 1024**2, 1 << 44),
)
