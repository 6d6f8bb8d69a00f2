import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "src" / "theory.py"


def theory(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
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
