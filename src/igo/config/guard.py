"""What a configuration may have Hydra call: this project's own plugins, and nothing else.

Hydra calls whatever ``_target_`` names, wherever a launcher, sweeper, callback or logger is
configured; its own list of what is forbidden cannot be complete. A command line may come from
elsewhere (a W&B sweep, a folder of -cd), so here the list says what is allowed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.errors import UserError, first_line

ALLOWED = (
    "hydra_plugins.igo_",
    "hydra._internal.core_plugins.",
)
ALLOWED_CLASSES = ("logging.StreamHandler", "logging.FileHandler")  # of Hydra's own loggers
CALLED = ("_target_", "()", "class", "factory")  # by instantiate, or logging's dictConfig
# Sections that Hydra makes objects of; an interpolation there may only refer to another node.
INSTANTIATED = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
PLAIN = re.compile(r"([^$]|\$(?!\{)|\$\{(hydra:)?[\w.]+\})*")
# Environment variables that would end in config.yaml and in W&B; a name put together may be one.
SECRET = re.compile(r"oc\.env:[^,}]*(KEY|TOKEN|SECRET|PASS|CREDENTIAL|\$\{)", re.IGNORECASE)


def guard_composition() -> None:
    """Check every configuration that Hydra composes in this process before Hydra acts on it."""
    original = ConfigLoaderImpl.load_configuration
    if hasattr(original, "__wrapped__"):
        return

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
    """Hold what a composed configuration names against ALLOWED.

    Raises:
        UserError: naming the setting.
    """
    for name, value in _leaves(OmegaConf.to_container(composed, resolve=False)):
        check_text(f"{name}={value}")
        key = name.rpartition(".")[2]
        if key in CALLED and not _is_allowed(key, str(value)):
            raise UserError(f"{name}={value} is not allowed: settings are values, not code to call")
        section = name.removeprefix("hydra.").partition(".")[0]
        computed = isinstance(value, str) and not PLAIN.fullmatch(value)
        if name.startswith("hydra.") and section in INSTANTIATED and computed:
            raise UserError(f"{name}={value} is not allowed: it may refer to a setting, no more")


def check_text(setting: str) -> None:
    """See that a setting, as NAME=VALUE, brings no secret of the environment into a record.

    Raises:
        UserError: naming the setting.
    """
    if SECRET.search(setting):
        raise UserError(f"{setting} is not allowed: it would write a secret into the run's record")


def _is_allowed(key: str, value: str) -> bool:
    return value.startswith(ALLOWED) or (key == "class" and value in ALLOWED_CLASSES)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Full names and values of all that is no container; keys of any type, as text."""
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        yield name, value
        return
    for key, one in pairs:
        yield from _leaves(one, f"{name}.{key}" if name else str(key))
