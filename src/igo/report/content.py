"""The sections of a report: a headline, a table of differences, and figures for each task."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import polars as pl

from igo.config.names import method
from igo.config.schema import TASK
from igo.ground.files import Record
from igo.ground.statistics import least_seeds
from igo.report import figures
from igo.report.comparison import Pair, compare
from igo.report.draw import Figure
from igo.report.names import constant_noise, labels, shared
from igo.report.reading import names_in
from igo.report.results import Results, commands, mixed

MOST_SETTINGS = 12  # compared and drawn: more pairs decide nothing, more lines look alike
MOST_NAMED = 4  # in the headline, of each verdict
MOST_BRIEF = 6  # pairs in the section "In brief"
MARGIN = 0.5  # points of test accuracy, within which settings may be called equal


@dataclass(frozen=True)
class Section:
    """A part of the page: the settings of one task."""

    name: str  # of its place in the page
    title: str  # the task in words
    shared: str  # what else all its settings have in common
    labels: dict[int, str]  # by its number, what tells each setting from the others
    headline: str  # what was found, and whether code was mixed; "" if neither
    pairs: dict[str, list[Pair]]  # all pairs of settings, by the metric that is compared
    figures: Sequence[Figure]
    commands: Sequence[str]

    @property
    def brief(self) -> list[Pair]:
        """The pairs of "In brief", in accuracy: those of the first setting first."""
        return self.pairs["test/accuracy"][:MOST_BRIEF]

    @property
    def detectable(self) -> float | None:
        """The median over pairs of the smallest difference that the seeds detect, in points."""
        known = [pair.detectable for pair in self.pairs["test/accuracy"] if pair.detectable]
        return 100 * median(known) if known else None


def compared(results: Results, margin: float = MARGIN) -> list[Section]:
    """A section for each task, those with settings to compare first.

    ``margin`` of equivalence is in points of test accuracy.
    """
    usable = results.settings.filter(pl.col("n") > 0)
    alike = [name for name in names_in(usable) if name.startswith(TASK)]
    tasks = usable.partition_by(alike, maintain_order=True) if len(usable) else []
    # False comes first: a task of one setting has nothing to compare.
    tasks.sort(key=lambda task: len(task) == 1)
    return [_section(results, task, i, margin) for i, task in enumerate(tasks, 1)]


def _section(results: Results, task: pl.DataFrame, number: int, margin: float) -> Section:
    # A setting has no mean where a run of it was not evaluated: it can neither be ranked nor
    # compared.
    known = task.drop_nulls("test/accuracy_mean").sort(
        "test/accuracy_mean", descending=True, maintain_order=True
    )
    ranked = known.head(MOST_SETTINGS).to_dicts()
    settings = [row["setting"] for row in ranked]
    rows = [row for row in task.to_dicts() if row["setting"] in settings or not settings]
    # The names begin with an M, so they come before "other".
    rows.sort(key=lambda row: method(row) or "other")  # Methods 1 to 4 first
    names = labels(task)
    named = {row["setting"]: names[row["setting"]] for row in rows}
    in_task = [name for name in names_in(task) if name.startswith(TASK)]
    common = [name for name in names_in(task) if task[name].n_unique() == 1]
    said = ", ".join(shared(rows[0], [name for name in common if name not in in_task]))
    if len(rows) < len(task):
        said += f"; the {len(rows)} of highest accuracy of {len(task)} settings"
    # In a difference constant noise comes second, else the setting of lower mean.
    constant = set(constant_noise(task)["setting"])
    settings.sort(key=lambda setting: setting in constant)
    accuracy = compare(results.runs, settings, "test/accuracy", margin / 100)
    # Differences from constant noise are shown first.
    accuracy.sort(key=lambda pair: pair.second not in constant)
    notes = (f"{line[0].upper()}{line[1:]}." for line in mixed(results.runs, named))
    return Section(
        name=f"task-{number}",
        title=", ".join(shared(rows[0], in_task)),
        shared=said,
        labels=named,
        headline=" ".join(filter(None, (headline(named, ranked, accuracy, margin), *notes))),
        pairs={
            "test/accuracy": accuracy,
            "train/loss": compare(results.runs, settings, "train/loss"),
        },
        figures=figures.of_task(results, task, named, accuracy, number),
        commands=commands(results.runs, list(named)),
    )


def headline(names: dict[int, str], ranked: list[Record], pairs: list[Pair], margin: float) -> str:
    """What the pairs say of the best of the ``ranked`` settings, in the words of their verdicts."""
    if len(ranked) < 2:
        return ""
    least = least_seeds(len(pairs))
    best = ranked[0]["setting"]
    of_best = [pair for pair in pairs if best in (pair.first, pair.second)]
    # Here seeds are missing. With enough of them "undecided" is a finding.
    if {pair.verdict for pair in pairs} == {"undecided"} and max(x.n for x in of_best) < least:
        return f"No comparison can be decided: it needs {least} seeds that two settings share."
    mean, low, high = (ranked[0][f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    interval = "" if low is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    said = {
        "lower": "Lower",
        "equal": f"Equal within ±{margin:g} points",
        "undecided": "Undecided",
        # The mean is of all seeds, and a pair's difference of those that both have.
        "higher": "Higher over the common seeds",
    }
    others: dict[str, list[str]] = {verdict: [] for verdict in said}
    for pair in of_best:
        other, verdict = pair.first, pair.verdict
        if other == best:
            opposite = {"higher": "lower", "lower": "higher"}
            other, verdict = pair.second, opposite.get(verdict, verdict)
        others[verdict].append(names[other])
    found = [f"{names[best]}, {100 * mean:.2f} %{interval}, is highest."]
    for verdict, word in said.items():
        if alike := others[verdict]:
            named = "; ".join(alike) if len(alike) <= MOST_NAMED else f"{len(alike)} settings"
            found.append(f"{word}: {named}.")
    return " ".join(found)
