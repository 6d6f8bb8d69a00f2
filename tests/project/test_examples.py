"""Every example runs as it stands, in a minute on two cores, and what it trains has learnt."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, python

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
SCRIPTS = {path.name for path in (ROOT / "examples").glob("*.py")} - {"digits.py"}  # a module


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
