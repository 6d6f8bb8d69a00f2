"""This API and every adapter keep the contract that ``make contract`` holds others to."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from contract import extra, others, ours
from contract.checks import CHECKS, SIGNS, Contender, Found
from contract.contenders import of_others, of_ours
from contract.job import Job, Ran, Row

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
PARTS = "equal parts, whole gradient"
ON_RANKS = ("ranks see the global batch", "η changes once", PARTS)
LONG = ("b changes at the update", "b changes in mid-epoch", "b changes in a stream")  # workers
PUBLISHED = ("bs-scheduler", "ignite", "a mutated DataLoader", "Accelerate, split_batches")
FOREIGN = ("lightning", "transformers", "accelerate")


def cases() -> list[pytest.param]:
    params = []
    for way in ours.WAYS:
        for check in CHECKS:
            marks = []
            if way in FOREIGN:
                marks.append(pytest.mark.examples)
            elif check in ON_RANKS:
                marks.append(pytest.mark.slow)
            params.append(pytest.param(way, check, marks=marks))
    return params


@pytest.mark.parametrize(("way", "check"), cases())
def test_the_contract_is_kept(way: str, check: str, tmp_path: Path) -> None:
    if way in FOREIGN:
        pytest.importorskip(way)
        warnings.simplefilter("ignore")  # theirs: about settings that the contract fixes
    result = CHECKS[check](of_ours(way), tmp_path)
    absent = (PARTS, "b changes in a stream")
    assert result.kept or (result.kept is None and check in absent and way in FOREIGN), result


@pytest.mark.contract
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_page_says_of_others_is_so(name: str, tmp_path: Path) -> None:
    """docs/contract.md is fair: a check that it calls kept is kept, a broken one is broken."""
    pytest.importorskip(others.PACKAGES[name].replace("-", "_").replace("pytorch_", ""))
    warnings.simplefilter("ignore")
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} ("))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    contender = of_others(name)
    for cell, (check, of) in zip(cells, CHECKS.items(), strict=True):
        if check not in (*ON_RANKS, *LONG):  # minutes
            folder = tmp_path / check.replace(" ", "-")
            folder.mkdir()
            assert SIGNS[of(contender, folder).kept] == cell, check


def test_a_wrong_batch_is_seen(tmp_path: Path) -> None:
    """Each check that needs no second process fails on a way that breaks what it is about."""

    def wrong(job: Job) -> Ran:
        ran = ours.plain(job)
        ran.rows[3] = Row([*ran.rows[3].samples[1:]], 8.0, 0.1)  # a sample is lost
        ran.promised = len(ran.rows) + 1
        return ran

    apart = ("resumes to the sample", "another schedule refused", "b changes in a stream")
    lost = Contender("wrong", wrong)
    for name, check in CHECKS.items():
        if name not in (*ON_RANKS, *apart):
            assert check(lost, tmp_path) == Found(False, check(lost, tmp_path).seen), name

    def forgetful(job: Job) -> Ran:
        return ours.plain(Job(job.folder, stop=job.stop))  # starts again instead of resuming

    def late(job: Job) -> Ran:
        ran = extra.stream(job)
        ran.rows[20:22] = [Row([*ran.rows[20].samples, *ran.rows[21].samples], 32.0, 0.1)]
        return ran

    for name in ("resumes to the sample", "another schedule refused"):
        assert CHECKS[name](Contender("wrong", forgetful), tmp_path).kept is False
    streamed = CHECKS["b changes in a stream"](Contender("wrong", late, stream=late), tmp_path)
    assert streamed.kept is False


def uneven(job: Job) -> Ran:
    """The second update has another gradient than was made."""
    ran = extra.parts(job)
    ran.gradients[1] *= 1.01
    return ran


@pytest.mark.slow
def test_wrong_parts_are_seen(tmp_path: Path) -> None:
    result = CHECKS[PARTS](Contender("wrong", uneven, parts=uneven), tmp_path)
    assert result.kept is False
    assert result.seen.startswith("1 of")
