"""ARCHITECTURE.md names places that exist, and leaves out no folder of the source."""

import re
from pathlib import Path

from tests.parts import ROOT

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
# A place is a path (`log/recover`, `kit/`, `docs/start.md`) or a module (`headwater.log.recover`).
PLACE = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]*)+|headwater(?:\.\w+)+|[A-Za-z_-]+\.(?:md|py|toml)")


def places(text: str) -> set[str]:
    """The places that a page names in backticks; what stands in fenced blocks is a picture."""
    return {found for found in QUOTED.findall(FENCED.sub("", text)) if PLACE.fullmatch(found)}


def exists(place: str, root: Path) -> bool:
    path = place.replace(".", "/") if place.startswith("headwater.") else place
    bases = (root, root / "src", root / "src" / "headwater")
    return any(
        (base / path).exists() or (not place.endswith("/") and (base / f"{path}.py").exists())
        for base in bases
    )


def missing(text: str, root: Path) -> list[str]:
    return sorted(place for place in places(text) if not exists(place, root))


def unnamed(text: str, root: Path) -> list[str]:
    """Top-level packages of the source that the page does not name."""
    package = root / "src" / "headwater"
    folders = {folder.name for folder in package.iterdir() if any(folder.glob("*.py"))}
    return sorted(folders - {place.removesuffix("/") for place in places(text)})


def test_every_place_that_architecture_names_exists() -> None:
    assert missing((ROOT / "ARCHITECTURE.md").read_text("utf-8"), ROOT) == []


def test_every_folder_is_named_in_architecture() -> None:
    assert unnamed((ROOT / "ARCHITECTURE.md").read_text("utf-8"), ROOT) == []


def test_a_place_that_is_gone_is_told(tmp_path: Path) -> None:
    for file in ("src/headwater/log/recover.py", "src/headwater/kit/clock.py", "docs/start.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    text = "`log/`, `log/recover`, `headwater.kit.clock`, `docs/start.md`, `log/gone`, `gone/`, `headwater.kit.gone`"
    assert missing(text, tmp_path) == ["gone/", "headwater.kit.gone", "log/gone"]
    assert missing("```\n`log/gone`\n```\n`2xx` and `headwater status`", tmp_path) == []


def test_a_folder_that_is_new_is_told(tmp_path: Path) -> None:
    for folder in ("log", "kit"):
        (tmp_path / "src/headwater" / folder).mkdir(parents=True)
        (tmp_path / "src/headwater" / folder / "__init__.py").touch()
    assert unnamed("only `log/` and `kit/clock`", tmp_path) == ["kit"]
