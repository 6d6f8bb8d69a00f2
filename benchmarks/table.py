"""Seconds and memory of `igo table`: `python -m benchmarks.table [FOLDERS ...]`.

The folders are made for it, 30 epochs each, each file a file of its own. They are read once as they
are in memory after writing, and once from the disk, where the cache can be dropped (root, Linux).
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
DISTINCT = 100  # contents of metrics.jsonl; the files are each a file of its own
P, SPLIT = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)


def make_runs(root: Path, count: int, epochs: int = EPOCHS) -> None:
    """Write ``count`` finished run folders: settings of a grid, as many seeds as it takes."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from igo.config.load import load

    with initialize_config_dir(str(programs.ROOT / "conf"), version_base="1.3"):
        config = load(compose("config", [f"epochs={epochs}"]))
    text = OmegaConf.to_yaml(asdict(config))
    metrics = [
        "".join(json.dumps(record) + "\n" for record in records(random.Random(i), epochs))
        for i in range(DISTINCT)
    ]
    for i in range(count):
        p, split = P[i % len(P)], SPLIT[i // len(P) % len(SPLIT)]
        seed = i // (len(P) * len(SPLIT))
        own = text.replace("p: 0.5\n", f"p: {p}\n").replace("split: 0.5\n", f"split: {split}\n")
        folder = root / f"digits-resnet8-graduated-{i:010x}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(own.replace("seed: 0\n", f"seed: {seed}\n"))
        (folder / "plan.csv").write_text("stage,first_epoch,epochs,updates\n")
        (folder / "metrics.jsonl").write_text(metrics[i % DISTINCT])
        (folder / "status.json").write_text(json.dumps(status(random.Random(-i)), indent=2))


def records(drawn: random.Random, epochs: int) -> list[dict[str, float]]:
    """Records with the entries of a run's, their numbers drawn."""
    names = (
        "beta_m", "gamma_m", "delta_m", "reference_variance", "delta_measured", "gradient_variance",
        "noise_scale", "eta_m", "train/loss", "train/accuracy", "test/loss", "test/accuracy",
        "images_per_second", "seconds",
    )  # fmt: skip
    return [
        {"epoch": e, "stage": e, "updates": 90 * e, "samples": 1437 * e, "b_m": 16 + e}
        | {name: drawn.random() for name in names}
        for e in range(1, epochs + 1)
    ]


def status(drawn: random.Random) -> dict[str, object]:
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
        "seconds": round(drawn.uniform(5, 15), 3),
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
    """What the whole command took, Python's start included."""
    program = [sys.executable, "-m", "igo", "table"]
    return programs.watched([*program, f"runs={runs}", f"output={output}"])


def main(sizes: list[int]) -> None:
    """Time each size in memory and from the disk."""
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
