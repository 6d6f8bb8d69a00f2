"""Short names of settings and schedules, and what a set of runs shares."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

import polars as pl

from igo.config.schema import FORMULAS, SETTINGS, OptimizerConfig
from igo.method.profiles import PROFILES, paper_method, parameters
from igo.report.table import DEFAULTS, FINGERPRINT, Row

OF_PROFILES = {
    name: ["p" if parameter == "p" else f"schedule.{parameter}" for parameter in parameters(name)]
    for name in PROFILES
}
# The parameters of all schedules, p included; κ and λ stand for γ and split.
PARAMETERS = tuple(
    dict.fromkeys(["schedule.kappa", "schedule.lam", *chain.from_iterable(OF_PROFILES.values())])
)
SCHEDULE = ("schedule.profile", "split", *PARAMETERS)  # all columns of a schedule
GREEK = {"schedule.gamma": "γ"}  # short names of parameters that profiles declare
SHORT = {
    name: setting.notes.text for name, setting in SETTINGS.items() if setting.notes.text
} | GREEK
# Settings whose value alone is shown, without a name.
BY_VALUE = ("dataset.name", "model.name", "optimizer.name", "schedule.profile")
ALWAYS = ("optimizer.name", "epochs", "learning_rate", "batch_size")  # shown even as defaults
FACTS = tuple(f"dataset.{fact}" for fact in ("classes", "channels", "image_size", "mean", "std"))
DATASETS = {
    "digits": "digits", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "imagenet": "ImageNet",
}  # fmt: skip


def short(name: str) -> str:
    """A setting's short name: ``η₁`` for ``learning_rate``, ``width`` for ``model.width``."""
    return SHORT.get(name, name.rpartition(".")[2].replace("_", " "))


def data_set(row: Row) -> str:
    """A data set's name; for the user's own data, the name of the file or folder if it is known."""
    return str(row.get("data") or DATASETS.get(row["dataset.name"], row["dataset.name"]))


def phrase(name: str, value: object) -> str:
    """A setting with its value, in words: ``η₁ 0.1``, ``no flip``."""
    if isinstance(value, bool):
        return short(name) if value else f"no {short(name)}"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if name == "dataset.samples":
        return f"n = {value:,}"
    if name == "epochs":
        return "1 epoch" if value == 1 else f"{shown} epochs"
    if name == "optimizer.name":
        return shown.upper() if shown in FORMULAS else shown
    return shown if name in BY_VALUE else f"{short(name)} {shown}"


def method(row: Row) -> str | None:
    """The name of one of the paper's Methods 1 to 4; None for other schedules."""
    name = paper_method(row["schedule.profile"], row.get("schedule.gamma"), row["split"])
    return "Method 1 (constant)" if name == "Method 1" else name


def delta_is_planned(row: Row) -> bool:
    """Whether δ of a setting's optimizer is known before training."""
    return _why_null(row) is None


def why_null(runs: pl.DataFrame) -> list[str]:
    """Why some of the runs have no δ, a sentence for each optimizer."""
    if "optimizer.name" not in runs.columns:
        return []
    rows = runs.select("optimizer.name", "optimizer.timm").drop_nulls().unique(maintain_order=True)
    return [reason for row in rows.to_dicts() if (reason := _why_null(row))]


def _why_null(row: Row) -> str | None:
    optimizer = OptimizerConfig(row["optimizer.name"], timm=bool(row["optimizer.timm"]))
    return optimizer.why_null


def schedule_name(row: Row) -> str:
    """A schedule by its profile and parameters: ``p = 0.5``, ``cosine``, ``Method 2``."""
    profile = str(row["schedule.profile"])
    name = method(row) or profile
    if profile in ("graduated", "polynomial"):
        name = f"p = {row['p']:g}"
    elif name == "step":
        name = f"γ = {row['schedule.gamma']:.4g}"
    elif profile == "diminishing":
        inverse = row["schedule.form"] == "inverse_sqrt"
        name = "1/√m" if inverse else f"1/(1 + {row['schedule.a']:g} t)"
    elif name == profile:
        values = [row.get(parameter) for parameter in OF_PROFILES.get(profile, ())]
        shown = [f"{x:g}" if isinstance(x, float) else str(x) for x in values if x]
        name = " ".join([profile.replace("_", " "), *shown])
    return name


def telling(settings: pl.DataFrame, names: Sequence[str]) -> Iterator[str]:
    """The names, without those that follow from others: a data set's facts, stages = epochs."""
    for name in names:
        group = "data" if name == FINGERPRINT else f"{name.partition('.')[0]}.name"
        if name in FACTS and {"dataset.name", "data"} & {*names}:
            continue
        if name == "schedule.stages" and "epochs" in names:
            if settings[name].equals(settings["epochs"]):
                continue
        elif name != group and group in (*names, "data"):
            pairs = settings.select(pl.struct(group, name).n_unique()).item()
            if pairs == settings[group].n_unique():
                continue
        yield name


def shared(row: Row, names: Collection[str]) -> list[str]:
    """What settings have in common, in words. Defaults are left out, except data, model, ALWAYS."""
    first = [data_set(row)] if "dataset.name" in names else []
    if first and "dataset.samples" in names:
        first[0] += f" ({phrase('dataset.samples', row['dataset.samples'])})"
    if "model.name" in names:
        first.append(str(row["model.name"]))
        if row.get("model.width") and "model.width" in names:
            first[-1] += f" of width {row['model.width']}"
    skipped = {"dataset.name", "dataset.samples", "model.name", "model.width", "model.timm",
            "data", FINGERPRINT, *FACTS, *SCHEDULE}  # fmt: skip
    always = [name for name in ALWAYS if name in names]
    first += [phrase(name, row[name]) for name in always]
    whole = {"schedule.profile", "split", *OF_PROFILES.get(str(row.get("schedule.profile")), ())}
    if whole <= set(names):
        first += [schedule_name(row)] + [f"split {row['split']:.4g}"] * (method(row) is None)
    if row.get("schedule.stages") == row.get("epochs"):
        skipped.add("schedule.stages")
    rest = (
        name for name in names
        if name not in skipped and name not in always and row[name] is not None
        and not name.startswith("noise.")  # how C² is measured: it changes no training
    )  # fmt: skip
    return first + [phrase(name, row[name]) for name in rest if row[name] != DEFAULTS.get(name)]


def differing(row: Row, names: Collection[str]) -> list[str]:
    """How a setting differs from others in ``names``, in words; of defaults only ALWAYS."""
    first = [name for name in BY_VALUE[:3] if name in names]
    phrases = [data_set(row) if name == BY_VALUE[0] else phrase(name, row[name]) for name in first]
    if {"schedule.profile", *PARAMETERS} & set(names) or ("split" in names and method(row)):
        phrases.append(schedule_name(row))
    if "split" in names and method(row) is None:
        phrases.append(f"split {row['split']:.4g}")
    skipped = {*first, *SCHEDULE}
    rest = [name for name in names if name not in skipped and row[name] is not None]
    shown = (name for name in rest if name in ALWAYS or row[name] != DEFAULTS.get(name))
    return phrases + [phrase(name, row[name]) for name in shown]
