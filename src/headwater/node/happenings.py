"""What can happen to a node, each with its log line and its counter (kit/happenings.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import ClassVar

import msgspec

from headwater.kit.happenings import Happening, Level


class NodeStarted(Happening):
    """The supervisor has the lock, all logs of former starts have ends, processes are being started."""

    version: str
    start: int
    data: str


class NodeDraining(Happening):
    """Asked to stop: /ping and /ready answer 503."""

    by_signal: str
    shutdown_delay_s: float


class NodeStopped(Happening):
    """The last line of a node."""

    in_order: bool


class ProcessorRetired(Happening):
    """`process.workers` was lowered earlier; now everybody has what this processor left, and its folders are gone."""

    number: int


class KeyRotated(Happening):
    """The time of a key's old secret is over (`headwater keys rotate`): it is refused from here on."""

    key: str


class Reloaded(Happening):
    """SIGHUP took a changed configuration over."""

    changed: list[str]


class ReloadRefused(Happening):
    """SIGHUP found a configuration that cannot be taken over; the old one stays."""

    level: ClassVar[Level] = "error"
    reason: str


class TickFailed(Happening):
    """The upkeep of the raw log failed; it is tried again."""

    level: ClassVar[Level] = "error"
    reason: str


class LaneTrouble(Happening):
    """Something between this node and another one failed, and is tried again: the lane process goes on."""

    level: ClassVar[Level] = "warning"
    task: str
    reason: str


class OwnerSlow(Happening):
    """A node is more than 2 s behind this node's raw log in processing the partitions that it owns, or its mirrors are
    nearly full. Its events wait, and nothing moves; told once, then every 30 s while it lasts."""

    level: ClassVar[Level] = "warning"
    owner: str
    events: int
    oldest_age_s: float
    mirror_share: float


class OwnerResumed(Happening):
    """A node that was behind this node's raw log has kept up for 2 s again, or owns nothing any more."""

    owner: str
    events: int
    oldest_age_s: float
    mirror_share: float


class LogDamaged(Happening):
    """What was durable of a log cannot be read any more, [first, next): `headwater log inspect` says where. Events of
    raw count as `damaged`, a destination that lacks commits of ready pauses; processing goes on behind it."""

    level: ClassVar[Level] = "error"
    folder: str
    log: str
    first: int
    next: int


class RoleSilent(Happening):
    """A collector is there, but stands still: what reaches it is not answered. systemd's watchdog is told no more that
    the node is alive, and starts it again; without one, end that process (SIGKILL), and the node starts another."""

    level: ClassVar[Level] = "error"
    role: str
    pid: int
    silent_s: float


class RoleHeard(Happening):
    """A collector that stood still goes on."""

    role: str


class RoleEnded(Happening):
    """A process of the node ended unasked; it is started again."""

    level: ClassVar[Level] = "warning"
    role: str
    exit_code: int
    again_in_s: float


class RoleNotPrepared(Happening):
    """A process cannot be started, since what must be done before failed."""

    level: ClassVar[Level] = "error"
    role: str
    reason: str


class RoleCut(Happening):
    """A process did not end in its time and was killed; what it had not done is done at the next start."""

    level: ClassVar[Level] = "warning"
    role: str
    after_s: float


class HorizonShortened(Happening):
    """Raw is over its quota: safe segments go before the time that they are wanted for replay."""

    level: ClassVar[Level] = "warning"
    raw_bytes: int
    raw_bytes_max: int


class RawFillsUp(Happening):
    """A destination is behind, and at this rate the raw log will be full of what it lacks: then new events are refused,
    or the oldest are given up, as its ``on_raw_full`` says."""

    level: ClassVar[Level] = "warning"
    destination: str
    full_in_s: float
    then: str


class RawWrittenOff(Happening):
    """The raw log was full: the oldest events that only these destinations lack are gone. They count as `filtered`."""

    level: ClassVar[Level] = "warning"
    destinations: list[str]
    segments: int


class SegmentNotCompressed(Happening):
    """The upkeep process read a raw segment and leaves it as it is: `damaged`, its blocks cannot all be believed, and
    `headwater log inspect` says which; `different`, the disk gives back other bytes than were written."""

    level: ClassVar[Level] = "warning"
    path: str
    reason: str


class CompressionFailed(Happening):
    """The disk refused while a raw segment was being compressed; nothing is changed, and it is tried again."""

    level: ClassVar[Level] = "warning"
    reason: str


class RoleFailed(Happening):
    """A process of the node cannot go on."""

    level: ClassVar[Level] = "error"
    code: str
    reason: str


class ReloadFailed(Happening):
    """A process could not take a new configuration over; it goes on with the old one."""

    level: ClassVar[Level] = "error"
    reason: str


class DestinationPaused(Happening):
    """A destination takes nothing; status names the command that mends it. Everything else goes on."""

    level: ClassVar[Level] = "error"
    destination: str
    code: str
    reason: str


class DestinationWaits(Happening):
    """A destination does not answer, and mostly will by itself: a server or a node that is started again. After a
    minute it is `destination_paused`."""

    level: ClassVar[Level] = "warning"
    destination: str
    code: str
    reason: str


class DestinationHeld(Happening):
    """An operator paused a destination (`headwater destination pause`), until `headwater destination resume`."""

    destination: str
    reason: str


class DestinationResumed(Happening):
    """A destination takes rows again."""

    destination: str


class RecognitionWaits(Happening):
    """Rows of a destination cannot be given the user that facts which came later say; the reason names what mends it.
    Fresh rows are delivered, and no fact is lost."""

    level: ClassVar[Level] = "error"
    destination: str
    code: str
    reason: str


class DestinationAdopted(Happening):
    """An operator decided where a destination goes on."""

    destination: str
    start: str
    skipped: int


class DestinationBehind(Happening):
    """The ready log no longer holds what a destination lacks: it gets it from the raw log, until it has caught up."""

    destination: str
    events: int


class DestinationSkips(Happening):
    """Some of what a destination lacks is gone from the raw log too; it is new, or was written off, so it takes what is
    left. How many rows that leaves out is reckoned when it has caught up."""

    level: ClassVar[Level] = "warning"
    destination: str
    events: int


class DestinationSkipped(Happening):
    """A destination has caught up; these rows it never got. They count as `filtered` in its ledger."""

    level: ClassVar[Level] = "warning"
    destination: str
    events: int


class DestinationIdsIncomplete(Happening):
    """A destination catches up, and the ids of the window before what it lacks are not all known any more: copies of
    their events, if clients sent any, may be there twice. `headwater reconcile --deep` finds them."""

    level: ClassVar[Level] = "warning"
    destination: str


class DestinationWrittenOff(Happening):
    """`headwater destination write-off`: the raw log is not kept for this destination until it has caught up."""

    level: ClassVar[Level] = "warning"
    destination: str


class ReplayEnded(Happening):
    """A replay is done, or was cancelled."""

    destination: str
    id: str
    state: str
    events: int


class ReplayFailed(Happening):
    """A replay cannot go on; `headwater replay resume` tries again. Delivery goes on."""

    level: ClassVar[Level] = "error"
    destination: str
    id: str
    reason: str


class DestinationAdvisory(Happening):
    """A destination does not stand where it was left: restored, emptied, or never begun."""

    level: ClassVar[Level] = "warning"
    destination: str
    code: str
    partitions: int


OF_DESTINATIONS = {
    kind.name(): kind
    for kind in (
        DestinationPaused,
        RecognitionWaits,
        DestinationWaits,
        DestinationHeld,
        DestinationResumed,
        DestinationAdopted,
        DestinationBehind,
        DestinationSkips,
        DestinationSkipped,
        DestinationIdsIncomplete,
        DestinationWrittenOff,
        ReplayEnded,
        ReplayFailed,
    )
}


def of_destination(name: str, fields: Mapping[str, object]) -> Happening:
    """What a deliverer tells (destinations/deliver.py), as a happening."""
    if kind := OF_DESTINATIONS.get(name):
        return msgspec.convert(dict(fields), kind)
    told = fields.get("partitions", 0)
    count = told if isinstance(told, int) else len(told) if isinstance(told, Sized) else 0
    return DestinationAdvisory(destination=str(fields.get("destination", "")), code=name, partitions=count)


class ClusterChanged(Happening):
    """Something happened in the cluster: a node joined, restarted, left, drains, leads, or this node has to join again
    (`rejoins`), stood still (`stood_still`) or is not let in (`refused`)."""

    event: str
    node: str
    node_name: str
    incarnation: int
    epoch: int
    reason: str


class ClusterNodeEvicted(ClusterChanged):
    """A node was taken out of the cluster's table; its partitions go to others."""

    level: ClassVar[Level] = "warning"


class ClusterClockWrong(Happening):
    """The wall clock of a node is further from those of most nodes than `cluster.clock_warning_s`. Said once by each
    node, also by its own."""

    level: ClassVar[Level] = "warning"
    node: str
    node_name: str
    ahead_s: float


class ClusterClockRight(Happening):
    """It is near the others again."""

    node: str
    node_name: str
    ahead_s: float


class ClusterNotJoined(Happening):
    """This node has tried `cluster.join_retry_max` times to get into the cluster; it goes on trying."""

    level: ClassVar[Level] = "error"
    reasons: list[str]


class ClusterTaskFailed(Happening):
    """A part of the member process ended with an error; the process is started again."""

    level: ClassVar[Level] = "error"
    task: str
    reason: str
