"""What results/smoothing.md shows: the claims, what the arms share, and how they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from igo.ground.statistics import Array
from lab.figures import COLOURS, drawn
from lab.study import judged, table
from lab.study.cause import BATCH, STAGES, TRAINED
from lab.study.cause_page import WORDS
from lab.study.design import Record, Runs
from lab.study.judged import MARGIN, Claim, claim, ends
from lab.study.smoothing import ABSOLUTE, BATCHES, LEAST, SMOOTHED, STUDY, UPDATES

ENDPOINTS = {"fresh": "fresh", "annealed": "annealed"}
CONTROLS = tuple(name for name in BATCHES if name != SMOOTHED)
NEAR, CHECKED = 0.1, 2  # how far a shared variance may differ, in each of the first stages
TABLES: dict[str, Callable[[Runs], str]] = {}  # the page has no other files
FIGURE = "![Differences; C² and the variance of the step by stage](smoothing.png)\n"
Arms = Mapping[str, Sequence[Record]]  # seed by seed


def claims(arms: Arms) -> list[Claim]:
    """Smoothed less each of the others."""
    return [
        claim(f"{WORDS[SMOOTHED]} − {other}", arms[SMOOTHED], arms[other], ENDPOINTS)
        for other in CONTROLS
    ]


def drawn_variance(records: Sequence[Record], stage: int, relative: bool) -> float:
    """Of whole steps, as drawn in a stage: a mean over seeds, or over that of C²/16."""
    points = [
        point
        for record in records
        for point in record.get("drawn", ())
        if point["update"] // UPDATES == stage
    ]
    steps = float(np.mean([point["step"] for point in points]))
    return steps / float(np.mean([point["plain"] for point in points])) if relative else steps


def verdicts(arms: Arms) -> list[str]:
    """What each claim is judged, or why it is not."""
    found = []
    tests = judged.tested(claims(arms), MARGIN)
    for other, test in zip(CONTROLS, tests, strict=True):
        ratios = [
            drawn_variance(arms[other], stage, other != ABSOLUTE)
            / drawn_variance(arms[SMOOTHED], stage, other != ABSOLUTE)
            for stage in range(CHECKED)
        ]
        verdict = judged.verdict(test, [arms[SMOOTHED], arms[other]], LEAST, TRAINED)
        if verdict == test.verdict and max(abs(ratio - 1) for ratio in ratios) > NEAR:
            verdict = "not judged: steps of " + " and ".join(f"{r:.2f}" for r in ratios)
        found.append(verdict)
    return found


def summary(runs: Runs) -> str | None:
    """The claims, and in what the arms differ; None before the last seed: no result is seen."""
    arms = STUDY.arms(runs)
    if not arms or len(arms[SMOOTHED]) < LEAST:
        return None
    all_claims, lines = claims(arms), []
    for name, records in arms.items():
        finite = [record for record in records if record["finite"]]
        cells = [
            drawn_variance(finite, stage, relative)
            for relative in (True, False)
            for stage in range(CHECKED)
        ]
        cells += [
            by_stage(finite, column)[stage]
            for column in ("plain", "shift")
            for stage in range(CHECKED)
        ]
        images = np.mean([BATCH * record["passes"] for record in finite])
        norm = np.mean([record["norms"][-1] for record in finite])
        lines.append(
            [
                WORDS.get(name, name),
                *(f"{cell:.3g}" for cell in cells),
                f"{norm:.1f}",
                f"{images:,.0f}",
                *(f"{ends(records, end).mean():.2f}" for end in ("train", *ENDPOINTS)),
                str(len(records) - len(finite)),
            ]
        )
    pairs = ["v of the step", "its variance", "C²/16", "‖ξ‖²"]
    head = ["differs in", *(f"{pair}, stage {stage}" for pair in pairs for stage in (1, 2))]
    head += ["‖w‖", "images", "train, %", "fresh, %", "annealed, %", "not finite"]
    shown = judged.shown(all_claims, judged.tested(all_claims, MARGIN), verdicts(arms))
    arms_beside, *quantities = zip(head, *lines, strict=True)
    return "\n".join([shown, FIGURE, table.markdown(arms_beside, quantities)])


def by_stage(records: Sequence[Record], column: str) -> Array:
    """What was seen in the updates of each stage, as a mean over seeds."""
    every = [[stage[column] for stage in record["stages"]] for record in records]
    mean: Array = np.mean(every, axis=0)
    return mean


def draw(runs: Runs, file: Path) -> None:
    """The differences; by stage C²/16, and the variance of the step by its batches."""
    arms = STUDY.arms(runs)
    with drawn(file, 2.4, 2.6, 2.6) as (forest, plain, step):
        judged.forest(forest, claims(arms))
        forest.set_xlabel(f"points of test accuracy, 95 %, {len(arms[SMOOTHED])} seeds")
        for (name, records), colour in zip(arms.items(), COLOURS, strict=False):
            finite, stages = [r for r in records if r["finite"]], range(1, STAGES + 1)
            plain.plot(stages, by_stage(finite, "plain"), color=colour, label=WORDS.get(name, name))
            noise = by_stage(finite, "beside") * by_stage(finite, "squares")
            step.plot(stages, noise, color=colour)
        ticks = {"xlabel": "stage", "xticks": stages, "yscale": "log"}
        plain.set(ylabel="C²/16 at the point", **ticks)
        step.set(ylabel="variance of the step", **ticks)
        plain.legend()
