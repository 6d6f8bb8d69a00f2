"""(c) timm's training pieces: fast collate, prefetching loader, optimizer factory, its loop.

They are used as in its train.py with --amp --amp-dtype bfloat16 --channels-last: images are uint8
until they are normalised on the device, and the loss is read every 50 updates. timm's augmentation
has no such rotation, so the transforms are torchvision's.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.transforms import ToNumpy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, NativeScaler
from torch import nn

from benchmarks import peers
from benchmarks.worker import Turns
from igo.config.plan import make_plan
from igo.config.schema import Config

LOG_INTERVAL = 50  # timm's default


def train(config: Config, turns: Turns) -> nn.Module:
    device, autocast = peers.device_and_precision(config)
    moved: Any = peers.network(config).to(device)
    network: nn.Module = moved.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt="momentum", lr=config.learning_rate, momentum=0.0)
    criterion = nn.CrossEntropyLoss().to(device)
    scaler = NativeScaler(device.type) if autocast is torch.float16 else None
    batches, facts = peers.EpochBatches(config), config.dataset
    inner = peers.loader(config, batches, [ToNumpy()], collate=fast_collate)
    loader = PrefetchLoader(
        inner, tuple(facts.mean), tuple(facts.std), channels=facts.channels, device=device
    )
    network.train()
    plan = make_plan(config)
    for epoch in range(1, plan.epochs + 1):
        stage = plan.stage_of_epoch(epoch)
        batches.count, batches.epoch = stage.batches, epoch
        for group in optimizer.param_groups:
            group["lr"] = stage.eta_m
        turns.begin()
        shown, sums, total = AverageMeter(), torch.zeros((), device=device), 0
        for update, (images, labels) in enumerate(loader):
            images = images.contiguous(memory_format=torch.channels_last)  # noqa: PLW2901
            with torch.autocast(device.type, autocast) if autocast else nullcontext():
                loss = criterion(network(images), labels)
            if scaler:
                scaler(loss, optimizer)
            else:
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()
            sums += loss.detach() * len(labels)
            total += len(labels)
            if update % LOG_INTERVAL == 0:
                shown.update(loss.item(), len(labels))
        turns.end(total, float(sums) / total)
    return network
