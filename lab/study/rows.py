"""The rows of results/rows.yaml: the seeds that count, the numbers of the runs, the verdicts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from igo.analysis.statistics import Array
from lab.study import judge
from lab.study.judge import Numbers
from lab.study.records import SHARPNESS, Run, name_of
from lab.study.written import Row, arms

LEAST, LEAST_OF = 7, {"law": 4, "none": 1}  # fewest seeds of a row that has numbers, by test
LAST = 5  # evaluations whose mean is the primary endpoint
SETTLED = 3  # the first epoch for which the feedback had a measurement
QUARTILES = [0.5, 0.25, 0.75]  # the median first
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
    if name == "deviation":
        pairs = [(r["delta_measured"], r["delta_m"]) for r in records[SETTLED - 1 :]]
        return float(np.sqrt(np.mean([np.log(m / d) ** 2 for m, d in pairs if m])))
    last = records[-1]
    ends = {
        "end_accuracy": 100 * last["test/accuracy"],
        "end_error": 100 * (1 - last["test/accuracy"]),
        "end_loss": last["test/loss"],
        "loss": last["train/loss"],
    }
    return float(ends[name])


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
    if row["test"] == "law":
        pairs = [(eta, b) for eta in row["eta"] for b in row["b"]]
        return judge.law([p[0] for p in pairs], [p[1] for p in pairs], results)
    if row["test"] == "order":
        return judge.order(results, [arm["published"] for arm in row["arms"]])
    if row["test"] == "none":
        return {"n": results.shape[1], "means": results.mean(axis=1).tolist()}
    pair = judge.paired(*results)
    if row["test"] == "below":  # the margin is in points, and this endpoint is not
        del pair["p_equal"]
    return pair


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
    least = row.get("least", LEAST_OF.get(row["test"], LEAST))
    return planned[:n] if n >= least else planned[:0]


def planned_seeds(row: Row) -> range:
    """The seeds of the protocol."""
    first: int = row.get("first_seed", 0)
    return range(first, first + int(row["seeds"]))


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
                verdicts = verdicts_of(row, row["found"])
                row["found"] = {**verdicts, **_rounded(row["found"] | last_epoch)}


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


def verdicts_of(row: Row, numbers: Numbers) -> Numbers:
    """The verdict; for a withdrawn row also the verdict of its rule (``by_rule``)."""
    by_rule = verdict(row, numbers)
    if "withdrawn" in row:
        return {"verdict": "withdrawn", "by_rule": by_rule}
    return {"verdict": by_rule}


def verdict(row: Row, numbers: Numbers) -> str:
    """The verdict of a row's numbers, by the protocol's rule."""
    if not row.get("judged", True):
        return "not judged"
    return judge.verdict(row["test"], numbers, row.get("rival"), row.get("claimed", 0.0))


def _beside(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> Numbers:
    """Secondary endpoints: differences with their intervals; for a law, other exponents."""
    if row["test"] == "law":
        return _beside_a_law(row, runs, seeds)
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
    ratios: Numbers = {}
    accuracies = values(row, runs, seeds, row.get("endpoint", "accuracy"))
    for name in SHARPNESS:
        sharpness = if_known(row, runs, seeds, name)
        if sharpness is not None:
            ratio = judge.paired(*np.log(sharpness))
            ratios[name] = np.exp(judge.interval(ratio)).tolist()
            within = [stats.spearmanr(*arm) for arm in zip(sharpness, accuracies, strict=True)]
            ratios[f"{name}_within"] = [float(correlation.statistic) for correlation in within]
    return ratios


def _beside_a_law(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> Numbers:
    """The exponents of test error and training loss; tail indices and their exponents.

    The tail indices have a median with quartiles over all runs, the share of runs below 2, and the
    number of settings whose median is below 2.
    """
    secondary: Numbers = {}
    for name, endpoint_name in (("of_test_error", "end_error"), ("of_train_loss", "loss")):
        results = values(row, runs, seeds, endpoint_name)
        if (results > 0).all():
            law = measured(row, results)
            secondary[name] = judge.interval(law)
    tails = if_known(row, runs, seeds, "tail")
    if tails is not None:
        secondary["tail"] = np.quantile(tails, QUARTILES).tolist()
        secondary["tail_below_2"] = 100 * float((tails < 2).mean())
        secondary["settings_below_2"] = int((np.median(tails, axis=1) < 2).sum())
        exponents = np.where(tails < 2, (tails - 1) / tails, 0.5)
        secondary["of_tail"] = np.quantile(exponents, QUARTILES).tolist()
    return secondary


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
