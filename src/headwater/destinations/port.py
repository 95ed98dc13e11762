"""What the deliverer needs of a destination and of the chain (protocol.md §5).

A *destination* keeps one position row per (pipeline, partition) beside its rows. ``step`` writes rows and moves
positions in one atomic step, and only where every partition of the step stands exactly at ``origin``
(INV-DST-1): whoever comes second, late or twice gets MOVED and writes nothing. Nothing else is needed for
exactly once; ``owner`` and ``config_epoch`` in the row are information.

An adapter is mechanism only: it decides nothing about batching, retry, pausing or naming.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from headwater.event.commit import Commit
from headwater.event.piece import Piece, Range
from headwater.event.position import Position, Vector
from headwater.kit.errors import Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

COUNTERS = ("out", "rows", "dead", "erased")
"""Of a position row, cumulative, in events (protocol.md §13): `out` as the chain says at its vector, `rows` that
this destination holds, `dead` that it refused. `out` + `revived` = `rows` + `dead` + `erased` + `skipped` (see
``Counts``)."""


class Counts(NamedTuple):
    """Counters of one stream in one partition. ``skipped``: what an operator's ``adopt`` left out. ``revived``: dead
    letters of processing that a replay made rows of (docs/decisions/0006-replay.md)."""

    out: int = 0
    rows: int = 0
    dead: int = 0
    erased: int = 0
    skipped: int = 0
    revived: int = 0

    def plus(self, other: Counts) -> Counts:
        """Entry by entry."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class PositionRow:
    """Where a partition stands in a destination. ``vector`` is canonical bytes (event/position.py)."""

    vector: bytes
    streams: Mapping[str, Counts] = field(default_factory=dict)
    config_epoch: int = 0
    owner: str = ""

    @property
    def total(self) -> Counts:
        """Over all streams."""
        whole = Counts()
        for counts in self.streams.values():
            whole = whole.plus(counts)
        return whole


Added = Mapping[int, Mapping[str, Counts]]
"""Partition → stream → what a step adds."""


@dataclass(frozen=True, slots=True)
class Redo:
    """What a step of a replay takes away before it inserts, in the same atomic step.

    The rows of ``table`` whose origin lies in ``ranges`` go. There must be ``expected`` of them, else the step is
    MOVED: somebody else changed these rows since they were looked at. The counters of ``pipeline`` (its vector stays)
    get ``added``, and lose the rows that went, per partition and stream.
    """

    table: str
    ranges: tuple[Range, ...]
    expected: int
    pipeline: str
    added: Added


@dataclass(frozen=True, slots=True)
class Step:
    """One atomic step. All partitions stand at ``origin`` before it and at ``target`` after it.

    ``tables``: name of a table → row sets, each of one schema, in order. Partitions rise (INV-DST-2). Partitions
    without rows are moved too, so that none falls off the chain by being idle (protocol.md §17.17).
    """

    pipeline: str
    partitions: tuple[int, ...]
    origin: bytes
    target: bytes
    tables: Mapping[str, Sequence[pa.Table]]
    added: Added
    config_epoch: int = 0
    owner: str = ""
    facts: tuple[pa.Table, ...] = ()
    redo: Redo | None = None


class Outcome(enum.Enum):
    """What a step did. MOVED: somebody else moved a position, or it went back; nothing was written."""

    DONE = "done"
    MOVED = "moved"


class OutcomeUnknown(Unavailable):
    """The connection failed during COMMIT: read the positions again to learn what happened."""

    code = "outcome_unknown"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, as data."""

    step_class: str
    """T transaction, F files and manifests, K keyed rows, S streams, A acknowledged only (protocol.md §5)."""
    promise: str
    sql: bool = False
    """Answers readers' SQL in this process."""
    updates: bool = False
    """User columns of rows can be changed later."""
    replays: bool = False
    """Rows can be taken away and made again: ``Step.redo``, ``origins``, ``present``, ``forget``."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Values of one column that did not fit its type, since the destination was opened."""

    table: str
    column: str
    count: int
    example: str


class Destination(Protocol):
    """The calls that the deliverer makes, from one thread. Errors are kit/errors', translated by the adapter:

    Rejected (the rows), Unavailable (try later), OutcomeUnknown (read again), Misconfigured (an operator must act).
    """

    capabilities: Capabilities

    def open(self, *, create: bool) -> None:
        """Connect; make own tables where they are missing. ``create=False``: Misconfigured where all is gone."""
        ...

    def close(self) -> None:
        """Let go; safe to call twice, and after any error."""
        ...

    def positions(self, pipeline: str) -> dict[int, PositionRow]:
        """Every position row of the pipeline, as committed."""
        ...

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        """Write position rows: an operator's ``adopt``, whatever stood there; or a new destination's first ones
        (``missing_only``), beside those that another node has placed, and perhaps moved, meanwhile."""
        ...

    def empty(self) -> bool:
        """True when it holds no delivered row."""
        ...

    def fit(self, tables: Mapping[str, Sequence[pa.Schema]]) -> None:
        """Make the tables fit before any row comes (INV-DST-4): additive, idempotent, then read as they are."""
        ...

    def step(self, step: Step) -> Outcome:
        """Compare, write, move, commit. Rejected: a row is refused, nothing was written."""
        ...

    def try_rows(self, table: str, rows: pa.Table) -> None:
        """Insert and roll back; Rejected where the destination refuses one of the rows."""
        ...

    def drift(self) -> Sequence[Drift]:
        """What did not fit so far."""
        ...


class Replayable(Destination, Protocol):
    """What a destination with ``capabilities.replays`` answers too."""

    def origins(self, table: str, ranges: Sequence[Range]) -> pa.Table:
        """The rows whose origin lies in the ranges, as ``load.HELD_SCHEMA`` (key_id is never null); none where there is
        no such table."""
        ...

    def present(self, table: str, wanted: pa.Table, since_us: int | None, until_us: int | None) -> set[int]:
        """Which of ``wanted`` (number u32, key_id, message_id) have a row, received within these bounds."""
        ...

    def forget(self, pipeline: str, table: str | None) -> None:
        """Remove the position rows of a pipeline, and a table that it alone filled. Repeating changes nothing."""
        ...

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        ...


class Settled(NamedTuple):
    """What a pass did: anonymous ids that are settled now, rows changed, and whether there may be more to do soon."""

    ids: int
    rows: int
    more: bool


Whose = Callable[["pa.Table"], "pa.Table"]
"""Facts, as ``Settling.facts`` has them → identity/table.INTERVALS_SCHEMA. Of an id that is left out, all rows are
right already."""


class Settling(Destination, Protocol):
    """What a destination with ``capabilities.updates`` answers too. Facts come with steps (``Step.facts``): it keeps
    them beside its rows, and remembers which anonymous ids they touched until ``settle`` has made their rows right.

    ``partitions``: those that this node delivers; None: all. A destination that one process holds takes all."""

    def unsettled(self, partitions: Sequence[int] | None, limit: int) -> list[str]:
        """Anonymous ids whose rows may not agree with the facts."""
        ...

    def facts(self, ids: Sequence[str]) -> pa.Table:
        """The facts of these ids: anonymous_id, kind, user_id, time_us, message_id, settled (whether the rows were made
        right by it before)."""
        ...

    def settle(
        self, partitions: Sequence[int] | None, whose: Whose, *, ids_max: int, rows_max: int
    ) -> Settled:
        """One pass, in one transaction: take unsettled ids, and make the user of their rows that name none what
        ``whose`` says of their facts, ``rows_max`` rows at most. Ids whose rows are all right are settled. Facts that
        come meanwhile are not lost; what another node settles at this moment is left to it. Repeating changes nothing.
        Rejected, Misconfigured: rows cannot be made right before an operator acts."""
        ...

    def ids_of_user(self, user_id: str, limit: int) -> list[str]:
        """Anonymous ids whose facts name this user, those with the newest facts first."""
        ...

    def newest_facts(self, since_us: int, limit: int) -> pa.Table:
        """The facts from a time on, newest first; columns as those of ``facts``."""
        ...

    def rows_by_user(self, table: str, ids: Sequence[str]) -> pa.Table:
        """How many rows of a table these anonymous ids have (identity/table.ROWS_BY_USER_SCHEMA); ``own``: the events
        named the user themselves. None where there is no such table."""
        ...


class PieceRun(Protocol):
    """A stretch of the raw log, read again piece by piece (process/replay.py)."""

    @property
    def ended(self) -> bool:
        """Whether the last piece was given."""
        ...

    def advance(self) -> Piece | None:
        """The next piece; None where only time passed, and at the end."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


class ChainReader(Protocol):
    """A ready log from some position on (log/ready.py): commits in order, durable ones only (INV-LOG-2)."""

    @property
    def waits(self) -> bool:
        """Whether it has commits that it will give later: what it does not give now has not left the log."""
        ...

    def read(self, bytes_max: int) -> list[tuple[Commit, Position]]:
        """The next commits, about ``bytes_max`` bytes, each with the position after it; none: none yet."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


OpenChain = Callable[[Position], ChainReader]
"""Opens one ready log behind a position; ZERO: from the oldest commit that is kept."""


class PrivateRun(Protocol):
    """Commits that are made again from the raw log (process/private.py), for a destination off the chain."""

    @property
    def partitions(self) -> tuple[int, ...]: ...
    @property
    def missing(self) -> int:
        """Events that the raw log no longer holds: without them, the run would leave a hole."""
        ...

    @property
    def incomplete(self) -> bool:
        """Whether ids below the run are not known any more: a copy of one of their events may become a second row."""
        ...

    @property
    def left(self) -> int:
        """Events that it has still to read; those of other partitions count too."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last commit was given."""
        ...

    def advance(self) -> Commit | None:
        """A piece of work; a commit, or none where it was only preparation."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


OpenPrivate = Callable[[tuple[int, ...], Vector, Vector], PrivateRun]
"""Partitions, origin, until: the run between."""


class ProcessedAt(NamedTuple):
    """Where processing stands, and what it had let out there; of one moment for each partition."""

    vectors: Mapping[int, Vector]
    outs: Mapping[int, Mapping[str, int]]
    """Partition → stream → cumulative `out`."""


NOWHERE = ProcessedAt({}, {})
