"""What a configuration may make Hydra and OmegaConf do: call this project's plugins, no more.

A command line or a folder of --config-dir may come from elsewhere. Hydra calls what ``_target_``
names and writes where its own settings say, and OmegaConf reads the environment. So this file lists
what is allowed. Hydra writes files before it calls a program, and has no hook before that. Every
composition goes through its loader in hydra._internal, so that loader is wrapped.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.ground.errors import UserError, first_line
from igo.ground.words import leaves

TARGETS = ("hydra_plugins.igo_", "hydra._internal.core_plugins.")
# Hydra's own settings. Those of OPEN may have any value, the others only the values of WRITTEN,
# which are in conf/ or are Hydra's own for programs without sweeps.
OPEN = ("launcher.", "sweeper.", "mode", "overrides.", "runtime.", "help.", "hydra_help.",
        "job.name", "job.id", "job.num", "job.config_name", "job.override_dirname",
        "job.config.")  # fmt: skip
WRITTEN = ("run.dir='.'", "output_subdir=None", "job.chdir=False", "job.chdir=None",
           "sweep.dir='${runs_dir}/.multirun'", "sweep.subdir='.'", "verbose=False",
           "sweep.dir='multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}'", "job_logging.version=1",
           "sweep.subdir='${hydra.job.num}'", "job_logging.root=None", "hydra_logging.version=1",
           "hydra_logging.root=None", "job_logging.disable_existing_loggers=False",
           "hydra_logging.disable_existing_loggers=False")  # fmt: skip
# Environment variables that a setting may hold. They are no secrets: files, W&B and logs may have
# them.
VARIABLES = ("HOME", "USER", "HOSTNAME", "TMPDIR", "SCRATCH", "WORK", "WANDB_MODE", "WANDB_PROJECT",
             "WANDB_ENTITY", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
             "SLURM_TMPDIR")  # fmt: skip
PREFIX = "IGO_"  # of variables that a person makes for a setting
# Resolvers of OmegaConf that make settings out of text after the settings were checked.
REMOVED_RESOLVERS = ("oc.create", "oc.decode", "oc.deprecated", "oc.select", "oc.dict.keys",
                     "oc.dict.values")  # fmt: skip


def guard_composition() -> None:
    """Check every configuration that Hydra composes in this process before Hydra acts on it."""
    original = ConfigLoaderImpl.load_configuration
    if hasattr(original, "__wrapped__"):
        return
    for name in REMOVED_RESOLVERS:
        OmegaConf.clear_resolver(name)
    OmegaConf.register_new_resolver("oc.env", variable, replace=True)

    @functools.wraps(original)
    def load_configuration(*arguments: Any, **named: Any) -> DictConfig:
        try:
            composed = original(*arguments, **named)
        except OmegaConfBaseException:
            raise
        except ValueError as error:  # of dataset=null, dataset=5 and the like
            raise HydraException(first_line(error)) from error
        check(composed)
        return composed

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]


def check(composed: DictConfig) -> None:
    """Refuse a composed configuration with values outside the lists of this file."""
    for name, value in leaves(OmegaConf.to_container(composed, resolve=False)):
        if name.rpartition(".")[2] == "_target_" and not str(value).startswith(TARGETS):
            raise UserError(f"{name}={value} is not allowed: settings are values, not code to call")
        group, _, setting = name.partition(".")
        allowed = setting.startswith(OPEN) or f"{setting}={value!r}" in WRITTEN
        if group == "hydra" and not allowed:
            raise UserError(
                f"{name}={value} is not allowed: of Hydra's own settings only those of"
                " hydra.launcher and hydra.sweeper can be changed"
            )


def variable(name: str, *default: object) -> object:
    """``${oc.env:NAME,default}``, for the variables that a setting may hold."""
    if name not in VARIABLES and not name.startswith(PREFIX):
        raise UserError(
            f"the environment variable {name} is not allowed in a setting: it would be written into"
            f" the run's record, and may be a secret. Allowed are {', '.join(VARIABLES)} and all"
            f" that begin with {PREFIX}"
        )
    if name not in os.environ and not default:
        raise UserError(f"the environment variable {name} is not set")
    return os.environ.get(name, *default)
