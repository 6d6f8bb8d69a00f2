"""The contract: six plain checks. Each says whether it is kept, and what was seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contract.job import EPOCHS, FIRST_RATE, LARGE, SECOND_RATE, SMALL, Job, Ran, Row

Way = Callable[[Job], Ran]
RAGGED = 60  # samples, no multiple of a batch
STOP = 18  # updates: two into the third epoch, where b is 16
RANKS = 2
PATIENCE = 1200  # seconds: two processes that import their libraries on a busy machine


SIGNS = {True: "kept", False: "**broken**", None: "–"}


@dataclass(frozen=True)
class Found:
    """``kept`` is None where the contender does not offer what is asked."""

    kept: bool | None
    seen: str


@dataclass(frozen=True)
class Contender:
    """``name`` is how ``contract.program`` finds it; ``ranks`` whether it trains in several."""

    name: str
    way: Way
    ranks: bool = True


def delivered_is_logged(one: Contender, folder: Path) -> Found:
    """The batch delivered is the one logged, where n is no multiple of b."""
    rows = one.way(Job(str(folder), n=RAGGED)).rows
    wrong = [row for row in rows if len(row.samples) != row.logged]
    if not wrong:
        return Found(bool(rows), f"{len(rows)} batches as logged")
    first = wrong[0]
    told = f"{len(wrong)} of {len(rows)} batches are not; e.g. {len(first.samples)} samples"
    return Found(False, f"{told} logged as {first.logged:g}")


def once_an_epoch(one: Contender, folder: Path) -> Found:
    """Each sample is seen once in each epoch, and no more epochs than were asked for."""
    return _once([row.samples for row in one.way(Job(str(folder), n=RAGGED)).rows], RAGGED)


def _once(batches: Sequence[Sequence[int]], n: int) -> Found:
    seen = [sample for batch in batches for sample in batch]
    epochs = [sorted(seen[start : start + n]) for start in range(0, len(seen), n)]
    if epochs == [list(range(n))] * EPOCHS:
        return Found(True, f"{EPOCHS} epochs of {n} samples")
    return Found(False, f"{len(seen)} samples delivered, {EPOCHS} epochs have {n * EPOCHS}")


def changes_at_the_update(one: Contender, folder: Path) -> Found:
    """b changes at the first update of its stage, with 4 workers that fetch ahead."""
    return _sizes([row.samples for row in one.way(Job(str(folder), workers=4)).rows])


def _sizes(batches: Sequence[Sequence[int]]) -> Found:
    sizes, wanted = [len(batch) for batch in batches], [SMALL] * 16 + [LARGE] * 8
    if sizes == wanted:
        return Found(True, f"{SMALL} in 16 updates, then {LARGE} in 8")
    return Found(False, f"batches of {runs_of(sizes)}; asked for: {runs_of(wanted)}")


def resumes_to_the_sample(one: Contender, folder: Path) -> Found:
    """Killed amid a stage and an epoch, it goes on with the very next sample at the right size."""
    whole = one.way(Job(str(folder / "whole"))).rows
    job = Job(str(folder / "killed"), stop=STOP)
    for path in (folder / "whole", job.path):
        path.mkdir(exist_ok=True)
    before = one.way(job).rows
    after = one.way(replace(job, resume=True)).rows
    if before + after == whole:
        return Found(True, f"{len(before)} + {len(after)} updates, the same as {len(whole)}")
    return Found(False, _resumed(before, after))


def _resumed(before: Sequence[Row], after: Sequence[Row]) -> str:
    epoch = [sample for row in before[16:] for sample in row.samples]
    rest = [sample for row in after for sample in row.samples][: 64 - len(epoch)]
    again = len({*epoch} & {*rest})
    sizes = runs_of([len(row.samples) for row in after])
    logged = runs_of([int(row.logged) for row in after])
    return f"after: batches of {sizes}, logged {logged}; {again} samples of the epoch seen again"


def ranks_see_the_batch(one: Contender, folder: Path) -> Found:
    """Two processes share each batch: together they see what one would."""
    if not one.ranks:
        return Found(None, "no support for several processes")
    parts = on_ranks(one.name, Job(str(folder)))
    if len({len(part.rows) for part in parts}) > 1:
        return Found(False, f"{[len(part.rows) for part in parts]} updates on the ranks")
    both = [
        [sample for row in rows for sample in row.samples]
        for rows in zip(*(part.rows for part in parts), strict=True)
    ]
    sizes, once = _sizes(both), _once(both, 64)
    return Found(bool(sizes.kept and once.kept), f"{sizes.seen}; {once.seen}")


def updates_are_known(one: Contender, folder: Path) -> Found:
    """The number of updates is said before the first and is true."""
    ran = one.way(Job(str(folder), n=RAGGED))
    if ran.promised is None:
        return Found(None, "it says none")
    return Found(ran.promised == len(ran.rows), f"said {ran.promised}, made {len(ran.rows)}")


def rate_changes_once(one: Contender, folder: Path) -> Found:
    """In two processes η changes at the update that was asked for, not at half of it."""
    if not one.ranks:
        return Found(None, "no support for several processes")
    parts = on_ranks(one.name, Job(str(folder), rate=True))
    rates = [round(row.rate, 9) for row in parts[0].rows]
    changed = rates.index(SECOND_RATE) if SECOND_RATE in rates else None
    first = set(rates[:changed]) == {FIRST_RATE}
    seen = f"η changes after {changed} of {len(rates)} updates; asked for: 16 of 32"
    return Found(first and changed == 16 and len(rates) == 32, seen)


def on_ranks(name: str, job: Job) -> list[Ran]:
    """Train in two processes by torchrun; what each saw."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={RANKS}", "-m", "contract.rank", name, job.folder,
               str(int(job.rate))]  # fmt: skip
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return [Ran.read(job.path / f"rank-{rank}.json") for rank in range(RANKS)]


def runs_of(sizes: Sequence[int]) -> str:
    """8 × 16, 16 × 8: sizes with how often they came in a row."""
    found: list[list[int]] = []
    for size in sizes:
        if found and found[-1][0] == size:
            found[-1][1] += 1
        else:
            found.append([size, 1])
    return ", ".join(f"{size} × {count}" for size, count in found[:6]) + " …" * (len(found) > 6)


CHECKS: dict[str, Callable[[Contender, Path], Found]] = {
    "delivered = logged": delivered_is_logged,
    "each sample once an epoch": once_an_epoch,
    "b changes at the update": changes_at_the_update,
    "resumes to the sample": resumes_to_the_sample,
    "ranks see the global batch": ranks_see_the_batch,
    "updates known": updates_are_known,
    "η changes once": rate_changes_once,
}
