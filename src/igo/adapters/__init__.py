"""The schedule inside trainers of other libraries, one file for each.

Imports method and the packages below it, and the trainer's library.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from igo.ground.errors import UserError
from igo.method.arguments import PlanWarning
from igo.method.plan import Plan


def need(library: str) -> ModuleType:
    """Import a library, or say what to install."""
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise
        name = error.name
    raise ModuleNotFoundError(f"igo.adapters.{name} needs {name}: pip install {name}", name=name)


def refuse_accumulation(setting: str, steps: int, cure: str = "a loop of your own with ") -> None:
    """Refuse a trainer's gradient accumulation, which would make larger batches than the plan's."""
    if steps != 1:
        raise UserError(
            f"{setting} must be 1: the plan sets the batch sizes. For a batch too large for the"
            f" memory use {cure}BatchSampler(…, parts=…)"
        )


def warn_of_early_end(limits: Sequence[str], plan: Plan) -> None:
    """Warn if limits of the trainer end training before the plan ends."""
    if limits:
        warnings.warn(
            f"{' and '.join(limits)}: training ends before the plan does, so the noise does not"
            f" fall as far as planned; make a shorter plan (this one has {plan.updates:,} updates)",
            PlanWarning,
            stacklevel=4,
        )
