"""Settings that every destination has; an adapter's settings add its own (``registry``)."""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec


class DestinationSettings(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="type",
    omit_defaults=True,
):
    """How commits are delivered into one destination. None of these reloads without re-opening the destination."""

    start: str = "beginning"
    """Where a destination that was never delivered to begins: `beginning`, with everything that the logs still hold;
    `now`, with what comes from now on; or a time (`2026-11-21T18:00:00Z`), with what was received since then, as far as
    the raw log reaches back. What it does not get is counted as `filtered`."""
    on_restored: Literal["refill", "pause"] = "refill"
    """When it stands below what was delivered to it (an older copy was put in its place): fetch what it lacks from the
    logs at once, or wait for `headwater destination adopt NAME --from here`."""
    on_raw_full: Literal["refuse", "write_off"] = "refuse"
    """When the raw log is full of what only this destination lacks: refuse new events (503) until it has them, or give
    up the oldest of what it lacks, counted as `filtered`. A warning tells hours before, with the time that is left."""
    load_rows: int = 122_880
    """Rows at which a load is full; it ends with the commit that reaches them. 122,880 is DuckDB's row group: whole
    ones go straight into the file, without the write-ahead log (8.5 µs per row of 110 columns against 13 below it)."""
    load_interval_min_ms: int = 200
    """Shortest time between small loads, milliseconds; the first rows after silence go at once."""
    load_interval_max_ms: int = 1000
    """Longest time that a row waits for company, milliseconds."""
    load_interval_behind_ms: int = 5000
    """The same while processing works off a backlog, milliseconds: rows that are late already wait for a full load, as
    long as more of them keep coming."""
    poll_interval_ms: int = 20
    """How often the ready log is asked for new commits, milliseconds; asking reads eight bytes."""
    ahead_bytes_max: int = 256 * 1024 * 1024
    """Commits read ahead, bytes of each ready log: a load is never larger."""
    retry_interval_s: float = 5.0
    """How often a paused or unreachable destination is tried again, seconds."""
    replay_events_per_s: float = 5000.0
    """How fast `headwater replay` goes, events per second, where it is not told (`--rate`); fresh events go first."""
    refused_tries_max: int = 4000
    """How many tries one load's refused rows may take before the destination is paused instead."""

    @property
    def start_ns(self) -> int | None:
        """The time to begin at, ns since 1970; None where `start` is a word. ValueError: it is neither."""
        if self.start in ("beginning", "now"):
            return None
        at = datetime.datetime.fromisoformat(self.start)
        return int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp() * 1e6) * 1000

    def __post_init__(self) -> None:
        try:
            _ = self.start_ns
        except ValueError as error:
            raise ValueError(
                f"start: expected beginning, now or a time such as 2026-11-21T18:00:00Z, got {self.start!r}"
            ) from error
        if self.load_interval_max_ms < self.load_interval_min_ms:
            raise ValueError("load_interval_max_ms: expected at least load_interval_min_ms")
        if self.load_interval_behind_ms < self.load_interval_max_ms:
            raise ValueError("load_interval_behind_ms: expected at least load_interval_max_ms")
        if not self.replay_events_per_s > 0:
            raise ValueError("replay_events_per_s: expected more than 0")
        for name in ("load_rows", "poll_interval_ms", "ahead_bytes_max", "refused_tries_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1")
