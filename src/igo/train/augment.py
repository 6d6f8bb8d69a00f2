"""Random crop, flip and rotation of whole batches, each image with its own parameters.

As published, in the published order: zero-pad and crop, mirror, rotate (nearest neighbour, zeros
outside). All three only move pixels, so one gather does them together, from the source of each
output pixel. Parameters are drawn for a whole epoch on the CPU, so an epoch is the same on every
device and for every batch size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from igo.config.schema import AugmentConfig


class Moves(NamedTuple):
    """The augmentation of each of n images.

    ``shift`` (n, 2) int64: rows and columns by which the crop is moved, in [-crop, crop];
    ``flip`` (n,) bool; ``angle`` (n,) float32, degrees counter-clockwise. None: not done.
    """

    shift: Tensor | None
    flip: Tensor | None
    angle: Tensor | None

    def of(self, index: Tensor) -> Moves:
        """The moves of the images with these indices (b,) int64."""
        return Moves(*(None if move is None else move[index] for move in self))


def draw_moves(
    augment: AugmentConfig, n: int, generator: torch.Generator, device: torch.device
) -> Moves:
    """Draw uniform parameters for n images, as torchvision's transforms do one by one."""
    shift = flip = angle = None
    if augment.crop:
        shift = torch.randint(-augment.crop, augment.crop + 1, (n, 2), generator=generator)
    if augment.flip:
        flip = torch.rand(n, generator=generator) < 0.5
    if augment.rotation:
        angle = (torch.rand(n, generator=generator) * 2 - 1) * augment.rotation
    return Moves(*(None if move is None else move.to(device) for move in (shift, flip, angle)))


def gather(images: Tensor, index: Tensor, moves: Moves) -> Tensor:
    """Pick images and move their pixels.

    Args:
        images: (n, H, W, C) uint8.
        index: (b,) int64, the images to pick.
        moves: of these b images.

    Returns:
        (b, C, H, W) uint8 in channels_last memory; pixels outside an image are 0.
    """
    if all(move is None for move in moves):
        return images[index].permute(0, 3, 1, 2)
    _, height, width, channels = images.shape
    rows, columns, is_inside = _sources(height, width, moves, index.device)
    source = (index * (height * width)).view(-1, 1, 1) + rows * width + columns
    source = torch.where(is_inside, source, 0)
    pixels = images.view(-1, channels).index_select(0, source.view(-1))
    pixels = pixels.view(*source.shape, channels) * is_inside.unsqueeze(-1)
    return pixels.permute(0, 3, 1, 2)


def _sources(
    height: int, width: int, moves: Moves, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The source of each output pixel: row and column (b, H, W) int64, and whether it is inside.

    The last move is undone first.
    """
    rows = torch.arange(height, device=device).view(1, -1, 1)
    columns = torch.arange(width, device=device).view(1, 1, -1)
    is_inside = torch.ones((), dtype=torch.bool, device=device)
    if moves.angle is not None:
        rows, columns = _rotate(rows, columns, moves.angle, height, width)
        is_inside = _within(rows, columns, height, width)
    if moves.flip is not None:
        columns = torch.where(moves.flip.view(-1, 1, 1), width - 1 - columns, columns)
    if moves.shift is not None:
        rows = rows + moves.shift[:, 0].view(-1, 1, 1)
        columns = columns + moves.shift[:, 1].view(-1, 1, 1)
        is_inside = is_inside & _within(rows, columns, height, width)
    return rows, columns, is_inside


def _within(rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def _rotate(
    rows: Tensor, columns: Tensor, angle: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The nearest source of each pixel of an image rotated by ``angle`` about its centre."""
    turn = (angle * (math.pi / 180)).view(-1, 1, 1)
    cos, sin = torch.cos(turn), torch.sin(turn)
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    source_x = cos * x - sin * y + (width - 1) / 2
    source_y = sin * x + cos * y + (height - 1) / 2
    return source_y.round().long(), source_x.round().long()
