"""What a run is called: in W&B, the table, the report and the terminal, in the words of the paper.

A run's folder alone keeps the name that it has, so that old records are found.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from igo.config.schema import FORMULAS, OF_EVERY_SCHEDULE, SETTINGS, Config
from igo.ground.errors import counted
from igo.ground.files import Record
from igo.plans.profiles import paper_method

SHORT = {name: setting.notes.text for name, setting in SETTINGS.items() if setting.notes.text}
SHORT |= {"p": "p =", "schedule.gamma": "γ"}
DATASETS = {
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
}
FRACTIONS = {0.25: "¼", 0.5: "½", 0.75: "¾"}
ALWAYS = ("epochs", "learning_rate", "batch_size")  # Even their defaults are shown.
LAST = ("split", "control")  # They end a schedule's name.
# The name of a method stands for these.
METHOD = ("schedule.profile", "schedule.gamma", "split", "schedule.sizes", "schedule.rate")


def leaves(settings: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield full name, such as ``a.b``, and value of each entry of nested settings."""
    for key, value in settings.items():
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            yield from leaves(value, f"{prefix}{key}.")
        elif (key, value) != ("arguments", None):  # igo's own models, … have none.
            yield f"{prefix}{key}", value


def data_set(row: Record) -> str:
    """A data set's name; for the user's own data, the name of the file or folder if it is known."""
    return str(row.get("data") or DATASETS.get(row["dataset.name"], row["dataset.name"]))


def of_schedule(name: str) -> bool:
    """Whether the setting of this full name is a part of its schedule's name."""
    group, _, short_name = name.partition(".")
    if group != "schedule":
        return name in ("p", "split", "control")
    is_of_profile = short_name not in OF_EVERY_SCHEDULE  # the profile, or a parameter of it
    return is_of_profile or short_name in ("sizes", "rate", "clock")


def method(row: Record) -> str | None:
    """The name of one of the paper's Methods 1 to 4; None for other schedules."""
    return paper_method(*map(row.get, METHOD))


def schedule_name(config: Config) -> str:
    """A schedule in words: ``Method 3``, ``cosine, split ½``, ``graduated, p = 0.3, split ½``."""
    row = dict(leaves(asdict(config)))
    return ", ".join(words(row, [*filter(of_schedule, row)]))


def words(row: Record, names: Collection[str], *, every: bool = False) -> list[str]:
    """The values of some settings in words, those of the schedule first.

    Unless ``every`` is set, what is null is left out, and what other words say already, and so are
    defaults that are neither in ALWAYS nor of the schedule. ``row`` has settings by full name.
    """
    paper = method(row)
    texts = [paper] if paper and not set(names).isdisjoint(METHOD) else []
    implied_names = _implied(row)
    for name in sorted(names, key=lambda name: (not of_schedule(name), name in LAST)):
        default = SETTINGS[name].default if name in SETTINGS else None
        is_told = name in ALWAYS or of_schedule(name) or row[name] != default
        is_shown = is_told and row[name] is not None and name not in implied_names
        # Hydra's note _partial_ says nothing of an argument's value.
        if (every or is_shown) and not name.endswith("._partial_"):
            texts.append(phrase(row, name))
    return texts


def _implied(row: Record) -> list[str]:
    """The settings of a schedule that the words for its other settings say already."""
    names = [*METHOD] if method(row) else []
    if row.get("schedule.stages") == row.get("epochs") or row.get("schedule.profile") == "constant":
        names.append("schedule.stages")
    if row.get("schedule.rate"):  # It names the curve, and b says the rest.
        names += ["schedule.profile", "split"]
    elif row.get("schedule.sizes"):  # It says how b grows.
        names.append("split")
    return names


def phrase(row: Record, name: str) -> str:
    """A setting with its value, in words: ``η₁ 0.1``, ``no flip``."""
    value = row[name]
    # An argument that Hydra makes, model.act._target_, is called act.
    last_part = name.removesuffix("._target_").rpartition(".")[2]
    label = SHORT.get(name, last_part.replace("_", " "))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    match name:
        case "dataset.name":
            return data_set(row)
        case "model.name" | "optimizer.name" | "schedule.profile":
            return text.upper() if text in FORMULAS else text
        case "dataset.samples":  # n is without those held out.
            return counted(value, "image")
        case "epochs":
            return counted(value, "epoch")
        case "split":
            text = FRACTIONS.get(value, f"{value:.4g}")
    if value is None or isinstance(value, bool):
        return label if value else f"no {label.removesuffix(' =')}"
    return f"{label} {text}"
