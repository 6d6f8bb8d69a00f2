"""Verdicts come from numbers: by one rule, from the tables alone."""

import math

import pytest
from conftest import ROOT
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from lab.theory import laboratory
from lab.theory.row import Check, Seen, frame, rate_gap, wilson

COMMITTED = ROOT / "results" / "theory"
YES, NO = Check("", 1.0, 0.0), Check("", -1.0, 0.0)
OPEN = Check("", 0.1, 0.0, interval=(-0.1, 0.3))


def test_the_rule_of_verdicts():
    for parts, controls, verdict in (
        ([YES], [], "agrees"),
        ([YES, YES], [NO], "agrees"),
        ([NO], [NO], "disagrees"),
        ([YES, NO], [], "in part"),
        ([YES, NO, OPEN], [], "in part"),
        ([YES, OPEN], [], "undecided"),
        ([NO, OPEN], [], "undecided"),
        ([], [], "undecided"),
        ([YES], [YES], "undecided"),
        ([YES], [NO, OPEN], "undecided"),
        ([NO], [YES], "undecided"),
    ):
        assert Seen("", parts, controls).verdict == verdict


def test_a_check_holds_only_where_its_whole_interval_does():
    for check, holds in (
        (Check("", 0.5, 0, 1), True),
        (Check("", 1.0, 0, 1), True),
        (Check("", 1.1, 0, 1), False),
        (Check("", 0.9, 0, 1, (0.8, 1.2)), None),
        (Check("", 1.2, 0, 1, (1.1, 1.3)), False),
        (Check("", 0.5, 0, 1, (-1.0, 2.0)), None),
        (Check("", math.nan, 0, 1), None),
        (Check("", math.inf, 0), True),
    ):
        assert check.holds is holds


def test_the_committed_page_is_what_its_tables_say(tmp_path):
    """README.md and checks.csv follow from the CSV files beside them, which all are there."""
    studies = {name: laboratory.load(name).STUDY for name in laboratory.STUDIES}
    names = [name for study in studies.values() for name in study.frames]
    laboratory.write_page(COMMITTED, tmp_path)
    for name in ("README.md", "checks.csv"):
        assert (tmp_path / name).read_text() == (COMMITTED / name).read_text()
    files = {path.name for path in COMMITTED.iterdir()}
    assert files == {"README.md", "checks.csv", *(f"{name}.csv" for name in names)}


def test_intervals_of_rates_are_those_of_another_library():
    for wins, n, rival_wins, m in ((12, 40, 3, 50), (56, 70, 48, 80)):
        assert wilson(wins, n) == pytest.approx(proportion_confint(wins, n, method="wilson"))
        expected = confint_proportions_2indep(
            wins, n, rival_wins, m, method="newcomb", compare="diff"
        )
        gap = rate_gap("", (wins, n), (rival_wins, m))
        assert gap.value == pytest.approx(wins / n - rival_wins / m)
        assert gap.interval == pytest.approx(expected)


def test_a_frame_keeps_six_digits_through_its_file(tmp_path):
    table = frame([{"a": math.pi * 1e-9, "b": 3, "c": math.inf, "d": "x"}])
    table.write_csv(tmp_path / "t.csv")
    assert laboratory.read_frames(tmp_path)["t"].row(0) == (3.14159e-9, 3, math.inf, "x")
