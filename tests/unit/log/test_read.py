from headwater.event.position import ZERO, Position, WriterId
from headwater.event.record import Head, encode_head, encode_payload
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import block, files, recover
from headwater.log.block import Secret
from headwater.log.read import LogReader
from headwater.log.retain import retire
from headwater.log.write import BlockWriter

SECRET, STRANGERS = Secret(0x5EC2E7), Secret(0)

FOLDER = "/raw/0"
WRITER = WriterId(0)
LOG = 9
EVERYTHING = (1 << 62, 1 << 62)


def payload(body: bytes) -> bytes:
    stamp = bytes(24) + len(body).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + bytes(12)
    head = encode_head(Head("web", "native", "POST", "/events"))
    return encode_payload([stamp], [body], [head], [], {"web": (1, 1)}, 1)


def open_log(disk: SimDisk, log: int = LOG) -> BlockWriter:
    return BlockWriter(
        disk.process("worker"),
        SimClock(Time()),
        FOLDER,
        WRITER,
        log,
        start=1,
        offset_ns=0,
        segment_bytes=16 * 4096,
        submit=inline,
        secret=SECRET,
    )


def write(log: BlockWriter, *bodies: bytes) -> None:
    for body in bodies:
        log.write(payload(body), records=1, events=1)


def forged(seq: int, secret: Secret = STRANGERS) -> bytes:
    """A body with a block of this log inside, on a page of the file; right but for the secret."""
    inside = block.encode(
        [payload(b'"forged"')],
        log_id=LOG,
        first_seq=seq,
        events=1,
        records=1,
        node_time_ns=0,
        boot_ns=0,
        start=1,
        secret=secret,
    )
    front = len(payload(b"")) - 1 + block.HEADER_BYTES
    return bytes(4096 - front) + inside


def bodies(disk: SimDisk, at: Position = ZERO) -> list[bytes | None]:
    reader = LogReader(disk.process("processor"), FOLDER, WRITER, at, secret=SECRET)
    reader.fill(1 << 20)
    return [
        None if b.payload is None else bytes(b.payload).rpartition(b"\n")[0][-6:]
        for b in reader.take(EVERYTHING)
    ]


def test_a_block_inside_a_body_is_never_taken_for_a_block_of_the_log() -> None:
    disk = SimDisk()
    write(open_log(disk), forged(2), b'"true1"', b'"true2"')
    assert bodies(disk, Position(LOG, 2)) == [b'true2"']


def test_a_block_inside_a_torn_block_is_never_taken_for_what_follows() -> None:
    disk = SimDisk()
    log = open_log(disk)
    write(log, b'"true0"', forged(5))
    path = files.segments(disk.process("look"), FOLDER)[0].path
    view = disk.process("fault")
    file = view.open(path, write=True)
    view.pwrite(file, b"torn", 4096 + 100)  # the header of the second block stands, its bytes do not
    end = recover.recover(disk.process("supervisor"), FOLDER, LOG, SECRET, recover.no_streams)
    assert end.damaged == [files.Damage(1, 2)]
    assert end.seq == 2


def torn_header(body: bytes) -> SimDisk:
    """A log of three blocks, of which the second, with this body, has lost its first page."""
    disk = SimDisk()
    write(open_log(disk), b'"true0"', body, b'"true2"')
    view = disk.process("fault")
    file = view.open(files.segments(view, FOLDER)[0].path, write=True)
    view.pwrite(file, bytes(4096), 4096)
    return disk


def test_a_block_inside_a_block_without_its_header_is_not_believed_unless_it_knows_the_secret() -> None:
    """INV-LOG-3: where the length of a block is lost, the next one is looked for in the midst of its body."""
    assert bodies(torn_header(forged(1))) == [b'true0"', None, b'true2"']
    assert bodies(torn_header(forged(1, SECRET))) == [b'true0"', b'orged"', b'true2"']


def test_recovery_does_not_believe_a_block_inside_a_block_without_its_header() -> None:
    """INV-LOG-3."""
    ends = []
    for secret in (STRANGERS, SECRET):
        disk = torn_header(forged(5, secret))
        end = recover.recover(disk.process("supervisor"), FOLDER, LOG, SECRET, recover.no_streams)
        ends.append((end.seq, end.damaged))
    assert ends == [(3, [files.Damage(1, 2)]), (6, [files.Damage(1, 5)])]


def test_a_wrong_length_in_a_header_takes_no_good_blocks_along() -> None:
    disk = SimDisk()
    write(open_log(disk), *[b'"a%04d"' % n for n in range(4)])
    view = disk.process("rot")
    file = view.open(files.segments(view, FOLDER)[0].path, write=True)
    view.pwrite(file, (3 * 4096).to_bytes(4, "little"), 4096 + 8)
    assert bodies(disk) == [b'a0000"', None, b'a0002"', b'a0003"']
    assert bodies(disk, Position(LOG, 2)) == [b'a0002"', b'a0003"']


def test_where_the_first_segments_are_gone_reading_goes_on_with_the_first_that_is_there() -> None:
    disk = SimDisk()
    log = open_log(disk)
    write(log, *[b'"a%04d"' % n for n in range(20)])
    view = disk.process("retention")
    view.unlink(files.segments(view, FOLDER)[0].path)
    assert bodies(disk) == [None, b'a0016"', b'a0017"', b'a0018"', b'a0019"']


def test_a_reader_ahead_of_a_restored_folder_goes_on_with_its_next_log() -> None:
    disk = SimDisk()
    write(open_log(disk), b'"old00"')
    recover.recover(disk.process("supervisor"), FOLDER, LOG, SECRET, recover.no_streams)
    write(open_log(disk, 20), b'"new00"')
    assert bodies(disk, Position(15, 3)) == [b'new00"']


def test_a_watermark_that_is_being_made_shows_nothing() -> None:
    disk = SimDisk()
    write(open_log(disk), b'"first"')
    view = disk.process("fault")
    file = view.open(files.watermark_path(FOLDER, LOG), write=True)
    view.truncate(file, 0)
    assert bodies(disk) == []


def test_a_segment_that_is_recycled_under_a_reader_costs_only_what_it_held() -> None:
    """Its file holds later blocks of the same log then; what lies between is still there, in segments of its own."""
    disk = SimDisk()
    view, log = disk.process("reader"), open_log(disk)
    write(log, *[b"x" * 4096] * 30)
    segments = files.segments(view, FOLDER)
    assert len(segments) == 4
    reader = LogReader(view, FOLDER, WRITER, Position(LOG, 0), Position(LOG, 30), secret=SECRET)
    reader.fill(1)
    assert [b.after.seq for b in reader.take(EVERYTHING)] == [1]
    retire(
        view,
        FOLDER,
        Position(LOG, segments[1].first),
        wanted=lambda *_: False,
        segment_bytes=16 * 4096,
        spares_max=1,
    )
    write(log, *[b"x" * 4096] * 30)
    found = []
    while reader.at.seq < 30:
        reader.fill(1)
        found += reader.take(EVERYTHING)
    assert [(b.header.first_seq, b.header.next_seq) for b in found if b.payload is None] == [
        (1, segments[1].first)
    ]
