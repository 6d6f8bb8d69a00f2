"""SIGKILL at every write and at random; SIGTERM and SIGINT at random.

Each disturbed run is continued by the same command and ends with the same bits.
"""

import random
import signal
from pathlib import Path

import pytest
from forked import Death
from resumed import KINDS, WRITES, assert_continues, assert_whole, start, undisturbed

pytestmark = pytest.mark.faults

MOST = 60  # calls of a function in a run; fewer are made


@pytest.mark.parametrize(("function", "moment"), WRITES)
def test_killed_inside_each_write_of_a_run(tmp_path: Path, function: str, moment: str) -> None:
    """At the first call of it, at the second, and so on, until there are no more."""
    kills = 0
    for call in range(1, MOST):
        place = tmp_path / str(call)
        process = start(place, "sgd", Death(function, call, moment))
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process
        kills += 1
        assert_continues(place, "sgd")
    assert 8 <= kills < MOST - 1


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *((kind, signal.SIGKILL) for kind in KINDS),
        ("momentum, augmentation, final stage", signal.SIGTERM),
        ("W&B", signal.SIGINT),
    ],
)
def test_stopped_at_random_three_times(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """SIGKILL three times in one run; a signal that a run hears, in a run each.

    The exit code is the shell's, 128 + the signal, once there is a run to close.
    """
    kills = number == signal.SIGKILL
    # The kernel sends SIGPROF for SIGKILL: as deadly.
    codes = (-signal.SIGPROF,) if kills else (128 + number, -number)
    moments, stops, place = random.Random(f"{kind} {number}"), 0, tmp_path / "0"
    seconds = start(tmp_path / "undisturbed", kind).cpu
    undisturbed(kind)
    for attempt in range(60):
        process = start(place, kind, alarm=moments.uniform(0.02, 0.95) * seconds, number=number)
        assert process.returncode in (0, *codes), process
        assert "Traceback" not in process.stderr
        stops += process.returncode != 0
        if process.returncode == 0:
            assert_whole(place, kind)
        elif not kills or stops == 3:
            assert_continues(place, kind)
        if process.returncode == 0 or not kills:
            place = tmp_path / str(attempt + 1)
        if stops == 3:
            break
    assert stops == 3
