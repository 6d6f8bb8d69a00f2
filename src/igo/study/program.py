"""From settings to a study and its results on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config import Config, explain, load
from igo.errors import ConfigError, nearest
from igo.study import Found, Study, report
from igo.study.cost import online_cost
from igo.study.feedback import feedback
from igo.study.lemma import lemma
from igo.study.omega import omega
from igo.terminal import Terminal

STUDIES: dict[str, Callable[[Study, Config], Found]] = {
    "lemma": lemma,
    "omega": omega,
    "feedback": feedback,
    "online_cost": online_cost,
}


def run(composed: DictConfig, typed: list[str]) -> None:
    """Check the settings, do the study, write its results.

    Raises:
        UserError: an unknown study, or settings that cannot be run.
    """
    study, config = settings(composed, typed)
    found = STUDIES[study.study](study, config)
    path = report.write(study, config, found)
    Terminal().say(f"wrote {path}")


def settings(composed: DictConfig, typed: list[str]) -> tuple[Study, Config]:
    """Split what was composed into the study's settings and a run's, both checked."""
    own = {one.name for one in fields(Study)}
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Study), {name: composed[name] for name in own}
        )
    except OmegaConfBaseException as error:
        raise explain(error, composed) from None
    study = OmegaConf.to_object(merged)
    if not isinstance(study, Study):
        raise TypeError(f"a Study was expected, not {type(study)}")
    if study.study not in STUDIES:
        allowed = f"it must be one of {', '.join(STUDIES)}.{nearest(study.study, STUDIES)}"
        raise ConfigError("study", study.study, allowed)
    for name, least in (("seeds", 2), ("draws", 100), ("repeats", 3)):
        if getattr(study, name) < least:
            raise ConfigError(name, getattr(study, name), f"it must be {least} or more")
    rest = OmegaConf.masked_copy(composed, [str(name) for name in composed if name not in own])
    return study, load(rest, typed)
