"""Studies of the noise: Lemma 2.1, ω itself, the feedback, and what measuring online costs.

Each trains by the product's own loop and returns tables; ``report`` writes CSV, figure and text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
STUDIES = ("lemma", "omega", "feedback", "online_cost")


@dataclass
class Study:
    """The settings of `python -m lab.noise` beside those of a run; see noise.yaml."""

    study: str = "lemma"
    output: str = "results/noise"
    seeds: int = 5
    draws: int = 1000
    calls: int = 300
    repeats: int = 3


@dataclass(frozen=True)
class Found:
    """What a study found: tables by name (each a CSV), numbers for the text, arrays to draw."""

    tables: dict[str, list[Row]]
    facts: Row
    drawn: dict[str, Any]
