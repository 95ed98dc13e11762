"""Finding events in a raw log: by message id however it is written, by receipt, by position."""

import base64
import json
from urllib.parse import quote

import pytest

from headwater.event.position import WriterId
from headwater.event.record import DEAD, ERASED, SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.event.slots import NO_SLOT, slot_of
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log import files
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.ops import find
from headwater.ops.find import RawLog, Requests, Search, look

SECRET, WRITER, LOG = Secret(0x5EC2E7), WriterId(0xAB0000), 7
PLACE = f"{WRITER:016x}-{LOG:016x}"
MINUTE = 60 * 10**9
NATIVE, BATCH = Head("web", "native", "POST", "/events"), Head("web", "segment", "POST", "/v1/batch")
PIXEL = Head("mail", "pixel", "GET", "/pixel.gif")


class Clock(SystemClock):
    """Stands still until it is set."""

    def __init__(self):
        self.ns = 100 * MINUTE

    def boot_ns(self):
        return self.ns

    def wall_ns(self):
        return self.ns


class Raw:
    """A raw log of one writer; ``write`` appends one record in a block of its own."""

    def __init__(self, data, segment_bytes=8 << 20, log=LOG):
        self.clock = Clock()
        self.folder = f"{data}/raw/{WRITER:016x}"
        self.blocks = BlockWriter(
            SystemDisk(), self.clock, self.folder, WRITER, log,
            start=1, offset_ns=0, segment_bytes=segment_bytes, submit=inline, secret=SECRET,
        )  # fmt: skip
        self.log = RawLog(SystemDisk(), f"{data}/raw", SECRET)

    def write(self, body, head=NATIVE, *, events=1, flags=SINGLE, refused=(), slot=NO_SLOT):
        stamp = STAMP.pack(self.clock.ns, bytes(16), len(body), 0, events, len(refused), slot, flags, 0)
        streams = {head.key_id: (events, events)}
        payload = encode_payload([stamp], [body], [encode_head(head)], list(refused), streams, events)
        self.blocks.write(payload, records=1, events=events)

    def search(self, message_id, **narrowed):
        search = Search(self.log, message_id, **narrowed)
        return [one.seq for one in search.run()], search.searched


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return Raw(tmp_path)


def event(message_id, **more):
    return json.dumps({"event": "E", "messageId": message_id, **more}, ensure_ascii=False).encode()


NOISE = [b'{"event":"E"}', event("m10"), event("x", other="m1"), b'{"m1":"messageId","event":"E"}']

SPELLINGS = [
    ("plain", "m1", b'"m1"'),
    ("quotes", 'a"b\\c', rb'"a\"b\\c"'),
    ("utf-8", "é/ü", '"é/ü"'.encode()),
    ("ascii", "é/ü", rb'"\u00e9/\u00fc"'),
    ("ascii, capitals", "é/ü", rb'"\u00E9/\u00FC"'),
    ("slashes", "a/b", rb'"a\/b"'),
    ("letters escaped", "m1x", rb'"\u006D1x"'),
    ("mixed", "é-ü", '"é-\\u00fc"'.encode()),
    ("beyond the first plane", "\U0001f600", rb'"\ud83d\ude00"'),
    ("a number", "123", b"123"),
    ("a control character", "a\nb", rb'"a\nb"'),
]


@pytest.mark.parametrize(
    ("message_id", "written"), [one[1:] for one in SPELLINGS], ids=[one[0] for one in SPELLINGS]
)
def test_an_id_is_found_however_json_spells_it(raw, message_id, written):
    for noise in NOISE:
        raw.write(noise)
    raw.write(b'{"event":"E","messageId":' + written + b"}")
    assert raw.search(message_id)[0] == [len(NOISE)]


@pytest.mark.parametrize("message_id", ["order-4711", "é ü/1", "a+b&c=d", "x"])
@pytest.mark.parametrize("prefix", ["", "a", "ab", "abc"])
def test_an_id_in_a_pixel_is_found_in_its_query_in_data_and_in_base64(raw, message_id, prefix):
    inside = json.dumps({prefix: 1, "event": "Opened", "messageId": message_id}, ensure_ascii=False)
    queries = [
        f"event=Opened&messageId={quote(message_id, safe='')}",
        f"event=Opened&messageId={quote(message_id, safe='').lower()}",
        f"data={quote(inside)}",
    ]
    if len(message_id) > 4:  # of less, base64 keeps too few characters to look for
        queries.append(f"p={base64.urlsafe_b64encode(inside.encode()).decode().rstrip('=')}")
    for query in queries:
        raw.write(query.encode(), PIXEL, flags=0)
    raw.write(b"event=Opened&messageId=other", PIXEL, flags=0)
    assert raw.search(message_id)[0] == list(range(len(queries)))


def test_events_of_a_batch_are_found_at_their_own_position_with_what_the_door_said(raw):
    items = [{"type": "track", "event": "A", "messageId": "m1"}, {"type": "track", "messageId": "m2"},
             {"type": "track", "event": "C", "messageId": "m3", "userId": "u"}]  # fmt: skip
    raw.write(event("before"))
    raw.write(json.dumps({"batch": items}).encode(), BATCH, events=3, flags=0, refused=[1])
    (found,) = Search(raw.log, "m2").run()
    assert (found.seq, found.index, found.events, found.stream) == (2, 1, 3, "web")
    assert (found.refused, found.field) == ("expected the event's name; a track call must have one", "event")
    assert found.slot == slot_of("m2")
    (found,) = Search(raw.log, "m3").run()
    assert (found.seq, found.refused, found.slot) == (3, "", slot_of("u"))
    assert json.loads(found.body) == items[2]


def test_what_was_refused_whole_is_found_by_what_looks_like_its_id(raw):
    head = Head("web", "native", "POST", "/events", refusal="expected JSON: no|")
    raw.write(b'{"messageId": "m1", "event', head, flags=DEAD)
    (found,) = Search(raw.log, "m1").run()
    assert (found.refused, found.slot) == ("expected JSON: no", slot_of("m1"))


def test_an_erased_event_is_not_found(raw):
    raw.write(event("m1"), flags=SINGLE | ERASED)
    assert raw.search("m1")[0] == []


def test_a_search_says_what_it_has_read_and_since_when(raw):
    for number in range(3):
        raw.clock.ns = (100 + number) * MINUTE
        raw.write(event(f"m{number}"))
    found, searched = raw.search("nope")
    assert (found, searched.events, searched.damaged) == ([], 3, 0)
    assert (searched.first_ns, searched.last_ns) == (100 * MINUTE, 102 * MINUTE)
    search = Search(raw.log, "nope")
    assert list(search.run(lambda done, total: False)) == []
    assert (search.searched.events, search.searched.cut) == (1, "its time was over")


@pytest.mark.slow
def test_a_search_can_be_narrowed_to_a_time_and_reads_only_segments_of_it(tmp_path):
    (tmp_path / "raw").mkdir()
    raw = Raw(tmp_path, segment_bytes=8 << 20)
    for number in range(9):
        raw.clock.ns = (100 + number) * MINUTE
        raw.write(event("m1", more="x" * 3_500_000))
    assert raw.search("m1")[0] == list(range(9))
    found, searched = raw.search("m1", since_ns=106 * MINUTE)
    assert found == [6, 7, 8]
    assert searched.events < 6
    found, searched = raw.search("m1", until_ns=101 * MINUTE)
    assert found == [0, 1]
    assert searched.events < 6
    assert raw.search("m1", since_ns=103 * MINUTE, until_ns=104 * MINUTE)[0] == [3, 4]


def test_inv_log_2_what_is_above_the_watermark_is_not_found(raw):
    raw.write(event("m1"))
    raw.write(event("m1"))
    assert raw.blocks.watermark is not None
    raw.blocks.watermark.set(1)
    assert raw.search("m1")[0] == [0]


def test_damage_is_told_and_what_stands_behind_it_is_found(raw):
    for _ in range(3):
        raw.write(event("m1"))
    path = next(s.path for s in files.segments(SystemDisk(), raw.folder))
    with open(path, "r+b") as file:
        file.seek(4096 + 100)
        file.write(b"!!!")
    found, searched = raw.search("m1")
    assert (found, searched.damaged) == ([0, 2], 1)
    looked = look(raw.log, f"hw-{PLACE}-1")
    assert (looked.damaged, looked.found) == ([(f"{WRITER:016x}", f"{LOG:016x}", 1)], [])


def test_logs_of_a_writer_are_searched_one_after_the_other(tmp_path):
    from headwater.log import recover

    (tmp_path / "raw").mkdir()
    first = Raw(tmp_path)
    first.write(event("m1"))
    first.blocks.close()
    recover.recover_all(SystemDisk(), first.folder, SECRET)
    second = Raw(tmp_path, log=LOG + 1)
    second.write(event("other"))
    second.write(event("m1"))
    assert second.search("m1")[0] == [0, 1]


def test_a_position_a_receipt_and_a_derived_id_lead_to_their_events(raw):
    raw.write(event("a"))
    raw.write(json.dumps([{"event": "B"}, {"event": "C"}]).encode(), events=2, flags=0)
    raw.write(event("d"))
    derived = look(raw.log, f"hw-{PLACE}-2")
    assert [(one.seq, one.message_id) for one in derived.found] == [(2, f"hw-{PLACE}-2")]
    both = look(raw.log, f"{PLACE}-3")
    assert [one.seq for one in both.found] == [1, 2, 3]
    assert both.places is not None
    assert [how for _, how in sorted(both.places.items())] == ["receipt", "receipt", "position"]
    assert [one.seq for one in look(raw.log, f"{PLACE}-3-0").found] == [3]
    assert [one.seq for one in look(raw.log, f"{PLACE}-2").found] == [2], "no request ends there"
    assert [one.seq for one in look(raw.log, f"{PLACE}-4").found] == [3], "a receipt above the last event"
    assert look(raw.log, f"{PLACE}-9").found == []
    assert look(raw.log, f"{'0' * 16}-{'0' * 16}-0").found == []


def test_the_request_of_an_event_is_read_once_for_a_block(raw, monkeypatch):
    raw.write(json.dumps([{"event": "B"}, {"event": "C"}]).encode(), events=2, flags=0)
    raw.write(event("d"))
    requests, read, real = Requests(raw.log), [], find.block_of

    def counted(*at):
        read.append(at)
        return real(*at)

    monkeypatch.setattr(find, "block_of", counted)
    told = [requests.of(WRITER, LOG, seq) for seq in (0, 1, 2)]
    assert [(one.first_seq, one.events, one.head.path) for one in told if one] == [
        (0, 2, "/events"), (0, 2, "/events"), (2, 1, "/events")
    ]  # fmt: skip
    assert len(read) == 2
    assert requests.of(WRITER, LOG, 99) is None
