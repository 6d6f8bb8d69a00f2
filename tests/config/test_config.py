"""Configurations: what is derived from what, and every file in conf/ as it is composed."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, configure
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


@pytest.mark.parametrize(
    "words",
    [
        "schedule=linear",
        "schedule.rate=linear schedule.clock=updates",
        "schedule.rate=constant batch_size={0:16,2000:32}",
    ],
)
def test_a_record_is_read_as_the_configuration_that_it_is(words: str, tmp_path: Path) -> None:
    config = configure(*with_options(words.split()))
    file = tmp_path / "config.yaml"
    file.write_text(OmegaConf.to_yaml(asdict(config)))
    assert read_config(file) == config


@pytest.mark.parametrize(
    ("words", "p", "alpha_0_epsilon", "h", "final_updates"),
    [
        ("", 0.5, 0.2, 0.0, 10),
        ("schedule.h=0.03", 0.5, 0.2, 0.03, 10),
        ("p=1 schedule.epsilon=0.125 schedule.alpha_0=2 schedule.h=0.05", 1, 0.25, 0.05, 10),
        ("p=0.7 schedule.final_updates=3 epochs=50", 0.7, 0.2, 0.0, 3),
    ],
)
def test_algorithm_3_is_the_printed_one(
    words: str, p: float, alpha_0_epsilon: float, h: float, final_updates: int
) -> None:
    """M^p = 1/(α_0 ε), T_F ∝ 1/(φ_m² - h η_m/η_1) updates a stage, and stage M + 1 with δ = 0."""
    plan = make_plan(configure("schedule=algorithm3", *words.split()))
    *rows, final_row = plan.rows
    stages = next(m for m in range(1, 1000) if m**p * alpha_0_epsilon >= 1 - 1e-12)
    phis = [(1 - m / stages) ** p for m in range(stages)]
    assert [*{row.stage: row.phi_m for row in rows}.values()] == pytest.approx(phis, rel=1e-12)
    shape = [1 / (phi**2 - h * phi**0.5) for phi in phis]  # The split is 1/2.
    scale = sum(row.updates for row in rows) / sum(shape)
    for m, share in enumerate(shape, 1):
        updates = sum(row.updates for row in rows if row.stage == m)
        assert abs(updates - scale * share) < 2 + 0.07 * scale * share
    assert (final_row.stage, final_row.phi_m) == (stages + 1, 0)
    assert (final_row.b_m, final_row.updates) == (1437, final_updates)


def test_curves_and_grid_are_those_of_the_library() -> None:
    table = {0: 8, 0.2: 16, 0.4: 32, 0.6: 64, 0.8: 128}
    arguments: dict[str, Any] = {"n": 1437, "epochs": 10, "learning_rate": 0.1}
    growth = ("epochs=10", f"batch_size={table}".replace(" ", ""))
    for clock in ("samples", "updates"):
        cosine = with_options(["schedule.rate=cosine", f"schedule.clock={clock}"])
        expected = igo.plan(rate="cosine", batch_size=table, clock=clock, stages=10, **arguments)
        assert make_plan(configure(*growth, *cosine)) == expected
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


def test_a_control_is_that_of_the_library_and_is_named() -> None:
    config = configure("schedule=cosine", "epochs=10", "batch_size=8", "control=rate")
    plan = igo.plan("cosine", n=1437, epochs=10, learning_rate=0.1, batch_size=8)
    assert make_plan(config) == plan.control("rate")
    assert schedule_name(config) == "cosine, split ½, control = rate"
    assert phrase({"control": None}, "control") == "no control"


@pytest.mark.parametrize(("kappa", "lam"), [(0.8, 1.44), (1.0, 2.0), (0.5, 1.0), (1.4, 2.0)])
def test_kappa_and_lam_are_gamma_and_split(kappa: float, lam: float) -> None:
    """κ = γ^s, λ = γ^(-2(1-s))."""
    config = configure("schedule=step", f"schedule.kappa={kappa}", f"schedule.lam={lam}")
    gamma, split = config.schedule.gamma, config.split
    assert gamma**split == pytest.approx(kappa, rel=1e-12)
    assert gamma ** (-2 * (1 - split)) == pytest.approx(lam, rel=1e-12)
    assert math.copysign(1, split) == (1 if kappa <= 1 else -1)  # It is no -0.0.
