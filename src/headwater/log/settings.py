"""Settings of the logs."""

from __future__ import annotations

import msgspec

COMPRESS_AFTER_S_MAX = 31 * 86_400.0
COMPRESS_LEVEL_MAX = 19


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
    compress_after_s: float = 600.0
    """Age from which raw segments are compressed in the background, once they are full and processed; 0 turns it off.
    Most of what reads the raw log again (a destination that was briefly away) is over by then."""
    compress_level: int = 1
    """Level of zstd, 1 to 19. 3 saves a little more room and takes more time of the processor (docs/operating.md)."""

    def __post_init__(self) -> None:
        for name in ("segment_bytes", "ready_segment_bytes"):
            value = getattr(self, name)
            if value % 4096 or value < 8 * 1024 * 1024:
                raise ValueError(f"{name}: expected a multiple of 4096 of at least 8388608, got {value}")
        if not 0 <= self.compress_after_s <= COMPRESS_AFTER_S_MAX:
            raise ValueError(
                f"compress_after_s: expected 0 to {COMPRESS_AFTER_S_MAX:.0f} seconds, got {self.compress_after_s}"
            )
        if not 1 <= self.compress_level <= COMPRESS_LEVEL_MAX:
            raise ValueError(f"compress_level: expected 1 to {COMPRESS_LEVEL_MAX}, got {self.compress_level}")
