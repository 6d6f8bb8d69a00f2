"""What a person probably meant: hints for names that other programs have."""

from __future__ import annotations

from collections.abc import Collection

from igo.ground.errors import nearest

ALIASES = {  # what settings are called elsewhere
    "lr": "learning_rate", "eta": "learning_rate", "bs": "batch_size", "b": "batch_size",
    "max_epochs": "epochs", "arch": "model", "data": "dataset", "beta": "optimizer.momentum",
    "wd": "optimizer.weight_decay", "scheduler": "schedule", "lambda": "schedule.lam",
    "gpu": "engine.device", "amp": "engine.precision", "num_workers": "dataset.workers",
    "wandb": "tracking", "output_dir": "runs_dir", "resume": "run",
}  # fmt: skip


def setting(name: str, known: Collection[str]) -> str:
    """`` Did you mean 'x'?`` for a setting that does not exist; empty if no name is like it.

    Args:
        name: as typed, ``lr`` or ``optimizer.lr``.
        known: full names of all settings.
    """
    last = name.rpartition(".")[2]
    same = [full for full in known if full.rpartition(".")[2] == last]
    alias = ALIASES.get(last)
    meant = same or [full for full in known if full == alias]
    return f" Did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(name, known)


def choice(group: str, value: str, options: Collection[str]) -> str:
    """The options, none of which is ``value``, and the nearest of them."""
    listed = f"it must be one of {', '.join(options)}"
    kind = group.removesuffix(".name")
    if kind in ("optimizer", "model"):
        listed += f", or any {kind} of timm's: {kind}=timm {kind}.name={value}"
    return f"{listed}.{nearest(value, options)}"
