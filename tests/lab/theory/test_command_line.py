import csv
import re

import pytest
from conftest import ROOT, python

from lab.theory import laboratory


def theory(folder, *arguments):
    return python(folder, "-m", "lab.theory", *arguments, PYTHONPATH=f"{ROOT}:{ROOT / 'src'}")


@pytest.mark.slow
def test_studies_write_their_files_and_the_page_keeps_rows_of_earlier_runs(tmp_path, program):
    theory(tmp_path, "study=[movement,decay_rates]", "output=out", "seed=3").good()
    before = (tmp_path / "out" / "minimisers_move.csv").read_bytes()
    program("study=decay_rates", "output=out", command="lab.theory").good()
    assert {p.name for p in tmp_path.iterdir()} - {"home"} == {"out"}  # and of matplotlib
    page = (tmp_path / "out" / "README.md").read_text()
    assert "**4 statements: " in page
    assert page.count("\n## ") == 4
    assert (tmp_path / "out" / "minimisers_move.csv").read_bytes() == before
    links = re.findall(r"\]\((?!#|\.\.)([^)]+)\)", page)
    assert {"minimisers_move.png", "decay_rates.csv"} <= set(links)
    for name in links:
        assert (tmp_path / "out" / name).stat().st_size > 0


COMMITTED = ROOT / "results" / "theory"


def test_links_of_the_committed_page_lead_somewhere():
    page = (COMMITTED / "README.md").read_text()
    for link in re.findall(r"\]\((?!#)([^)]+)\)", page):
        assert (COMMITTED / link.partition("#")[0]).exists(), link
    anchors = re.findall(r"\]\(#([^)]+)\)", page)
    assert anchors
    assert all(f'<a id="{anchor}"></a>' in page for anchor in anchors)


MINUTES = ("explicit", "nice", "implicit", "escape", "own_noise")  # that CI has no time for


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def verdicts(folder):
    page = (folder / "README.md").read_text().replace(r"\|", "|")
    return re.findall(r"^\| \[\d+\]\(#row-\d+\) \| (.+) \| \*\*(.+)\*\* \|$", page, re.MULTILINE)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([n for n in laboratory.STUDIES if n not in MINUTES], marks=pytest.mark.slow),
        pytest.param(MINUTES, marks=pytest.mark.long),
    ],
    ids=["the quick", "the rest"],
)
def test_the_committed_theory_comes_out_again(tmp_path, names):
    """The tables are those in results/theory, and the verdicts."""
    theory(tmp_path, f"study=[{','.join(names)}]", "output=out").good()
    out, committed = tmp_path / "out", dict(verdicts(COMMITTED))
    studies = [laboratory.load(name) for name in names]
    stated = [row.stated for study in studies for row in study.rows]
    verdict = dict(verdicts(out))
    assert {text: verdict[text] for text in stated} == {text: committed[text] for text in stated}
    for study in studies:
        assert all((out / figure).stat().st_size for figure in study.figures)
    for name in {name for study in studies for name in study.frames}:
        rows, again_rows = read(COMMITTED / f"{name}.csv"), read(out / f"{name}.csv")
        assert len(again_rows) == len(rows), name
        for row, other in zip(again_rows, rows, strict=True):
            assert close(row, other), (name, row, other)


def test_results_theory_has_what_the_studies_write_and_nothing_else():
    studies = [laboratory.load(name) for name in laboratory.STUDIES]
    tables = {f"{name}.csv" for study in studies for name in study.frames}
    figures = {name for study in studies for name in study.figures}
    assert {path.name for path in COMMITTED.iterdir()} == {"README.md", *tables, *figures}


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
    ("typed", "message"),
    [
        ("study=smothing", "study=smothing is not allowed"),
        ("study=[nice,decay_rate]", "Did you mean 'decay_rates'?"),
        ("study=null", "study=[]"),
        ("workers=0", "workers=0 is not allowed: it must be in [1, 1,024]"),
        ("workers=many", "workers: Value 'many'"),
        ("seed=-1", "seed=-1"),
        ("output=null", "output: Incompatible value"),
        ("sed=1", "no setting 'sed'. Did you mean 'seed'"),
    ],
)
def test_bad_values_are_one_line_and_a_failing_exit_code(tmp_path, typed, message, program):
    assert message in program(typed, command="lab.theory").error()
    assert list(tmp_path.iterdir()) == []
