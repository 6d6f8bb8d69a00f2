"""Checkpoints: whole or refused, never half, never running code."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_equal
from forked import Death
from recorded import Trap

from igo.ground.errors import UserError
from igo.runs import checkpoint

OWNER = "digits-resnet8-graduated-0123456789"


def state_of(epoch: int) -> dict[str, Any]:
    """All kinds of things that a run's checkpoint holds."""
    values = torch.Generator().manual_seed(epoch)
    return {
        "signature": OWNER,
        "model": OrderedDict(weight=torch.randn(6, 4, generator=values), count=torch.tensor(epoch)),
        "optimizer": {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1}]},
        "progress": {"epoch": epoch, "records": [{"gamma_m": None, "test/loss": 1 / 3}]},
    }


def assert_state_of(epoch: int, state: dict[str, Any] | None) -> None:
    assert_equal(state, {"version": checkpoint.VERSION, **state_of(epoch)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


@pytest.fixture
def pair(path: Path) -> Path:
    """Checkpoints of the epochs 1 and 2."""
    for epoch in (1, 2):
        checkpoint.save(path, state_of(epoch))
    return path


def test_what_is_saved_comes_back_to_the_bit(path: Path) -> None:
    assert checkpoint.load(path, OWNER) == (None, [])
    checkpoint.save(path, state_of(1))
    state, warnings = checkpoint.load(path, OWNER)
    assert_state_of(1, state)
    assert warnings == []
    assert_state_of(1, torch.load(path, weights_only=True))  # as other programs open it


def test_the_one_before_is_kept_and_nothing_else(pair: Path) -> None:
    checkpoint.save(pair, state_of(3))
    names = sorted(file.name for file in pair.parent.iterdir())
    assert names == ["checkpoint.pt", "previous-checkpoint.pt"]
    assert_state_of(3, checkpoint.load(pair, OWNER)[0])
    pair.unlink()
    assert_state_of(2, checkpoint.load(pair, OWNER)[0])


MOMENTS = [
    ("torch.save", 1, "before"),
    ("torch.save", 1, "inside"),
    ("torch.save", 1, "after"),
    ("hashlib.file_digest", 1, "after"),
    ("os.fsync", 1, "before"),
    ("os.fsync", 1, "after"),
    ("pathlib.Path.replace", 1, "before"),
    ("pathlib.Path.replace", 1, "after"),
    ("pathlib.Path.replace", 2, "before"),
    ("pathlib.Path.replace", 2, "after"),
    ("os.fsync", 2, "before"),
]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_killed_at_any_point_of_a_write_a_whole_one_is_left(pair: Path) -> None:
    epochs = []
    for moment in MOMENTS:
        for epoch in (1, 2):
            checkpoint.save(pair, state_of(epoch))
        child = os.fork()
        if child == 0:
            try:
                Death(*moment).plant()
                checkpoint.save(pair, state_of(3))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        state, warnings = checkpoint.load(pair, OWNER)
        assert warnings == []
        epochs.append(state["progress"]["epoch"] if state else 0)
        assert_state_of(epochs[-1], state)
        checkpoint.save(pair, state_of(4))  # what is left lying about disturbs no one
        assert_state_of(4, checkpoint.load(pair, OWNER)[0])
    assert epochs == [2] * 9 + [3] * 2, "the new one counts from its last rename on"


def test_no_flipped_bit_is_loaded(pair: Path) -> None:
    """Each byte: parameters, tables of contents, padding, digest. torch.load looks at few."""
    whole = pair.read_bytes()
    checkpoint.previous(pair).unlink()
    silent = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        pair.write_bytes(damaged)
        state, warnings = checkpoint.load(pair, OWNER)
        assert state is None, f"byte {position}"
        assert [f"{pair} is damaged" in warning for warning in warnings] == [True]
        if position % 50 == 0:
            silent += loads_something_else(pair)
    assert silent, "without the digest some of these would be loaded, changed"


def loads_something_else(path: Path) -> bool:
    """Whether torch.load by itself takes a damaged file."""
    try:
        assert_state_of(2, torch.load(path, weights_only=True))
    except Exception as error:
        return isinstance(error, AssertionError)
    return False


def test_a_truncated_or_empty_one_is_refused(pair: Path) -> None:
    whole = pair.read_bytes()
    for length in [0, 1, *range(2, len(whole), 37), len(whole) - 1]:
        pair.write_bytes(whole[:length])
        state, (warning,) = checkpoint.load(pair, OWNER)
        assert_state_of(1, state)
        assert str(pair) in warning
        assert "\n" not in warning
    checkpoint.previous(pair).write_bytes(b"not a checkpoint")
    state, warnings = checkpoint.load(pair, OWNER)
    assert state is None
    assert len(warnings) == 2


@pytest.mark.parametrize(
    "foreign",
    [
        {"model": {"weight": torch.ones(2)}},
        [1, 2, 3],
        torch.ones(3),
        {**state_of(9), "version": checkpoint.VERSION, "signature": "digits-resnet8-linear-99"},
    ],
    ids=["weights", "list", "tensor", "another run"],
)
def test_what_another_program_or_run_saved_is_refused(pair: Path, foreign: object) -> None:
    torch.save(foreign, pair)
    assert "is damaged" in checkpoint.load(pair, OWNER)[1][0]
    sign(pair)
    state, (warning,) = checkpoint.load(pair, OWNER)
    assert_state_of(1, state)
    assert "is not a checkpoint of a run" in warning or "of another run" in warning


def test_one_that_cannot_be_read_is_no_damage(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be whole, so nothing may take its place: neither the one before nor a new start."""
    content = {file.name: file.read_bytes() for file in pair.parent.iterdir()}

    def broken(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", broken)
        with pytest.raises(UserError, match=f"^{pair} cannot be read"):
            checkpoint.load(pair, OWNER)
    assert {file.name: file.read_bytes() for file in pair.parent.iterdir()} == content


@pytest.mark.parametrize(("change", "made"), [(1, "a later"), (-1, "an earlier")])
def test_one_of_another_version_stops_the_run(pair: Path, change: int, made: str) -> None:
    torch.save({**state_of(9), "version": checkpoint.VERSION + change}, pair)
    sign(pair)
    with pytest.raises(UserError, match=f"^{pair} was made by {made} version"):
        checkpoint.load(pair, OWNER)


def sign(path: Path) -> None:
    """Add the digest that makes a file pass as undamaged."""
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(pair: Path, tmp_path: Path, kind: str) -> None:
    proof = tmp_path / "ran"
    content = {"version": checkpoint.VERSION, **state_of(9), "trap": Trap(proof)}
    if kind == "pickle":
        pair.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, pair)
    shutil.copy(pair, tmp_path / "copy.pt")
    sign(pair)
    state, (warning,) = checkpoint.load(pair, OWNER)
    assert_state_of(1, state)
    assert "is damaged" in warning
    assert not proof.exists()
    if kind != "pickle":
        torch.load(tmp_path / "copy.pt", weights_only=False)
        assert proof.exists(), "it was a working trap"
