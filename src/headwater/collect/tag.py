"""The browser tag's files, with ETag, and under a name with their hash for good."""

from __future__ import annotations

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
        stem, _, suffix = name.partition(".")
        for path, lines in ((f"/{name}", PLAIN_LINES), (f"/{stem}.{digest}.{suffix}", LASTING_LINES)):
            files[path] = TagFile(body, f'"{digest}"', f'ETag: "{digest}"\r\n{lines}{EVERYWHERE}')
    return files
