"""The pixel: a query becomes an event only when it is split."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.dialects import pixel
from headwater.dialects.envelope import Limits
from headwater.event.record import Head

HEAD = Head("web", "pixel", "GET", "/pixel.gif")
envelope = pixel.envelope(Limits())


def event_of(query: str) -> Any:
    split = pixel.split(HEAD, query.encode(), 1)
    assert split.failure is None, split.failure
    return msgspec.json.decode(split.items[0])


@pytest.mark.parametrize(
    ("query", "event"),
    [
        ("event=Opened+it", {"event": "Opened it", "type": "track"}),
        ("name=Home", {"name": "Home", "type": "page"}),
        ("event=x&anonymousId=007&userId=9.5", {"event": "x", "anonymousId": "007", "userId": "9.5", "type": "track"}),
        (
            "event=x&properties.price=9.5&properties.n=-3&properties.zip=01234&properties.ok=true&properties.no=null",
            {"event": "x", "type": "track",
             "properties": {"price": 9.5, "n": -3, "zip": "01234", "ok": True, "no": None}},
        ),
        ("event=x&traits.tag=a&traits.tag=b&traits.tag=3",
         {"event": "x", "type": "track", "traits": {"tag": ["a", "b", 3]}}),
        ("event=x&context.page.url=https%3A%2F%2Fa.b%2F%C3%BC",
         {"event": "x", "type": "track", "context": {"page": {"url": "https://a.b/ü"}}}),
        ("event=x&event=y", {"event": "y", "type": "track"}),
        ("event=x&properties.a=1&properties.a.b=2", {"event": "x", "type": "track", "properties": {"a": {"b": 2}}}),
        ("data=%7B%22event%22%3A%22x%22%7D&userId=u", {"event": "x", "userId": "u", "type": "track"}),
        ("type=identify&userId=u", {"type": "identify", "userId": "u"}),
        ("&&event=x&=y&flag", {"event": "x", "flag": "", "type": "track"}),
    ],
)  # fmt: skip
def test_query_becomes_an_event(query: str, event: Any) -> None:
    assert not envelope(query.encode(), "/pixel.gif").refused
    assert event_of(query) == event


@pytest.mark.parametrize("strip", [True, False])
def test_packed_event_is_unpacked(strip: bool) -> None:
    packed = base64.urlsafe_b64encode(msgspec.json.encode({"event": "ü>?", "userId": "u"})).decode()
    assert event_of("p=" + (packed.rstrip("=") if strip else packed.replace("=", "%3D"))) == {
        "event": "ü>?",
        "userId": "u",
        "type": "track",
    }


@pytest.mark.parametrize("query", ["p=!!!", "p=YQ", "data=%7B", "data=5", "data=" + "[" * 5000])
def test_what_cannot_be_read_is_dead_not_a_crash(query: str) -> None:
    split = pixel.split(HEAD, query.encode(), 1)
    assert len(split.items) == 1 and split.failure is not None


@pytest.mark.parametrize("query", [b"", b"anonymousId=a", b"event=", b"xevent=a", b"event=x" + b"&a=b" * 300])
def test_query_that_is_no_event_is_refused(query: bytes) -> None:
    assert envelope(query, "/pixel.gif").refused


@pytest.mark.parametrize(
    ("query", "secret", "rest"),
    [
        (b"key=abc&event=x", b"abc", b"event=x"),
        (b"event=x&key=abc", b"abc", b"event=x"),
        (b"event=x&writeKey=abc&a=b", b"abc", b"event=x&a=b"),
        (b"event=x&mykey=abc", b"", b"event=x&mykey=abc"),
        (b"key=a&key=b&event=x", b"a", b"event=x"),
        (b"key=", b"", b""),
        (b"key=a", b"a", b""),
        (b"writeKey=a&key=b", b"a", b""),
        (b"key=a&&x", b"a", b"&x"),
        (b"", b"", b""),
    ],
)
def test_key_is_taken_out_of_the_query(query: bytes, secret: bytes, rest: bytes) -> None:
    assert pixel.without_key(query) == (secret, rest)


@given(st.text('abc.=&%+0519{}[]"p', max_size=60))
def test_any_query_gives_one_item(query: str) -> None:
    assert len(pixel.split(HEAD, query.encode(), 1).items) == 1
