"""`make gpu`: the parts check, speed, graphs and real, each with a process and a time.

    python -m benchmarks.gpu [dry] [check] [speed] [graphs] [real] [out=FOLDER] [data=FILE.npz]

Each writes JSON and prints a table. At the end stands what README and docs/gpu.md would say.

Needs torch, torchvision, numpy, scipy, hydra-core, omegaconf and rich; no network, no W&B.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks import programs
from benchmarks.gpu import page

MINUTES = {"check": 7, "speed": 11, "graphs": 4, "real": 7}
BUSY = 5  # factor on the minutes of a dry run, which takes one or two minutes on a free CPU


def main(words: list[str]) -> int:
    """Run the named parts, or all. Each has a process, so that a crash does not end the others."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    unknown_words = {word for word in words if "=" not in word} - {*MINUTES, "dry", "part"}
    unknown_words |= settings.keys() - {"out", "data"}
    if unknown_words:
        choices = ", ".join(("dry", *MINUTES, "out=FOLDER", "data=FILE.npz"))
        print(f"error: {' '.join(sorted(unknown_words))}: it must be one of {choices}")
        return 2
    out, data = Path(settings.get("out", "gpu")), settings.get("data")
    names = [name for name in MINUTES if name in words] or [*MINUTES]
    if "part" in words:
        return one_part(names[0], out, data, dry="dry" in words)
    import torch

    if "dry" not in words and not torch.cuda.is_available():
        print("error: PyTorch finds no GPU here; `make gpu ARGS=dry` tries the program on a CPU")
        return 2
    out.mkdir(parents=True, exist_ok=True)
    shared_words = [word for word in words if word not in MINUTES]
    minutes = {name: BUSY * limit if "dry" in words else limit for name, limit in MINUTES.items()}
    code = 0
    for name in names:
        print(f"--- {name}, at most {minutes[name]} minutes; {out / name}.json", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "part", name, *shared_words]
        try:
            code |= programs.run(command, minutes[name] * 60 + 20, capture=False).returncode
        except subprocess.TimeoutExpired:
            print(f"{name} was ended: it had {minutes[name]} minutes", flush=True)
            code = 1
    print(page.text(out))
    return int(code != 0)


def one_part(name: str, out: Path, data: str | None, *, dry: bool) -> int:
    """Run a part in this process; return 1 if an item failed."""
    import importlib

    from benchmarks.gpu.part import Part, workplace

    part = Part(name, out, MINUTES[name] * 60 * (BUSY if dry else 1), dry, data)
    with workplace(dry) as folder:
        importlib.import_module(f"benchmarks.gpu.{name}").items(part, folder)
    return int(any(item["state"] == "failed" for item in part.items))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
