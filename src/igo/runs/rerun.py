"""A run from its folder alone: its config.yaml is the configuration."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from igo.config.load import load, of_file
from igo.config.schema import NO_EFFECT, Config
from igo.config.settings import value_of
from igo.errors import ConfigError, UserError
from igo.runs.folder import RunFolder, read_status, refuse_older

MOVABLE = tuple(name for name in NO_EFFECT if name != "runs_dir")


def of_command(
    run: str, composed: DictConfig, typed: Collection[str], movable: Collection[str] = MOVABLE
) -> tuple[Path, Callable[[Config], None]]:
    """The folder of a run, and what moves its configuration to where it computes now, as typed.

    Args:
        run: the folder, as typed.
        composed: what Hydra made of the command line.
        typed: full names of the settings that were typed, without the program's own.
        movable: those among them that may be: settings or groups.
    """
    composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "run"])
    folder = Path(run).resolve()
    for name in typed:
        if not {name, name.split(".")[0]} & {*movable} and name != "engine":
            allowed = (
                f"with run=… the run says what it is; leave it out{_as_its_own(folder, typed)}"
            )
            raise ConfigError(name, OmegaConf.select(composed, name), allowed)
    if not (folder / "config.yaml").is_file():
        raise ConfigError("run", run, "it must be a run folder, with a config.yaml")
    here = load(composed)
    # of the group engine, whose other settings say what the run is, the device alone
    names = ["engine.device" if name == "engine" else name for name in typed]

    def move(config: Config) -> None:
        for name in names:
            group, _, key = name.rpartition(".")
            setattr(value_of(config, group) if group else config, key, value_of(here, name))

    return folder, move


def _as_its_own(folder: Path, typed: Collection[str]) -> str:
    """The command that trains the run with what was typed, where the run says how it began."""
    status = read_status(folder)
    began = shlex.split(str(status.get("began", status.get("command", ""))))
    if Path(sys.argv[0]).name != "train.py" or any(one.startswith("run=") for one in began):
        return ""
    own = [one for one in sys.argv[1:] if not one.startswith("run=")]
    other = {*typed, "fresh", "dry_run"}
    kept = [one for one in began[2:] if one.split("=")[0].lstrip("+~") not in other]
    command = shlex.join([*began[:2], *kept, *own])
    return f", or train another run: {command}" if began else ""


def continued(run: str, composed: DictConfig, typed: Collection[str]) -> Config:
    """The configuration with which ``src/train.py`` goes on in a run's folder."""
    folder, move = of_command(run, composed, typed)
    try:
        config = of_file(folder / "config.yaml")
    except UserError as error:
        command = read_status(folder).get("command", "status.json does not say")
        raise UserError(f"{error}. The run began as: {command}") from None
    refuse_older(folder)
    config.fresh = config.dry_run = False  # whatever it began with, unless typed
    move(config)
    config.runs_dir = str(folder.parent)
    name = RunFolder(config).path.name
    if name != folder.name:
        raise UserError(
            f"run={run}: its config.yaml is that of {name}; it was changed, or the folder renamed."
            " Name the folder so, or train the changed settings as a run of their own"
        )
    return config
