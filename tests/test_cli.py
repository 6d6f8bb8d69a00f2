"""The command line as a user meets it: help, dry runs, and errors in one line."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, clean_environment, run_folder

from igo.config import known_settings

Program = Callable[..., "subprocess.CompletedProcess[str]"]
CONF = ROOT / "conf"


def options() -> list[str]:
    return [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml"))]


def test_help_names_every_group_option_and_setting(program: Program) -> None:
    text = program("--help").stdout
    for option in options():
        group, _, name = option.partition("=")
        assert f"\n{group}=…" in text
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), f"{option} is not explained"
    leaves = [
        s for s in known_settings() if not any(o.startswith(f"{s}.") for o in known_settings())
    ]
    for setting in leaves:
        explained = rf"^ +{re.escape(setting)}(=\S+)? +(\[.*\] )?\w"
        assert re.search(explained, text, re.MULTILINE), f"{setting} is not explained"


def test_help_and_cfg_answer_before_heavy_imports(tmp_path: Path) -> None:
    """Neither torch, timm nor wandb is imported; so the answer comes in well under 1.5 s."""
    for flag in (["--help"], ["--cfg", "job"], ["dry_run=true", "epochs=2"]):
        code = (
            "import sys, runpy; sys.argv = sys.argv[1:]\n"
            f"sys.path.insert(0, {str(ROOT / 'src')!r})\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "print('HEAVY', sorted({'torch', 'timm', 'wandb', 'sklearn'} & set(sys.modules)))"
        )
        script = str(ROOT / "src" / "train.py")
        done = subprocess.run(
            [sys.executable, "-c", code, script, *flag],
            cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_cfg_job_is_the_whole_configuration(program: Program) -> None:
    printed = yaml.safe_load(program("--cfg", "job", "schedule=step", "p=0.25").stdout)
    assert printed["p"] == 0.25
    assert printed["schedule"]["profile"] == "step"
    assert {s for s in known_settings() if "." not in s} == set(printed)


def test_dry_run_prints_the_plan_and_makes_nothing(program: Program, tmp_path: Path) -> None:
    done = program("experiment=cifar100_method3", "dry_run=true")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()[-5:]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("1", "1-40", "32"), ("2", "41-80", "64"), ("3", "81-120", "128"),
        ("4", "121-160", "256"), ("5", "161-200", "512"),
    ]  # fmt: skip
    assert "121,200 updates" in done.stdout
    assert not (tmp_path / "runs").exists()


BAD = {  # what is typed: what the message must say
    "p=1.5": r"p=1.5 .*graduated needs p in \(0, 1\].*schedule=polynomial",
    "p=0": r"p=0.0 .*above 0",
    "p=-1 schedule=polynomial": r"p=-1.0 .*above 0",
    "split=1.2": r"split=1.2 .*\[0, 1\]",
    "split=abc": r"split=abc .*a number",
    "epochs=0": r"epochs=0 .*1 or more",
    "epochs=2.5": r"epochs=2.5 .*whole number",
    "seed=-1": r"seed=-1 .*2\^32",
    "learning_rate=nan": r"learning_rate=nan",
    "learning_rate=inf": r"learning_rate=inf",
    "batch_size=1438": r"batch_size=1438 .*1437 training samples",
    "max_batch_size=8": r"max_batch_size=8 .*at least batch_size=16",
    "schedule.batch_multiple=12": r"batch_size=16 .*grid; 12 is on it",
    "schedule.stages=31": r"schedule.stages=31 .*epochs=30",
    "schedule=step schedule.gamma=1": r"schedule.gamma=1.0 .*\(0, 1\)",
    "schedule=step schedule.kappa=1.1": r"schedule.kappa=1.1 .*\(0, 1\]",
    "schedule=step schedule.lam=0.5": r"schedule.lam=0.5 .*1 or more",
    "schedule=step schedule.kappa=1 schedule.lam=1": r"κ/√λ = 1.*schedule=constant",
    "schedule=step schedule.kappa=0.5 split=0.3": r"split=0.3 .*make it 1; leave one out",
    "schedule=step schedule.kappa=0.5 schedule.gamma=0.4": r"γ = κ/√λ = 0.5; leave one out",
    "schedule=constant split=0.5": r"split=0.5 .*no decay to split",
    "schedule=cosine p=0.3": r"p=0.3 .*'cosine'.*would change nothing",
    "schedule=gradated": r"schedule=gradated .*Did you mean 'graduated'",
    "dataset=cifar11": r"dataset=cifar11 .*Did you mean 'cifar10'",
    "experiment=cifar100_method5": r"experiment=cifar100_method5 .*Did you mean 'cifar100_method",
    "schedule.kappa=0.5": r"schedule.kappa is no setting here: it belongs to schedule=step",
    "learning_rat=0.1": r"no setting 'learning_rat'. Did you mean 'learning_rate'",
    "+optimizer.nesterov=true": r"no setting 'optimizer.nesterov'",
    "optimizers=sgd": r"no setting 'optimizers'. Did you mean 'optimizer'",
    "optimizer.momentum=0.9": r"optimizer.momentum=0.9 .*optimizer=shb",
    "optimizer=shb optimizer.momentum=1": r"optimizer.momentum=1.0 .*\[0, 1\)",
    "model=resnet34": r"model.stem=imagenet .*8 pixels.*model.stem=cifar",
    "model.name=resnet18": r"model.name=resnet18 .*choose it as model=resnet18",
    "model.name=resnet9": r"model.name=resnet9 .*Did you mean 'resnet",
    "engine.precision=fp8": r"engine.precision=fp8 .*auto, fp32, bf16, fp16",
    "dataset.augment.crop=8": r"dataset.augment.crop=8 .*image size, 8",
    "dataset.mean=[0.1,0.2]": r"dataset.mean=.* 1 channels",
    "noise.batches=1": r"noise.batches=1 .*2 mini-batches",
    "tracking.mode=onlin": r"tracking.mode=onlin .*Did you mean 'online'",
    "schedule": r"NAME=VALUE",
    "--p=0.9": r"no flag --p; settings are written NAME=VALUE",
    "-p 0.9": r"no flag -p",
    "dataset=null": r"dataset=null .*one of cifar10, cifar100, digits",
    "schedule=linear p=0.7": r"p=0.7 .*would change nothing",
    "schedule=diminishing schedule.a=5": r"schedule.a=5.0 .*inverse_time",
    "schedule.feedback_limit=3": r"schedule.feedback_limit=3.0 .*schedule.feedback=measured",
    "optimizer=shb optimizer.decay_momentum=true split=1": r"split=1.0 .*leave it out",
    "optimizer=shb optimizer.decay_momentum=true max_batch_size=64": r"max_batch_size=64 .*leave",
    "dataset.mean=0.3": r"dataset.mean=0.3 .*list, such as",
    "p=0.5 p": r"NAME=VALUE",
}  # fmt: skip


@pytest.mark.parametrize("typed", BAD)
def test_a_mistake_is_one_line_that_names_the_setting(
    typed: str, program: Program, tmp_path: Path
) -> None:
    done = program(*typed.split())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: .*{BAD[typed]}", line), line
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.iterdir()) == []


SLOW_BAD = {  # known only once data or model is there
    "model=timm model.name=resnet18z": r"model.name=resnet18z .*Did you mean 'resnet18",
    "model=timm model.name=vit_tiny_patch16_224": r"model.name=vit_tiny.*8 x 8 images of digits",
    "dataset.classes=11": r"dataset.classes=11 .*files hold 10",
    "dataset.samples=2000": r"dataset.samples=2000 .*1437",
    "tracking.mode=online": r"tracking.mode=online .*wandb login",
}


@pytest.mark.parametrize("typed", SLOW_BAD)
def test_a_misfit_is_one_line_before_training(typed: str, program: Program, tmp_path: Path) -> None:
    done = program(*typed.split())
    assert done.returncode == 2
    assert re.match(f"error: .*{SLOW_BAD[typed]}", done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_leaves_its_record_and_says_where(program: Program, tmp_path: Path) -> None:
    done = program(*TINY, "tracking=none", "schedule=graduated", "p=0.5")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = run_folder(tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == f"run {folder}"
    with (folder / "plan.csv").open() as file:
        plan = list(csv.DictReader(file))
    assert [row["b_m"] for row in plan] == ["32", "39", "55"]  # 32/√φ², φ = 1, √(2/3), √(1/3)
    names = {path.name for path in folder.iterdir() if path.name != ".lock"}
    assert names == {
        "config.yaml", "plan.csv", "metrics.jsonl", "status.json", "checkpoint.pt",
        "previous-checkpoint.pt",
    }  # fmt: skip


def test_a_multirun_trains_each_combination(program: Program, tmp_path: Path) -> None:
    done = program("-m", *TINY, "tracking=none", "p=0.5,1", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("digits-*/checkpoint.pt"))) == 4


def test_help_is_quick(program: Program) -> None:
    """The promise is 1.5 s on an idle machine; five times that means that something is wrong."""
    started = time.perf_counter()
    program("--help")
    assert time.perf_counter() - started < 7.5
