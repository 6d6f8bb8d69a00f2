"""What a report reads: tables of runs, settings and epochs, and their provenance."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import DataFrame

from igo.ground.errors import counted
from igo.report.reading import THEN, averaged, by_setting, read_runs
from igo.runs.folder import read_records

AVERAGED = (  # entries of an epoch's record
    "updates", "test/accuracy", "test/loss", "train/loss", "train/accuracy", "delta_m",
    "delta_measured", "eta_m", "b_m", "gamma_m", "gradient_variance", "gradient_norm",
    "noise_scale",
)  # fmt: skip
ENDS = (  # of the intervals that one run measured; of ‖∇f‖ there may be an upper bound alone
    "delta_measured_low", "delta_measured_high", "gradient_variance_low", "gradient_variance_high",
    "gradient_norm_low", "gradient_norm_high", "noise_scale_low", "noise_scale_high",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """The data that a report reads.

    Attributes:
        runs: a row for each run, see reading.by_setting, with its ``folder``.
        settings: a row for each setting, see reading.by_setting.
        curves: a row for each epoch of each setting: ``n`` and the statistics of AVERAGED over
            the counted runs. For n = 1 intervals of what was measured are the recorded ones.
    """

    runs: DataFrame
    settings: DataFrame
    curves: DataFrame


def read(folders: Sequence[Path]) -> Results:
    """Read run folders. A damaged folder has a row with the error, and is in no statistics."""
    runs, settings = by_setting(read_runs(folders))
    places = [os.fsencode(folder).decode(errors="backslashreplace") for folder in folders]
    runs = runs.with_columns(pl.Series("folder", places, pl.String))
    kinds = {"epoch": int} | dict.fromkeys((*AVERAGED, *ENDS), float)
    rows = [
        (setting, *map(record.get, kinds))
        for folder, setting, counts in zip(folders, runs["setting"], runs["counted"], strict=True)
        for record in (read_records(folder) if counts else ())
    ]
    epochs = DataFrame(rows, schema={"setting": int, **kinds}, orient="row", strict=False)
    return Results(runs, settings, _curves(epochs))


def _curves(epochs: DataFrame) -> DataFrame:
    place = ["setting", "epoch"]
    curves = averaged(epochs, place, AVERAGED)
    of_run = epochs.unique(place).select(*place, *ENDS)
    both = curves.join(of_run, on=place, suffix="_of_run").with_columns(
        pl.when(pl.col("n") == 1).then(f"{end}_of_run").otherwise(end).alias(end) for end in ENDS
    )
    return both.select(curves.columns).sort(place)


def mixed(runs: DataFrame, labels: Mapping[int, str]) -> list[str]:
    """The settings whose counted runs are of different code or versions, and of which.

    If there is no such setting, and the settings differ from each other in these, a line says so.
    """
    lines: list[str] = []
    groups = [(f"the runs of {label}", [number]) for number, label in labels.items()]
    for name, numbers in [*groups, ("the settings", list(labels))]:
        used = runs.filter("counted", pl.col("setting").is_in(numbers))
        each = used.group_by("code").agg(pl.len(), pl.first("commit")).sort("len", "code")
        parts = [code.split(", ") for code in each["code"]]  # such as `igo 0a1b…`, `torch 2.9.0`
        codes = [dict(part.partition(" ")[::2] for part in its) for its in parts]
        several = _several(codes)
        if several and not (lines and name == "the settings"):
            of: Counter[str] = Counter()
            for n, commit, code in zip(each["len"], each["commit"], codes, strict=True):
                differing = ", ".join(f"{part} {code[part]}" for part in several if part in code)
                of[f"{short(commit or 'unknown')} ({differing})".removesuffix(" ()")] += n
            runs_of = ", ".join(f"{counted(n, 'run')} of {which}" for which, n in of.items())
            lines.append(f"{name} are of different code: {runs_of}")
    return lines


def _several(codes: Sequence[Mapping[str, str]]) -> list[str]:
    """The parts, such as igo or torch, of which runs have several values, or one run has."""
    values: dict[str, set[str]] = {}
    for code in codes:
        for part, value in code.items():
            values.setdefault(part, set()).update(value.split(THEN))
    return [part for part, found in values.items() if len(found) > 1]


def short(commit: str) -> str:
    """A commit, or those of a run's starts, by seven digits; "+changes" is kept."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def commands(runs: DataFrame, settings: Sequence[int]) -> list[str]:
    """The commands of the counted runs, each once, with all of the seeds that it ran with."""
    used = runs.filter("counted", pl.col("setting").is_in(settings)).drop_nulls("command")
    by_command = used.group_by("command").agg(pl.col("seed").unique().sort()).sort("command")
    return [
        f"{line} seed={','.join(map(str, seeds))}{' -m' * (len(seeds) > 1)}"
        for line, seeds in by_command.iter_rows()
    ]
