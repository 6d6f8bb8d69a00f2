"""What results/cause.md shows: the claims, the arms, their noise by stage, and the tuning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import Array, mean_of
from igo.report.comparison import Pair, adjusted, p_value, pair
from lab.figures import COLOURS, INK, drawn
from lab.study import cause, rows, table
from lab.study.cause import ARMS, LEAST, RATE, RATES, SEEDS, STAGES, TRAINED, TUNED, Found

BEST = "even at its best η"  # the tuning found another than that of all arms: one more claim
CLAIMS = (("avg", "even"), ("avg", "flat"), ("avg", "m2"), ("smoothed", "k8"), ("avg", BEST))
ESTIMATES = (
    ("smoothed", "avg"),
    ("avg", "m1"),
    ("m2", "m1"),
    ("even", "m1"),
    ("k8", "even"),
    ("busy", "even"),
    ("avg", "rising"),
    ("avg", "busy"),
    ("smoothed", "m1"),
    ("smoothed", BEST),
    (BEST, "even"),  # post hoc
)
COMPARED = ("fresh", "annealed")
ENDPOINTS = ("train", "fresh", "running", "annealed")
OF_STAGE = ("C2", "delta", "shift", "norm", "eta/norm^2", "train")
FIGURE = "![Differences; δ and ‖w‖ by stage](cause.png)\n"
Runs = Mapping[str, Sequence[Found]]  # the runs of each arm, seed by seed


def found(runs: Mapping[str, Found], epochs: int = cause.EPOCHS) -> Runs:
    """The runs of the whole seeds, from the first one on without a gap."""
    seeds = cause.whole_seeds(runs, epochs)
    n = [*(seed in seeds for seed in SEEDS), False].index(False)
    by_arm: dict[str, list[Found]] = {name: [] for name in [*ARMS, BEST]}
    for run in itertools.chain.from_iterable(seeds[seed] for seed in SEEDS[:n]):
        by_arm[run["arm"] if run["rate"] == RATE else BEST].append(run)
    return by_arm


def ends(runs: Sequence[Found], endpoint: str) -> Array:
    """An endpoint in %, seed by seed: of a loss that is not finite it is that of chance."""
    return np.array([run.get(endpoint, cause.NOT_FINITE) for run in runs])


def judged(runs: Runs) -> list[tuple[str, str, Pair, str]]:
    """The arms of each claim, what the seeds say, and the verdict."""
    pairs = adjusted([pair(differences(runs, *arms, "fresh"), rows.MARGIN) for arms in CLAIMS])
    judgements = []
    for (arm, other_arm), comparison in zip(CLAIMS, pairs, strict=True):
        accuracy = min(ends(runs[name], "train").mean() for name in (arm, other_arm))
        verdict = (
            comparison.verdict if accuracy >= TRAINED else "not judged: not trained to the end"
        )
        if len(runs[arm]) < LEAST:
            verdict = "not judged: too few seeds"
        judgements.append((arm, other_arm, comparison, verdict))
    return judgements


def differences(runs: Runs, arm: str, other_arm: str, endpoint: str) -> Array:
    """Seed by seed, over the seeds that both arms have: the first ones."""
    n = min(len(runs[arm]), len(runs[other_arm]))
    return ends(runs[arm][:n], endpoint) - ends(runs[other_arm][:n], endpoint)


def summary(records: Mapping[str, Found]) -> str:
    """The claims and the tuning."""
    runs, claims = found(records), []
    for arm, other_arm, comparison, verdict in judged(runs):
        power = "–" if comparison.detectable is None else f"{comparison.detectable:.2g}"
        differences_of = [differences(runs, arm, other_arm, end) for end in COMPARED]
        claims.append(
            [
                f"{arm} − {other_arm}",
                str(len(differences_of[0])),
                *map(table.mean_with_interval, differences_of),
                p_value(comparison.p_holm),
                p_value(comparison.p_equal_holm),
                power,
                verdict,
            ]
        )
    head = ["claim", "n", *(f"{end}, 95 %" for end in COMPARED)]
    columns = [*head, "p, different", "p, equal", "detectable", "verdict"]
    return "\n".join([table.markdown(columns, claims), FIGURE, _tuning(records)])


def estimates(records: Mapping[str, Found]) -> str:
    """All differences, with intervals of 95 %, in CSV."""
    lines = []
    for epochs in (cause.EPOCHS, cause.LONG):
        runs = found(records, epochs)
        for arm, other_arm in (*CLAIMS, *ESTIMATES):
            if not runs[arm] or not runs[other_arm]:
                continue
            differences_of = [differences(runs, arm, other_arm, end) for end in COMPARED]
            line: Found = {
                "epochs": epochs,
                "difference": f"{arm} − {other_arm}",
                "n": len(differences_of[0]),
            }
            for end, mean in zip(COMPARED, map(mean_of, differences_of), strict=True):
                line |= {end: mean.value, f"{end}_low": mean.low, f"{end}_high": mean.high}
            lines.append(line)
    return pl.DataFrame(lines).write_csv(float_precision=2)


def means(records: Mapping[str, Found]) -> str:
    """The mean of each endpoint in %, and when an arm passes 99.5 % in training, in CSV."""
    lines = []
    for epochs, name, of_arm in _arms(records):
        finite = [run for run in of_arm if run["finite"]]
        updates_passed = [run["passed"] for run in finite if run["passed"]]
        lines.append(
            {
                "epochs": epochs,
                "arm": name,
                "n": len(of_arm),
                **{end: round(ends(of_arm, end).mean(), 2) for end in ENDPOINTS},
                "passed": float(np.median(updates_passed))
                if updates_passed
                else None,  # the update
                "runs_passed": len(updates_passed),
                "not_finite": len(of_arm) - len(finite),
            }
        )
    return pl.DataFrame(lines).write_csv()


def _arms(records: Mapping[str, Found]) -> list[tuple[int, str, Sequence[Found]]]:
    """Epochs, arm and runs."""
    return [
        (epochs, name, of_arm)
        for epochs in (cause.EPOCHS, cause.LONG)
        for name, of_arm in found(records, epochs).items()
        if of_arm
    ]


def by_stage(of_arm: Sequence[Found], name: str) -> Array:
    """The mean over seeds, of each stage."""
    rows_of_runs = []
    for run in of_arm:
        if run["finite"]:
            rows_of_runs.append(
                [
                    stage["eta"] / stage["norm"] ** 2 if name == "eta/norm^2" else stage[name]
                    for stage in run["stages"]
                ]
            )
    mean: Array = np.mean(rows_of_runs, axis=0)
    return mean


def stages(records: Mapping[str, Found]) -> str:
    """What was measured after each stage, as means over the seeds, in CSV."""
    lines = []
    for epochs, name, of_arm in _arms(records):
        columns = {key: by_stage(of_arm, key).tolist() for key in OF_STAGE}
        place = {"epochs": epochs, "arm": name, "stage": range(1, STAGES + 1)}
        lines.append(pl.DataFrame({**place, **columns}))
    return pl.concat(lines).write_csv(float_precision=3, float_scientific=True)


def _tuning(records: Mapping[str, Found]) -> str:
    lines = []
    for name in ("even", "flat"):
        by_rate = (
            np.mean([records[cause.key(name, seed, rate)]["fresh"] for seed in TUNED])
            for rate in RATES
        )
        lines.append([name, *(f"{mean:.2f}" for mean in by_rate)])
    return table.markdown(["tuning: η", *(f"{rate:g}" for rate in RATES)], lines)


def draw(records: Mapping[str, Found], file: Path) -> None:
    """The differences, claims in blue, annealed ones hollow; δ and ‖w‖ by stage."""
    runs = found(records)
    pairs = [*CLAIMS, *ESTIMATES]
    with drawn(file, 3, 3.6, 4.6) as (forest, delta, norm):
        for place, (arm, other_arm) in enumerate(pairs):
            colour = COLOURS[0] if place < len(CLAIMS) else COLOURS[-1]
            for end, lower, fill in zip(COMPARED, (0.0, 0.3), (colour, "white"), strict=True):
                mean = mean_of(differences(runs, arm, other_arm, end))
                reach, label = mean.value - mean.low, end if place == 0 else None
                forest.errorbar(
                    mean.value,
                    -place - lower,
                    xerr=reach,
                    fmt="o",
                    ms=3.5,
                    lw=1,
                    color=colour,
                    mfc=fill,
                    label=label,
                )
        names = [f"{arm} − {other_arm}" for arm, other_arm in pairs]
        forest.set_yticks([-place for place in range(len(pairs))], names)
        forest.axvline(0, color=INK, lw=0.8)
        forest.set_xlabel("points of test accuracy, 95 %")
        forest.legend(loc="lower right")
        numbers = range(1, STAGES + 1)
        for (name, of_arm), colour in zip(runs.items(), [*COLOURS, *COLOURS], strict=False):
            style = "-" if list(runs).index(name) < len(COLOURS) else "--"
            delta.plot(numbers, by_stage(of_arm, "delta"), style, color=colour)
            norm.plot(numbers, by_stage(of_arm, "norm"), style, color=colour, label=name)
        delta.set(xlabel="stage", xticks=numbers, ylabel="δ of the step, at the end", yscale="log")
        norm.set(xlabel="stage", xticks=numbers, ylabel="‖w‖ at the end")
        norm.legend(loc="center left", bbox_to_anchor=(1, 0.5))
