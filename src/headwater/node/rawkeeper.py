"""The supervisor's care for the raw log: what goes, how much room is left, and how long that will last.

A pass gives back what is safe (retention.py). Where that is not enough and some destinations may be written off
(``on_raw_full: write_off``, or an operator's `destination write-off`), what only they lack goes too, oldest first and
no more than is needed. Long before, while a destination is paused or behind, it says when the log will be full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from headwater.cluster.view import ViewReader, view_path
from headwater.config.control import ControlPage
from headwater.config.report import Report
from headwater.event.position import Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.happenings import Happenings
from headwater.log import retain
from headwater.log.block import Secret
from headwater.node import needs, retention
from headwater.node.happenings import HorizonShortened, RawFillsUp, RawWrittenOff
from headwater.node.settings import Settings
from headwater.ops import standing
from headwater.ops.standing import Delivered

FORECAST_INTERVAL_S = 10.0
SAMPLES_MAX = 60
SPAN_S_MIN = 30.0
"""Growth over less than this says nothing: the log grows by segments."""
SPAN_S_OF_A_STEP = FORECAST_INTERVAL_S * (SAMPLES_MAX - 1)
LATE_S = 60.0
AGAIN_S = 3600.0
"""How often an alarm is repeated."""


class RawKeeper:
    """Keeps the raw log of one node within its quota."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        control: ControlPage,
        happenings: Happenings,
        data: str,
        partitions: int,
        secret: Secret,
    ) -> None:
        self.disk = disk
        self.clock = clock
        self.control = control
        self.happenings = happenings
        self.data = data
        self.raw = f"{data}/raw"
        self.partitions = partitions
        self.secret = secret
        self.samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES_MAX)
        """Boot time (ns), and the bytes that could not be given back then."""
        self.told: dict[str, Any] = {}
        """Bytes, quota, and the forecast, as the report of the node has them."""
        self.warning = ""
        self.alarmed_ns = 0
        self.views = ViewReader(disk, view_path(data))

    def keep(self, settings: Settings, reports: Mapping[str, Report]) -> None:
        """One pass: retire, tell the collectors how much room is left, look ahead."""
        safe, given_up = self.safe(settings, reports)
        kept = retention.keep(
            self.disk,
            self.raw,
            safe,
            self.secret,
            given_up,
            now_ns=self.clock.boot_ns() + self.control.offset_ns,
            retain_s=settings.log.retain_s,
            raw_bytes_max=settings.raw_bytes_max,
            headroom_bytes=retention.headroom_bytes(settings.log.segment_bytes, settings.collect.workers),
            segment_bytes=settings.log.segment_bytes,
            spares_max=settings.log.spare_segments_max,
        )
        if kept.shortened:
            self.happenings.emit(
                HorizonShortened(raw_bytes=kept.raw_bytes, raw_bytes_max=settings.raw_bytes_max)
            )
        if kept.given_up_segments:
            names = sorted(expendable(settings, reports) & set(settings.destinations))
            self.happenings.emit(RawWrittenOff(destinations=names, segments=kept.given_up_segments))
        self.control.set_raw_room_bytes(
            retention.room_each(
                kept.raw_bytes,
                settings.raw_bytes_max,
                self.disk.free_bytes(self.data),
                settings.reserve_bytes,
                settings.collect.workers,
            )
        )
        self.look_ahead(settings, reports, safe, kept.raw_bytes)

    def safe(self, settings: Settings, reports: Mapping[str, Report]) -> tuple[Vector, Vector]:
        """Below what nobody asks again, and below what only those do that may be written off. In a cluster that is for
        the owners of all partitions to say (INV-LANE-2)."""
        if settings.cluster is not None:
            return needs.safe(self.views.read(), needs.reported(reports))
        needed = [name for name in settings.destinations if name not in expendable(settings, reports)]
        return (
            retention.safe_vector(reports, self.partitions, settings.destinations),
            retention.safe_vector(reports, self.partitions, needed),
        )

    def look_ahead(
        self, settings: Settings, reports: Mapping[str, Report], safe: Vector, raw_bytes: int
    ) -> None:
        """When the log will be full of what cannot be given back, if it goes on like this."""
        now_ns = self.clock.boot_ns()
        if self.samples and now_ns - self.samples[-1][0] < FORECAST_INTERVAL_S * 1e9:
            return
        folders = [(WriterId(int(name, 16)), f"{self.raw}/{name}") for name in self.disk.listdir(self.raw)]
        held = sum(retain.held_bytes(self.disk, folder, safe[writer]) for writer, folder in folders)
        self.samples.append((now_ns, held))
        headroom = retention.headroom_bytes(settings.log.segment_bytes, settings.collect.workers)
        step = settings.log.segment_bytes * settings.collect.workers
        full_in_s = time_left_s(self.samples, settings.raw_bytes_max - headroom, step)
        holder = held_by(standing.delivered(reports), settings)
        self.told = {
            "bytes": raw_bytes,
            "bytes_max": settings.raw_bytes_max,
            "held_bytes": held,
            "held_by": holder,
            "full_in_s": full_in_s if holder else None,
        }
        self.warning = ""
        if holder and full_in_s is not None and full_in_s < settings.log.raw_full_warning_s:
            policy = "write_off" if holder in expendable(settings, reports) else "refuse"
            self.alarm(holder, full_in_s, policy)

    def alarm(self, holder: str, full_in_s: float, policy: str) -> None:
        """Say it in the status at once, in the log once an hour."""
        then = (
            f"new events are refused (or the oldest that {holder} lacks given up, after "
            f"`headwater destination write-off {holder}`)"
            if policy == "refuse"
            else f"the oldest events that {holder} lacks are given up: it is written off"
        )
        when = "is full" if full_in_s <= 0 else f"will be full in about {full_in_s / 60:.0f} minutes"
        self.warning = f"the raw log {when}, since destination {holder} is behind; then {then}"
        now_ns = self.clock.boot_ns()
        if not self.alarmed_ns or now_ns - self.alarmed_ns > AGAIN_S * 1e9:
            self.alarmed_ns = now_ns
            self.happenings.emit(RawFillsUp(destination=holder, full_in_s=full_in_s, then=policy))


def expendable(settings: Settings, reports: Mapping[str, Report]) -> set[str]:
    """The destinations for which the raw log need not be kept when it is full."""
    written_off = {name for name, one in standing.delivered(reports).items() if one.written_off}
    by_setting = {name for name, one in settings.destinations.items() if one.on_raw_full == "write_off"}
    return written_off | by_setting


def held_by(delivered: Mapping[str, Delivered], settings: Settings) -> str | None:
    """The destination that is paused or late, and furthest behind; None while all are in time."""
    late = [
        one
        for one in delivered.values()
        if one.name in settings.destinations
        and (one.state in ("paused", "catching_up") or one.lag_age_s > LATE_S)
    ]
    return max(late, key=lambda one: one.lag_age_s).name if late else None


def time_left_s(samples: deque[tuple[int, int]], bytes_max: int, step_bytes: int = 0) -> float | None:
    """Seconds until the last sample's bytes have grown to ``bytes_max``; None where they do not grow, or it cannot be
    told yet: a single step, as files are as large as they may become, says nothing in a short time."""
    (first_ns, first), (last_ns, last) = samples[0], samples[-1]
    if last >= bytes_max:
        return 0.0
    span_s = (last_ns - first_ns) / 1e9
    if span_s < SPAN_S_MIN or last <= first:
        return None
    if last - first <= step_bytes and span_s < SPAN_S_OF_A_STEP:
        return None
    return (bytes_max - last) / ((last - first) / span_s)
