"""What results/cause.md shows: the claims, the arms, their noise by stage, and the tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from igo.ground.statistics import Array, mean_of
from igo.report.comparison import Pair, adjusted, p_value, pair
from lab.figures import COLOURS, INK, drawn
from lab.study import cause, rows, table
from lab.study.cause import ARMS, LEAST, RATE, RATES, SEEDS, STAGES, TRAINED, TUNED, Found

CLAIMS = (("avg", "even"), ("avg", "flat"), ("avg", "m2"), ("smoothed", "k8"))
BEST = "even at its best η"
ESTIMATES = (
    ("smoothed", "avg"), ("avg", "m1"), ("m2", "m1"), ("even", "m1"), ("k8", "even"),
    ("busy", "even"), ("avg", "rising"),
)  # fmt: skip
ENDPOINTS = ("fresh", "running", "annealed")
ALL = ("train", *ENDPOINTS)
OF_STAGE = {"C2": "C²", "delta": "δ", "norm": "‖w‖", "rate": "η/‖w‖²"}
FIGURE = "![Differences; δ and ‖w‖ by stage](cause.png)\n"
Runs = Mapping[str, Sequence[Found]]  # of each arm, seed by seed


def found(runs: Mapping[str, Found]) -> Runs | str:
    """The runs of whole seeds; or, while the study has not ended, how far it is."""
    unseen = "No result has been looked at."
    best = cause.best_rate("even", runs)
    if best is None:
        return f"**The tuning has not ended.** {unseen}\n"
    seeds = cause.whole_seeds(runs)
    n = [*(seed in seeds for seed in SEEDS), False].index(False)
    if n < LEAST:
        return f"**{n} whole seeds have run; {LEAST} are needed.** {unseen}\n"
    by_arm: dict[str, list[Found]] = {name: [] for name in ARMS}
    if best != RATE:
        by_arm[BEST] = []
    for seed in SEEDS[:n]:
        for run in seeds[seed]:
            by_arm[run["arm"] if run["rate"] == RATE else BEST].append(run)
    return by_arm


def ends(runs: Sequence[Found], endpoint: str) -> Array:
    """An endpoint in %, seed by seed: of a loss that is not finite it is that of chance."""
    return np.array([run.get(endpoint, cause.NOT_FINITE) for run in runs])


def judged(runs: Runs) -> list[tuple[str, str, Pair, str]]:
    """The arms of each claim, what the seeds say, and the verdict."""
    claims = [*CLAIMS, *([("avg", BEST)] if BEST in runs else [])]
    differences = [ends(runs[x], "fresh") - ends(runs[y], "fresh") for x, y in claims]
    pairs = adjusted([pair(each, rows.MARGIN) for each in differences])
    judgements = []
    for (first, second), tested in zip(claims, pairs, strict=True):
        trained = min(ends(runs[name], "train").mean() for name in (first, second))
        verdict = tested.verdict if trained >= TRAINED else "not judged: not trained to the end"
        judgements.append((first, second, tested, verdict))
    return judgements


def _differences(runs: Runs, first: str, second: str) -> list[str]:
    """Of each endpoint, over the seeds that both arms have: the first ones."""
    n = min(len(runs[first]), len(runs[second]))
    cells = [table.mean_with_interval(ends(runs[first][:n], end) - ends(runs[second][:n], end))
             for end in ENDPOINTS]  # fmt: skip
    return [f"{first} − {second}", str(n), *cells]


def summary(every: Mapping[str, Found]) -> str:
    """The claims, the estimates, the arms, their noise by stage, and the tuning."""
    runs = found(every)
    if isinstance(runs, str):
        return runs
    claims, head = [], ["claim", "n", *(f"{end}, 95 %" for end in ENDPOINTS)]
    for first, second, tested, verdict in judged(runs):
        power = "–" if tested.detectable is None else f"{tested.detectable:.2g}"
        claims.append([
            *_differences(runs, first, second), p_value(tested.p_holm),
            p_value(tested.p_equal_holm), power, verdict,
        ])  # fmt: skip
    columns = [*head, "p, different", "p, equal", "detectable", "verdict"]
    estimates = [_differences(runs, *arms) for arms in ESTIMATES]
    parts = [table.markdown(columns, claims), FIGURE]
    parts += [table.markdown(["estimate", *head[1:]], estimates)]
    return "\n".join([*parts, _arms(runs), _stages(runs), _tuning(every)])


def _arms(runs: Runs) -> str:
    """Mean accuracies, gradients taken, the update that passes 99.5 %, and losses not finite."""
    lines = []
    for name, of_arm in runs.items():
        finite = [run for run in of_arm if run["finite"]]
        passed = [run["passed"] for run in finite if run["passed"]]
        lines.append([
            name, str(len(of_arm)), *(f"{ends(of_arm, end).mean():.2f}" for end in ALL),
            f"{np.median([run['passes'] for run in finite]):,.0f}",
            f"{np.median(passed):,.0f} ({len(passed)})" if passed else "–",
            str(len(of_arm) - len(finite)),
        ])  # fmt: skip
    head = ["arm", "n", *(f"{end}, %" for end in ALL), "gradients of a batch"]
    return table.markdown([*head, "update that passes 99.5 % (runs)", "not finite"], lines)


def by_stage(of_arm: Sequence[Found], name: str) -> Array:
    """The mean over seeds, of each stage."""
    every = []
    for run in of_arm:
        if run["finite"]:
            every.append([stage["eta"] / stage["norm"] ** 2 if name == "rate" else stage[name]
                          for stage in run["stages"]])  # fmt: skip
    means: Array = np.mean(every, axis=0)
    return means


def _stages(runs: Runs) -> str:
    lines = []
    for name, of_arm in runs.items():
        of_quantities = [by_stage(of_arm, quantity) for quantity in OF_STAGE]
        cells = [" / ".join(f"{mean:.2g}" for mean in means)
                 for means in zip(*of_quantities, strict=True)]  # fmt: skip
        lines.append([name, *cells])
    head = [" / ".join(OF_STAGE.values()), *(f"stage {m}" for m in range(1, STAGES + 1))]
    return table.markdown(head, lines)


def _tuning(every: Mapping[str, Found]) -> str:
    lines = []
    for name in ("even", "flat"):
        means = (np.mean([every[cause.key(name, seed, rate)]["fresh"] for seed in TUNED])
                 for rate in RATES)  # fmt: skip
        lines.append([name, *(f"{mean:.2f}" for mean in means)])
    return table.markdown(["tuning: η", *(f"{rate:g}" for rate in RATES)], lines)


def draw(every: Mapping[str, Found], file: Path) -> None:
    """The differences by fresh statistics, the claims in blue; δ and ‖w‖ by stage."""
    runs = found(every)
    if isinstance(runs, str):
        return
    claims = [(first, second) for first, second, *_ in judged(runs)]
    pairs = [*claims, *ESTIMATES]
    with drawn(file, 3, 3.6, 3.8) as (forest, delta, norm):
        for place, (first, second) in enumerate(pairs):
            n = min(len(runs[first]), len(runs[second]))
            mean = mean_of(ends(runs[first][:n], "fresh") - ends(runs[second][:n], "fresh"))
            colour = COLOURS[0] if place < len(claims) else COLOURS[-1]
            reach = mean.value - mean.low
            forest.errorbar(mean.value, -place, xerr=reach, fmt="o", ms=3.5, color=colour)
        names = [f"{first} − {second}" for first, second in pairs]
        forest.set_yticks([-place for place in range(len(pairs))], names)
        forest.axvline(0, color=INK, lw=0.8)
        forest.set_xlabel("points of test accuracy, fresh statistics, 95 %")
        for (name, of_arm), colour in zip(runs.items(), [*COLOURS, *COLOURS], strict=False):
            stages = range(1, STAGES + 1)
            style = "-" if list(runs).index(name) < len(COLOURS) else "--"
            delta.plot(stages, by_stage(of_arm, "delta"), style, color=colour, label=name)
            norm.plot(stages, by_stage(of_arm, "norm"), style, color=colour)
        delta.set(xlabel="stage", ylabel="δ measured at its end", yscale="log")
        norm.set(xlabel="stage", ylabel="‖w‖ at its end")
        delta.legend()
