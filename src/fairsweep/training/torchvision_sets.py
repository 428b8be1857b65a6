"""CIFAR, SVHN and EMNIST by torchvision, which verifies checksums before it unpickles CIFAR's files."""

import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import datasets  # type: ignore[import-untyped]

from fairsweep.config import ConfigError
from fairsweep.training.source import Source, Split
from fairsweep.training.sources import TORCHVISION, torchvision_files

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read(source: str, root: str, split: str | None = None) -> Source:
    """A data set of `sources.TORCHVISION`, downloaded if none of its files is there.

    Raises:
        ConfigError: files are missing or altered, or the download fails.
    """
    if torchvision_files(source, root, split) is None:
        download(source, root, split)
    try:
        train, test = (SETS[source](Path(root).expanduser(), is_train, split) for is_train in (True, False))
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"data.root={root}: {source} cannot be read ({str(error).strip()}); to have it downloaded again, "
            "remove its files there"
        ) from error
    (train_images, train_labels, classes), (test_images, test_labels, _) = train, test
    return Source(split_of(train_images, train_labels), split_of(test_images, test_labels), tuple(classes))


def split_of(images: NDArray[np.uint8], labels: Any) -> Split:
    """A split of images (N, C, H, W) and their labels."""
    return Split(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    )


def download(source: str, root: str, split: str | None) -> None:
    """torchvision's checked download: all files or none.

    Raises:
        ConfigError: it fails.
    """
    top, below = Path(root).expanduser().absolute(), TORCHVISION[source][0].partition("/")[0]
    # A new folder would be left behind if the root is mistyped and the download fails.
    existing = next(folder for folder in (top, *top.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".download-") as name:
            scratch = Path(name)
            for is_train in (True, False):
                SETS[source](scratch, is_train, split, download=True)
            top.mkdir(parents=True, exist_ok=True)
            for path in [scratch / below] if below else sorted(scratch.glob("*.mat")):
                path.rename(top / path.name)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        if torchvision_files(source, root, split) is not None:  # another process was faster
            return
        folder, names = TORCHVISION[source]
        raise ConfigError(
            f"data.root={root}: {source} was not found and cannot be downloaded ({str(error).strip()}); use "
            f"a folder that has {', '.join(name.format(split=split) for name in names)}"
            + (f" in {folder}/" if folder else "")
        ) from error


def cifar(kind: type[datasets.CIFAR10]) -> Callable[..., tuple[Any, Any, list[str]]]:
    """Reads CIFAR-10 or CIFAR-100."""

    def read(root: Path, is_train: bool, _: str | None, **options: bool) -> tuple[Any, Any, list[str]]:
        found = kind(root, train=is_train, **options)
        return found.data.transpose(0, 3, 1, 2), found.targets, found.classes

    return read


def svhn(root: Path, is_train: bool, _: str | None, **options: bool) -> tuple[Any, Any, list[str]]:
    """Reads SVHN's cropped digits, less the `extra` ones."""
    found = datasets.SVHN(root, split="train" if is_train else "test", **options)
    return found.data, found.labels, [*"0123456789"]


def emnist(root: Path, is_train: bool, split: str | None, **options: bool) -> tuple[Any, Any, list[str]]:
    """Reads EMNIST, whose images are stored transposed, and whose letters count from 1."""
    found = datasets.EMNIST(root, split=split, train=is_train, **options)
    images, labels, classes = found.data.numpy().transpose(0, 2, 1)[:, None], found.targets, found.classes
    return (images, labels - 1, classes[1:]) if split == "letters" else (images, labels, classes)


SETS: dict[str, Callable[..., tuple[Any, Any, list[str]]]] = {
    "cifar10": cifar(datasets.CIFAR10),
    "cifar100": cifar(datasets.CIFAR100),
    "svhn": svhn,
    "emnist": emnist,
}
