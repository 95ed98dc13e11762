"""What the terminal proposes can be typed as it stands there."""

import shlex

import pytest

from headwater.cli import banner
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.rng import SystemRng
from headwater.node import start
from tests.parts import free_ports

CONFIG = """
collect: {{listen: "127.0.0.1:{}"}}
ops: {{listen: "127.0.0.1:{}"}}
keys: [{{id: web, secret_file: keys/web.secret, origins: ["*"]}}]
destinations: {{warehouse: {{type: duckdb}}}}
"""


@pytest.fixture
def proposed(tmp_path, monkeypatch):
    """The words of the line that asks SQL, for a data folder."""

    def words(data):
        monkeypatch.chdir(tmp_path)
        with free_ports(2) as ports:
            pass
        (tmp_path / "c.yaml").write_text(CONFIG.format(*ports))
        prepared = start.prepare("c.yaml", data, SystemDisk(), SystemClock(), SystemRng(), {})
        prepared.lock.release()
        (line,) = [line for line in banner.lines(prepared) if " sql " in line]
        return shlex.split(line)

    return words


def test_the_default_folder_needs_no_word(proposed):
    assert "--data" not in proposed("headwater-data")


@pytest.mark.parametrize("name", ["elsewhere", "a folder/with spaces"])
def test_another_folder_is_named_so_that_the_line_works_from_anywhere(proposed, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    words = proposed(name)
    assert words[words.index("--data") + 1] == str(tmp_path / name)


def test_without_keys_and_destinations_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with free_ports(2) as ports:
        pass
    text = 'collect: {{listen: "127.0.0.1:{}"}}\nops: {{listen: "127.0.0.1:{}"}}\n'.format(*ports)
    (tmp_path / "c.yaml").write_text(text)
    prepared = start.prepare("c.yaml", "data", SystemDisk(), SystemClock(), SystemRng(), {})
    prepared.lock.release()
    told = "\n".join(banner.lines(prepared))
    assert "nobody can send" in told and "no destinations" in told and "/demo" not in told
