"""What replays a destination has: a small file, ``state/deliver-<name>/replays.json``.

It says what was asked for and how it ended; how far one has come says the destination itself, in the position rows of
pipeline ``…/replay:<id>``, which move with the rows (INV-DST-1). ``placed`` says that those rows were made: where they
are missing afterwards, an older copy of the destination was put in its place, and the replay ends there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Misconfigured, Rejected

FORMAT = 1
KEPT_MAX = 20
"""Replays that have ended and are still told of; shadow tables are kept beside them."""
OPEN = ("waiting", "running")


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a replay did so far; may be a piece behind after a crash, the ledger is not."""

    rows: int = 0
    """Made again, those gained among them."""
    gained: int = 0
    """Of events that had no row: refused before, or left out by ``adopt``."""
    lost: int = 0
    """Held before, refused now."""
    refused: int = 0
    """Refused by the destination."""
    too_young: int = 0
    """Dead letters that would be rows now, but are younger than the dedupe window."""
    unread: int = 0
    """Events that the raw log no longer holds, or that are damaged: their rows stay as they are."""


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One replay. Vectors are hex."""

    id: str
    state: str
    """waiting | running | done | cancelled | failed"""
    reason: str = ""
    into: str = ""
    """Suffix of the shadow table; "": the same table."""
    origin: str
    until: str
    from_ns: int
    to_ns: int
    rate: float
    """Events per second."""
    events: int
    """In [origin, until)."""
    done: int = 0
    """As of the last step; the position rows decide."""
    placed: bool = False
    began_ns: int = 0
    ended_ns: int = 0
    counted: Counted = Counted()

    @property
    def open(self) -> bool:
        """Whether it is still to be carried on."""
        return self.state in OPEN


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    format: int = FORMAT
    last: int = 0
    replays: tuple[Replay, ...] = ()


class Book:
    """The file's content; every change is durable on return, but for counts."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        self.state = State()
        if disk.exists(path):
            try:
                self.state = msgspec.json.decode(read_whole(disk, path), type=State)
            except msgspec.DecodeError as error:
                raise Misconfigured(
                    f"{path} cannot be read: {error}",
                    code="replays_unreadable",
                    help="move it away: a replay under way then ends where it is; begin it again",
                ) from error

    @property
    def current(self) -> Replay | None:
        """The one that is carried on: one at a time, in order."""
        return next((one for one in self.state.replays if one.open), None)

    def get(self, name: str) -> Replay:
        """By id; Rejected where there is none."""
        for one in self.state.replays:
            if one.id == name:
                return one
        known = ", ".join(one.id for one in self.state.replays) or "none"
        raise Rejected(f"no replay {name!r}: there are {known}", code="replay_id")

    def add(self, last: int, one: Replay) -> None:
        """A new one, at the end."""
        ended = [r for r in self.state.replays if not r.open and not r.into]
        dropped = {r.id for r in ended[: max(0, len(ended) - KEPT_MAX)]}
        kept = tuple(r for r in self.state.replays if r.id not in dropped)
        self.save(State(FORMAT, last, (*kept, one)))

    def change(self, name: str, changes: Mapping[str, object], *, durable: bool = True) -> Replay:
        """One with some fields changed."""
        changed = msgspec.structs.replace(self.get(name), **changes)
        replays = tuple(changed if one.id == name else one for one in self.state.replays)
        state = msgspec.structs.replace(self.state, replays=replays)
        if durable:
            self.save(state)
        self.state = state
        return changed

    def remove(self, name: str) -> None:
        """Forget one."""
        kept = tuple(one for one in self.state.replays if one.id != name)
        self.save(msgspec.structs.replace(self.state, replays=kept))

    def save(self, state: State) -> None:
        """Write it whole."""
        write_whole(self.disk, self.path, msgspec.json.encode(state))
        self.state = state
