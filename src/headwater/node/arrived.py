"""Where destinations stand in one node's own logs, for requests at `ack: delivered` (collect/arrived).

Of this node's partitions the reports of its deliverers say it. Of all others their owners do: a home tells them, in the
progress that it sends each second anyway, which destinations its keys name, and they answer in theirs with the
positions of those, in the logs of that home only. So while no key asks for it, nothing is read and nothing travels.

A position that a destination had once covers what lies below it for good, whoever tells of it, so neither the age of
what is read nor the owner of today matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headwater.collect.settings import KeySettings
from headwater.config.report import read_report
from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log.cut import home_of
from headwater.node import needs
from headwater.ops.standing import Vectors

LANE = "lane-0"
Told = Mapping[str, Sequence[int]]
"""Vector (hex) → the partitions that stand there."""


def waited_for(keys: Iterable[KeySettings]) -> list[str]:
    """The destinations that keys name (node/settings.named_destinations has filled them in)."""
    return sorted({key.ack_destination for key in keys if key.ack == "delivered"})


def of_home(vectors: Vectors, home: int) -> dict[str, list[int]]:
    """Where a destination stands in the logs of one home, as it travels."""
    texts: dict[int, str] = {}
    found: dict[str, list[int]] = {}
    for partition, vector in sorted(vectors.items()):
        text = texts.get(id(vector))  # partitions that stand together share one vector
        if text is None:
            text = texts[id(vector)] = only(vector, home).encode().hex()
        found.setdefault(text, []).append(partition)
    return found


def only(vector: Vector, home: int) -> Vector:
    """Without what belongs to other homes."""
    return Vector({writer: at for writer, at in vector.items() if home_of(writer) == home})


def below(told: Told, writer: WriterId, log: int) -> dict[int, int]:
    """Partition → the number below which a destination has everything of one log."""
    found: dict[int, int] = {}
    for text, partitions in told.items():
        seq = number(Vector.decode(bytes.fromhex(text))[writer], log)
        found.update(dict.fromkeys(map(int, partitions), seq))
    return found


def number(at: Position, log: int) -> int:
    """Up to where a position covers a log that is being written."""
    return at.seq if at.log == log else 0


def read(
    disk: Disk, reports: str, start: int, names: Iterable[str], writer: WriterId, log: int
) -> dict[str, tuple[dict[int, int], bool]]:
    """Of each destination, where it stands in one log, by partition, and whether it is paused here. Only what this
    start of the node said counts. Broken, ValueError: another version of Headwater wrote it."""
    lane = read_report(disk, f"{reports}/{LANE}.json")
    others = needs.reported({LANE: lane}) if lane is not None and lane.start == start else {}
    found: dict[str, tuple[dict[int, int], bool]] = {}
    for name in names:
        passed: dict[int, int] = {}
        tellers: list[Told] = [said.delivered.get(name, {}) for said in others.values()]
        state = ""
        here = read_report(disk, f"{reports}/deliver-{name}.json")
        if here is not None and here.start == start:
            one = here.detail.get("destinations", {}).get(name, {})
            state = str(one.get("state", ""))
            tellers.append(one.get("vectors", {}))
        for told in tellers:
            for partition, seq in below(told, writer, log).items():
                passed[partition] = max(seq, passed.get(partition, 0))
        found[name] = passed, state == "paused"
    return found
