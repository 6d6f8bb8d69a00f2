"""What results/fewer_updates.md shows: the claims, the arms with their costs, and the tuning."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import Array, mean_of
from igo.report.formats import signed
from lab.figures import COLOURS, GREY, INK, drawn, legend_above
from lab.markdown import markdown
from lab.study import afterwards, judged, table
from lab.study.design import RECORDS, Arms
from lab.study.fewer_updates import ARMS, LENGTHS, STUDY, settings
from lab.study.judged import MARGIN, Claim, Judged
from lab.study.records import ENDPOINTS
from lab.study.table import Page

REFERENCE = "cosine"
LONGEST = LENGTHS[-1]
# An arm that grows, and what it is compared with beside cosine. Of the second the protocol leaves
# open which: that whose seconds are nearest to its own.
GROWING = {
    "cosine, split ½": ("cosine, b = 32",),
    "cosine, split 0": ("cosine, 0.7 of the epochs", "cosine, 0.5 of the epochs"),
}
README = {  # What README shows beside the cosine at its best η_1, and its names there.
    "cosine, b = 32": "cosine, b = 32",
    "cosine, 0.5 of the epochs": "cosine, 40 epochs",
    "cosine, split ½": "cosine, split ½: η and b share the fall",
    "cosine, split 0": "cosine, split 0: only b changes",
    "Method 3": "Method 3: b doubles four times",
}
AFTERWARDS = (  # (arm, length) less another, chosen when the results were known
    (("cosine", 20), ("cosine", 80)),
    (("Method 3", 80), ("cosine, 0.7 of the epochs", 20)),
    (("cosine, split ½", 80), ("cosine, 0.7 of the epochs", 20)),
    (("cosine, split 0", 80), ("cosine, 0.7 of the epochs", 20)),
)
SECONDS = RECORDS / "fewer_updates_seconds.json"  # seconds of training, in rounds of all arms
FIGURE = "![Accuracy by updates and by time](fewer_updates.png)\n"
Ends = Mapping[str, Array]  # accuracy by arm: (seeds,)


def claims(accuracies: Ends, ratios: Mapping[str, float]) -> list[Judged]:
    """The claims, from the accuracies and the seconds relative to those of cosine.

    A: a growing arm is equal to cosine; no other test is made of it. B: a growing arm is higher
    than the arm that trains less, in nearly the same seconds.
    """

    def claim(family: str, arm: str, rival: str) -> Claim:
        difference = accuracies[arm] - accuracies[rival]
        return Claim(f"{family}: {arm} − {rival}", {"difference": difference})

    equal, higher = [], []
    for arm, rivals in GROWING.items():
        nearest = min(rivals, key=lambda rival: abs(ratios[rival] - ratios[arm]))
        equal.append(claim("A", arm, REFERENCE))
        higher.append(claim("B", arm, nearest))
    outcomes = []
    for equal_claim, test, _ in judged.tested(equal, MARGIN):
        equality = replace(test, p_holm=None, detectable=None)
        verdict = equality.verdict.replace("undecided", "not shown equal")
        outcomes.append(Judged(equal_claim, equality, verdict))
    for outcome in judged.tested(higher, None):
        verdict = outcome.verdict.replace("undecided", "not shown higher")
        outcomes.append(outcome._replace(verdict=verdict))
    return outcomes


def ends(arms: Arms, length: int, endpoint: str = "running") -> dict[str, Array]:
    """Accuracy in % by arm: (seeds,)."""
    return {name: judged.ends(arms[name, length], ENDPOINTS[endpoint]) for name in ARMS}


def updates(arms: Arms, name: str, length: int = LONGEST) -> float:
    """The updates of a run whose loss is finite."""
    finite = [run for run in arms[name, length] if run["finite"]]
    return float(np.median([run["epochs"][-1]["updates"] for run in finite]))


def seconds() -> dict[str, float]:
    """The median over rounds of an arm's seconds, relative to those of cosine in that round."""
    rounds = pl.DataFrame(json.loads(SECONDS.read_text())["rounds"])
    return rounds.select(pl.all() / pl.col(REFERENCE)).median().row(0, named=True)


def summary(arms: Arms) -> str:
    """The claims, the arms, and what was added post hoc."""
    longest = {name: arms[name, LONGEST] for name in ARMS}
    shown = judged.shown(claims(ends(arms, LONGEST), seconds()))
    return "\n".join([shown, FIGURE, _arms(arms), afterwards.summary(longest)])


def beside_cosine(name: str, accuracies: Ends) -> str:
    """An arm less cosine, with its interval; "" for cosine itself."""
    if name == REFERENCE:
        return ""
    return table.mean_with_interval(accuracies[name] - accuracies[REFERENCE])


def _arms(arms: Arms) -> str:
    """The arms of the longest runs: where they end, and what they cost; and the others' ends."""
    seconds_of_arms = seconds()
    shorter, longer = (ends(arms, length) for length in LENGTHS)
    lines = [
        [
            name,
            f"{arms[name, LONGEST][0]['job']['rate']:g}",
            f"{longer[name].mean():.2f}",
            beside_cosine(name, longer),
            f"{updates(arms, name):,.0f}",
            f"{seconds_of_arms[name]:.2f}",
            beside_cosine(name, shorter),
        ]
        for name in ARMS
    ]
    head = [f"{LONGEST} epochs", "η₁", "%", "− cosine", "updates", "time"]
    return markdown([*head, f"{LENGTHS[0]} epochs: − cosine"], lines)


def all_arms(arms: Arms) -> str:
    """Where all arms end, and their updates, as CSV."""
    return table.csv(
        {
            "length": length,
            "arm": name,
            "n": len(arms[name, length]),
            "learning_rate": arms[name, length][0]["job"]["rate"],
            **judged.means(arms[name, length], ENDPOINTS),
            "updates": updates(arms, name, length),
        }
        for length, name in itertools.product(LENGTHS, ARMS)
    )


def differences(arms: Arms) -> str:
    """All differences, by both statistics, as CSV."""

    def named(arm: tuple[str, int]) -> str:
        """The arm, without its share of the epochs, and its own epochs."""
        return f"{arm[0].partition(', 0')[0]} in {settings(arms[arm][0]['job'])['epochs']}"

    pairs = [
        ((name, length), (REFERENCE, length))
        for length, name in itertools.product(LENGTHS, ARMS)
        if name != REFERENCE
    ]
    return judged.csv(judged.claims(arms, [*pairs, *AFTERWARDS], ENDPOINTS, named))


def readme() -> str:
    """README's table: the cosine at its best η_1, and beside it what trains less or grows b."""
    arms = STUDY.arms(STUDY.archived())
    cosine = judged.ends(afterwards.arms()[afterwards.BEST], ENDPOINTS["running"])
    label = f"cosine, b = 16, at its best η₁ ({afterwards.BEST[1]})"
    lines = [[label, f"{updates(arms, REFERENCE):,.0f}", "1.00", f"{cosine.mean():.1f} %"]]
    accuracies = ends(arms, LONGEST)
    for name, label in README.items():
        above = mean_of(accuracies[name] - cosine)
        accuracy = f"{signed(above.value, '.1f')} ± {above.high - above.value:.1f}"
        lines.append([label, f"{updates(arms, name):,.0f}", f"{seconds()[name]:.2f}", accuracy])
    head = [f"{LONGEST} epochs, ten classes of CIFAR-100", "updates", "time", "test accuracy"]
    return markdown(head, lines)


def draw(arms: Arms, file: Path) -> None:
    """Test accuracy less cosine's, by updates and by time. A line joins cosine's own lengths."""
    accuracies = ends(arms, LONGEST)
    costs = {
        "updates, of cosine's": {
            name: updates(arms, name) / updates(arms, REFERENCE) for name in ARMS
        },
        "seconds, of cosine's": seconds(),
    }
    shorter = [name for name in ARMS if "of the epochs" in name]
    less = {
        name: mean_of(accuracies[name] - accuracies[REFERENCE])
        for name in ARMS
        if name != REFERENCE
    }
    with drawn(file, 4, 3) as axes:
        axes[1].sharey(axes[0])
        for ax, (label, cost) in zip(axes, costs.items(), strict=True):
            colours = iter(COLOURS)
            for name, mean in less.items():
                colour = GREY if name in shorter else next(colours)
                reach = mean.value - mean.low
                ax.errorbar(cost[name], mean.value, yerr=reach, fmt="o", color=colour, label=name)
            # Cosine itself costs 1 and differs by 0.
            line = [(1, 0), *((cost[name], less[name].value) for name in shorter)]
            ax.plot(*zip(*sorted(line, reverse=True), strict=True), color=GREY, lw=1)
            ax.axhline(0, color=INK, lw=0.8)
            ax.set_xlabel(f"{label} ({LONGEST} epochs)")
            ax.set_ylabel(f"points above cosine,\n95 %, {len(accuracies[REFERENCE])} seeds")
        legend_above(axes[0])


PAGE = Page(
    "fewer_updates",
    STUDY,
    summary,
    draw,
    {"fewer_updates_arms.csv": all_arms, "fewer_updates_differences.csv": differences},
    ENDPOINTS["running"],
)
