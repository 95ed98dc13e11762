"""Where a destination begins, and where it goes on after an operator's decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from headwater.destinations.chain import OUT, link_of
from headwater.destinations.load import outs
from headwater.destinations.plan import Paused
from headwater.destinations.plan import ends as chain_ends
from headwater.destinations.port import Counts, OpenChain, OutcomeUnknown, PositionRow, ProcessedAt
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, ZERO, Vector
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable

READ_BYTES = 4 * 1024 * 1024
RETRY_FIRST_S = 0.1

REASONS = {
    "chain_begins_later": "it is new, and the ready log no longer holds the events from the beginning",
    "off_chain": "no entry of the ready log begins where it stands",
    "raw_gone": "the raw log no longer holds the events that it lacks",
    "position_missing": "its position rows are gone, though it was delivered to before",
    "destination_went_back": "it stands below what was delivered to it: an older state was restored",
    "destination_missing": "it is not there, though it was delivered to before",
}


def paused(name: str, why: Paused) -> Misconfigured:
    """The error that pauses a destination, with the one command that mends it."""
    command = f"headwater destination adopt {name} --from {why.adopt}"
    return Misconfigured(
        f"destination {name} is paused: {REASONS[why.code]}",
        code=why.code,
        help=command,
        command=command,
        partitions=len(why.partitions),
    )


def ahead(name: str) -> Misconfigured:
    """The error for a destination that knows logs which this node has not begun."""
    return Misconfigured(
        f"destination {name} is paused: it holds events of logs that this data folder never began, so the folder is an "
        "older copy, and what it accepts now could be taken for delivered",
        code="destination_ahead",
        help="restart the node: its next logs then come behind those, and status says how to go on",
    )


def named(name: str, error: HeadwaterError) -> HeadwaterError:
    """An adapter's error as this destination's: what it says about a command names the destination."""
    if error.code == "destination_missing" and "command" not in error.fields:
        command = f"headwater destination adopt {name} --from beginning"
        message = f"{error.message}; it goes on by itself when it is put back"
        help_ = f"put it back, or begin a new one with all that the raw log still holds: {command}"
        named_ = Misconfigured(message, code=error.code, help=help_, command=command)
        named_.__cause__ = error
        return named_
    return error


def retry_s(error: HeadwaterError, failures: int, longest_s: float) -> float:
    """When to try again: unknown outcomes at once, absence soon and then slower, the rest at the longest."""
    if isinstance(error, OutcomeUnknown) and not failures:
        return 0.0
    if isinstance(error, Unavailable):
        return float(min(longest_s, RETRY_FIRST_S * 2 ** min(failures, 16)))
    return longest_s


def walk(opens: Iterable[OpenChain]) -> Iterable[Commit]:
    """Every commit that the ready logs hold, log after log."""
    for open_chain in opens:
        reader = open_chain(ZERO)
        try:
            while found := reader.read(READ_BYTES):
                yield from (commit for commit, _ in found)
        finally:
            reader.close()


def ends(opens: Iterable[OpenChain]) -> dict[int, Vector]:
    """Where the chain of each partition ends now."""
    return chain_ends([map(link_of, walk(opens))])


def first_rows(starts: Mapping[int, Vector], partitions: Iterable[int], owner: str) -> dict[int, PositionRow]:
    """Position rows of a new destination: at ``starts``, else at zero."""
    return {p: PositionRow(starts.get(p, EMPTY).encode(), owner=owner) for p in partitions}


def adopted(
    start: str,
    rows: Mapping[int, PositionRow],
    opens: Iterable[OpenChain],
    partitions: Collection[int],
    passed: Mapping[int, Mapping[str, int]] | None,
    empty: Callable[[], bool],
    processed: Mapping[int, Vector] | None = None,
) -> dict[int, PositionRow]:
    """The position rows that an operator chose. ``processed``: where processing stands, at ``passed``; without it the
    end of the chain, as far as it is still there.

    ``here``: as the destination stands; it is believed, what was remembered is forgotten. Rejected: rows missing.
    ``beginning``: at zero, for a destination without a row. Rejected: it holds rows, they would be doubled.
    ``now``: at the end of the chain; what lies between is left out and counted as ``skipped``, from ``passed``
    (partition → stream → cumulative `out` at the end of the chain) or, without it, from the chain as far as it
    reaches. Rejected: the destination is ahead of the chain. Unavailable: ``processed`` lacks partitions.
    """
    if start == "here":
        if missing := [p for p in partitions if p not in rows]:
            raise Rejected(
                f"{len(missing)} of {len(partitions)} position rows are missing", code="position_missing"
            )
        return dict(rows)
    if start == "beginning":
        if not empty():
            raise Rejected(
                "the destination holds rows: from the beginning they would be there twice", code="not_empty"
            )
        return first_rows({}, partitions, "")
    if start != "now":
        raise Rejected(f"adopt from {start!r}: expected now, here or beginning", code="adopt_from")
    return from_now(rows, list(opens), partitions, passed, processed)


def begins(opens: Iterable[OpenChain], processed: Mapping[int, Vector]) -> bool:
    """Whether the ready logs still hold what was processed first."""
    begun: dict[int, bool] = {}
    for commit in walk(opens):
        for partition in commit.partitions:
            begun[partition] = begun.get(partition, False) or commit.origin == EMPTY
    return all(begun.values()) and all(v == EMPTY or p in begun for p, v in processed.items())


def beginning_gone() -> Rejected:
    """The answer to ``beginning`` where it is not in the ready log, and there is no raw log to take it from."""
    return Rejected(
        "the logs no longer hold what was processed first, so it cannot begin at the beginning",
        code="beginning_gone",
        help="restore the file, or begin with --from now: what was processed before is left out, and counted",
    )


def reckoned(
    rows: Mapping[int, PositionRow],
    have: Mapping[int, Vector],
    at: ProcessedAt,
    commits: Sequence[Commit],
) -> dict[int, dict[str, Counts]] | None:
    """What must be added to rows from which events were left out, so that their counters add up again; None where it
    cannot be told now. ``commits`` are those of the chain that follow.

    What was let out up to a place on the chain is what processing has let out, less the commits between the two.
    """
    added: dict[int, dict[str, Counts]] = {}
    for partition, row in rows.items():
        later = outs_between(partition, have[partition], at.vectors.get(partition), commits)
        if later is None:
            return None
        added[partition] = {}
        for stream, out in at.outs.get(partition, {}).items():
            counts = row.streams.get(stream, Counts())
            out -= later.get(stream, 0)
            skipped = out + counts.revived - counts.rows - counts.dead - counts.erased
            change = Counts(out=out - counts.out, skipped=skipped - counts.skipped)
            if change != Counts():
                added[partition][stream] = change
    return added


def outs_between(
    partition: int, here: Vector, there: Vector | None, commits: Sequence[Commit]
) -> dict[str, int] | None:
    """What the commits from ``here`` to ``there`` let out in a partition; None where they do not lead there."""
    found: dict[str, int] = {}
    for commit in commits:
        if here == there:
            break
        if partition in commit.partitions and commit.origin == here:
            here = commit.target
            for stream, changes in commit.changes.items():
                if partition in changes:
                    found[stream] = found.get(stream, 0) + changes[partition][OUT]
    return found if here == there else None


def from_now(
    rows: Mapping[int, PositionRow],
    opens: list[OpenChain],
    partitions: Collection[int],
    passed: Mapping[int, Mapping[str, int]] | None,
    processed: Mapping[int, Vector] | None,
) -> dict[int, PositionRow]:
    """Rows where processing stands; see ``adopted``."""
    if processed is not None and len(processed) < len(partitions):
        raise Unavailable("processing has not said yet where it stands", code="processing_silent")
    end = ends(opens) if processed is None else dict(processed)
    found = {p: rows.get(p) or PositionRow(EMPTY.encode()) for p in partitions}
    ahead = [
        p
        for p, row in found.items()
        if p in end and end[p] != (v := Vector.decode(row.vector)) and end[p] <= v
    ]
    if ahead:
        raise Rejected(
            f"the destination is ahead of the chain in {len(ahead)} partitions",
            code="ahead_of_chain",
            help="wait until processing has passed it",
        )
    known = passed if passed is not None else left_out(found, walk(opens))
    for p, row in found.items():
        streams = dict(row.streams)
        for stream, out in known.get(p, {}).items():
            counts = streams.get(stream, Counts())
            streams[stream] = counts._replace(
                out=out, skipped=out + counts.revived - counts.rows - counts.dead - counts.erased
            )
        found[p] = replace(row, vector=end.get(p, Vector.decode(row.vector)).encode(), streams=streams)
    return found


def left_out(rows: Mapping[int, PositionRow], commits: Iterable[Commit]) -> dict[int, dict[str, int]]:
    """Cumulative `out` at the end of the chain, as far as it follows from the rows and the commits behind them."""
    found = {p: {stream: counts.out for stream, counts in row.streams.items()} for p, row in rows.items()}
    at = {p: Vector.decode(row.vector) for p, row in rows.items()}
    for commit in commits:
        beyond = frozenset(p for p in commit.partitions if p in at and not commit.target <= at[p])
        for p, streams in outs([commit], beyond).items():
            for stream, counts in streams.items():
                found[p][stream] = found[p].get(stream, 0) + counts.out
    return found
