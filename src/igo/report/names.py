"""Settings in words: short names of settings and schedules, and a label for each setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import polars as pl

from igo.config.schema import FORMULAS, SETTINGS, OptimizerConfig
from igo.method.profiles import paper_method
from igo.report.table import (
    DEFAULTS,
    FINGERPRINT,
    OF_PROFILES,
    PARAMETERS,
    SCHEDULE,
    Row,
    names_in,
)

GREEK = {"schedule.gamma": "γ"}  # short names of parameters that profiles declare
SHORT = {
    name: setting.notes.text for name, setting in SETTINGS.items() if setting.notes.text
} | GREEK
ALWAYS = ("epochs", "learning_rate", "batch_size")  # shown even as defaults
FACTS = tuple(f"dataset.{fact}" for fact in ("classes", "channels", "image_size", "mean", "std"))
DATASETS = {
    "digits": "digits", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "imagenet": "ImageNet",
}  # fmt: skip


def data_set(row: Row) -> str:
    """A data set's name; for the user's own data, the name of the file or folder if it is known."""
    return str(row.get("data") or DATASETS.get(row["dataset.name"], row["dataset.name"]))


def phrase(name: str, value: object) -> str:
    """A setting with its value, in words: ``η₁ 0.1``, ``no flip``."""
    short = SHORT.get(name, name.rpartition(".")[2].replace("_", " "))
    if isinstance(value, bool):
        return short if value else f"no {short}"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if name == "dataset.samples":
        return f"n = {value:,}"
    if name == "epochs":
        return "1 epoch" if value == 1 else f"{shown} epochs"
    if name == "optimizer.name":
        return shown.upper() if shown in FORMULAS else shown
    return f"{short} {shown}"


def method(row: Row) -> str | None:
    """The name of one of the paper's Methods 1 to 4; None for other schedules."""
    name = paper_method(row["schedule.profile"], row.get("schedule.gamma"), row["split"])
    return "Method 1 (constant)" if name == "Method 1" else name


def why_null(row: Row) -> str | None:
    """Why a setting has no δ; None where δ of its optimizer is known before training."""
    optimizer = OptimizerConfig(row["optimizer.name"], timm=bool(row["optimizer.timm"]))
    return optimizer.why_null


def without_delta(settings: pl.DataFrame) -> list[str]:
    """Why some settings have no δ, a sentence for each optimizer."""
    optimizers = settings.unique(["optimizer.name", "optimizer.timm"], maintain_order=True)
    return [reason for row in optimizers.to_dicts() if (reason := why_null(row))]


def schedule_name(row: Row) -> str:
    """A schedule by its profile and parameters: ``p = 0.5``, ``cosine``, ``Method 2``."""
    profile = str(row["schedule.profile"])
    if name := method(row):
        return name
    if profile in ("graduated", "polynomial"):
        return f"p = {row['p']:g}"
    if profile == "step":
        return f"γ = {row['schedule.gamma']:.4g}"
    if profile == "diminishing":
        inverse = row["schedule.form"] == "inverse_sqrt"
        return "1/√m" if inverse else f"1/(1 + {row['schedule.a']:g} t)"
    values = [row.get(parameter) for parameter in OF_PROFILES.get(profile, ())]
    shown = [f"{x:g}" if isinstance(x, float) else str(x) for x in values if x]
    return " ".join([profile.replace("_", " "), *shown])


def words(row: Row, names: Collection[str]) -> list[str]:
    """Values in words: data, model, optimizer, schedule, the rest; of defaults only ALWAYS."""
    shown, said = [], {"dataset.name", "model.name", "optimizer.name", *SCHEDULE}
    if "dataset.name" in names:
        n = row["dataset.samples"] if "dataset.samples" in names else None
        shown.append(data_set(row) + (f" ({phrase('dataset.samples', n)})" if n else ""))
        said.add("dataset.samples")
    if "model.name" in names:
        width = row["model.width"] if "model.width" in names else None
        shown.append(row["model.name"] + (f" of width {width}" if width else ""))
        said.add("model.width")
    if "optimizer.name" in names:
        shown.append(phrase("optimizer.name", row["optimizer.name"]))
    if {"schedule.profile", *PARAMETERS} & set(names) or ("split" in names and method(row)):
        shown.append(schedule_name(row))
    if "split" in names and method(row) is None:
        shown.append(f"split {row['split']:.4g}")
    if row.get("schedule.stages") == row.get("epochs") or row.get("schedule.profile") == "constant":
        said.add("schedule.stages")
    rest = [name for name in names if name not in said and row[name] is not None]
    return shown + [
        phrase(name, row[name])
        for name in rest
        if name in ALWAYS or row[name] != DEFAULTS.get(name)
    ]


def shared(row: Row, names: Collection[str]) -> list[str]:
    """What settings have in common, in words; a schedule only if all of it is common."""
    skipped = {"model.timm", FINGERPRINT, *FACTS}
    profile = str(row.get("schedule.profile"))
    if not {"schedule.profile", "split", *OF_PROFILES.get(profile, ())} <= set(names):
        skipped |= set(SCHEDULE)
    # How C² is measured changes no training.
    kept = [name for name in names if name not in skipped and not name.startswith("noise.")]
    return words(row, kept)


def telling(settings: pl.DataFrame) -> list[str]:
    """The names of what differs, without what follows from the data."""
    names = [name for name in names_in(settings) if settings[name].n_unique() > 1]
    if settings["data"].n_unique() > 1:
        names = ["dataset.name", *(n for n in names if n not in ("dataset.name", FINGERPRINT))]
    return [name for name in names if "dataset.name" not in names or name not in FACTS]


def labels(settings: pl.DataFrame) -> dict[int, str]:
    """By its number, each setting's schedule, and what else tells it from the others."""
    names = {*telling(settings), "schedule.profile", "split"}
    rows = settings.to_dicts()
    return distinct(
        {row["setting"]: ", ".join(words(row, [n for n in row if n in names])) for row in rows}
    )


def distinct(names: dict[int, str]) -> dict[int, str]:
    """Add the setting's number to names that are the same."""
    count = Counter(names.values())
    return {
        setting: f"{name} (setting {setting})" if count[name] > 1 else name
        for setting, name in names.items()
    }
