"""Facts on disk: they come back as they were, only ever join, and take bytes per visitor who logged in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headwater.identity.filter import Filter, hashes_of
from headwater.identity.junk import Junk
from headwater.identity.owner import FIRST_SEEN, LOGIN, LOGOUT, UNLINK, Fact
from headwater.identity.recognise import Recogniser
from headwater.identity.settings import IdentitySettings
from headwater.identity.store import (
    FACTS_MAX,
    MANY,
    SAME_AGE_US,
    SHARED,
    WHOLE,
    FactStore,
    Kept,
    decoded,
    encoded,
    key_of,
    merged,
    unpacked,
)
from headwater.kit.errors import Unavailable

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


def store_in(folder: Path, bytes_max: int = 1 << 24) -> FactStore:
    return FactStore(str(folder / "facts"), bytes_max, 64, cached_ids=4, filter_bytes=1024)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FactStore]:
    made = store_in(tmp_path)
    yield made
    made.close()


def login(user: str, time_us: int, message_id: str = "m") -> Fact:
    return Fact(LOGIN, user, time_us, message_id)


def looked(store: FactStore, *ids: str) -> dict[str, Kept]:
    found = store.look(pa.array(ids, pa.string()))
    return {ids[n]: kept for n, kept in found.items()}


def test_facts_are_there_at_once_and_after_a_restart_when_they_were_saved(tmp_path: Path) -> None:
    first = store_in(tmp_path)
    first.add([("v1", login("ada", 5, UUID)), (UUID, Fact(LOGOUT, "", 7, "é"))])
    assert looked(first, "v1", "v2")["v1"] == Kept(WHOLE, (login("ada", 5, UUID),))
    first.save()
    first.add([("v1", login("bob", 9))])
    first.close()
    again = store_in(tmp_path)
    assert looked(again, "v1", UUID, "v2") == {
        "v1": Kept(WHOLE, (login("ada", 5, UUID),)),
        UUID: Kept(WHOLE, (Fact(LOGOUT, "", 7, "é"),)),
    }
    assert dict(again.items()).keys() == {"v1", UUID}
    again.close()


def test_what_is_cached_never_hides_what_is_new(store: FactStore) -> None:
    for n in range(50):
        store.add([(f"v{n % 9}", login("ada", n, f"m{n}"))])
        assert login("ada", n, f"m{n}") in looked(store, *(f"v{k}" for k in range(9)))[f"v{n % 9}"].facts
        if n % 7 == 0:
            store.save()
    assert sum(len(kept.facts) for kept in looked(store, *(f"v{k}" for k in range(9))).values()) == 50


def test_of_first_events_of_a_user_the_least_is_kept() -> None:
    kept = merged(None, [Fact(FIRST_SEEN, "ada", 5, "b"), Fact(FIRST_SEEN, "ada", 3, "c")], 64)
    assert merged(kept, [Fact(FIRST_SEEN, "ada", 4, "a")], 64).facts == (Fact(FIRST_SEEN, "ada", 3, "c"),)


def test_logins_of_one_user_between_others_of_theirs_go_when_nothing_can_come_between_any_more() -> None:
    old = [login("ada", n, f"m{n}") for n in range(FACTS_MAX)]
    now = SAME_AGE_US + FACTS_MAX + 1
    kept = merged(None, [*old, login("ada", now)], 64)
    assert kept == Kept(WHOLE, (old[0], login("ada", now)))
    marked = merged(None, [*old, login("bob", 50, "x"), Fact(UNLINK, "bob", 60, "y"), login("ada", now)], 64)
    assert {login("bob", 50, "x"), Fact(UNLINK, "bob", 60, "y")} <= set(marked.facts)


def test_an_id_with_too_many_facts_keeps_none_and_says_whether_it_is_shared() -> None:
    logins = [login(f"u{n % 9}", n, f"m{n}") for n in range(FACTS_MAX + 1)]
    assert merged(None, logins, shared_users_max=64) == Kept(MANY, ())
    assert merged(None, logins, shared_users_max=8) == Kept(SHARED, ())
    assert merged(Kept(MANY, ()), [login("ada", 1)], 64) == Kept(MANY, ())


@pytest.mark.parametrize(
    "text", [UUID, UUID.upper(), UUID[:-1], "é\ud800", "", "x" * 36, "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1 0"]
)
def test_every_id_comes_back_as_it_was(text: str) -> None:
    assert unpacked(key_of(text)) == text
    kept = Kept(WHOLE, (Fact(LOGIN, text, -5, text),))
    assert decoded(encoded(kept)) == kept


def test_a_uuid_takes_its_sixteen_bytes() -> None:
    assert len(key_of(UUID)) == 17


def test_a_full_store_says_which_setting_gives_more(tmp_path: Path) -> None:
    small = store_in(tmp_path, bytes_max=1 << 16)
    small.add([(f"visitor-{n}", login("ada", n, "m" * 100)) for n in range(2000)])
    with pytest.raises(Unavailable, match="take all of their 65536 bytes") as caught:
        small.save()
    assert "identity.store_bytes_max" in caught.value.help
    small.close()


def test_the_filter_never_says_no_to_an_id_that_has_facts_and_seldom_yes_to_another() -> None:
    known = hashes_of(pa.array([f"visitor-{n}" for n in range(2000)] + ["", "é", UUID]))
    strangers = hashes_of(pa.array([f"{n:036d}" for n in range(20_000)]))
    filter_ = Filter(4096)
    filter_.add(known)
    assert filter_.maybe(known).all()
    assert np.count_nonzero(filter_.maybe(strangers)) < 600


def test_a_hash_is_of_the_text_alone() -> None:
    texts = ["a", "ab", UUID, "", "a" * 50, "b" * 50]
    whole = hashes_of(pa.array(texts))
    assert len(set(whole.tolist())) == len(texts)
    assert hashes_of(pa.array(["x", *texts, "y"]).slice(1, len(texts))).tolist() == whole.tolist()
    assert [int(hashes_of(pa.array([text]))[0]) for text in texts] == whole.tolist()


def test_ids_that_fit_into_no_key_are_looked_up_without_harm(store: FactStore) -> None:
    """An event may bring any text as its id."""
    odd = ["", "汉" * 200, "x" * 512, "x" * 501]
    store.filter.bits[:] = 0xFF  # whatever is asked for is looked up
    assert looked(store, *odd, "v1") == {}
    store.add([("v1", login("ada", 5))])
    assert looked(store, *odd, "v1").keys() == {"v1"}


def test_events_with_any_ids_are_recognised_and_saved(store: FactStore) -> None:
    texts = ["", "汉字" * 100, "汉字" * 83, "xy" * 256, "xy" * 100, "v1"]
    time = pa.array([1_790_000_000_000_000] * len(texts), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    rows = pa.table(
        {
            "message_id": [f"m{n}" for n in range(len(texts))],
            "type": ["identify"] * len(texts),
            "anonymous_id": texts,
            "user_id": ["ada"] * len(texts),
            "received_at": time,
            "_hw_partition": pa.array([0] * len(texts), pa.uint16()),
        }
    )
    Recogniser(IdentitySettings().policy, Junk(), store).apply(rows)
    store.save()
    assert {one for one, _ in store.items()} == {"汉字" * 83, "xy" * 100, "v1"}
