"""What `predict` brings handwriting of any size to: how the training images lie in their frames."""

import math
from typing import Any

import torch
from torch import Tensor


def placement(images: Tensor) -> dict[str, Any]:
    """How the content of images, uint8 (N, C, H, W), lies in their frames; goes into JSON.

    background: "dark" or "light", by the median of the pixels at the border; "mixed" if fewer than
        two thirds of them are within 32 of it, as in photographs.
    extent: the longer side of the content's box as a share of the frame, where content is what
        differs from that median by over 64; the median over at most 2,000 training images.
    centre: what they are placed by, the centre of "mass" or of the content's "box", which is the one
        that differs less from image to image; and where "at" it lies, mean (y, x) as shares of the frame.
    """
    step = math.ceil(len(images) / 2000)
    grey = images[::step].cpu().float().mean(dim=1)
    sides = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    border = torch.cat([side.flatten() for side in sides])
    level = border.median()
    even = ((border - level).abs() <= 32).float().mean() >= 2 / 3
    content = (grey - level).abs() > 64
    shares, boxes, masses = [], [], []
    seen = content.any(dim=2).any(dim=1)
    weight = (grey - level).abs()
    for across in (2, 1):
        hit, profile = content.any(dim=across)[seen], weight.sum(dim=across)[seen]
        size = hit.shape[1]
        first, last = hit.int().argmax(dim=1), hit.flip(1).int().argmax(dim=1)
        shares.append((size - first - last) / size)
        boxes.append((size + first - last) / 2 / size)
        masses.append(profile @ (torch.arange(size) + 0.5) / profile.sum(dim=1) / size)
    extents = torch.maximum(*shares)
    by_mass = len(extents) > 1 and bool(sum(c.var() for c in masses) < sum(c.var() for c in boxes))
    centres = masses if by_mass else boxes
    return {
        "background": ("dark" if level < 128 else "light") if even else "mixed",
        "extent": round(extents.median().item(), 4) if len(extents) else 1.0,
        "centre": {
            "of": "mass" if by_mass else "box",
            "at": [round(c.mean().item(), 4) if len(c) else 0.5 for c in centres],
        },
    }
