"""`python -m lab.study COMMAND`: archive SWEEP…, tuning, rows, after WHAT SWEEP, reproduce [ROW].

archive   the finished runs of sweeps, into results/records
tuning    results/tuning.md, of the archive of study_tuning
rows      results/rows.yaml and the tables of README.md and results/README.md, of all archives
after     WHAT is annealed or tail: measured where a sweep's runs ended, into their folders
reproduce one row (ROW or ROW SEEDS) again with other seeds, judged by its test; alone: the rows
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = {  # to the module whose function ``command`` or one of this name is called
    "archive": "programs", "tuning": "programs", "rows": "programs", "after": "programs",
    "reproduce": "reproduce",
}  # fmt: skip


def main() -> None:
    """Carry out what was typed; imports only what that needs."""
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        print(__doc__)
    elif sys.argv[1] in COMMANDS:
        module = importlib.import_module(f"lab.study.{COMMANDS[sys.argv[1]]}")
        getattr(module, sys.argv[1])(sys.argv[2:])
    else:
        sys.exit(f"error: no command {sys.argv[1]!r}\n{__doc__}")


if __name__ == "__main__":
    main()
