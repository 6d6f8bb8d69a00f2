"""Verdicts come from numbers: by one rule, from the frames alone, and other numbers change them."""

import ast
import contextlib
import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lab.theory import laboratory
from lab.theory.page import entries, write
from lab.theory.row import VERDICTS, Check, Seen, Settings, frame, mean, rate, rate_gap, wilson

ROOT = Path(__file__).parents[3]
THEORY = ROOT / "lab" / "theory"
COMMITTED = ROOT / "results" / "theory"
SOURCES = sorted(THEORY.rglob("*.py"))

REFUSED = (ValueError, ZeroDivisionError, IndexError, TypeError, OverflowError)

YES, NO = Check("", 1.0, 0.0), Check("", -1.0, 0.0)
OPEN = Check("", 0.1, 0.0, interval=(-0.1, 0.3))


@pytest.mark.parametrize(
    ("parts", "controls", "verdict"),
    [
        ([YES], [], "agrees"),
        ([YES, YES], [NO], "agrees"),
        ([NO], [NO], "disagrees"),
        ([YES, NO], [], "in part"),
        ([YES, NO, OPEN], [], "in part"),
        ([YES, OPEN], [], "undecided"),
        ([NO, OPEN], [], "undecided"),
        ([OPEN], [], "undecided"),
        ([], [], "undecided"),
        ([YES], [YES], "undecided"),
        ([YES], [NO, OPEN], "undecided"),
        ([NO], [YES], "undecided"),
    ],
)
def test_the_rule_of_verdicts(parts, controls, verdict):
    assert Seen("", parts, controls).verdict == verdict


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (Check("", 0.5, 0, 1), True),
        (Check("", 1.0, 0, 1), True),
        (Check("", 1.1, 0, 1), False),
        (Check("", 0.9, 0, 1, (0.8, 1.2)), None),
        (Check("", 1.2, 0, 1, (1.1, 1.3)), False),
        (Check("", 0.5, 0, 1, (-1.0, 2.0)), None),
        (Check("", math.nan, 0, 1), None),
        (Check("", math.inf, 0), True),
    ],
)
def test_a_check_holds_only_where_its_whole_interval_does(check, holds):
    assert check.holds is holds


def test_no_source_of_the_laboratory_names_a_verdict_but_the_rule():
    """A verdict written by hand would be a string like these somewhere."""
    places = [
        (path.name, node.lineno)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in VERDICTS
    ]
    assert places
    assert {name for name, _ in places} == {"row.py"}


def test_no_number_checked_in_a_row_is_a_literal():
    """Check("…", 0.3, …) in a study would be a result written by hand."""
    literal = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("Check", "rate", "rate_gap", "mean")
        and len(node.args) > 1
        and not any(isinstance(inner, ast.Name | ast.Call) for inner in ast.walk(node.args[1]))
    ]
    assert literal == []


@pytest.fixture(scope="module")
def studies():
    return {name: laboratory.load(name) for name in laboratory.STUDIES}


@pytest.fixture(scope="module")
def committed(studies):
    names = [name for study in studies.values() for name in study.frames]
    frames = laboratory.read_frames(COMMITTED, names)
    assert sorted(frames) == sorted(names)
    return frames


def test_every_row_has_a_control_or_says_why_not(studies, committed):
    for entry in entries(studies, committed):
        assert entry.seen.parts, entry.row.stated
        assert bool(entry.seen.controls) != bool(entry.seen.no_control), entry.row.stated
        assert not entry.row.picture or entry.row.picture in studies[entry.study].figures


def test_the_committed_page_is_what_its_tables_say(studies, committed, tmp_path):
    """Verdicts and numbers of README.md follow from the CSV files beside it."""
    write(tmp_path, entries(studies, committed), Settings(tmp_path))
    again, page = ((folder / "README.md").read_text() for folder in (tmp_path, COMMITTED))

    def without_the_run(text):
        return [line for line in text.splitlines() if not line.startswith("Hardware")]

    assert without_the_run(again) == without_the_run(page)
    for name in (name for study in studies.values() for name in study.figures):
        assert (COMMITTED / name).stat().st_size > 0


def changed(table):
    """Yield the table with numbers changed: a whole column, one group's, or to another column's."""
    kinds = table.schema.items()
    numbers = [name for name, kind in kinds if kind.is_numeric()]
    yield from (
        table.with_columns(pl.col(other).alias(name))
        for name, other in itertools.permutations(numbers, 2)
        if table.schema[name] == table.schema[other]
    )
    for group in (name for name, kind in kinds if kind == pl.String):
        for value, name in itertools.product(table[group].unique(maintain_order=True), numbers):
            at = pl.when(pl.col(group) == value)
            yield table.with_columns(at.then(pl.col(name) * 0).otherwise(pl.col(name)).alias(name))
    for name, kind in table.schema.items():
        column = pl.col(name)
        if kind == pl.Boolean:
            yield table.with_columns(~column)
            continue
        if not kind.is_numeric():
            continue
        for values in (column * 1000, column / 1000, -column, column * 0, column.reverse()):
            yield table.with_columns(values.cast(kind) if kind.is_integer() else values)
        if kind.is_float():
            yield table.with_columns(pl.lit(1.0).alias(name))
            yield table.with_columns((1 - column).alias(name))


def other_verdict(row, frames, names):
    """Tell whether some changed table gives the row another verdict."""
    before = row.look(frames).verdict
    for name in names:
        for table in changed(frames[name]):
            # numbers that no measurement gives may be refused
            with np.errstate(all="ignore"), contextlib.suppress(*REFUSED):
                if row.look({**frames, name: table}).verdict != before:
                    return True
    return False


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of SciPy, on such numbers
@pytest.mark.parametrize("study", laboratory.STUDIES)
def test_other_numbers_give_another_verdict(studies, committed, study):
    for row in studies[study].rows:
        assert other_verdict(row, committed, studies[study].frames), row.stated


def test_wilson_is_the_textbook_interval():
    z, n, p = stats.norm.ppf(0.975), 40, 0.3
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(12, 40) == pytest.approx((centre - half, centre + half))
    assert rate("", 12, 40).value == 0.3


def test_newcombes_interval_is_his_example():
    """Newcombe 1998, table II, example (a): 56/70 − 48/80."""
    low, high = rate_gap("", (56, 70), (48, 80)).interval
    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_a_mean_has_students_interval():
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean("", values).interval == pytest.approx((expected.low, expected.high))


def test_a_frame_keeps_six_digits_through_its_file(tmp_path):
    table = frame([{"a": math.pi * 1e-9, "b": 3, "c": math.inf, "d": "x"}])
    table.write_csv(tmp_path / "one.csv")
    (tmp_path / "one.csv").rename(tmp_path / "t.csv")
    assert laboratory.read_frames(tmp_path, ["t"])["t"].row(0) == (3.14159e-9, 3, math.inf, "x")
