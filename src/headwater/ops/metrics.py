"""/metrics: the reports of all processes as Prometheus text (exposition format 0.0.4).

Names are ``headwater_<what>_<unit>[_total]``; labels are roles, streams (write keys) and destinations, all of them
named in the configuration, never taken from events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headwater.config.report import Report, Sample
from headwater.ops import reconcile
from headwater.ops.reconcile import Ledger
from headwater.ops.standing import Delivered, Streams

HELP = {
    "headwater_up": "1 for each process that reports.",
    "headwater_report_age_seconds": "Age of a process's last report.",
    "headwater_ready": "1 when the node takes events.",
    "headwater_restarts_total": "How often a process was started again in this start of the node.",
    "headwater_happenings_total": "Log lines by what happened, those left out counted too.",
    "headwater_events": "Events by where they are now; pending is what is still on its way to the destination. "
    "In a cluster each node counts its own partitions, and nobody `pending`.",
    "headwater_accepted_events_total": "Events that were acknowledged, or refused with a valid key.",
    "headwater_ledger_holds": "1 while every accepted event is accounted for; not in a cluster: `headwater reconcile`.",
    "headwater_destination_paused": "1 while a destination is paused; status says why and what mends it.",
    "headwater_destination_lag_seconds": "Age of the oldest row that waits for a destination.",
    "headwater_destination_catching_up_events": "Events that a destination off the chain has still to get from raw.",
    "headwater_raw_bytes": "Bytes of the raw log.",
    "headwater_raw_bytes_max": "Its quota.",
    "headwater_raw_held_bytes": "Of them, what cannot be given back, since somebody lacks it.",
    "headwater_raw_full_in_seconds": "When it will be full of that, while a destination is behind.",
    "headwater_destination_lag_rows": "Rows read ahead that wait for a destination.",
    "headwater_raw_compressed_segments": "Raw segments that are compressed.",
    "headwater_raw_compressed_bytes": "What the compressed raw segments take on disk.",
    "headwater_raw_compressed_plain_bytes": "What the compressed raw segments would take uncompressed.",
    "headwater_collect_accepted_events_total": "Events taken by a collect worker since its start.",
    "headwater_collect_refused_events_total": "Events refused alone in batches that were taken.",
    "headwater_collect_dropped_events_total": "Events answered 2xx and dropped, as a key's privacy setting asks.",
    "headwater_collect_body_bytes_total": "Bytes of bodies as received, decompressed.",
    "headwater_collect_connections_opened_total": "Connections taken.",
    "headwater_collect_connections_refused_total": "Connections answered 503, as there were too many.",
    "headwater_collect_connections_open": "Connections open now.",
    "headwater_collect_lost_answers_total": "Answers for which nobody waited any more.",
    "headwater_collect_commits_total": "Blocks made durable.",
    "headwater_collect_commit_seconds_total": "Time spent writing and syncing them.",
    "headwater_collect_pending_bytes": "Bytes that wait for the disk.",
    "headwater_collect_requests_total": "Requests by route and status.",
    "headwater_collect_refused_total": "Refused requests and events by reason.",
    "headwater_lane_behind_events": "Events of this node's raw log that an owner has not gone past.",
    "headwater_lane_behind_seconds": "For how long at least the oldest of them has waited.",
    "headwater_advisories_total": "Advisories by reason: slow_consumer when an owner falls behind.",
    "headwater_advisories_left_out_total": "Advisories that the webhook did not get, by why.",
    "headwater_process_cuts_total": "Cuts processed and committed.",
    "headwater_process_fast_lines_total": "Events read by the fast reader.",
    "headwater_unmapped_values_total": "Values that found no column and stand in _unmapped; status has examples.",
    "headwater_process_slow_lines_total": "Events that were read again by the tolerant reader.",
    "headwater_process_learned_columns": "Columns learned so far.",
    "headwater_process_dedupe_ids": "Message ids remembered.",
    "headwater_process_dedupe_window_seconds": "How far back ids are remembered; shorter than set when memory is full.",
    "headwater_peer_refused_total": "Connections between nodes that were refused, by reason; side: by this node, or "
    "by the other one.",
    "headwater_peer_unknown_frames_total": "Frames of newer nodes that were passed over, by kind.",
    "headwater_cluster_clock_ahead_seconds": "How far a node's wall clock is ahead of those of most nodes, as this "
    "node finds it; below 0: behind.",
    "headwater_cluster_bad_messages_total": "Messages of members that could not be understood, and were passed over.",
    "headwater_cluster_store_errors_total": "Calls of the coordination store that failed, and records in it that "
    "cannot be read, by code.",
    "headwater_collect_positions_unread_total": ("Looks at positions for `ack: delivered` that failed."),
    "headwater_lane_silent_total": "Questions of a processor or deliverer that the lane process did not answer.",
    "headwater_channel_store_errors_total": "Calls of a public channel to the coordination store that failed.",
}

TOLD = {
    "collect": {
        "accepted_events": "headwater_collect_accepted_events_total",
        "refused_events": "headwater_collect_refused_events_total",
        "dropped_events": "headwater_collect_dropped_events_total",
        "body_bytes": "headwater_collect_body_bytes_total",
        "connections_opened": "headwater_collect_connections_opened_total",
        "connections_refused": "headwater_collect_connections_refused_total",
        "connections_open": "headwater_collect_connections_open",
        "lost_answers": "headwater_collect_lost_answers_total",
        "commits": "headwater_collect_commits_total",
        "commit_ns": "headwater_collect_commit_seconds_total",
        "pending_bytes": "headwater_collect_pending_bytes",
    },
    "process": {
        "cuts": "headwater_process_cuts_total",
        "fast_lines": "headwater_process_fast_lines_total",
        "slow_lines": "headwater_process_slow_lines_total",
        "learned_columns": "headwater_process_learned_columns",
        "dedupe_ids": "headwater_process_dedupe_ids",
        "dedupe_window_s": "headwater_process_dedupe_window_seconds",
    },
}
"""Role → what its report's detail says → the metric. Nanoseconds become seconds."""


RAW = {
    "bytes": "headwater_raw_bytes",
    "bytes_max": "headwater_raw_bytes_max",
    "held_bytes": "headwater_raw_held_bytes",
    "full_in_s": "headwater_raw_full_in_seconds",
}
"""What the node says of the raw log → the metric."""


COMPRESSED = {
    "segments": "headwater_raw_compressed_segments",
    "disk_bytes": "headwater_raw_compressed_bytes",
    "plain_bytes": "headwater_raw_compressed_plain_bytes",
}


def from_detail(role: str, detail: Mapping[str, Any]) -> Iterable[Sample]:
    """The numbers of a role's detail."""
    labels = {"role": role}
    for name, metric in TOLD.get(role.partition("-")[0], {}).items():
        if isinstance(value := detail.get(name), int | float):
            yield Sample(metric, labels, value / 1e9 if name.endswith("_ns") else value)
    for route, statuses in detail.get("requests", {}).items():
        for status, count in statuses.items():
            yield Sample(
                "headwater_collect_requests_total", {**labels, "route": route, "status": status}, count
            )
    for reason, count in detail.get("refused", {}).items():
        yield Sample("headwater_collect_refused_total", {**labels, "reason": reason}, count)


def from_reports(reports: Mapping[str, Report], now_ns: int) -> Iterable[Sample]:
    """What every process says of itself."""
    for role, report in sorted(reports.items()):
        yield Sample("headwater_up", {"role": role}, 1.0 if report.state != "stopped" else 0.0)
        yield Sample("headwater_report_age_seconds", {"role": role}, (now_ns - report.boot_ns) / 1e9)
        for sample in report.samples:
            yield Sample(sample.name, {"role": role, **sample.labels}, sample.value)
        yield from from_detail(role, report.detail)
    if (node := reports.get("node")) is not None:
        for role, told in node.detail.get("roles", {}).items():
            yield Sample("headwater_restarts_total", {"role": role}, told.get("restarts", 0))
        for name, value in node.detail.get("raw", {}).items():
            if metric := RAW.get(name):
                yield from () if value is None else (Sample(metric, {}, value),)


def from_compressed(told: Mapping[str, int]) -> Iterable[Sample]:
    """What the compressed raw segments take (standing.compressed)."""
    for name, value in told.items():
        yield Sample(COMPRESSED[name], {}, value)


def from_destinations(destinations: Mapping[str, Delivered]) -> Iterable[Sample]:
    """Whether and how far destinations are behind."""
    for name, one in sorted(destinations.items()):
        labels = {"destination": name}
        yield Sample("headwater_destination_paused", labels, float(one.state == "paused"))
        yield Sample("headwater_destination_lag_seconds", labels, one.lag_age_s)
        yield Sample("headwater_destination_lag_rows", labels, one.lag_rows)
        left = (one.catching_up or {}).get("events_left", 0)
        yield Sample("headwater_destination_catching_up_events", labels, left)


def from_unmapped(values: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    """Values without a column, by the place that found none for them."""
    total: dict[str, int] = {}
    for one in values:
        total[one["where"]] = total.get(one["where"], 0) + one["count"]
    for where, count in sorted(total.items()):
        yield Sample("headwater_unmapped_values_total", {"where": where}, count)


def from_ledgers(ledgers: Iterable[Ledger]) -> Iterable[Sample]:
    """The conservation ledger."""
    for one in ledgers:
        stream = {"stream": one.stream}
        yield Sample("headwater_accepted_events_total", stream, one.accepted)
        yield Sample("headwater_ledger_holds", stream, float(one.holds))
        for name, held in one.destinations.items():
            for kind in ("delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged"):
                labels = {**stream, "destination": name, "kind": kind}
                yield Sample("headwater_events", labels, getattr(held, kind))


def from_part(
    accepted: Mapping[str, int], processed: Streams, destinations: Mapping[str, Delivered]
) -> Iterable[Sample]:
    """What one of many nodes has of the ledger: it accepted for all, and counts for its own partitions. So over all
    nodes it adds up to the ledger without ``pending``, which no node can know alone."""
    for stream, count in sorted(accepted.items()):
        yield Sample("headwater_accepted_events_total", {"stream": stream}, count)
    for name, one in sorted(destinations.items()):
        for stream in sorted({*processed, *one.streams}):
            numbers = reconcile.in_destination(0, processed.get(stream, {}), one.streams.get(stream, {}))
            for kind in ("delivered", "dead", "duplicate", "filtered", "erased", "damaged"):
                labels = {"stream": stream, "destination": name, "kind": kind}
                yield Sample("headwater_events", labels, numbers[kind])


def from_lag(lags: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    """How far the owners are behind this node's log, as its lane says."""
    for one in lags:
        labels = {"owner": one["owner_name"]}
        yield Sample("headwater_lane_behind_events", labels, one["events"])
        yield Sample("headwater_lane_behind_seconds", labels, one["age_s"])


def from_clocks(nodes: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    """How far the clocks of the nodes are apart, as the member process says (cluster/status.py)."""
    for one in nodes:
        if (ahead_s := one.get("clock_ahead_s")) is not None:
            yield Sample("headwater_cluster_clock_ahead_seconds", {"node": one["name"]}, ahead_s)


def render(samples: Iterable[Sample]) -> str:
    """Prometheus text; samples of one name stand together, under one TYPE."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, members in sorted(families.items()):
        if name in HELP:
            lines.append(f"# HELP {name} {HELP[name]}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines += [f"{name}{labels_text(sample.labels)} {number_text(sample.value)}" for sample in members]
    return "\n".join(lines) + "\n"


def labels_text(labels: Mapping[str, str]) -> str:
    """``{a="b",…}``, escaped; nothing without labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(labels.items())) + "}"


def escaped(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number_text(value: float) -> str:
    """Whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
