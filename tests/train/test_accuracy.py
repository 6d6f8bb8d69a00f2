"""What the README promises of whole runs, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Program, records, run_folder

from igo.data.readers import DEBIAN_FASHION_MNIST


@pytest.mark.slow
def test_the_default_run_reads_digits(program: Program, tmp_path: Path) -> None:
    program().good()
    assert records(run_folder(tmp_path))[-1]["test/accuracy"] >= 0.97


@pytest.mark.long
@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not there")
def test_five_epochs_of_fashion_mnist(interpreter: Program, tmp_path: Path) -> None:
    typed = ("dataset=fashion_mnist", "schedule=graduated", "p=0.5", "epochs=5")
    interpreter(*typed).good()
    assert records(run_folder(tmp_path))[-1]["test/accuracy"] >= 0.90
