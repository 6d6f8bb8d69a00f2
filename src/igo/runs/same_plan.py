"""Whether the plan that is computed now is the one that a run began with."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping
from itertools import zip_longest

from igo.errors import UserError
from igo.method.plan import Plan
from igo.runs.folder import RunFolder

LEADING_ON = ("gamma_m", "kappa_m", "lambda_m")  # columns that say how the next stage differs


def check(folder: RunFolder, plan: Plan) -> None:
    """Hold the recorded plan against the one computed now; write nothing."""
    file, known = folder.path / "plan.csv", folder.status()
    written = known.get("plan") or dict(known.get("sha256") or {}).get("plan.csv")
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != written:
        return  # never started, or damaged: it is written again
    with file.open(newline="") as text:
        stages = list(csv.DictReader(text))
    for was, stage in zip_longest(stages, plan.rows()):
        row = None if stage is None else {n: _cell(v) for n, v in stage.items()}
        if was is None or row is None or not _same(was, row):
            number = (was or row or {})["stage"]
            raise UserError(
                f"{folder.path}: the plan is another one than it was when this run began: stage"
                f" {number} was {_shown(was)}, now {_shown(row)}. The code of the schedule was"
                " changed; nothing recorded is: bring the code back to continue, or begin anew"
                " with fresh=true"
            )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _same(was: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two rows of plan.csv are one stage, but for another machine's rounding."""
    if was.keys() != now.keys():
        return False
    own = [(float(was[name]), float(now[name])) for name in now if name not in LEADING_ON]
    return all(math.isclose(one, other, rel_tol=1e-9) for one, other in own)


def _shown(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "not there"
    names = {"epochs": "epochs", "eta_m": "η", "b_m": "b", "phi_m": "δ_m/δ_1"}
    return ", ".join(f"{said} {float(row[name]):.6g}" for name, said in names.items())
