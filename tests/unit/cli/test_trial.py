"""What `headwater cluster try` writes and says, without starting anything."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from headwater.cli import trial as trials
from headwater.cli.main import main
from headwater.cli.trial import Trial
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SystemRng
from headwater.node import configuration
from tests.parts import free_row, require_part


def a_trial(
    folder: Path, *, redis: str = "/usr/bin/redis-server", haproxy: str = "/usr/sbin/haproxy"
) -> Trial:
    return Trial(str(folder / "t"), 9420, 3, redis, haproxy)


def made(trial: Trial, *, fresh: bool = False) -> Trial:
    trials.make_files(trial, SystemRng(), fresh=fresh)
    return trial


@pytest.mark.parametrize("redis", ["/usr/bin/redis-server", ""])
def test_configurations_are_taken_by_a_node_and_differ_in_names_and_ports_only(
    tmp_path: Path, redis: str
) -> None:
    trial = made(a_trial(tmp_path, redis=redis))
    seen = []
    for name in trial.names:
        settings = configuration.read(trial.config(name), trial.data(name), {}).settings
        assert settings.cluster is not None
        assert (settings.cluster.node, settings.cluster.minimum_nodes) == (name, 2)
        assert bool(settings.cluster.store) == bool(redis)
        assert len(settings.cluster.peers) == (0 if redis else 3)
        seen.append(settings.collect.listen)
    assert len(set(seen)) == 3


def test_no_port_stands_twice(tmp_path: Path) -> None:
    trial = Trial(str(tmp_path), 9420, trials.NODES_MAX, "redis", "haproxy")
    assert len(trial.all_ports()) == 3 + 4 * trials.NODES_MAX


def test_secrets_are_kept_by_the_next_start_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    trial = made(a_trial(tmp_path))
    before = {name: Path(trial.folder, name).read_text() for name in trials.SECRET_FILES}
    made(trial)
    assert before == {name: Path(trial.folder, name).read_text() for name in trials.SECRET_FILES}
    assert {stat.S_IMODE(os.stat(f"{trial.folder}/{name}").st_mode) for name in trials.SECRET_FILES} == {
        0o600
    }
    made(trial, fresh=True)
    assert before != {name: Path(trial.folder, name).read_text() for name in trials.SECRET_FILES}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    trial = a_trial(tmp_path)
    os.makedirs(trial.folder)
    Path(trial.folder, "thesis.txt").write_text("ten years of work")
    with pytest.raises(Misconfigured, match="left alone"):
        made(trial, fresh=fresh)
    assert os.listdir(trial.folder) == ["thesis.txt"]


def test_what_is_missing_is_said_with_the_package_that_brings_it(tmp_path: Path) -> None:
    told = " ".join(trials.missing(a_trial(tmp_path, redis="", haproxy="")))
    assert "apt-get install redis-server" in told and "apt-get install haproxy" in told
    assert trials.missing(a_trial(tmp_path)) == []


def test_without_haproxy_the_door_is_the_first_node(tmp_path: Path) -> None:
    trial = made(a_trial(tmp_path, haproxy=""))
    told = "\n".join(trials.welcome(trial, "1", dict.fromkeys(trial.names, 7)))
    assert "curl http://127.0.0.1:9430/events" in told
    assert "front door" not in told.replace("no front door", "")


def test_welcome_says_how_to_send_look_kill_and_start_again(tmp_path: Path) -> None:
    trial = made(a_trial(tmp_path))
    told = "\n".join(trials.welcome(trial, "1", {"a": 101, "b": 102, "c": 103}))
    secret = Path(trial.folder, "web.secret").read_text().strip()
    for words in (
        secret,
        "http://127.0.0.1:9420 ",
        "http://127.0.0.1:9431/demo",
        "kill -9 102",
        "cluster status",
    ):
        assert words in told
    assert trials.start_words(trial, "b") in told


@pytest.mark.real("haproxy")
@pytest.mark.slow
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    trial = made(a_trial(tmp_path, haproxy=str(require_part("haproxy"))))
    command = [trial.haproxy, "-c", "-f", f"{trial.folder}/haproxy/haproxy.cfg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr


def test_a_port_that_is_taken_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as other:
        port = free_row(40) + 10  # below those that the system gives to anybody
        other.bind(("127.0.0.1", port))
        other.listen(1)
        done = CliRunner().invoke(
            main, ["cluster", "try", "--dir", str(tmp_path / "t"), "--port", str(port - 10)]
        )
    assert done.exit_code == 2
    assert f"127.0.0.1:{port} (events at a)" in done.stderr and "--port" in done.stderr
    assert not (tmp_path / "t").exists()


def test_a_happening_is_told_once_whoever_tells_it() -> None:
    one = {"event": "evicted", "id": "b1", "incarnation": 5, "name": "b", "reason": "heartbeat timeout"}
    seen: set[tuple[str, str, int]] = set()
    assert trials.changes(seen, {"activity": [one]}) == ["b evicted: heartbeat timeout"]
    assert trials.changes(seen, {"activity": [one]}) == []


def test_the_end_of_a_node_says_how_to_start_it_and_what_waits(tmp_path: Path) -> None:
    trial = a_trial(tmp_path)
    assert trials.start_words(trial, "b") in trials.ended_words(trial, "b", -9, again=False)
    assert "warehouse" not in trials.ended_words(trial, "b", -9, again=False)
    assert "rows wait" in trials.ended_words(trial, "a", -9, again=False)
