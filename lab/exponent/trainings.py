"""The trainings of questions (ii), (iv) and (vi): `src/train.py -m` runs those without a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from igo.analysis.statistics import Array
from igo.data.source import Split
from igo.ground.errors import UserError
from igo.ground.files import durable, partial_of
from lab.study import after, reproduce
from lab.study.records import RECORDS, Run, name_of, of_archives, of_folders
from lab.study.written import ROOT

STREAM_DATA = ROOT / "data" / "exponent_stream.npz"
STREAM_IMAGES = 52_000  # the other 8,000 of Fashion-MNIST are evaluated on
SMALL_DATA = ROOT / "data" / "exponent_small.npz"


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
        """The names of the runs of each arm, one for each seed."""
        return {
            arm: [name_of(self.experiment, tuple(settings.items()), seed) for seed in seeds]
            for arm, settings in self.arms.items()
        }

    def values(self, runs: Mapping[str, Run], seeds: Sequence[int], entry: str) -> dict[str, Array]:
        """An entry of the last record of each run, or of its after.json, (seeds,) by arm.

        Raises:
            UserError: fewer than two seeds; the runs were not all of the same data.
        """
        if len(seeds) < 2:
            raise UserError(
                f"{self.sweep}: {len(seeds)} seeds have all arms; a test needs 2 or more"
            )
        by_arm = self.names(seeds)
        prints = {runs[n].status["data"]["fingerprint"] for names in by_arm.values() for n in names}
        if len(prints) > 1:
            raise UserError(f"the runs of {self.sweep} have different data: {sorted(prints)}")
        return {
            arm: np.array([_value(runs[name], entry) for name in names], dtype=np.float64)
            for arm, names in by_arm.items()
        }

    def verdict(self, n: int, by_rule: str) -> str:
        """The verdict by the rule; "not run" if fewer than half of the planned seeds were run."""
        return by_rule if 2 * n >= self.seeds else "not run"

    def complete(self, runs: Mapping[str, Run], seeds: Sequence[int]) -> list[int]:
        """These seeds, up to the first that an arm lacks."""
        complete = []
        for seed in seeds:
            if any(names[0] not in runs for names in self.names([seed]).values()):
                break
            complete.append(seed)
        return complete


def _value(run: Run, what: str) -> float:
    return float(run.after[what] if what in run.after else run.epochs[-1][what])


def make_stream_data(file: Path = STREAM_DATA, data_dir: Path = Path("data")) -> None:
    """Write Fashion-MNIST's training images in two parts, each with the same shares of classes.

    Raises:
        UserError: the images are missing.
    """
    from igo.data.readers import read
    from igo.data.source import Place
    from igo.data.strata import subset

    train, _ = read("fashion_mnist", Place(data_dir))
    kept = subset(train.labels, STREAM_IMAGES)
    rest = np.delete(np.arange(len(train.labels)), kept)
    _write(file, Split(train.images[kept], train.labels[kept]),
           Split(train.images[rest], train.labels[rest]))  # fmt: skip


def make_small_data(file: Path = SMALL_DATA, data_dir: Path = Path("data")) -> None:
    """Write all images of Fashion-MNIST at half their size: each pixel is the mean of 2×2.

    Raises:
        UserError: the images are missing.
    """
    from igo.data.readers import read
    from igo.data.source import Place

    train, test = read("fashion_mnist", Place(data_dir))
    _write(file, _halved(train), _halved(test))


def _halved(split: Split) -> Split:
    """Images (n, 2h, 2w, channels) as (n, h, w, channels); means are rounded."""
    n, height, width, channels = split.images.shape
    squares = split.images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return Split(np.rint(squares.mean(axis=(2, 4))).astype(np.uint8), split.labels)


def _write(file: Path, train: Split, test: Split) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with durable(partial_of(file)) as opened:
        np.savez(
            opened, images=train.images, labels=train.labels,
            test_images=test.images, test_labels=test.labels,
        )  # fmt: skip
    partial_of(file).replace(file)


MADE = {  # by experiment: a file that is made of Fashion-MNIST, and the function that makes it
    "exponent_stream": (STREAM_DATA, make_stream_data),
    "exponent_small": (SMALL_DATA, make_small_data),
}


def recorded(sweep: str) -> dict[str, Run]:
    """The finished runs of the archive and of the run folders, by name."""
    return of_archives(RECORDS, f"{sweep}.tar.xz") | of_folders(ROOT / "runs")


def run_missing(of: Trainings, seeds: Sequence[int]) -> dict[str, Run]:
    """Train the runs without a record, seed by seed, so that a stop leaves whole seeds.

    Raises:
        UserError: a run did not finish.
    """
    for seed in seeds:
        if of.complete(recorded(of.sweep), [seed]):
            continue
        if reproduce.sweep(f"sweep={of.sweep}", f"seed={seed}"):
            raise UserError(f"not all runs of seed {seed} finished; the same command goes on")
    return recorded(of.sweep)


def measure(of: Trainings, seeds: Sequence[int], what: str) -> dict[str, Run]:
    """Measure ``what``, see lab.study.after, at the end of these runs; return the runs."""
    archived = recorded(of.sweep)
    all_names = [name for names in of.names(seeds).values() for name in names]
    for name in track(all_names, what):
        if what not in archived[name].after:
            after.measure(ROOT / "runs" / name, [what])
    return recorded(of.sweep)


def hardware(runs: Mapping[str, Run], by_arm: Mapping[str, Sequence[str]]) -> str:
    """The machines of the runs, their seconds and their commits, as a sentence."""
    statuses = [runs[name].status for names in by_arm.values() for name in names]
    kinds = {
        f"{status['hardware']['cpu']}, {status['hardware']['threads']} thread,"
        f" {status['hardware']['precision']}, PyTorch {status['versions']['torch']}"
        for status in statuses
    }
    commits = sorted({status["commit"][:7] for status in statuses})
    seconds = sum(status["seconds"] for status in statuses)
    return (
        f"{len(statuses)} runs on {'; '.join(sorted(kinds))}; {seconds:,.0f} s of a core,"
        f" at commit {', '.join(commits)}."
    )
