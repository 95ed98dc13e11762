"""Sources and sinks with one mistake in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headwater.event.commit import Commit
from headwater.event.position import Position, Vector
from headwater.node.standby import entries
from headwater.node.standby.entries import Delta, Seen
from headwater.node.standby.sink import Sink, named
from headwater.node.standby.source import Source
from headwater.process import idruns, state
from headwater.process.idruns import About
from headwater.process.state import Fold, of_partitions


class IdsAhead(Source):
    """Tells all ids that the runs hold as the base's own."""

    def _seen(self, fold: Fold, vectors: Mapping[int, Vector]) -> Iterator[bytes]:
        for chunk in idruns.since(self.folder, None, self.disk):
            ids = idruns.read(chunk, self.disk)
            assert ids is not None
            for partition, at in vectors.items():
                about = About((partition,), at, at)
                yield entries.encode(Seen(idruns.encode(of_partitions(ids, [partition]), about)))


class RunsBeforeFold(Source):
    """Reads the fold anew when the ids have been read."""

    def _base(self, partitions: list[int]) -> Iterator[bytes]:
        *seen, _ = super()._base(partitions)
        self._look()
        yield from seen
        vectors = {p: self.fold.vectors[p] for p in partitions}
        self.told |= vectors
        self._read_from(self.fold.ready)
        ready, counters = self.fold.ready, self.fold.only(vectors).counters
        yield entries.encode(entries.Base(entries.standing(vectors, partitions), counters, ready, 1))


class FoldFirst(Sink):
    """Saves the fold before the ids."""

    def save(self) -> bool:
        state.save(self.disk, self.folder, self.fold)
        return super().save()


class TakesAnything(Sink):
    """Takes deltas wherever they begin."""

    def _delta(self, entry: Delta) -> None:
        chunk, about = named(entry.chunk)
        self._append(chunk, entry.chunk)
        commit = Commit(about.partitions, about.origin, about.target, 1, 0, entry.changes, {})
        self.fold.apply(commit, Position(*entry.ready))
        self.changed = True
