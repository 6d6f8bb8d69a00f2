"""The benchmark: python -m benchmarks.run [quick] [cells …]; without names, all of them.

Cells: resnet18-128, small-16, graduated-16, …: a kind and b. PyTorch chooses the threads; set
OMP_NUM_THREADS=1 if other programs use the CPU.
"""

import shlex
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import cells, ratios, report, rounds
from igo.ground.errors import UserError, nearest

FAR = 0.1  # five standard errors of a difference between accuracies on files.TEST images


def main(words: list[str]) -> None:
    """Measure and print each name, and write its file of results/ at once."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    quick = "quick" in words
    names = [word for word in words if word != "quick"]
    for name in names:
        if name not in cells.NAMES:
            hint = nearest(name, cells.NAMES)
            raise UserError(f"there is no {name} here: {', '.join(cells.NAMES)}.{hint}")
    names = names or [*(cells.QUICK_NAMES if quick else cells.NAMES)]
    facts = report.facts(shlex.join(["python", "-m", "benchmarks.run", *words]))
    results = report.RESULTS / "quick" if quick else report.RESULTS
    with tempfile.TemporaryDirectory() as folder, rounds.Workers() as workers:
        for name in names:
            start = time.perf_counter()
            turns, accuracies = workers.measure(cells.make(name, Path(folder), quick))
            rows = ratios.summary(turns, accuracies)
            seconds = round(time.perf_counter() - start)
            report.show(f"{name}, {seconds} s", rows)
            result = {"facts": facts, "seconds": seconds, "contenders": rows, "turns": turns}
            report.save(result, results / f"{name}.json")
            if abs(accuracies["ours"] - accuracies["script"]) > FAR:
                print(f"{name}: the accuracies are further apart than by chance")
    print(f"written: {results}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
