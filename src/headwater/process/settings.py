"""Settings of processing."""

from __future__ import annotations

import msgspec

from headwater.event.slots import PARTITIONS_DEFAULT
from headwater.process.enrich.settings import EnrichSettings


class ProcessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How events are processed. Only what says so reloads."""

    workers: int = 1
    """Processors; each owns the partitions whose number has this remainder. One core each; does not reload."""
    cut_bytes_max: int = 24 * 1024 * 1024
    """Raw bytes of one cut. Larger cuts cost less per event and more memory (about 12 times this)."""
    poll_interval_s: float = 0.005
    """How long an idle processor waits before it looks at the watermarks again."""
    cut_interval_s: float = 0.03
    """How long a processor rests after a cut of few events: a cut costs milliseconds of CPU however small it is."""
    dedupe_window_s: float = 3600.0
    """Copies of one message id within this time of each other, by receive time, are one event."""
    dedupe_memory_bytes: int = 256 * 1024 * 1024
    """Memory for ids seen, per processor; when it is full the window gets shorter, which status shows."""
    columns_max: int = 500
    """Learned columns; what comes after them goes to `_unmapped`."""
    nested_depth_max: int = 3
    """Objects inside properties are flattened to this depth; below it they are kept as JSON."""
    dead_letters_max: int = 1_000_000
    """Dead letters kept for `headwater dead`; the oldest go first. They stay in the raw log until it is retired."""
    enrich: EnrichSettings = EnrichSettings()
    """What is looked up for each event: user agent, page, referrer, language, place, time. Reloads."""
    nice: int = 10
    """Niceness of processors, so that they never slow the door."""

    def __post_init__(self) -> None:
        for name, least, most in PROCESS_BOUNDS:
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}: expected a number from {least} to {most}, got {value}")


PROCESS_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("workers", 1, PARTITIONS_DEFAULT),
    ("cut_bytes_max", 65_536, 1_073_741_824),
    ("poll_interval_s", 0.0001, 60),
    ("cut_interval_s", 0, 60),
    ("dedupe_window_s", 0, 31 * 86_400),
    ("dedupe_memory_bytes", 1_048_576, 1 << 40),
    ("columns_max", 0, 100_000),
    ("nested_depth_max", 0, 100),
    ("dead_letters_max", 0, 1_000_000_000),
    ("nice", 0, 19),
)
