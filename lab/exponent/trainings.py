"""Questions (ii) and (iv): their trainings, run by `src/train.py -m` where no record has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from igo.analysis.statistics import Array
from igo.errors import UserError
from igo.files import durable, partial_of
from lab.study import after, reproduce
from lab.study.records import RECORDS, Run, name_of, of_archives, of_folders
from lab.study.written import ROOT

STREAM_DATA = ROOT / "data" / "exponent_stream.npz"
STREAM_IMAGES = 52_000  # the other 8,000 of Fashion-MNIST are evaluated on


@dataclass(frozen=True)
class Trainings:
    """The runs of one question.

    Args:
        sweep: file of launch/sweep, and archive of results/records.
        experiment: file of conf/experiment.
        arms: settings of each arm by its name.
        seeds: as planned.
    """

    sweep: str
    experiment: str
    arms: Mapping[str, Mapping[str, Any]]
    seeds: int

    def names(self, seeds: Sequence[int]) -> dict[str, list[str]]:
        """The runs of each arm, one a seed."""
        return {
            arm: [name_of(self.experiment, tuple(settings.items()), seed) for seed in seeds]
            for arm, settings in self.arms.items()
        }

    def values(self, runs: Mapping[str, Run], seeds: Sequence[int], what: str) -> dict[str, Array]:
        """An entry of the last record of each run, or of its after.json, (seeds,) by arm.

        Raises:
            UserError: fewer than two seeds; the runs were not all of the same data.
        """
        if len(seeds) < 2:
            raise UserError(
                f"{self.sweep}: {len(seeds)} seeds have all arms; a test needs 2 or more"
            )
        named = self.names(seeds)
        prints = {runs[n].status["data"]["fingerprint"] for own in named.values() for n in own}
        if len(prints) > 1:
            raise UserError(f"the runs of {self.sweep} are of different data: {sorted(prints)}")
        return {
            arm: np.array([_value(runs[name], what) for name in own], dtype=np.float64)
            for arm, own in named.items()
        }

    def verdict(self, n: int, by_rule: str) -> str:
        """The verdict, or that fewer than half of the planned seeds were run."""
        return by_rule if 2 * n >= self.seeds else "not run"

    def complete(self, runs: Mapping[str, Run], seeds: Sequence[int]) -> list[int]:
        """The first of these seeds that every arm has."""
        found = []
        for seed in seeds:
            if any(own[0] not in runs for own in self.names([seed]).values()):
                break
            found.append(seed)
        return found


def _value(run: Run, what: str) -> float:
    return float(run.after[what] if what in run.after else run.epochs[-1][what])


def make_stream_data(file: Path = STREAM_DATA, data_dir: Path = Path("data")) -> None:
    """Write Fashion-MNIST's training images in two parts, each with the same shares of classes.

    Raises:
        UserError: they are not there.
    """
    from igo.data.readers import read
    from igo.data.source import Place
    from igo.data.strata import subset

    train, _ = read("fashion_mnist", Place(data_dir))
    kept = subset(train.labels, STREAM_IMAGES)
    rest = np.delete(np.arange(len(train.labels)), kept)
    file.parent.mkdir(parents=True, exist_ok=True)
    with durable(partial_of(file)) as opened:
        np.savez(
            opened, images=train.images[kept], labels=train.labels[kept],
            test_images=train.images[rest], test_labels=train.labels[rest],
        )  # fmt: skip
    partial_of(file).replace(file)


def recorded(sweep: str) -> dict[str, Run]:
    """The finished runs of the archive and of the run folders, by name."""
    return of_archives(RECORDS, f"{sweep}.tar.xz") | of_folders(ROOT / "runs")


def run_missing(of: Trainings, seeds: Sequence[int]) -> dict[str, Run]:
    """Train what no record has, seed by seed, so that a stop leaves whole seeds.

    Raises:
        UserError: a run did not finish.
    """
    for seed in seeds:
        if of.complete(recorded(of.sweep), [seed]):
            continue
        if reproduce.sweep(f"sweep={of.sweep}", f"seed={seed}"):
            raise UserError(f"not all runs of seed {seed} finished; the same command goes on")
    return recorded(of.sweep)


def measure_training_loss(of: Trainings, seeds: Sequence[int]) -> dict[str, Run]:
    """Measure ``train_loss`` (lab.study.after) where these runs ended; the records with it."""
    archived = recorded(of.sweep)
    names = [name for named in of.names(seeds).values() for name in named]
    for name in track(names, "training losses"):
        if "train_loss" not in archived[name].after:
            after.measure(ROOT / "runs" / name, ["train_loss"])
    return recorded(of.sweep)


def hardware(runs: Mapping[str, Run], named: Mapping[str, Sequence[str]]) -> str:
    """What the runs were computed on, and how long that took."""
    of = [runs[name].status for own in named.values() for name in own]
    kinds = {
        f"{one['hardware']['cpu']}, {one['hardware']['threads']} thread,"
        f" {one['hardware']['precision']}, PyTorch {one['versions']['torch']}"
        for one in of
    }
    commits = sorted({one["commit"][:7] for one in of})
    seconds = sum(one["seconds"] for one in of)
    return (
        f"{len(of)} runs on {'; '.join(sorted(kinds))}; {seconds:,.0f} s of a core,"
        f" at commit {', '.join(commits)}."
    )
