"""The name of a run, by a digest of the settings that change its result."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from igo.config.schema import REPEATED, SETTINGS, Config, calls_of, has_effect, value_of


def rule(config: Config) -> int:
    """The number of igo's newest change after which these settings train otherwise than before.

    The number is a part of a run's name. So a run that began before such a change is never
    continued after it, and runs that the change does not concern keep their names.
    """
    schedule = config.schedule
    warm_epochs = int(schedule.warmup)
    if schedule.lengths != "equal" or (schedule.stages or 1) > config.epochs - warm_epochs:
        return 4  # Since change 4 a stage that begins inside an epoch has whole batches.
    # Newer changes are looked for first.
    if config.model.stem == "cifar":
        return 3  # Since change 3 a model with this stem has PyTorch's initialisation.
    return 2  # Since change 2, which concerned all runs, an epoch is equal batches.


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that make a run's result what it is, by full name.

    Settings that change no result are left out, and so are settings that have their default in
    ``config.schema``. So a new setting renames no run, and a default there must never change.
    """
    values = {name: value_of(config, name) for name in filter(has_effect, SETTINGS)}
    values |= calls_of(config)
    return {name: value for name, value in values.items() if value != SETTINGS[name].default}


def signature(config: Config) -> str:
    """Ten hexadecimal digits of everything that changes a run's result."""
    settings = result_settings(config)
    if "p" in settings:  # The first runs had p as an entry of schedule, and keep their names.
        settings["schedule.p"] = settings.pop("p")
    canonical = json.dumps({"rule": rule(config), **settings}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def setting_of(config: Config) -> str:
    """Ten digits that the runs of one setting share: the signature without seed and the like.

    A W&B dashboard groups runs by these digits.
    """
    # A signature has no setting that has its default.
    defaults = {name: SETTINGS[name].default for name in REPEATED}
    return signature(replace(config, **defaults))


def path_of(config: Config) -> Path:
    """The folder of a run, whose name says its data, model and noise profile, and its signature."""
    # The signature alone tells runs apart, and the names are for people. Of the user's own model,
    # which is a call such as my_model.MyCNN(width=8), the part before the bracket is taken.
    names = (config.dataset.name, config.model.name, config.schedule.profile)
    name = "-".join([*(name.partition("(")[0] for name in names), signature(config)])
    return Path(config.runs_dir) / name.replace("/", "_")  # A name of timm's may have a slash.
