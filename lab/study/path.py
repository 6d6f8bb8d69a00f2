"""The study of results/path.md: falling noise at four training lengths."""

from collections.abc import Iterator
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np

from lab.figures import drawn
from lab.markdown import markdown
from lab.study import judged, records, table
from lab.study.design import Arms, Job, Record, Runs
from lab.study.judged import MARGIN, Claim
from lab.study.records import ENDPOINTS, Settings
from lab.study.table import Page

SEEDS, LEAST = range(40), 32  # LEAST are judged
RATE = 0.8  # η_1, tuned
LENGTHS = (5, 20, 40, 80)  # epochs
LONGEST = LENGTHS[-1]
TRAINED = 99  # % train accuracy of both arms, on average, where a claim is judged
LATE = "late fall"
ARMS: dict[str, Settings] = {
    **{f"Method {number}": {"schedule": f"method{number}"} for number in "1234"},
    "Method 2 reversed": {"schedule": "method2", "control": "reversed"},
    LATE: {
        "schedule": "own",
        "schedule._target_": "lab.study.late.late",
        "schedule.stages": 5,
        "split": 1,
    },
    "η₁/4 throughout": {"schedule": "method1", "learning_rate": RATE / 4},
}
JUDGED = (  # at 80 epochs
    ("Method 2", "Method 1"),
    ("Method 3", "Method 1"),
    ("Method 4", "Method 1"),
    ("Method 3", "Method 2"),
    ("Method 4", "Method 2"),
    ("Method 2", "η₁/4 throughout"),
)
ESTIMATED = (*JUDGED, ("Method 2", LATE), ("Method 2", "Method 2 reversed"))  # at each length
AFTERWARDS = (  # (arm, epochs) less another, post hoc: first half of Σ η, then nearly equal Σ η
    (("Method 1", 40), ("Method 1", 80)),
    (("Method 2", 80), ("Method 1", 40)),
    ((LATE, 20), (LATE, 80)),
    ((LATE, 20), ("Method 2", 80)),
)
FIGURE = "![Differences by training length](path.png)\n"
NOTE = (
    "At 80 epochs, in points, by running statistics. No p of equality is below 1. The figure has "
    "all lengths and both statistics, as has [a CSV](path_differences.csv).\n"
)
MEANS = (
    "Mean test accuracy in %; the last δ and the updates of 80 epochs. [A CSV](path_means.csv) has "
    "the train accuracy, too.\n"
)


def jobs(_: Runs) -> Iterator[Job]:
    """All arms of a seed, and then those of the next."""
    for seed, epochs, arm in product(SEEDS, LENGTHS, ARMS):
        yield {"arm": arm, "epochs": epochs, "seed": seed}


def settings(job: Job) -> Settings:
    """The settings of a run."""
    return {"experiment": "path", **ARMS[job["arm"]], "epochs": job["epochs"], "seed": job["seed"]}


STUDY = records.study("path", jobs, settings, SEEDS, LEAST, itemgetter("arm", "epochs"))


def summary(arms: Arms) -> str:
    """The claims, the figure, and the arms at each length."""
    pairs = [((arm, LONGEST), (rival, LONGEST)) for arm, rival in JUDGED]
    claims = judged.claims(arms, pairs, {"difference": ENDPOINTS["running"]}, itemgetter(0))
    outcomes = judged.tested(claims, MARGIN)
    outcomes = judged.if_trained(outcomes, arms, pairs, TRAINED, "end_train_accuracy")
    shown = judged.shown(outcomes, equality=False)
    return "\n".join([shown, NOTE, FIGURE, MEANS, _means(arms)])


def _means(arms: Arms) -> str:
    """Where the arms end at each length, and what the longest cost, as Markdown."""
    by_length = {(line["arm"], line["epochs"]): line for line in _ends(arms)}
    lines = []
    for name in ARMS:
        longest = by_length[name, LONGEST]
        cells = [f"{by_length[name, epochs]['running']:.2f}" for epochs in LENGTHS]
        lines.append([name, *cells, f"{longest['delta']:.2g}", f"{longest['updates']:,.0f}"])
    head = [f"arm, {len(arms['Method 1', LONGEST])} seeds"]
    head += [f"{epochs} epochs" for epochs in LENGTHS]
    return markdown([*head, "δ", "updates"], lines)


def _ends(arms: Arms) -> Iterator[Record]:
    """Lines for each arm and length: the mean accuracies, and the medians of δ and updates.

    δ is NaN in a record without it, and does not count.
    """
    for arm, epochs in product(ARMS, LENGTHS):
        records = arms[arm, epochs]
        last = [run["epochs"][-1] for run in records]
        yield {
            "arm": arm,
            "epochs": epochs,
            "n": len(records),
            **judged.means(records, {"train": "end_train_accuracy", **ENDPOINTS}),
            "delta": np.nanmedian(np.array([epoch["delta_measured"] for epoch in last], float)),
            "updates": np.median([epoch["updates"] for epoch in last]),
        }


def differences(arms: Arms) -> str:
    """All differences, by both statistics, in CSV."""
    pairs = [((a, n), (b, n)) for (a, b), n in product(ESTIMATED, LENGTHS)]
    claims = judged.claims(arms, [*pairs, *AFTERWARDS], ENDPOINTS, "{0[0]} in {0[1]}".format)
    return judged.csv(claims)


def draw(arms: Arms, file: Path) -> None:
    """The differences by training length, by both statistics."""
    with drawn(file, 5, 5) as axes:
        axes[1].sharex(axes[0])
        for ax, (statistics, field) in zip(axes, ENDPOINTS.items(), strict=True):
            claims = []
            for arm, rival in ESTIMATED:
                differences = {
                    f"{n} epochs": judged.difference(arms, (arm, n), (rival, n), field)
                    for n in LENGTHS
                }
                claims.append(Claim(f"{arm} − {rival}", differences))
            judged.forest(ax, claims)
            seeds = len(claims[0].judged)
            ax.set_xlabel(f"points of test accuracy, {seeds} seeds, {statistics} statistics")


TABLES = {
    "path_means.csv": lambda arms: table.csv(_ends(arms), 4),
    "path_differences.csv": differences,
}
PAGE = Page("path", STUDY, summary, draw, TABLES)
