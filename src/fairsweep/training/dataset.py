"""A data set ready for training: split, measured, resident."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.training.augment import Augment
from fairsweep.training.placement import placement
from fairsweep.training.source import Source, Split


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set ready for training.

    mean, std: per channel, of pixel / 255; of float inputs, per channel or feature.
    target_mean, target_std: in regression, per target.
    """

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
    target_names: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Measured once: a thousand runs of a sweep share them, whatever their augmentation.
    _facts: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def task(self) -> str:
        """`classification` or `regression`."""
        return "regression" if self.target_names else "classification"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image, or (F,) of features."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def outputs(self) -> int:
        """What a model must give for each example: logits of classes, or numbers."""
        return len(self.target_names or self.classes)

    @property
    def noun(self) -> str:
        """What the examples are, in a sentence."""
        return "images" if len(self.shape) == 3 else "rows"

    def to(self, device: torch.device | str) -> "Data":
        return dataclasses.replace(
            self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device)
        )

    def on_disk(self) -> "Data":
        """The same, with inputs in mapped files."""
        return dataclasses.replace(
            self, train=self.train.on_disk(), val=self.val.on_disk(), test=self.test.on_disk()
        )

    def augmented(self, **options: Any) -> "Data":
        """The same with augmentation (see `Augment`); it shares the images.

        Raises:
            ConfigError: a shift, a crop or a cutout as large as an image.
        """
        if len(self.shape) == 1:
            if any(options.values()):
                raise ConfigError(f"data.augment: {self.name} has no images to augment; set it to 0")
            return self
        side = min(self.shape[1:])
        for name in ("shift", "crop", "cutout"):
            if (pixels := options.get(name, 0)) >= side:
                raise ConfigError(
                    f"data.augment.{name}={pixels}: must be below {side}, the pixels of an image's side"
                )
        return dataclasses.replace(self, augment=Augment(**options))

    def facts(self) -> dict[str, Any]:
        """What is needed to bring any input to the form of these; goes into JSON. See `placement`, too."""
        if not self._facts:
            self._facts.update(
                name=self.name,
                shape=list(self.shape),
                classes=list(self.classes),
                mean=list(self.mean),
                std=list(self.std),
                full_scales=self.full_scales,
                fingerprint=self.fingerprint,
            )
            if self.train.inputs.dtype == torch.uint8:
                self._facts.update(placement(self.train.inputs))
            else:
                self._facts.update(dtype="float32", features=list(self.feature_names))
            if self.target_names:
                self._facts.update(
                    targets=list(self.target_names),
                    target_mean=list(self.target_mean),
                    target_std=list(self.target_std),
                )
        return dict(self._facts)


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
    standardize: bool = True,
) -> Data:
    """Split, limit and measure a data set.

    Validation is cut from the training examples, after test if the source has none. The cuts are
    stratified by class and depend on `val_seed` alone. `limit`, the most examples that each split keeps,
    comes after them and does not move an example from one split to another.

    Args:
        val_size, test_size: a share of the examples below 1, or a number of them; 0 for none.
        mean, std: of pixel / 255 or of float inputs, one number or one per channel or feature; None: of the
            training split.
        standardize: False: means that are not given are 0, deviations 1; for the targets of regression, too.

    Raises:
        ConfigError: a value that does not fit these examples.
    """
    generator = torch.Generator().manual_seed(val_seed)
    train, test = source.train, source.test
    least = max(2, len(source.classes))
    if test is None:
        train, test = cut("data.test_size", test_size, train, least, generator)
    train, val = cut("data.val_size", val_size, train, least, generator)
    if limit is not None:
        train, val, test = (
            split.pick(spread(split.targets, generator)[:limit]) if len(split) > limit else split
            for split in (train, val, test)
        )
    notes = list(source.notes)
    means, stds = input_scale(train.inputs, mean, std, standardize, source.feature_names, notes)
    target_mean, target_std = target_scale(train.targets, standardize)
    return Data(
        name=name,
        train=train,
        val=val,
        test=test,
        classes=source.classes,
        mean=means,
        std=stds,
        augment=Augment(),
        fingerprint=fingerprint,
        full_scales=dict(source.full_scales),
        target_names=source.target_names,
        target_mean=target_mean,
        target_std=target_std,
        feature_names=source.feature_names,
        notes=tuple(notes),
    )


Scale = tuple[tuple[float, ...], tuple[float, ...]]


def input_scale(
    inputs: Tensor,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    standardize: bool,
    names: Sequence[str],
    notes: list[str],
) -> Scale:
    """Mean and deviation to normalise inputs by, per channel or feature; see `prepare`.

    Args:
        names: of the features, if they have names. notes: takes one of features that are constant.

    Raises:
        ConfigError: a value that is given does not fit, or the pixels of a channel are all equal.
    """
    is_byte, count = inputs.dtype == torch.uint8, inputs.shape[1]
    if not standardize:
        means, stds = (0.0,) * count, (1.0,) * count
    elif mean is not None and std is not None:
        means, stds = (), ()
    else:
        means, stds = (statistics if is_byte else float_statistics)(inputs)
    if mean is not None:
        means = per_channel("data.mean", mean, count, is_byte)
    if std is not None:
        stds = per_channel("data.std", std, count, is_byte)
    if 0 in stds and is_byte:
        raise ConfigError(
            f"data.std={std}: must be above 0"
            if std is not None
            else "data.std=null: all training pixels of a channel are equal; check the images or set data.std"
        )
    if constant := [index for index, value in enumerate(stds) if value == 0]:
        some = ", ".join(names[index] if names else str(index) for index in constant[:3])
        notes.append(
            f"data: {len(constant)} of {count} features are constant in training ({some}"
            f"{', ...' * (len(constant) > 3)}); they are not scaled"
        )
        stds = tuple(value or 1.0 for value in stds)
    return means, stds


def target_scale(targets: Tensor, standardize: bool) -> Scale:
    """Mean and deviation of the targets of regression, (N, T); 0 and 1 if they stay as they are.

    Raises:
        ConfigError: a target is the same for all examples.
    """
    if not targets.is_floating_point():
        return (), ()
    means, stds = float_statistics(targets)
    if 0 in stds:
        raise ConfigError(
            f"data: target {stds.index(0)} is {means[stds.index(0)]:g} for all training examples, "
            "to the 7 digits of float32; there is nothing to learn, or subtract what they have in common"
        )
    return (means, stds) if standardize else ((0.0,) * len(means), (1.0,) * len(stds))


def cut(key: str, size: float, split: Split, least: int, generator: torch.Generator) -> tuple[Split, Split]:
    """The rest of a split, and the part of `size` cut from it, stratified by class."""
    if size == 0:
        return split, split.pick(torch.empty(0, dtype=torch.long))
    count = max(1, round(size * len(split))) if size < 1 else int(size)
    left = len(split) - count
    if left < least:
        classes = "" if split.targets.is_floating_point() else ", one of each class"
        what = "images" if split.inputs.ndim == 4 else "rows"
        raise ConfigError(
            f"{key}={size}: must leave {least} or more of the {len(split)} {what} for training{classes}"
        )
    order = spread(split.targets, generator)
    return split.pick(order[:left]), split.pick(order[left:])


def spread(labels: Tensor, generator: torch.Generator) -> Tensor:
    """All indices, at random, such that any first part is stratified and has each class it can."""
    order = torch.randperm(len(labels), generator=generator)
    if labels.is_floating_point():
        return order
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    sizes = counts[labels[order]]
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    return order[(place.double() / sizes).argsort(stable=True)]


def statistics(images: Tensor) -> Scale:
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


def float_statistics(values: Tensor) -> Scale:
    """Mean and standard deviation of float32 (N, C, ...) per channel or column, by sums in float64."""
    axes = [0, *range(2, values.ndim)]
    shape = [1, -1] + [1] * (values.ndim - 2)
    count = values.numel() / values.shape[1]
    pieces = torch.split(values, 4096)  # for which float64 takes little memory
    mean = sum((piece.double().sum(axes) for piece in pieces), torch.zeros(())) / count
    centred = (piece.double() - mean.view(shape) for piece in pieces)
    std = (sum((piece.square().sum(axes) for piece in centred), torch.zeros(())) / count).sqrt()
    std[values.amin(axes) == values.amax(axes)] = 0  # whose mean may be rounded
    return tuple(mean.tolist()), tuple(std.tolist())


def per_channel(
    key: str, value: float | Sequence[float], channels: int, is_byte: bool = True
) -> tuple[float, ...]:
    values = [float(v) for v in ([value] if isinstance(value, int | float) else value)]
    if len(values) not in (1, channels) or (is_byte and not all(0 <= v <= 1 for v in values)):
        raise ConfigError(
            f"{key}={value}: must be {'from 0 to 1 (pixel / 255), ' if is_byte else ''}one number or one for "
            f"each of the {channels} channel(s)"
        )
    return tuple(values * channels if len(values) == 1 else values)
