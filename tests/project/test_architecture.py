"""docs/architecture.md against the code: rooms, files and names; how deep the optimizer is."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT, TINY, python

PACKAGE = ROOT / "src/igo"
PAGE = (ROOT / "docs/architecture.md").read_text()
MOST = 8  # of our functions that are open when the optimizer makes its step
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


def test_the_optimizer_is_few_calls_from_the_command(tmp_path: Path) -> None:
    program = f"""
import runpy, sys, traceback
import torch
step = torch.optim.SGD.step
def looked(self, *arguments, **named):
    files = [frame.filename for frame in traceback.extract_stack()[:-1]]
    print("FRAMES", sum("{ROOT}/src" in file for file in files), file=sys.stderr)
    return step(self, *arguments, **named)
torch.optim.SGD.step = looked
sys.argv = ["src/train.py", *{TINY!r}, "tracking=none", "runs_dir={tmp_path}"]
runpy.run_path("{ROOT}/src/train.py", run_name="__main__")
"""
    ended = python(ROOT, "-c", program).good()
    counts = {int(line.split()[1]) for line in ended.stderr.splitlines() if "FRAMES" in line}
    assert counts
    assert max(counts) <= MOST
