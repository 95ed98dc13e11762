"""Brings the real parts of the tests (tests/parts.py) where that is possible, and says what is missing.

Debian packages are installed when this runs as root with apt-get at hand, and no service is started by it;
npm packages go into `.cache/npm`, Kafka's jars into `.cache/kafka`. It never fails: a test whose part is missing is
skipped with the reason. HEADWATER_PARTS=off installs nothing and only tells.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.parts import MAVEN, NPM, PARTS, Part, find_part

POLICY = Path("/usr/sbin/policy-rc.d")
# A registry that does not answer may cost this much, once.
APT_TIMEOUT_S = 240
NPM_TIMEOUT_S = 180
MAVEN_TIMEOUT_S = 240
# The version is fixed, so that nothing floats.
MAVEN_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def say(text: str) -> None:
    print(f"parts: {text}", flush=True)


def missing() -> list[Part]:
    return [part for part in PARTS if find_part(part.name) is None]


@contextmanager
def nothing_starts() -> Iterator[None]:
    """While this is open, packages that are installed start no service."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def run(command: list[str], timeout_s: int) -> bool:
    """Whether the command went well; its last lines are told when it did not."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            env=env,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        say(f"`{command[0]}` did not end within {timeout_s} s")
        return False
    if done.returncode:
        last = (done.stderr or done.stdout).splitlines()[-3:]
        say(f"`{' '.join(command[:2])}` failed: {' | '.join(last)}")
    return done.returncode == 0


def install_debian(wanted: list[str]) -> None:
    if not wanted:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"not installing {' '.join(wanted)}: that needs root and apt-get")
        return
    say(f"installing {' '.join(wanted)}")
    options = ("Acquire::Retries=2", "Acquire::http::Timeout=20", "DPkg::Lock::Timeout=120")
    patience = [word for option in options for word in ("-o", option)]
    with nothing_starts():
        run(["apt-get", "update", "-qq", *patience], APT_TIMEOUT_S)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *patience, *wanted], APT_TIMEOUT_S)


def install_npm(wanted: list[str]) -> None:
    if not wanted:
        return
    if shutil.which("npm") is None:
        say(f"not installing {' '.join(wanted)}: npm is missing")
        return
    say(f"installing {' '.join(wanted)} into .cache/npm")
    NPM.mkdir(parents=True, exist_ok=True)
    plain = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    run(["npm", "install", "--loglevel=error", "--prefix", str(NPM), *plain, *wanted], NPM_TIMEOUT_S)


def pom(artefacts: tuple[str, ...]) -> str:
    """A project that depends on these artefacts and is nothing else."""
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in (artefact.split(":") for artefact in artefacts)
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>parts</groupId><artifactId>parts</artifactId>"
        f"<version>1</version><dependencies>{wanted}</dependencies></project>"
    )


def install_maven(part: Part) -> None:
    """The artefacts of a part and all they need, in a folder that is there only when it is whole."""
    absent = [name for name in ("java", "mvn") if find_part(name) is None]
    if absent:
        say(f"not installing {part.name}: {' and '.join(absent)} missing")
        return
    say(f"installing {part.name} into .cache/{part.name}")
    MAVEN.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=MAVEN) as folder:
        Path(folder, "pom.xml").write_text(pom(part.maven))
        jars = Path(folder, "jars")
        words = [f"-DoutputDirectory={jars}", "-DincludeScope=runtime", "-f", f"{folder}/pom.xml"]
        if run(["mvn", "-q", "-B", MAVEN_GOAL, *words], MAVEN_TIMEOUT_S):
            shutil.rmtree(MAVEN / part.name, ignore_errors=True)
            jars.rename(MAVEN / part.name)


def main() -> None:
    absent = missing()
    if absent and os.environ.get("HEADWATER_PARTS") != "off":
        install_debian(sorted({part.debian for part in absent if part.debian}))
        # npm removes what is not named with the rest, so that all are named when one is missing.
        if any(part.npm for part in absent):
            install_npm([f"{part.npm}@{part.npm_version}" for part in PARTS if part.npm])
        for part in absent:
            if part.maven:
                install_maven(part)
        absent = missing()
    for part in absent:
        say(f"{part.name} is missing, its tests will be skipped ({part.purpose}): {part.install}")
    if not absent:
        say("all there")


if __name__ == "__main__":
    main()
