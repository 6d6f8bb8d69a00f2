"""What results/smoothing.md shows: the claims, what the arms share, and how they differ."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.figures import COLOURS, drawn
from lab.markdown import markdown
from lab.study import judged
from lab.study.cause import BATCH, STAGES, TRAINED
from lab.study.cause_page import COMPARED, by_stage, compared, named
from lab.study.design import Arms, Record
from lab.study.judged import MARGIN, Judged, ends
from lab.study.smoothing import ABSOLUTE, BATCHES, SMOOTHED, STUDY, UPDATES
from lab.study.table import Page

PAIRS = [(SMOOTHED, name) for name in BATCHES if name != SMOOTHED]
NEAR, CHECKED = 0.1, range(2)  # how far a shared variance may differ, in the first stages
FIGURE = "![Differences; C² by stage](smoothing.png)\n"


def drawn_variance(records: Sequence[Record], stage: int, *, relative: bool) -> float:
    """The mean variance of whole steps that were drawn in a stage, over all seeds.

    With ``relative`` it is divided by the mean of C²/16 at the same points.
    """
    points = [
        [point["step"], point["plain"]]
        for record in records
        for point in record.get("drawn", ())
        if point["update"] // UPDATES == stage
    ]
    step, plain = np.transpose(points).mean(axis=1)
    return float(step / plain if relative else step)


def judged_claims(arms: Arms) -> list[Judged]:
    """Smoothed less each of the others: what each claim is judged, or why it is not.

    It is judged where in the first stages the steps of both arms have nearly the same variance,
    relative to C²/16 but for the arm of the same noise.
    """
    outcomes = judged.tested(compared(arms, PAIRS), MARGIN)
    for number, (_, other) in enumerate(PAIRS):
        of_other, of_smoothed = (
            [drawn_variance(arms[name], s, relative=other != ABSOLUTE) for s in CHECKED]
            for name in (other, SMOOTHED)
        )
        ratios = np.divide(of_other, of_smoothed)
        if abs(ratios - 1).max() > NEAR:
            reason = "not judged: steps of " + " and ".join(f"{r:.2f}" for r in ratios)
            outcomes[number] = outcomes[number]._replace(verdict=reason)
    return judged.if_trained(outcomes, arms, PAIRS, TRAINED)


def summary(arms: Arms) -> str:
    """The claims, and in what the arms differ: a column for each arm, a line for each number."""
    lines = []
    for name, records in arms.items():
        finite = [record for record in records if record["finite"]]
        cells = [drawn_variance(finite, stage, relative=True) for stage in CHECKED]
        cells += [drawn_variance(finite, stage, relative=False) for stage in CHECKED]
        for column in ("plain", "shift"):
            cells += by_stage(records, column)[: len(CHECKED)].tolist()
        lines.append(
            [
                named(name),
                *(f"{cell:.3g}" for cell in cells),
                f"{np.mean([record['norms'][-1] for record in finite]):.1f}",
                f"{BATCH * ends(finite, 'passes').mean():,.0f}",
                *(f"{ends(records, end).mean():.2f}" for end in ("train", *COMPARED)),
            ]
        )
    pairs = ["v of the step", "its variance", "C²/16", "‖ξ‖²"]
    head = ["differs in", *(f"{pair}, stage {stage + 1}" for pair in pairs for stage in CHECKED)]
    head += ["‖w‖", "images", "train, %", "fresh, %", "annealed, %"]
    arms_beside, *quantities = zip(head, *lines, strict=True)
    shown = judged.shown(judged_claims(arms))
    return "\n".join([shown, FIGURE, markdown(arms_beside, quantities)])


def draw(arms: Arms, file: Path) -> None:
    """The differences; C²/16 by stage."""
    stages = range(1, STAGES + 1)
    with drawn(file, 2.4, 2.6) as (forest, plain):
        judged.forest(forest, compared(arms, PAIRS))
        for (name, records), colour in zip(arms.items(), COLOURS, strict=False):
            plain.plot(stages, by_stage(records, "plain"), color=colour, label=named(name))
        plain.set(xlabel="stage", xticks=stages, ylabel="C²/16 at the point", yscale="log")
        plain.legend()


PAGE = Page("smoothing", STUDY, summary, draw, {})
