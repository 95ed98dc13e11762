"""What holds for every dialect: the door's count is what splitting gives, whatever the body is."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.dialects.envelope import Limits
from headwater.dialects.registry import DIALECTS, Dialect
from headwater.event.record import Head

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "event", "userId", "batch", "writeKey", "a"]), inner, max_size=4
    ),
    max_leaves=10,
)  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "nope"])}, optional={"event": JSON, "userId": JSON}
)
BODIES = st.one_of(
    st.binary(max_size=40),
    JSON.map(msgspec.json.encode),
    st.lists(EVENTS, max_size=4).map(msgspec.json.encode),
    st.lists(EVENTS | JSON, max_size=4).map(lambda events: msgspec.json.encode({"batch": events})),
    st.lists(EVENTS.map(msgspec.json.encode) | st.binary(max_size=9), max_size=4).map(b"\n".join),
    EVENTS.map(lambda event: msgspec.json.format(msgspec.json.encode(event), indent=2)),
)
ENVELOPES = {name: dialect.envelope(Limits()) for name, dialect in DIALECTS.items()}
PLACES = [("segment", "/v1/track"), ("segment", "/v1/batch"), ("native", "/events"), ("pixel", "/pixel.gif")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), PLACES)
@given(body=BODIES)
def test_split_gives_what_the_door_counted(name: str, path: str, body: bytes) -> None:
    dialect = DIALECTS[name]
    verdict = ENVELOPES[name](body, path)
    head = Head("web", dialect.name, "POST", path)
    split = dialect.split(head, verdict.body, verdict.events)
    assert len(split.items) == verdict.events >= 1
    refused = {one.index for one in verdict.refused}
    assert refused <= set(range(verdict.events))
    good = [item for index, item in enumerate(split.items) if index not in refused]
    if split.failure is None:
        assert all(isinstance(msgspec.json.decode(item), dict) for item in good)
    else:
        assert not good or dialect.name == "pixel"
    assert not any(b"\n" in item for item in good)
    if verdict.single:
        assert list(split.items) == [verdict.body] and not refused


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@given(body=BODIES, events=st.integers(1, 5))
def test_split_keeps_any_count_even_of_a_body_that_changed(
    dialect: Dialect, body: bytes, events: int
) -> None:
    head = Head("web", dialect.name, "POST", dialect.paths[-1])
    split = dialect.split(head, body, events)
    assert len(split.items) == events
