"""What a user's own function returns, brought to the form of a `Source`."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from fairsweep.config import ConfigError
from fairsweep.training import storage
from fairsweep.training.arrays import source_of
from fairsweep.training.source import Source, described
from fairsweep.training.tables import Content

FORMS = (
    "training data, (training, test), or a dict of train, test and classes; each a pair (inputs, targets) of "
    "arrays or tensors, or a map-style Dataset"
)

# Items of a data set, evenly spaced, that are read twice, to see whether its transforms are random.
TRIED = 100


@contextmanager
def as_if_alone() -> Iterator[None]:
    """Inside, global random generators are seeded by 0, and afterwards as they were before."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002


def seed(number: int) -> None:
    """Seed the global random generators of the CPU that a data set may use."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the user's function may use it


def as_source(made: Any, task: str) -> Source:
    """The data set that a user's function returned.

    Raises:
        ConfigError: it is none of the forms that there are, its transforms are random, or neither memory
            nor disk holds it.
    """
    if isinstance(made, Source):
        return made
    classes = getattr(made, "classes", None)
    if isinstance(made, Mapping):
        if made.keys() - {"train", "test", "classes"} or made.get("train") is None:
            raise ConfigError(
                f"data: the function returned a dict of {', '.join(map(str, made))}; must be {FORMS}"
            )
        train, test, classes = made["train"], made.get("test"), made.get("classes")
    elif isinstance(made, tuple | list) and len(made) == 2 and all(map(is_split, made)):
        train, test = made
    else:
        train, test = made, None
    if classes is None and is_dataset(train):
        classes = getattr(train, "classes", None)
    content = as_content("training", train)
    names = [str(name) for name in classes] if isinstance(classes, list | tuple | np.ndarray) else None
    return source_of(content, None if test is None else as_content("test", test), task, names)


def is_dataset(made: Any) -> TypeGuard[Dataset[Any]]:
    return isinstance(made, Dataset)


def is_split(made: Any) -> bool:
    """Whether something is a pair of arrays, or a data set."""
    return is_dataset(made) or (
        isinstance(made, tuple | list) and len(made) == 2 and all(map(is_array, made))
    )


def is_array(made: Any) -> bool:
    return isinstance(made, np.ndarray | Tensor) or hasattr(made, "to_numpy")


def as_content(name: str, made: Any) -> Content:
    """A split as arrays."""
    if not is_split(made):
        raise ConfigError(f"data: the function returned {shown(made)} as {name} data; must be {FORMS}")
    if is_dataset(made):
        return read(name, made)
    inputs, targets = made
    features = tuple(map(str, getattr(inputs, "columns", ())))
    names = tuple(map(str, getattr(targets, "columns", ())))
    return Content(array(inputs), array(targets), features, names)


def shown(made: Any) -> str:
    """A value's type, and those inside of it."""
    if isinstance(made, tuple | list):
        return f"a {type(made).__name__} of {', '.join(described(one) for one in made[:3])}"
    return f"{type(made).__name__}"


def array(values: Any) -> NDArray[Any]:
    """Values as an array, on the host."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)


def read(name: str, dataset: Dataset[Any]) -> Content:
    """Every item of a map-style data set, in order, with its transforms applied.

    Raises:
        ConfigError: it cannot be read, its transforms are random, its items differ in their shapes, or
            neither memory nor disk holds them.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ConfigError(f"data: {name} data are an iterable Dataset; must be map-style, with a length")
    count = len(dataset)
    if not count:
        raise ConfigError(f"data: {name} data are an empty Dataset")
    check_deterministic(name, dataset, count)
    first, target = item(name, dataset, 0)
    inputs = storage.empty((count, *first.shape), first.dtype)
    targets = []
    console = Console(stderr=True)
    what = f"reading {name} data"
    for index in track(range(count), what, console=console, transient=True, disable=not console.is_terminal):
        values, target = item(name, dataset, index)
        if values.shape != first.shape or values.dtype != first.dtype:
            raise ConfigError(
                f"data: item {index} of {name} is {described(values)}, item 0 {described(first)}; must be "
                "the same for all, e.g. by a Resize in the data set's transforms"
            )
        inputs[index] = values
        targets.append(target)
    try:
        return Content(inputs, np.stack(targets))
    except ValueError as error:
        raise ConfigError(f"data: {name} targets differ in their shapes: {error}") from error


def item(name: str, dataset: Dataset[Any], index: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The input and the target of one item."""
    try:
        found = dataset[index]
    except Exception as error:  # of the user's own code
        raise ConfigError(
            f"data: item {index} of {name} cannot be read: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ConfigError(f"data: item {index} of {name} is {shown(found)}; must be a pair (input, target)")
    values, target = found
    if isinstance(values, Image.Image):
        if values.mode not in ("L", "RGB"):
            raise ConfigError(
                f"data: item {index} of {name} is an image of mode {values.mode}; convert it to L or RGB"
            )
        values = np.asarray(values)
    if not isinstance(values, Tensor | np.ndarray | np.number | int | float):
        raise ConfigError(
            f"data: the input of item {index} of {name} is {shown(values)}; must be an array or an image"
        )
    return array(values), array(target)


def check_deterministic(name: str, dataset: Dataset[Any], count: int) -> None:
    """Read some items twice, with other random numbers.

    Raises:
        ConfigError: they differ.
    """
    indices = range(0, count, max(1, count // TRIED))
    readings = []
    for number in (1, 2):
        seed(number)
        readings.append([item(name, dataset, index) for index in indices])
    seed(0)
    for index, first, second in zip(indices, *readings, strict=True):
        if not all(map(is_same, first, second)):
            raise ConfigError(
                f"data: {name} item {index} changes each time it is read: the data set has random "
                "transforms, but is read once; remove them, and use data.augment"
            )


def is_same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether arrays are equal, with NaN equal to NaN."""
    return first.shape == second.shape and first.tobytes() == second.tobytes()
