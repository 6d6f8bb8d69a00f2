"""Augmentation against torchvision's transforms, image by image, with the same parameters."""

import math
from itertools import product

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from igo.config.schema import AugmentConfig
from igo.ground.seeds import generator
from igo.train.augment import Moves, draw_moves, gather

CPU = torch.device("cpu")
SIZES = [8, 28, 32, 7, 1]
CROP = 4
KINDS = {
    "crop": ("shift",),
    "flip": ("flip",),
    "rotation": ("angle",),
    "crop_and_flip": ("shift", "flip"),
    "all": ("shift", "flip", "angle"),
}


def clear_angles(n: int, side: int, limit: float) -> Tensor:
    """Uniform angles for which no pixel's source lies halfway between two pixels.

    There the nearest one is a matter of the last bit, which no two programs need agree on.
    """
    angles = (torch.rand(4 * n, generator=generator(0, "angles")) * 2 - 1) * limit
    turns = np.exp(1j * np.radians(angles.double().numpy()))[:, None, None]
    y, x = np.ogrid[:side, :side]
    centre = (side - 1) / 2 * (1 + 1j)
    sources = turns * (x + y * 1j - centre) + centre
    parts = torch.from_numpy(np.stack([sources.real, sources.imag]))
    clear = ((parts % 1 - 0.5).abs() > 2e-5).all(dim=(0, 2, 3))
    assert clear.sum() >= n
    return angles[clear][:n]


def some_moves(n: int, side: int, kind: str) -> Moves:
    draw, limit = generator(0, "moves"), 180.0 if kind == "rotation" else 15.0
    parts = {
        "shift": torch.randint(-CROP, CROP + 1, (n, 2), generator=draw),
        "flip": torch.rand(n, generator=draw) < 0.5,
        "angle": clear_angles(n, side, limit),
    }
    return Moves(*(parts[name] if name in KINDS[kind] else None for name in parts))


def by_torchvision(image: Tensor, moves: Moves, i: int) -> Tensor:
    """Zero-pad and crop, flip, rotate one (H, W, C) image, in the published order."""
    pixels = image.permute(2, 0, 1)
    side = len(pixels[0])
    if moves.shift is not None:
        down, right = moves.shift[i].tolist()
        pixels = tv.crop(tv.pad(pixels, [CROP]), CROP + down, CROP + right, side, side)
    if moves.flip is not None and moves.flip[i]:
        pixels = tv.hflip(pixels)
    if moves.angle is not None:
        pixels = tv.rotate(pixels, float(moves.angle[i]), InterpolationMode.NEAREST, fill=[0])
    return pixels


def test_moves_equal_torchvision_bit_for_bit(device: str) -> None:
    """Of noise without zeros, so that every lost or misplaced pixel shows."""
    for kind, side, channels in product(KINDS, SIZES, (1, 3)):
        n, draw = 48, generator(0, "images")
        images = torch.randint(1, 256, (n, side, side, channels), generator=draw, dtype=torch.uint8)
        moves = some_moves(n, side, kind)
        index = torch.randperm(n, generator=generator(0, "index"))[: n - 5]
        parts = (getattr(moves.of(index), part) for part in ("shift", "flip", "angle"))
        device_moves = Moves(*(None if part is None else part.to(device) for part in parts))
        images_here = gather(images.to(device), index.to(device), device_moves)
        expected_images = torch.stack([by_torchvision(images[i], moves, int(i)) for i in index])
        assert images_here.dtype == torch.uint8
        assert torch.equal(images_here.cpu(), expected_images)


def test_moves_are_uniform_and_independent() -> None:
    """Also of the next image's; torchvision's transforms draw from the same laws."""
    n, places = 20_000, 2 * CROP + 1
    moves = draw_moves(AugmentConfig(CROP, True, 15), n, generator(1, "augmentation"), CPU)
    shift, flip, angle = moves.shift + CROP, moves.flip, moves.angle.double()
    joint = (shift[:, 0] * places + shift[:, 1]).bincount()
    assert len(joint) == places**2
    assert stats.chisquare(joint.numpy()).pvalue > 1e-3
    assert stats.binomtest(int(flip.sum()), n, 0.5).pvalue > 1e-3
    assert stats.kstest(angle.numpy(), stats.uniform(-15, 30).cdf).pvalue > 1e-3
    columns = torch.stack([shift[:, 0], shift[:, 1], flip, angle])
    pairs = torch.cat([columns[:, :-1], columns[:, 1:]])
    correlation = torch.corrcoef(pairs) - torch.eye(8)
    assert correlation.abs().max() < 4 / math.sqrt(n)
