import pytest

from headwater.event.position import Position, WriterId
from headwater.event.record import SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log import recover
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.ops.accepted import AcceptedCounter

SECRET = Secret(0x5EC2E7)

WRITER = WriterId(0xAB0000)
SEGMENT = 8 * 1024 * 1024
HEAD = encode_head(Head("web", "native", "POST", "/events"))


class Writer:
    """A raw log that counts as the collector does."""

    def __init__(self, data, log_id):
        self.folder = f"{data}/raw/{WRITER:016x}"
        self.blocks = BlockWriter(
            SystemDisk(), SystemClock(), self.folder, WRITER, log_id,
            start=1, offset_ns=0, segment_bytes=SEGMENT, submit=inline, secret=SECRET,
        )  # fmt: skip
        self.so_far = {}

    def write(self, stream, events, body_bytes=20):
        body = b'"' + b"x" * body_bytes + b'"'
        self.so_far[stream] = self.so_far.get(stream, 0) + events
        streams = {name: (events if name == stream else 0, total) for name, total in self.so_far.items()}
        stamp = STAMP.pack(1, bytes(16), len(body), 0, 1, 0, 0, SINGLE, 0)
        payload = encode_payload([stamp] * events, [body] * events, [HEAD], [], streams, events)
        self.blocks.write(payload, records=events, events=events)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path


def test_an_open_log_is_counted_from_its_last_durable_block(data):
    counter = AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET)
    assert counter.count().streams == {}
    writer = Writer(data, 5)
    for _ in range(7):
        writer.write("web", 3)
        writer.write("server", 1)
        found = counter.count()
        assert found.streams == writer.so_far
    assert found.ends == {WRITER: Position(5, 28)}
    assert AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET).count() == found


def test_counting_goes_on_over_segments(data):
    counter = AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET)
    writer = Writer(data, 5)
    for _ in range(14):
        writer.write("web", 2, body_bytes=600_000)
        assert counter.count().streams == {"web": writer.blocks.next_seq}
    assert (
        len([name for name in (data / "raw" / f"{WRITER:016x}").iterdir() if name.name.startswith("0000")])
        > 2
    )
    assert AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET).count().streams == {"web": 28}


def test_inv_log_2_a_block_above_the_watermark_is_not_counted(data):
    writer = Writer(data, 5)
    writer.write("web", 3)
    writer.write("web", 4)
    assert writer.blocks.watermark is not None
    writer.blocks.watermark.set(3)
    found = AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET).count()
    assert (found.streams, found.ends) == ({"web": 3}, {WRITER: Position(5, 3)})


def test_ended_logs_and_the_open_one_add_up(data):
    counter = AcceptedCounter(SystemDisk(), f"{data}/raw", SECRET)
    first = Writer(data, 5)
    first.write("web", 4)
    first.blocks.close()
    assert counter.count().streams == {"web": 4}
    recover.recover_all(SystemDisk(), first.folder, SECRET)
    assert counter.count().streams == {"web": 4}
    second = Writer(data, 9)
    second.write("web", 2)
    found = counter.count()
    assert found.streams == {"web": 6}
    assert found.ends == {WRITER: Position(9, 2)}
