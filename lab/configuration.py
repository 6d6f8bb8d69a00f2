"""The configuration of a run of igo, for programs without a command line of igo's."""

from functools import cache

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from igo.config.schema import Config
from igo.ground.files import CONF
from igo.sweep.jobs import Composer

_composer = cache(Composer)  # There is one, which composes each choice of groups once.


def composed(*words: str) -> Config:
    """The checked configuration of the words of a command line, such as ``p=0.5``.

    Raises:
        UserError: a setting is invalid, or the settings have no plan.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return _composer("config").job(words).config
