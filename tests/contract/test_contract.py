"""This API and every adapter keep the contract that ``make contract`` holds others to."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from contract import ours
from contract.checks import CHECKS, SIGNS, Contender, Found

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
ON_RANKS = ("ranks see the global batch", "η changes once")
PUBLISHED = ("bs-scheduler", "ignite", "a mutated DataLoader", "Accelerate, split_batches")
FOREIGN = ("lightning", "transformers", "accelerate")


def cases() -> list[pytest.param]:
    found = []
    for way in ours.WAYS:
        for check in CHECKS:
            marks = []
            if way in FOREIGN:
                marks.append(pytest.mark.examples)
            elif check in ON_RANKS:
                marks.append(pytest.mark.slow)
            found.append(pytest.param(way, check, marks=marks))
    return found


@pytest.mark.parametrize(("way", "check"), cases())
def test_the_contract_is_kept(way: str, check: str, tmp_path: Path) -> None:
    if way in FOREIGN:
        pytest.importorskip(way)
        warnings.simplefilter("ignore")  # theirs: about settings that the contract fixes
    found = CHECKS[check](Contender(way, ours.WAYS[way]), tmp_path)
    assert found.kept, found.seen


@pytest.mark.contract
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_page_says_of_others_is_so(name: str, tmp_path: Path) -> None:
    """docs/contract.md is fair: a check that it calls kept is kept, a broken one is broken."""
    others = pytest.importorskip("contract.others")
    pytest.importorskip(others.PACKAGES[name].replace("-", "_").replace("pytorch_", ""))
    warnings.simplefilter("ignore")
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} ("))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    one = Contender(name, others.WAYS[name], ranks=name not in others.ALONE)
    for cell, (check, of) in zip(cells, CHECKS.items(), strict=True):
        if check not in ON_RANKS and check != "b changes at the update":  # minutes with workers
            folder = tmp_path / check.replace(" ", "-")
            folder.mkdir()
            assert SIGNS[of(one, folder).kept] == cell, check


def test_a_wrong_batch_is_seen(tmp_path: Path) -> None:
    """Each check that needs no second process fails on a way that breaks what it is about."""
    from contract.job import Job, Ran, Row

    def wrong(job: Job) -> Ran:
        ran = ours.plain(job)
        ran.rows[3] = Row([*ran.rows[3].samples[1:]], 8.0, 0.1)  # a sample is lost
        ran.promised = len(ran.rows) + 1
        return ran

    lost = Contender("wrong", wrong)
    for name, check in CHECKS.items():
        if name not in ON_RANKS and name != "resumes to the sample":
            assert check(lost, tmp_path) == Found(False, check(lost, tmp_path).seen), name

    def forgetful(job: Job) -> Ran:
        return ours.plain(Job(job.folder, stop=job.stop))  # starts again instead of resuming

    assert not CHECKS["resumes to the sample"](Contender("wrong", forgetful), tmp_path).kept
