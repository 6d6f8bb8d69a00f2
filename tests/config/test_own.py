"""A model, an optimizer and a profile of one's own, by ``_target_``: igo is not edited."""

import re
import shlex
import signal
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import ROOT, configure, python, records, run_folder, status
from data_files import write_images
from forked import Death, forge
from omegaconf import OmegaConf

from igo.config.load import read_config
from igo.config.own import with_options
from igo.ground.errors import UserError
from igo.runs.name import signature

MINE = """
import math

import torch
from torch import nn

from igo.config.schema import DatasetConfig, ModelConfig
from igo.train import models


def net(classes, channels, width=16, limits=(), act=None):
    assert not act or (limits == [math.inf, -math.inf] and str(act()) == "GELU(approximate='none')")
    data = DatasetConfig("x", classes, channels, 8, 2, [0.5], [0.5])
    return models.build(ModelConfig("resnet8", width=width), data)


def sgd(parameters, lr, decay=0.0):
    return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, fused=True)


def power(t, exponent=0.5):
    return ((t.M - t.m + 1) / t.M) ** exponent  # 1 - t, with the bits of p=0.3


def number(width=1):
    return width


class Peeks(nn.Identity):
    def forward(self, x):
        return x * x.sum().item()
"""
RUN = (
    "tracking=none",
    "epochs=3",
    "batch_size=32",
    "dataset.samples=96",
    "noise.batches=2",
    "engine.precision=fp32",
    "checkpoint_seconds=0",
)
OWN = (
    "model._target_=mine.net",
    "model.width=4",
    "model.classes=${dataset.classes}",
    "model.channels=${dataset.channels}",
    "optimizer._target_=mine.sgd",
    "optimizer.decay=0.001",
    "schedule._target_=mine.power",
    "schedule.exponent=0.3",
    "model.limits=[inf,-inf]",
    "model.act._target_=torch.nn.GELU",
    "model.act._partial_=true",
)
SAME = ("model.width=4", "optimizer.weight_decay=0.001", "p=0.3")


@pytest.fixture(autouse=True)
def file() -> Path:
    """The user's own file, in the current folder."""
    file = Path("mine.py")
    file.write_text(MINE)
    return file


def test_they_train_as_igos_own_and_are_continued_loaded_and_tabled(file: Path) -> None:
    killed = Death("igo.runs.checkpoint.save", call=2, moment="after")
    assert forge.run(*RUN, *OWN, death=killed).returncode == -signal.SIGKILL
    text = forge.run(*RUN, *OWN).good().stdout
    folder = run_folder()
    assert "continuing after epoch 2" in text
    lines = text.splitlines()
    assert lines[0] == lines[-1] == f"run {folder}"
    assert folder.name.startswith("digits-mine.net-mine.power-")
    Path("other").mkdir()
    forge.run(*RUN, *SAME, "runs_dir=other/runs").good()
    own_rows, igos_rows = records(folder), records(Path("other"))
    # An optimizer of one's own has no δ.
    nulls = {name: None for name in own_rows[0] if name.startswith("delta_m")}
    assert own_rows == [row | nulls for row in igos_rows]
    assert "mine.sgd(decay=0.001)" in status(folder)["noise_law"]["why_null"]
    script = f"import igo; print(igo.load_run({str(folder)!r}, trust=True).model)"
    assert "BasicBlock" in python(Path(), "-c", script).good().stdout

    file.write_text(file.read_text() + "# edited\n")
    output = forge.run(*RUN, *reversed(OWN)).stdout  # In any order it is the same run.
    assert re.search(r"finished before under mine\.net\(.*\) \w{10}, now \w{10}", output)
    sweep = forge.run("-m", *RUN, *OWN, "model.width=4,5").good().stdout
    assert re.search(r"^started model.width=5$", sweep, re.M)  # The other has finished.
    assert re.search(r"^width 5 +1 ", sweep, re.M)  # The table has the setting.
    forge.run("runs=runs", "output=report", command="report").good()
    page = Path("report/index.html").read_text().replace("\u00a0", " ")
    assert "mine.power, exponent 0.3, split ½, mine.sgd, " in page
    assert ", decay 0.001" in page
    table = pl.read_csv("report/runs.csv")
    settings = {
        "model.name": "mine.net",
        "model.arguments.classes": 10,
        "model.arguments.act._target_": "torch.nn.GELU",
        "optimizer.name": "mine.sgd",
        "model.arguments.limits": "[Infinity, -Infinity]",
        "optimizer.arguments.decay": 0.001,
        "schedule.arguments.exponent": 0.3,
    }
    assert table.select(*settings).rows() == [(*settings.values(),)] * 2
    assert table["model.arguments.width"].sort().to_list() == [4, 5]


def test_a_record_has_a_name_and_its_arguments(tmp_path: Path) -> None:
    """And a table of b."""
    words = with_options(
        [
            "model._target_=torch.nn.LazyLinear",
            "model.out_features=10",
            "model.device={_target_:torch.device,type:cpu}",
            "model.bias=true",
            "optimizer._target_=torch.optim.RMSprop",
            "optimizer.alpha=0.9",
        ]
    )
    config = configure(*words)
    assert signature(config) == "acac8c1141"  # The name of a run is for ever.
    growing = configure(*words, "batch_size={0:16,0.5:32}", "schedule=constant")
    file = tmp_path / "config.yaml"
    file.write_text(OmegaConf.to_yaml(asdict(growing)))
    values = yaml.safe_load(file.read_text())
    device = {"_target_": "torch.device", "type": "cpu"}
    arguments = {"out_features": 10, "device": device, "bias": True}
    assert values["model"]["arguments"] == arguments
    assert (values["batch_size"], values["schedule"]["sizes"]) == (16, {0: 16, 0.5: 32})
    assert read_config(file, trust=True) == growing
    with pytest.raises(UserError, match=r"names code, torch.nn.LazyLinear\(.*; trust=true"):
        read_config(file)


def test_the_page_is_followed_on_ones_own_images() -> None:
    page = (ROOT / "docs" / "own-data-and-model.md").read_text()
    (file,) = re.findall(r"^```python\n# my_model.py\n(.*?)^```", page, re.M | re.S)
    Path("my_model.py").write_text(file)
    root = write_images(Path("images").absolute(), 2)
    (root / "val").rename(root / "test")
    data = ("dataset=folder", f"dataset.root={root}", *RUN[:3], "noise.batches=2")
    for line in re.findall(r"^    igo train (.*_target_.*)$", page, re.M):
        assert (
            "finished: test" in forge.run(*data, *shlex.split(line), "model.width=3").good().stdout
        )
    of_model = "_target_: my_model.cnn\nclasses: ${dataset.classes}\nchannels: 3\n"
    for name, text in (
        ("model/mine", of_model),
        (
            "experiment/both",
            "# @package _global_\ndefaults:\n  - override /model: own\n\nmodel:\n"
            + re.sub("^", "  ", of_model, flags=re.M).rstrip(" "),
        ),
    ):
        own_file = Path(f"own/{name}.yaml")
        own_file.parent.mkdir(parents=True)
        own_file.write_text(text)
        words = (*data, "--config-dir", "own", name.replace("/", "="), "dry_run=true")
        output = forge.run(*words).good().stdout
        assert "with my_model.cnn(channels=3, classes=3) and sgd" in output


WRONG = {  # The words, and what the message says after the setting.
    "model._target_=mine.nett": r"no attribute 'nett'",
    "model._target_=min.net": r"No module named 'min'",
    "model._target_=mine.power model.widht=3 model.t=1": r"unexpected keyword argument 'widht'",
    "model._target_=mine.number": r"it makes a int, and no Module",
    "model._target_=mine.number model.width={_target_:mine.nett}": r".* 'mine.nett'",
    "model._target_=mine.number model.width={_target_:mine.power}": r"TypeError: .* 't'",
    "model._target_=mine.Peeks": r"cannot take a batch of .*cannot be called on meta tensors",
    "model._target_=torch.nn.Linear model.in_features=a model.out_features=2": r"TypeError: empty",
    "optimizer._target_=torch.optim.LBFGS": r"missing a required argument: 'closure'",
    "optimizer._target_=torch.optim.RMSprop optimizer.lr=1": r"multiple values for .*'lr'",
    "optimizer._target_=torch.optim.RMSprop optimizer.alpha=-1": r"Invalid alpha value: -1",
    "schedule._target_=mine.power schedule.exponent=a": r"TypeError: .* \(mine.py, line 22\)",
    "schedule._target_=mine.power schedule.exponent=-1": r"φ is 1.5 .*; it may not rise",
    "schedule._target_=mine.number": r"φ is 0 in stage 1",
    "schedule._target_=mine.number schedule.p=1": r".*'p'",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_a_line_that_names_the_target(words: str) -> None:
    line = forge.run(*RUN, *words.split()).error()
    target = words.split(maxsplit=1)[0]
    pattern = rf"error: {re.escape(target)}\(.*\) is not allowed: .*{WRONG[words]}"
    assert re.match(pattern, line), line
    assert not Path("runs").exists()
