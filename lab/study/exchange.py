"""The study of results/exchange.md, b by 1/κ² or by 1/κ: its verdict, its arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from igo.report.statistics import LEVEL, Array
from lab.study import rows as study
from lab.study.records import Run
from lab.study.rows import Row

DRAWS = 10_000  # of the bootstrap
ARMS = (  # title, a row that has the arm, and its place there
    ("Method 2, η × 1/√2", "accuracy_3", 1), ("Method 3, b × 2", "accuracy_3", 0),
    ("Method 3′, b × √2", "accuracy_3prime", 0), ("Method 1, constant", "sensitivity_accuracy", 0),
)  # fmt: skip


def state(rows: Sequence[Row]) -> str:
    """Whether an arm agrees with Method 2 in these rows, departs from it, or neither is shown."""
    verdicts = [row["found"]["verdict"] for row in rows]
    if all(verdict == "confirmed" for verdict in verdicts):
        return "agrees"
    return "departs" if "refuted" in verdicts else "undecided"


def rule(three: str, prime: str, sensitive: bool) -> str:
    """The verdict of an endpoint, by the states of Methods 3 and 3′."""
    if not sensitive:
        return "not sensitive"
    verdicts = {
        ("agrees", "departs"): "1/κ²", ("departs", "agrees"): "1/κ", ("agrees", "agrees"): "both",
        ("departs", "departs"): "neither",
    }  # fmt: skip
    return verdicts.get((three, prime), "undecided")


def both(accuracy: str, loss: str) -> str:
    """The verdict of the study, by those of its two endpoints."""
    if accuracy == loss:
        return accuracy
    weak = ("both", "undecided", "not sensitive")
    if accuracy in ("1/κ²", "1/κ") and loss in weak:
        return f"{accuracy}, by accuracy alone"
    if loss in ("1/κ²", "1/κ") and accuracy in weak:
        return f"{loss}, by loss alone"
    return "undecided"


def summary(rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """The verdict, a table of the arms, and the factor of b that would equal Method 2."""
    rows = [row for row in rows if not row["row"].startswith("exchange_own")]
    by_name = {row["row"].removeprefix("exchange_"): row for row in rows if row["found"]}
    if len(by_name) < len(rows):
        return "**Not run yet.**\n"
    verdicts = []
    for end in ("accuracy", "loss"):
        arms = [
            state([row for name, row in by_name.items() if f"{name}_".startswith(f"{end}_{arm}_")])
            for arm in ("3", "3prime")
        ]
        p = by_name[f"sensitivity_{end}"]["found"]["p"]
        verdicts.append(rule(arms[0], arms[1], sensitive=p is not None and p <= LEVEL))
    seeds = study.seeds_of(rows, runs)
    lines = [
        f"**Verdict: {both(*verdicts)}.** By accuracy: {verdicts[0]}. By training loss:"
        f" {verdicts[1]}. {len(seeds)} seeds.",
        "",
        "| arm | η₁ | updates | accuracy, % | with running statistics | loss, eval mode | loss in"
        " train mode, stages 2 to 5 | δ measured, stages 1 to 5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, name, place in ARMS:
        row = by_name[name]
        of_arm = [runs[run] for run in study.names(row, seeds)[place]]
        lines.append(_line(title, row["second" if place else "first"]["learning_rate"], of_arm))
    accuracy = _matching([by_name["accuracy_3"], by_name["accuracy_3prime"]], runs, seeds)
    loss = _matching([by_name["loss_3_stage5"], by_name["loss_3prime_stage5"]], runs, seeds)
    lines += [
        "",
        "The factor of b in each stage that would equal Method 2 (no verdict):"
        f" {accuracy} by accuracy, {loss} by the training loss of stage 5. 1/κ² is 2, 1/κ is 1.41.",
    ]
    return "\n".join(lines) + "\n"


def _line(title: str, rate: float, runs: Sequence[Run]) -> str:
    ends = [run.epochs[1::2] for run in runs]  # the last epoch of each stage
    losses = np.mean([[e["train/loss"] for e in of_run[1:]] for of_run in ends], axis=0)
    logs = np.array([[e["delta_measured"] for e in of_run] for of_run in ends], dtype=float)
    deltas = np.exp(np.nanmean(np.log(logs), axis=0))
    accuracy, running, loss = (
        np.mean([study.endpoint(run, name) for run in runs])
        for name in ("anew_accuracy", "end_accuracy", "anew_loss")
    )
    cells = [
        title, f"{rate:g}", f"{runs[0].epochs[-1]['updates']:,}", f"{accuracy:.2f}",
        f"{running:.2f}", f"{loss:.4f}", ", ".join(f"{x:.4f}" for x in losses),
        ", ".join(f"{delta:.3f}" for delta in deltas),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _matching(pair: Sequence[Row], runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The factor of b at which a line in ln b through Methods 3′ and 3 meets Method 2."""
    three, prime = (np.subtract(*study.values(row, runs, seeds)) for row in pair)

    def factor(of_three: Array, of_prime: Array) -> Array:
        return np.asarray(np.sqrt(2) ** (1 + of_prime / (of_prime - of_three)))

    drawn = np.random.default_rng(0).integers(len(seeds), size=(DRAWS, len(seeds)))
    low, high = np.quantile(
        factor(three[drawn].mean(axis=1), prime[drawn].mean(axis=1)), [0.025, 0.975]
    )
    return f"{factor(three.mean(), prime.mean()):.2f} [{low:.2f}, {high:.2f}]"
