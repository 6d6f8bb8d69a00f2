"""What results/cause.md shows: the claims, the arms, their noise by stage, and the tuning."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import Array
from igo.report.draw import Looks, label_ends, plain_log
from lab.figures import COLOURS, drawn
from lab.study import cause, judged, table
from lab.study.cause import BEST, LONG_STUDY, STAGES, STUDY, TRAINED
from lab.study.design import Arms, Record
from lab.study.judged import MARGIN, Claim, Pairs
from lab.study.table import Page

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
ENDPOINTS = {end: end for end in ("train", "fresh", "running", "annealed")}
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
OF_STAGE = ("C2", "delta", "shift", "norm", "train")
FIGURE = "![Differences; δ by stage](cause.png)\n"


def lengths(arms: Arms) -> Iterator[tuple[int, Arms]]:
    """The epochs of a run with the arms: of the claims, and of the longer runs."""
    yield cause.EPOCHS, arms
    yield cause.LONG, LONG_STUDY.arms(LONG_STUDY.archived())


def named(arm: str) -> str:
    """What the page and the figure call an arm."""
    return WORDS.get(arm, arm)


def compared(arms: Arms, pairs: Pairs) -> list[Claim]:
    """The difference of each pair of arms, by both endpoints."""
    return judged.claims(arms, pairs, COMPARED, named)


def summary(arms: Arms) -> str:
    """The claims."""
    outcomes = judged.tested(compared(arms, CLAIMS), MARGIN)
    outcomes = judged.if_trained(outcomes, arms, CLAIMS, TRAINED)
    return "\n".join([judged.shown(outcomes, equality=False), FIGURE])


def estimates(arms: Arms) -> str:
    """All differences, with intervals of 95 %, in CSV."""
    lines = []
    for epochs, of_length in lengths(arms):
        pairs = [pair for pair in (*CLAIMS, *ESTIMATES) if of_length.keys() >= {*pair}]
        for claim in compared(of_length, pairs):
            line = {"epochs": epochs, "difference": claim.name, "n": len(claim.judged)}
            lines.append(line | claim.columns)
    return table.csv(lines)


def means(arms: Arms) -> str:
    """The mean of each endpoint in %, in CSV."""
    return table.csv(
        {
            "epochs": epochs,
            "arm": WORDS[name],
            "n": len(records),
            **judged.means(records, ENDPOINTS),
        }
        for epochs, of_length in lengths(arms)
        for name, records in of_length.items()
    )


def by_stage(records: Sequence[Record], column: str) -> Array:
    """The mean of each stage, over the seeds whose loss is finite."""
    runs = [record["stages"] for record in records if record["finite"]]
    return np.asarray(np.mean([[stage[column] for stage in run] for run in runs], axis=0))


def stages(arms: Arms) -> str:
    """What was measured after each stage, as means over the seeds, in CSV."""
    lines = [
        {"epochs": epochs, "arm": WORDS[name], "stage": stage + 1}
        | {column: by_stage(records, column)[stage] for column in OF_STAGE}
        for epochs, of_length in lengths(arms)
        for name, records in of_length.items()
        for stage in range(STAGES)
    ]
    return pl.DataFrame(lines).write_csv(float_precision=3, float_scientific=True)


def draw(arms: Arms, file: Path) -> None:
    """Draw the differences, first those that are judged, and δ by stage."""
    # There are more arms than colours: the second round of colours is dashed.
    looks: Looks = {
        WORDS[name]: {"color": colour, "ls": style}
        for name, (style, colour) in zip(
            arms, itertools.product(("-", "--"), COLOURS), strict=False
        )
    }
    with drawn(file, 3, 5.6, 3.9) as (judged_axes, estimated_axes, delta_axes):
        for axes, names, kind in (
            (judged_axes, CLAIMS, "judged"),
            (estimated_axes, ESTIMATES, "estimates"),
        ):
            judged.forest(axes, compared(arms, names))
            axes.set_xlabel(f"{kind}: points of test accuracy, 95 %")
        stages = range(1, STAGES + 1)
        deltas = {WORDS[name]: by_stage(runs, "delta") for name, runs in arms.items()}
        for label, delta in deltas.items():
            delta_axes.plot(stages, delta, **looks[label])
        delta_axes.set(
            xlabel="stage", xticks=stages, ylabel="δ of the step, at the end", yscale="log"
        )
        label_ends(delta_axes, {label: (STAGES, y[-1]) for label, y in deltas.items()}, looks)
        plain_log(delta_axes.yaxis)


PAGE = Page(
    "cause",
    STUDY,
    summary,
    draw,
    {"cause_estimates.csv": estimates, "cause_means.csv": means, "cause_stages.csv": stages},
    "fresh",
)
