"""TensorBoard beside the run folder, read back by TensorBoard's own reader."""

from pathlib import Path

import pytest
from conftest import TINY, records, run_folder
from forked import Death, forge
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EPOCHS = [1, 2, 3]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve, in the order of the files."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_every_number_of_every_epoch_is_there_once_also_of_a_killed_run() -> None:
    command = (*TINY, "tracking=tensorboard")
    death = Death("igo.runs.checkpoint.save", 2, "after")
    assert forge.run(*command, death=death).returncode != 0
    forge.run(*command).good()
    folder = run_folder()
    rows = records(folder, timings=True)
    curves = points(folder)
    for name in ("delta_m", "eta_m", "b_m", "train/loss", "test/accuracy", "updates"):
        assert [step for step, _ in curves[name]] == EPOCHS
        values = [value for _, value in curves[name]]
        assert values == pytest.approx([row[name] for row in rows], rel=1e-6)  # float32
    numbers = {name for row in rows for name, value in row.items() if value is not None}
    assert set(curves) == numbers
