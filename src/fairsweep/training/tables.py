"""Arrays and tables in files, read as NumPy arrays, without torch."""

import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairsweep.config import ConfigError, nearest
from fairsweep.training.sources import existing, is_table

if TYPE_CHECKING:
    import pandas as pd

# What the arrays of an .npz are called, if the configuration does not say.
INPUTS, TARGETS = ("inputs", "x"), ("targets", "y")

# More classes than this, of fewer than ten examples each, are probably no classes.
MANY_CLASSES = 30

Columns = str | Sequence[str] | None


class Content(NamedTuple):
    """What a file holds: inputs (N, ...) and targets (N,) or (N, T).

    features, names: of the columns of inputs and of targets, in a table.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    features: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def read(key: str, file: str, targets_file: str | None, inputs: Columns, target: Columns) -> Content:
    """The inputs and targets in an .npz, a .csv or a .parquet file, or in two .npy files.

    Args:
        key: the entry that names the file.
        targets_file: of an .npy of inputs.
        inputs, target: the names of the two arrays in an .npz, or of columns in a table; None: for inputs,
            all columns but the targets.

    Raises:
        ConfigError: it cannot be read, or has no such array or column.
    """
    where = f"{key}={file}"
    path = existing(where, file)
    if is_table(path):
        frame = read_frame(where, path)
        targets, names = target_columns(where, frame, target)
        values, features = feature_columns(where, frame, inputs, names)
        return Content(values, targets, features, names)
    if path.suffix.lower() == ".npz":
        first, second = (name_of(given, what) for given, what in ((inputs, "inputs"), (target, "target")))
        return Content(
            read_array(where, path, "data.inputs", (first,) if first else INPUTS),
            read_array(where, path, "data.target", (second,) if second else TARGETS),
        )
    return Content(read_npy(where, path), read_npy(*of_targets(key, file, targets_file)))


def of_targets(key: str, file: str, targets_file: str | None) -> tuple[str, Path]:
    """The .npy of targets that belongs to one of inputs, and what to call it."""
    other = key.replace("file", "targets_file")
    if targets_file is None:
        raise ConfigError(f"{key}={file}: an .npy has one array; set {other}, too")
    where = f"{other}={targets_file}"
    path = existing(where, targets_file)
    if path.suffix.lower() != ".npy":
        raise ConfigError(f"{where}: must be an .npy file")
    return where, path


def name_of(given: Columns, what: str) -> str | None:
    """The one name of an array."""
    if given is None or isinstance(given, str):
        return given
    raise ConfigError(f"data.{what}={list(given)}: must be one name, of an array in the .npz")


def read_npy(where: str, path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"{where}: {reason(error)}") from error
    return array


def read_array(where: str, path: Path, key: str, names: Sequence[str]) -> NDArray[Any]:
    """The first of these arrays that an .npz has."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            known = [*archive.files]
            name = next((name for name in names if name in known), None)
            if name is None:
                wanted = " or ".join(names)
                raise ConfigError(
                    f"{where}: has no array {wanted}, but {', '.join(known) or 'none at all'}; "
                    f"name it with {key}=...{nearest(names[0], known)}"
                )
            array: NDArray[Any] = archive[name]
    except ConfigError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"{where}: {reason(error)}") from error
    return array


def reason(error: Exception) -> str:
    """Why numpy could not read a file."""
    if "pickle" in str(error) or "Python objects" in str(error):
        return (
            "has pickled objects, or is no NumPy file; pickles can run code and are not read: "
            "save arrays of numbers, not of objects"
        )
    return f"cannot be read: {' '.join(str(error).split())}"


def read_frame(where: str, path: Path, columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """A table, or some of its columns.

    Raises:
        ConfigError: it cannot be read.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path, usecols=columns)
        return pd.read_parquet(path, columns=columns)
    except (ValueError, OSError, ImportError) as error:
        raise ConfigError(f"{where}: cannot be read: {' '.join(str(error).split())}") from error


def listed(columns: Columns) -> list[str]:
    return [] if columns is None else [columns] if isinstance(columns, str) else [*columns]


def check_columns(where: str, key: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: a column is not there.
    """
    for name in wanted:
        if name not in known:
            some = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise ConfigError(
                f"{key}={name}: {where} has no column {name!r}{nearest(name, known)} (columns: {some})"
            )


def target_columns(
    where: str, frame: "pd.DataFrame", target: Columns
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The targets of a table, as texts, or as numbers where they are, and their names."""
    from pandas.api import types

    names, known = listed(target), [str(name) for name in frame.columns]
    if not names:
        raise ConfigError(
            f"data.target=null: name the column, or columns, of {where} to learn: {', '.join(known)}"
        )
    check_columns(where, "data.target", names, known)
    columns = frame.set_axis(known, axis=1)[names]
    if missing := int(columns.isna().to_numpy().sum()):
        row, column = np.argwhere(columns.isna().to_numpy())[0]
        raise ConfigError(
            f"{where}: {missing:,} of {columns.size:,} targets are missing or NaN, the first in row {row}, "
            f"column {names[column]!r} (counted from 0); remove those rows, or fill them in"
        )
    are_numbers = all(
        types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind) for kind in columns.dtypes
    )
    are_whole = all(types.is_integer_dtype(kind) for kind in columns.dtypes)
    values = (
        columns.to_numpy(dtype=np.int64 if are_whole else np.float64)  # pandas' own types are objects
        if are_numbers
        else columns.astype(str).to_numpy(dtype=str)
    )
    return (values[:, 0] if len(names) == 1 else values), tuple(names)


def feature_columns(
    where: str, frame: "pd.DataFrame", inputs: Columns, targets: Sequence[str], key: str = "data.inputs"
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The features of a table, float32 (N, F), and their names."""
    from pandas.api import types

    known = [str(name) for name in frame.columns]
    # Columns without a name are an index that pandas saved along: it may tell the target.
    named = [name for name in known if name not in targets and not name.startswith("Unnamed: ")]
    names = listed(inputs) or named
    check_columns(where, key, names, known)
    if both := sorted({*names} & {*targets}):
        raise ConfigError(f"data.inputs={', '.join(both)}: is a target; what is learned cannot be a feature")
    columns = frame.set_axis(known, axis=1)[names]
    if others := [name for name, kind in columns.dtypes.items() if not types.is_numeric_dtype(kind)]:
        numbers = ",".join(name for name in names if name not in others)
        raise ConfigError(
            f"{where}: {', '.join(map(str, others[:5]))}{', ...' * (len(others) > 5)} "
            f"{'is' if len(others) == 1 else 'are'} not numeric; encode, or exclude"
            + (f" with 'data.inputs=[{numbers}]'" if key == "data.inputs" else "")
        )
    return columns.to_numpy(dtype=np.float32, na_value=np.nan), tuple(names)


def decide(declared: str, targets: NDArray[Any]) -> str:
    """What is learned: `classification` of integers or texts, `regression` of floats, unless declared.

    Raises:
        ConfigError: targets of a type that fits no task, or not the declared one.
    """
    if targets.ndim == 0:
        raise ConfigError("data: the targets are a single value; must be (N,) or (N, T)")
    kind, count = targets.dtype.kind, targets.shape[1] if targets.ndim == 2 else 1
    if kind not in "iubfU":
        raise ConfigError(
            f"data: targets of type {targets.dtype}; must be integers or texts (classes), or floats (numbers)"
        )
    if declared == "regression" and kind == "U":
        raise ConfigError("data.task=regression: the targets are texts; must be numbers")
    if declared == "auto":
        declared = "regression" if kind == "f" else "classification"
        values = len(np.unique(targets)) if declared == "classification" and count == 1 else 0
        if values > max(MANY_CLASSES, len(targets) / 10):
            raise ConfigError(
                f"data.task=auto: the targets have {values:,} distinct values in {len(targets):,} examples; "
                "if they are numbers, set data.task=regression; if classes, data.task=classification"
            )
        if declared == "classification" and count > 1:
            raise ConfigError(
                f"data: {count} targets for each example, of type {targets.dtype}; several must be numbers: "
                "set data.task=regression, or give one class for each example"
            )
    return declared


def task_of(node: Mapping[str, Any]) -> str:
    """What is learned from a file where that is not declared, by its targets alone.

    Args:
        node: `data` of a configuration.
    """
    where = f"data.file={node['file']}"
    path = existing(where, node["file"])
    if path.suffix.lower() == ".npy":
        where, path = of_targets("data.file", node["file"], node["targets_file"])
    stat = path.stat()
    return task_of_version(where, path, tuple(listed(node["target"])), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def task_of_version(where: str, path: Path, target: tuple[str, ...], _size: int, _time: int) -> str:
    if is_table(path):
        frame = read_frame(where, path)
        return decide("auto", target_columns(where, frame, target)[0])
    if path.suffix.lower() == ".npz":
        return decide("auto", read_array(where, path, "data.target", target or TARGETS))
    return decide("auto", read_npy(where, path))
