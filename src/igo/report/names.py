"""Settings in words: a name for each schedule, and a label for each setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import polars as pl

from igo.config.own import is_call
from igo.config.schema import FORMULAS, SETTINGS, OptimizerConfig
from igo.ground.errors import counted
from igo.ground.files import Record
from igo.method.profiles import PROFILES, paper_method, parameters
from igo.report.reading import DEFAULTS, FINGERPRINT, differing

SHORT = {name: setting.notes.text for name, setting in SETTINGS.items() if setting.notes.text}
SHORT["schedule.gamma"] = "γ"
ALWAYS = ("epochs", "learning_rate", "batch_size")  # shown even as defaults
FACTS = {f"dataset.{fact}" for fact in ("classes", "channels", "image_size", "mean", "std")}
DATASETS = {
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
}
OF_PROFILES = {  # κ and λ stand for γ and split
    name: ["p" if parameter == "p" else f"schedule.{parameter}" for parameter in parameters(name)]
    for name in PROFILES
}
SCHEDULE = {"schedule.profile", "split", "schedule.kappa", "schedule.lam"}.union(
    *OF_PROFILES.values()
)


def data_set(row: Record) -> str:
    """A data set's name; for the user's own data, the name of the file or folder if it is known."""
    return str(row.get("data") or DATASETS.get(row["dataset.name"], row["dataset.name"]))


def method(row: Record) -> str | None:
    """The name of one of the paper's Methods 1 to 4; None for other schedules."""
    profile = row.get("schedule.profile")
    others = ("schedule.gamma", "split", "schedule.growth", "schedule.rate")
    name = paper_method(profile, *(row.get(other) for other in others))
    return "Method 1 (constant)" if name == "Method 1" else name


def schedule_name(row: Record) -> str:
    """A schedule by its profile and parameters: ``p = 0.5``, ``wsd 0.2``, ``Method 2``."""
    profile = str(row["schedule.profile"])
    if name := method(row):
        return name
    if profile in ("graduated", "polynomial"):
        return f"p = {row['p']:g}"
    if is_call(profile):
        return profile
    values = [row.get(parameter) for parameter in OF_PROFILES.get(profile, ())]
    shown = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in values if x]
    return " ".join([profile.replace("_", " "), *shown])


def phrase(row: Record, name: str) -> str:
    """A setting with its value, in words: ``η₁ 0.1``, ``no flip``."""
    value = row[name]
    short = SHORT.get(name, name.rpartition(".")[2].replace("_", " "))
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    match name:
        case "dataset.name":
            return data_set(row)
        case "model.name" | "optimizer.name":
            return shown.upper() if shown in FORMULAS else shown
        case "dataset.samples":
            return f"n = {value:,}"
        case "epochs":
            return counted(value, "epoch")
    if value is None or isinstance(value, bool):
        return short if value else f"no {short}"
    return f"{short} {shown}"


def words(row: Record, names: Collection[str], *, every: bool = False) -> list[str]:
    """The values of some settings in words; a schedule and its parameters are one phrase.

    Of defaults only those of ALWAYS, and nothing that is null, but with ``every``.
    """
    shown = []
    if SCHEDULE - {"split"} & set(names) or ("split" in names and method(row)):
        shown.append(schedule_name(row))
    if "split" in names and method(row) is None:
        shown.append(f"split {row['split']:.4g}")
    skipped = set(SCHEDULE)
    if row.get("schedule.stages") == row.get("epochs") or row.get("schedule.profile") == "constant":
        skipped.add("schedule.stages")
    for name in names:
        usual = row[name] is None or (name not in ALWAYS and row[name] == DEFAULTS.get(name))
        if name not in skipped and (every or not usual):
            shown.append(phrase(row, name))
    return shown


def shared(row: Record, names: Collection[str]) -> list[str]:
    """What settings have in common, in words; a schedule only if all of it is common."""
    skipped = {FINGERPRINT, *FACTS}
    profile = str(row.get("schedule.profile"))
    if not {"schedule.profile", "split", *OF_PROFILES.get(profile, ())} <= set(names):
        skipped |= SCHEDULE - {"split"}
    # How C² is measured changes no training.
    kept = [name for name in names if name not in skipped and not name.startswith("noise.")]
    alone = SCHEDULE - set(names)  # of this row
    return words({name: value for name, value in row.items() if name not in alone}, kept)


def labels(settings: pl.DataFrame) -> dict[int, str]:
    """By its number, what tells each setting from the others; of one setting its schedule."""
    differ = differing(settings)
    if settings["data"].n_unique() > 1 or "dataset.name" in differ:
        follows = {"dataset.name", FINGERPRINT, *FACTS}
        differ = ["dataset.name", *(name for name in differ if name not in follows)]
    found = {
        row["setting"]: ", ".join(
            words(row, differ) or words(row, differ, every=True) or [schedule_name(row)]
        )
        for row in settings.to_dicts()
    }
    count = Counter(found.values())
    return {
        setting: f"{label} (setting {setting})" if count[label] > 1 else label
        for setting, label in found.items()
    }


def without_delta(settings: pl.DataFrame) -> list[str]:
    """Why some settings have no δ, a sentence for each optimizer."""
    configs = map(OptimizerConfig, settings["optimizer.name"].unique(maintain_order=True))
    return [config.why_null for config in configs if config.why_null]
