"""The limit: the script's update on one batch that never changes, without data or augmentation."""

import torch
from torch import nn

from benchmarks import step
from benchmarks.task import Task, Turns


def train(task: Task, turns: Turns) -> nn.Module:
    """Train in the turns of a task; return the network."""
    (network, optimizer), (inputs, targets) = step.trained(task), task.tensors()
    update, n = step.update_of(network, optimizer), task.samples
    inputs, targets = inputs[:n], targets[:n]
    if not task.is_text:
        inputs = task.normalised(inputs).contiguous(memory_format=torch.channels_last)
    for k, _ in task.turns:
        sizes = [len(part) for part in torch.arange(n).tensor_split(k)]
        # The sizes of equal batches differ by one at most, so that there are one or two batches.
        batch = {size: (inputs[:size].clone(), targets[:size]) for size in {*sizes}}
        turns.begin()
        for size in sizes:
            update(*batch[size])
        turns.end(n, k)
    return network
