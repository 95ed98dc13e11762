"""The browser tag's files, with ETag, and under a name with their hash for good; packed once, for who takes gzip."""

from __future__ import annotations

import gzip
from hashlib import blake2b
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

NAMES = ("headwater.js", "headwater.mjs")
PLAIN_LINES = "Cache-Control: public, max-age=300, stale-while-revalidate=86400\r\n"
LASTING_LINES = "Cache-Control: public, max-age=31536000, immutable\r\n"
EVERYWHERE = (
    "Access-Control-Allow-Origin: *\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
    "Timing-Allow-Origin: *\r\n"
)


class TagFile(NamedTuple):
    """One file under one path."""

    body: bytes
    etag: str
    lines: str
    """Header lines of the answer."""
    packed: TagFile | None = None
    """The same as gzip, under an ETag of its own."""


def tag_files(folder: Traversable | None = None) -> dict[str, TagFile]:
    """Path → file, for `/headwater.js`, `/headwater.mjs` and both with the hash of their bytes in their names."""
    folder = folder or resources.files("headwater.collect") / "static"
    files: dict[str, TagFile] = {}
    for name in NAMES:
        source = folder / name
        if not source.is_file():
            continue
        body = source.read_bytes()
        digest = blake2b(body, digest_size=8).hexdigest()
        packed = gzip.compress(body, 9, mtime=0)
        stem, _, suffix = name.partition(".")
        for path, lines in ((f"/{name}", PLAIN_LINES), (f"/{stem}.{digest}.{suffix}", LASTING_LINES)):
            lines = f"{lines}{EVERYWHERE}Vary: Accept-Encoding\r\n"
            etag, packed_etag = f'"{digest}"', f'"{digest}-gzip"'
            packed_lines = f"ETag: {packed_etag}\r\nContent-Encoding: gzip\r\n{lines}"
            packed_file = TagFile(packed, packed_etag, packed_lines)
            files[path] = TagFile(body, etag, f"ETag: {etag}\r\n{lines}", packed_file)
    return files
