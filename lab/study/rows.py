"""results/rows.yaml: each row a claim, the runs that it is judged by, and what they came to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from igo.analysis.statistics import Array
from lab.study import judge
from lab.study.records import SHARPNESS, Run, name_of
from lab.study.written import Row, arms

LEAST, LEAST_OF = 7, {"law": 4, "none": 1}  # seeds, from which a row is judged, or told
LAST = 5  # evaluations that the primary endpoint is the mean of
SETTLED = 3  # epoch, from which the feedback has had a measurement to act on
QUARTILES = [0.5, 0.25, 0.75]  # the median first
DIGITS = 6  # significant ones, in the file


def endpoint(run: Run, name: str) -> float:
    """One number of a run: accuracies in %, ``end`` at the last epoch; or of lab.study.after."""
    records = run.epochs
    if name in run.after:
        return run.after[name]
    if name == "accuracy":
        return 100 * float(np.mean([one["test/accuracy"] for one in records[-LAST:]]))
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
    return float(ends[name])  # a KeyError where lab.study.after has not measured it


def names(row: Row, seeds: Sequence[int]) -> list[list[str]]:
    """The names of a row's runs, (arms, seeds)."""
    return [
        [name_of(row["experiment"], tuple(arm.items()), seed) for seed in seeds]
        for arm in arms(row)
    ]


def values(row: Row, runs: Mapping[str, Run], seeds: Sequence[int], what: str) -> Array:
    """An endpoint of a row's runs, (arms, seeds).

    Raises:
        KeyError: a run is not there, or was not measured so.
    """
    return np.array([[endpoint(runs[name], what) for name in arm] for arm in names(row, seeds)])


def if_known(row: Row, runs: Mapping[str, Run], seeds: Sequence[int], what: str) -> Array | None:
    """As ``values``; None where it was not measured in all runs."""
    try:
        return values(row, runs, seeds, what)
    except KeyError:
        return None


def measured(row: Row, found: Array) -> judge.Found:
    """The statistic of a row's values, before adjustment."""
    if row["test"] == "law":
        pairs = [(eta, b) for eta in row["eta"] for b in row["b"]]
        return judge.law([p[0] for p in pairs], [p[1] for p in pairs], found)
    if row["test"] == "order":
        return judge.order(found, [one["published"] for one in row["arms"]])
    if row["test"] == "none":
        return {"n": found.shape[1], "means": found.mean(axis=1).tolist()}
    pair = judge.paired(*found)
    if row["test"] == "below":  # not in points, which the margin is in
        del pair["p_equal"]
    return pair


def seeds_of(row: Row, family: Sequence[Row], runs: Mapping[str, Run]) -> range:
    """The first seeds that all arms of a row's family have, at most the planned ones.

    Empty where they are too few to be judged.
    """
    planned = planned_seeds(row)
    named = [names(one, planned) for one in family]
    whole = [
        all(arm[place] in runs for arms in named for arm in arms) for place in range(len(planned))
    ]
    n = [*whole, False].index(False)
    least = row.get("least", LEAST_OF.get(row["test"], LEAST))
    return planned[:n] if n >= least else planned[:0]


def planned_seeds(row: Row) -> range:
    """The seeds of the protocol."""
    first: int = row.get("first_seed", 0)
    return range(first, first + int(row["seeds"]))


def families(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows that are adjusted together."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(row.get("family", row["row"]))].append(row)
    return list(found.values())


def fill(rows: Sequence[Row], runs: Mapping[str, Run]) -> None:
    """Put into each row what the runs came to, in place."""
    for family in families(rows):
        for row in family:
            row["found"] = _found(row, seeds_of(row, family, runs), runs)
        found = [row["found"] for row in family if row["found"] is not None]
        judge.adjusted(found)
        for row, last in zip(family, _by_last_epoch(family, runs), strict=True):
            if row["found"] is not None:
                verdicts = verdicts_of(row, row["found"])
                row["found"] = {**verdicts, **_rounded(row["found"] | last)}


def _by_last_epoch(family: Sequence[Row], runs: Mapping[str, Run]) -> list[judge.Found]:
    """The same tests by the last epoch alone; empty for a row of another primary endpoint."""
    asked = [
        row["found"] is not None and "endpoint" not in row and row["test"] in ("above", "equal")
        for row in family
    ]
    if not all(asked):
        return [{} for _ in family]
    pairs = [
        measured(row, values(row, runs, seeds_of(row, family, runs), "end_accuracy"))
        for row in family
    ]
    judge.adjusted(pairs)
    return [
        {
            "last_epoch": [pair[part] for part in ("statistic", "low", "high")],
            "last_epoch_p": pair["p_adjusted"],
            "last_epoch_p_equal": pair["p_equal_adjusted"],
            "last_epoch_verdict": verdict(row, pair),
        }
        for row, pair in zip(family, pairs, strict=True)
    ]


def _found(row: Row, seeds: range, runs: Mapping[str, Run]) -> judge.Found | None:
    """A row's numbers before adjustment; None where there are none."""
    if not seeds:
        return None
    found = measured(row, values(row, runs, seeds, row.get("endpoint", "accuracy")))
    return found | _beside(row, runs, seeds) | {"hardware": _hardware(row, runs, seeds)}


def verdicts_of(row: Row, found: judge.Found) -> judge.Found:
    """The verdict; of a withdrawn row also what its rule gives (``by_rule``)."""
    by_rule = verdict(row, found)
    return (
        {"verdict": "withdrawn", "by_rule": by_rule} if "withdrawn" in row else {"verdict": by_rule}
    )


def verdict(row: Row, found: judge.Found) -> str:
    """What a row's numbers come to, by the protocol's rule."""
    if not row.get("judged", True):
        return "not judged"
    return judge.verdict(row["test"], found, row.get("rival"), row.get("claimed", 0.0))


def _beside(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> judge.Found:
    """Secondary endpoints, as differences with their intervals; the exponent of the test error."""
    if row["test"] == "law":
        return _beside_a_law(row, runs, seeds)
    if "arms" in row:
        return {}
    found = {}
    for name in ("loss", "annealed"):
        two = if_known(row, runs, seeds, name)
        if two is not None:
            pair = judge.paired(*two)
            found[name] = [pair[part] for part in ("statistic", "low", "high")]
    return found | _sharpness(row, runs, seeds)


def _sharpness(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> judge.Found:
    """First over second, with its interval; Spearman's correlation with accuracy within each."""
    found: judge.Found = {}
    accuracies = values(row, runs, seeds, row.get("endpoint", "accuracy"))
    for name in SHARPNESS:
        sharp = if_known(row, runs, seeds, name)
        if sharp is not None:
            ratio = judge.paired(*np.log(sharp))
            found[name] = [float(np.exp(ratio[part])) for part in ("statistic", "low", "high")]
            within = [stats.spearmanr(*arm) for arm in zip(sharp, accuracies, strict=True)]
            found[f"{name}_within"] = [float(one.statistic) for one in within]
    return found


def _beside_a_law(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> judge.Found:
    """The exponents of test error and training loss; tail indices and their exponents.

    Of the tail indices: median and quartiles over all runs, the share of runs below 2, and the
    number of settings whose median is below 2.
    """
    found: judge.Found = {}
    for name, endpoint_name in (("of_test_error", "end_error"), ("of_train_loss", "loss")):
        other = values(row, runs, seeds, endpoint_name)
        if (other > 0).all():
            law = measured(row, other)
            found[name] = [law[part] for part in ("statistic", "low", "high")]
    tails = if_known(row, runs, seeds, "tail")
    if tails is not None:
        found["tail"] = np.quantile(tails, QUARTILES).tolist()
        found["tail_below_2"] = 100 * float((tails < 2).mean())
        found["settings_below_2"] = int((np.median(tails, axis=1) < 2).sum())
        exponents = np.where(tails < 2, (tails - 1) / tails, 0.5)
        found["of_tail"] = np.quantile(exponents, QUARTILES).tolist()
    return found


def _hardware(row: Row, runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """What most of the runs were computed on."""
    of = [runs[name].status["hardware"] for arm in names(row, seeds) for name in arm]
    told = Counter(f"{one['cpu']}, {one['threads']} thread, {one['precision']}" for one in of)
    return told.most_common(1)[0][0] + (f" (of {len(told)} kinds)" if len(told) > 1 else "")


def _rounded(found: judge.Found) -> judge.Found:
    """Numbers as they are written."""
    return {name: _short(value) for name, value in found.items()}


def _short(value: object) -> object:
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
