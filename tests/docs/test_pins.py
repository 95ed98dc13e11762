"""requirements/ fits pyproject.toml, by hash, and names no registry."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parts import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
BASE = PYPROJECT["project"]["dependencies"]
GROUPS = PYPROJECT["dependency-groups"]


def group(name: str) -> list[str]:
    wanted: list[str] = []
    for entry in GROUPS[name]:
        wanted += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return wanted


WANTED = {"base.txt": BASE, "build.txt": group("build"), "dev.txt": BASE + group("dev")}


def pins(name: str) -> list[Requirement]:
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ")
    lines = (re.sub(r"\s--hash=\S+", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", WANTED)
def test_every_dependency_is_pinned_within_its_bounds(name: str) -> None:
    pinned = pins(name)
    for wanted in map(Requirement, WANTED[name]):
        versions = [
            next(iter(pin.specifier)).version
            for pin in pinned
            if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        ]
        assert versions, f"{wanted.name} is not pinned: run `make pin`"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: run `make pin`"


@pytest.mark.parametrize("name", WANTED)
def test_every_pin_is_exact_and_has_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            assert re.match(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("name", WANTED)
def test_no_pin_names_a_registry(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text("utf-8")
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", text)


def test_run_and_dev_agree_on_versions() -> None:
    dev = {(pin.name, str(pin.specifier)) for pin in pins("dev.txt")}
    assert {(pin.name, str(pin.specifier)) for pin in pins("base.txt") + pins("build.txt")} <= dev
