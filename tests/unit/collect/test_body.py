"""Encoded and chunked bodies: whole or refused, and never larger than the limit."""

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import h11
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headwater.collect.body import decode
from headwater.collect.chunked import Chunks
from headwater.kit.errors import Rejected

LIMIT = 100_000
BODY = b'{"event":"x"}' * 100


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def streamed_zstd(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [gzip.compress],
    "x-gzip": [gzip.compress],
    "deflate": [zlib.compress, raw_deflate],
    "zstd": [zstandard.compress, streamed_zstd],
}
CASES = [(name, encode) for name, encoders in ENCODERS.items() for encode in encoders]


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_body_comes_out_as_it_went_in(name, encode) -> None:
    for body in (BODY, b"", b"x"):
        assert decode(name, encode(body), LIMIT) == body


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_bomb_is_refused_at_the_limit(name, encode) -> None:
    assert decode(name, encode(bytes(LIMIT)), LIMIT) == bytes(LIMIT)
    for size in (LIMIT + 1, 50_000_000):
        with pytest.raises(Rejected) as caught:
            decode(name, encode(bytes(size)), LIMIT)
        assert caught.value.code == "body_too_large"


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_truncated_body_is_refused(name, encode) -> None:
    encoded = encode(BODY)
    for cut in range(len(encoded)):
        with pytest.raises(Rejected):
            decode(name, encoded[:cut], LIMIT)


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_trailing_bytes_are_refused(name, encode) -> None:
    with pytest.raises(Rejected):
        decode(name, encode(BODY) + b"trailing", LIMIT)


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress, streamed_zstd])
def test_several_members_are_one_body_but_not_endlessly_many(encode) -> None:
    name = "gzip" if encode is gzip.compress else "zstd"
    assert decode(name, encode(BODY) + encode(BODY), LIMIT) == BODY + BODY
    with pytest.raises(Rejected):
        decode(name, encode(b"") * 1000, LIMIT)


@pytest.mark.parametrize("name", ["br", "gzip, gzip", "compress", ""])
def test_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        decode(name, BODY, LIMIT)
    assert caught.value.code == "unsupported_encoding"


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(name: str, data: bytes) -> None:
    try:
        assert len(decode(name, data, LIMIT)) <= LIMIT
    except Rejected:
        pass


def read_chunks(pieces: list[bytes], limit: int = LIMIT) -> tuple[bytes, bytes] | None:
    """Body and what follows it; None when more is needed."""
    chunks = Chunks(limit)
    for number, piece in enumerate(pieces):
        rest = chunks.feed(piece)
        if rest is not None:
            return chunks.body, rest + b"".join(pieces[number + 1 :])
    return None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(0, 500), max_size=8),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
    st.sampled_from([b"", b";name=value"]),
)
def test_chunks_are_read_however_they_are_cut(parts, places, trailer, extension) -> None:
    wire = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    wire += b"0\r\n" + trailer + b"\r\n"
    assert read_chunks(cut(wire + b"POST /next", places)) == (b"".join(parts), b"POST /next")
    assert read_chunks(cut(wire[:-1], places)) is None


@given(st.text("0123456789abcdef\r\n ;:xA", max_size=30).map(str.encode))
def test_what_we_take_as_chunks_h11_takes_too(wire: bytes) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    server.next_event()
    try:
        found = read_chunks([wire])
    except Rejected:
        return
    if found is None:
        return
    body = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += bytes(event.data)
    assert (body, server.trailing_data[0]) == found


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello",
        b"5\r\nhelloX\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"5 5\r\n",
        b"0\r\nbad trailer\r\n",
        b"1" * 2000,
    ],
)
def test_what_is_no_chunk_is_refused(wire: bytes) -> None:
    with pytest.raises(Rejected):
        read_chunks([wire])


def test_chunked_body_is_bounded_by_what_it_announces() -> None:
    with pytest.raises(Rejected) as caught:
        read_chunks([b"ffffffff\r\n"], limit=1000)
    assert caught.value.fields["status"] == 413
