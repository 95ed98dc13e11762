"""A missing part skips its test with the reason; ports that are given out are different."""

import json
from pathlib import Path

import pytest

from scripts import parts as installer
from tests import parts


def test_a_missing_program_skips_and_says_how_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(pytest.skip.Exception, match="nginx is missing: apt-get install nginx-light"):
        parts.require_part("nginx")


@pytest.mark.parametrize(("version", "found"), [("1.84.3", True), ("1.0.0", False)])
def test_an_npm_package_counts_in_its_exact_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, found: bool
) -> None:
    monkeypatch.setattr(parts, "NPM", tmp_path)
    monkeypatch.setattr(parts, "BY_NAME", {"x": parts.Part("x", "y", npm="@x/y", npm_version="1.84.3")})
    assert parts.find_part("x") is None
    folder = tmp_path / "node_modules" / "@x" / "y"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": version}, indent=2))
    assert (parts.find_part("x") is not None) is found


def test_jars_count_when_all_artefacts_are_there_in_their_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "MAVEN", tmp_path)
    part = parts.Part("x", "y", maven=("g:a:1.0", "g:b:2.0"))
    monkeypatch.setattr(parts, "BY_NAME", {"x": part})
    (tmp_path / "x").mkdir()
    for jar, found in (("a-1.0.jar", False), ("b-1.9.jar", False), ("b-2.0.jar", True)):
        (tmp_path / "x" / jar).touch()
        assert (parts.find_part("x") is not None) is found
    (tmp_path / "x" / "a-1.0.jar").unlink()
    with pytest.raises(
        pytest.skip.Exception, match=r"x is missing: make parts \(Maven g:a:1.0; needs java and mvn\)"
    ):
        parts.require_part("x")


def test_jars_that_cannot_be_brought_are_told_and_leave_nothing_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installer, "MAVEN", tmp_path)
    part = parts.Part("x", "y", maven=("g:a:1.0",))
    monkeypatch.setattr(installer, "find_part", lambda name: None)
    installer.install_maven(part)
    assert "not installing x: java and mvn missing" in capsys.readouterr().out
    monkeypatch.setattr(installer, "find_part", lambda name: Path("/bin/true"))
    monkeypatch.setattr(installer, "run", lambda command, timeout_s: False)
    installer.install_maven(part)
    assert list(tmp_path.iterdir()) == []


def test_ports_held_at_once_are_different() -> None:
    with parts.free_ports(8) as ports:
        assert len(set(ports)) == 8


def test_nothing_starts_while_packages_are_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(installer, "POLICY", policy)
    with installer.nothing_starts():
        assert "exit 101" in policy.read_text()
    assert not policy.exists()


def test_a_policy_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(installer, "POLICY", policy)
    with installer.nothing_starts():
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


@pytest.mark.slow
def test_a_command_that_fails_or_hangs_is_told_and_does_not_raise(capsys: pytest.CaptureFixture[str]) -> None:
    assert not installer.run(["sh", "-c", "echo no such package >&2; exit 3"], 10)
    assert not installer.run(["sh", "-c", "exec tail -f /dev/null"], 1)
    assert "no such package" in (said := capsys.readouterr().out)
    assert "did not end within 1 s" in said
