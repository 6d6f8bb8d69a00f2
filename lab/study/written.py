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
# the runs, but for "readme" (shown there).
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
    if "arms" in row:
        settings = [entry["arm"] for entry in row["arms"]]
    else:
        settings = [row["first"], row["second"]]
    return [row.get("settings", {}) | arm for arm in settings]
