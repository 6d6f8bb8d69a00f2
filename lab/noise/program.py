"""The program: run a study by its settings, and write the results."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.load import load, split_off
from igo.config.schema import Config
from igo.runs.terminal import Terminal
from lab.noise import Study


def run(composed: DictConfig, typed: list[str]) -> None:
    """Check the settings, run the study, write its results.

    Raises:
        UserError: the study is unknown, or a setting is invalid.
    """
    study, config = settings(composed, typed)
    from lab.noise import (  # torch, scipy and matplotlib
        cost,
        feedback,
        lemma,
        omega,
        report,
    )

    studies = {
        "lemma": lemma.lemma,
        "omega": omega.omega,
        "feedback": feedback.feedback,
        "online_cost": cost.online_cost,
    }
    page = report.write(study, config, studies[study.study](study, config))
    Terminal().say(f"wrote {page}")


def settings(composed: DictConfig, typed: list[str]) -> tuple[Study, Config]:
    """Split the composed settings into those of the study and of a run, both checked."""
    study, rest = split_off(composed, Study)
    return study, load(rest, typed)
