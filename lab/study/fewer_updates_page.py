"""What results/fewer_updates.md shows: the claims, the arms with their costs, and the tuning."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
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
from lab.study import fewer_updates as study
from lab.study import records, rows, table
from lab.study.fewer_updates import ARMS, EXPERIMENT, LEAST, LENGTHS, NAME, SEEDS
from lab.study.records import Arm, Run

REFERENCE = "cosine"
LONGEST = LENGTHS[-1]
# An arm that grows, and what it is compared with beside cosine. Of the second the protocol leaves
# open which: that whose seconds are nearest to its own.
GROWING = {
    "cosine, split ½": ("cosine, b = 32",),
    "cosine, split 0": ("cosine, 0.7 of the epochs", "cosine, 0.5 of the epochs"),
}
ENDPOINTS = {"running": "end_accuracy", "fresh": "anew_accuracy"}
CALLED = {  # whether A and B hold
    (True, True): "a gain",
    (True, False): "fewer updates, no better than training less",
    (False, True): "better than training less, but not shown equal to cosine",
    (False, False): "neither equal to cosine nor better than training less",
}
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


def found(runs: Mapping[str, Run]) -> Found | str:
    """The whole seeds; or, while the study has not ended, a sentence that says how far it is."""
    unseen = "No result has been looked at."
    arms: dict[tuple[str, int], Arm] = {}
    for name, length in itertools.product(ARMS, LENGTHS):
        if arm := study.chosen(name, length, runs):
            arms[name, length] = arm
    if len(arms) < len(ARMS) * len(LENGTHS):
        return f"**The tuning has not ended.** {unseen}\n"
    done = [bool(study.whole(seed, [*arms.values()], runs)) for seed in SEEDS]
    n = [*done, False].index(False)
    if n < LEAST or not SECONDS.is_file():
        timed = "" if SECONDS.is_file() else " The seconds have not been measured."
        return f"**{n} whole seeds have run; {LEAST} are needed.**{timed} {unseen}\n"
    return Found(runs, arms, SEEDS[:n], relative(json.loads(SECONDS.read_text())["rounds"]))


def relative(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over rounds of an arm's seconds, relative to those of cosine in that round."""
    return {name: float(np.median([each[name] / each[REFERENCE] for each in rounds]))
            for name in rounds[0]}  # fmt: skip


def summary(runs: Mapping[str, Run]) -> str:
    """The claims, what they are called, the arms, and the tuning."""
    study_found = found(runs)
    if isinstance(study_found, str):
        return study_found
    claims = judged(study_found.ends(LONGEST, ENDPOINTS["running"]), study_found.seconds)
    called = [f"- *{arm.removeprefix('cosine, ')}*: **{name}**.\n"
              for arm, name in outcomes(claims).items()]  # fmt: skip
    parts = [_claims(claims), "".join(called), FIGURE]
    parts += [_arms(study_found, length) for length in reversed(LENGTHS)]
    return "\n".join([*parts, _tuning(runs)])


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
    reference = study_found.updates(REFERENCE, length)
    lines = []
    for name in ARMS:
        cells = [name, f"{study_found.arms[name, length]['learning_rate']:g}"]
        for of_all in ends.values():
            difference = mean_of(of_all[name] - of_all[REFERENCE])
            numbers = (difference.value, difference.low, difference.high)
            above = "" if name == REFERENCE else table.with_interval(*numbers)
            cells += [f"{of_all[name].mean():.2f}", above]
        updates = study_found.updates(name, length)
        cells += [f"{updates:,.0f}", f"{updates / reference:.2f}"]
        if length == LONGEST:
            cells.append(f"{study_found.seconds[name]:.2f}")
        failed = sum(run.status["state"] == "failed" for run in study_found.of_arm(name, length))
        lines.append([*cells, str(failed)])
    head = [f"{length} epochs, {len(study_found.seeds)} seeds", "η₁"]
    head += itertools.chain.from_iterable((f"{name}, %", "− cosine") for name in ENDPOINTS)
    head += ["updates", "of cosine's"]
    head += ["time, of cosine's"] if length == LONGEST else []
    return table.markdown([*head, "losses not finite"], lines)


def _tuning(runs: Mapping[str, Run]) -> str:
    """Mean accuracy of the tuning by η_1."""
    of_all = {(name, length): study.tuned(name, length, runs)
              for length, name in itertools.product(LENGTHS, ARMS)}  # fmt: skip
    rates = sorted({rate for means in of_all.values() for rate in means})
    lines = []
    for (name, length), means in of_all.items():
        cells = [f"{means[rate]:.2f}" if rate in means else "–" for rate in rates]
        lines.append([f"{name}, {length} epochs", *cells])
    return table.markdown(["tuning: η₁", *(f"{rate:g}" for rate in rates)], lines)


def draw(runs: Mapping[str, Run], file: Path) -> None:
    """Test accuracy less cosine's, by updates and by time. A line joins cosine's own lengths."""
    study_found = found(runs)
    if isinstance(study_found, str):
        return
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
                ax.errorbar(cost[name], mean.value, yerr=reach, fmt="o", color=colour, label=name)
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
