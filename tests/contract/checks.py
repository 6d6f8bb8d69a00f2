"""The contract: plain checks. Each says whether it is kept, and what was seen."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contract.job import (
    AFTER,
    EPOCHS,
    FIRST_RATE,
    LARGE,
    MIDDLE,
    SECOND_RATE,
    SMALL,
    Job,
    Ran,
    Row,
)

Way = Callable[[Job], Ran]
RAGGED = 60  # samples, no multiple of a batch
IN_MIDDLE = SMALL * MIDDLE + LARGE * AFTER
CLOSE = 1e-5  # relative, of a gradient: the sum of some 16 numbers in single precision
STOP = 18  # updates: two into the third epoch, where b is 16
RANKS = 2
PATIENCE = 600  # seconds


SIGNS = {True: "kept", False: "**broken**", None: "–"}


@dataclass(frozen=True)
class Found:
    """``kept`` is None where the contender does not offer what is asked."""

    kept: bool | None
    seen: str


@dataclass(frozen=True)
class Contender:
    """``ranks``: whether it trains in several processes; ``middle``: changes b inside an epoch.

    ``parts`` cuts batches into parts on two ranks, ``stream`` trains on a stream.
    """

    name: str
    way: Way
    ranks: bool = True
    middle: bool = True
    parts: Way | None = None
    stream: Way | None = None


def delivered_is_logged(contender: Contender, folder: Path) -> Found:
    """The batch delivered is the one logged, where n is no multiple of b."""
    rows = contender.way(Job(str(folder), n=RAGGED)).rows
    wrong = [row for row in rows if len(row.samples) != row.logged]
    if not wrong:
        return Found(bool(rows), f"{len(rows)} batches as logged")
    first = wrong[0]
    seen = f"{len(wrong)} of {len(rows)} batches are not; e.g. {len(first.samples)} samples"
    return Found(False, f"{seen} logged as {first.logged:g}")


def once_an_epoch(contender: Contender, folder: Path) -> Found:
    """Each sample is seen once in each epoch, and no more epochs than were asked for."""
    return _once([row.samples for row in contender.way(Job(str(folder), n=RAGGED)).rows], RAGGED)


def _once(batches: Sequence[Sequence[int]], n: int) -> Found:
    seen = [sample for batch in batches for sample in batch]
    epochs = [sorted(seen[start : start + n]) for start in range(0, len(seen), n)]
    if epochs == [list(range(n))] * EPOCHS:
        return Found(True, f"{EPOCHS} epochs of {n} samples")
    return Found(False, f"{len(seen)} samples delivered, {EPOCHS} epochs have {n * EPOCHS}")


def changes_at_the_update(contender: Contender, folder: Path) -> Found:
    """b changes at the first update of its stage, with 4 workers that fetch ahead."""
    return _sizes([row.samples for row in contender.way(Job(str(folder), workers=4)).rows])


def changes_in_mid_epoch(contender: Contender, folder: Path) -> Found:
    """b changes at the very update inside an epoch, with 0, 2, 4 workers, persistent or not."""
    if not contender.middle:
        return Found(None, "nothing of its own for a change inside an epoch")
    cases = [(0, False), *((count, kept) for count in (2, 4) for kept in (False, True))]
    for workers, persistent in cases:
        job = Job(str(folder), n=IN_MIDDLE, workers=workers, persistent=persistent, middle=True)
        sizes = _sizes([row.samples for row in contender.way(job).rows], MIDDLE, AFTER)
        if not sizes.kept:
            kept = ", persistent" * persistent
            return Found(False, f"{workers} workers{kept}: {sizes.seen}")
    return Found(True, f"{sizes.seen}, with 0, 2, 4 workers, persistent or not")


def changes_in_a_stream(contender: Contender, folder: Path) -> Found:
    """The same for an IterableDataset with two workers, and each sample is seen once."""
    if contender.stream is None:
        return Found(None, "nothing of its own for a stream")
    job = Job(str(folder), n=IN_MIDDLE, workers=2, middle=True)
    batches = [row.samples for row in contender.stream(job).rows]
    sizes = _sizes(batches, MIDDLE, AFTER)
    once = sorted(sample for batch in batches for sample in batch) == list(range(IN_MIDDLE))
    return Found(bool(sizes.kept and once), sizes.seen)


def parts_are_the_batch(contender: Contender, folder: Path) -> Found:
    """Two ranks cut each batch into equally many parts, whose gradient is the whole batch's."""
    if contender.parts is None:
        return Found(None, "nothing of its own for it")
    first, second = on_ranks(contender.parts, Job(str(folder), n=RAGGED))
    if first.parts != second.parts:
        return Found(False, f"{runs_of(first.parts)} parts on a rank, {runs_of(second.parts)}")
    wrong = []
    for number, rows in enumerate(zip(first.rows, second.rows, strict=True)):
        samples = [sample for row in rows for sample in row.samples]
        mean = sum(samples) / len(samples) / 1000
        if abs(first.gradients[number] / mean - 1) > CLOSE:
            wrong.append((number + 1, first.gradients[number] / mean))
    if not wrong:
        return Found(True, f"{len(first.parts)} updates of {min(first.parts)} to"
                           f" {max(first.parts)} parts")  # fmt: skip
    seen = f"{len(wrong)} of {len(first.parts)} updates have another gradient than the batch's"
    return Found(False, f"{seen}; e.g. update {wrong[0][0]}: {wrong[0][1]:.3g} of it")


def another_schedule_is_refused(contender: Contender, folder: Path) -> Found:
    """A checkpoint is not taken for that of another schedule, b = 32 at the end."""
    job = Job(str(folder), stop=STOP)
    contender.way(job)
    try:
        after = contender.way(replace(job, resume=True, other=True)).rows
    except Exception as error:
        return Found(True, str(error).strip().splitlines()[0])
    return Found(False, f"goes on with batches of {runs_of([len(row.samples) for row in after])}")


def _sizes(batches: Sequence[Sequence[int]], before: int = 16, after: int = 8) -> Found:
    sizes, wanted = [len(batch) for batch in batches], [SMALL] * before + [LARGE] * after
    if sizes == wanted:
        return Found(True, f"{SMALL} in {before} updates, then {LARGE} in {after}")
    return Found(False, f"batches of {runs_of(sizes)}; asked for: {runs_of(wanted)}")


def resumes_to_the_sample(contender: Contender, folder: Path) -> Found:
    """Killed amid a stage and an epoch, it goes on with the very next sample at the right size."""
    whole = contender.way(Job(str(folder / "whole"))).rows
    job = Job(str(folder / "killed"), stop=STOP)
    for path in (folder / "whole", job.path):
        path.mkdir(exist_ok=True)
    before = contender.way(job).rows
    after = contender.way(replace(job, resume=True)).rows
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


def ranks_see_the_batch(contender: Contender, folder: Path) -> Found:
    """Two processes share each batch: together they see what one would."""
    if not contender.ranks:
        return Found(None, "nothing of its own for several processes")
    parts = on_ranks(contender.way, Job(str(folder)))
    if len({len(part.rows) for part in parts}) > 1:
        return Found(False, f"{[len(part.rows) for part in parts]} updates on the ranks")
    both = [
        [sample for row in rows for sample in row.samples]
        for rows in zip(*(part.rows for part in parts), strict=True)
    ]
    sizes, once = _sizes(both), _once(both, 64)
    return Found(bool(sizes.kept and once.kept), f"{sizes.seen}; {once.seen}")


def updates_are_known(contender: Contender, folder: Path) -> Found:
    """The number of updates is said before the first and is true."""
    ran = contender.way(Job(str(folder), n=RAGGED))
    if ran.promised is None:
        return Found(None, "it says none")
    return Found(ran.promised == len(ran.rows), f"said {ran.promised}, made {len(ran.rows)}")


def rate_changes_once(contender: Contender, folder: Path) -> Found:
    """In two processes η changes at the update that was asked for, not at half of it."""
    if not contender.ranks:
        return Found(None, "nothing of its own for several processes")
    parts = on_ranks(contender.way, Job(str(folder), rate=True))
    rates = [round(row.rate, 9) for row in parts[0].rows]
    changed = rates.index(SECOND_RATE) if SECOND_RATE in rates else None
    first = set(rates[:changed]) == {FIRST_RATE}
    seen = f"η changes after {changed} of {len(rates)} updates; asked for: 16 of 32"
    return Found(first and changed == 16 and len(rates) == 32, seen)


def on_ranks(way: Way, job: Job) -> list[Ran]:
    """Train in two forked processes, with the environment that torchrun gives; what each saw."""
    port = _free_port()
    context = multiprocessing.get_context("fork")  # the libraries are imported already
    ranks = [
        context.Process(target=_rank, args=(way, job, rank, port), daemon=True)
        for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(PATIENCE)
    for path in sorted(job.path.glob("error-*.txt")):
        raise RuntimeError(path.read_text())
    return [Ran.read(job.path / f"rank-{rank}.json") for rank in range(RANKS)]


def _rank(way: Way, job: Job, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="contract",
    )  # fmt: skip
    if "accelerate" in sys.modules:  # it remembers that this process was alone
        state = sys.modules["accelerate.state"]
        state.AcceleratorState._reset_state(reset_partial_state=True)
    try:
        way(job).write(job.path / f"rank-{rank}.json")
    except BaseException:
        (job.path / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def runs_of(sizes: Sequence[int]) -> str:
    """8 × 16, 16 × 8: sizes with how often they came in a row."""
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1][1] += 1
        else:
            runs.append([size, 1])
    return ", ".join(f"{size} × {count}" for size, count in runs[:6]) + " …" * (len(runs) > 6)


CHECKS: dict[str, Callable[[Contender, Path], Found]] = {
    "delivered = logged": delivered_is_logged,
    "each sample once an epoch": once_an_epoch,
    "b changes at the update": changes_at_the_update,
    "resumes to the sample": resumes_to_the_sample,
    "ranks see the global batch": ranks_see_the_batch,
    "updates known": updates_are_known,
    "η changes once": rate_changes_once,
    "b changes in mid-epoch": changes_in_mid_epoch,
    "b changes in a stream": changes_in_a_stream,
    "equal parts, whole gradient": parts_are_the_batch,
    "another schedule refused": another_schedule_is_refused,
}
