"""What is known of the anonymous ids of one processor: facts, on disk by id, bytes per visitor who ever logged in.

A visitor who never names a person has no entry. Facts only ever join those that are there, so it does not matter
whether one is put here once or twice, or before its commit is folded: whoever runs its event again puts the same.
Readers of other processes see what was saved last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import lmdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.identity.filter import Filter, hashes_of
from headwater.identity.junk import ID_BYTES_MAX
from headwater.identity.owner import FIRST_SEEN, KINDS, LOGOUT, UNLINK, Fact, Interval
from headwater.kit.errors import Unavailable

FACTS_MAX = 200
"""Facts of one id that are kept; an id that has more is looked up in the destinations, where all of them are."""
SAME_AGE_US = 48 * 3_600_000_000
"""A login between two others of the same user is left out when it is older than this, against the newest: nothing can
come between them any more, since times are at most 24 h before receipt."""
FILTER_PIECE = 100_000
WHOLE, MANY, SHARED = range(3)


@dataclass(slots=True)
class Kept:
    """What is known of an id. ``MANY``: not all of it; ``SHARED``: it has more users than a person's device."""

    form: int
    facts: tuple[Fact, ...]
    spans: list[Interval] | None = field(default=None, compare=False)
    """What follows from them, once somebody asked."""


class Known(Protocol):
    """Where recognition looks facts up."""

    def look(self, ids: pa.Array) -> dict[int, Kept]:
        """What is known of these ids (strings, no nulls), by their index; nothing of those that are left out."""
        ...

    def add(self, facts: Iterable[tuple[str, Fact]]) -> None:
        """Facts of a run; those below its vector are known already."""
        ...


class Unknown:
    """Nothing is known: runs that begin without state. What they make is settled where it lands."""

    def look(self, ids: pa.Array) -> dict[int, Kept]:
        return {}

    def add(self, facts: Iterable[tuple[str, Fact]]) -> None:
        pass


class FactStore:
    """One processor's facts, in a folder of its own (LMDB). Written by that processor alone, from one thread."""

    def __init__(
        self,
        folder: str,
        bytes_max: int,
        shared_users_max: int,
        *,
        cached_ids: int = 0,
        filter_bytes: int = 1024,
        readonly: bool = False,
    ) -> None:
        """Unavailable: ``readonly``, and there is none yet."""
        self.shared_users_max = shared_users_max
        self.pending: dict[str, Kept] = {}
        """What is newer than on disk."""
        self.generation_max = cached_ids // 2
        self.young: dict[str, Kept | None] = {}
        self.old: dict[str, Kept | None] = {}
        """What was looked up lately, and a while ago."""
        if not readonly:
            os.makedirs(folder, 0o750, exist_ok=True)
        try:
            self.environment = lmdb.open(
                folder,
                map_size=bytes_max,
                subdir=True,
                readonly=readonly,
                lock=True,
                mode=0o640,
                max_dbs=0,
                readahead=False,
            )
        except lmdb.Error as error:
            raise Unavailable(f"{folder}: {error}", code="identity_unreadable") from error
        self.complete = self._complete()
        """The partitions of which every fact below the state's vector is here; None: it was just made."""
        self.saved_complete = self.complete
        self.filter = Filter(filter_bytes)
        if not readonly:
            self._fill_filter()

    def _complete(self) -> set[int] | None:
        with self.environment.begin() as read:
            value = read.get(COMPLETE)
        return None if value is None else set(msgspec.msgpack.decode(value, type=list[int]))

    def _fill_filter(self) -> None:
        """What is on disk already; about 2 s for a million ids."""
        with self.environment.begin() as read:
            keys = read.cursor().iternext(values=False)
            while some := [unpacked(key) for key in islice(keys, FILTER_PIECE) if key != COMPLETE]:
                self.filter.add(hashes_of(pa.array(some, pa.string())))

    def look(self, ids: pa.Array) -> dict[int, Kept]:
        """See Known."""
        sizes = pc.binary_length(ids).to_numpy()
        short = np.flatnonzero(
            (sizes > 0) & (sizes <= ID_BYTES_MAX)
        )  # others have no facts, and fit into no key
        maybe = short[self.filter.maybe(hashes_of(ids.take(pa.array(short))))]
        if not len(maybe):
            return {}
        found = self.many(ids.take(pa.array(maybe)).to_pylist())
        return {n: one for n, one in zip(maybe.tolist(), found, strict=True) if one is not None}

    def many(self, ids: Sequence[str]) -> list[Kept | None]:
        """What is known of each; None: nothing."""
        young, old, pending = self.young, self.old, self.pending
        found: list[Kept | None] = []
        with self.environment.begin(buffers=True) as read:
            for one in ids:
                if one in young:
                    found.append(young[one])
                    continue
                kept = pending.get(one)
                if kept is None:
                    kept = old[one] if one in old else decoded(read.get(key_of(one)))
                young[one] = kept
                found.append(kept)
        self._age()
        return found

    def _age(self) -> None:
        """Forget what was not looked up for a generation."""
        if len(self.young) > self.generation_max:
            self.old, self.young = self.young, {}
        if len(self.old) > 2 * self.generation_max:
            self.old = {}

    def add(self, facts: Iterable[tuple[str, Fact]]) -> None:
        """See Known; durable with the next ``save``. Of ids that are no junk (identity/junk.py)."""
        by_id: dict[str, list[Fact]] = {}
        for one, fact in facts:
            by_id.setdefault(one, []).append(fact)
        if not by_id:
            return
        self.filter.add(hashes_of(pa.array(list(by_id), pa.string())))
        for (one, new), known in zip(by_id.items(), self.many(list(by_id)), strict=True):
            self.pending[one] = self.young[one] = merged(known, new, self.shared_users_max)

    def save(self) -> None:
        """Make what was added durable. Unavailable: the store has no room left."""
        if not self.pending and self.complete == self.saved_complete:
            return
        try:
            with self.environment.begin(write=True) as write:
                if self.complete is not None:
                    write.put(COMPLETE, msgspec.msgpack.encode(sorted(self.complete)))
                for one, kept in self.pending.items():
                    write.put(key_of(one), encoded(kept))
        except lmdb.MapFullError as error:
            raise Unavailable(
                f"the facts of recognition take all of their {self.environment.info()['map_size']} bytes",
                code="identity_full",
                help="give identity.store_bytes_max more",
            ) from error
        self.pending.clear()
        self.saved_complete = self.complete

    def beside(self, folder: str) -> FactStore | None:
        """The store of another processor, to be read; None where there is none."""
        if not os.path.exists(f"{folder}/data.mdb"):
            return None
        size = self.environment.info()["map_size"]
        return FactStore(folder, size, self.shared_users_max, readonly=True)

    def take_over(self, other: FactStore, wanted: Callable[[str], bool]) -> None:
        """The facts of another store on disk, of the ids that are wanted."""
        for one, kept in other.items():
            if wanted(one):
                known = self.many([one])[0]
                self.filter.add(hashes_of(pa.array([one], pa.string())))
                joined = kept if kept.form != WHOLE else merged(known, kept.facts, self.shared_users_max)
                self.pending[one] = self.young[one] = joined

    def items(self) -> Iterator[tuple[str, Kept]]:
        """Every id on disk, with what is known of it."""
        with self.environment.begin(buffers=True) as read:
            for key, value in read.cursor():
                if key == COMPLETE:
                    continue
                kept = decoded(value)
                assert kept is not None
                yield unpacked(bytes(key)), kept

    def sizes(self) -> tuple[int, int]:
        """Ids with facts, and the bytes that they take."""
        told, info = self.environment.stat(), self.environment.info()
        return int(told["entries"]) - (self.saved_complete is not None), (int(info["last_pgno"]) + 1) * int(
            told["psize"]
        )

    def close(self) -> None:
        """Release the files; what was not saved is gone."""
        self.environment.close()


def merged(known: Kept | None, new: Iterable[Fact], shared_users_max: int) -> Kept:
    """What is known, with more facts."""
    if known is not None and known.form != WHOLE:
        return known
    facts = reduced([*(known.facts if known is not None else ()), *new])
    if len(facts) <= FACTS_MAX:
        return Kept(WHOLE, facts)
    users = {f.user_id for f in facts if f.kind not in (LOGOUT, UNLINK)}
    return Kept(SHARED if len(users) > shared_users_max else MANY, ())


def reduced(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts that can still decide anything: each once, of first events of a user the least."""
    first: dict[str, Fact] = {}
    others: set[Fact] = set()
    for fact in facts:
        if fact.kind != FIRST_SEEN:
            others.add(fact)
        elif fact.user_id not in first or (fact.time_us, fact.message_id) < (
            first[fact.user_id].time_us,
            first[fact.user_id].message_id,
        ):
            first[fact.user_id] = fact
    order = sorted([*others, *first.values()], key=lambda f: (f.time_us, f.message_id, f.kind, f.user_id))
    if len(order) <= FACTS_MAX // 2:
        return tuple(order)
    old_us = order[-1].time_us - SAME_AGE_US
    return tuple(
        fact
        for n, fact in enumerate(order)
        if not 0 < n < len(order) - 1
        or fact.time_us > old_us
        or fact.kind == UNLINK
        or not same(order[n - 1], fact)
        or not same(fact, order[n + 1])
    )


def same(one: Fact, other: Fact) -> bool:
    """Whether two neighbours say the same."""
    return one.user_id == other.user_id and UNLINK not in (one.kind, other.kind)


UUID_CHARS = 36
COMPLETE = b"\xff"
"""Where it stands which partitions are complete; no id is written so."""
MARK = b"\xff"
"""No text in UTF-8 begins with it."""


def key_of(text: str) -> bytes:
    """An id as it stands in the store: a UUID as its 16 bytes behind a mark, others as they are."""
    if len(text) == UUID_CHARS and text[8] == text[13] == text[18] == text[23] == "-":
        try:
            packed = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            packed = b""
        if len(packed) == 16 and text == dashed(
            packed
        ):  # upper case, or dashes elsewhere, would not come back
            return MARK + packed
    return text.encode("utf-8", "surrogatepass")


def unpacked(key: bytes) -> str:
    """From ``key_of``."""
    return dashed(key[1:]) if key[:1] == MARK else key.decode("utf-8", "surrogatepass")


def dashed(packed: bytes) -> str:
    """A UUID as it is written."""
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


encoder = msgspec.msgpack.Encoder()
decoder = msgspec.msgpack.Decoder(tuple[int, list[tuple[int, bytes, int, bytes]]])


def encoded(kept: Kept) -> bytes:
    """As it stands in the store."""
    return encoder.encode(
        (
            kept.form,
            [(KINDS.index(f.kind), key_of(f.user_id), f.time_us, key_of(f.message_id)) for f in kept.facts],
        )
    )


def decoded(value: bytes | memoryview | None) -> Kept | None:
    """From ``encoded``."""
    if value is None:
        return None
    form, facts = decoder.decode(value)
    return Kept(form, tuple(Fact(KINDS[kind], unpacked(u), at, unpacked(m)) for kind, u, at, m in facts))
