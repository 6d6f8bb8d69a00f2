"""What results/fewer_updates.md shows: the claims, the arms with their costs, and the tuning."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from igo.config.load import make_plan
from igo.ground.files import write_atomically
from igo.ground.ranks import ALONE
from igo.ground.statistics import LEVEL, Array, mean_of
from igo.report.comparison import Pair, adjusted, p_value, pair
from igo.runs import manifest
from igo.runs.assemble import train
from igo.runs.folder import RunFolder, path_of
from igo.runs.terminal import Terminal
from lab.figures import COLOURS, GREY, INK, drawn
from lab.study import afterwards, records, rows, table
from lab.study import fewer_updates as study
from lab.study.fewer_updates import ARMS, EXPERIMENT, LENGTHS, NAME, SEEDS
from lab.study.records import Arm, Run

REFERENCE = "cosine"
LONGEST = LENGTHS[-1]
# An arm that grows, and what it is compared with beside cosine. Of the second the protocol leaves
# open which: that whose seconds are nearest to its own.
GROWING = {
    "cosine, split ½": ("cosine, b = 32",),
    "cosine, split 0": ("cosine, 0.7 of the epochs", "cosine, 0.5 of the epochs"),
}
README = {  # what README shows, and how η and b go there
    "cosine": ("cosine", "constant"), "cosine, 0.5 of the epochs": ("cosine", "constant"),
    "cosine, b = 32": ("cosine", "constant"),
    "cosine, split ½": ("√cosine", "1/cosine"), "cosine, split 0": ("constant", "1/cosine²"),
    "Method 3": ("constant", "× 2 a stage"), "Method 1": ("constant", "constant"),
}  # fmt: skip
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
    (("Method 3", 80), ("cosine, 0.5 of the epochs", 80)),
    (("Method 3", 80), ("cosine, b = 32", 80)),
    (("Method 3", 80), ("Method 1", 80)),
)
ROUNDS = 3
SECONDS = records.RECORDS / f"{NAME}_seconds.json"
FIGURE = f"![Accuracy by updates and by time]({NAME}.png)\n"
Ends = Mapping[str, Array]  # accuracy by arm: (seeds,)


@dataclass(frozen=True)
class Claim:
    """A claim of the protocol, family A or B, and what the seeds say."""

    family: str
    first: str
    second: str
    pair: Pair

    @property
    def holds(self) -> bool:
        """A: equal within the margin. B: the first is higher."""
        if self.family == "A":
            p = self.pair.p_equal_holm
            return p is not None and p <= LEVEL
        return self.pair.verdict == "higher"


def judged(ends: Ends, ratios: Mapping[str, float]) -> list[Claim]:
    """The four claims, from the accuracies and the seconds relative to those of cosine."""
    families: dict[str, list[tuple[str, str]]] = {"A": [], "B": []}
    for arm, others in GROWING.items():
        nearest = min(others, key=lambda other: abs(ratios[other] - ratios[arm]))
        families["A"].append((arm, REFERENCE))
        families["B"].append((arm, nearest))
    claims = []
    for family, arms in families.items():
        margin = rows.MARGIN if family == "A" else None
        pairs = adjusted([pair(ends[first] - ends[second], margin) for first, second in arms])
        claims += [Claim(family, *of, found) for of, found in zip(arms, pairs, strict=True)]
    return claims


def outcomes(claims: Sequence[Claim]) -> dict[str, str]:
    """What the protocol calls the outcome of each growing arm."""
    held = {(claim.first, claim.family): claim.holds for claim in claims}
    return {arm: CALLED[held[arm, "A"], held[arm, "B"]] for arm in GROWING}


@dataclass(frozen=True)
class Found:
    """The whole seeds of the study."""

    runs: Mapping[str, Run]
    arms: Mapping[tuple[str, int], Arm]  # by name and length, at the chosen η_1
    seeds: range
    seconds: Mapping[str, float]  # of training, relative to cosine, at the longest length

    def ends(self, length: int, endpoint: str) -> dict[str, Array]:
        """Accuracy in % by arm: (seeds,)."""
        return {name: np.array([study.accuracy(self.arms[name, length], seed, self.runs, endpoint)
                                for seed in self.seeds], dtype=np.float64)
                for name in ARMS}  # fmt: skip

    def of_arm(self, name: str, length: int) -> list[Run]:
        """The runs of an arm, seed by seed."""
        arm = self.arms[name, length]
        return [self.runs[records.name_of(EXPERIMENT, arm, seed)] for seed in self.seeds]

    def updates(self, name: str, length: int) -> float:
        """Of a run that did not fail."""
        ended = [run for run in self.of_arm(name, length) if run.status["state"] == "finished"]
        return float(np.median([run.epochs[-1]["updates"] for run in ended]))


def found(runs: Mapping[str, Run]) -> Found:
    """The whole seeds, from the first on without a gap."""
    arms: dict[tuple[str, int], Arm] = {}
    for name, length in itertools.product(ARMS, LENGTHS):
        arm = study.chosen(name, length, runs)
        assert arm  # the tuning has ended
        arms[name, length] = arm
    done = [bool(study.whole(seed, [*arms.values()], runs)) for seed in SEEDS]
    n = [*done, False].index(False)
    return Found(runs, arms, SEEDS[:n], relative(json.loads(SECONDS.read_text())["rounds"]))


def relative(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over rounds of an arm's seconds, relative to those of cosine in that round."""
    return {name: float(np.median([each[name] / each[REFERENCE] for each in rounds]))
            for name in rounds[0]}  # fmt: skip


def summary(runs: Mapping[str, Run]) -> str:
    """The claims, what they are called, and the arms."""
    study_found = found(runs)
    claims = judged(study_found.ends(LONGEST, ENDPOINTS["running"]), study_found.seconds)
    called = [f"- *{arm.removeprefix('cosine, ')}*: **{name}**.\n"
              for arm, name in outcomes(claims).items()]  # fmt: skip
    parts = [_claims(claims), "".join(called), FIGURE]
    parts += [_arms(study_found, length) for length in reversed(LENGTHS)]
    ends = {name: study_found.ends(LONGEST, of) for name, of in ENDPOINTS.items()}
    later = afterwards.summary(afterwards.STUDY.archived(), ends)
    return "\n".join([*parts, _afterwards(study_found)]) + later


def _claims(claims: Sequence[Claim]) -> str:
    lines = []
    for claim in claims:
        tested = claim.pair
        assert None not in (tested.difference, tested.low, tested.high)
        ends = table.with_interval(tested.difference, tested.low, tested.high)  # type: ignore[arg-type]
        p = tested.p_equal_holm if claim.family == "A" else tested.p_holm
        verdict = "equal" if claim.family == "A" else "higher"
        lines.append([
            claim.family, f"{claim.first} − {claim.second}", str(tested.n), ends, p_value(p),
            verdict if claim.holds else f"not shown {verdict}",
        ])  # fmt: skip
    head = ["", f"claim, {LONGEST} epochs", "n", "difference, 95 %", "p, Holm", "verdict"]
    return table.markdown(head, lines)


def _arms(study_found: Found, length: int) -> str:
    """The arms at a length: where they end and what they cost."""
    ends = {name: study_found.ends(length, of) for name, of in ENDPOINTS.items()}
    lines = []
    for name in ARMS:
        above = [table.mean_with_interval(of_all[name] - of_all[REFERENCE])
                 for of_all in ends.values()]  # fmt: skip
        cells = [name, f"{study_found.arms[name, length]['learning_rate']:g}"]
        cells += [f"{ends['running'][name].mean():.2f}"]
        cells += ["", ""] if name == REFERENCE else above
        cells.append(f"{study_found.updates(name, length):,.0f}")
        cells += [f"{study_found.seconds[name]:.2f}"] if length == LONGEST else []
        lines.append(cells)
    head = [f"{length} epochs", "η₁", "%", "− cosine", "fresh", "updates"]
    return table.markdown(head + (["time"] if length == LONGEST else []), lines)


def _afterwards(study_found: Found) -> str:
    """The differences that were chosen after the results were known."""
    lines = []
    for pair_of in AFTERWARDS:
        names = [f"{name.partition(', 0')[0]} in {study_found.arms[name, length]['epochs']}"
                 for name, length in pair_of]  # fmt: skip
        cells = [" − ".join(names)]
        for endpoint in ENDPOINTS.values():
            first, second = (study_found.ends(length, endpoint)[name] for name, length in pair_of)
            cells.append(table.mean_with_interval(first - second))
        lines.append(cells)
    return table.markdown(["post hoc: arm in epochs", *ENDPOINTS], lines)


def tuning(runs: Mapping[str, Run]) -> str:
    """Mean accuracy of the tuning by arm, length and η_1, as CSV."""
    lines = [
        {"length": length, "arm": name, "learning_rate": rate, "test_accuracy_percent": mean}
        for length, name in itertools.product(LENGTHS, ARMS)
        for rate, mean in study.tuned(name, length, runs).items()
    ]
    return pl.DataFrame(lines).write_csv(float_precision=3)


def readme(runs: Mapping[str, Run]) -> str:
    """README's table: a tuned cosine, in half the epochs too, and what grows b or keeps both."""
    study_found = found(runs)
    ends = study_found.ends(LONGEST, ENDPOINTS["running"])
    lines = []
    for name, (eta, b) in README.items():
        above = table.mean_with_interval(ends[name] - ends[REFERENCE])
        lines.append([
            name, eta, b, f"{ends[name].mean():.1f} %", "" if name == REFERENCE else above,
            f"{study_found.updates(name, LONGEST):,.0f}", f"{study_found.seconds[name]:.2f}",
        ])  # fmt: skip
    head = ["", "η", "b", "test accuracy", "above cosine, 95 %", "updates", "time"]
    return table.markdown(head, lines)


def draw(runs: Mapping[str, Run], file: Path) -> None:
    """Test accuracy less cosine's, by updates and by time. A line joins cosine's own lengths."""
    study_found = found(runs)
    ends = study_found.ends(LONGEST, ENDPOINTS["running"])
    updates = {name: study_found.updates(name, LONGEST) for name in ARMS}
    costs = {
        "updates, of cosine's": {name: updates[name] / updates[REFERENCE] for name in ARMS},
        "seconds, of cosine's": dict(study_found.seconds),
    }
    shorter = [name for name in ARMS if "of the epochs" in name]
    less = {name: mean_of(ends[name] - ends[REFERENCE]) for name in ARMS if name != REFERENCE}
    with drawn(file, 2, 4.6, 3.6) as axes:
        axes[1].sharey(axes[0])
        for ax, (label, cost) in zip(axes, costs.items(), strict=True):
            colours = iter(COLOURS)
            for name, mean in less.items():
                colour = GREY if name in shorter else next(colours)
                reach = mean.value - mean.low
                shown = None if name == shorter[0] else name.replace("0.5", "0.5 and 0.7")
                ax.errorbar(cost[name], mean.value, yerr=reach, fmt="o", color=colour, label=shown)
            line = [(cost[name], less[name].value) for name in shorter]
            ax.plot(*zip((1, 0), *sorted(line, reverse=True), strict=True), color=GREY, lw=1)
            ax.axhline(0, color=INK, lw=0.8)
            ax.set_xlabel(f"{label} ({LONGEST} epochs)")
        n = len(study_found.seeds)
        axes[0].set_ylabel(f"test accuracy less cosine's,\npoints, 95 %, {n} seeds")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))


def seconds(_: list[str]) -> None:
    """Time the arms of the longest length in turn, in rounds, on one core that is idle.

    The seconds are those of the epochs, with the noise that is measured in them.
    """
    torch.set_num_threads(1)
    runs = study.ended()
    arms = {name: study.chosen(name, LONGEST, runs) for name in ARMS}
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS):
        rounds.append({})
        for name, arm in arms.items():
            if arm is None:
                raise SystemExit("error: the tuning has not ended")
            config = records.config(EXPERIMENT, arm, SEEDS[0])
            config = replace(config, runs_dir=str(records.RUNS / "seconds"))
            folder = RunFolder(path_of(config))
            shutil.rmtree(folder.path, ignore_errors=True)
            train(config, make_plan(config), folder, Terminal(quiet=True), ALONE)
            run = records.of_folders(folder.path.parent)[folder.path.name]
            rounds[-1][name] = sum(epoch["seconds"] for epoch in run.epochs)
            print(f"round {number + 1} of {ROUNDS}, {name}: {rounds[-1][name]:.1f} s", flush=True)
    status = run.status
    content = {"hardware": status["hardware"], "torch": status["versions"]["torch"],
               "commit": manifest.commit(), "rounds": rounds}  # fmt: skip
    write_atomically(SECONDS, json.dumps(content, indent=2) + "\n")
