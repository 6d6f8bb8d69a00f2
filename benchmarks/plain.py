"""(a) The usual loop: DataLoader workers, PIL transforms, fp32, a synchronisation every step."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks import peers
from benchmarks.worker import Turns
from igo.config.load import make_plan
from igo.config.schema import Config


def train(config: Config, turns: Turns) -> nn.Module:
    device = peers.engine(config).device
    network = peers.network(config).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate)
    batches = peers.EpochBatches(config)
    loader = peers.loader(config, batches, peers.to_float(config.dataset))
    network.train()
    plan = make_plan(config)
    for epoch in range(1, plan.epochs + 1):
        stage = plan.rows_of_epoch(epoch)[0]
        batches.count, batches.epoch = stage.batches, epoch
        for group in optimizer.param_groups:
            group["lr"] = stage.eta_m
        turns.begin()
        running_loss, correct, total = 0.0, 0, 0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)  # noqa: PLW2901
            optimizer.zero_grad()
            outputs = network(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(labels)
            correct += (outputs.argmax(dim=1) == labels).sum().item()
            total += len(labels)
        turns.end(total, running_loss / total)
    return network
