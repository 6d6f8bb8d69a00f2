"""The checkpoint of a run: saved and loaded whole, and read as a trained model."""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igo.config.load import read_config
from igo.config.schema import Config, total_epochs
from igo.ground.errors import Damaged, UserError, first_line
from igo.ground.files import Record, damaged, durable, read_bytes
from igo.runs.folder import RunFolder, read_records, read_status
from igo.runs.name import path_of
from igo.train import models

VERSION = 3  # the version of the format
DIGEST_BYTES = 32  # SHA-256, after what torch.save wrote; torch.load skips it
# The body of ``with fitting(path)`` puts a checkpoint's state into a model, for example. Its error,
# such as one of another shape or of a missing entry, becomes one line.
fitting = partial(damaged, fault="does not fit this program")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint. At whatever moment the process dies, the old or the new one is whole."""
    with durable(path) as file:
        torch.save({"version": VERSION, **state}, file)
        # The digest is of all bytes from the first on. file_digest reads to the end of the file,
        # which is where the digest is then written.
        file.seek(0)
        file.write(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # The file's new name, which the folder holds, survives a power cut.
    finally:
        os.close(handle)


def load(path: Path, signature: str) -> Record | None:
    """Load a run's checkpoint into CPU memory, without running code from it (weights_only).

    Args:
        path: the file. It is left as it is.
        signature: the run's name, which ``save`` got as ``state["signature"]``.

    Returns:
        The state; None where there is no file.

    Raises:
        UserError: the file is damaged, or of another version or run.
        Outside: the file is there, and cannot be read.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    saved, digest = memoryview(content)[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    try:
        # torch.load itself does not notice changed numbers.
        if hashlib.sha256(saved).digest() != digest:
            raise ValueError("its SHA-256 differs")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:  # This is no fault of the file.
        raise
    except Exception as error:  # A file that was made to harm makes torch raise almost anything.
        raise Damaged(f"{path} is damaged ({first_line(error)[:80]})") from None
    # Another program's file may hold anything, such as one tensor.
    owner = (state.get("version"), state.get("signature")) if isinstance(state, dict) else ()
    if owner != (VERSION, signature):
        raise Damaged(f"{path} is of another version or run, {owner}")
    return dict(state)


@dataclass(frozen=True)
class TrainedRun:
    """A run at its newest checkpoint.

    ``model`` maps normalised images (b, C, H, W) float32 to logits (b, classes); it is on the CPU,
    in eval mode and fp32, where training may have evaluated in bf16. Normalised is
    (pixels/255 - mean)/std, of ``config.dataset``. ``records`` has the line of metrics.jsonl, as a
    dictionary, of each epoch up to the checkpoint's.
    """

    model: nn.Module
    config: Config
    records: list[Record]


def load_run(folder: str | Path, *, trust: bool = False) -> TrainedRun:
    """The trained model of a run folder, its configuration and its records. Needs no data.

    For a run that is not finished, it is the model of the last complete epoch::

        run = igo.load_run("runs/digits-resnet8-…")
        logits = run.model(images)  # normalised (b, C, H, W) float32 to (b, classes)

    Code of the user's own that the folder names (``model._target_``) runs only with ``trust``.

    Raises:
        UserError: the configuration or the checkpoint is missing, damaged or of another version of
            igo; or the folder names code, and ``trust`` is not given.
        FileNotFoundError: the folder is no run folder.
    """
    folder = Path(folder).resolve()
    if not (folder / "config.yaml").exists():
        raise FileNotFoundError(f"{folder} is no run folder: it has no config.yaml")
    read_status(folder)  # It refuses a config.yaml that the run did not write.
    config = read_config(folder / "config.yaml", trust=trust)
    parameters, records = _trained(folder, config)
    with torch.random.fork_rng(devices=[]):  # The parameters drawn here are replaced below.
        network = models.build(config.model, config.dataset)
    with fitting(folder / "checkpoint.pt"):
        network.load_state_dict(parameters)
    return TrainedRun(network.eval(), config, records)


def export(folder: RunFolder, config: Config) -> Path:
    """Write the model's state_dict into the run folder as model.pt; return its path.

    ``torch.load(path, weights_only=True)`` reads it.
    """
    file = folder.path / "model.pt"
    parameters, _ = _trained(folder.path, config)
    with folder.writing(), durable(file) as output:
        torch.save(parameters, output)
    return file


def _trained(folder: Path, config: Config) -> tuple[dict[str, Tensor], list[Record]]:
    """The parameters in a run's checkpoint by their names, and the records of its epochs."""
    path, status = folder / "checkpoint.pt", read_status(folder)
    state = load(path, path_of(config).name)
    if state is None:
        raise UserError(f"{folder} has no checkpoint yet")
    with fitting(path):
        epoch = state["progress"]["epoch"]
        # Training may keep parameters in channels_last memory, which another program need not know.
        parameters = {name: tensor.contiguous() for name, tensor in state["model"].items()}
    # A checkpoint has no seal, and somebody may have put an older one there.
    if status.get("state") == "finished" and epoch < total_epochs(config):
        raise Damaged(f"{path} is older than the finished run, of epoch {epoch}")
    return parameters, read_records(folder, epoch)
