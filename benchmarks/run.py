"""The benchmark: python -m benchmarks.run [quick] [cells …]; without names, all of them.

Cells: resnet18-128, small-32, graduated-0.5, …. PyTorch chooses the threads; set
OMP_NUM_THREADS=1 if other programs use the CPU. The results of a CPU without AVX512 have another
folder (ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 shows them on a CPU with it).
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import cells, files, ratios, report, rounds
from igo.ground.errors import UserError, nearest


def main(words: list[str]) -> None:
    """Measure and print each name, and write its file of results/ at once."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    quick = "quick" in words
    names = [word for word in words if word != "quick"]
    all_names = list(cells.MAKERS)
    for name in names:
        if name not in all_names:
            hint = nearest(name, all_names)
            raise UserError(f"there is no {name} here: {', '.join(all_names)}.{hint}")
    names = names or (list(cells.QUICK_CELLS) if quick else all_names)
    facts = report.facts(shlex.join(["python", "-m", "benchmarks.run", *words]))
    results = report.folder() / "quick" if quick else report.folder()
    cells_in_order = [name for name in cells.MAKERS if name in names]
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder))
        for name, result in contenders(cells_in_order, Path(folder), quick):
            report.save({"facts": facts, **result}, results / f"{name}.json")
    report.draw(results, list(cells.MAKERS))
    print(f"written: {results}")


def contenders(names: list[str], data_dir: Path, quick: bool) -> Iterator[tuple[str, ratios.Row]]:
    """The results of each cell: turns of all contenders and their ratios."""
    with rounds.Workers() as workers:
        for name in names:
            turns = workers.measure(cells.make(name, data_dir, quick), rounds.CONTENDERS)
            rows = ratios.summary(turns)
            report.show(name, rows)
            yield name, {"contenders": rows, "turns": turns}


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
