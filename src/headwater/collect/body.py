"""Content-Encoding: gzip, deflate, zstd. The body is stored decoded; a bomb costs no more than the limit.

Bodies are whole in memory when they come here (body_bytes_max), so decoding is one call in the loop: 3 MiB of JSON
take about 6 ms with gzip, 2 ms with zstd. Truncated and trailing bytes are refused: they would be lost silently.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import zstandard

from headwater.kit.errors import Rejected

WINDOW_BYTES_MAX = 8 * 1024 * 1024
MEMBERS_MAX = 64
"""gzip members or zstd frames in one body; empty ones cost time and add nothing."""
ZSTD_PIECE_BYTES = 128
"""zstandard has no limit on what one call gives. A block of at most 128 KiB comes from at least 4 bytes, so a piece
gives at most 4 MiB, whatever the frame says about its size."""


def too_large(limit: int) -> Rejected:
    return Rejected(f"expected at most {limit} bytes after decompression", code="body_too_large")


def damaged(encoding: str, why: str) -> Rejected:
    return Rejected(f"expected a whole {encoding} body, got {why}", code="encoding")


def inflate(body: bytes, limit: int, window_bits: int, encoding: str) -> bytes:
    """zlib streams, one after the other (gzip allows several members)."""
    parts: list[bytes] = []
    size = 0
    while True:
        stream = zlib.decompressobj(window_bits)
        part = stream.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if not stream.eof:
            raise damaged(encoding, "one that ends too early")
        parts.append(part)
        body = stream.unused_data
        if not body:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if encoding != "gzip" or len(parts) >= MEMBERS_MAX:
            raise damaged(encoding, f"{len(body)} bytes behind its end")


def gunzip(body: bytes, limit: int) -> bytes:
    return inflate(body, limit, 31, "gzip")


def undeflate(body: bytes, limit: int) -> bytes:
    """zlib's format, as the standard says, or a bare deflate stream, as many clients send."""
    zlib_format = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return inflate(body, limit, 15 if zlib_format else -15, "deflate")


def unzstd(body: bytes, limit: int) -> bytes:
    """zstd frames, one after the other; memory for the window is bounded too."""
    parts: list[bytes] = []
    size = 0
    for _ in range(MEMBERS_MAX):
        frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
        for at in range(0, len(body), ZSTD_PIECE_BYTES):
            parts.append(frame.decompress(body[at : at + ZSTD_PIECE_BYTES]))
            size += len(parts[-1])
            if size > limit:
                raise too_large(limit)
            if frame.eof:
                break
        if not frame.eof:
            raise damaged("zstd", "one that ends too early")
        body = frame.unused_data + body[at + ZSTD_PIECE_BYTES :]
        if not body:
            return b"".join(parts)
    raise damaged("zstd", f"more than {MEMBERS_MAX} frames")


DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": gunzip,
    "x-gzip": gunzip,
    "deflate": undeflate,
    "zstd": unzstd,
}


def decode(encoding: str, body: bytes, limit: int) -> bytes:
    """The body without its Content-Encoding. Rejected: damaged, too large, or an encoding that is not known."""
    decoder = DECODERS.get(encoding)
    if decoder is None:
        raise Rejected(
            f"expected Content-Encoding {', '.join(DECODERS)} or none, got {encoding[:40]!r}",
            code="unsupported_encoding",
        )
    try:
        return decoder(body, limit)
    except (zlib.error, zstandard.ZstdError) as error:
        raise damaged(encoding, f"damaged bytes: {error}") from error
