"""Settings of collector and keys: every mistake is told by field, expected, got; never with a secret in it."""

import pytest

from headwater.collect.settings import CollectSettings, KeySettings, host_and_port
from headwater.kit.errors import Misconfigured


def test_defaults_are_valid() -> None:
    CollectSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("body_bytes_max", 4_000_000),
        ("decompressed_bytes_max", 4_000_000),
        ("idle_deadline_s", 0),
        ("trusted_proxies", ["10.0.0.0/99"]),
        ("listen", "8420"),
        ("listen", "::1:8420"),
        ("listen", "localhost:99999"),
        ("address_salt_rotation_s", 59),
    ],
)
def test_bad_collect_setting_names_field_and_expected(field: str, value: object) -> None:
    with pytest.raises(Misconfigured) as caught:
        CollectSettings(**{field: value})  # type: ignore[arg-type]
    assert caught.value.fields["field"] == f"collect.{field}"
    assert "expected" in caught.value.message and "got" in caught.value.message


def test_proxy_protocol_asks_who_the_proxies_are() -> None:
    with pytest.raises(Misconfigured, match="since proxy_protocol is v2") as caught:
        CollectSettings(proxy_protocol="v2")
    assert caught.value.fields["field"] == "collect.trusted_proxies"
    CollectSettings(proxy_protocol="v2", trusted_proxies=["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"id": "a b", "secret": "long-enough"}, "keys.id"),
        ({"id": "a"}, "keys[a]"),
        ({"id": "a", "secret": "long-enough", "secret_file": "f"}, "keys[a]"),
        ({"id": "a", "secret": "short"}, "keys[a].secret"),
        ({"id": "a", "secret": "with:a:colon"}, "keys[a].secret"),
        ({"id": "a", "secret": ["long-enough", "long-enough2", "long-enough3"]}, "keys[a].secret"),
        ({"id": "a", "secret": "long-enough", "ack_destination": "warehouse"}, "keys[a].ack_destination"),
        ({"id": "a", "secret": "long-enough", "origins": ["shop.example.com"]}, "keys[a].origins"),
        ({"id": "a", "secret": "long-enough", "origins": ["https://a.b/path"]}, "keys[a].origins"),
        ({"id": "a", "secret": "long-enough", "origins": ["https://a.*.b"]}, "keys[a].origins"),
        ({"id": "a", "secret": "long-enough", "kind": "server", "origins": ["*"]}, "keys[a].origins"),
        ({"id": "a", "secret": "long-enough", "kind": "browser"}, "keys[a].origins"),
        ({"id": "a", "secret": "long-enough", "events_per_s_max": -1}, "keys[a].events_per_s_max"),
    ],
)
def test_bad_key_setting_names_field_and_no_secret(given: dict[str, object], field: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        KeySettings(**given)  # type: ignore[arg-type]
    assert caught.value.fields["field"] == field
    assert "long-enough" not in str(caught.value)
    assert "with:a:colon" not in str(caught.value)


def test_key_with_origins_is_a_browser_key() -> None:
    assert KeySettings(id="a", secret="long-enough", origins=["*"]).browser
    assert not KeySettings(id="a", secret="long-enough").browser


def test_key_settings_print_no_secret() -> None:
    assert "long-enough" not in repr(KeySettings(id="a", secret="long-enough"))


@pytest.mark.parametrize(
    ("text", "pair"),
    [("127.0.0.1:8420", ("127.0.0.1", 8420)), ("[::]:80", ("::", 80)), ("host:0", ("host", 0))],
)
def test_listen_is_host_and_port(text: str, pair: tuple[str, int]) -> None:
    assert host_and_port(text) == pair
