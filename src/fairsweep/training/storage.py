"""Where examples are kept: in main memory, or in a file that is mapped into it if they do not fit."""

import math
import os
import shutil
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fairsweep.config import ConfigError
from fairsweep.training.memory import free_memory

# Of the free memory, what examples may take; the rest is for models and what they compute.
SHARE = 0.8
# Examples that are copied at once.
PIECE = 4096

Array = NDArray[Any]


def empty(shape: tuple[int, ...], kind: DTypeLike) -> Array:
    """An array to be filled, all zeros; in a file if it does not fit main memory.

    Raises:
        ConfigError: it fits neither memory nor disk.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    return np.zeros(shape, kind) if size <= SHARE * free_memory() else mapped(shape, kind)


def mapped(shape: tuple[int, ...], kind: DTypeLike) -> Array:
    """An array of zeros in a file of TMPDIR that vanishes with the array, and with its process.

    Raises:
        ConfigError: the disk is full.
    """
    # Not Python's default: /tmp is kept in memory on many systems.
    folder = os.environ.get("TMPDIR") or "/var/tmp"
    size = math.prod(shape) * np.dtype(kind).itemsize
    try:
        left = shutil.disk_usage(folder).free
        if size > left:
            raise ConfigError(
                f"data: {shape[0]:,} examples of {shape[1:]} take {size / 1e9:,.1f} GB, more than the free "
                f"memory, and than the {left / 1e9:,.1f} GB that are free in {folder}; make them smaller, or "
                "set TMPDIR to a larger disk"
            )
        with tempfile.TemporaryFile(dir=folder, prefix="fairsweep-") as file:
            file.truncate(max(1, size))
            return np.memmap(file, kind, "r+", shape=shape)
    except OSError as error:
        raise ConfigError(f"data: no file for examples in TMPDIR={folder}: {error.strerror}") from error


def copied(array: Array, kind: DTypeLike) -> Array:
    """A copy of this type; see `empty`."""
    made = empty(array.shape, kind)
    with np.errstate(over="ignore"):  # overflows become inf, which `Source.check` reports
        for start in range(0, len(array), PIECE):
            made[start : start + PIECE] = array[start : start + PIECE]
    return made


def picked(array: Array, indices: NDArray[np.int64]) -> Array:
    """A copy of these examples; see `empty`."""
    made = empty((len(indices), *array.shape[1:]), array.dtype)
    for start in range(0, len(indices), PIECE):
        made[start : start + PIECE] = array[indices[start : start + PIECE]]
    return made


def on_disk(array: Array) -> Array:
    """A copy in a mapped file."""
    made = mapped(array.shape, array.dtype)
    made[:] = array
    return made
