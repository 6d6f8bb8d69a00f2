"""What results/cause.md shows: the claims, the arms, their noise by stage, and the tuning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import Array
from igo.report.draw import Looks, label_ends, plain_log
from lab.figures import COLOURS, drawn
from lab.study import cause, judged
from lab.study.cause import BEST, LEAST, LONG_STUDY, STAGES, STUDY, TRAINED, TUNED_ARMS
from lab.study.design import Record, Runs
from lab.study.judged import MARGIN, Claim, claim, ends

CLAIMS = (("avg", "even"), ("avg", "flat"), ("avg", "m2"), ("smoothed", "k8"), ("avg", BEST))
ESTIMATES = (
    ("smoothed", "avg"),
    ("avg", "m1"),
    ("m2", "m1"),
    ("even", "m1"),
    ("k8", "even"),
    ("busy", "even"),
    ("avg", "rising"),
    # These are post hoc.
    ("avg", "busy"),
    ("smoothed", "m1"),
    ("smoothed", BEST),
    (BEST, "even"),
)
COMPARED = {"fresh": "fresh", "annealed": "annealed"}
ENDPOINTS = ("train", "fresh", "running", "annealed")
WORDS = {  # what the page and the figure call the arms
    "m1": "Method 1",
    "m2": "Method 2",
    "avg": "falling noise",
    "flat": "constant noise, same total",
    "even": "constant noise, same images",
    "busy": "loud step",
    "k8": "quiet step",
    "smoothed": "quiet step + smoothing",
    "rising": "rising noise",
    BEST: "same images, best η",
}
OF_STAGE = ("C2", "delta", "shift", "norm", "eta/norm^2", "train")
FIGURE = "![Differences; δ and ‖w‖ by stage](cause.png)\n"
Arms = Mapping[str, Sequence[Record]]  # the runs of each arm, seed by seed


def lengths(runs: Runs) -> Iterator[tuple[int, Arms]]:
    """The arms of the claims, and those of more epochs."""
    yield cause.EPOCHS, STUDY.arms(runs)
    yield cause.LONG, LONG_STUDY.arms(LONG_STUDY.archived())


def compared(arms: Arms, pairs: Sequence[tuple[str, str]]) -> list[Claim]:
    """Arms less others."""
    return [
        claim(f"{WORDS[arm]} − {WORDS[rival]}", arms[arm], arms[rival], COMPARED)
        for arm, rival in pairs
    ]


def summary(runs: Runs) -> str:
    """The claims."""
    arms = STUDY.arms(runs)
    claims = compared(arms, CLAIMS)
    tests = judged.tested(claims, MARGIN)
    verdicts = [
        judged.verdict(test, [arms[name] for name in names], LEAST, TRAINED)
        for names, test in zip(CLAIMS, tests, strict=True)
    ]
    return "\n".join([judged.shown(claims, tests, verdicts, equality=False), FIGURE])


def tuning(runs: Runs) -> str:
    """The mean accuracy of the tuning by arm and η, in CSV."""
    lines = [
        {"arm": WORDS[arm], "learning_rate": rate, "fresh": np.mean(accuracies or np.nan)}
        for arm in TUNED_ARMS
        for rate, accuracies in cause.tuning(arm, runs).items()
    ]
    return pl.DataFrame(lines).write_csv(float_precision=2)


def estimates(runs: Runs) -> str:
    """All differences, with intervals of 95 %, in CSV."""
    lines = []
    for epochs, arms in lengths(runs):
        pairs = [names for names in (*CLAIMS, *ESTIMATES) if arms.keys() >= {*names}]
        for difference in compared(arms, pairs):
            line = {"epochs": epochs, "difference": difference.name, "n": len(difference.judged)}
            lines.append(line | difference.columns)
    return pl.DataFrame(lines).write_csv(float_precision=2)


def means(runs: Runs) -> str:
    """The mean of each endpoint in %, in CSV."""
    lines = [
        {
            "epochs": epochs,
            "arm": WORDS[name],
            "n": len(records),
            **{end: ends(records, end).mean() for end in ENDPOINTS},
        }
        for epochs, arms in lengths(runs)
        for name, records in arms.items()
    ]
    return pl.DataFrame(lines).write_csv(float_precision=2)


def by_stage(records: Sequence[Record], column: str) -> Array:
    """The mean over seeds, of each stage."""
    stages = [record["stages"] for record in records if record["finite"]]
    if column == "eta/norm^2":
        numbers = [[stage["eta"] / stage["norm"] ** 2 for stage in of_run] for of_run in stages]
    else:
        numbers = [[stage[column] for stage in of_run] for of_run in stages]
    return np.asarray(np.mean(numbers, axis=0))


def stages(runs: Runs) -> str:
    """What was measured after each stage, as means over the seeds, in CSV."""
    lines = []
    for epochs, arms in lengths(runs):
        for name, records in arms.items():
            columns = {column: by_stage(records, column).tolist() for column in OF_STAGE}
            place = {"epochs": epochs, "arm": WORDS[name], "stage": range(1, STAGES + 1)}
            lines.append(pl.DataFrame({**place, **columns}))
    return pl.concat(lines).write_csv(float_precision=3, float_scientific=True)


def draw(runs: Runs, file: Path) -> None:
    """The differences, first those that are judged; δ and ‖w‖ by stage."""
    arms = STUDY.arms(runs)
    looks: Looks = {
        WORDS[name]: {"color": colour, "ls": style}
        for name, (style, colour) in zip(
            arms, itertools.product(("-", "--"), COLOURS), strict=False
        )
    }
    with drawn(file, 3, 5.6, 3.9, 3.9) as (judged_axes, estimated_axes, delta_axes, norm_axes):
        for axes, names, kind in (
            (judged_axes, CLAIMS, "judged"),
            (estimated_axes, ESTIMATES, "estimates"),
        ):
            judged.forest(axes, compared(arms, names))
            axes.set_xlabel(f"{kind}: points of test accuracy, 95 %")
        delta_axes.set(ylabel="δ of the step, at the end", yscale="log")
        norm_axes.set(ylabel="‖w‖ at the end")
        numbers = range(1, STAGES + 1)
        for axes, column in ((delta_axes, "delta"), (norm_axes, "norm")):
            lines = [
                (WORDS[name], numbers, by_stage(records, column)) for name, records in arms.items()
            ]
            for name, x, y in lines:
                axes.plot(x, y, **looks[name])
            axes.set(xlabel="stage", xticks=numbers)
            label_ends(axes, lines, looks)
        plain_log(delta_axes.yaxis)


TABLES = {
    "cause_tuning.csv": tuning,
    "cause_estimates.csv": estimates,
    "cause_means.csv": means,
    "cause_stages.csv": stages,
}
