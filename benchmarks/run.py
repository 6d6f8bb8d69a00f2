"""The benchmark: python -m benchmarks.run [quick] [cells and parts …]; without names, all of it.

Names: the cells (resnet18-128, small-32, graduated-0.5, …), or apart, startup, parallel, growth.
Threads as PyTorch chooses them; OMP_NUM_THREADS=1 where other programs keep the CPU busy. What a
CPU without AVX512 gives, or one that is told to do without (make bench-lesser), has a folder.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import apart, cells, files, growth, parallel, ratios, report, rounds, startup
from igo.errors import UserError, nearest

PARTS = ("apart", "startup", "parallel", "growth")
QUICK = (*cells.QUICK_CELLS, "startup")


def main(words: list[str]) -> None:
    """Measure, print, and write a file of results/ for each name as soon as it is measured."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    quick = "quick" in words
    names = [word for word in words if word != "quick"]
    known = [*cells.MAKERS, *PARTS]
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise UserError(f"there is no {name} here: {', '.join(known)}.{hint}")
    names = names or (list(QUICK) if quick else known)
    facts = report.facts(shlex.join(["python", "-m", "benchmarks.run", *words]))
    results = report.folder() / "quick" if quick else report.folder()
    measured = [name for name in cells.MAKERS if name in names]
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder))
        for name, found in contenders(measured, Path(folder), quick):
            report.save({"facts": facts, **found}, results / f"{name}.json")
    for name, found in others([name for name in PARTS if name in names], quick):
        report.save({"facts": facts, **found}, results / f"{name}.json")
    report.draw(results, list(cells.MAKERS))
    print(f"written: {results}")


def contenders(names: list[str], data_dir: Path, quick: bool) -> Iterator[tuple[str, ratios.Row]]:
    """Cell by cell, everybody's turns, their ratios; at the end what was promised of them."""
    said: list[ratios.Row] = []
    with rounds.Workers() as workers:
        for name in names:
            cell = cells.make(name, data_dir, quick)
            extra = ("steady",) * cell.whole_run
            turns = workers.measure(cell, (*rounds.CONTENDERS, *extra))
            flop = flop_per_image(cell)
            rows = with_utilisation(ratios.summary(turns), flop)
            report.show(name, rows)
            verdicts = ratios.verdicts(rows, "cuda" if _gpu() else "cpu")
            said += verdicts
            yield name, {"contenders": rows, "targets": verdicts,
                         "flop_per_image": flop, "turns": turns}  # fmt: skip
    report.show("Targets: images a second of ours over the other's", said)


def others(names: list[str], quick: bool) -> Iterator[tuple[str, ratios.Row]]:
    """What does not show in a training step."""
    for name in names:
        found: ratios.Row = {}
        if name == "apart":
            found[name] = apart.measure(epochs=5, samples=2_000 if quick else 20_000)
            report.show("One run: where its seconds go", found[name])
        elif name == "startup":
            datasets = startup.DATASETS[-1:] if quick else startup.DATASETS
            found[name] = startup.measure(datasets, repeats=1 if quick else 5)
            report.show("First update ended ÷ (import torch + reading the data)", found[name])
            if not quick:
                found["imports"] = startup.imports("dataset=digits", "tracking=none")
                report.show("Imports, each package's own modules", found["imports"])
        elif name == "parallel":
            found[name] = parallel.measure(1 if quick else 3, 2_000 if quick else 4_000)
            report.show("Small runs at once and in sequence", found[name])
        else:
            found[name] = growth.measure(quick)
            report.show("As the work grows", found[name])
        yield name, found


def flop_per_image(cell: cells.Cell) -> float:
    """Floating-point operations of forward and backward, counted by PyTorch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from igo.train import models

    facts = cell.config.dataset
    network = models.build(cell.config.model, facts).to("meta")
    images = torch.empty(2, facts.channels, facts.image_size, facts.image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops() / 2


def with_utilisation(rows: list[ratios.Row], flop: float) -> list[ratios.Row]:
    """On a GPU, say which share of its peak the model's arithmetic reaches."""
    gpu = _gpu()
    if not gpu:
        return rows
    return [
        {**row, "model_flop_utilisation": report.utilisation(
            row["images_per_second"].median, flop, gpu)}
        for row in rows
    ]  # fmt: skip


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
