"""Checkpoints: whole or refused, never half, never running code."""

import hashlib
import os
import pickle
import shutil
import signal
from collections import OrderedDict
from collections.abc import Callable
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
        "schedule": {"updates": 3 * epoch, "plan": "0" * 16, "base_lrs": [[0.1]]},
        "progress": {"epoch": epoch, "records": [], "twins": [(0.5, -1.0, 0.25)]},
    }


def assert_state_of(epoch: int, state: dict[str, Any] | None) -> None:
    assert_equal(state, {"version": checkpoint.VERSION, **state_of(epoch)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The checkpoint of epoch 2."""
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load(path, OWNER) is None
    for epoch in (1, 2):
        checkpoint.save(path, state_of(epoch))
    return path


def test_what_is_saved_comes_back_to_the_bit(path: Path) -> None:
    assert_state_of(2, checkpoint.load(path, OWNER))
    assert_state_of(2, torch.load(path, weights_only=True))  # Other programs open it so.
    assert list(path.parent.iterdir()) == [path]


MOMENTS = [
    *(("torch.save", 1, moment) for moment in ("before", "after")),
    ("hashlib.file_digest", 1, "after"),
    ("os.fsync", 1, "before"),
    ("os.fsync", 1, "torn"),
    ("os.fsync", 1, "after"),
    ("pathlib.Path.replace", 1, "before"),
    ("pathlib.Path.replace", 1, "after"),
    ("os.fsync", 2, "before"),
]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_killed_at_any_point_of_a_write_a_whole_one_is_left(path: Path) -> None:
    epochs = []
    for moment in MOMENTS:
        checkpoint.save(path, state_of(2))
        child = os.fork()
        if child == 0:
            try:
                Death(*moment).plant()
                checkpoint.save(path, state_of(3))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        state = checkpoint.load(path, OWNER)
        epochs.append(state["progress"]["epoch"])
        assert_state_of(epochs[-1], state)
        checkpoint.save(path, state_of(4))  # what is left lying about disturbs no one
        assert_state_of(4, checkpoint.load(path, OWNER))
    assert epochs == [2] * 7 + [3] * 2, "the new one counts from its rename on"


def assert_refused(path: Path, content: bytes, reason: str) -> None:
    """One line names the file and the reason, and the file stays."""
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} {reason}") as refused:
        checkpoint.load(path, OWNER)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_no_damage_is_loaded(path: Path) -> None:
    """Any byte: parameters, tables of contents, padding, digest. torch.load looks at few."""
    content = path.read_bytes()
    for length in [0, 1, *range(2, len(content), 37), len(content) - 1]:
        assert_refused(path, content[:length], "is damaged")
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        assert_refused(path, bytes(damaged), "is damaged")


def signed(path: Path, content: object, save: Callable[..., None] = torch.save) -> bytes:
    """The bytes of a file with the digest that makes it pass as undamaged."""
    with path.open("wb") as file:
        save(content, file)
    file_bytes = path.read_bytes()
    return file_bytes + hashlib.sha256(file_bytes).digest()


OTHERS = (
    {"model": {"weight": torch.ones(2)}},
    torch.ones(3),
    {**state_of(9), "version": checkpoint.VERSION, "signature": "x"},
    {**state_of(9), "version": checkpoint.VERSION + 1},
)


def test_what_another_program_run_or_version_saved_is_refused(path: Path) -> None:
    for other in OTHERS:
        content = signed(path, other)
        assert_refused(path, content[: -checkpoint.DIGEST_BYTES], "is damaged")
        assert_refused(path, content, "is of another version or run")


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
def test_code_in_a_checkpoint_is_never_run(
    save: Callable[..., None], path: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    content = {"version": checkpoint.VERSION, **state_of(9), "trap": Trap(proof)}
    trap = signed(path, content, save)
    shutil.copy(path, tmp_path / "copy.pt")
    assert_refused(path, trap, "is damaged")
    assert not proof.exists()
    if save is torch.save:
        torch.load(tmp_path / "copy.pt", weights_only=False)
        assert proof.exists(), "it was a working trap"
