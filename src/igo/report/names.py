"""Settings of many runs in words: what they have in common, and a label for each."""

from collections import Counter
from collections.abc import Collection

import polars as pl

from igo.config.names import of_schedule, words
from igo.config.schema import OptimizerConfig
from igo.ground.files import Record
from igo.report.runs import FINGERPRINT
from igo.report.settings import differing

# These follow from a data set: its digest, and facts about its images.
FACTS = {
    FINGERPRINT,
    "dataset.classes",
    "dataset.channels",
    "dataset.image_size",
    "dataset.mean",
    "dataset.std",
}


def shared(row: Record, names: Collection[str]) -> list[str]:
    """The values that all rows of settings have in common, in words.

    ``names`` are the columns in common, and ``row`` is any of the rows.
    """
    # Settings of noise say how C² is measured, which changes no training.
    told_names = [name for name in names if name not in FACTS and not name.startswith("noise.")]
    # The rest of this row's schedule is not in common, and must not name the schedule of all.
    values = {name: row[name] for name in row if name in names or not of_schedule(name)}
    return words(values, told_names)


def labels(settings: pl.DataFrame) -> dict[int, str]:
    """The label of each setting, by its number: what tells it from the others.

    A setting alone is told by its schedule.
    """
    names = differing(settings)
    if settings["data"].n_unique() > 1 or "dataset.name" in names:
        other_names = [name for name in names if name not in {"dataset.name", *FACTS}]
        names = ["dataset.name", *other_names]
    by_setting = {}
    for row in settings.to_dicts():
        texts = words(row, names)
        if not texts:  # What differs here are defaults, which ``words`` left out.
            texts = words(row, names, every=True)
        if not texts:  # There is one setting, and nothing differs.
            texts = words(row, [*filter(of_schedule, row)])
        by_setting[row["setting"]] = ", ".join(texts)
    counts = Counter(by_setting.values())
    for setting, label in by_setting.items():
        if counts[label] > 1:
            by_setting[setting] = f"{label} (setting {setting})"
    return by_setting


def constant_noise(settings: pl.DataFrame) -> pl.DataFrame:
    """The settings whose η and b are constant; with a table of b only the profile is."""
    return settings.filter(pl.col("schedule.sizes").is_null(), **{"schedule.profile": "constant"})


def without_delta(settings: pl.DataFrame) -> list[str]:
    """Why some settings have no δ, a sentence for each optimizer."""
    configs = map(OptimizerConfig, settings["optimizer.name"].unique(maintain_order=True))
    return [config.why_null for config in configs if config.why_null]
