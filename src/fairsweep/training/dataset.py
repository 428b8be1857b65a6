"""A data set as resident uint8 tensors: checked, split and measured."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.training.augment import Augment


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), and their classes, int64 (N,); N may be 0."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def pick(self, indices: Tensor) -> "Split":
        """These images, in the order that they have here."""
        indices = indices.sort().values
        return Split(self.images[indices], self.labels[indices])


class Source(NamedTuple):
    """A data set as it was read; `test` is None if there is no official one.

    full_scales: of images deeper than 8 bits, the value that became 255, by their kind (see `images.Stored`).
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    full_scales: Mapping[str, int] = MappingProxyType({})

    def check(self) -> None:
        """
        Raises:
            ConfigError: a user's function did not return splits of one shape.
        """
        shape = tuple(getattr(self.train.images, "shape", ()))[1:]
        for images, labels in ((s.images, s.labels) for s in (self.train, self.test) if s is not None):
            if not isinstance(images, Tensor) or images.dtype != torch.uint8 or len(shape) != 3:
                raise ConfigError(
                    f"data: images of {described(images)}; must be torch.uint8 (N, C, H, W), 0 to 255"
                )
            if tuple(images.shape[1:]) != shape or not len(images):
                raise ConfigError(
                    f"data: images of {described(images)}; must be one or more of shape {shape}"
                )
            if (
                not isinstance(labels, Tensor)
                or labels.dtype != torch.int64
                or labels.shape != images.shape[:1]
            ):
                raise ConfigError(
                    f"data: labels of {described(labels)}; must be torch.int64 ({len(images)},)"
                )
            low, high, last = int(labels.min()), int(labels.max()), len(self.classes) - 1
            if not 0 <= low <= high <= last:
                raise ConfigError(
                    f"data: labels from {low} to {high}; must be 0 to {last}, one for each class"
                )

    def hash(self) -> str:
        """32 hex digits that depend on every image, label and class name."""
        digest = hashlib.blake2b(json.dumps(self.classes).encode(), digest_size=16)
        for split in (self.train, self.test):
            for tensor in (split.images, split.labels) if split is not None else ():
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def described(array: Any) -> str:
    """The type and shape of a tensor, or of any other value."""
    return f"{getattr(array, 'dtype', type(array).__name__)} {tuple(getattr(array, 'shape', ()))}"


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set ready for training. `mean` and `std` are per channel, of pixel / 255."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    fingerprint: str
    full_scales: dict[str, int] = dataclasses.field(default_factory=dict)
    # Measured once: a thousand runs of a sweep share them, whatever their augmentation.
    _facts: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> "Data":
        return dataclasses.replace(
            self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device)
        )

    def augmented(self, **options: Any) -> "Data":
        """The same with augmentation (see `Augment`); it shares the images.

        Raises:
            ConfigError: a shift, a crop or a cutout as large as an image.
        """
        side = min(self.shape[1:])
        for name in ("shift", "crop", "cutout"):
            if (pixels := options.get(name, 0)) >= side:
                raise ConfigError(
                    f"data.augment.{name}={pixels}: must be below {side}, the pixels of an image's side"
                )
        return dataclasses.replace(self, augment=Augment(**options))

    def facts(self) -> dict[str, Any]:
        """What is needed to bring any picture to the form of these images; see `_measured`."""
        if not self._facts:
            self._facts.update(self._measured())
        return dict(self._facts)

    def _measured(self) -> dict[str, Any]:
        """What is needed to bring any picture to the form of these images; goes into JSON.

        background: "dark" or "light", by the median of the pixels at the border; "mixed" if fewer than
            two thirds of them are within 32 of it, as in photographs.
        extent: the longer side of the content's box as a share of the frame, where content is what
            differs from that median by over 64; the median over at most 2,000 training images.
        centre: what they are placed by, the centre of "mass" or of the content's "box", which is the one
            that differs less from image to image; and where "at" it lies, mean (y, x) as shares of the frame.
        """
        step = math.ceil(len(self.train) / 2000)
        grey = self.train.images[::step].cpu().float().mean(dim=1)
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
            "name": self.name,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "background": ("dark" if level < 128 else "light") if even else "mixed",
            "extent": round(extents.median().item(), 4) if len(extents) else 1.0,
            "centre": {
                "of": "mass" if by_mass else "box",
                "at": [round(c.mean().item(), 4) if len(c) else 0.5 for c in centres],
            },
            "full_scales": self.full_scales,
            "fingerprint": self.fingerprint,
        }


def prepare(
    name: str,
    source: Source,
    fingerprint: str,
    *,
    val_size: float,
    val_seed: int,
    test_size: float,
    limit: int | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
) -> Data:
    """Split, limit and measure a data set.

    Validation is cut from the training images, after test if the source has none. The cuts are
    stratified and depend on `val_seed` alone. `limit`, the most images that each split keeps, comes
    after them and does not move an image from one split to another.

    Args:
        val_size, test_size: a share of the images below 1, or a number of them; 0 for none.
        mean, std: of pixel / 255, one number or one per channel; None: of the training split.

    Raises:
        ConfigError: a value that does not fit these images.
    """
    generator = torch.Generator().manual_seed(val_seed)
    train, test, classes, full_scales = source
    if test is None:
        train, test = cut("data.test_size", test_size, train, len(classes), generator)
    train, val = cut("data.val_size", val_size, train, len(classes), generator)
    if limit is not None:
        train, val, test = (
            split.pick(spread(split.labels, generator)[:limit]) if len(split) > limit else split
            for split in (train, val, test)
        )
    channels = train.images.shape[1]
    means, stds = statistics(train.images) if mean is None or std is None else ((), ())
    if mean is not None:
        means = per_channel("data.mean", mean, channels)
    if std is not None:
        stds = per_channel("data.std", std, channels)
    if 0 in stds:
        raise ConfigError(
            f"data.std={std}: must be above 0"
            if std is not None
            else "data.std=null: all training pixels of a channel are equal; check the images or set data.std"
        )
    return Data(
        name=name,
        train=train,
        val=val,
        test=test,
        classes=classes,
        mean=means,
        std=stds,
        augment=Augment(),
        fingerprint=fingerprint,
        full_scales=dict(full_scales),
    )


def cut(key: str, size: float, split: Split, classes: int, generator: torch.Generator) -> tuple[Split, Split]:
    """The rest of a split, and the stratified part of `size` cut from it."""
    if size == 0:
        return split, split.pick(torch.empty(0, dtype=torch.long))
    count = max(1, round(size * len(split))) if size < 1 else int(size)
    left = len(split) - count
    if left < classes:
        raise ConfigError(
            f"{key}={size}: must leave {classes} or more of the {len(split)} images for training, "
            "one of each class"
        )
    order = spread(split.labels, generator)
    return split.pick(order[:left]), split.pick(order[left:])


def spread(labels: Tensor, generator: torch.Generator) -> Tensor:
    """All indices, at random, such that any first part is stratified and has each class it can."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    sizes = counts[labels[order]]
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    return order[(place.double() / sizes).argsort(stable=True)]


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation of pixel / 255, per channel, of uint8 (N, C, H, W)."""
    means: list[float] = []
    stds: list[float] = []
    for channel in images.unbind(1):
        histogram = torch.zeros(256, dtype=torch.long)
        # In pieces, because bincount makes an int64 copy of what it counts.
        for start in range(0, len(channel), 1024):
            histogram += channel[start : start + 1024].flatten().bincount(minlength=256)
        counts = histogram.tolist()
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value**2 * count for value, count in enumerate(counts))
        means.append(first / total / 255)
        stds.append(math.sqrt(total * second - first**2) / total / 255)
    return tuple(means), tuple(stds)


def per_channel(key: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    values = [float(v) for v in ([value] if isinstance(value, int | float) else value)]
    if len(values) not in (1, channels) or not all(0 <= v <= 1 for v in values):
        raise ConfigError(
            f"{key}={value}: must be from 0 to 1 (pixel / 255), one number or one for each of the "
            f"{channels} channel(s)"
        )
    return tuple(values * channels if len(values) == 1 else values)
