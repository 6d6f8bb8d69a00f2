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
    shift = flip = angle = None  # A move that is off draws no numbers.
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
        images: (n, H, H, C) uint8.
        index: (b,) int64, the images to pick.
        moves: of these b images.

    Returns:
        (b, C, H, H) uint8 in channels_last memory; pixels outside an image are 0.
    """
    if all(move is None for move in moves):
        return images[index].permute(0, 3, 1, 2)
    _, side, _, channels = images.shape
    # The source of each output pixel, as rows and columns (b, H, H) int64; a dimension in which all
    # are alike may be 1. An image is shifted, mirrored and rotated in this order, so the way back
    # from an output pixel undoes the rotation first, and the shift last.
    rows = torch.arange(side, device=index.device).view(1, -1, 1)
    columns = rows.view(1, 1, -1)
    is_inside = torch.ones((), dtype=torch.bool, device=index.device)
    if moves.angle is not None:
        rows, columns = _unrotated(rows, columns, moves.angle, side)
        is_inside = _within(rows, columns, side)
    if moves.flip is not None:
        columns = torch.where(moves.flip.view(-1, 1, 1), side - 1 - columns, columns)
    if moves.shift is not None:
        rows = rows + moves.shift[:, 0].view(-1, 1, 1)
        columns = columns + moves.shift[:, 1].view(-1, 1, 1)
        is_inside = is_inside & _within(rows, columns, side)
    # The pixels of all images are one list, in which image i begins at i · H². A pixel without a
    # source takes the first of the list, and is then multiplied by 0.
    source = (index * side**2).view(-1, 1, 1) + rows * side + columns
    source = torch.where(is_inside, source, 0)
    pixels = images.view(-1, channels).index_select(0, source.view(-1))
    pixels = pixels.view(*source.shape, channels) * is_inside.unsqueeze(-1)
    return pixels.permute(0, 3, 1, 2)


def _within(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Whether pixels at these rows and columns are inside an image, bool."""
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _unrotated(rows: Tensor, columns: Tensor, angle: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The nearest source, row and column, of each pixel of images that are rotated.

    An image is rotated by ``angle`` counter-clockwise about its middle, the mean of its first and
    its last pixel. As rows count downwards, the way back has the signs below.
    """
    turn, middle = (angle * (math.pi / 180)).view(-1, 1, 1), (side - 1) / 2
    cos, sin = torch.cos(turn), torch.sin(turn)
    y, x = rows - middle, columns - middle
    source_x = cos * x - sin * y + middle
    source_y = sin * x + cos * y + middle
    return source_y.round().long(), source_x.round().long()
