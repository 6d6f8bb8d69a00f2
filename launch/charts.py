"""W&B's charts in this terminal, with the runs named by p, split and seed.

    python launch/charts.py runs_dir=runs

`wandb leet` (0.31) names a run by the first 32 characters of its folder's name. In a name such as
offline-run-20260131_120000-2df1753310-ab12cd these are little more than the date. So this program
makes folders such as run-20260131_120000-p0.5 s1 #0, each with a link to the file of the run; leet
needs the date. Leet shows charts in alphabetical order, three of them at 80 columns. This program
types a pattern that chooses the first charts.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import terminal
from omegaconf import DictConfig

from igo.config.cli import hydra_program
from igo.config.load import read_config, split_off
from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError
from igo.ground.paths import CONF
from igo.runs.folder import read_status

FIRST = "accuracy$|delta_m$"  # the charts that are shown first
KEYS = """\
Shown first: test accuracy and the planned delta_m. Keys:
  ctrl+l   all charts             /        others, such as loss|eta_m, then Enter
  n, N     next, previous page    up, down and space: show or hide a run
  h        every key              q        end"""
READ = 3  # seconds to read the keys, before the charts fill the terminal
LETTERS = 8  # of a data set's name: cifar10 and cifar100 differ in the eighth letter
VIEW = ".by-name"  # in RUNS_DIR/wandb
LOCAL = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)")  # time and id, in a folder's name


@dataclass
class Settings:
    """The settings of launch/charts.py (conf/charts.yaml)."""

    runs_dir: str


def short(config: Config) -> str:
    """A short name of a run: its schedule, split and seed."""
    p, profile = config.schedule.p, config.schedule.profile
    schedule = f"p{p:g}" if profile in ("graduated", "polynomial") else profile
    return f"{schedule} s{config.split:.3g} #{config.seed}"


def labels(runs_dir: Path) -> dict[str, str]:
    """The label of each W&B run by its id, without runs whose record cannot be read.

    If there are several data sets, a label begins with the first letters of the data set.
    """
    configs: dict[str, Config] = {}
    for file in runs_dir.glob("*/status.json"):
        run_id = read_status(file.parent).get("wandb_id")
        if run_id:
            try:
                configs[run_id] = read_config(file.parent / "config.yaml")
            except UserError:
                continue
    several = len({config.dataset.name for config in configs.values()}) > 1
    return {
        run_id: f"{config.dataset.name[:LETTERS]} {short(config)}" if several else short(config)
        for run_id, config in configs.items()
    }


def view(runs_dir: Path) -> Path:
    """Make the folder for leet anew, and return it.

    Raises:
        ConfigError: W&B has no runs in the folder.
    """
    root = (runs_dir / "wandb").resolve()
    folders = {path: LOCAL.fullmatch(path.name) for path in root.glob("*run-*")}
    if not any(folders.values()):
        raise ConfigError("runs_dir", runs_dir, "W&B has no runs there (tracking.tool=wandb)")
    label_of_run, folder = labels(runs_dir), root / VIEW
    shutil.rmtree(folder, ignore_errors=True)
    for path, match in folders.items():
        if match is None:
            continue
        time, run_id = match.groups()
        label = label_of_run.get(run_id, run_id)
        for file in path.glob(f"run-{run_id}.wandb"):
            # Runs with one label may start in the same second.
            equal_names = len(list(folder.glob(f"run-{time}-{label}*")))
            name = f"{label} ({equal_names + 1})" if equal_names else label
            target = folder / f"run-{time}-{name}"
            target.mkdir(parents=True)
            (target / f"run-{name}.wandb").symlink_to(file)
    return folder


def program(composed: DictConfig, _typed: list[str]) -> None:
    """Make the folder, and run leet on it."""
    settings, _ = split_off(composed, Settings)
    folder = view(Path(settings.runs_dir))
    leet = [sys.executable, "-m", "wandb", "leet", str(folder)]
    print(KEYS, flush=True)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        os.execv(sys.executable, leet)
    time.sleep(READ)
    raise SystemExit(terminal.show(leet, f"/{FIRST}\r".encode(), b"Metrics"))


if __name__ == "__main__":
    hydra_program(program, CONF / "charts.yaml")
