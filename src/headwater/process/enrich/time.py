"""Canonical event time, and what is known of the client's clock.

A client's clock may be wrong by years, and an event may have waited in its queue.  Both are cured by what the
client said of the moment of sending: timestamp = received − (sentAt − client's timestamp), Segment's rule
(https://segment.com/docs/connections/spec/common/#timestamps).  The client's time is `originalTimestamp`
where sent, else `timestamp`; an unreadable sentAt is none.

`time_reason` says which case an event is:

=============  ===============================================================  ==========================
reason         when                                                             timestamp
=============  ===============================================================  ==========================
`corrected`    client's time and sentAt are readable                            received − (sentAt − time)
`past`         the same, but more than `time_past_max_s` before received        received − time_past_max_s
`given`        client's time readable; no sentAt, or the event is *historical*  client's time, unchanged
`future`       either, but more than `time_future_max_s` after received         received + that many
`received`     no time sent                                                     received
`unparsable`   a time was sent, and cannot be read                              received
=============  ===============================================================  ==========================

**Old events keep their time.**  `time_past_max_s` bounds corrected times only.  An event without sentAt is
taken at its word, however old it is.  Import routes and server libraries send sentAt with every batch, also
when they load last year: the caller marks these events `historical` (`/v1/import`, and keys of the server
kind, whose clocks are kept), and sentAt then tells the skew only.

Texts: ISO 8601 / RFC 3339 with `T` or space, with or without fraction (cut to µs), `Z`, `±hh:mm`, `±hhmm`,
`±hh` or none (UTC), a date alone; a number as text is an epoch time, its unit by its size: below 10¹¹
seconds, 10¹⁴ ms, 10¹⁷ µs, else ns.  Years 1 to 9999.

Work is vectorised: one Arrow cast for a column of ISO texts that all have a zone, or all none (0.11 µs per
event for all of `canonical`).  A mixed column is sorted by form with one match and one cast for each (0.4
µs); the distinct rest goes to Python (`parse`, 3–4 µs each).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from headwater.process.enrich import distinct
from headwater.process.enrich.settings import TimeSettings

MICROSECONDS = pa.timestamp("us", tz="UTC")

_DATE_TIME = (
    r"^\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
)
"""What Arrow certainly casts; 29 February is left to `parse`."""
_ZONED = _DATE_TIME + r"(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)$"
_NAIVE = _DATE_TIME + "$"
_EPOCH_MS = r"^[1-9]\d{11,12}$"
_ISO = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,12}))?)?)?\s*"
    r"(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?\d{1,19}(?:\.\d{1,9})?", re.ASCII)
_DAY = re.compile(r"[12]\d{3}(?:0\d|1[0-2])[0-3]\d", re.ASCII)
"""Eight digits that are a date, not seconds of 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_US = -62_135_596_800_000_000
_GREATEST_US = 253_402_300_799_999_999
_CHARS_MAX = 40


class Times(NamedTuple):
    """Columns of one batch; timestamps are `timestamp[us, UTC]`."""

    timestamp: pa.Array
    """Canonical time; never null."""
    original_timestamp: pa.Array
    """The client's own time, as its clock said."""
    sent_at: pa.Array
    clock_skew_ms: pa.Array
    """received − sentAt, int64: how far the client's clock is behind, transport included."""
    time_reason: pa.Array
    """Text, never null; see the module."""


def canonical(
    received_ns: pa.Array | pa.ChunkedArray,
    timestamp: pa.Array | pa.ChunkedArray,
    sent_at: pa.Array | pa.ChunkedArray,
    original_timestamp: pa.Array | pa.ChunkedArray,
    settings: TimeSettings,
    historical: pa.Array | None = None,
) -> Times:
    """Times of a batch: `received_ns` int64 since 1970 without nulls, three nullable text columns, and a
    boolean column of the events whose given time stands (None: no event's).
    """
    received = pc.divide(_whole(received_ns).cast(pa.int64()), pa.scalar(1_000, pa.int64()))
    text = pc.coalesce(_blank_to_null(original_timestamp), _blank_to_null(timestamp))
    given = parse_column(text).cast(pa.int64())
    sent_text = _blank_to_null(sent_at)
    sent = given if sent_text.equals(text) else parse_column(sent_text).cast(pa.int64())

    skew = pc.subtract(received, sent)
    usable = skew
    if historical is not None:
        usable = pc.if_else(pc.fill_null(_whole(historical), False), pa.scalar(None, pa.int64()), skew)
    corrected = pc.add(given, usable)
    time = pc.coalesce(corrected, given, received)

    least = _before(received, settings.time_past_max_s)
    greatest = pc.add(received, _microseconds(settings.time_future_max_s))
    past = pc.fill_null(pc.less(corrected, least), False)
    future = pc.greater(time, greatest)
    time = pc.if_else(past, least, pc.min_element_wise(time, greatest))
    reason = pc.case_when(
        pc.make_struct(future, past, pc.is_valid(corrected), pc.is_valid(given), pc.is_valid(text)),
        *(pa.scalar(name) for name in ("future", "past", "corrected", "given", "unparsable", "received")),
    )
    return Times(
        timestamp=time.cast(MICROSECONDS),
        original_timestamp=given.cast(MICROSECONDS),
        sent_at=sent.cast(MICROSECONDS),
        clock_skew_ms=pc.divide(skew, pa.scalar(1_000, pa.int64())),
        time_reason=reason,
    )


def parse_column(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`timestamp[us, UTC]` of each text; null where it is null or unreadable.  Never raises."""
    texts = distinct.plain(column)
    for whole in (_zoned, _naive):
        try:
            whole(texts[:8])  # a cast that fails costs 1 µs for each failing row: try a few first
            return _bounded(whole(texts))
        except pa.ArrowInvalid:
            continue
    times = pa.nulls(len(texts), MICROSECONDS)
    nothing = pa.scalar(None, pa.string())
    for pattern, convert in _FORMS:
        fits = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
        if pc.any(fits).as_py():
            times = pc.coalesce(times, convert(pc.if_else(fits, texts, nothing)))
            texts = pc.if_else(fits, nothing, texts)
    if texts.null_count < len(texts):
        codes, inputs = distinct.encode(texts)
        rest = pa.array([parse(text) for (text,) in inputs], pa.int64()).cast(MICROSECONDS)
        times = pc.coalesce(times, rest.take(codes))
    return _bounded(times)


def _zoned(texts: pa.Array) -> pa.Array:
    return texts.cast(MICROSECONDS)


def _naive(texts: pa.Array) -> pa.Array:
    return texts.cast(pa.timestamp("us")).cast(pa.int64()).cast(MICROSECONDS)


def _epoch_ms(texts: pa.Array) -> pa.Array:
    return pc.multiply(texts.cast(pa.int64()), pa.scalar(1_000, pa.int64())).cast(MICROSECONDS)


_FORMS = ((_ZONED, _zoned), (_NAIVE, _naive), (_EPOCH_MS, _epoch_ms))


def parse(text: str | None) -> int | None:
    """Microseconds since 1970 of one text, or None where it is no time.  Never raises."""
    if text is None or len(text) > _CHARS_MAX:
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text) and not _DAY.fullmatch(text):
        return _within(_epoch(text))
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), _second(second),
            int((fraction or "0")[:6].ljust(6, "0")), _zone(zone),
        )  # fmt: skip
        return _within((moment - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError):
        return None


def _epoch(text: str) -> int:
    whole, _, fraction = text.partition(".")
    number = int(whole)
    size = abs(number)
    if size >= 10**17:
        return number // 1_000
    digits, unit = (6, 1_000_000) if size < 10**11 else (3, 1_000) if size < 10**14 else (0, 1)
    micro = int(fraction[:digits].ljust(digits, "0") or "0")
    return number * unit + (-micro if whole.startswith("-") else micro)


def _second(second: str | None) -> int:
    return 59 if second == "60" else int(second or 0)  # a leap second is the last of its minute


def _zone(zone: str | None) -> timezone:
    if zone is None or zone[0] not in "+-":
        return UTC
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if zone[0] == "-" else offset)


def _within(microseconds: int) -> int | None:
    return microseconds if _LEAST_US <= microseconds <= _GREATEST_US else None


def _bounded(times: pa.Array) -> pa.Array:
    numbers = times.cast(pa.int64())
    extent = pc.min_max(numbers)
    least, greatest = extent["min"].as_py(), extent["max"].as_py()
    if least is None or (least >= _LEAST_US and greatest <= _GREATEST_US):
        return times
    inside = pc.and_(pc.greater_equal(numbers, _LEAST_US), pc.less_equal(numbers, _GREATEST_US))
    return pc.if_else(inside, times, pa.scalar(None, MICROSECONDS))


def _blank_to_null(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    texts = distinct.plain(column)
    blank = pc.equal(pc.binary_length(texts), 0)
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts) if pc.any(blank).as_py() else texts


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _microseconds(seconds: float) -> pa.Scalar:
    return pa.scalar(round(seconds * 1_000_000), pa.int64())


def _before(received: pa.Array, past_max_s: float) -> pa.Array:
    if past_max_s <= 0:
        return pa.nulls(len(received), pa.int64())
    return pc.subtract(received, _microseconds(past_max_s))
