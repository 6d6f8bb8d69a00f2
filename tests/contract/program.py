"""What each library made of the contract, as docs/contract.md: python -m contract.program."""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import igo
from contract import extra, others, ours
from contract.checks import CHECKS, SIGNS, Contender, Found, Way, runs_of
from contract.contenders import of_others, of_ours
from contract.job import LARGE, Numbers

OURS = {
    "plain": ("igo, a plain loop", "torch"),
    "lightning": ("igo.adapters.lightning", "lightning"),
    "transformers": ("igo.adapters.transformers", "transformers"),
    "accelerate": ("igo.adapters.accelerate", "accelerate"),
}
PAGE = Path(__file__).parents[2] / "docs" / "contract.md"

HEAD = """# What a batch size schedule has to keep

`make contract` runs every check and writes this page. All libraries get the same schedule: 64
samples, four epochs, b = 8 in the first two epochs and 16 in the others. Checks of single batches
and of epochs have 60 samples, so that n is no multiple of b. (A loader that keeps its shorter last
batch breaks the first check. With `drop_last=True` it breaks the second one.) Inside an epoch b is
8 in 20 updates and 16 in 15, with 0, 2 or 4 workers of the loader. "–" means that a library has
nothing of its own for this, or was not asked.

The checks are in [tests/contract/checks.py](../tests/contract/checks.py). Each library is used as
its documentation says; if it gives a choice, both ways are tried. See
[others.py](../tests/contract/others.py) and, for streams and parts of batches,
[extra.py](../tests/contract/extra.py). igo's ways, in [ours.py](../tests/contract/ours.py), must
pass the same checks in the tests.

"""


MID_EPOCH = """
## A change inside an epoch

The table is for `loader.batch_sampler.batch_size = 16` after 20 batches of 8. bs-scheduler,
ignite's handler and a line of your own do this if they are stepped by the update. A plan of igo
knows every batch before a worker asks for it.

| workers | batches | late by |
|---|---|---|
"""


def main() -> None:
    """Run every check on every contender and write the page."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    contenders: list[tuple[str, str, Contender]] = [
        *((title, package, of_ours(name)) for name, (title, package) in OURS.items()),
        *((name, others.PACKAGES[name], of_others(name)) for name in others.WAYS),
    ]
    table: dict[str, dict[str, Found]] = {}
    for title, package, contender in contenders:
        table[f"{title} ({package} {version(package)})"] = {
            name: outcome_of(contender, name) for name in CHECKS
        }
    PAGE.write_text(HEAD + page(table) + mid_epoch() + lines())
    print(f"written: {PAGE}")


def outcome_of(contender: Contender, name: str) -> Found:
    """What a check says; an error is an answer too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if name in others.NOT_ASKED.get(contender.name, ()):
                return Found(None, "not asked")
            outcome = CHECKS[name](contender, Path(folder))
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error) else ""
            outcome = Found(False, f"{type(error).__name__}: {reason}"[:200])
    print(f"{contender.name:32} {name:28} {SIGNS[outcome.kept]:12} {outcome.seen}", flush=True)
    return outcome


def page(table: dict[str, dict[str, Found]]) -> str:
    """A table of verdicts, and what was seen where a promise was broken."""
    head = f"| | {' | '.join(CHECKS)} |\n|---|{'---|' * len(CHECKS)}\n"
    rows = [
        f"| {title} | {' | '.join(SIGNS[outcome.kept] for outcome in row.values())} |"
        for title, row in table.items()
    ]
    seen = [
        f"- {title}, *{name}*: {outcome.seen}"
        for title, row in table.items()
        for name, outcome in row.items()
        if outcome.kept is False
    ]
    return head + "\n".join(rows) + "\n\n## What was seen\n\n" + "\n".join(seen) + "\n"


def mid_epoch() -> str:
    """How late a change amid an epoch arrives, where the size of a DataLoader's batches is set."""
    rows = []
    for workers in (0, 2, 4):
        loader = DataLoader(Numbers(8 * 20 + 16 * 15), 8, num_workers=workers)
        sizes = []
        for batch in loader:
            sizes.append(len(batch))
            if len(sizes) == 20:
                loader.batch_sampler.batch_size = LARGE  # type: ignore[union-attr]
        late = sizes.index(LARGE) - 20
        rows.append(f"| {workers} | {runs_of(sizes)} | {late} |")
    return MID_EPOCH + "\n".join(rows) + "\n"


def lines() -> str:
    """The code that was run."""
    shown: dict[str, Way] = {
        "igo, a plain loop": ours.plain,
        "igo, batches in parts": extra.parts,
        "igo, a stream": extra.stream,
        **others.WAYS,
        "GradientAccumulationScheduler, parts": extra.accumulated_by_lightning,
        "Accelerate, parts": extra.accumulated_by_accelerate,
        "a mutated DataLoader, a stream": extra.mutated_stream,
    }
    return "\n## The lines\n" + "".join(
        f"\n### {title}\n\n```python\n{inspect.getsource(way)}```\n" for title, way in shown.items()
    )


if __name__ == "__main__":
    assert igo.__file__, sys.path
    torch.set_num_threads(1)
    main()
