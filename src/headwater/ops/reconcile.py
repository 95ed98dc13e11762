"""The conservation ledger (protocol.md §13): per stream and destination,

    accepted = delivered + pending + dead + duplicate + filtered + erased + damaged + uncounted

A pure function of what destinations, processors and logs say. ``pending`` is what is accepted and nothing else yet,
so the sum is right by construction; what *holds* or not are the equations behind it, each valid at any moment:

1. of what processors took in, every event came out as one of the kinds;
2. no processor took in more than was accepted, and exactly that when it stands at the end of the log;
3. no destination holds more than processors gave out, and exactly that where both stand at one vector (but for one
   that has just left events out and has not counted them yet);
4. a destination's own ledger adds up: given out + revived by a replay = rows + refused + erased + skipped;
5. nothing is damaged.

The reports must have been read in the order destinations, processors, logs: each is then the past of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from headwater.event.commit import COUNTERS
from headwater.ops.accepted import Accepted
from headwater.ops.standing import Delivered, Processed, covers

KINDS = tuple(name for name in COUNTERS if name != "in")
NOTHING: Mapping[str, int] = {}


class DestinationLedger(msgspec.Struct, frozen=True, kw_only=True):
    """One stream in one destination, in events; the kinds, with ``uncounted`` of the stream, add up to ``accepted``."""

    delivered: int
    pending: int
    dead: int
    """On the way, and refused by this destination; without those that a replay made rows of."""
    duplicate: int
    filtered: int
    """On the way, and left out here by an operator (``destination adopt``)."""
    erased: int
    damaged: int
    holds: bool


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, in events. With several destinations, the numbers are those of the one for which most is pending."""

    stream: str
    accepted: int
    delivered: int
    pending: int
    dead: int
    duplicate: int
    filtered: int
    erased: int
    damaged: int
    uncounted: int = 0
    """Known when everything is processed: what was dropped as a duplicate or a dead letter before a partition was taken
    over without any state. 0 wherever that never happened."""
    holds: bool
    problems: list[str]
    """Which equation does not hold, in words."""
    destinations: dict[str, DestinationLedger]


def reconcile(
    accepted: Accepted,
    processed: Processed,
    destinations: Mapping[str, Delivered],
    partitions: int = 0,
    forgotten: Sequence[str] = (),
) -> list[Ledger]:
    """One ledger per stream, by name. ``partitions``: how many there are, where some may not be spoken for;
    ``forgotten``: the ids of nodes that are gone for good, of whose events some were processed."""
    if len(processed.vectors) < partitions:
        processed = replace(processed, vectors={})  # nobody knows whether all stand at the end
    if forgotten:
        accepted = with_forgotten(accepted, processed)
    streams = {*accepted.streams, *processed.streams}
    for told in destinations.values():
        streams |= set(told.streams)
    ledgers = [ledger(stream, accepted, processed, destinations) for stream in sorted(streams)]
    return with_gone(with_mark(explained(ledgers, processed), processed), forgotten)


def without_some(ledgers: list[Ledger], silent: Sequence[str]) -> list[Ledger]:
    """The same, while some nodes do not answer: what only they know is missing, so nothing can be said to hold."""
    if not silent:
        return ledgers
    why = f"{', '.join(silent)} did not answer: what only they know is not counted"
    return [msgspec.structs.replace(one, holds=False, problems=[why]) for one in ledgers]


def with_forgotten(accepted: Accepted, processed: Processed) -> Accepted:
    """With what nodes that are gone for good had accepted, as far as anybody can say: what was processed of it. While
    others' events are on their way, it is at least so much."""
    taken = {stream: counts.get("in", 0) for stream, counts in processed.streams.items()}
    streams = {*accepted.streams, *taken}
    counts = {one: max(accepted.streams.get(one, 0), taken.get(one, 0)) for one in streams}
    return Accepted(counts, accepted.ends)


def with_gone(ledgers: list[Ledger], forgotten: Sequence[str]) -> list[Ledger]:
    """The same, with what nobody can count any more: told, though it is no mismatch."""
    if not forgotten:
        return ledgers
    why = (
        f"of {', '.join(f'node {node}' for node in forgotten)}, gone for good, only those events count as accepted "
        "that were processed; `pending` may be too low while others are on their way"
    )
    return [msgspec.structs.replace(one, problems=[*one.problems, why]) for one in ledgers]


def with_mark(ledgers: list[Ledger], processed: Processed) -> list[Ledger]:
    """The same, with what cannot be known after a takeover without state: told, though it is no mismatch."""
    if not processed.restarted:
        return ledgers
    why = (
        f"{processed.restarted} partitions were taken over when their owner and their standby were both away: "
        "duplicates and dead letters of them before that are not told apart; they are `uncounted` when everything is "
        "processed"
    )
    if processed.unread_homes:
        why += f"; the older events of {', '.join(sorted(processed.unread_homes))} could not be read for it: a copy "
        why += "that a client sends again counts as new"
    return [
        msgspec.structs.replace(
            one, problems=[*one.problems, f"{why} (here {one.uncounted})" if one.uncounted else why]
        )
        for one in ledgers
    ]


def explained(ledgers: list[Ledger], processed: Processed) -> list[Ledger]:
    """The same, with what a mismatch means where that can be told: events that rotted in the raw log after they were
    processed count as accepted under no stream, and as processed under their own."""
    surplus = {
        one.stream: more
        for one in ledgers
        if one.stream and (more := processed.streams.get(one.stream, NOTHING).get("in", 0) - one.accepted) > 0
    }
    rotten = next((one for one in ledgers if not one.stream), None)
    if rotten is None or not surplus or sum(surplus.values()) != rotten.accepted:
        return ledgers
    why = (
        "these were processed before the raw log could no longer be read where they stand, so they are missing nowhere "
        "else: `headwater log inspect` names the place; the mismatch stays"
    )
    return [
        msgspec.structs.replace(one, problems=[*one.problems, why])
        if one.problems and (one is rotten or one.stream in surplus)
        else one
        for one in ledgers
    ]


def ledger(
    stream: str, accepted: Accepted, processed: Processed, destinations: Mapping[str, Delivered]
) -> Ledger:
    """The ledger of one stream."""
    count = accepted.streams.get(stream, 0)
    passed = processed.streams.get(stream, NOTHING)
    at_end = caught_up(accepted, processed)
    problems = on_the_way(count, passed, at_end and not processed.restarted)
    uncounted = max(0, count - passed.get("in", 0)) if at_end and processed.restarted else 0
    told = {
        name: in_destination(count - uncounted, passed, one.streams.get(stream, NOTHING))
        for name, one in destinations.items()
    }
    wrong = {
        name: held_wrongly(passed, one.streams.get(stream, NOTHING), processed, one)
        for name, one in destinations.items()
    }
    problems += [f"{name}: {problem}" for name, found in wrong.items() for problem in found]
    ledgers = {
        name: DestinationLedger(**numbers, holds=not wrong[name] and numbers["pending"] >= 0)
        for name, numbers in told.items()
    }
    worst = furthest_behind(told.values()) if told else without(count - uncounted, passed)
    if worst["pending"] < 0:
        problems.append(f"{-worst['pending']} events more than were accepted")
    return Ledger(
        stream=stream,
        accepted=count,
        uncounted=uncounted,
        **worst,
        holds=not problems and all(one.holds for one in ledgers.values()),
        problems=problems,
        destinations=ledgers,
    )


def caught_up(accepted: Accepted, processed: Processed) -> bool:
    """Whether every partition stands exactly at the end of the raw log."""
    return bool(processed.vectors) and all(
        all(vector[writer] == end for writer, end in accepted.ends.items())
        for vector in processed.vectors.values()
    )


def on_the_way(accepted: int, passed: Mapping[str, int], at_end: bool) -> list[str]:
    """Equations 1, 2 and 5."""
    taken = passed.get("in", 0)
    problems = []
    if taken != (out := sum(passed.get(kind, 0) for kind in KINDS)):
        problems.append(f"processing took in {taken} and accounts for {out}")
    if taken > accepted:
        problems.append(f"processing took in {taken} of {accepted} accepted")
    if at_end and taken != accepted:
        problems.append(f"processing stands at the end of the log with {taken} of {accepted} accepted")
    if damaged := passed.get("damaged", 0):
        problems.append(f"{damaged} damaged: see `headwater log inspect`")
    return problems


def held_wrongly(
    passed: Mapping[str, int], held: Mapping[str, int], processed: Processed, one: Delivered
) -> Sequence[str]:
    """Equations 3 and 4."""
    out, given = held.get("out", 0), passed.get("out", 0)
    problems = []
    kept = sum(held.get(name, 0) for name in ("rows", "dead", "erased", "skipped")) - held.get("revived", 0)
    if out != kept:
        problems.append(f"was given {out} and accounts for {kept}")
    if out > given and covers(processed.vectors, one.vectors):
        problems.append(f"was given {out}, processing gave out {given}")
    if out != given and one.vectors and one.vectors == processed.vectors and one.reckoned:
        problems.append(f"stands where processing stands with {out} of {given}")
    return problems


def in_destination(accepted: int, passed: Mapping[str, int], held: Mapping[str, int]) -> dict[str, int]:
    """The seven kinds for one destination."""
    numbers = {
        "delivered": held.get("rows", 0),
        "dead": passed.get("dead", 0) + held.get("dead", 0) - held.get("revived", 0),
        "duplicate": passed.get("duplicate", 0),
        "filtered": passed.get("filtered", 0) + held.get("skipped", 0),
        "erased": passed.get("erased", 0) + held.get("erased", 0),
        "damaged": passed.get("damaged", 0),
    }
    return {**numbers, "pending": accepted - sum(numbers.values())}


def furthest_behind(told: Iterable[dict[str, int]]) -> dict[str, int]:
    """The numbers of the destination for which most is pending, or too much is there; where that is the same, of the
    one that has most rows: what an operator left out elsewhere is no delay."""
    return max(told, key=lambda numbers: (numbers["pending"] < 0, numbers["pending"], numbers["delivered"]))


def without(accepted: int, passed: Mapping[str, int]) -> dict[str, int]:
    """The seven kinds where there is no destination: what was given out went to everybody there is."""
    return in_destination(accepted, passed, {"rows": passed.get("out", 0)})


def as_json(ledgers: Sequence[Ledger]) -> list[dict[str, Any]]:
    """As the API and ``headwater reconcile --json`` show them."""
    return [msgspec.to_builtins(one) for one in ledgers]
