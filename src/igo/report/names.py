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
    """What settings have in common, in words; ``row`` is one of them."""
    # How C² is measured changes no training.
    told_names = [name for name in names if name not in FACTS and not name.startswith("noise.")]
    # What else this row's schedule has is its own, and must not name the schedule of all.
    own_names = set(filter(of_schedule, row)) - set(names)
    values = {name: value for name, value in row.items() if name not in own_names}
    return words(values, told_names)


def labels(settings: pl.DataFrame) -> dict[int, str]:
    """By its number, what tells each setting from the others; of one setting its schedule."""
    names = differing(settings)
    if settings["data"].n_unique() > 1 or "dataset.name" in names:
        other_names = [name for name in names if name not in {"dataset.name", *FACTS}]
        names = ["dataset.name", *other_names]
    by_setting = {
        row["setting"]: ", ".join(
            words(row, names)
            or words(row, names, every=True)
            or words(row, [*filter(of_schedule, row)])
        )
        for row in settings.to_dicts()
    }
    counts = Counter(by_setting.values())
    return {
        setting: f"{label} (setting {setting})" if counts[label] > 1 else label
        for setting, label in by_setting.items()
    }


def constant_noise(settings: pl.DataFrame) -> pl.DataFrame:
    """The settings whose η and b are constant; with a table of b the profile alone is."""
    return settings.filter(pl.col("schedule.sizes").is_null(), **{"schedule.profile": "constant"})


def without_delta(settings: pl.DataFrame) -> list[str]:
    """Why some settings have no δ, a sentence for each optimizer."""
    configs = map(OptimizerConfig, settings["optimizer.name"].unique(maintain_order=True))
    return [config.why_null for config in configs if config.why_null]
