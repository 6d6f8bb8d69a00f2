"""The benchmark: python -m benchmarks.run [quick] [cells and parts …]; without names, all of it.

Names: the cells (resnet18-128, small-32, graduated-0.5, …), or apart, startup, parallel, growth.
PyTorch chooses the threads; set OMP_NUM_THREADS=1 if other programs use the CPU. The results of a
CPU without AVX512 (or with make bench-lesser) have another folder.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import apart, cells, files, growth, parallel, ratios, report, rounds, startup
from igo.ground.errors import UserError, nearest

PARTS = ("apart", "startup", "parallel", "growth")
QUICK = (*cells.QUICK_CELLS, "startup")


def main(words: list[str]) -> None:
    """Measure and print each name, and write its file of results/ at once."""
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
        for name, result in contenders(measured, Path(folder), quick):
            report.save({"facts": facts, **result}, results / f"{name}.json")
    for name, result in others([name for name in PARTS if name in names], quick):
        report.save({"facts": facts, **result}, results / f"{name}.json")
    report.draw(results, list(cells.MAKERS))
    print(f"written: {results}")


def contenders(names: list[str], data_dir: Path, quick: bool) -> Iterator[tuple[str, ratios.Row]]:
    """The results of each cell: turns of all contenders and their ratios; prints the targets."""
    verdicts_of_cells: list[ratios.Row] = []
    with rounds.Workers() as workers:
        for name in names:
            cell = cells.make(name, data_dir, quick)
            extra = ("steady",) * cell.whole_run
            turns = workers.measure(cell, (*rounds.CONTENDERS, *extra))
            flop = flop_per_image(cell)
            rows = with_utilisation(ratios.summary(turns), flop)
            report.show(name, rows)
            verdicts = ratios.verdicts(rows, "cuda" if _gpu() else "cpu")
            verdicts_of_cells += verdicts
            yield name, {"contenders": rows, "targets": verdicts,
                         "flop_per_image": flop, "turns": turns}  # fmt: skip
    report.show("Targets: images a second of ours over the other's", verdicts_of_cells)


def others(names: list[str], quick: bool) -> Iterator[tuple[str, ratios.Row]]:
    """The results of the parts that a training step does not show."""
    for name in names:
        result: ratios.Row = {}
        if name == "apart":
            result[name] = apart.measure(epochs=5, samples=2_000 if quick else 20_000)
            report.show("One run: where its seconds go", result[name])
        elif name == "startup":
            datasets = startup.DATASETS[-1:] if quick else startup.DATASETS
            result[name] = startup.measure(datasets, repeats=1 if quick else 5)
            report.show("First update ended ÷ (import torch + reading the data)", result[name])
            if not quick:
                result["imports"] = startup.imports("dataset=digits", "tracking=none")
                report.show("Imports, each package's own modules", result["imports"])
        elif name == "parallel":
            result[name] = parallel.measure(1 if quick else 3, 2_000 if quick else 4_000)
            report.show("Small runs at once and in sequence", result[name])
        else:
            result[name] = growth.measure(quick)
            report.show("As the work grows", result[name])
        yield name, result


def flop_per_image(cell: cells.Cell) -> float:
    """Floating-point operations of forward and backward, counted by PyTorch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from igo.train import models

    dataset = cell.config.dataset
    network = models.build(cell.config.model, dataset).to("meta")
    images = torch.empty(2, dataset.channels, dataset.image_size, dataset.image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops() / 2


def with_utilisation(rows: list[ratios.Row], flop: float) -> list[ratios.Row]:
    """Add, on a GPU, the share of its peak that the model's arithmetic reaches."""
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
