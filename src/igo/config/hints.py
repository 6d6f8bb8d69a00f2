"""What a person probably meant: hints for names and values that other programs have."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import get_args

from igo.config.schema import SETTINGS
from igo.ground.errors import nearest

ALIASES = {  # what settings are called elsewhere
    "lr": "learning_rate", "eta": "learning_rate", "eta_1": "learning_rate",
    "base_lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "b": "batch_size",
    "b_1": "batch_size", "batchsize": "batch_size", "train_batch_size": "batch_size",
    "max_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs", "ep": "epochs",
    "arch": "model", "net": "model", "network": "model", "data": "dataset", "ds": "dataset",
    "opt": "optimizer", "optim": "optimizer", "beta": "optimizer.momentum",
    "wd": "optimizer.weight_decay", "l2": "optimizer.weight_decay",
    "sched": "schedule", "scheduler": "schedule", "lr_scheduler": "schedule",
    "lambda": "schedule.lam", "m": "schedule.stages",
    "gpu": "engine.device", "amp": "engine.precision", "dtype": "engine.precision",
    "num_workers": "dataset.workers", "random_seed": "seed", "wandb": "tracking",
    "output": "runs_dir", "output_dir": "runs_dir", "save_dir": "runs_dir", "log_dir": "runs_dir",
    "resume": "run", "checkpoint": "run",
}  # fmt: skip


def setting(name: str, known: Collection[str]) -> str:
    """`` Did you mean 'x'?`` for a setting that does not exist; empty if no name is like it.

    Args:
        name: as typed, ``lr`` or ``optimizer.lr``.
        known: full names of all settings.
    """
    last = name.rpartition(".")[2]
    alias = ALIASES.get(last.lower())
    same = [full for full in known if full.rpartition(".")[2] == last]
    meant = [alias] if alias in known and not same else list(dict.fromkeys(same))
    return f" Did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(name, known)


def choice(group: str, value: str, options: Collection[str]) -> str:
    """The hint after the list of options, none of which is ``value``."""
    if group in ("optimizer", "optimizer.name"):
        return (
            f", or any optimizer of timm's: optimizer=timm"
            f" optimizer.name={value}.{nearest(value, options)}"
        )
    if group == "engine.precision" and "8" in value:
        return ". Nothing here computes in 8 bits"
    if group in ("model", "model.name"):
        timms = re.search(r"\d{2}|_", value)  # as in resnet50; importing timm takes seconds
        close = "" if timms else nearest(value, options)
        return f", or any model of timm's: model=timm model.name={value}.{close}"
    return f".{nearest(value, options)}"


def several(name: str, value: str) -> str:
    """The cure for ``NAME=1,2`` in the command of a single run."""
    declared = SETTINGS[name].kind if name in SETTINGS else None
    kinds = (declared, *get_args(declared))
    allowed = "these are several values: add -m for a run of each"
    if float in kinds and re.fullmatch(r"\d+,\d+", value):
        return f"{allowed}, or write a decimal number with a point, {value.replace(',', '.')}"
    if any(getattr(kind, "__origin__", None) is list for kind in kinds):
        return f"{allowed}, or write a list, [{value}]"
    return allowed
