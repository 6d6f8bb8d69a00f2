"""`python -m lab.noise.coverage`: how often a run's interval of C² covers it, by brute force.

Weights stand still after 1 and after 30 epochs of the default run on digits. Then the gradients of
EPOCHS epochs are taken: each epoch gives an interval, and all of them together the true C².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from igo.config.load import load, make_plan
from igo.ground.files import CONF
from igo.noise.measure import untouched
from igo.runs.assemble import prepare
from igo.runs.terminal import Terminal
from igo.train import loop, optimizers
from igo.train.measure import Pairs
from igo.train.record import Progress, Training

EPOCHS = 100
SETTINGS = ("split=1", "engine.precision=fp32", "engine.threads=1", "tracking=none")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "MLP 64-32-10": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    ),
}


def trained(network: str, epochs: int) -> Training:
    """The default run of digits with constant b, and with another network than ResNet-8."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = load(
            compose("config", [*SETTINGS, f"epochs={epochs}", f"evaluate_every={epochs}"])
        )
    training = prepare(config, make_plan(config))
    if network in NETWORKS:
        model = NETWORKS[network]()
        optimizer = optimizers.build(config.optimizer, model.parameters(), config.learning_rate)
        training = replace(training, network=model, optimizer=optimizer)
    with Terminal().progress(training.plan) as bar:
        loop.train(training, Progress(threads=1), bar, lambda _: None, lambda: None)
    return training


def coverage(run: Training) -> tuple[float, float, float]:
    """C², the share of epochs whose interval has it, and the mean ratio of an interval's ends."""
    k, found = run.plan.rows[0].batches, []
    run.network.train()
    with untouched(run.network, 0):
        for epoch in range(EPOCHS):
            order = torch.randperm(run.data.n, generator=torch.manual_seed(epoch)).tensor_split(k)
            pairs = Pairs(run.engine, run.network, run.optimizer, k)
            for update, batch in enumerate(run.data.train_batches(list(order), epoch), start=1):
                run.engine.backward(run.network, *batch)
                pairs.take(update, len(batch[1]))
            found.append(pairs.noise())
    noises = [noise for noise in found if noise and noise.interval]
    truth = sum(noise.variance for noise in noises) / len(noises)
    ends = torch.tensor([noise.interval for noise in noises])
    inside = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    return truth, float(inside.double().mean()), float((ends[:, 1] / ends[:, 0]).log().mean().exp())


def main() -> None:
    """Print a row for each network and age."""
    print("| network | epochs | C² | covered | high/low |\n|---|---|---|---|---|")
    for network in (*NETWORKS, "ResNet-8 with BatchNorm"):
        for epochs in (1, 30):
            truth, share, ratio = coverage(trained(network, epochs))
            print(f"| {network} | {epochs} | {truth:.3g} | {share:.0%} | {ratio:.2g} |", flush=True)


if __name__ == "__main__":
    main()
