"""The anneal of the study, beside a computation of its own; records that were changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rounding
import torch
from conftest import TINY, run_folder
from forked import forge
from torch import nn

import igo
from igo.ground.errors import UserError
from igo.runs.assemble import load_folder
from lab.study import anneal
from lab.study.records import of_folders


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ended")
    forge.run(place, *TINY, "tracking=none", "engine.precision=fp32").good()
    return run_folder(place)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_a_record_that_was_changed_is_refused(name: str, ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / ended.name
    shutil.copytree(ended, folder)
    assert list(of_folders(tmp_path)) == [ended.name]
    text = (folder / name).read_text()
    (folder / name).write_text(re.sub(r"\d(?=\D*$)", lambda m: str(9 - int(m[0])), text))
    with pytest.raises(UserError, match=rf"{ended.name}: {name} is not what the run wrote"):
        of_folders(tmp_path)


def images_of(run: igo.Run) -> tuple[torch.Tensor, torch.Tensor]:
    (batch,) = run.data.plain_batches([torch.arange(run.data.n)])
    return batch


def test_it_is_kept_and_not_measured_again(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (ended / "checkpoint.pt").read_bytes()
    measured = anneal.measure(ended)
    assert 0 < measured <= 100
    assert of_folders(ended.parent)[ended.name].after == {"annealed": measured}
    assert (ended / "checkpoint.pt").read_bytes() == before
    monkeypatch.setattr(anneal, "annealed", None)
    assert anneal.measure(ended) == measured


def test_the_anneal_ends_at_zero_with_batchnorm_of_all_images(
    ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = load_folder(ended, lambda _: None, print)
    rates: list[float] = []
    step = torch.optim.SGD.step

    def seen(optimizer: torch.optim.SGD) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.SGD, "step", seen)
    accuracy = anneal.annealed(run)
    np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(100) / 100))
    network = run.network
    first = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    inputs: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    images, _ = images_of(run)
    with torch.no_grad():
        network.eval()(images)
    means = inputs[0].mean(dim=(0, 2, 3))
    assert isinstance(first.running_mean, torch.Tensor)
    rounding.assert_close(first.running_mean, means, 9 + inputs[0].numel() // len(means))
    with torch.no_grad():
        right = [(network(x).argmax(1) == y).float() for x, y in run.data.test_batches()]
    assert accuracy == pytest.approx(100 * float(torch.cat(right).mean()))
