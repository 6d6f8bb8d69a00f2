"""Studies of the noise: Lemma 2.1 and ω itself. results/noise has what they found.

Each study trains by igo's training loop and returns ``Findings``, which ``program`` writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from igo.method.ranges import at_least

Row = dict[str, Any]
STUDIES = ("lemma", "omega")


@dataclass
class Study:
    """The settings of `python -m lab.noise` itself, without a run's; see noise.yaml."""

    study: Annotated[str, STUDIES] = "lemma"
    output: str = "results/noise"
    draws: Annotated[int, at_least(100)] = 1000


@dataclass(frozen=True)
class Findings:
    """The result of a study of n samples: tables by name (each a CSV), and arrays to draw."""

    n: int
    tables: dict[str, list[Row]]
    arrays: dict[str, Any] = field(default_factory=dict)
