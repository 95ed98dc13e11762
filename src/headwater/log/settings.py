"""Settings of the logs."""

from __future__ import annotations

import msgspec


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How log files are laid out and kept. None of these reloads."""

    segment_bytes: int = 64 * 1024 * 1024
    """Size of a raw segment, bytes. Larger ones are prepared less often; smaller ones give space back sooner.
    A third of a worker's quota where that is less (data_bytes_max)."""
    ready_segment_bytes: int = 64 * 1024 * 1024
    """Size of a segment of the ready log, bytes; at least two blocks of 4 MiB."""
    spare_segments_max: int = 4
    """How many passed segments each writer keeps for recycling; a recycled one needs no zeroing."""
    retain_s: float = 86_400.0
    """How long raw segments are kept after every destination has them, for replay and restored warehouses. A wish:
    when raw is over its quota, the oldest of them go first, with an advisory (protocol.md §17.9)."""

    raw_full_warning_s: float = 21_600.0
    """How long before the raw log will be full of what a destination lacks, at the rate of the last ten minutes, a
    warning begins, seconds."""

    def __post_init__(self) -> None:
        for name in ("segment_bytes", "ready_segment_bytes"):
            value = getattr(self, name)
            if value % 4096 or value < 8 * 1024 * 1024:
                raise ValueError(f"{name}: expected a multiple of 4096 of at least 8388608, got {value}")
