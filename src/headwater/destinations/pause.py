"""An operator's pause of one destination: ``state/deliver-<name>/paused.json``.

While the file is there, nothing is loaded into the destination: the step under way ends, no other begins. The
destination stays open and answers readers; what it lacks waits in the logs as for any paused destination. The file is
durable before the answer to `pause` is given, so a restart changes nothing; removing it is `resume`.
"""

from __future__ import annotations

import datetime

import msgspec

from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Rejected

FORMAT = 1
CODE = "paused_by_operator"
REASON_CHARS_MAX = 500


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: since when, and why as the operator said it ("" where nothing was said)."""

    since: str
    """RFC 3339, UTC, by the wall clock."""
    reason: str = ""
    format: int = FORMAT

    def text(self) -> str:
        """As status says it, behind "is paused"."""
        because = f" because {self.reason}" if self.reason else ""
        return f"by operator since {self.since}{because}"


class Pause:
    """The pause of one destination. Read by the deliverer's thread, written by those that answer requests."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        self.held = read(disk, path)

    def begin(self, reason: str, wall_ns: int) -> Held:
        """Pause; durable on return. One that is paused stays so since then, with the new reason where there is one.
        Rejected: the reason is too long for a line."""
        if len(reason) > REASON_CHARS_MAX or any(not letter.isprintable() for letter in reason):
            raise Rejected(
                f"`reason`: expected one line of at most {REASON_CHARS_MAX} characters", code="pause_reason"
            )
        before = self.held
        now = datetime.datetime.fromtimestamp(wall_ns // 10**9, datetime.UTC)
        since = before.since if before is not None else f"{now:%Y-%m-%dT%H:%M:%SZ}"
        held = Held(since=since, reason=reason or (before.reason if before is not None else ""))
        write_whole(self.disk, self.path, msgspec.json.encode(held))
        self.held = held
        return held

    def end(self) -> Held:
        """Resume; durable on return. Rejected where there is no pause."""
        held = self.held
        if held is None:
            raise Rejected(
                "it is not paused by an operator: there is nothing to resume",
                code="not_held",
                help="`headwater status` says whether something else has paused it, and what mends that",
            )
        self.disk.unlink(self.path)
        self.disk.sync_dir(self.path.rpartition("/")[0])
        self.held = None
        return held


def read(disk: Disk, path: str) -> Held | None:
    """The pause that a file tells of. A file that cannot be read is a pause too: going on would be the worse guess."""
    if not disk.exists(path):
        return None
    try:
        return msgspec.json.decode(read_whole(disk, path), type=Held)
    except msgspec.MsgspecError:
        return Held(since="an unknown time", reason=f"{path} is there, but cannot be read")


def command(name: str) -> str:
    """What ends the pause."""
    return f"headwater destination resume {name}"
