"""What results/few_updates.md shows: the claims, the arms and in what they differ, the tuning."""

from pathlib import Path

from igo.report.comparison import Pair
from igo.report.formats import p_value
from lab.figures import COLOURS, GREY, drawn
from lab.markdown import markdown
from lab.study import judged, table
from lab.study.design import Arms, Record
from lab.study.few_updates import CONSTANT, OWN, RAMPS, STUDY, SWAPPED, B
from lab.study.judged import Claim
from lab.study.one_pass import Arm
from lab.study.one_pass_page import DIGITS, constants, is_equal, losses, point, saved, variance
from lab.study.table import Page

MARGIN = 0.02
FIGURE = "![Loss by updates; the differences](few_updates.png)\n"


def named(arm: Arm) -> str:
    """What the page calls an arm."""
    family, b = arm
    if family in (CONSTANT, SWAPPED):
        return f"b = {b}" if family == CONSTANT else SWAPPED
    own = OWN if OWN in family else ""
    return f"{own}b ∝ {family.removeprefix(OWN)}, as b = {b}"


def claims(arms: Arms) -> list[Claim]:
    """D and E of each ramp in turn: its loss less that of the constant, and of its own η."""
    found = []
    for family, b in RAMPS:
        for letter, rival in (("D", (CONSTANT, b)), ("E", (OWN + family, b))):
            difference = judged.difference(arms, (family, b), rival, "test")
            found.append(Claim(f"{named((family, b))}: {letter}", {"difference": difference}))
    return found


def verdict(beside: Pair, own: Pair, by_more: Pair) -> str:
    """What the protocol calls a ramp, by the tests of D, of E, and of D + MARGIN.

    A ramp wins if its loss is lower than that of the constant (D) and of a constant with the ramp's
    own η (E). If only E is equal, it was the curve of η that won.
    """
    lower = beside.verdict == "lower"
    if lower and own.verdict == "lower":
        return "wins by more than 0.02" if by_more.verdict == "lower" else "wins"
    if lower and is_equal(own):
        return "was the curve of η"
    if not lower and is_equal(beside):
        return "level"
    return "loses" if beside.verdict == "higher" else "undecided"


def summary(arms: Arms) -> str:
    """The claims, the arms, and the updates that a constant needs."""
    all_claims, lines = claims(arms), []
    shifted = [Claim(claim.name, {"difference": claim.judged + MARGIN}) for claim in all_claims]
    tests = [outcome.test for outcome in judged.tested(all_claims, MARGIN)]
    tests_by_more = [outcome.test for outcome in judged.tested(shifted, None)]
    cells = [table.mean_with_interval(claim.judged, DIGITS) for claim in all_claims]
    ps = [f"{p_value(test.p_holm)}, {p_value(test.p_equal_holm)}" for test in tests]
    for number, ramp in enumerate(RAMPS):
        d, e = 2 * number, 2 * number + 1  # the places of its two claims in these lists
        more = tests_by_more[d]
        called = verdict(beside=tests[d], own=tests[e], by_more=more)
        lines.append([named(ramp), cells[d], cells[e], ps[d], ps[e], p_value(more.p_holm), called])
    estimate = judged.difference(arms, (SWAPPED, B), (CONSTANT, B), "test")
    lines.append([SWAPPED, table.mean_with_interval(estimate, DIGITS), *[""] * 4, "estimate"])
    head = [f"ramp, {tests[0].n} seeds", "D, 95 %", "E, 95 %", "p of D: different, equal"]
    head += ["p of E", "p of D + 0.02", "verdict"]
    return "\n".join([markdown(head, lines), FIGURE, _table_of_arms(arms)])


def _table_of_arms(arms: Arms) -> str:
    """In what the arms differ, as a table of Markdown."""
    lines = []
    for line in arm_lines(arms):
        sizes = dict.fromkeys(map(str, (line["b_1"], line["b_end"])))  # one, if they are equal
        saving = table.with_interval(line, "saved", digits=0, factor=100)
        scaled = 1000 * line["eta_over_sqrt_b"]
        lines.append({**line, "b": " → ".join(sizes), "scaled": scaled, "saving": saving})
    columns = {
        "arm": "{arm}",
        "b": "{b}",
        "updates": "{updates:,}",
        "Σ η": "{sum_eta:.2f}",
        "largest η": "{largest_eta:.2g}",
        "1000 η/√b": "{scaled:.2f}",
        "β₂": "{beta2:g}",
        "loss": "{loss:.3f}",
        "updates saved, %": "{saving}",
        "CPU time": "{seconds:.2f}",
    }
    return table.formatted(lines, columns)


def arm_lines(arms: Arms) -> list[Record]:
    """In what the arms differ, their loss, and what a constant needs for it."""
    lines = []
    seconds = judged.ends(arms[CONSTANT, B], "cpu_seconds").mean()
    for arm, records in arms.items():
        first, job = records[0], records[0]["job"]
        line: Record = {
            "arm": named(arm),
            "b_1": first["smallest"],
            "b_end": first["largest"],
            "rise": job["rise"],
            "fall": job["fall"],
            "beta2": 1 - job["forgetting"],
            **{name: first[name] for name in ("updates", "samples", "sum_eta", "largest_eta")},
            "eta_over_sqrt_b": first["eta_over_sqrt_b"],
            "C2/b": variance(records),
            "loss": losses(records).mean(),
            "seconds": judged.ends(records, "cpu_seconds").mean() / seconds,
        }
        if arm in RAMPS:
            line |= table.intervals({"saved": saved(arms, arm)})
        lines.append(line)
    return lines


def draw(arms: Arms, file: Path) -> None:
    """Mean loss by updates; and D and E."""
    with drawn(file, 3.2, 3.2) as (curve, forest):
        points = map(point, constants(arms))
        curve.plot(*zip(*points, strict=True), "o-", color=GREY, ms=4, label="constant b")
        for (family, b), colour in zip(RAMPS, COLOURS, strict=False):
            label = named((family, b))
            curve.plot(*point(arms[family, b]), "D", color=colour, ms=5, label=label)
            curve.plot(*point(arms[OWN + family, b]), "x", color=colour, ms=6)
        curve.set(xlabel="updates (×: the ramp's η, b constant)", ylabel="test loss, nats a byte")
        curve.legend()
        judged.forest(forest, claims(arms), "nats a byte")


TABLES = {"few_updates_arms.csv": lambda arms: table.csv(arm_lines(arms), 5)}
PAGE = Page("few_updates", STUDY, summary, draw, TABLES, "test")
