"""The sections of a report: a headline, a table of differences, and figures for each task."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from polars import DataFrame, col

from igo.config.names import method
from igo.config.schema import TASK
from igo.ground.files import Record
from igo.ground.statistics import least_seeds
from igo.report import figures
from igo.report.comparison import Pair, compare, differ_in_both, ratios
from igo.report.draw import Figure
from igo.report.formats import interval
from igo.report.provenance import commands, mixed
from igo.report.results import NEEDED, Results, needed
from igo.report.settings import CONSTANT_NOISE, constants, labels, names_in, shared

# More settings are not compared and drawn: more pairs decide nothing, more lines look alike.
MOST_SETTINGS = 12
MOST_NAMED = 4  # A headline names no more settings of one verdict.
MOST_BRIEF = 6  # The section "In brief" has no more pairs.
MARGIN = 0.5  # Settings may be called equal within these points of test accuracy.


@dataclass(frozen=True)
class Section:
    """The settings of one task, on the page and in the terminal."""

    name: str  # The page's id of the section, for links.
    title: str  # The task in words.
    shared: str  # What else all its settings have in common, in words.
    labels: dict[int, str]  # What tells each setting, by its number, from the others.
    rows: dict[int, Record]  # The row of each setting, by its number, in Results.settings.
    headline: str  # What was found; "" if there is nothing to compare.
    notes: Sequence[str]  # What else differs, and whether code was mixed.
    pairs: dict[str, list[Pair]]  # All pairs of settings, by the metric that is compared.
    figures: Sequence[Figure]
    commands: Sequence[str]
    needed: dict[str, dict[str, str]]  # By label, what each setting needs to reach a target.

    @property
    def brief(self) -> list[Pair]:
        """The pairs of "In brief", in accuracy: the first of ``pairs``."""
        return self.pairs["test/accuracy"][:MOST_BRIEF]

    def ratios(self, pair: Pair) -> str:
        """What else differs between the settings of a pair, in words."""
        return ratios(self.rows[pair.first], self.rows[pair.second])

    @property
    def detectable(self) -> float | None:
        """The smallest difference that the seeds detect, in points: the median over pairs.

        None if no pair detects any.
        """
        accuracy = self.pairs["test/accuracy"]
        differences = [pair.detectable for pair in accuracy if pair.detectable]
        return 100 * median(differences) if differences else None


def by_task(results: Results, margin: float = MARGIN) -> list[Section]:
    """A section for each task, those with settings to compare first.

    ``margin`` of equivalence is in points of test accuracy.
    """
    settings = results.settings.filter(col("n") > 0)
    names = [name for name in names_in(settings) if name.startswith(TASK)]
    tasks = settings.partition_by(names, maintain_order=True)
    # False comes before True: a task of one setting has nothing to compare.
    tasks.sort(key=lambda task: len(task) == 1)
    return [_section(results, task, names, i, margin) for i, task in enumerate(tasks, 1)]


def _section(
    results: Results, task: DataFrame, task_names: list[str], index: int, margin: float
) -> Section:
    """The section of a task: of settings that have the same values of ``task_names``.

    ``task`` has their rows, ``index`` is the number of the section, and ``margin`` is in points.
    """
    ranking = _ranking(task)
    # Without any accuracy there is no ranking, and all settings are shown. Methods 1 to 4 come
    # first: their names begin with an M, which is before any o.
    rows = sorted(
        ranking or task.to_dicts(), key=lambda row: (method(row) or "other", row["setting"])
    )
    labels_of_task = labels(task)
    shown = {row["setting"]: labels_of_task[row["setting"]] for row in rows}
    other_constants = [name for name in constants(task) if name not in task_names]
    ground = ", ".join(shared(rows[0], other_constants))
    if len(rows) < len(task):
        ground += f"; the {len(rows)} of highest accuracy of {len(task)} settings"
    runs = results.runs.filter("counted", col("setting").is_in([*shown]))
    pairs = _pairs(results, task, ranking, margin)
    return Section(
        name=f"task-{index}",
        title=", ".join(shared(rows[0], task_names)),
        shared=ground,
        labels=shown,
        rows={row["setting"]: row for row in rows},
        headline=headline(shown, ranking, pairs["test/accuracy"], margin),
        notes=[*caveats(shown, ranking, results.curves), *mixed(runs)],
        pairs=pairs,
        figures=figures.of_task(results, task, shown, index),
        commands=commands(runs),
        needed={label: needed(runs, setting) for setting, label in shown.items() if results.target},
    )


def _ranking(task: DataFrame) -> list[Record]:
    """The rows of the MOST_SETTINGS settings of highest accuracy, the highest first.

    A setting of which a run was not evaluated has no mean, and is neither ranked nor compared.
    """
    name = "test/accuracy_mean"
    ranked = task.drop_nulls(name).sort(name, descending=True, maintain_order=True)
    return ranked.head(MOST_SETTINGS).to_dicts()


def _pairs(
    results: Results, task: DataFrame, ranking: list[Record], margin: float
) -> dict[str, list[Pair]]:
    """All pairs of the settings in a ranking, by the metric that is compared.

    References, which are the controls and the settings of constant noise, are what others are
    compared with. In a pair of a reference and another setting, the reference is ``second``. In
    any other pair it is the setting of lower mean. Pairs with a reference come first in accuracy.
    """
    references = set(task.filter(col("control").is_not_null() | CONSTANT_NOISE)["setting"])
    settings = [row["setting"] for row in ranking]
    # ``compare`` pairs each setting with those behind it. False comes before True, and settings
    # with the same key stay in the order of the ranking.
    settings.sort(key=lambda setting: setting in references)
    accuracy = compare(results.runs, settings, "test/accuracy", margin / 100)
    accuracy.sort(key=lambda pair: pair.second not in references)
    loss = compare(results.runs, settings, "train/loss")
    pairs = {"test/accuracy": accuracy, "train/loss": loss}
    if results.target:
        for name in NEEDED:
            pairs[name] = compare(results.runs, settings, name, ranks=True)
    return pairs


def headline(
    labels: dict[int, str], ranking: list[Record], pairs: list[Pair], margin: float
) -> str:
    """What the pairs of test accuracy say of the best setting, the first of a ``ranking``.

    ``labels`` has a label for each setting. The text is empty if there is nothing to compare.
    """
    if len(ranking) < 2:
        return ""
    seeds = least_seeds(tests=len(pairs))  # With fewer seeds no test of a pair can decide.
    best = ranking[0]["setting"]
    best_pairs = [pair for pair in pairs if best in (pair.first, pair.second)]
    has_few_seeds = max(pair.n for pair in best_pairs) < seeds
    # With enough seeds "undecided" is a finding.
    if has_few_seeds and all(pair.verdict == "undecided" for pair in pairs):
        return f"No comparison can be decided: it needs {seeds} seeds that two settings share."
    forms = {
        "higher": "{best} is above {others}.",
        "equal": "Equal within ±{margin:g} points: {best} and {others}.",
        "undecided": "Undecided: {best} and {others}.",
        # The best mean is over all seeds of a setting, and a difference over the common seeds.
        "lower": "{best} is below {others} over the common seeds.",
    }
    opponents = _opponents(best, best_pairs)
    mean, low, high = (ranking[0][f"test/accuracy_{name}"] for name in ("mean", "low", "high"))
    # The accuracy is told in the first sentence alone. It may have no interval.
    subject = f"{labels[best]}, {100 * mean:.2f} % {interval(low, high)}".rstrip() + ","
    sentences = []
    for verdict, form in forms.items():
        others = [labels[setting] for setting in opponents[verdict]]
        if others:
            sentences.append(form.format(best=subject, others=listed(others), margin=margin))
            subject = labels[best]
    return " ".join(sentences)


def _opponents(best: int, pairs: list[Pair]) -> dict[str, list[int]]:
    """The other settings of the best setting's pairs, by the verdict on the best setting."""
    # Seen from the other setting, these two verdicts change; "equal" and "undecided" do not.
    opposite = {"higher": "lower", "lower": "higher"}
    opponents = defaultdict[str, list[int]](list)
    for pair in pairs:
        # A pair's verdict is on its first setting.
        if pair.first == best:
            opponents[pair.verdict].append(pair.second)
        else:
            opponents[opposite.get(pair.verdict, pair.verdict)].append(pair.first)
    return opponents


def caveats(labels: dict[int, str], ranking: list[Record], curves: DataFrame) -> list[str]:
    """A sentence that names the settings from which the best one differs in both η and b.

    The list is empty if there is none. The best setting is the first of a ``ranking``. Controls are
    left out: each is there to be compared with its own schedule.
    """
    if not ranking or ranking[0]["control"]:
        return []
    best, *others = (row["setting"] for row in ranking if not row["control"])
    opponents = [labels[other] for other in others if differ_in_both(curves, best, other)]
    if not opponents:
        return []
    return [
        f"{labels[best]} differs in η and b from {listed(opponents)}; the control is control=rate."
    ]


def listed(labels: list[str]) -> str:
    """Settings by their labels; how many there are, if they are more than MOST_NAMED."""
    return "; ".join(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} settings"
