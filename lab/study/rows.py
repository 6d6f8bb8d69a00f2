"""The rows of results/rows.yaml: the seeds that count, the numbers of the runs, the verdicts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from igo.report.statistics import Array
from lab.study import judge
from lab.study.judge import Numbers
from lab.study.records import Run, name_of
from lab.study.written import Row, arms

LEAST = 7  # fewest seeds of a row that is judged
LAST = 5  # evaluations whose mean is the primary endpoint
DIGITS = 6  # significant digits in the file


def endpoint(run: Run, name: str) -> float:
    """One number of a run, from its records or from the measurements at its end.

    Accuracies are in %. A name with ``end`` is a number of the last epoch.

    Raises:
        KeyError: the run has no such number.
    """
    records = run.epochs
    if name in run.after:
        return run.after[name]
    if name == "accuracy":
        return 100 * float(np.mean([record["test/accuracy"] for record in records[-LAST:]]))
    last = records[-1]
    return float({"end_accuracy": 100 * last["test/accuracy"], "loss": last["train/loss"]}[name])


def names(row: Row, seeds: Sequence[int]) -> list[list[str]]:
    """The names of a row's runs, (arms, seeds)."""
    return [
        [name_of(row["experiment"], tuple(arm.items()), seed) for seed in seeds]
        for arm in arms(row)
    ]


def values(row: Row, runs: Mapping[str, Run], seeds: Sequence[int], name: str) -> Array:
    """An endpoint of a row's runs, (arms, seeds).

    Raises:
        KeyError: a run is missing, or was not measured.
    """
    return np.array([[endpoint(runs[run], name) for run in arm] for arm in names(row, seeds)])


def if_known(row: Row, runs: Mapping[str, Run], seeds: Sequence[int], name: str) -> Array | None:
    """As ``values``; None if a run was not measured."""
    try:
        return values(row, runs, seeds, name)
    except KeyError:
        return None


def measured(row: Row, results: Array) -> Numbers:
    """The statistic of a row's results (arms, seeds), before adjustment."""
    if row["test"] == "order":
        return judge.order(results, [arm["published"] for arm in row["arms"]])
    if row["test"] == "none":
        return {"n": results.shape[1], "means": results.mean(axis=1).tolist()}
    return judge.paired(*results)


def seeds_of(row: Row, family: Sequence[Row], runs: Mapping[str, Run]) -> range:
    """The planned seeds, up to the first that an arm of the row's family lacks.

    Empty if these seeds are too few to be judged.
    """
    planned = planned_seeds(row)
    runs_of_family = [names(member, planned) for member in family]
    complete = [
        all(arm[place] in runs for arms in runs_of_family for arm in arms)
        for place in range(len(planned))
    ]
    n = [*complete, False].index(False)
    return planned[:n] if n >= (1 if row["test"] == "none" else LEAST) else planned[:0]


def planned_seeds(row: Row) -> range:
    """The seeds of the protocol."""
    return range(int(row["seeds"]))


def families(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups: the p-values of a group are adjusted together."""
    by_family: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_family[str(row.get("family", row["row"]))].append(row)
    return list(by_family.values())


def fill(rows: Sequence[Row], runs: Mapping[str, Run]) -> None:
    """Put the numbers of the runs and the verdict into each row, in place."""
    for family in families(rows):
        for row in family:
            row["found"] = _numbers(row, seeds_of(row, family, runs), runs)
        judged = [row["found"] for row in family if row["found"] is not None]
        judge.adjusted(judged)
        for row, last_epoch in zip(family, _by_last_epoch(family, runs), strict=True):
            if row["found"] is not None:
                numbers = _rounded(row["found"] | last_epoch)
                row["found"] = {"verdict": verdict(row, row["found"]), **numbers}


def _by_last_epoch(family: Sequence[Row], runs: Mapping[str, Run]) -> list[Numbers]:
    """The tests by the last epoch alone; empty if a row has another primary endpoint."""
    has_it = [
        row["found"] is not None and "endpoint" not in row and row["test"] in ("above", "equal")
        for row in family
    ]
    if not all(has_it):
        return [{} for _ in family]
    pairs = [
        measured(row, values(row, runs, seeds_of(row, family, runs), "end_accuracy"))
        for row in family
    ]
    judge.adjusted(pairs)
    return [
        {
            "last_epoch": judge.interval(pair),
            "last_epoch_p": pair["p_adjusted"],
            "last_epoch_p_equal": pair["p_equal_adjusted"],
            "last_epoch_verdict": verdict(row, pair),
        }
        for row, pair in zip(family, pairs, strict=True)
    ]


def _numbers(row: Row, seeds: range, runs: Mapping[str, Run]) -> Numbers | None:
    """A row's numbers before adjustment; None without seeds."""
    if not seeds:
        return None
    numbers = measured(row, values(row, runs, seeds, row.get("endpoint", "accuracy")))
    return numbers | _beside(row, runs, seeds) | {"hardware": _hardware(row, runs, seeds)}


def verdict(row: Row, numbers: Numbers) -> str:
    """The verdict of a row's numbers, by the protocol's rule."""
    if not row.get("judged", True):
        return "not judged"
    return judge.verdict(row["test"], numbers)


def _beside(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> Numbers:
    """Secondary endpoints: differences with their intervals."""
    if "arms" in row:
        return {}
    secondary = {}
    for name in ("loss", "annealed"):
        results = if_known(row, runs, seeds, name)
        if results is not None:
            pair = judge.paired(*results)
            secondary[name] = judge.interval(pair)
    return secondary | _sharpness(row, runs, seeds)


def _sharpness(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> Numbers:
    """Sharpness of the first arm over the second; its correlation with accuracy within each arm."""
    sharpness = if_known(row, runs, seeds, "worst_case")
    if sharpness is None:
        return {}
    accuracies = values(row, runs, seeds, row.get("endpoint", "accuracy"))
    within = [stats.spearmanr(*arm) for arm in zip(sharpness, accuracies, strict=True)]
    return {
        "worst_case": np.exp(judge.interval(judge.paired(*np.log(sharpness)))).tolist(),
        "worst_case_within": [float(correlation.statistic) for correlation in within],
    }


def _hardware(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    machines = [runs[name].status["hardware"] for arm in names(row, seeds) for name in arm]
    kinds = Counter(
        f"{machine['cpu']}, {machine['threads']} thread, {machine['precision']}"
        for machine in machines
    )
    return kinds.most_common(1)[0][0] + (f" (of {len(kinds)} kinds)" if len(kinds) > 1 else "")


def _rounded(numbers: Numbers) -> Numbers:
    return {name: _short(value) for name, value in numbers.items()}


def _short(value: object) -> object:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
