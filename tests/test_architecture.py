"""docs/architecture.md against the code: its rooms, its files, and its walk through one run."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from types import FrameType

from conftest import ROOT
from forked import shared_forge

PACKAGE = ROOT / "src/igo"
PAGE = (ROOT / "docs/architecture.md").read_text()
WALK = PAGE.split("## One run, from the command to its record")[1].split("##")[0]


def test_every_room_and_ground_file_is_in_the_picture() -> None:
    picture = PAGE.split("## Rooms, and one rule")[1].split("##")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"^      (\w+)/ ", picture, re.M)) == rooms
    assert len(rooms) <= 8  # what a person keeps in mind
    ground = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert set(re.search(r"^      (\w+(?:, \w+)+):? ", picture, re.M)[1].split(", ")) == ground  # type: ignore[index]


def test_every_file_of_the_page_is_there_with_its_names() -> None:
    named = re.findall(r"`((?:src/)?[\w/]+\.py)(?:: (\w+))?`", WALK)
    assert len(named) > 15
    for file, name in named:
        path = ROOT / file if file.startswith("src/") else PACKAGE / file
        assert path.is_file(), file
        assert not name or re.search(rf"(?:def|class) {name}\b|^{name} = ", path.read_text(), re.M)


def followed(*arguments: str) -> list[tuple[str, str]]:
    """Run a program; each (file, function) of the package in the order of their first calls."""
    called: dict[tuple[str, str], None] = {}

    def follow(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and "/src/" in code.co_filename:
            called[code.co_filename, code.co_name] = None

    sys.argv = [str(ROOT / arguments[0]), *arguments[1:]]
    sys.setprofile(follow)
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.setprofile(None)
    return list(called)


def test_a_run_goes_the_way_of_the_page(tmp_path: Path) -> None:
    """The functions that the walk names, in the order in which a real run first calls them."""
    command = re.search(r"python (src/train\.py .*?) +#", PAGE)[1]  # type: ignore[index]
    (called,) = shared_forge().results(
        tmp_path, 1, "test_architecture.followed", *shlex.split(command), f"runs_dir={tmp_path}"
    )
    named = re.findall(r"`([\w/]+\.py): ([a-z_]+)`", WALK)
    steps = [(PACKAGE / file, name) for file, name in named]
    assert len(steps) > 6
    assert [step for file, name in called if (step := (Path(file), name)) in steps] == steps
