"""Studies of the noise: Lemma 2.1, ω itself, the feedback, and the cost of measuring online.

Each study trains by igo's training loop and returns ``Findings``. ``report`` writes the CSV files,
the figure and the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from igo.method.ranges import at_least

Row = dict[str, Any]
STUDIES = ("lemma", "omega", "feedback", "online_cost")


@dataclass
class Study:
    """The settings of `python -m lab.noise` itself, without a run's; see noise.yaml."""

    study: Annotated[str, STUDIES] = "lemma"
    output: str = "results/noise"
    seeds: Annotated[int, at_least(2)] = 5
    draws: Annotated[int, at_least(100)] = 1000
    calls: Annotated[int, at_least(20)] = 300
    repeats: Annotated[int, at_least(3)] = 3


@dataclass(frozen=True)
class Findings:
    """The result of a study: tables by name (each a CSV), numbers for the text, arrays to draw."""

    tables: dict[str, list[Row]]
    facts: Row
    arrays: dict[str, Any]
