"""Configurations: what is derived from what, and every file in conf/ as it is composed."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, configure, rounded
from omegaconf import OmegaConf

import igo
from igo.config import rules
from igo.config.load import make_plan, read_config
from igo.config.names import phrase, schedule_name
from igo.config.own import with_options
from igo.plans.profiles import parameters
from igo.train import models

CONF = ROOT / "conf"


@pytest.mark.parametrize(
    "option",
    [
        f"{path.parent.name}={path.stem}"
        for path in sorted(CONF.glob("*/*.yaml"))
        if path.stem not in ("arrays", "folder", "own")  # These need files.
    ],
)
def test_every_option_composes_checks_and_plans(option: str) -> None:
    options = ["dataset=cifar10"] if option == "model=resnet34" else []
    assert make_plan(configure(option, *options)).updates > 0


def test_the_models_of_conf_are_those_that_are_built() -> None:
    assert rules.MODELS.keys() - {"timm", "own"} == models.BUILDERS.keys()


def test_each_profile_file_has_the_parameters_that_its_profile_reads() -> None:
    common_names = {"profile", "stages"}
    for path in (CONF / "schedule").glob("*.yaml"):
        settings = yaml.safe_load(path.read_text())
        if "defaults" in settings:  # It builds on another one, or is the user's own.
            continue
        options = ("kappa", "lam") if path.stem == "step" else ()
        parameter_names = {*parameters(settings["profile"]), *options} - ({"p"} - {*settings})
        assert set(settings) - common_names == parameter_names, path


def test_settings_that_mean_the_same_are_the_same_run() -> None:
    for words, other_words in (
        (("max_batch_size=1437",), ()),  # n is a cap anyway.
        (("schedule.stages=30",), ()),
        (("schedule=linear",), ("schedule=polynomial", "p=1")),
        (("schedule=method1",), ("schedule=constant", "schedule.stages=5")),
    ):
        assert configure(*words) == configure(*other_words), words
    assert configure("max_batch_size=1436") != configure()


def test_a_record_is_read_as_the_configuration_that_it_is() -> None:
    for words in (
        "schedule=linear",
        "schedule.rate=linear schedule.clock=updates",
        "schedule.rate=constant batch_size={0:16,2000:32}",
    ):
        config, file = configure(*with_options(words.split())), Path("config.yaml")
        file.write_text(OmegaConf.to_yaml(asdict(config)))
        assert read_config(file) == config


def test_curves_and_grid_are_those_of_the_library() -> None:
    """Those of a rate, a table of b and a clock are in tests/project/test_reproduce.py."""
    arguments: Any = {"n": 1437, "epochs": 10, "learning_rate": 0.1}
    basis = ("epochs=10", "batch_size=8")
    curve = ("p=0.8", "split=0.1", "schedule.stages=6", "schedule.final_updates=2")
    grid = ("max_batch_size=60", "schedule.batch_multiple=4", "schedule.batch_ratio=1.5")
    assert make_plan(configure(*basis, *curve, *grid)) == igo.plan(
        "graduated",
        **arguments,
        batch_size=8,
        p=0.8,
        split=0.1,
        stages=6,
        max_batch_size=60,
        batch_multiple=4,
        batch_ratio=1.5,
        algorithm3={"final_updates": 2},
    )
    printed = ("schedule=algorithm3", "p=0.7", "schedule.h=0.05", "schedule.alpha_0=2")
    options: Any = {"epsilon": 0.2, "alpha_0": 2, "h": 0.05, "final_updates": 10}
    expected = igo.plan("graduated", **arguments, batch_size=8, p=0.7, algorithm3=options)
    assert make_plan(configure(*basis, *printed)) == expected


def test_a_control_is_that_of_the_library_and_is_named() -> None:
    config = configure("schedule=cosine", "epochs=10", "batch_size=8", "control=rate")
    plan = igo.plan("cosine", n=1437, epochs=10, learning_rate=0.1, batch_size=8)
    assert make_plan(config) == plan.control("rate")
    assert schedule_name(config) == "cosine, split ½, control = rate"
    assert phrase({"control": None}, "control") == "no control"


def test_kappa_and_lam_are_gamma_and_split() -> None:
    """κ = γ^s, λ = γ^(-2(1-s))."""
    for kappa, lam in ((0.8, 1.44), (1.0, 2.0), (0.5, 1.0), (1.4, 2.0)):
        config = configure("schedule=step", f"schedule.kappa={kappa}", f"schedule.lam={lam}")
        gamma, split = config.schedule.gamma, config.split
        powers = gamma**split, gamma ** (-2 * (1 - split))
        assert powers == rounded((kappa, lam))
        assert math.copysign(1, split) == (1 if kappa <= 1 else -1)  # It is no -0.0.
