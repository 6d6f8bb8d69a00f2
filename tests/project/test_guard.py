"""What a command leaves behind is killed, and its time ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

GUARD = (sys.executable, str(ROOT / "tests/guard.py"))
ORPHAN = 'setsid sleep 600 > /dev/null 2>&1 & echo "$!"; '  # no signal to a group reaches it


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
@pytest.mark.parametrize(("end", "code"), [("exit 5", 5), ("kill -SEGV $$", 128 + 11)])
def test_an_orphan_is_killed_and_named(end: str, code: int) -> None:
    line = [*GUARD, "600", "sh", "-c", ORPHAN + end]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    orphan = ended.stdout.strip()
    assert f"killed, as a test left it: {orphan} sleep 600" in ended.stderr
    assert not Path("/proc", orphan).exists()


def test_a_command_has_an_end() -> None:
    assert subprocess.run([*GUARD, "1", "sleep", "600"], check=False).returncode == 124
