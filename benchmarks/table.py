"""Seconds and memory of `igo table`: `python -m benchmarks.table [FOLDERS ...]`.

It writes run folders of 30 epochs and reads them from memory. Then it reads them from the disk, if
it can drop the cache (as root on Linux).
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import programs
from igo.config.schema import RULE

EPOCHS = 30
DISTINCT = 100  # different contents of metrics.jsonl
P, SPLIT = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)


def make_runs(root: Path, count: int, epochs: int = EPOCHS) -> None:
    """Write ``count`` finished run folders: a grid of settings, and as many seeds as needed."""
    from omegaconf import OmegaConf

    from benchmarks.cells import configure

    text = OmegaConf.to_yaml(asdict(configure(f"epochs={epochs}")))
    metrics = [
        "".join(json.dumps(record) + "\n" for record in records(random.Random(i), epochs))
        for i in range(DISTINCT)
    ]
    for i in range(count):
        p, split = P[i % len(P)], SPLIT[i // len(P) % len(SPLIT)]
        config = text.replace("p: 0.5\n", f"p: {p}\n").replace("split: 0.5\n", f"split: {split}\n")
        config = config.replace("seed: 0\n", f"seed: {i // (len(P) * len(SPLIT))}\n")
        folder = root / f"digits-resnet8-graduated-{i:010x}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        (folder / "plan.csv").write_text("stage,first_epoch,epochs,updates\n")
        (folder / "metrics.jsonl").write_text(metrics[i % DISTINCT])
        (folder / "status.json").write_text(json.dumps(status(random.Random(-i)), indent=2))


def records(generator: random.Random, epochs: int) -> list[dict[str, float]]:
    """Records with the entries of a run and random numbers."""
    names = (
        "beta_m", "gamma_m", "delta_m", "reference_variance", "delta_measured", "gradient_variance",
        "noise_scale", "eta_m", "train/loss", "train/accuracy", "test/loss", "test/accuracy",
        "images_per_second", "seconds",
    )  # fmt: skip
    return [
        {"epoch": e, "stage": e, "updates": 90 * e, "samples": 1437 * e, "b_m": 16 + e}
        | {name: generator.random() for name in names}
        for e in range(1, epochs + 1)
    ]


def status(generator: random.Random) -> dict[str, object]:
    """status.json of a finished run."""
    return {
        "rule": RULE,
        "state": "finished",
        "started": "2025-01-01T00:00:00+0000",
        "command": "python src/train.py -m p=0.1,0.5,1 seed=0,1,2",
        "commit": "0" * 40,
        "versions": dict.fromkeys(("igo", "torch", "numpy", "hydra-core", "wandb"), "1.0"),
        "host": "host",
        "hardware": {"device": "cpu", "precision": "bfloat16", "cpu": "a CPU", "cores": 2},
        "seconds": round(generator.uniform(5, 15), 3),
    }


def drop_caches() -> bool:
    """Make the next reads come from the disk."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def run_table(runs: Path, output: Path) -> programs.Usage:
    """The usage of the whole command, with the start of Python."""
    program = [sys.executable, "-m", "igo", "table"]
    return programs.watched([*program, f"runs={runs}", f"output={output}"])


def main(sizes: list[int]) -> None:
    """Time each number of folders, from memory and from the disk."""
    print("folders  files in memory  its CPU time  from the disk  peak memory")
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            runs, output = Path(name) / "runs", Path(name)
            make_runs(runs, count)
            warm = run_table(runs, output)
            cold = f"{run_table(runs, output).seconds:.2f} s" if drop_caches() else "unknown"
            print(
                f"{count:7,}  {warm.seconds:13.2f} s  {warm.cpu_seconds:10.2f} s  {cold:>13}  "
                f"{warm.peak_bytes / 2**20:7.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [100, 1_000, 10_000])
