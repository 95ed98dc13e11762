"""One node's raw logs in a simulation: two collect workers, a supervisor, a processor, and everything that goes wrong.

Each process has a view of the disk of its own; each worker has a loop, a commit thread and a thread that prepares
segments. Between any two calls of the disk the others may take their turn, or the machine may die. The parts under
test are arguments (``Parts``), so that broken ones can be put in their place.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest import mock

import msgspec

from headwater.event.position import Vector, WriterId, writer_id
from headwater.event.record import Head, encode_head
from headwater.kit.simulate.run import Simulation
from headwater.kit.simulate.view import Dead, ProcessDisk
from headwater.log import block, compress, compressed, cut, files, group, recover, retain
from headwater.log.block import Secret
from headwater.log.cut import Cut
from headwater.log.read import Block, LogReader
from headwater.log.write import BlockWriter
from headwater.node.compressing import Compressing
from tests.simulation.log_oracle import Follower, Obligations, Place, Sent, violated

SECRET = Secret(0x5EC2E7)

RAW = "/data/raw"
SEGMENT_BYTES = 64 * 1024
BLOCK_BYTES = 12 * 1024
FRAME_BYTES = 12 * 1024
"""Of compressed segments: they have several."""
FOLDER_ID = 0xABCDEF0123450000
HEAD = encode_head(Head(key_id="web", dialect="native", method="POST", path="/events"))


def new_log_id(previous: int, wall_ns: int, draw: int) -> int:
    """protocol.md §1, with the draw in both branches: a clock that went back must not make ids predictable."""
    return max(previous + 1 + draw, (wall_ns // 1_000_000 << 22) + draw)


@dataclass(frozen=True)
class Parts:
    """What is under test."""

    blocks: Callable[..., BlockWriter] = BlockWriter
    reader: Callable[..., LogReader] = LogReader
    recover_all: Callable[..., Any] = recover.recover_all
    take: Callable[..., Cut | None] = cut.take
    new_log_id: Callable[[int, int, int], int] = new_log_id
    worker_disk: Callable[[ProcessDisk], Any] = lambda view: view
    supervisor_disk: Callable[[ProcessDisk], Any] = lambda view: view
    compressing: Callable[..., Compressing] = Compressing
    upkeep_disk: Callable[[ProcessDisk], Any] = lambda view: view
    switch: Callable[..., int] = compress.switch


@dataclass(frozen=True)
class Weather:
    """How often things go wrong: once in so many steps; 0 is never."""

    kill_worker: int = 25
    kill_reader: int = 30
    kill_all: int = 60
    machine_crash: int = 40
    io_error: int = 40
    disk_full: int = 60
    wall_jump: int = 50
    retire: int = 15
    compress: int = 6
    kill_upkeep: int = 30
    replay: int = 0
    restore: int = 0
    rot: int = 0
    lie: int = 0
    steps: int = 80


class Lying:
    """A worker's disk that now and then says of a block that it is durable when it is not."""

    def __init__(self, world: World, view: ProcessDisk) -> None:
        self.world = world
        self.view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)

    def sync(self, file: int) -> None:
        path = self.view.at(file).path
        if self.world.oracle.moment < self.world.lying_until and files.SEGMENT.match(path.rpartition("/")[2]):
            self.world.harm(path, -1)
        else:
            self.view.sync(file)


class Thread:
    """Work of one thread of a process, in order; it is never entered twice."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], None]] = deque()
        self.busy = False

    def __call__(self, work: Callable[[], None], /) -> None:
        self.queue.append(work)

    def call_soon(self, work: Callable[..., None], *args: Any) -> None:
        """The event loop is one more thread."""
        self.queue.append(lambda: work(*args))

    call_soon_threadsafe = call_soon

    def turn(self) -> bool:
        """Run one piece, if there is one and the thread is free."""
        if self.busy or not self.queue:
            return False
        work = self.queue.popleft()
        self.busy = True
        try:
            work()
        except Dead:
            self.queue.clear()
        finally:
            self.busy = False
        return True


class Worker:
    """A collect worker: a log of its own from start to death."""

    def __init__(self, world: World, number: int, log_id: int) -> None:
        self.world = world
        self.number = number
        self.writer = writer_id(FOLDER_ID, number)
        self.log_id = log_id
        self.view = world.sim.disk.process(f"worker {number} log {log_id:x}")
        self.loop, self.commit, self.prepare = Thread(), Thread(), Thread()
        self.blocks = world.parts.blocks(
            world.parts.worker_disk(cast(Any, Lying(world, self.view))),
            world.sim.clock,
            world.folder(number),
            self.writer,
            log_id,
            secret=SECRET,
            start=world.start,
            offset_ns=world.offset_ns,
            segment_bytes=SEGMENT_BYTES,
            ahead=2,
            submit=self.prepare,
        )
        self.log_id = self.blocks.log_id
        self.group: group.GroupCommit[Sent] = group.GroupCommit(
            self.blocks, cast(Any, self.loop), self.release, pending_bytes_max=64 * 1024, submit=self.commit
        )
        self.group.next_seq = self.blocks.next_seq

    def threads(self) -> list[Thread]:
        return [self.loop, self.commit, self.prepare]

    def send(self, events: int, body: bytes) -> None:
        """A client sends one record; nothing happens when the log is full (503)."""
        if self.view.dead or self.group.full() is not None:
            return
        place = Place(self.writer, self.log_id, self.group.next_seq)
        sent = self.world.oracle.sent(place, events, body)
        self.world.follower.received[place] = sent.received
        self.world.sim.time.advance_ns(1000)
        received = self.world.sim.clock.boot_ns() + self.world.offset_ns
        self.group.append(received, bytes(16), body, HEAD, stream="web", events=events, waiter=sent)

    def release(self, waiters: Any, error: Exception | None) -> None:
        if self.view.dead:
            return
        if error is None:
            for sent in waiters:
                self.world.oracle.answered(sent)
        elif self.blocks.ended:
            self.view.kill()  # an error of the disk: the process goes (protocol.md §2)


class Content:
    """The bytes of a file, without a call that somebody could notice."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def size(self, file: int) -> int:
        return len(self.content)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        return self.content[offset : offset + length]


class Upkeep:
    """The process that compresses; it is never entered twice."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.view = world.sim.disk.process(f"upkeep {world.oracle.moment}")
        self.busy = False
        self.compressing: Compressing | None = None

    def turn(self) -> None:
        """A step, or a look for the next segment."""
        if self.busy or self.view.dead:
            return
        self.busy = True
        try:
            if self.compressing is None:
                self.compressing = self.world.parts.compressing(
                    self.world.parts.upkeep_disk(self.view),
                    RAW, SECRET, after_s=0, level=1, segment_bytes=SEGMENT_BYTES,
                )  # fmt: skip
            if self.compressing.steps is None:
                self.compressing.look(self.world.follower.at, 1 << 62)
            elif (done := self.compressing.step()) is not None:
                self.world.compressed[done[1].value] += 1
        except Dead:
            pass
        except OSError as error:
            self.world.sim.note(f"compression: {error!r}")
        finally:
            self.busy = False

    def bury(self) -> None:
        """It is gone; what it had begun does nothing any more."""
        self.view.kill(quiet=True)
        if self.compressing is not None:
            with suppress(Dead):
                self.compressing.close()


class World:
    """The node."""

    def __init__(self, sim: Simulation, parts: Parts, weather: Weather) -> None:
        self.sim = sim
        self.parts = parts
        self.weather = weather
        self.oracle = Obligations()
        self.follower = Follower()
        self.workers: dict[int, Worker] = {}
        self.readers: dict[WriterId, LogReader] = {}
        self.reader_view: ProcessDisk | None = None
        self.replay_view: ProcessDisk | None = None
        self.replay_bursts = 0
        self.reading = False
        self.upkeep: Upkeep | None = None
        self.compressed: Counter[str] = Counter()
        """What became of segments that were to be compressed; switched ones and rotten frames, too."""
        self.keeping = False
        self.recovered = False
        self.supervising = False
        self.depth = 0
        self.bursts = 0
        self.start = 0
        self.offset_ns = 0
        self.calls_to_crash: int | None = None
        self.backup: Any = None
        self.full_until = 0
        self.lying_until = 0
        sim.disk.between = self.between

    def folder(self, number: int) -> str:
        return f"{RAW}/{writer_id(FOLDER_ID, number):016x}"

    # -- what happens between two calls of the disk

    def between(self, view: ProcessDisk, call: str) -> None:
        if call == "pwrite":
            self.watch_writes(view)
        if self.depth < 2:
            self.others(view)
        if (
            self.calls_to_crash is not None
            and view is not self.reader_view
            and call not in ("open", "close", "pread")
        ):
            self.calls_to_crash -= 1
            if self.calls_to_crash <= 0:
                self.calls_to_crash = None
                self.machine_crash()

    def others(self, view: ProcessDisk) -> None:
        """Others take their turn."""
        draw = self.sim.random
        self.depth += 1
        try:
            if self.bursts and view is self.reader_view and self.sim.one_in(8):
                self.bursts -= 1
                self.burst()
            elif self.replay_bursts and view is self.replay_view and self.sim.one_in(8):
                self.replay_bursts -= 1
                self.burst()
            elif self.sim.one_in(3):
                draw.choice((self.turn, self.turn, self.turn, self.read, self.switch))()
        finally:
            self.depth -= 1

    def burst(self) -> None:
        """Whole exchanges, and whole lives, while somebody reads."""
        for _ in range(30):
            self.turn()
            if self.sim.one_in(4):
                self.send()
            if self.weather.compress and self.sim.one_in(4):
                self.switch()
            if self.sim.one_in(4):
                self.ensure()
            if self.weather.kill_worker and self.workers and self.sim.one_in(20):
                self.sim.random.choice(list(self.workers.values())).view.kill()

    def watch_writes(self, view: ProcessDisk) -> None:
        for descriptor in view.descriptors.values():
            found = files.SEGMENT.match(descriptor.path.rpartition("/")[2])
            if found and descriptor.write:
                writer = int(descriptor.path.split("/")[-2], 16)
                self.oracle.written(writer, int(found[1], 16), view.name)

    def watch_ends(self) -> None:
        for path, file in self.sim.disk.names.live.items():
            if path.endswith(".end"):
                end = msgspec.json.decode(bytes(file.cache), type=files.End)
                self.oracle.ended(int(path.split("/")[-2], 16), end)

    def watch_watermarks(self) -> None:
        found, decided = {}, set()
        for path, file in self.sim.disk.names.live.items():
            stem, _, kind = path.rpartition(".")
            if kind in ("wm", "end"):
                writer, log = (int(part, 16) for part in stem.split("/")[-2:])
                found[writer, log] = int.from_bytes(file.cache[:8], "little") if kind == "wm" else 0
                decided |= {(writer, log)} if kind == "end" else set()
        self.oracle.survived(found, decided)

    # -- a disk that spoils what it was given

    def harm(self, path: str, number: int) -> tuple[int, block.Header] | None:
        """The numbered block of a segment, with its offset, is spoilt, or will be if the machine goes now."""
        writer, name = path.split("/")[-2:]
        log, first = int(name[:16], 16), int(name[17:33], 16)
        content = bytes(self.sim.disk.names.live[path].cache)
        pages = range(0, len(content), block.PAGE_BYTES)
        headers = [(at, header) for at in pages if (header := block.read_header(content[at:], log))]
        found = [
            (at, header) for at, header in headers if header.first_seq >= first
        ]  # not what was there before
        if len(found) < abs(number):
            return None
        header = found[number][1]
        self.oracle.harm(int(writer, 16), log, range(header.first_seq, header.next_seq))
        return found[number]

    def rot(self) -> None:
        """A byte of one of the last blocks of a segment changes; mostly its process dies then."""
        names = self.sim.disk.names
        paths = [p for p in names.live if files.SEGMENT.match(p.rpartition("/")[2])]
        seen = {files.end_path(f"{RAW}/{writer:016x}", log) for writer, log in self.oracle.ends}
        open_ends = (seen | names.live.keys()) - names.durable.keys()  # may be decided again, and then alike
        paths = [p for p in paths if p.rpartition("-")[0] + ".end" not in open_ends]
        path = self.sim.random.choice(paths) if paths else ""
        if path.endswith(files.COMPRESSED):
            self.rot_compressed(path)
            return
        found = self.harm(path, self.sim.random.choice((-1, -1, -2, -3))) if paths else None
        if found is None:
            return
        length = self.sim.random.choice((block.HEADER_BYTES, block.HEADER_BYTES + found[1].payload_bytes))
        at = found[0] + self.sim.random.randrange(length)
        names.live[path].rot(at)
        self.sim.note(f"a byte of {path} rots at {at}")
        for worker in self.workers.values():
            if worker.log_id == found[1].log_id and not self.sim.one_in(3):
                worker.view.kill()

    def rot_compressed(self, path: str) -> None:
        """A byte of a compressed segment changes. Outside of frames it harms nothing, as long as an index is whole."""
        writer, name = path.split("/")[-2:]
        log, first = int(name[:16], 16), int(name[17:33], 16)
        cached = self.sim.disk.names.live[path]
        before = self.plain_of(path, log, first)
        at = self.sim.random.randrange(len(cached.cache))
        cached.rot(at)
        after = self.plain_of(path, log, first)
        for page in range(0, len(before), block.PAGE_BYTES):
            header = block.read_header(before[page:], log)
            if header is not None:
                end = page + header.disk_bytes
                if before[page:end] != after[page:end]:
                    self.oracle.harm(int(writer, 16), log, range(header.first_seq, header.next_seq))
        self.compressed["rotten frame" if before != after else "rotten index"] += 1
        self.sim.note(f"a byte of {path} rots at {at}")

    def plain_of(self, path: str, log: int, first: int) -> bytes:
        """What can be read of a compressed segment; nothing where neither index is whole."""
        content = cast(Any, Content(bytes(self.sim.disk.names.live[path].cache)))
        file = compressed.CompressedFile(content, 0, log, first, SECRET)
        return file.pread(file.size(), 0)

    def turn(self) -> None:
        """One thread of one worker goes on, or the upkeep process."""
        if self.weather.compress and self.recovered and self.sim.one_in(self.weather.compress):
            if self.upkeep is None or (self.upkeep.view.dead and not self.upkeep.busy):
                self.bury_upkeep()
                self.upkeep = Upkeep(self)
            self.upkeep.turn()
        threads = [t for w in self.workers.values() if not w.view.dead for t in w.threads() if t.queue]
        if threads:
            self.sim.random.choice(threads).turn()

    def bury_upkeep(self) -> None:
        if self.upkeep is not None:
            self.upkeep.bury()

    def send(self) -> None:
        worker = self.workers.get(self.sim.random.randrange(2))
        if worker is not None:
            self.oracle.moment += 1
            length = self.sim.random.choice((20, 300, 3000, 9000))
            worker.send(
                self.sim.random.choice((1, 1, 3)), b'{"n":%d,"p":"%s"}' % (self.oracle.moment, b"x" * length)
            )

    # -- life and death

    def ensure(self) -> None:
        """The supervisor recovers what died and starts successors; it may die itself."""
        dead = [n for n in (0, 1) if n not in self.workers or self.workers[n].view.dead]
        if not dead or self.supervising:
            return
        self.supervising = True
        supervisor = self.sim.disk.process(f"supervisor {self.start}.{self.oracle.moment}")
        if self.sim.one_in(5):
            supervisor.die_at(self.sim.random.randint(1, 40))
        try:
            disk = self.parts.supervisor_disk(supervisor)
            for number in dead:
                folder = self.folder(number)
                self.watch_watermarks()
                self.parts.recover_all(disk, folder, SECRET)
                self.watch_ends()
            self.recovered = not supervisor.dead
            for number in dead:
                folder = self.folder(number)
                known = files.logs(supervisor, folder)
                log_id = self.parts.new_log_id(
                    max(known, default=0), self.sim.clock.wall_ns(), self.sim.random.randrange(1 << 22)
                )
                if not supervisor.dead:
                    self.workers[number] = Worker(self, number, log_id)
        except Dead:
            if not supervisor.dead and not self.workers:
                raise
        except OSError as error:
            self.sim.note(f"the supervisor gives up: {error}")  # a full disk: it will try again
        finally:
            supervisor.kill(quiet=True)
            self.supervising = False

    def kill_all(self) -> None:
        for worker in self.workers.values():
            worker.view.kill()
        self.workers.clear()
        self.kill_reader()
        self.boot()

    def machine_crash(self) -> None:
        self.sim.disk.crash()
        self.workers.clear()
        self.readers.clear()
        self.reader_view = None
        self.sim.clock.reboot()
        self.boot()

    def boot(self) -> None:
        """The node starts: its number grows, node time is set anew; nobody reads before all logs have their end."""
        self.recovered = False
        self.start += 1
        self.offset_ns = self.sim.clock.wall_ns() - self.sim.clock.boot_ns()

    def kill_reader(self) -> None:
        if self.reader_view is not None and not self.reading:
            self.reader_view.kill()
            self.reader_view = None
            self.readers.clear()

    # -- reading

    def read(self) -> None:
        """The processor takes a cut."""
        if self.reading or not self.recovered:
            return
        self.reading = True
        self.bursts = self.sim.random.choice((0, 0, 1))
        try:
            if self.reader_view is None or self.reader_view.dead:
                self.reader_view = self.sim.disk.process(f"processor {self.oracle.moment}")
                self.readers = {}
            view = self.reader_view
            if not view.exists(RAW):
                return
            now = (self.start, self.sim.clock.boot_ns())
            with mock.patch.object(cut, "LogReader", self.parts.reader):
                cut.discover(view, RAW, self.readers, self.follower.at, secret=SECRET)
            bytes_max = self.sim.random.choice((8192, 40_000, 1 << 20))
            found = self.parts.take(self.readers, self.follower.at, now, now[1] + self.offset_ns, bytes_max)
            if found is not None and not view.dead:
                self.watch_ends()
                self.oracle.took(self.follower, found)
                self.follower.at = found.target
        except Dead:
            self.readers = {}
            self.reader_view = None
        finally:
            self.reading = False

    def switch(self) -> None:
        """The supervisor puts compressed segments in their places; it may die in between."""
        if self.keeping or not self.recovered:
            return
        self.keeping = True
        view = self.sim.disk.process("switch")
        if self.weather.kill_upkeep and self.sim.one_in(8):
            view.die_at(self.sim.random.randint(1, 8))
        try:
            for number in (0, 1):
                if view.exists(self.folder(number)):
                    self.compressed["switched"] += self.parts.switch(view, self.folder(number))
        except (Dead, OSError) as error:
            self.sim.note(f"switch: {error!r}")
        finally:
            view.kill(quiet=True)
            self.keeping = False

    def replay(self) -> None:
        """Somebody reads all that is there again, up to where the processor stands, while segments change form."""
        if not self.recovered:
            return
        self.replay_view = view = self.sim.disk.process(f"replay {self.oracle.moment}")
        self.replay_bursts = self.sim.random.choice((0, 0, 2))
        stands = {w: at for w, at in self.follower.at.items() if (w, at.log) not in self.follower.lost}
        wanted = {
            place for place in self.follower.consumed & self.oracle.seen.keys() if place.writer in stands
        }
        found = set()
        try:
            for writer, at in stands.items():
                begin = self.oracle.retired.get(writer, Vector()[writer])
                reader = LogReader(view, f"{RAW}/{writer:016x}", writer, begin, at, secret=SECRET)
                while blocks := self.replayed(reader):
                    for one in blocks:
                        for place, (body, _) in self.oracle.records(one).items():
                            self.oracle.once(place, body)
                            found.add(place)
        except Dead:
            return
        finally:
            view.kill(quiet=True)
        for place in wanted - found:
            if not self.oracle.is_retired(place) and not self.oracle.excused(place):
                violated("INV-LOG-2", f"{place} was read and is not there again")

    def replayed(self, reader: LogReader) -> list[Block]:
        """The next ones, in pieces small and large."""
        reader.fill(self.sim.random.choice((1, 20_000, 1 << 20)))
        return reader.take((1 << 62, 1 << 62))

    def retire(self) -> None:
        """The supervisor gives back what the processor has passed."""
        if self.keeping:
            return
        self.keeping = True
        view = self.sim.disk.process("retirement")
        number = self.sim.random.randrange(2)
        writer = writer_id(FOLDER_ID, number)
        safe = self.follower.at[writer]
        try:
            if view.exists(self.folder(number)):
                self.oracle.given_back(writer, safe, self.follower)
                retain.retire(
                    view,
                    self.folder(number),
                    safe,
                    wanted=lambda *_: False,
                    segment_bytes=SEGMENT_BYTES,
                    spares_max=2,
                )
        except (Dead, OSError) as error:
            self.sim.note(f"retirement: {error!r}")
        finally:
            view.kill(quiet=True)
            self.keeping = False

    # -- restored folders

    def take_backup(self) -> None:
        o = self.oracle
        self.backup = (
            self.sim.disk.copy(),
            dict(o.acknowledged),
            dict(o.seen),
            dict(o.ends),
            dict(o.retired),
        )

    def restore(self) -> None:
        """The folder of yesterday; the processor's vector lives elsewhere and is of today."""
        copy, acknowledged, seen, ends, retired = self.backup
        self.sim.disk.restore(copy)
        self.workers.clear()
        self.readers.clear()
        self.reader_view = None
        self.follower.lost = {(writer, at.log) for writer, at in self.follower.at.items()}
        self.oracle.restored(acknowledged, seen, ends)
        self.oracle.retired = retired
        self.boot()

    # -- the story

    def disturb(self) -> None:
        """Something goes wrong, or not."""
        weather, draw, disk = self.weather, self.sim.random, self.sim.disk

        def happens(count: int) -> bool:
            return count > 0 and self.sim.one_in(count)

        alive = [w for w in self.workers.values() if not w.view.dead]
        if happens(weather.kill_worker) and alive:
            draw.choice(alive).view.die_at(draw.randint(1, 12))
        if happens(weather.kill_reader):
            self.kill_reader()
        if happens(weather.kill_all):
            self.kill_all()
        if happens(weather.machine_crash):
            self.calls_to_crash = draw.randint(1, 30)
        if happens(weather.io_error):
            call, part = draw.choice((("sync", None), ("sync", None), ("pwrite", 0.4), ("sync_dir", None)))
            suffix = "" if call == "sync_dir" else draw.choice((".seg", ".seg", files.DRAFT))
            disk.fail(call, errno.EIO, after=draw.randint(1, 4), suffix=suffix, part=part)
        if happens(weather.disk_full):
            disk.capacity_bytes = disk.used_bytes() + draw.choice((0, 4096, 20_000))
            self.full_until = self.oracle.moment + 20
        if disk.capacity_bytes < 1 << 30 and self.oracle.moment > self.full_until:
            disk.capacity_bytes = 1 << 30
        if happens(weather.rot):
            self.rot()
        if happens(weather.lie):
            self.lying_until = self.oracle.moment + draw.randint(5, 30)
        if happens(weather.wall_jump):
            self.sim.clock.jump_wall(draw.choice((-86_400, 86_400, -1)))
        if happens(weather.kill_upkeep) and self.upkeep is not None and not self.upkeep.view.dead:
            self.upkeep.view.die_at(draw.randint(1, 20))
        if happens(weather.replay):
            self.replay()
        if happens(weather.retire):
            self.retire()
        if happens(weather.restore) and self.backup is not None:
            self.restore()
        if happens(weather.restore // 2):
            self.take_backup()

    def run(self) -> None:
        """The story and its end: everything heals, everything owed is there."""
        self.boot()
        view = self.sim.disk.process("set-up")
        view.mkdir(RAW)
        for folder in (RAW, "/data", "/"):
            view.sync_dir(folder)
        for _ in range(self.weather.steps):
            self.oracle.moment += 1
            self.ensure()
            for _ in range(self.sim.random.randint(0, 3)):
                self.send()
            for _ in range(self.sim.random.randint(0, 10)):
                self.turn()
            if self.sim.one_in(3):
                self.read()
            self.disturb()
        self.settle()

    def settle(self) -> None:
        """No more faults; one last crash of the machine, recovery, and all is read again."""
        self.weather = replace(self.weather, steps=0)
        disk = self.sim.disk
        disk.capacity_bytes = 1 << 30
        disk.faults.clear()
        disk.between = None
        self.calls_to_crash = None
        self.lying_until = 0
        for worker in self.workers.values():
            if self.sim.one_in(2):
                while not worker.view.dead and any(t.turn() for t in worker.threads()):
                    pass
        self.machine_crash()
        for _ in range(20):
            self.ensure()
        self.watch_ends()
        for number in (0, 1):
            if number in self.workers:
                self.workers[number].view.kill()
        self.workers.clear()
        self.ensure()
        self.watch_ends()
        for _ in range(200):
            self.read()
        view = disk.process("reader of everything")
        blocks = []
        for number in (0, 1):
            writer = writer_id(FOLDER_ID, number)
            reader = LogReader(
                view,
                self.folder(number),
                writer,
                self.oracle.retired.get(writer, Vector()[writer]),
                secret=SECRET,
            )
            reader.fill(1 << 30)
            blocks += reader.take((1 << 62, 1 << 62))
        self.oracle.read_again(blocks)
        for place in self.oracle.acknowledged:
            got = place in self.follower.consumed or self.oracle.excused(place)
            if not got and not self.oracle.is_retired(place):
                violated("INV-LOG-5", f"a reader never got {place}, which was acknowledged")
        self.oracle.in_order()


@contextmanager
def small_blocks() -> Iterator[None]:
    """Batches and reserves that fit the small segments."""
    with (
        mock.patch.object(group, "BATCH_BYTES_MAX", BLOCK_BYTES - 1024),
        mock.patch.object(group, "BLOCK_BYTES_MAX", BLOCK_BYTES),
        mock.patch.object(compressed, "FRAME_BYTES", FRAME_BYTES),
    ):
        yield


def story(sim: Simulation, parts: Parts | None = None, weather: Weather | None = None) -> World:
    """One history."""
    world = World(sim, parts or Parts(), weather or Weather())
    with small_blocks():
        try:
            world.run()
        finally:
            world.bury_upkeep()
    return world
