"""This project without CUDA graphs, on GPUs only: what a graph of the whole step is worth."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from benchmarks import ours
from benchmarks.worker import Turns
from igo.config.schema import Config


def train(config: Config, turns: Turns) -> nn.Module:
    return ours.train(replace(config, engine=replace(config.engine, graphs=False)), turns)
