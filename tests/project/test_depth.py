"""How far it is from the command to the optimizer."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT, TINY, python

MOST = 8  # of our functions that are open when the optimizer makes its step


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
