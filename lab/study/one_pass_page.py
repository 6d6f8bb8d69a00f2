"""What results/one_pass.md shows: the claims, the arms and in what they differ, and the tuning."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from igo.ground.statistics import LEVEL, Array, mean_of
from igo.report.comparison import Pair
from igo.report.draw import plain_log
from lab.figures import COLOURS, GREY, drawn
from lab.study import judged, table
from lab.study.design import Arms, Record
from lab.study.judged import Claim
from lab.study.one_pass import JUDGED, MEASURED_ROOT, MIDDLE, STUDY, Arm, level
from lab.study.table import Page

MARGIN, GAIN = 0.01, 0.1  # nats within which arms are equal; the share of updates that pays
DIGITS = 3
WORDS = {  # what the page and the figure call the families
    "root": "b ∝ √t",
    "early": "b ∝ t",
    MEASURED_ROOT: "b ∝ √B",
    "late": "late",
    "even": "even",
    "naive": "naive",
}
FIGURE = "![Loss by updates; the differences](one_pass.png)\n"


def named(family: str) -> str:
    """What the page calls a family, or the constants beside it."""
    _, beside, rest = family.rpartition("beside ")
    return f"{beside}{WORDS.get(rest, rest)}"


def losses(records: Sequence[Record]) -> Array:
    """The test loss, seed by seed."""
    return judged.ends(records, "test")


def point(records: Sequence[Record]) -> tuple[float, float]:
    """The updates of an arm, and its mean loss."""
    return records[0]["updates"], float(losses(records).mean())


def constants(arms: Arms) -> list[Sequence[Record]]:
    """The arms of constant batches, by their updates."""
    sizes = sorted((b for family, b in arms if family == "constant"), reverse=True)
    return [arms["constant", b] for b in sizes]


def frontiers(arms: Arms) -> list[PchipInterpolator]:
    """Of each seed the loss of constant batches, by log2 of the updates."""
    updates = np.log2([records[0]["updates"] for records in constants(arms)])
    of_seeds = zip(*map(losses, constants(arms)), strict=True)
    return [PchipInterpolator(updates, of_seed) for of_seed in of_seeds]


def above(arms: Arms, arm: Arm) -> Array:
    """D: the loss less that of a constant batch with as many updates, seed by seed."""
    updates = np.log2(arms[arm][0]["updates"])
    return losses(arms[arm]) - [float(frontier(updates)) for frontier in frontiers(arms)]


def saved(arms: Arms, arm: Arm) -> Array:
    """The share of updates that an arm saves, beside the first constant of its loss or less.

    Of each seed's frontier 4,001 points are looked at. A loss that no constant reaches counts as
    that of most updates, the last point.
    """
    shares = []
    for loss, frontier in zip(losses(arms[arm]), frontiers(arms), strict=True):
        grid = np.linspace(frontier.x[0], frontier.x[-1], 4001)
        reached = frontier(grid) <= loss
        needed = 2 ** grid[reached.argmax() if reached.any() else -1]
        shares.append(1 - arms[arm][0]["updates"] / needed)
    return np.array(shares)


def claims(arms: Arms) -> list[Claim]:
    """The ramps beside the frontier, and beside the constant of their updates."""
    all_claims = []
    for family in JUDGED:
        ramp, constant = (family, MIDDLE), (f"beside {family}", MIDDLE)
        beside = judged.difference(arms, ramp, constant, "test")
        ends = {"D": above(arms, ramp), "beside its constant": beside}
        all_claims.append(Claim(WORDS[family], ends))
    return all_claims


def verdict(test: Pair, shares: Array) -> str:
    """What the protocol calls a ramp, from its D and the updates that it saves."""
    names = []
    if test.verdict == "lower":
        mean = mean_of(shares)
        names = ["pays" if mean.value >= GAIN and mean.low > 0 else "below"]
    elif test.verdict == "higher":
        names = ["loses"]
    if is_equal(test):
        names.append("level")
    return ", ".join(names) or "undecided"


def is_equal(test: Pair) -> bool:
    """Whether the test of equality finds it, also where a difference is found."""
    return test.p_equal_holm is not None and test.p_equal_holm <= LEVEL


def summary(arms: Arms) -> str:
    """The claims, and the arms."""
    outcomes = [
        outcome._replace(verdict=verdict(outcome.test, saved(arms, (family, MIDDLE))))
        for family, outcome in zip(JUDGED, judged.tested(claims(arms), MARGIN), strict=True)
    ]
    lines = []
    for line in arm_lines(arms):
        if "beside" not in line["arm"] and "naive" not in line["arm"]:
            sizes = "{b_1} → {b_end}" if "D" in line else "{b_1}"  # A ramp has D.
            above = table.with_interval(line, "D", DIGITS)
            lines.append({**line, "b": sizes.format(**line), "above": above})
    columns = {
        "arm": "{arm}",
        "b": "{b}",
        "updates": "{updates:,}",
        "largest η": "{largest_eta:.2g}",
        "β₂": "{beta2:g}",
        "loss": "{loss:.3f}",
        "D, 95 %": "{above}",
    }
    shown = judged.shown(outcomes, DIGITS)
    return "\n".join([shown, FIGURE, table.formatted(lines, columns)])


def arm_lines(arms: Arms) -> list[Record]:
    """In what the arms differ, and their loss; of ramps also D and the share that they save."""
    lines = []
    for (family, b), records in arms.items():
        first, job = records[0], records[0]["job"]
        curve = job["rise"], job["fall"], job["start"]
        largest = job["peak"] * max(level(curve, share) for share in np.linspace(0, 1, 129))
        if family == "naive":  # Its η rises with √b.
            largest *= (first["largest"] / first["b_1"]) ** 0.5
        line: Record = {
            "arm": named(family),
            "b_1": first["b_1"],
            "b_end": first["largest"],
            "updates": first["updates"],
            "largest_eta": largest,
            "beta2": job["beta2"],
            "sum_eta": sum(span["rates"] for span in first["spans"]),
            "C2/b": variance(records),
            "loss": losses(records).mean(),
        }
        if family != "constant":
            arm = family, b
            line |= table.intervals({"D": above(arms, arm), "saved": saved(arms, arm)})
        lines.append(line)
    return lines


def variance(records: Sequence[Record]) -> float:
    """C²/b, as a mean over all pairs of gradients of an arm's runs."""
    spans = [span for record in records for span in record["spans"]]
    total, pairs = (sum(span.get(name, 0) for span in spans) for name in ("variances", "pairs"))
    return float(total / pairs)


def draw(arms: Arms, file: Path) -> None:
    """Mean loss by updates, constants as a line; and the differences."""
    with drawn(file, 3.6, 3) as (curve, forest):
        points = map(point, constants(arms))
        curve.plot(*zip(*points, strict=True), "o-", color=GREY, ms=3, label="constant b")
        families = dict.fromkeys(
            family for family, _ in arms if family != "constant" and "beside" not in family
        )
        for family, colour in zip(families, COLOURS, strict=False):
            shown = [point(records) for (name, _), records in arms.items() if name == family]
            curve.plot(*zip(*shown, strict=True), "D", color=colour, ms=5, label=WORDS[family])
        curve.set(xlabel="updates", ylabel="test loss, nats a byte", xscale="log")
        curve.legend()
        plain_log(curve.xaxis)
        judged.forest(forest, claims(arms), "nats a byte")
        forest.locator_params(axis="x", nbins=6)


TABLES = {"one_pass_arms.csv": lambda arms: table.csv(arm_lines(arms), 5)}
PAGE = Page("one_pass", STUDY, summary, draw, TABLES, "test")
