"""What to do next, as a function of values (protocol.md §5, Deliver): no I/O, no clock.

``plan`` looks at where the partitions stand and at the links of the chain that follow. Each partition is judged
by the first link that it has not passed: it stands at the link's origin → load; otherwise it is *off the chain*.
A link may be loaded for a subset of its partitions (INV-DST-2). With several ready logs a partition may wait for
a link of another log (the number of processors was changed), so being off counts only when nothing can be loaded.

``private`` runs are the way back to the chain: to where its last stretch without a gap begins or, inside that, to the
first border that is not behind us. One run each, however many links lie before it: a partition that moved between nodes
leaves a chain of void links, among which every run would end inside the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headwater.event.position import EMPTY, Vector


@dataclass(frozen=True, slots=True)
class Link:
    """A commit as the plan sees it. ``rows`` is an upper bound of the rows to load."""

    origin: Vector
    target: Vector
    partitions: frozenset[int]
    rows: int


@dataclass(frozen=True, slots=True)
class Load:
    """Links ``first`` up to ``end`` of chain ``chain``, those of them that have ``partitions``, which all stand at the
    first's origin."""

    chain: int
    first: int
    end: int
    partitions: tuple[int, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Private:
    """A private run for ``partitions``, which all stand at ``origin``, up to where a link of their chain begins."""

    partitions: tuple[int, ...]
    origin: Vector
    until: Vector


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to add now: every link is passed."""


@dataclass(frozen=True, slots=True)
class Paused:
    """An operator must act. ``adopt`` is what the one mending command starts from."""

    code: str
    partitions: tuple[int, ...]
    adopt: str = "now"


Decision = Load | Private | Wait
Standing = Mapping[Vector, frozenset[int]]


def standing(have: Mapping[int, Vector]) -> Standing:
    """Partitions by where they stand; mostly all at one vector."""
    groups: dict[Vector, set[int]] = {}
    for partition, vector in have.items():
        groups.setdefault(vector, set()).add(partition)
    return {vector: frozenset(group) for vector, group in groups.items()}


def passed(groups: Standing, link: Link) -> bool:
    """True when the destination holds the link for all its partitions."""
    held = (group for vector, group in groups.items() if link.target <= vector)
    return link.partitions <= frozenset().union(*held)


def plan(groups: Standing, chains: Sequence[Sequence[Link]], rows_full: int) -> Decision:
    """The next load: it ends with the link that reaches ``rows_full`` rows, or with the last that there is."""
    off: dict[int, Sequence[Link]] = {}
    for number, links in enumerate(chains):
        missed = False
        for index, link in enumerate(links):
            if passed(groups, link):
                continue
            here = groups.get(link.origin, frozenset()) & link.partitions
            if here and not link.target <= link.origin:
                return extend(number, index, here, links, rows_full)
            if missed:
                continue  # a partition that came back from another node begins its chain anew behind void links
            missed, rest = True, links[index:]
            for vector, group in groups.items():
                if not link.target <= vector:
                    off = dict.fromkeys(group & link.partitions, rest) | off
    return private(groups, off) if off else Wait()


def private(groups: Standing, off: Mapping[int, Sequence[Link]]) -> Private:
    """The run that brings the lowest of these partitions, and all that stand with it, to a border of their chain;
    ``off`` has the links from the first on that they miss."""
    first = min(off)
    origin, group = next((vector, group) for vector, group in groups.items() if first in group)
    stretch = last_stretch([link for link in off[first] if first in link.partitions])
    link = next((link for link in stretch if origin <= link.origin), stretch[-1])
    together = tuple(p for p in sorted(group & link.partitions) if off.get(p) is off[first])
    return Private(together, origin, link.origin if origin <= link.origin else origin.join(link.target))


def last_stretch(links: Sequence[Link]) -> Sequence[Link]:
    """The links at the end that follow one another without a gap."""
    begin = len(links) - 1
    while begin > 0 and links[begin - 1].target == links[begin].origin:
        begin -= 1
    return links[begin:]


def extend(
    number: int, first: int, partitions: frozenset[int], links: Sequence[Link], rows_full: int
) -> Load:
    """As many links from ``first`` on as follow without a gap for all of ``partitions``, until the load is full.
    Links of other partitions lie between them where a processor has several groups, and are stepped over."""
    end, rows, last = first + 1, links[first].rows, links[first]
    for link in links[end:]:
        if link.partitions & partitions:
            if link.origin != last.target or not partitions <= link.partitions or rows >= rows_full:
                break
            rows, last = rows + link.rows, link
        end += 1
    return Load(number, first, end, tuple(sorted(partitions)), rows)


def examine(
    rows: Mapping[int, Vector], remembered: Mapping[int, Vector], partitions: Collection[int]
) -> Paused | None:
    """Whether position rows that were read may be believed (protocol-why.md D4, D5); None: go on.

    ``remembered`` is what this deliverer saw committed, at worst an older state of it. A row that is missing
    though it was there, or that is not at or above what is remembered, needs an operator: going on from zero
    doubles, going on from here loses or doubles.
    """
    missing = tuple(p for p in partitions if p not in rows)
    if missing and (rows or remembered):
        return Paused("position_missing", missing)
    back = tuple(sorted(p for p, vector in remembered.items() if p in rows and not vector <= rows[p]))
    return Paused("destination_went_back", back, "here") if back else None


def due_s(since_load_s: float, load_s: float, *, full: bool, shortest_s: float, longest_s: float) -> float:
    """Seconds until a load of the waiting rows should begin; 0: now.

    A full load goes at once, and so do the first rows after silence. In between, small loads are spaced by four
    times what the last one took, within [shortest, longest]: small loads cost 2 to 3 times more per row, so they
    may take a fifth of a core, and a row never waits longer than ``longest_s``.
    """
    return 0.0 if full else max(0.0, min(longest_s, max(shortest_s, 4 * load_s)) - since_load_s)


def ends(chains: Iterable[Iterable[Link]]) -> dict[int, Vector]:
    """Where the chain of each partition ends, over all ready logs."""
    found: dict[int, Vector] = {}
    for links in chains:
        for link in links:
            for partition in link.partitions:
                found[partition] = found.get(partition, EMPTY).join(link.target)
    return found
