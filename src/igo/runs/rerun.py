"""`run=FOLDER`: the configuration of a run is read from config.yaml in its folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from igo.config.load import load, read_config
from igo.config.schema import NO_EFFECT, Config, value_of
from igo.ground.errors import ConfigError, UserError
from igo.runs.folder import RunFolder, read_status

MOVABLE = tuple(name for name in NO_EFFECT if name != "runs_dir")


def _command_of_other_run(folder: Path, typed: Collection[str]) -> str:
    """A hint: the command that began the run, with what was typed; empty if it is not recorded."""
    status = read_status(folder)
    began = shlex.split(str(status.get("began", status.get("command", ""))))
    if Path(sys.argv[0]).name != "train.py" or any(line.startswith("run=") for line in began):
        return ""
    added = [line for line in sys.argv[1:] if not line.startswith("run=")]
    replaced = {*typed, "fresh", "dry_run"}
    kept = [line for line in began[2:] if line.split("=")[0].lstrip("+~") not in replaced]
    command = shlex.join([*began[:2], *kept, *added])
    return f", or train another run: {command}" if began else ""


def continued(run: str, composed: DictConfig, typed: Collection[str]) -> Config:
    """The configuration with which ``igo train run=FOLDER`` continues a run.

    Args:
        run: the folder, as typed.
        composed: the configuration that Hydra composed from the command line.
        typed: full names of the typed settings, without ``run``.
    """
    composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "run"])
    folder = Path(run).resolve()
    for name in typed:
        if not {name, name.split(".")[0]} & {*MOVABLE} and name != "engine":
            other = _command_of_other_run(folder, typed)
            allowed = f"with run=… the settings are those of the run; leave it out{other}"
            raise ConfigError(name, OmegaConf.select(composed, name), allowed)
    if not (folder / "config.yaml").is_file():
        raise ConfigError("run", run, "it must be a run folder, with a config.yaml")
    here = load(composed)
    try:
        config = read_config(folder / "config.yaml")
    except UserError as error:
        command = read_status(folder).get("command", "status.json does not say")
        raise UserError(f"{error}. The run began as: {command}") from None
    config.fresh = config.dry_run = False  # unless typed now
    # engine=… sets only the device: the group's other settings would make it another run
    for name in ("engine.device" if name == "engine" else name for name in typed):
        group, _, key = name.rpartition(".")
        setattr(value_of(config, group) if group else config, key, value_of(here, name))
    config.runs_dir = str(folder.parent)
    name = RunFolder(config).path.name
    if name != folder.name:
        raise UserError(
            f"run={run}: its config.yaml belongs to a run named {name}. The file was changed, or"
            " the folder renamed. Rename the folder, or train the changed settings as a new run"
        )
    return config
