"""The study of results/cifar100.md: Methods 1 to 4 in many passes over images, and in few."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from operator import itemgetter
from pathlib import Path

from lab.figures import drawn
from lab.study import judged, records, table
from lab.study.design import Arms, Job, Runs, Study
from lab.study.judged import MARGIN, Judged
from lab.study.records import Settings
from lab.study.table import Page

RATE, ANNEAL = 0.8, 0.08  # η_1, tuned; η of the anneal
ARMS: dict[str, Settings] = {
    **{f"Method {m}": {"schedule": f"method{m}", "learning_rate": RATE} for m in "1234"},
    "Method 2 reversed": {"schedule": "method2", "control": "reversed", "learning_rate": RATE},
}
ENDPOINTS = {  # what the CSVs call them; a loss is 100 ln of the test loss
    "running": "end_accuracy",
    "augmented": "anew_augmented_accuracy",
    "averaging": "averaging",
    "plain": "anew_accuracy",
    "augmented, annealed": "annealed_augmented_accuracy",
    "plain, annealed": "annealed_accuracy",
    "loss": "anew_log_loss",
    "loss, annealed": "annealed_log_loss",
    "train loss": "end_train_loss",
}
DRAWN = {
    "running statistics": "end_accuracy",
    "fresh, augmented images": "anew_augmented_accuracy",
    "fresh, plain images": "anew_accuracy",
}
FIGURE = "![The differences by endpoint](cifar100.png)\n"
Family = tuple[str, tuple[tuple[str, str], ...]]  # an endpoint, and arms beside their rivals
ABOVE = (
    ("Method 2", "Method 1"),
    ("Method 3", "Method 1"),
    ("Method 4", "Method 1"),
    ("Method 2", "Method 2 reversed"),
)
EQUAL = (("Method 3", "Method 2"), ("Method 4", "Method 2"))
SHOWN: tuple[Family, ...] = (("plain", ABOVE), ("plain", EQUAL), ("plain, annealed", ABOVE))
JUDGED = (*SHOWN, ("loss", ABOVE), ("loss, annealed", ABOVE))


def study(name: str, n: int) -> Study:
    """The study of an experiment: all arms of a seed, and then those of the next."""

    def jobs(_: Runs) -> Iterator[Job]:
        for seed, arm in product(range(n), ARMS):
            yield {"arm": arm, "seed": seed}

    def settings(job: Job) -> Settings:
        return {"experiment": name, **ARMS[job["arm"]], "seed": job["seed"]}

    return records.study(name, jobs, settings, range(n), n, itemgetter("arm"), ANNEAL)


STUDY, FEW_STUDY = study("cifar100_many", 8), study("cifar100_few", 3)


def regimes(arms: Arms) -> dict[str, Arms]:
    """The arms of both regimes."""
    return {"many passes": arms, "few passes": FEW_STUDY.arms(FEW_STUDY.archived())}


def tested(arms: Arms, families: Iterable[Family]) -> list[Judged]:
    """Differences and what the seeds say of them; p is adjusted in each family.

    Arms are equal within MARGIN, in 100 ln of a loss within 1: a loss of 1 % more or less.
    """
    outcomes: list[Judged] = []
    for endpoint, pairs in families:
        claims = [
            replace(claim, name=f"{endpoint}: {claim.name}")
            for claim in judged.claims(arms, pairs, {"difference": ENDPOINTS[endpoint]})
        ]
        outcomes += judged.tested(claims, 1.0 if "loss" in endpoint else MARGIN)
    return outcomes


def measured(arms: Arms) -> dict[str, str]:
    """The endpoints that these runs have."""
    return {end: field for end, field in ENDPOINTS.items() if field in arms["Method 1"][0]}


def means(arms: Arms) -> str:
    """Means over the seeds, as CSV."""
    return table.csv(
        {
            "regime": regime,
            "seeds": len(records),
            "arm": arm,
            "updates": records[0]["epochs"][-1]["updates"],
            **judged.means(records, measured(of_regime)),
        }
        for regime, of_regime in regimes(arms).items()
        for arm, records in of_regime.items()
    )


def differences(arms: Arms) -> str:
    """All differences as CSV; only the families of JUDGED, of many passes, have a verdict."""
    lines = []
    for regime, of_regime in regimes(arms).items():
        for family in product(measured(of_regime), (ABOVE, EQUAL)):
            is_judged = regime == "many passes" and family in JUDGED
            for claim, test, verdict in tested(of_regime, [family]):
                line = {"regime": regime, "claim": claim.name, **claim.columns}
                line |= {"p": test.p_holm, "p_equal": test.p_equal_holm}
                lines.append(line | {"verdict": verdict if is_judged else None})
    return table.csv(lines, 4)


def summary(arms: Arms) -> str:
    """The figure, and the claims by accuracy."""
    return f"{FIGURE}\n{judged.shown(tested(arms, SHOWN), equality=False)}"


def draw(arms: Arms, path: Path) -> None:
    """The differences by endpoint, of many passes."""
    with drawn(path, 3.2) as (forest,):
        judged.forest(forest, judged.claims(arms, ABOVE, DRAWN))


PAGE = Page(
    "cifar100",
    STUDY,
    summary,
    draw,
    {"cifar100_means.csv": means, "cifar100_differences.csv": differences},
)
