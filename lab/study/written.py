"""results/rows.yaml: its rows, and the settings that each row compares. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from igo.ground.files import write_atomically

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
FILE = ROOT / "results" / "rows.yaml"
HEAD = """\
# The study's rows: what is claimed, of which runs, and what these came to (results/protocol.md).
# `make study` makes "found" of the records in results/records; all else is written by hand, before
# the runs, but for "withdrawn" (why a row's verdict was taken back) and "readme" (shown there).
# Differences are in points of test accuracy: mean of the last five evaluations, or the endpoint
# that the row names. "last_epoch" is the same test by the last epoch alone.
"""


def read() -> list[Row]:
    """The rows as they are in the file."""
    return list(yaml.safe_load(FILE.read_text()))


def write(rows: Sequence[Row]) -> None:
    """Write the rows into the file."""
    text = yaml.safe_dump(
        list(rows), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    write_atomically(FILE, HEAD + text)


def arms(row: Row) -> list[dict[str, Any]]:
    """The settings of each arm of a row, by name."""
    if row["test"] == "law":
        settings = [grid_arm(row, eta, b) for eta in row["eta"] for b in row["b"]]
    elif "arms" in row:
        settings = [entry["arm"] for entry in row["arms"]]
    else:
        settings = [row["first"], row["second"]]
    return [row.get("settings", {}) | arm for arm in settings]


def grid_arm(row: Row, eta: float, b: int) -> dict[str, Any]:
    """One setting of constant noise; ``eta_sum`` of the row fixes its epochs."""
    arm = {"schedule": "constant", "learning_rate": eta, "batch_size": b}
    if "eta_sum" in row:
        arm["epochs"] = round(row["eta_sum"] * b / (eta * row["samples"]))
    return arm
