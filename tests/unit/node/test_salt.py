"""The salt of address hashes lives for one period, for those who want it, and is nobody else's to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from headwater.collect.settings import CollectSettings, KeySettings
from headwater.kit.disk import SystemDisk
from headwater.kit.rng import SystemRng
from headwater.node import salt
from headwater.node.settings import Settings

DISK, RNG = SystemDisk(), SystemRng()
DAY_NS = 86_400 * 10**9
NOON = 20_000 * DAY_NS + DAY_NS // 2


def settings(**collect):
    return Settings(collect=CollectSettings(**collect), keys=[KeySettings(id="web", secret="long-enough")])


HASHED, PLAIN = settings(client_address="hashed"), settings()


@pytest.fixture
def data(tmp_path):
    (tmp_path / "run").mkdir()
    return str(tmp_path)


def salt_of(data):
    found = salt.salt_bytes(DISK, data)
    assert found is not None
    return found


def keep(data, wanted=HASHED, wall_ns=NOON):
    return salt.keep(DISK, data, wanted, wall_ns, RNG)


def test_one_salt_holds_from_midnight_to_midnight(data):
    assert keep(data)
    first = salt_of(data)
    assert len(first) == 32
    for wall_ns in (NOON - DAY_NS // 2, NOON + 1, NOON + DAY_NS // 2 - 1):
        assert not keep(data, wall_ns=wall_ns)
    assert salt_of(data) == first
    assert keep(data, wall_ns=NOON + DAY_NS // 2)
    assert salt_of(data) != first


def test_another_rotation_begins_with_another_salt(data):
    keep(data)
    first = salt_of(data)
    assert keep(data, settings(client_address="hashed", address_salt_rotation_s=3600))
    assert salt_of(data) != first


def test_the_salt_is_its_owners_alone_and_the_former_one_is_nowhere(data):
    keep(data)
    former = salt_of(data).hex()
    assert stat.S_IMODE(os.stat(salt.salt_path(data)).st_mode) == 0o600
    keep(data, wall_ns=NOON + DAY_NS)
    (text,) = [file.read_text() for file in Path(data, "run").iterdir()]
    assert former not in text


def test_there_is_a_salt_only_while_a_key_wants_hashes(data):
    assert not keep(data, PLAIN)
    assert salt.salt_bytes(DISK, data) is None
    keep(data)
    assert keep(data, PLAIN)
    assert os.listdir(f"{data}/run") == []


def test_a_key_alone_may_want_hashes_and_all_may_decline():
    shop = KeySettings(id="shop", secret="long-enough", client_address="hashed")
    assert salt.wanted(Settings(keys=[shop]))
    plain = KeySettings(id="web", secret="long-enough2", client_address="none")
    assert not salt.wanted(Settings(collect=HASHED.collect, keys=[plain]))


def test_a_damaged_salt_is_replaced(data):
    with open(salt.salt_path(data), "w") as file:
        file.write("{")
    assert keep(data)
    assert len(salt_of(data)) == 32
