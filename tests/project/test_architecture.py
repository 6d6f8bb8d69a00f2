"""docs/architecture.md against the code: its rooms, and the files and names of its walk."""

from __future__ import annotations

import re

from conftest import ROOT

PACKAGE = ROOT / "src/igo"
PAGE = (ROOT / "docs/architecture.md").read_text()
WALK = PAGE.split("## One run, from the command to its record")[1].split("##")[0]


def test_every_room_is_in_the_picture() -> None:
    picture = PAGE.split("## Rooms, and one rule")[1].split("##")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"^      (\w+)/ ", picture, re.M)) == rooms
    assert len(rooms) <= 14  # what a person finds a file in
    files = {room: (PACKAGE / room).rglob("*.py") for room in rooms}
    lines = {room: sum(len(f.read_text().splitlines()) for f in files[room]) for room in rooms}
    assert max(lines.values()) <= 3000, lines
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_every_file_of_the_page_is_there_with_its_names() -> None:
    named = re.findall(r"`((?:src/)?[\w/]+\.py)(?:: (\w+))?`", WALK)
    assert len(named) > 15
    for file, name in named:
        path = ROOT / file if file.startswith("src/") else PACKAGE / file
        assert path.is_file(), file
        assert not name or re.search(rf"(?:def|class) {name}\b|^{name} = ", path.read_text(), re.M)
