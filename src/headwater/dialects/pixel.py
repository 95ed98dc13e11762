"""The pixel: `GET /pixel.gif?event=Opened&anonymousId=a1&properties.price=9.5`, for mails and pages without scripts.

The query is the record's body, as it came but without the key; it is taken apart only in ``split``, since that costs
more than everything else at the door (speed.md §1.2). Parameters:

* dotted names are paths: `properties.price=9.5` → `{"properties": {"price": 9.5}}`; a name given twice is a list.
* values of fields below `properties`, `traits`, `context`, `integrations` that are JSON numbers, `true`, `false` or
  `null` are those; all others are text, and the ids, names and times on top always are.
* `data` is a JSON object, `p` the base64url of one: the event to which the other parameters are added.
* `type` is `track` when there is an `event`, else `page`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from headwater.dialects.envelope import Envelope, Limits, Refusal, Verdict, reason
from headwater.dialects.split import Split, failed
from headwater.event.record import Head

NAME = "pixel"
PATHS = ("/pixel.gif",)
KEYS = (b"&key=", b"&writeKey=")
NAMED = (b"&event=", b"&type=", b"&name=", b"&data=", b"&p=")
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,20})?(?:[eE][+-]?\d{1,3})?")
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
TYPED = ("properties", "traits", "context", "integrations")
PARAMETERS_MAX = 256
DEPTH_MAX = 16


def envelope(limits: Limits) -> Envelope:
    """The door's half: one look for a parameter that makes it an event."""

    def read(body: bytes, path: str) -> Verdict:
        if not is_named(body):
            reason = "expected one of the parameters event, type, name, data or p"
            return Verdict(body, 1, (Refusal(0, reason, "event"),))
        if body.count(b"&") >= PARAMETERS_MAX:
            return Verdict(body, 1, (Refusal(0, f"expected at most {PARAMETERS_MAX} parameters"),))
        return Verdict(body, 1)

    return read


def is_named(query: bytes) -> bool:
    """Whether some parameter makes it an event. Searching for bytes is ten times as quick as one pattern for all."""
    text = b"&" + query
    for name in NAMED:
        at = text.find(name)
        if at >= 0 and text[at + len(name) : at + len(name) + 1] not in (b"", b"&"):
            return True
    return False


def without_key(query: bytes) -> tuple[bytes, bytes]:
    """The value of the first key parameter and the query without any: secrets are not kept."""
    text = b"&" + query
    at = min((found for name in KEYS if (found := text.find(name)) >= 0), default=-1)
    if at < 0:
        return b"", query
    start = text.index(b"=", at) + 1
    end = text.find(b"&", start)
    end = len(text) if end < 0 else end
    rest = text[:at] + text[end:]
    return text[start:end], without_key(rest[1:])[1]


def split(head: Head, body: bytes, events: int) -> Split:
    """Processing's half."""
    if events != 1:
        return failed(body, events, "a pixel is one event")
    try:
        return Split([msgspec.json.encode(event_of(body.decode("latin-1")))])
    except (ValueError, RecursionError) as error:
        return failed(body, 1, f"not an event: {error}")


def event_of(query: str) -> dict[str, Any]:
    """The event that a query says. ValueError where a parameter cannot be read."""
    event: dict[str, Any] = {}
    pairs: list[tuple[str, str]] = []
    for part in query.split("&")[:PARAMETERS_MAX]:
        raw_name, _, raw_value = part.partition("=")
        name, value = unquote_plus(raw_name), unquote_plus(raw_value)
        if name == "p":
            event.update(json_object("p", unpacked(raw_value)))
        elif name == "data":
            event.update(json_object("data", value.encode()))
        elif name:
            pairs.append((name, value))
    for name, value in pairs:
        put(event, name, value)
    if "type" not in event:
        event["type"] = "track" if "event" in event else "page"
    return event


def unpacked(text: str) -> bytes:
    """base64url, with or without padding."""
    text = unquote_plus(text).replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"p: expected base64url, {error}") from None


def json_object(name: str, data: bytes) -> dict[str, Any]:
    value = msgspec.json.decode(data)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object")
    return value


def put(event: dict[str, Any], name: str, text: str) -> None:
    """Set the value at a dotted path; what stands in its way becomes an object, a second value makes a list."""
    path = name.split(".")[:DEPTH_MAX]
    value = typed(text) if path[0] in TYPED and len(path) > 1 else text
    here = event
    for step in path[:-1]:
        below = here.get(step)
        if not isinstance(below, dict):
            below = here[step] = {}
        here = below
    last = path[-1]
    if len(path) == 1 or last not in here:
        here[last] = value
    elif isinstance(here[last], list):
        here[last].append(value)
    else:
        here[last] = [here[last], value]


def typed(text: str) -> Any:
    """A JSON number or word as itself, else text."""
    if text in WORDS:
        return WORDS[text]
    if NUMBER.fullmatch(text):
        return float(text) if any(sign in text for sign in ".eE") else int(text)
    return text


def default_type(head: Head) -> str:
    """Split gives each event its type; this is never asked."""
    return "track"


def why(head: Head, item: bytes) -> tuple[str, str]:
    """Of an item that was refused; a pixel is always whole."""
    return reason(item, None)
