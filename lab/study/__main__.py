"""`python -m lab.study COMMAND`: archive, tuning, rows, anneal, anew, halved or reproduce.

archive   writes the finished runs of sweeps into results/records
tuning    writes results/tuning.md from the archive of study_tuning
rows      writes results/rows.yaml and the tables of README.md and results/README.md
anneal    adds to the folders of a sweep's runs their accuracy after a common anneal
anew      adds to them loss and accuracy with BatchNorm's statistics computed anew
halved    writes the images of results/exchange.md into data
reproduce runs a row (ROW or ROW SEEDS) again with other seeds and judges it; alone: lists the rows
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = {  # the module with the function of each command
    "archive": "programs", "tuning": "programs", "rows": "programs", "anneal": "programs",
    "anew": "programs", "halved": "exchange", "reproduce": "reproduce",
}  # fmt: skip


def main() -> None:
    """Run the typed command. Only its module is imported."""
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        print(__doc__)
    elif sys.argv[1] in COMMANDS:
        module = importlib.import_module(f"lab.study.{COMMANDS[sys.argv[1]]}")
        getattr(module, sys.argv[1])(sys.argv[2:])
    else:
        sys.exit(f"error: no command {sys.argv[1]!r}\n{__doc__}")


if __name__ == "__main__":
    main()
