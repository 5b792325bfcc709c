"""Cheap variety for training, on batches of tensors: exposure, noise, blur, geometry, markers.

Never a mirror image: preprocessing turns every hip to the left's orientation by rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(
    radiographs: Tensor, occupancy: Tensor, mean: float, std: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Vary a batch; each view of each study on its own, as two exposures are.

    Args:
        radiographs: float32 [B, 2, H, W], normalised as (grey level - mean) / std.
        occupancy: float32 [B, 2, h, w], follows the geometry.
        mean: of the normalisation.
        std: of the normalisation.
        generator: gives every random number.

    Returns:
        The same shapes, radiographs normalised again.
    """
    views = radiographs.reshape(-1, 1, *radiographs.shape[2:])
    truth = occupancy.reshape(-1, 1, *occupancy.shape[2:])
    grey = views * std + mean
    grey, truth = _move(grey, truth, generator)
    grey = _cover_corner(_blur(_expose(grey, generator), generator), generator)
    grey = grey + _uniform(grey, 0.0, 0.02, generator) * torch.randn(
        grey.shape, generator=generator
    )
    return ((grey - mean) / std).reshape(radiographs.shape), truth.reshape(occupancy.shape)


def cut_windows(
    radiographs: Tensor, occupancy: Tensor, stride: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A window of half the height and half the width from each view, anywhere in it.

    Args:
        radiographs: [B, 2, H, W].
        occupancy: [B, 2, h, w] of the same films.
        stride: windows start and end at multiples of it, so that cells stay whole.
        generator: gives every place.
    """
    cell = radiographs.shape[2] // occupancy.shape[2]
    sides = [side // 2 // stride * stride for side in radiographs.shape[2:]]
    parts = []
    for pixels, cells in zip(radiographs.flatten(0, 1), occupancy.flatten(0, 1), strict=True):
        top, left = (
            stride * int(torch.randint((whole - side) // stride + 1, (1,), generator=generator))
            for whole, side in zip(pixels.shape, sides, strict=True)
        )
        bottom, right = top + sides[0], left + sides[1]
        parts.append(
            (
                pixels[top:bottom, left:right],
                cells[top // cell : bottom // cell, left // cell : right // cell],
            )
        )
    films, truth = (torch.stack(list(part)) for part in zip(*parts, strict=True))
    two = radiographs.shape[:2]
    return films.reshape(*two, *films.shape[1:]), truth.reshape(*two, *truth.shape[1:])


def _uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One number a view, [N, 1, 1, 1]."""
    return low + (high - low) * torch.rand(len(like), 1, 1, 1, generator=generator)


def _some(like: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Indices of a random part of the views."""
    return torch.nonzero(torch.rand(len(like), generator=generator) < part).flatten()


def _move(grey: Tensor, truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate by up to 7 degrees, scale by up to 10 %, shift by up to 4 %.

    Half of the views keep their own pixels: interpolation softens the finest signs.
    """
    moved = _some(grey, 0.5, generator)
    if len(moved) == 0:
        return grey, truth

    def number(low: float, high: float) -> Tensor:
        return _uniform(moved, low, high, generator).flatten()

    angle = number(-7.0, 7.0) * (math.pi / 180.0)
    scale = number(0.9, 1.1)
    rows, columns = grey.shape[2:]
    # Normalised coordinates run from -1 to 1 along both sides of an oblong: undo its aspect.
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    across = torch.stack([cosine, -sine * rows / columns, number(-0.08, 0.08)], dim=1)
    down = torch.stack([sine * columns / rows, cosine, number(-0.08, 0.08)], dim=1)
    theta = torch.stack([across, down], dim=1)

    def sample(x: Tensor) -> Tensor:
        grid = functional.affine_grid(theta, list(x[moved].shape), align_corners=False)
        out = x.clone()
        out[moved] = functional.grid_sample(x[moved], grid, align_corners=False)
        return out

    return sample(grey), sample(truth)


def _expose(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma 0.7-1.4, contrast 0.8-1.25 about the middle, brightness by up to 0.06."""
    gamma = torch.exp(_uniform(grey, -0.35, 0.35, generator))
    contrast = torch.exp(_uniform(grey, -0.22, 0.22, generator))
    brightness = _uniform(grey, -0.06, 0.06, generator)
    # Normalisation is by percentiles: metal may lie above 1 and must not be cut here.
    curved = grey.clamp(min=0.0) ** gamma
    return (curved - 0.5) * contrast + 0.5 + brightness


def _blur(grey: Tensor, generator: torch.Generator) -> Tensor:
    """A fifth of the views lose a little sharpness: a 3x3 binomial."""
    blurred = _some(grey, 0.2, generator)
    if len(blurred) == 0:
        return grey
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line[None, :]).reshape(1, 1, 3, 3)
    out = grey.clone()
    padded = functional.pad(grey[blurred], [1, 1, 1, 1], mode="replicate")
    out[blurred] = functional.conv2d(padded, kernel)
    return out


def _cover_corner(grey: Tensor, generator: torch.Generator) -> Tensor:
    """A quarter of the views lose a corner to a marker or a collimator's edge."""
    out = grey
    rows, columns = grey.shape[2:]
    for i in _some(grey, 0.25, generator).tolist():
        if out is grey:
            out = grey.clone()
        part = torch.rand(5, generator=generator)
        height, width = int(part[0] * 0.2 * rows) + 1, int(part[1] * 0.25 * columns) + 1
        top = 0 if part[2] < 0.5 else rows - height
        left = 0 if part[3] < 0.5 else columns - width
        out[i, :, top : top + height, left : left + width] = float(part[4] > 0.5)
    return out
