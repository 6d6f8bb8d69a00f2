"""What the study measures where a run ended, beside computations of its own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import TINY, run_folder
from forked import forge
from torch import nn

import igo
from igo.ground.errors import UserError
from igo.runs.assemble import load_folder
from lab.study import after
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


def test_both_are_kept_and_not_measured_again(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (ended / "checkpoint.pt").read_bytes()
    measured = after.measure(ended, ["tail", "annealed"])
    assert 0 < measured["annealed"] <= 100
    assert json.loads((ended / "after.json").read_text()) == measured
    assert of_folders(ended.parent)[ended.name].after == measured
    assert (ended / "checkpoint.pt").read_bytes() == before
    monkeypatch.setattr(after, "MEASURES", {})
    assert after.measure(ended, ["tail", "annealed"]) == measured


def test_the_tail_is_hills_of_gradients_one_by_one(ended: Path) -> None:
    tail = after.measure(ended, ["tail"])["tail"]
    run, _ = load_folder(ended, lambda _: None, print)
    network = run.network.eval()
    gradients = []
    for image, label in zip(*images_of(run), strict=True):
        loss = F.cross_entropy(network(image[None]), label[None])
        parts = torch.autograd.grad(loss, list(network.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]).double())
    stacked = torch.stack(gradients).numpy()
    sizes = np.sort(np.linalg.norm(stacked - stacked.mean(axis=0), axis=1))[::-1]
    k = max(int(0.05 * len(sizes)), 2)
    hill = 1 / np.mean([np.log(sizes[i] / sizes[k]) for i in range(k)])
    # Of each norm; so of each logarithm twice that at most, and of their mean, 1 / hill.
    apart = rounding.bound(rounding.terms(network, images_of(run)[0][:1]))
    assert tail == pytest.approx(hill, rel=2 * apart * hill)


def test_the_training_loss_is_the_mean_over_all_images_in_eval_mode(ended: Path) -> None:
    run, _ = load_folder(ended, lambda _: None, print)
    losses = []
    with torch.no_grad():
        for image, label in zip(*images_of(run), strict=True):
            losses.append(F.cross_entropy(run.network.eval()(image[None]), label[None]).item())
    assert after.measure(ended, ["train_loss"])["train_loss"] == pytest.approx(
        np.mean(losses), rel=1e-4
    )


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
    accuracy = after.annealed(run)
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
