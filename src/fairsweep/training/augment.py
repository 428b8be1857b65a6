"""Random changes to training images, made for each batch anew on its device."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad


class Augment(NamedTuple):
    """What is changed at random in each training image.

    Attributes:
        shift, rotate: the most pixels and degrees, in either direction.
        flip: mirror it left to right, or not.
        crop: pixels that are added on each side, of which the image's size is cut out again anywhere.
        cutout: the side of a square that is covered.
    """

    shift: int = 0
    rotate: float = 0.0
    flip: bool = False
    crop: int = 0
    cutout: int = 0

    def of_pixels(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """A batch (N, C, H, W) before it is normalised: what comes in repeats the images' borders."""
        if self.shift or self.rotate:
            return move(batch, self.shift, self.rotate, generator)
        return batch

    def of_normalised(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """A batch (N, C, H, W) after it is normalised: what comes in is 0, the mean of all images."""
        if self.flip:
            batch = mirror(batch, generator)
        if self.crop:
            batch = crop(batch, self.crop, generator)
        if self.cutout:
            batch = cover(batch, self.cutout, generator)
        return batch


def draw(rows: int, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers (rows, N, 1, 1) from 0 to 1; a generator of the batch's device spares a copy."""
    random = torch.rand(rows, len(batch), 1, 1, generator=generator, device=generator.device)
    return random.to(batch.device, non_blocking=True)


def mirror(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right."""
    (chance,) = draw(1, batch, generator)
    return torch.where(chance[..., None] < 0.5, batch.flip(3), batch)


def crop(batch: Tensor, margin: int, generator: torch.Generator) -> Tensor:
    """Cut each image's size out of the image with a margin of zeros (He et al. 2016, section 4.2)."""
    count, _, height, width = batch.shape
    top, left = (draw(2, batch, generator) * (2 * margin + 1)).long()
    rows = top + torch.arange(height, device=batch.device)[:, None]
    columns = left + torch.arange(width, device=batch.device)
    padded = pad(batch, [margin] * 4).permute(0, 2, 3, 1)
    images = torch.arange(count, device=batch.device).view(-1, 1, 1)
    return padded[images, rows, columns].permute(0, 3, 1, 2)


def cover(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square at a random centre to 0; part of it may be outside (DeVries and Taylor 2017)."""
    _, _, height, width = batch.shape
    down, across = draw(2, batch, generator)
    y = torch.arange(height, device=batch.device)[:, None] - (down * height).floor() + side // 2
    x = torch.arange(width, device=batch.device) - (across * width).floor() + side // 2
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    return batch.masked_fill(inside[:, None], 0.0)


def move(batch: Tensor, shift_pixels: int, rotate_degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each image about its centre and shift it by whole pixels, at random up to the limits.

    `batch` is float32 (N, C, H, W); normalised or not makes no difference, because what comes in
    from outside the frame repeats the border: a background stays as dark or light as it is. The
    random numbers come from `generator`.
    """
    _, _, height, width = batch.shape
    random = draw(3, batch, generator)
    across, down = (random[:2] * (2 * shift_pixels + 1)).floor() - shift_pixels
    radians = (random[2] * 2 - 1) * math.radians(rotate_degrees)
    cos, sin = radians.cos(), radians.sin()
    # In pixels from the centre. Not affine_grid: it multiplies matrices, and so in bf16 or TF32
    # wherever those are allowed, which blurs.
    x = torch.arange(width, device=batch.device) - (width - 1) / 2
    y = torch.arange(height, device=batch.device)[:, None] - (height - 1) / 2
    from_x = (cos * x + sin * y + across) * (2 / width)
    from_y = (cos * y - sin * x + down) * (2 / height)
    grid = torch.stack((from_x, from_y), dim=3)
    return grid_sample(batch, grid, padding_mode="border", align_corners=False)
