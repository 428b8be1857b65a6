"""What is in a data set, as tables for the terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from fairsweep.training.dataset import Data
from fairsweep.wording import printable

# Columns of a table beyond these are only counted.
MOST_COLUMNS = 30


def headline(data: Data) -> str:
    """What the examples are, and what is learned of them."""
    size = " x ".join(map(str, data.shape))
    examples = f"images of {size}" if len(data.shape) == 3 else f"rows of {size} features"
    is_of_classes = data.task == "classification"
    learned = f"{data.outputs} classes" if is_of_classes else f"learn {', '.join(data.target_names)}"
    return f"{data.name}: {examples}, {learned}"


def tables(data: Data) -> Iterator[Table]:
    """Examples per split and class; mean and range of numbers."""
    yield class_counts(data) if data.task == "classification" else counts(data)
    if len(data.shape) == 1 or data.task == "regression":
        yield column_statistics(data)


def class_counts(data: Data) -> Table:
    """The number of images per class and split."""
    table = Table("class", show_footer=True)
    table.columns[0].footer = "all"
    columns = []
    for name in ("train", "val", "test"):
        counts = getattr(data, name).targets.bincount(minlength=len(data.classes)).tolist()
        columns.append([f"{count:,}" for count in counts])
        table.add_column(name, f"{sum(counts):,}", justify="right")
    for name, *counts in zip(data.classes, *columns, strict=True):
        table.add_row(Text(printable(name)), *counts)
    return table


def counts(data: Data) -> Table:
    """The number of examples per split."""
    table = Table("train", "val", "test")
    table.add_row(*(f"{len(getattr(data, name)):,}" for name in ("train", "val", "test")))
    return table


def column_statistics(data: Data) -> Table:
    """Mean, deviation, least and largest value of targets and features over training."""
    table = Table("training data")
    for name in ("mean", "deviation", "least", "largest"):
        table.add_column(name, justify="right")
    parts = [(data.target_names, data.train.targets)] if data.target_names else []
    if len(data.shape) == 1:
        names = data.feature_names or tuple(f"feature {index}" for index in range(data.shape[0]))
        parts.append((names, data.train.inputs))
    for names, values in parts:
        for name, column in list(zip(names, values.double().unbind(1), strict=True))[:MOST_COLUMNS]:
            figures = (column.mean(), column.std(correction=0), column.min(), column.max())
            table.add_row(Text(printable(name)), *(f"{float(figure):.6g}" for figure in figures))
        if len(names) > MOST_COLUMNS:
            table.add_row(f"and {len(names) - MOST_COLUMNS} more")
    return table
