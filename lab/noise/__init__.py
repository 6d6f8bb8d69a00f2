"""Studies of the noise: Lemma 2.1, ω itself, the feedback, and what measuring online costs.

Each trains by the product's own loop and returns tables; ``report`` writes CSV, figure and text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from igo.method.ranges import at_least

Row = dict[str, Any]
STUDIES = ("lemma", "omega", "feedback", "online_cost")


@dataclass
class Study:
    """The settings of `python -m lab.noise` beside those of a run; see noise.yaml."""

    study: Annotated[str, STUDIES] = "lemma"
    output: str = "results/noise"
    seeds: Annotated[int, at_least(2)] = 5
    draws: Annotated[int, at_least(100)] = 1000
    calls: Annotated[int, at_least(20)] = 300
    repeats: Annotated[int, at_least(3)] = 3


@dataclass(frozen=True)
class Found:
    """What a study found: tables by name (each a CSV), numbers for the text, arrays to draw."""

    tables: dict[str, list[Row]]
    facts: Row
    drawn: dict[str, Any]
