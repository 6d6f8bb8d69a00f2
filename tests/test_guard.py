"""What a command leaves behind is killed, and its time ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ORPHAN = 'setsid sleep 600 > /dev/null 2>&1 & echo "$!"; '  # no signal to a group reaches it


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
@pytest.mark.parametrize(
    ("seconds", "end", "code"),
    [(600, "exit 5", 5), (600, "kill -SEGV $$", 128 + 11), (1, "exec sleep 600", 124)],
)
def test_an_orphan_is_killed_and_named(seconds: int, end: str, code: int) -> None:
    line = [sys.executable, str(ROOT / "tests/guard.py"), str(seconds), "sh", "-c", ORPHAN + end]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    orphan = ended.stdout.strip()
    assert f"killed, as a test left it: {orphan} sleep 600" in ended.stderr
    assert not Path("/proc", orphan).exists()
