import csv

import pytest
from conftest import ROOT

from lab.theory import laboratory

COMMITTED = ROOT / "results" / "theory"
MINUTES = ("explicit", "noise", "nice", "implicit", "escape", "own_noise")  # CI has no time for


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def close(row, other):
    """The same words, and numbers that differ by rounding at most."""
    for name, value in row.items():
        try:
            number, wanted = float(value), float(other[name])
        except ValueError:
            if value != other[name]:
                return False
        else:
            if number != pytest.approx(wanted, rel=1e-3, abs=1e-9, nan_ok=True):
                return False
    return row.keys() == other.keys()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([n for n in laboratory.STUDIES if n not in MINUTES], marks=pytest.mark.slow),
        pytest.param(MINUTES, marks=pytest.mark.long),
    ],
    ids=["the quick", "the rest"],
)
def test_the_committed_theory_comes_out_again(tmp_path, program, names):
    """The tables are those in results/theory; the page has the rows of the studies that ran."""
    program(f"study=[{','.join(names)}]", "output=out", command="lab.theory").good()
    studies = [laboratory.load(name) for name in names]
    page = (tmp_path / "out" / "README.md").read_text()
    assert f"**{sum(len(study.rows) for study in studies)} statements: " in page
    for study in studies:
        assert all((tmp_path / "out" / figure).stat().st_size for figure in study.figures)
    for name in {name for study in studies for name in study.frames}:
        rows, again = read(COMMITTED / f"{name}.csv"), read(tmp_path / "out" / f"{name}.csv")
        assert len(again) == len(rows), name
        for row, other in zip(again, rows, strict=True):
            assert close(row, other), (name, row, other)


def test_a_bad_value_is_one_line_and_a_failing_exit_code(tmp_path, program):
    ended = program("study=[nice,decay_rate]", command="lab.theory")
    assert "Did you mean 'decay_rates'?" in ended.error()
    assert list(tmp_path.iterdir()) == []
