"""What results/fewer_updates.md shows: the claims, the arms with their costs, and the tuning."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import LEVEL, Array, mean_of
from igo.report.comparison import Pair, adjusted, in_range, p_value, pair
from lab.figures import COLOURS, GREY, INK, drawn, legend_above
from lab.study import afterwards, fewer_updates, table
from lab.study.design import RECORDS, Record, Runs
from lab.study.fewer_updates import ARMS, LENGTHS, STUDY, settings
from lab.study.judged import MARGIN

REFERENCE = "cosine"
LONGEST = LENGTHS[-1]
# An arm that grows, and what it is compared with beside cosine. Of the second the protocol leaves
# open which: that whose seconds are nearest to its own.
GROWING = {
    "cosine, split ½": ("cosine, b = 32",),
    "cosine, split 0": ("cosine, 0.7 of the epochs", "cosine, 0.5 of the epochs"),
}
README = {  # what README shows, and how η and b go there
    "cosine": ("cosine", "constant"),
    "cosine, 0.5 of the epochs": ("cosine", "constant"),
    "cosine, b = 32": ("cosine", "constant"),
    "cosine, split ½": ("√cosine", "1/cosine"),
    "cosine, split 0": ("constant", "1/cosine²"),
    "Method 3": ("constant", "× 2 a stage"),
    "Method 1": ("constant", "constant"),
}
ENDPOINTS = {"running": "end_accuracy", "fresh": "anew_accuracy"}
CALLED = {  # whether A and B hold
    (True, True): "a gain",
    (True, False): "fewer updates, no better than training less",
    (False, True): "better than training less, but not shown equal to cosine",
    (False, False): "not shown equal to cosine, nor better than training less",
}
AFTERWARDS = (  # (arm, length) less another, chosen when the results were known
    (("cosine", 20), ("cosine", 80)),
    (("Method 3", 80), ("cosine, 0.7 of the epochs", 20)),
    (("cosine, split ½", 80), ("cosine, 0.7 of the epochs", 20)),
    (("cosine, split 0", 80), ("cosine, 0.7 of the epochs", 20)),
)
MORE = (  # likewise, in the CSV alone
    (("Method 3", 80), ("cosine, 0.5 of the epochs", 80)),
    (("Method 3", 80), ("cosine, b = 32", 80)),
    (("Method 3", 80), ("Method 1", 80)),
)
SECONDS = RECORDS / "fewer_updates_seconds.json"  # seconds of training, in rounds of all arms
FIGURE = "![Accuracy by updates and by time](fewer_updates.png)\n"
Arm = tuple[str, int]  # a name and a length
Arms = Mapping[Arm, Sequence[Record]]  # seed by seed
Ends = Mapping[str, Array]  # accuracy by arm: (seeds,)


@dataclass(frozen=True)
class Claim:
    """A claim of the protocol, family A or B, and what the seeds say."""

    family: str
    first: str
    second: str
    differences: Array
    pair: Pair

    @property
    def holds(self) -> bool:
        """A: equal within the margin. B: the first is higher."""
        if self.family == "A":
            p = self.pair.p_equal_holm
            return p is not None and p <= LEVEL
        return self.pair.verdict == "higher"


def judged(accuracies: Ends, ratios: Mapping[str, float]) -> list[Claim]:
    """The four claims, from the accuracies and the seconds relative to those of cosine."""
    families: dict[str, list[tuple[str, str]]] = {"A": [], "B": []}
    for arm, rivals in GROWING.items():
        nearest = min(rivals, key=lambda rival: abs(ratios[rival] - ratios[arm]))
        families["A"].append((arm, REFERENCE))
        families["B"].append((arm, nearest))
    claims = []
    for family, arms in families.items():
        margin = MARGIN if family == "A" else None
        differences = [accuracies[arm] - accuracies[rival] for arm, rival in arms]
        pairs = adjusted([pair(sample, margin) for sample in differences])
        for names, sample, test in zip(arms, differences, pairs, strict=True):
            claims.append(Claim(family, *names, sample, test))
    return claims


def outcomes(claims: Sequence[Claim]) -> dict[str, str]:
    """What the protocol calls the outcome of each growing arm."""
    holds = {(claim.first, claim.family): claim.holds for claim in claims}
    return {arm: CALLED[holds[arm, "A"], holds[arm, "B"]] for arm in GROWING}


def ends(arms: Arms, length: int, endpoint: str = "running") -> dict[str, Array]:
    """Accuracy in % by arm: (seeds,)."""
    return {
        name: np.array([run[ENDPOINTS[endpoint]] for run in arms[name, length]]) for name in ARMS
    }


def updates(arms: Arms, name: str, length: int = LONGEST) -> float:
    """The updates of a run whose loss is finite."""
    finite = [run for run in arms[name, length] if run["finite"]]
    return float(np.median([run["epochs"][-1]["updates"] for run in finite]))


def seconds() -> dict[str, float]:
    """The median over rounds of an arm's seconds, relative to those of cosine in that round."""
    rounds = pl.DataFrame(json.loads(SECONDS.read_text())["rounds"])
    return rounds.select(pl.all() / pl.col(REFERENCE)).median().row(0, named=True)


def summary(runs: Runs) -> str:
    """The claims, what they are called, and the arms."""
    arms = STUDY.arms(runs)
    claims = judged(ends(arms, LONGEST), seconds())
    called = [
        f"- *{arm.removeprefix('cosine, ')}*: **{name}**.\n"
        for arm, name in outcomes(claims).items()
    ]
    parts = [_claims(claims), "".join(called), FIGURE, _arms(arms)]
    ends_of_study = {endpoint: ends(arms, LONGEST, endpoint) for endpoint in ENDPOINTS}
    post_hoc = afterwards.summary(afterwards.STUDY.archived(), ends_of_study)
    return "\n".join([*parts, _afterwards(arms)]) + post_hoc


def _claims(claims: Sequence[Claim]) -> str:
    lines = []
    for claim in claims:
        p = claim.pair.p_equal_holm if claim.family == "A" else claim.pair.p_holm
        verdict = "equal" if claim.family == "A" else "higher"
        lines.append(
            [
                claim.family,
                f"{claim.first} − {claim.second}",
                table.mean_with_interval(claim.differences),
                p_value(p),
                verdict if claim.holds else f"not shown {verdict}",
            ]
        )
    seeds = in_range([claim.pair.n for claim in claims])
    claimed = f"claim, {LONGEST} epochs, {seeds} seeds"
    head = ["", claimed, "difference, 95 %", "p, Holm", "verdict"]
    return table.markdown(head, lines)


def _arms(arms: Arms) -> str:
    """The arms of the longest runs: where they end, and what they cost; and the others' ends."""
    lines, seconds_of_arms = [], seconds()
    means = {length: ends(arms, length) for length in LENGTHS}
    for name in ARMS:
        above = {
            length: ""
            if name == REFERENCE
            else table.mean_with_interval(accuracies[name] - accuracies[REFERENCE])
            for length, accuracies in means.items()
        }
        cells = [name, f"{arms[name, LONGEST][0]['job']['rate']:g}"]
        cells += [f"{means[LONGEST][name].mean():.2f}", above[LONGEST]]
        cells += [f"{updates(arms, name):,.0f}", f"{seconds_of_arms[name]:.2f}", above[LENGTHS[0]]]
        lines.append(cells)
    head = [f"{LONGEST} epochs", "η₁", "%", "− cosine", "updates", "time"]
    return table.markdown([*head, f"{LENGTHS[0]} epochs: − cosine"], lines)


def _afterwards(arms: Arms) -> str:
    """The differences that were chosen after the results were known."""
    lines = []
    for names, case, rival_case in _pairs(arms, AFTERWARDS):
        lines.append([names, table.mean_with_interval(_difference(arms, case, rival_case))])
    return table.markdown(["post hoc: arm in epochs", "difference, 95 %"], lines)


def _pairs(arms: Arms, pairs: Sequence[tuple[Arm, Arm]]) -> list[tuple[str, Arm, Arm]]:
    """What the difference of two arms is called, and the two."""
    found = []
    for pair_of_arms in pairs:
        names = [
            f"{name.partition(', 0')[0]} in {settings(arms[name, length][0]['job'])['epochs']}"
            for name, length in pair_of_arms
        ]
        found.append((" − ".join(names), *pair_of_arms))
    return found


def _difference(arms: Arms, case: Arm, rival_case: Arm, endpoint: str = "running") -> Array:
    """An arm less another, seed by seed."""
    accuracies, other_accuracies = (
        ends(arms, length, endpoint)[name] for name, length in (case, rival_case)
    )
    return accuracies - other_accuracies


def all_arms(runs: Runs) -> str:
    """Where all arms end, and their updates, as CSV."""
    arms = STUDY.arms(runs)
    lines = [
        {
            "length": length,
            "arm": name,
            "n": len(arms[name, length]),
            "learning_rate": arms[name, length][0]["job"]["rate"],
            **{end: ends(arms, length, end)[name].mean() for end in ENDPOINTS},
            "updates": updates(arms, name, length),
        }
        for length, name in itertools.product(LENGTHS, ARMS)
    ]
    return pl.DataFrame(lines).write_csv(float_precision=2)


def differences(runs: Runs) -> str:
    """All differences, by both statistics, as CSV."""
    arms, lines = STUDY.arms(runs), []
    beside_cosine = [
        ((name, length), (REFERENCE, length))
        for length, name in itertools.product(LENGTHS, ARMS)
        if name != REFERENCE
    ]
    for names, case, rival_case in _pairs(arms, [*beside_cosine, *AFTERWARDS, *MORE]):
        line: Record = {"difference, arm in epochs": names}
        for endpoint in ENDPOINTS:
            mean = mean_of(_difference(arms, case, rival_case, endpoint))
            ends_of_mean = mean.value, mean.low, mean.high
            columns = (endpoint, f"{endpoint}_low", f"{endpoint}_high")
            line |= zip(columns, ends_of_mean, strict=True)
        lines.append(line)
    return pl.DataFrame(lines).write_csv(float_precision=2)


def tuning(runs: Runs) -> str:
    """Mean accuracy of the tuning by arm, length and η_1, as CSV."""
    lines = [
        {
            "length": length,
            "arm": name,
            "learning_rate": rate,
            "test_accuracy_percent": np.mean(accuracies or np.nan),
        }
        for length, name in itertools.product(LENGTHS, ARMS)
        for rate, accuracies in fewer_updates.tuning(name, length, runs).items()
    ]
    return pl.DataFrame(lines).write_csv(float_precision=3)


def readme(runs: Runs) -> str:
    """README's table: a tuned cosine, in half the epochs too, and what grows b or keeps both."""
    arms = STUDY.arms(runs)
    accuracies = ends(arms, LONGEST)
    lines = []
    for name, (eta, b) in README.items():
        above = table.mean_with_interval(accuracies[name] - accuracies[REFERENCE])
        lines.append(
            [
                name,
                eta,
                b,
                f"{accuracies[name].mean():.1f} %",
                "" if name == REFERENCE else above,
                f"{updates(arms, name):,.0f}",
                f"{seconds()[name]:.2f}",
            ]
        )
    head = ["", "η", "b", "test accuracy", "above cosine, 95 %", "updates", "time"]
    return table.markdown(head, lines)


def draw(runs: Runs, file: Path) -> None:
    """Test accuracy less cosine's, by updates and by time. A line joins cosine's own lengths."""
    arms = STUDY.arms(runs)
    accuracies = ends(arms, LONGEST)
    n = len(accuracies[REFERENCE])
    costs = {
        "updates, of cosine's": {
            name: updates(arms, name) / updates(arms, REFERENCE) for name in ARMS
        },
        "seconds, of cosine's": seconds(),
    }
    shorter = [name for name in ARMS if "of the epochs" in name]
    names = [name for name in ARMS if name != REFERENCE]
    less = {name: mean_of(accuracies[name] - accuracies[REFERENCE]) for name in names}
    with drawn(file, 4, 3) as axes:
        axes[1].sharey(axes[0])
        for ax, (label, cost) in zip(axes, costs.items(), strict=True):
            colours = iter(COLOURS)
            for name, mean in less.items():
                colour = GREY if name in shorter else next(colours)
                reach = mean.value - mean.low
                label_shown = None if name == shorter[0] else name.replace("0.5", "0.5 and 0.7")
                ax.errorbar(
                    cost[name], mean.value, yerr=reach, fmt="o", color=colour, label=label_shown
                )
            line = [(cost[name], less[name].value) for name in shorter]
            ax.plot(*zip((1, 0), *sorted(line, reverse=True), strict=True), color=GREY, lw=1)
            ax.axhline(0, color=INK, lw=0.8)
            ax.set_xlabel(f"{label} ({LONGEST} epochs)")
            ax.set_ylabel(f"points above cosine,\n95 %, {n} seeds")
        legend_above(axes[0])


TABLES = {
    "fewer_updates_tuning.csv": tuning,
    "fewer_updates_arms.csv": all_arms,
    "fewer_updates_differences.csv": differences,
}
