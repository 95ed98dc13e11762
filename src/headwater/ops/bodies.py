"""Bodies of events as they may be shown: without write keys, and unambiguous where they are no UTF-8."""

from __future__ import annotations

import base64
import re

KEY_IN_JSON = re.compile(rb"""("writeKey"\s*:\s*")(?:[^"\\]|\\.)*""")
KEY_IN_QUERY = re.compile(rb"((?:^|&)(?:writeKey|key)=)[^&]*")


def without_keys(data: bytes) -> bytes:
    """The same bytes with ``***`` for each write key. (By pattern: a body may be dead because it is no JSON.)"""
    pattern = KEY_IN_JSON if data.lstrip()[:1] in (b"{", b"[", b'"') else KEY_IN_QUERY
    return pattern.sub(rb"\1***", data)


def shown(data: bytes) -> dict[str, str | None]:
    """``body``, the text; or where it is no UTF-8, ``body`` null and ``body_base64``."""
    data = without_keys(data)
    try:
        return {"body": data.decode()}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": base64.b64encode(data).decode()}
