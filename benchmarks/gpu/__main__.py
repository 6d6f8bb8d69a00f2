"""`make gpu`: check, speed and real, each in its own process and time; JSON and a table as it goes.

    python -m benchmarks.gpu [dry] [check] [speed] [real] [out=FOLDER]

Needs torch, torchvision, numpy, scipy, hydra-core, omegaconf and rich; no network, no W&B.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import processes

MINUTES = {"check": 7, "speed": 9, "real": 8}
BUSY = 5  # times as long for a dry run, which takes a minute or two on a CPU of its own


def main(words: list[str]) -> int:
    """Run the parts that are named, or all; a process each, lest one that dies end the others."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    unknown = {one for one in words if not one.startswith("out=")} - {*MINUTES, "dry", "part"}
    if unknown:
        there = ", ".join(("dry", *MINUTES, "out=FOLDER"))
        print(f"error: {' '.join(sorted(unknown))}: it must be one of {there}")
        return 2
    out = Path(next((one[4:] for one in words if one.startswith("out=")), "gpu"))
    names = [name for name in MINUTES if name in words] or [*MINUTES]
    if "part" in words:
        return one_part(names[0], out, dry="dry" in words)
    import torch

    if "dry" not in words and not torch.cuda.is_available():
        print("error: PyTorch finds no GPU here; `make gpu ARGS=dry` tries the program on a CPU")
        return 2
    out.mkdir(parents=True, exist_ok=True)
    dry = ["dry"] if "dry" in words else []
    minutes = {name: BUSY * most if dry else most for name, most in MINUTES.items()}
    failed = 0
    for name in names:
        print(f"--- {name}, at most {minutes[name]} minutes; {out / name}.json", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "part", name, f"out={out}", *dry]
        try:
            failed |= processes.run(command, minutes[name] * 60 + 20, capture=False).returncode
        except subprocess.TimeoutExpired:
            print(f"{name} was ended: it had {minutes[name]} minutes", flush=True)
            failed = 1
    return int(failed != 0)


def one_part(name: str, out: Path, *, dry: bool) -> int:
    """In this process; 1 where an item failed."""
    import importlib

    from benchmarks.gpu.part import Part, workplace

    began = time.perf_counter()
    part = Part(name, out, MINUTES[name] * 60 * (BUSY if dry else 1), dry, began)
    with workplace(dry) as folder:
        importlib.import_module(f"benchmarks.gpu.{name}").items(part, folder)
    return int(any(one["state"] == "failed" for one in part.items))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
