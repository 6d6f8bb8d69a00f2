"""The study of results/path.md: falling noise at four training lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from lab.figures import drawn, forests
from lab.study import images, records, seeds, table
from lab.study import rows as study
from lab.study.records import Arm, Run
from lab.study.rows import Row

EXPERIMENT = "path"
SEEDS, LEAST = 40, 32  # planned; fewest that are judged
RATES, TUNED, SPREAD = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), range(900, 904), range(904, 910)
RATE = 0.8  # η_1, tuned
LENGTHS = (5, 20, 40, 80)  # epochs
TRAINED = 99  # % train accuracy of both arms, on average, where a claim is judged
ARMS: dict[str, Arm] = {
    "1": {"schedule": "method1"},
    "2": {"schedule": "method2"},
    "3": {"schedule": "method3"},
    "4": {"schedule": "method4"},
    "reversed": {"schedule": "method2", "order": "reversed"},
    "late": {
        "schedule": "own",
        "schedule._target_": "lab.study.late.late",
        "schedule.stages": 5,
        "split": 1,
    },
    "quiet": {"schedule": "method1", "learning_rate": RATE / 4},
}
WORDS = {  # for the arms, in the figure
    **{number: f"Method {number}" for number in "1234"},
    "reversed": "its reversed order",
    "late": "a late fall of η",
    "quiet": "constant at η₁/4",
}
# At 80 epochs
JUDGED = (("2", "1"), ("3", "1"), ("4", "1"), ("3", "2"), ("4", "2"), ("2", "quiet"))
ESTIMATED = (*JUDGED, ("2", "late"), ("2", "reversed"))  # at each length
ENDPOINTS = {"end_accuracy": "running", "anew_accuracy": "fresh"}  # statistics of BatchNorm
AFTERWARDS = (  # (arm, epochs) less another, post hoc: first half of Σ η, then nearly equal Σ η
    (("1", 40), ("1", 80)),
    (("2", 80), ("1", 40)),
    (("late", 20), ("late", 80)),
    (("late", 20), ("2", 80)),
)
FIGURE = "![Differences by training length](path.png)\n"
NOTE = (
    "p, of the sign-flip test, is adjusted (Holm). No p of equality is below 1. "
    "Detectable: in points, with 80 % power at the first step of Holm. "
    "Positive: the first arm is higher.\n"
)
LONGEST = "Of 80 epochs, medians: δ of the last, updates, seconds.\n"
ESTIMATES = (
    "Estimates with 95 % intervals by running statistics, "
    "without a verdict but for the six above:\n"
)
AFTER = "Post hoc, between lengths:\n"


def rows(seed_range: Sequence[int]) -> list[Row]:
    """The claims of the protocol, of these seeds."""
    claims = []
    for epochs, endpoint, (arm, other_arm) in product(LENGTHS, ENDPOINTS, ESTIMATED):
        longest = epochs == LENGTHS[-1] and endpoint == "end_accuracy"
        judged = longest and (arm, other_arm) in JUDGED
        claims.append(
            {
                "claim": _claim(epochs, endpoint, arm, other_arm),
                "test": "compare" if judged else "none",
                "experiment": EXPERIMENT,
                "first_seed": seed_range[0],
                "seeds": len(seed_range),
                "least": min(len(seed_range), LEAST),
                "endpoint": endpoint,
                "family": "judged" if judged else f"{epochs} {ENDPOINTS[endpoint]}",
                "first": ARMS[arm] | {"epochs": epochs},
                "second": ARMS[other_arm] | {"epochs": epochs},
            }
        )
    return claims


def _claim(epochs: int, endpoint: str, arm: str, other_arm: str) -> str:
    return f"{epochs} epochs, {ENDPOINTS[endpoint]}: {arm} − {other_arm}"


def fill(runs: Mapping[str, Run]) -> list[Row]:
    """The rows with their results; without them while too few seeds have run."""
    claims = rows(range(SEEDS))
    study.fill(claims, runs)
    for row in claims:
        if row["found"] and row["test"] != "none":
            seeds_of = range(row["found"]["n"])
            ends = study.values(row | {"endpoint": "end_train_accuracy"}, runs, seeds_of)
            if ends.mean(axis=1).min() < TRAINED:
                untold = {"p_adjusted": None, "p_equal_adjusted": None, "detectable": None}
                row["found"] |= untold | {"verdict": "not judged: training has not ended"}
    return claims


def summary(claims: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """The arms at each length, the figure, and the rows; or how many seeds have run."""
    seeds_of = study.seeds_of(claims, runs)
    if not seeds_of:
        seed_count = len(study.whole_seeds(claims, runs)) // len(study.arms(claims))
        return f"**{seed_count} whole seeds have run; {LEAST} are needed.**\n"
    columns = {"train": "end_train_accuracy", **{name: end for end, name in ENDPOINTS.items()}}
    lengths = [f"{epochs} epochs" for epochs in LENGTHS]
    lines = []
    for arm, settings in ARMS.items():
        cells = []
        for epochs in LENGTHS:
            of_arm = [
                runs[records.name_of(EXPERIMENT, settings | {"epochs": epochs}, seed)]
                for seed in seeds_of
            ]
            means = (
                np.mean([study.endpoint(run, end) for run in of_arm]) for end in columns.values()
            )
            cells.append(" / ".join(f"{mean:.2f}" for mean in means))
        ends = [
            (run.epochs[-1]["delta_measured"], run.epochs[-1]["updates"], run.status["seconds"])
            for run in of_arm
        ]
        level, updates, seconds = np.nanmedian(np.array(ends, dtype=float), axis=0)
        lines.append([arm, *cells, f"{level:.2g}", f"{updates:,.0f}", f"{seconds:.0f}"])
    head = [f"arm, {len(seeds_of)} seeds", *lengths, "δ", "updates", "seconds"]
    arms = table.markdown(head, lines)
    judged = table.table([row for row in claims if row["test"] != "none"])
    # each length by running statistics, as judged; of the longest by fresh ones too
    columns_shown = [*product(LENGTHS, ["end_accuracy"]), (LENGTHS[-1], "anew_accuracy")]
    estimates = table.markdown(
        ["", *lengths, f"{lengths[-1]}, fresh"],
        [
            [
                f"{arm} − {other_arm}",
                *(_estimate(claims, epochs, end, arm, other_arm) for epochs, end in columns_shown),
            ]
            for arm, other_arm in ESTIMATED
        ],
    )
    caption = f"Means in %: {' / '.join(columns)}. {LONGEST}"
    parts = [judged, NOTE, FIGURE, caption, arms, ESTIMATES, estimates, AFTER]
    return "\n".join([*parts, _afterwards(runs, seeds_of)])


def _afterwards(runs: Mapping[str, Run], seeds_of: Sequence[int]) -> str:
    """The differences that were chosen after the results were known."""
    lines = []
    for pair in AFTERWARDS:
        settings, other_settings = (ARMS[arm] | {"epochs": epochs} for arm, epochs in pair)
        arms: Row = {"experiment": EXPERIMENT, "first": settings, "second": other_settings}
        cells = [" − ".join(f"{arm}@{epochs}" for arm, epochs in pair)]
        for end in ENDPOINTS:
            above, below = study.values(arms | {"endpoint": end}, runs, seeds_of)
            cells.append(table.mean_with_interval(above - below))
        lines.append(cells)
    return table.markdown(["arm@epochs", *ENDPOINTS.values()], lines)


def _estimate(claims: Sequence[Row], epochs: int, endpoint: str, arm: str, other_arm: str) -> str:
    """The difference of two arms at a length, with its interval."""
    claim = _claim(epochs, endpoint, arm, other_arm)
    (numbers,) = (row["found"] for row in claims if row["claim"] == claim)
    return table.with_interval(numbers["statistic"], numbers["low"], numbers["high"])


def draw(claims: Sequence[Row], file: Path) -> None:
    """The differences by training length, by both statistics."""
    if not claims[0]["found"]:
        return
    names = [f"{WORDS[arm]} − {WORDS[other_arm]}" for arm, other_arm in ESTIMATED]
    with drawn(file, 2, 6.2, 4.2) as axes:
        axes[1].sharex(axes[0])
        for ax, (endpoint, statistics) in zip(axes, ENDPOINTS.items(), strict=True):
            groups = {
                f"{epochs} epochs": [
                    row["found"]
                    for row in claims
                    if row["endpoint"] == endpoint and row["first"]["epochs"] == epochs
                ]
                for epochs in LENGTHS
            }
            forests(ax, names, groups)
            n = claims[0]["found"]["n"]
            ax.set_xlabel(f"points of test accuracy, {statistics} statistics, 95 %, {n} seeds")


def tune(_: list[str]) -> None:
    """Train Method 1 at each η_1, and print its test accuracy: the mean and each seed's."""
    arms = [ARMS["1"] | {"learning_rate": rate, "epochs": LENGTHS[-1]} for rate in RATES]
    _has_images(TUNED)
    seeds.train_all(EXPERIMENT, arms, TUNED)
    runs = records.of_study()
    for arm in arms:
        names = [records.name_of(EXPERIMENT, arm, seed) for seed in TUNED]
        accuracies = [study.endpoint(runs[name], "end_accuracy") for name in names if name in runs]
        print(
            f"{arm['learning_rate']:g}: {np.mean(accuracies):.2f} {np.round(accuracies, 2)}",
            flush=True,
        )


def spread(_: list[str]) -> None:
    """Train what the rule for the seeds reads; print the standard deviations alone."""
    second = ARMS["2"] | {"epochs": LENGTHS[-1]}
    claims = [row for row in rows(SPREAD) if row["second"] == second and row["test"] != "none"]
    _has_images(SPREAD)
    seeds.run(claims, SPREAD)
    study.fill(claims, study.whole_seeds(claims, records.of_study()))
    deviations = [
        (row["claim"], f"{row['deviations']['sd']:.2f}") for row in claims if row["found"]
    ]
    print(table.markdown(["difference", "sd"], deviations))


def run(_: list[str]) -> None:
    """Train the planned seeds; what is archived is done."""
    _has_images(range(SEEDS))
    archived_runs = records.of_archives(pattern=f"{EXPERIMENT}.tar.xz")
    seeds.run(rows(range(SEEDS)), range(SEEDS), archived_runs)


def _has_images(seed_range: range) -> None:
    images.require((f"ten/{seed}" for seed in seed_range), f"ten {seed_range[0]} {len(seed_range)}")
