"""The rows of results/rows.yaml: the runs they compare, what these came to, and the verdicts.

``igo.report.comparison`` compares and judges two arms, as in the report; a row with "test: none" is
not judged. Differences are in the unit of the row's endpoint: points of test accuracy, or 100 ln of
a loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from igo.report import comparison
from igo.report.comparison import in_range, p_value
from lab.study import records
from lab.study.design import ROOT, Job, Record, Runs, Study
from lab.study.table import markdown, power, with_interval

Row = dict[str, Any]  # a row as it is in the file
FILE = ROOT / "results" / "rows.yaml"
HEAD = """\
# The rows of results/cifar100.md: claims, their runs, and the result.
# `make study` makes "found" of the records in results/records; all else is written by hand, before
# the runs, but for the rows with "test: none".
# Differences are in the unit of the endpoint: points of test accuracy, or 100 ln of a loss.
# Endpoints: end_… by running statistics of BatchNorm, in metrics.jsonl; anew_… by fresh ones, and
# annealed_… by those after 400 updates at η = anneal, in after.json; …augmented… of such images.
"""
MARGIN = 0.5  # points of test accuracy
DIGITS = 6  # significant digits in the file


def read() -> list[Row]:
    """The rows as they are in the file."""
    return list(yaml.safe_load(FILE.read_text()))


def write(rows: Sequence[Row]) -> None:
    """Write the rows into the file."""
    options: Any = {"sort_keys": False, "allow_unicode": True, "width": 120}
    texts = (yaml.safe_dump([row], default_flow_style=None, **options) for row in rows)
    write_atomically(FILE, HEAD + "".join(texts))  # one by one: without YAML's anchors


def title(settings: Mapping[str, Any]) -> str:
    """The name of an arm: ``Method 2 reversed``."""
    return f"Method {settings['schedule'][-1]}{' reversed' * ('order' in settings)}"


def studies(rows: Sequence[Row]) -> dict[str, Study]:
    """The study of each experiment: all arms of a seed, and then those of the next."""
    names = dict.fromkeys(row["experiment"] for row in rows)
    return {name: _study([row for row in rows if row["experiment"] == name]) for name in names}


def _study(rows: Sequence[Row]) -> Study:
    row = rows[0]
    start, name = row.get("first_seed", 0), row["experiment"]
    seeds = range(start, start + row["seeds"])
    arms = {title(arm): arm for row in rows for arm in (row["second"], row["first"])}

    def jobs(_: Runs) -> Iterator[Job]:
        for seed, arm in itertools.product(seeds, arms.values()):
            yield {"experiment": name, **arm, "seed": seed}

    return records.study(name, jobs, dict, seeds, title, row.get("anneal"))


def families(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups: the p-values of a group are adjusted together."""
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(row["family"], []).append(row)
    return list(by_family.values())


def fill(rows: Sequence[Row], runs: Runs) -> None:
    """Put the numbers of the runs and the verdict into each row, in place."""
    arms = {name: study.arms(runs) for name, study in studies(rows).items()}
    for family in families(rows):
        of_experiment = arms[family[0]["experiment"]]
        seeds = max(map(len, of_experiment.values()), default=0)
        for row in family:
            row["found"] = None
        if seeds >= family[0]["least"]:
            judge(family, of_experiment)


def judge(family: Sequence[Row], arms: Mapping[str, Sequence[Record]]) -> None:
    """Put the numbers and the verdict into each row of a question, from the runs of its arms."""
    ends = [
        [
            np.array([run[row["endpoint"]] for run in arms[title(row[arm])]])
            for arm in ("first", "second")
        ]
        for row in family
    ]
    margins = [row.get("margin", MARGIN) for row in family]
    pairs = comparison.adjusted(
        [comparison.pair(x - y, margin) for (x, y), margin in zip(ends, margins, strict=True)]
    )
    for row, pair, (x, y) in zip(family, pairs, ends, strict=True):
        numbers = {
            "verdict": "no verdict" if row["test"] == "none" else pair.verdict,
            "n": pair.n,
            "first": x.mean(),
            "second": y.mean(),
            "statistic": pair.difference,
            "low": pair.low,
            "high": pair.high,
            "sd": pair.sd,
            "p": pair.p,
            "p_equal": pair.p_equal,
            "p_adjusted": pair.p_holm,
            "p_equal_adjusted": pair.p_equal_holm,
            "detectable": pair.detectable,
        }
        row["found"] = {name: rounded(number) for name, number in numbers.items()}


def rounded(number: Any) -> Any:
    """A number as it is in the file."""
    return float(f"{number:.{DIGITS}g}") if isinstance(number, float) else number


def again(experiment: str, start: int, n: int) -> None:
    """Train and judge an experiment's rows with n other seeds, from ``start`` on."""
    changes = {"first_seed": start, "seeds": n, "least": 2}
    rows = [row | changes for row in read() if row["experiment"] == experiment]
    if not rows:
        raise UserError(f"no row of results/rows.yaml has the experiment {experiment}")
    study = replace(_study(rows), name=f"{experiment}_{start}", old=dict)
    study.run()
    fill(rows, study.read())
    print(table(rows))


def table(rows: Sequence[Row]) -> str:
    """The rows: adjusted p, and what n seeds can detect."""
    lines = []
    for row in rows:
        numbers = row["found"]
        if numbers is None:
            lines.append([row["claim"], "", "", "", "**not judged**"])
            continue
        lines.append(
            [
                row["claim"],
                with_interval(*(numbers[name] for name in ("statistic", "low", "high"))),
                p_value(numbers["p_adjusted"]),
                power(numbers["detectable"]),
                numbers["verdict"],
            ]
        )
    seeds = in_range([row["found"]["n"] for row in rows if row["found"]] or [0])
    head = [f"claim, {seeds} seeds", "difference, 95 %", "p", "detectable", "verdict"]
    return markdown(head, lines)
