"""Keys: found by their secrets, rotated, limited; two of them never share a secret."""

import pytest

from headwater.collect.cors import Origins
from headwater.collect.keys import KeyTable, Quota
from headwater.collect.settings import KeySettings
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SeededRng

SECOND = 1_000_000_000


def build(
    *keys: KeySettings, before: KeyTable | None = None, files: dict[str, str] | None = None
) -> KeyTable:
    def read(path: str) -> str:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file", path)
        return (files or {})[path]

    return KeyTable.build(keys, rng=SeededRng(1), read=read, workers=2, before=before)


def test_key_is_found_by_each_of_its_secrets() -> None:
    table = build(KeySettings(id="a", secret=["first-secret", "second-secret"]))
    for secret in ("first-secret", "second-secret", "first-secret"):
        found = table.find(secret)
        assert found is not None and found.id == "a"


@pytest.mark.parametrize("secret", ["", "first-secre", "first-secret2", "\udcff", "x" * 10_000])
def test_other_secrets_find_nothing_and_are_not_remembered(secret: str) -> None:
    table = build(KeySettings(id="a", secret="first-secret"))
    assert table.find(secret) is None
    assert not table.seen


def test_two_keys_with_one_secret_are_refused() -> None:
    with pytest.raises(Misconfigured) as caught:
        build(KeySettings(id="a", secret="same-secret"), KeySettings(id="b", secret="same-secret"))
    assert "same-secret" not in str(caught.value)


def test_two_keys_with_one_id_are_refused() -> None:
    with pytest.raises(Misconfigured):
        build(KeySettings(id="a", secret="some-secret"), KeySettings(id="a", secret="other-secret"))


def test_secrets_come_from_a_file() -> None:
    table = build(
        KeySettings(id="a", secret_file="a.secret"), files={"a.secret": "from-the-file\n\nsecond-one\n"}
    )
    assert table.find("from-the-file") is table.find("second-one") is not None


@pytest.mark.parametrize("text", ["", "a-secret\nb-secret\nc-secret\n", "short\n"])
def test_secret_file_with_wrong_content_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured):
        build(KeySettings(id="a", secret_file="a.secret"), files={"a.secret": text})


def test_missing_secret_file_is_told() -> None:
    with pytest.raises(Misconfigured, match="cannot read"):
        build(KeySettings(id="a", secret_file="nowhere"))


def test_quota_lets_a_burst_through_then_the_rate() -> None:
    quota = Quota(rate_per_s=10, burst=5)
    taken = 0
    for step in range(100):  # two seconds in steps of 20 ms
        if not quota.wait_s(SECOND + step * SECOND // 50):
            quota.spend(1)
            taken += 1
    assert 20 <= taken <= 26


def test_overdrawn_quota_says_when_to_come_back() -> None:
    quota = Quota(rate_per_s=10, burst=10)
    assert quota.wait_s(SECOND) == 0
    quota.spend(110)
    wait_s = quota.wait_s(SECOND)
    assert wait_s == 10
    assert quota.wait_s(SECOND + (wait_s + 1) * SECOND) == 0


def test_time_that_goes_back_takes_nothing_from_a_quota() -> None:
    quota = Quota(rate_per_s=10, burst=5)
    for second in (9, 3, 9, 1):
        assert quota.wait_s(second * SECOND) == 0
    assert quota.tokens == 5


def test_quota_is_shared_out_over_workers() -> None:
    key = build(KeySettings(id="a", secret="some-secret", events_per_s_max=100)).keys["a"]
    assert key.quota is not None and key.quota.rate_per_s == 50


def test_reload_keeps_what_is_left_of_a_quota() -> None:
    settings = KeySettings(id="a", secret="some-secret", events_per_s_max=100)
    before = build(settings)
    assert before.keys["a"].quota is build(settings, before=before).keys["a"].quota
    other = KeySettings(id="a", secret="some-secret", events_per_s_max=200)
    assert before.keys["a"].quota is not build(other, before=before).keys["a"].quota


@pytest.mark.parametrize(
    ("rule", "origin", "allowed"),
    [
        ("*", "https://anything.example", True),
        ("*", "null", True),
        ("https://shop.example.com", "https://shop.example.com", True),
        ("https://shop.example.com", "HTTPS://Shop.Example.com", True),
        ("https://shop.example.com", "http://shop.example.com", False),
        ("https://shop.example.com", "https://shop.example.com:8443", False),
        ("https://shop.example.com", "https://shop.example.com.evil.org", False),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://evil.org/.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com:8443", "https://a.example.com", False),
        ("https://shop.example.com", "null", False),
        ("null", "null", True),
    ],
)
def test_origin_rules(rule: str, origin: str, allowed: bool) -> None:
    assert Origins([rule]).allow(origin) is allowed
