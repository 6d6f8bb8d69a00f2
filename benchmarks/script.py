"""What a good engineer writes for one machine and one batch size, without igo.

The data stay on the device, where the images of a turn are augmented at once; sums stay there, too;
the update is step's; and there is one line a turn.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks import step
from benchmarks.task import Task, Turns


def train(task: Task, turns: Turns) -> nn.Module:
    """Train in the turns of a task, text with half a cosine of η; return the network."""
    (network, optimizer), (inputs, targets) = step.trained(task), task.tensors()
    update, n = step.update_of(network, optimizer), task.samples
    updates = sum(k for k, _ in task.turns)
    scheduler = LambdaLR(optimizer, lambda number: (1 + math.cos(math.pi * number / updates)) / 2)
    for turn, (k, rate) in enumerate(task.turns):
        if not task.is_text:
            optimizer.param_groups[0]["lr"] = rate
        turns.begin()
        order = task.order(turn, len(targets)).to(inputs.device)
        shuffled, answers = inputs[order], targets[order]
        if not task.is_text:
            images = task.normalised(augmented(shuffled, task))
            shuffled = images.contiguous(memory_format=torch.channels_last)
        sums = torch.zeros(2, device=inputs.device)
        for batch in zip(shuffled.tensor_split(k), answers.tensor_split(k), strict=True):
            sums += update(*batch)
            if task.is_text:
                scheduler.step()
        loss, accuracy = (sums / n).tolist()
        print(f"turn {turn}: loss {loss:.4f}, accuracy {accuracy:.2%}")
        turns.end(n, k)
    return network


def augmented(images: Tensor, task: Task) -> Tensor:
    """Crop, flip and rotate images (n, C, H, W), each by its own random numbers.

    Each image has an affine map of its own, in coordinates from −1 to 1. A crop after padding is a
    move by whole pixels; what comes in from outside is 0.
    """
    n, side, random = len(images), images.shape[-1], torch.rand(4, len(images))
    flip = random[0] < 0.5
    if not task.crop and not task.rotation:
        return torch.where(flip.view(-1, 1, 1, 1).to(images.device), images.flip(-1), images)
    angle = (2 * random[1] - 1) * math.radians(task.rotation)
    pixels = torch.floor((2 * task.crop + 1) * random[2:]) - task.crop
    sign, (right, down) = torch.where(flip, -1.0, 1.0), 2 / side * pixels
    rows = [sign * angle.cos(), -sign * angle.sin(), right, angle.sin(), angle.cos(), down]
    maps = torch.stack(rows, dim=1).view(n, 2, 3).to(images.device)
    grid = F.affine_grid(maps, [*images.shape], align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)
