from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import time
from headwater.process.enrich.settings import TimeSettings

RECEIVED = datetime(2024, 5, 6, 12, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2012, 12, 2, 0, 30, 8, tzinfo=UTC)
RECEIVED_NS = int(RECEIVED.timestamp()) * 1_000_000_000
ISOISH = st.from_regex(
    r"\A\d{4}-?[01]\d-?[0-3]\d([T ][0-2]\d(:?[0-6]\d(:?[0-6]\d([.,]\d{1,9})?)?)?)?"
    r"(Z|z| ?UTC|[+-]\d\d(:?\d\d)?)?\Z"
)
TEXT = st.one_of(
    st.none(), st.text(max_size=30), st.text(alphabet="0123456789-:T .Z+", max_size=30), ISOISH,
    st.datetimes(timezones=st.just(UTC)).map(str), st.integers().map(str),
    st.sampled_from(["2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2024-05-06T11:59:59Z"]),
)  # fmt: skip


def iso(**before) -> str:
    return (RECEIVED - timedelta(**before)).isoformat()


def canonical(timestamp=None, sent_at=None, original=None, historical=None, **chosen):
    texts = [pa.array([text], pa.string()) for text in (timestamp, sent_at, original)]
    marks = None if historical is None else pa.array([historical])
    received = pa.array([RECEIVED_NS])
    times = time.canonical(received, texts[0], texts[1], texts[2], TimeSettings(**chosen), marks)
    return {name: array[0].as_py() for name, array in times._asdict().items()}


@pytest.mark.slow
@given(st.lists(TEXT, max_size=12))
def test_text_is_read_alike_in_every_batch(texts):
    together = time.parse_column(pa.array(texts, pa.string())).to_pylist()
    for text, moment in zip(texts, together, strict=True):
        alone = time.parse_column(pa.array([text], pa.string()))[0].as_py()
        assert alone == moment, text
        number = time.parse(text)
        assert (None if number is None else EPOCH + timedelta(microseconds=number)) == moment


@pytest.mark.slow
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, st.booleans()), max_size=6))
def test_no_text_raises_and_outputs_do_not_depend_on_the_batch(rows):
    texts = [pa.array([row[column] for row in rows], pa.string()) for column in range(3)]
    received = pa.array([RECEIVED_NS] * len(rows), pa.int64())
    marks = pa.array([row[3] for row in rows], pa.bool_())
    times = time.canonical(received, texts[0], texts[1], texts[2], TimeSettings(), marks)
    assert times.timestamp.null_count == times.time_reason.null_count == 0
    for index, row in enumerate(rows):
        assert {name: array[index].as_py() for name, array in times._asdict().items()} == canonical(*row)


@pytest.mark.slow
@given(TEXT, TEXT)
def test_corrected_time_is_within_its_bounds(timestamp, sent_at):
    times = canonical(timestamp, sent_at)
    assert times["timestamp"] <= RECEIVED
    if times["time_reason"] in ("corrected", "past"):
        assert times["timestamp"] >= RECEIVED - timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05.678Z", "2024-01-02T03:04:05.678+00:00"),
        ("2024-01-02 03:04:05.678901+02:00", "2024-01-02T01:04:05.678901+00:00"),
        ("2024-01-02T03:04:05.678901234Z", "2024-01-02T03:04:05.678901+00:00"),
        ("2024-01-02T03:04:05-0530", "2024-01-02T08:34:05+00:00"),
        ("2024-01-02T03:04:05", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04Z", "2024-01-02T03:04:00+00:00"),
        ("2024-01-02", "2024-01-02T00:00:00+00:00"),
        ("20240102T030405Z", "2024-01-02T03:04:05+00:00"),
        (" 2024-01-02T03:04:05 ", "2024-01-02T03:04:05+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("1704164645", "2024-01-02T03:04:05+00:00"),
        ("1704164645.5", "2024-01-02T03:04:05.500000+00:00"),
        ("1704164645678", "2024-01-02T03:04:05.678+00:00"),
        ("1704164645678901", "2024-01-02T03:04:05.678901+00:00"),
        ("1704164645678901234", "2024-01-02T03:04:05.678901+00:00"),
        ("-86400", "1969-12-31T00:00:00+00:00"),
        ("20240102", "2024-01-02T00:00:00+00:00"),
        ("2024-02-30T00:00:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-01-02T03:04:99Z", None),
        ("yesterday", None),
        ("", None),
        ("9" * 30, None),
    ],
)
def test_forms_of_time(text, expected):
    moment = time.parse_column(pa.array([text]))[0].as_py()
    assert moment == (None if expected is None else datetime.fromisoformat(expected))


def test_one_junk_value_spoils_no_other():
    texts = [
        "junk",
        "2024-01-02T03:04:05Z",
        "2024-02-30T00:00:00Z",
        None,
        "1704164645678",
        "2024-01-31 00:00:00",
    ]
    moments = time.parse_column(pa.array(texts)).to_pylist()
    assert [moment is None for moment in moments] == [True, False, True, True, False, False]


@pytest.mark.parametrize("zone", ["Z", "+01:00", ""])
def test_days_that_no_month_has_are_unreadable_and_spoil_no_other(zone):
    days = [f"2023-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 32)]
    texts = [f"{day} 12:00:00{zone}" for day in days]
    moments = time.parse_column(pa.array(texts)).to_pylist()
    for text, moment in zip(texts, moments, strict=True):
        number = time.parse(text)
        assert moment == (None if number is None else EPOCH + timedelta(microseconds=number))
    assert sum(moment is not None for moment in moments) == 365


def test_clock_that_is_wrong_by_years_is_corrected():
    times = canonical("2001-01-01T00:00:00Z", "2001-01-01T00:00:05Z")
    assert times["timestamp"] == RECEIVED - timedelta(seconds=5)
    assert times["original_timestamp"] == datetime(2001, 1, 1, tzinfo=UTC)
    assert times["sent_at"] == datetime(2001, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert times["clock_skew_ms"] == (RECEIVED - times["sent_at"]) // timedelta(milliseconds=1)
    assert times["time_reason"] == "corrected"


def test_original_timestamp_goes_before_timestamp():
    times = canonical(iso(hours=5), iso(seconds=0), iso(seconds=30))
    assert times["timestamp"] == RECEIVED - timedelta(seconds=30)
    assert canonical(iso(hours=5), None, "")["original_timestamp"] == RECEIVED - timedelta(hours=5)


def test_corrected_time_is_not_older_than_the_bound():
    times = canonical(iso(days=3), iso(seconds=0))
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED - timedelta(days=1), "past")
    assert times["original_timestamp"] == RECEIVED - timedelta(days=3)
    times = canonical(iso(days=3), iso(seconds=0), time_past_max_s=0.0)
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED - timedelta(days=3), "corrected")


def test_event_after_its_own_sending_happened_when_received():
    times = canonical(iso(seconds=-9), iso(seconds=0))
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED, "future")
    times = canonical(iso(seconds=-9), iso(seconds=0), time_future_max_s=5.0)
    assert times["timestamp"] == RECEIVED + timedelta(seconds=5)


def test_old_event_without_sent_at_keeps_its_time():
    times = canonical("2012-12-02T00:30:08Z")
    assert (times["timestamp"], times["time_reason"]) == (LONG_AGO, "given")
    assert times["clock_skew_ms"] is None


def test_historical_event_keeps_its_time_though_sent_at_is_there():
    times = canonical("2012-12-02T00:30:08Z", iso(minutes=2), historical=True)
    assert (times["timestamp"], times["time_reason"]) == (LONG_AGO, "given")
    assert times["clock_skew_ms"] == 120_000


def test_given_time_in_the_future_is_the_receive_time():
    times = canonical("2036-01-01T00:00:00Z")
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED, "future")


def test_no_time_at_all_is_the_receive_time():
    times = canonical()
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED, "received")
    assert canonical(None, iso(seconds=1))["time_reason"] == "received"


def test_unreadable_time_is_the_receive_time_and_flagged():
    times = canonical("soon", iso(seconds=1))
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED, "unparsable")
    assert times["original_timestamp"] is None


def test_unreadable_sent_at_is_none():
    times = canonical(iso(seconds=7), "soon")
    assert (times["timestamp"], times["time_reason"]) == (RECEIVED - timedelta(seconds=7), "given")


def test_columns_have_their_types():
    received, text = pa.chunked_array([[RECEIVED_NS]]), pa.nulls(1, pa.string())
    times = time.canonical(received, text, text, text, TimeSettings())
    assert [array.type for array in times] == [time.MICROSECONDS] * 3 + [pa.int64(), pa.string()]
