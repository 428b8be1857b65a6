"""A data set as resident tensors: checked, split and measured."""

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
    """Examples; N may be 0.

    inputs: images, uint8 or float32 (N, C, H, W), or features, float32 (N, F).
    targets: classes, int64 (N,), or numbers, float32 (N, T).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.inputs.to(device), self.targets.to(device))

    def pick(self, indices: Tensor) -> "Split":
        """These examples, in the order that they have here."""
        indices = indices.sort().values
        return Split(self.inputs[indices], self.targets[indices])


class Source(NamedTuple):
    """A data set as it was read; `test` is None if there is no official one.

    classes: their names; none in regression.
    full_scales: of images deeper than 8 bits, the value that became 255, by their kind (see `images.Stored`).
    target_names: in regression, one for each number; else none.
    feature_names: of a table's columns.
    notes: what the user should know.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    full_scales: Mapping[str, int] = MappingProxyType({})
    target_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """`classification` or `regression`."""
        return "regression" if self.target_names else "classification"

    def check(self) -> None:
        """
        Raises:
            ConfigError: a user's function did not return splits of one form, or values are not finite.
        """
        form = self.train.inputs
        for split in (self.train, self.test):
            if split is None:
                continue
            self.check_inputs(split.inputs)
            if split.inputs.shape[1:] != form.shape[1:] or split.inputs.dtype != form.dtype:
                raise ConfigError(
                    f"data: test inputs of {described(split.inputs)}; must be as those for training, "
                    f"of {described(form)}"
                )
            self.check_targets(split)
            where = "training" if split is self.train else "test"
            check_finite(f"data: {where} inputs", split.inputs, self.feature_names)
            check_finite(f"data: {where} targets", split.targets, self.target_names)
        if not self.target_names and len(self.classes) < 2:
            names = ", ".join(self.classes)
            raise ConfigError(f"data: has {len(self.classes)} class ({names}); must have two or more")

    def check_inputs(self, inputs: Tensor) -> None:
        """Check the type and the shape of inputs."""
        is_tensor = isinstance(inputs, Tensor)
        forms = {torch.uint8: (4,), torch.float32: (2, 4)}
        if not is_tensor or inputs.ndim not in forms.get(inputs.dtype, ()) or 0 in inputs.shape:
            raise ConfigError(
                f"data: inputs of {described(inputs)}; must be one or more torch.uint8, 0 to 255, or "
                "torch.float32 (N, C, H, W), or torch.float32 (N, F)"
            )

    def check_targets(self, split: Split) -> None:
        """Check the type, the shape and the range of a split's targets."""
        targets, count = split.targets, len(split.inputs)
        kind, shape = torch.int64, torch.Size([count])
        if self.target_names:
            kind, shape = torch.float32, torch.Size([count, len(self.target_names)])
        if not isinstance(targets, Tensor) or targets.dtype != kind or targets.shape != shape:
            raise ConfigError(f"data: targets of {described(targets)}; must be {kind} {tuple(shape)}")
        if self.target_names:
            return
        low, high, last = int(targets.min()), int(targets.max()), len(self.classes) - 1
        if not 0 <= low <= high <= last:
            raise ConfigError(f"data: labels from {low} to {high}; must be 0 to {last}, one for each class")

    def hash(self) -> str:
        """32 hex digits that depend on every input, target and name."""
        named = self.classes
        if self.target_names or self.feature_names:
            named = (*self.classes, "|", *self.target_names, "|", *self.feature_names)
        digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=16)
        for split in (self.train, self.test):
            for tensor in (split.inputs, split.targets) if split is not None else ():
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def check_finite(what: str, values: Tensor, names: Sequence[str]) -> None:
    """
    Args:
        names: of the columns, if they have names.

    Raises:
        ConfigError: values are NaN or infinite.
    """
    if not values.is_floating_point() or bool(values.isfinite().all()):
        return
    places = (~values.isfinite()).nonzero()
    row, *rest = places[0].tolist()
    column = f", column {names[rest[0]]!r}" if names else f", at {rest}" if rest else ""
    raise ConfigError(
        f"{what}: {len(places):,} of {values.numel():,} values are NaN or infinite, the first in row "
        f"{row}{column} (counted from 0); remove those rows, or fill them in"
    )


def described(array: Any) -> str:
    """The type and shape of a tensor, or of any other value."""
    return f"{getattr(array, 'dtype', type(array).__name__)} {tuple(getattr(array, 'shape', ()))}"


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
        """What is needed to bring any input to the form of these; goes into JSON. See `_measured`, too."""
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
                self._facts.update(self._measured())
            else:
                self._facts.update(dtype="float32", features=list(self.feature_names))
            if self.target_names:
                self._facts.update(
                    targets=list(self.target_names),
                    target_mean=list(self.target_mean),
                    target_std=list(self.target_std),
                )
        return dict(self._facts)

    def _measured(self) -> dict[str, Any]:
        """How the content of images lies in them.

        background: "dark" or "light", by the median of the pixels at the border; "mixed" if fewer than
            two thirds of them are within 32 of it, as in photographs.
        extent: the longer side of the content's box as a share of the frame, where content is what
            differs from that median by over 64; the median over at most 2,000 training images.
        centre: what they are placed by, the centre of "mass" or of the content's "box", which is the one
            that differs less from image to image; and where "at" it lies, mean (y, x) as shares of the frame.
        """
        step = math.ceil(len(self.train) / 2000)
        grey = self.train.inputs[::step].cpu().float().mean(dim=1)
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
    is_byte, count = train.inputs.dtype == torch.uint8, train.inputs.shape[1]
    notes, target_scale = list(source.notes), scale_of(train.targets, source.target_names and standardize)
    if not standardize:
        means, stds = (0.0,) * count, (1.0,) * count
    elif mean is not None and std is not None:
        means, stds = (), ()
    else:
        means, stds = (statistics if is_byte else float_statistics)(train.inputs)
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
        names = [source.feature_names[index] if source.feature_names else str(index) for index in constant]
        notes.append(
            f"data: {len(constant)} of {count} features are constant in training ("
            f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}); they are not scaled"
        )
        stds = tuple(value or 1.0 for value in stds)
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
        target_mean=target_scale[0],
        target_std=target_scale[1],
        feature_names=source.feature_names,
        notes=tuple(notes),
    )


def scale_of(targets: Tensor, is_standardized: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the targets of regression, (N, T); 0 and 1 if they stay as they are.

    Raises:
        ConfigError: a target is the same for all examples.
    """
    if not targets.is_floating_point():
        return (), ()
    means, stds = float_statistics(targets)
    if 0 in stds:
        raise ConfigError(
            f"data: target {stds.index(0)} is {means[stds.index(0)]:g} for all training examples; "
            "there is nothing to learn"
        )
    return (means, stds) if is_standardized else ((0.0,) * len(means), (1.0,) * len(stds))


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


def float_statistics(values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
