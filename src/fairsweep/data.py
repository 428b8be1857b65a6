"""Images as resident uint8 tensors: read, checked, split, measured, and augmented on the device."""

import dataclasses
import hashlib
import json
import math
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from fairsweep.config import ConfigError
from fairsweep.images import Reader
from fairsweep.memory import free_memory
from fairsweep.sources import IDX_FILES, digits_file, idx_files, idx_name, image_files, open_idx

# Of the unpacked files.
MNIST_MD5 = dict(
    zip(
        IDX_FILES,
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        strict=True,
    )
)
CLASSES = {
    "MNIST": tuple("0123456789"),
    "FashionMNIST": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}  # fmt: skip


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


class Augment(NamedTuple):
    """The largest shift in pixels and rotation in degrees, in either direction; 0: none."""

    shift: int
    rotate: float


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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> "Data":
        return dataclasses.replace(
            self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device)
        )

    def augmented(self, shift: int, rotate: float) -> "Data":
        """The same with augmentation, by pixels and degrees; it shares the images.

        Raises:
            ConfigError: a shift by a whole side or more.
        """
        side = min(self.shape[1:])
        if shift >= side:
            raise ConfigError(
                f"data.augment.shift={shift}: must be below {side}, the pixels of an image's side"
            )
        return dataclasses.replace(self, augment=Augment(int(shift), float(rotate)))

    def facts(self) -> dict[str, Any]:
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


def digits() -> Source:
    """scikit-learn's 1,797 digits, 8 x 8 with 17 greys, as MNIST's: 20 x 20 within 28 x 28."""
    table = np.loadtxt(digits_file(), delimiter=",", dtype=np.uint8)
    images = np.zeros((len(table), 1, 28, 28), np.uint8)
    for image, row in zip(images, table, strict=True):
        grey = (row[:64].reshape(8, 8) * (255 / 16)).astype(np.uint8)
        large = Image.fromarray(grey).resize((20, 20), Image.Resampling.BICUBIC)
        image[0, 4:24, 4:24] = np.asarray(large)
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    return Source(Split(torch.from_numpy(images), labels), None, CLASSES["MNIST"])


def mnist(root: str, dataset: str = "MNIST") -> Source:
    """MNIST, FashionMNIST or KMNIST from its four files, downloaded if there are none.

    Raises:
        ConfigError: a file is missing, truncated or altered, or the download fails.
    """
    files = idx_files(dataset, root) or download(dataset, root)
    train = read_split(files[0], files[1], dataset)
    return Source(train, read_split(files[2], files[3], dataset), CLASSES[dataset])


def read_split(images_file: Path, labels_file: Path, dataset: str) -> Split:
    images = read_idx(images_file, 3, dataset)
    labels = read_idx(labels_file, 1, dataset)
    if images.shape != (len(labels), 28, 28) or len(labels) == 0:
        raise ConfigError(
            f"data.root: {images_file} has {' x '.join(map(str, images.shape))} pixels for "
            f"{len(labels)} labels, expected {len(labels)} x 28 x 28"
        )
    if (largest := int(labels.max())) > 9:
        raise ConfigError(f"data.root: {labels_file} has a label {largest}, expected 0 to 9")
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


def read_idx(file: Path, dimensions: int, dataset: str) -> NDArray[np.uint8]:
    """The unsigned bytes of an idx file, which is checked by its header and, for MNIST, its MD5."""
    try:
        with open_idx(file) as stream:
            content = bytearray(stream.read())
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data.root: {file} cannot be read: {error}") from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise ConfigError(
            f"data.root: {file} is not an idx file of {dimensions} dimension(s): "
            f"it starts with 0x{content[:4].hex()}, expected 0x{magic.hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start].ljust(start - 4, b"\0"))
    if len(content) != start + math.prod(shape):
        raise ConfigError(
            f"data.root: {file} is truncated or altered: "
            f"{len(content)} bytes, expected {start + math.prod(shape)}"
        )
    found, expected = hashlib.md5(content, usedforsecurity=False).hexdigest(), MNIST_MD5[idx_name(file)]
    if dataset == "MNIST" and found != expected:
        raise ConfigError(
            f"data.root: {file} is not MNIST's: its content's MD5 is {found}, expected {expected}"
        )
    if dataset != "MNIST" and found == expected:
        raise ConfigError(f"data.root: {file} is MNIST's, expected {dataset}'s")
    return np.ndarray(shape, np.uint8, content, start)


def download(dataset: str, root: str) -> tuple[Path, ...]:
    """torchvision's checked download into `<root>/<dataset>/raw`: all four files or none."""
    from torchvision import datasets  # type: ignore[import-untyped]  # slow, and rarely needed

    top = Path(root).expanduser().absolute()
    # A new folder would be left behind if the root is mistyped and the download fails.
    existing = next(folder for folder in (top, *top.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".download-") as scratch:
            getattr(datasets, dataset)(scratch, download=True)
            (top / dataset).mkdir(parents=True, exist_ok=True)
            (Path(scratch) / dataset / "raw").rename(top / dataset / "raw")
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        if files := idx_files(dataset, root):  # another process was faster
            return files
        reason = str(error).strip().rpartition("\n")[2]  # torchvision's message lists every mirror
        raise ConfigError(
            f"data.root={root}: {dataset} was not found and cannot be downloaded ({reason}); use a "
            f"folder that has {', '.join(IDX_FILES)} (or .idx for -idx, or .gz), itself or in {dataset}/raw/"
        ) from error
    files = idx_files(dataset, root)
    assert files is not None
    return files


def image_folder(root: str, channels: int = 1, size: int = 28) -> Source:
    """A folder of images per class (see `image_files`) as grey (1) or RGB (3) squares.

    Values deeper than 8 bits are scaled by one full scale for all images of a kind (see `images.full_scale`).

    Raises:
        ConfigError: the folder does not fit the layout, or images are not readable or too deep.
    """
    files = image_files(root)
    check_memory(len(files.train) + len(files.test or ()), channels, size)
    reader = Reader(channels, size)

    def read(items: Sequence[tuple[Path, int]]) -> Split:
        pixels = torch.from_numpy(reader.read([path for path, _ in items]))
        return Split(pixels, torch.tensor([label for _, label in items]))

    train = read(files.train)
    test = None if files.test is None else read(files.test)
    try:
        full_scales = reader.finish()
    except ValueError as error:
        raise ConfigError(f"data.root={root}: {error}") from error
    return Source(train, test, files.classes, full_scales)


def check_memory(count: int, channels: int, size: int) -> None:
    """
    Raises:
        ConfigError: the images do not fit the free memory at this size.
    """
    needed, free = count * channels * size * size, free_memory()
    if needed > free:
        raise ConfigError(
            f"data.size={size}: {count:,} images of {channels}x{size}x{size} take {needed / 1e9:,.1f} GB; "
            f"{free / 1e9:,.1f} GB of memory are free; use a smaller size"
        )


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
        augment=Augment(0, 0),
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


def augment(batch: Tensor, shift_pixels: int, rotate_degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each image about its centre and shift it by whole pixels, at random up to the limits.

    `batch` is float32 (N, C, H, W); normalised or not makes no difference, because what comes in
    from outside the frame repeats the border: a background stays as dark or light as it is. The
    random numbers come from `generator`; give one of the batch's device to spare a copy.
    """
    count, _, height, width = batch.shape
    random = torch.rand(3, count, 1, 1, generator=generator, device=generator.device)
    random = random.to(batch.device, non_blocking=True)
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
