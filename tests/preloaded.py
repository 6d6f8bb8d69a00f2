"""Imports what a run imports, much of which happens when a model is built and used. See forked."""

import multiprocessing
import tempfile

import sklearn.datasets
import sklearn.model_selection
import timm
import wandb
import wandb._analytics  # W&B and sklearn import these where they are first used
import wandb.apis.public
import wandb.sdk.launch
from conftest import TINY, configure

import igo.__main__
import igo.report.report
import igo.report.table
import igo.runs.recording
import igo.runs.run
import igo.runs.sync
from igo.config.load import make_plan
from igo.sweep import local
from igo.train.assembly import assembled

__all__ = ["igo", "sklearn", "timm", "wandb"]

with tempfile.TemporaryDirectory() as data:  # nothing is written into the first test's folder
    config = configure(*TINY, "tracking=none", f"data_dir={data}")
    assembled(config, make_plan(config))
# The server of a sweep would import it all again.
local._server = lambda: multiprocessing.get_context("fork")  # type: ignore[assignment,return-value]
