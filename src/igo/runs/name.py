"""The name of a run, by a digest of the settings that change its result."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from igo.config.schema import REPEATED, SETTINGS, Config, calls_of, has_effect, value_of


def rule(config: Config) -> int:
    """The version of what settings mean: a higher one where they now train otherwise than before.

    Runs of another version are never continued. Only settings that a change concerns get its
    number.
    """
    schedule = config.schedule
    warm_epochs = int(schedule.warmup)
    if schedule.lengths != "equal" or (schedule.stages or 1) > config.epochs - warm_epochs:
        return 4  # Since then a stage that begins inside an epoch has whole batches.
    if config.model.stem == "cifar":
        return 3  # Since then a model with this stem has PyTorch's initialisation.
    return 2  # Since then an epoch is equal batches.


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that make a run's result what it is, by full name.

    Settings that change no result are left out, and so are settings with the default of their field
    here. So a new setting renames no run. For this, a default here must never change.
    """
    values = {name: value_of(config, name) for name in filter(has_effect, SETTINGS)}
    values |= calls_of(config)
    return {name: value for name, value in values.items() if value != SETTINGS[name].default}


def signature(config: Config, omissions: Collection[str] = ()) -> str:
    """Ten hexadecimal digits of everything that changes a run's result, but for some settings."""
    settings = {name: v for name, v in result_settings(config).items() if name not in omissions}
    if "p" in settings:
        settings["schedule.p"] = settings.pop("p")  # In the first runs p was an entry of schedule.
    canonical = json.dumps({"rule": rule(config), **settings}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def setting_of(config: Config) -> str:
    """Ten digits that the runs of one setting share; a W&B dashboard groups by them."""
    return signature(config, omissions=REPEATED)


def path_of(config: Config) -> Path:
    """The folder of a run."""
    # The digest alone tells runs apart. Names are for people, to whom a call's target is enough.
    names = (config.dataset.name, config.model.name, config.schedule.profile)
    name = "-".join([*(name.partition("(")[0] for name in names), signature(config)])
    return Path(config.runs_dir) / name.replace("/", "_")
