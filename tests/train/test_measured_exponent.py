"""schedule.noise_exponent=measured: the number that is trained with, and when it is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import TINY, run_folder
from forked import forge

from igo.config.load import read_config
from igo.ground.errors import ConfigError
from igo.noise.exponent import NoiseExponent
from igo.runs.exponent import usable

ASK = (*TINY, "tracking=none", "engine.precision=fp32", "schedule.noise_exponent=measured")


@pytest.mark.slow
def test_a_run_takes_the_rho_that_measure_noise_says_and_is_found_again(tmp_path: Path) -> None:
    asked = (*ASK, "learning_rate=0.05", "noise.batches=12")
    first = forge.run(tmp_path, *asked).good()
    config = read_config(run_folder(tmp_path) / "config.yaml")
    rho = config.schedule.noise_exponent
    forge.run(
        tmp_path, *TINY, "engine.precision=fp32", "learning_rate=0.05", "batches=12",
        f"batch_sizes=[{min(config.batch_size, 96 // 12)}]", "exponent=true", "output=noise.json",
        command="measure-noise",
    ).good()  # fmt: skip
    predicted = json.loads((tmp_path / "noise.json").read_text())["predicted_exponent"]
    assert rho == pytest.approx(min(predicted["value"], 1.0), abs=0.006)
    assert f"schedule.noise_exponent={rho:g}: predicted from curvature" in first.stdout
    forge.run(tmp_path, "runs=runs", "output=out", command="table").good()
    (row,) = csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines())
    assert float(row["schedule.noise_exponent"]) == rho
    again = forge.run(tmp_path, *asked)
    assert "finished before" in again.stdout
    as_number = forge.run(tmp_path, *asked[:-3], f"schedule.noise_exponent={rho:g}", *asked[-2:])
    assert "finished before" in as_number.stdout, as_number.stderr


@pytest.mark.slow
def test_a_step_beyond_the_edge_is_refused_before_any_training(tmp_path: Path) -> None:
    line = forge.run(tmp_path, *ASK, "learning_rate=1000").error()
    assert "schedule.noise_exponent=measured is not allowed: learning_rate=1000" in line
    assert not (tmp_path / "runs").exists()


def exponent(value: float, low: float, high: float) -> NoiseExponent:
    return NoiseExponent(value, (low, high), (1.0,), (1.0,), 0.0, 0.0, 0.1, 0.0)


def test_an_interval_wider_than_a_half_is_refused_with_the_reason() -> None:
    assert usable(exponent(0.7312, 0.5, 0.99)) == 0.73
    assert usable(exponent(1.02, 0.9, 1.1)) == 1.0
    with pytest.raises(ConfigError, match=r"0\.70, anywhere from 0\.40 to 0\.95: wider than 0\.5"):
        usable(exponent(0.7, 0.4, 0.95))
    with pytest.raises(ConfigError, match="wider"):
        usable(exponent(0.7, float("nan"), 0.95))
    with pytest.raises(ConfigError, match="must be in"):
        usable(exponent(0.001, -0.1, 0.1))


def test_a_sweep_is_told_to_take_a_number(tmp_path: Path) -> None:
    line = forge.run(tmp_path, *ASK, "-m", "seed=0,1").error()
    assert "schedule.noise_exponent=measured is not allowed: only a single" in line
