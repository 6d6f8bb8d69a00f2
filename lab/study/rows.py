"""The rows of results/rows.yaml: the runs they compare, what these came to, and the verdicts.

``igo.report.comparison`` compares and judges two arms, as in the report; a row with "test: none" is
not judged. Differences are in the unit of the row's endpoint: points of test accuracy, or 100 ln of
a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from igo.ground.files import write_atomically
from igo.ground.statistics import Array
from igo.report import comparison
from lab.study.records import ROOT, Arm, Run, name_of

Row = dict[str, Any]  # a row as it is in the file
Numbers = dict[str, Any]  # "found" of a row
FILE = ROOT / "results" / "rows.yaml"
HEAD = """\
# The rows of results/cifar100.md: claims, their runs, and the result.
# `make study` makes "found" of the records in results/records; all else is written by hand, before
# the runs, but for the rows with "test: none".
# Differences are in the unit of the endpoint: points of test accuracy, or 100 ln of a loss.
# Endpoints: end_… by running statistics of BatchNorm, in metrics.jsonl; anew_… by fresh ones, and
# annealed_… by those after 400 updates at η = anneal, in after.json; …augmented… of such images.
"""
MARGIN = 0.5  # points of test accuracy
DIGITS = 6  # significant digits in the file


def read() -> list[Row]:
    """The rows as they are in the file."""
    return list(yaml.safe_load(FILE.read_text()))


def of_experiment(name: str) -> list[Row]:
    """The rows of an experiment, a file of conf/experiment."""
    return [row for row in read() if row["experiment"] == name]


def write(rows: Sequence[Row]) -> None:
    """Write the rows into the file."""
    options: Any = {"sort_keys": False, "allow_unicode": True, "width": 120}
    texts = (yaml.safe_dump([row], default_flow_style=None, **options) for row in rows)
    write_atomically(FILE, HEAD + "".join(texts))  # one by one: without YAML's anchors


def planned_seeds(row: Row) -> range:
    """The seeds of the protocol, from 0 on unless the row has another first one."""
    start = row.get("first_seed", 0)
    return range(start, start + row["seeds"])


def names(row: Row, seeds: Sequence[int]) -> list[list[str]]:
    """The names of a row's runs, (arms, seeds)."""
    return [
        [name_of(row["experiment"], arm, seed) for seed in seeds]
        for arm in (row["first"], row["second"])
    ]


def arms(rows: Sequence[Row]) -> list[Arm]:
    """The arms of these rows, each once, in the order in which they appear."""
    unique_arms: list[Arm] = []
    for arm in (arm for row in rows for arm in (row["second"], row["first"])):
        unique_arms += [arm] if arm not in unique_arms else []
    return unique_arms


def whole_seeds(rows: Sequence[Row], runs: Mapping[str, Run]) -> dict[str, Run]:
    """The runs of those planned seeds that have all arms of the rows, on machines of one kind."""
    runs_of_seeds: dict[str, Run] = {}
    for seed in planned_seeds(rows[0]):
        of_seed = [name_of(rows[0]["experiment"], arm, seed) for arm in arms(rows)]
        is_whole = all(name in runs and runs[name].after for name in of_seed)
        if is_whole and len({runs[name].machine for name in of_seed}) == 1:
            runs_of_seeds |= {name: runs[name] for name in of_seed}
    return runs_of_seeds


def endpoint(run: Run, name: str) -> float:
    """A number measured at the end of a run, or one of these, of the last epoch.

    ``end_accuracy`` is by running statistics, ``averaging`` what it is above that by new statistics
    of augmented images; ``end_train_accuracy`` and ``end_train_loss`` are those of the updates.
    Accuracies are in %.

    Raises:
        KeyError: the run has no such number.
    """
    record = run.epochs[-1]
    if name == "end_train_loss":
        return float(record["train/loss"])
    if name == "averaging":
        return float(100 * record["test/accuracy"] - run.after["anew_augmented_accuracy"])
    if name == "end_train_accuracy":
        return float(100 * record["train/accuracy"])
    if name == "end_accuracy":
        return float(100 * record["test/accuracy"])
    return run.after[name]


def values(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> Array:
    """The endpoint of a row's runs: (arms, seeds).

    Raises:
        KeyError: a run is missing, or was not measured.
    """
    return np.array(
        [[endpoint(runs[name], row["endpoint"]) for name in arm] for arm in names(row, seeds)]
    )


def families(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups: the p-values of a group are adjusted together."""
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(row["family"], []).append(row)
    return list(by_family.values())


def seeds_of(family: Sequence[Row], runs: Mapping[str, Run]) -> range:
    """The planned seeds up to the first that an arm lacks; none if too few to be judged."""
    seed_range = planned_seeds(family[0])
    by_seed = zip(*(arm for row in family for arm in names(row, seed_range)), strict=True)
    n = [*(all(name in runs for name in of_seed) for of_seed in by_seed), False].index(False)
    return seed_range[: n if n >= family[0]["least"] else 0]


def fill(rows: Sequence[Row], runs: Mapping[str, Run]) -> None:
    """Put the numbers of the runs and the verdict into each row, in place."""
    for family in families(rows):
        seeds = seeds_of(family, runs)
        for row in family:
            row["found"] = None
        if seeds:
            results = judged(family, [values(row, runs, seeds) for row in family])
            for row, numbers in zip(family, results, strict=True):
                row["found"] = {name: _rounded(number) for name, number in numbers.items()}


def judged(family: Sequence[Row], endpoints: Sequence[Array]) -> list[Numbers]:
    """The numbers and verdict of each row of a question; ``results`` (arms, seeds) for each row."""
    margins = [row.get("margin", MARGIN) for row in family]
    pairs = comparison.adjusted(
        [comparison.pair(x - y, m) for (x, y), m in zip(endpoints, margins, strict=True)]
    )
    results = []
    for row, pair, arm in zip(family, pairs, endpoints, strict=True):
        numbers = {
            "n": pair.n,
            "first": float(arm[0].mean()),
            "second": float(arm[1].mean()),
            "statistic": pair.difference,
            "low": pair.low,
            "high": pair.high,
            "sd": pair.sd,
            "p": pair.p,
            "p_equal": pair.p_equal,
            "p_adjusted": pair.p_holm,
            "p_equal_adjusted": pair.p_equal_holm,
            "detectable": pair.detectable,
        }
        verdict = "no verdict" if row["test"] == "none" else pair.verdict
        results.append({"verdict": verdict} | numbers)
    return results


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
