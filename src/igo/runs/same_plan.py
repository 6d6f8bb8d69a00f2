"""Whether the plan computed now is the plan that a run began with."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping
from itertools import zip_longest

from igo.ground.errors import UserError
from igo.method.plan import Plan
from igo.runs.folder import RunFolder

TO_NEXT_STAGE = ("gamma_m", "kappa_m", "lambda_m")  # the factors between a stage and the next one


def check(folder: RunFolder, plan: Plan) -> None:
    """Raise a UserError if the recorded plan differs from the plan computed now."""
    file, status = folder.path / "plan.csv", folder.status()
    written = status.get("plan") or dict(status.get("sha256") or {}).get("plan.csv")
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != written:
        return  # the run never started, or the file is damaged and will be written again
    with file.open(newline="") as text:
        stages = list(csv.DictReader(text))
    for was, stage in zip_longest(stages, plan.rows()):
        row = None if stage is None else {n: _cell(v) for n, v in stage.items()}
        if was is None or row is None or not _same(was, row):
            number = (was or row or {})["stage"]
            raise UserError(
                f"{folder.path}: the plan differs from the one that this run began with: stage"
                f" {number} was {_shown(was)}, now {_shown(row)}. The code of the schedule has"
                " changed, and the record has not. Restore the code to continue, or start over with"
                " fresh=true"
            )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _same(was: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two rows of plan.csv are the same stage up to another machine's rounding."""
    if was.keys() != now.keys():
        return False
    names = [name for name in now if name not in TO_NEXT_STAGE]
    return all(math.isclose(float(was[n]), float(now[n]), rel_tol=1e-9) for n in names)


def _shown(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "not there"
    names = {"epochs": "epochs", "eta_m": "η", "b_m": "b", "phi_m": "δ_m/δ_1"}
    return ", ".join(f"{shown} {float(row[name]):.6g}" for name, shown in names.items())
