import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest


def theory(folder, *arguments, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "igo", "theory", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_studies_write_their_files_and_the_table_keeps_rows_of_earlier_runs(tmp_path):
    done = theory(tmp_path, "study=[remaining,decay_rates]", "output=out", "seed=3")
    assert done.returncode == 0, done.stderr
    again = theory(tmp_path, "study=remaining", "output=out")
    assert again.returncode == 0, again.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    with (tmp_path / "out" / "statements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["study"] for r in rows].count("decay_rates") == 2
    assert [r["study"] for r in rows].count("remaining") == 5
    table = (tmp_path / "out" / "README.md").read_text()
    assert table.count("\n| ") == len(rows) + 1
    for name in (name for r in rows for name in r["files"].split()):
        assert (tmp_path / "out" / name).stat().st_size > 0


COMMITTED = Path(__file__).parents[2] / "results" / "theory"
NOT_AGAIN = ("comparison.csv", "comparison_summary.csv")  # run with fewer starts here


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_committed_theory_comes_out_again(tmp_path):
    """Every study runs; its verdicts and its tables are those in results/theory."""
    done = theory(tmp_path, "output=out", "starts=2", "budget=100", timeout=850)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {p.name for p in COMMITTED.iterdir()}
    for committed in COMMITTED.glob("*.csv"):
        rows, found = read(committed), read(out / committed.name)
        if committed.name == "statements.csv":
            rows = [(r["source"], r["stated"], r["verdict"]) for r in rows if of_others(r)]
            found = [(r["source"], r["stated"], r["verdict"]) for r in found if of_others(r)]
            assert found == rows
        elif committed.name not in NOT_AGAIN:
            assert len(found) == len(rows), committed.name
            for one, other in zip(found, rows, strict=True):
                assert close(one, other), (committed.name, one, other)


def of_others(row):
    return row["study"] != "comparison"


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
    ("arguments", "message"),
    [
        (["study=smothing"], "study=smothing is not allowed"),
        (["study=smothing"], "Did you mean 'smoothing'?"),
        (["study=[nice,decay_rate]"], "Did you mean 'decay_rates'?"),
        (["study=[]"], "study=[]"),
        (["study=null"], "study=[]"),
        (["starts=1"], "starts=1 is not allowed: it must be a whole number from 2"),
        (["budget=many"], "budget=many is not allowed: it must be a whole number"),
        (["workers=0"], "workers=0 is not allowed: it must be a whole number from 1"),
        (["seed=-1"], "seed=-1"),
        (["output=null"], "output=null is not allowed"),
    ],
)
def test_bad_values_are_one_line_and_a_failing_exit_code(tmp_path, arguments, message):
    failed = theory(tmp_path, *arguments)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert failed.stderr.strip().count("\n") == 0
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_is_refused(tmp_path):
    failed = theory(tmp_path, "sed=1")
    assert failed.returncode == 2
    assert "no setting 'sed'. Did you mean 'seed'" in failed.stderr
    assert "Traceback" not in failed.stderr
