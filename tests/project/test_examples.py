"""Every example runs as it stands, in a minute on two cores, and what it trains has learnt."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, python
from forked import Death, forge

HERE = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
# The library that an example needs, its launcher, and the least accuracy, in per cent, that it must
# print last.
EXAMPLES = {
    "plain.py": ("torch", (), 90.0),
    "noise_over_time.py": ("matplotlib", (), 90.0),
    "lightning_trainer.py": ("lightning", (), 90.0),
    "transformers_trainer.py": ("transformers", (), 65.0),
    "accelerate_loop.py": ("accelerate", TORCHRUN, 90.0),
    "accumulation.py": ("torch", TORCHRUN, 80.0),
    "fsdp2.py": ("torch", TORCHRUN, 80.0),
    "stream.py": ("torch", (), 75.0),
    "language_model.py": ("torch", (), 33.0),  # the most common byte is some 25 %
}
OTHERS = {"digits.py", "published.py", "pretrain.py"}  # modules, and one that has its own test
SCRIPTS = {path.name for path in (ROOT / "examples").glob("*.py")} - OTHERS


@pytest.mark.examples
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_an_example_runs_and_learns(name: str, tmp_path: Path) -> None:
    library, launcher, least_accuracy = EXAMPLES[name]
    pytest.importorskip(library)
    figure = [str(tmp_path / "figure.png")] if name == "noise_over_time.py" else []
    script = str(ROOT / "examples" / name)
    words = (*launcher, script, *figure)
    out = python(tmp_path, *words, TMPDIR=str(tmp_path), **HERE).good().stdout
    accuracies = re.findall(r"test (\d+\.\d+)%|eval_accuracy': '?(\d\.\d+)", out)
    assert accuracies, out
    percent, share = accuracies[-1]
    assert (float(percent) if percent else 100 * float(share)) >= least_accuracy
    if figure:
        assert (tmp_path / "figure.png").stat().st_size > 10_000


def pretrain(*words: str) -> None:
    """The program in this process, as torchrun starts it."""
    sys.path.insert(0, str(ROOT / "examples"))
    sys.argv = ["pretrain.py", "--sequences=480", "--decay-follows-b", *words]
    importlib.import_module("pretrain").main()


@pytest.mark.examples
def test_pretraining_goes_on_after_kills_and_on_any_number_of_ranks(tmp_path: Path) -> None:
    def losses(name: str, ranks: int, death: Death | None = None) -> list[list[float]]:
        rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        group: Any = {**rank, "MASTER_PORT": "0"} if ranks == 1 else {}
        words = f"--folder={tmp_path / name}"
        function = "test_examples.pretrain"
        run = forge.run(words, ranks=ranks, death=death, function=function, **group)
        assert any(run.codes) == bool(death), run
        rows = [] if death else (tmp_path / name / "loss.csv").read_text().split()[1:]
        return [[float(cell) for cell in row.split(",")] for row in rows]

    rows = losses("undisturbed", 2)
    sizes = [row[3] for row in rows]
    assert sizes == sorted(sizes)
    assert (len(rows), sizes[0], sizes[-1]) == (8, 16, 64)
    assert rows[-1][-1] < rows[0][-1]
    # The kills come before train.bin is there, before the second checkpoint and after the next one.
    for call, moment in ((2, "before"), (5, "before"), (3, "after")):
        losses("killed", 2, Death("pathlib.Path.replace", call, moment))
    # The second number of a row is a time.
    rows_after_kills = losses("killed", 2)
    assert [(row[0], *row[2:]) for row in rows_after_kills] == [(row[0], *row[2:]) for row in rows]
    losses_of_one_rank = [row[-1] for row in losses("one", 1)]
    assert losses_of_one_rank == pytest.approx([row[-1] for row in rows], rel=1e-4)
