"""The data sets that a configuration names: files read and checked, their content as tensors."""

import hashlib
import math
import struct
import tempfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fairsweep.config import ConfigError
from fairsweep.training import tables
from fairsweep.training.arrays import source_of
from fairsweep.training.images import Reader
from fairsweep.training.source import Source, Split
from fairsweep.training.sources import IDX_FILES, digits_file, idx_files, idx_name, image_files, open_idx

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


def cifar10(root: str) -> Source:
    """CIFAR-10: 50,000 and 10,000 images of 3x32x32 in 10 classes, downloaded if there are none.

    Raises:
        ConfigError: a file is missing or altered, or the download fails.
    """
    return of_torchvision("cifar10", root)


def cifar100(root: str) -> Source:
    """CIFAR-100, the same with 100 classes."""
    return of_torchvision("cifar100", root)


def svhn(root: str) -> Source:
    """SVHN: 73,257 and 26,032 house numbers' digits of 3x32x32; raises as `cifar10`."""
    return of_torchvision("svhn", root)


def emnist(root: str, split: str) -> Source:
    """EMNIST: letters and digits of 1x28x28 in one of its splits; raises as `cifar10`."""
    return of_torchvision("emnist", root, split)


def of_torchvision(source: str, root: str, split: str | None = None) -> Source:
    from fairsweep.training import torchvision_sets  # slow to import, and rarely needed

    return torchvision_sets.read(source, root, split)


def image_folder(root: str, channels: int = 1, size: int = 28) -> Source:
    """A folder of images per class (see `image_files`) as grey (1) or RGB (3) squares.

    Values deeper than 8 bits are scaled by one full scale for all images of a kind (see `images.full_scale`).

    Raises:
        ConfigError: the folder does not fit the layout, or images are not readable or too deep.
    """
    files = image_files(root)
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


def arrays(
    file: str,
    targets_file: str | None = None,
    test_file: str | None = None,
    test_targets_file: str | None = None,
    inputs: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    task: str = "auto",
) -> Source:
    """Arrays from an .npz, .csv or .parquet file, or from two .npy files (see conf/data/arrays.yaml).

    Raises:
        ConfigError: a file cannot be read, or its content is not of the form that it must have.
    """
    train = tables.read("data.file", file, targets_file, inputs, target)
    test = None
    if test_file is not None:
        test = tables.read("data.test_file", test_file, test_targets_file, train.features or inputs, target)
    return source_of(train, test, task)
