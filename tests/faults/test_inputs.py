"""Hundreds of configurations, right and wrong: refused by name before any compute, or trained.

`make test-faults` runs them and prints the tally.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Quiet
from drawn import Settings, one_mistake, right, typed
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from omegaconf.errors import OmegaConfBaseException

from igo.config.cli import _composition_error
from igo.config.load import load
from igo.config.plan import make_plan
from igo.ground.errors import UserError
from igo.ground.paths import CONF
from igo.method.plan import Plan
from igo.runs import assemble
from igo.train import loop
from igo.train.state import Progress, Training

pytestmark = pytest.mark.faults
Record = Callable[[str, object], None]
OWN = ("tracking=none", "engine.device=cpu")


def drawn(examples: int) -> settings:
    """As many examples, the same ones each time; a failing one is made smaller."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class OneStep(Exception):
    """Training got as far as its second update."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def composed(data_dir: Path, lines: list[str]) -> tuple[Training, Plan]:
    """What happens before compute.

    Raises:
        UserError: as the command line would show it.
    """
    names = [line.split("=")[0].lstrip("+~") for line in lines]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        try:
            config = load(compose("config", [*OWN, f"data_dir={data_dir}", *lines]), names)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_composition_error(error, CONF / "config.yaml")) from None
    plan = make_plan(config)
    return assemble.prepare(config, plan), plan


def step(training: Training) -> int:
    """Measure C² and train to the second update; how many updates there were."""
    asked = 0

    def stop_after_one() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OneStep

    bar, ignore = Quiet(), lambda _: None
    try:
        loop.train(training, Progress(), bar, ignore, stop_after_one)  # type: ignore[arg-type]
    except OneStep:
        asked -= 1
    return asked


def test_right_configurations_train_a_step(data_dir: Path, record_property: Record) -> None:
    trained = 0

    @drawn(200)
    @given(right())
    def check(chosen: Settings) -> None:
        nonlocal trained
        training, plan = composed(data_dir, typed(chosen))
        before = [p.detach().clone() for p in training.network.parameters()]
        assert step(training) == min(plan.updates, 1) == 1
        after = list(training.network.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(bool(parameter.isfinite().all()) for parameter in after)
        trained += 1

    check()
    record_property("right configurations, each trained a step", trained)


def test_one_mistake_is_refused_by_its_name(data_dir: Path, record_property: Record) -> None:
    refused: Counter[str] = Counter()

    @drawn(250)
    @given(one_mistake())
    def check(drawn_one: tuple[Settings, str]) -> None:
        chosen, name = drawn_one
        with pytest.raises(UserError) as caught:
            composed(data_dir, typed(chosen))
        (message,) = str(caught.value).splitlines()
        assert re.search(rf"(^|[ '.]){re.escape(name)}\b", message), message
        refused[name] += 1

    check()
    record_property("configurations with one mistake, refused by its name", refused.total())
    assert len(refused) > 30, "of nearly every setting"
