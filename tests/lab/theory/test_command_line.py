import pytest
from conftest import ROOT
from polars.testing import assert_frame_equal

from lab.theory import __main__, laboratory

COMMITTED = ROOT / "results" / "theory"
MINUTES = ("explicit", "noise", "implicit", "escape", "own_noise")  # CI has no time for


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([n for n in laboratory.STUDIES if n not in MINUTES], marks=pytest.mark.slow),
        pytest.param(MINUTES, marks=pytest.mark.long),
    ],
    ids=["the quick", "the rest"],
)
def test_the_committed_theory_comes_out_again(tmp_path, names):
    """The tables are those in results/theory; the page has the rows of the studies that ran."""
    laboratory.run(names, tmp_path / "out")
    studies = [laboratory.load(name).STUDY for name in names]
    page = (tmp_path / "out" / "README.md").read_text()
    assert f"**{sum(len(study.rows) for study in studies)} statements: " in page
    frames, committed = (laboratory.read_frames(p) for p in (tmp_path / "out", COMMITTED))
    for name in {name for study in studies for name in study.frames}:
        assert_frame_equal(frames[name], committed[name], rel_tol=1e-3, abs_tol=1e-9)


def test_an_unknown_study_is_one_line_before_any_work(monkeypatch):
    monkeypatch.setattr("sys.argv", ["-m", "nice", "decay_rate"])
    with pytest.raises(SystemExit, match="error: no study 'decay_rate': there are identity, noise"):
        __main__.main()
