"""Pictures of finished records, of samples and of predictions. The only importer of matplotlib.

Figures are matplotlib objects without pyplot, so nothing is global and no display is needed.
"""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from omegaconf import DictConfig
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.files import write_atomically
from fairsweep.look import INK, LOOK
from fairsweep.metrics import ACCURACY, LOSS, Metric, metric_of
from fairsweep.runs import checkpoint, prediction
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.prediction import Prediction
from fairsweep.runs.progress import tested
from fairsweep.runs.status import Status
from fairsweep.training.dataset import Data
from fairsweep.training.source import Split
from fairsweep.wording import printable

FONT = "DejaVu Sans"  # comes with matplotlib
STYLE: Any = LOOK | {"figure.dpi": 130, "font.family": FONT, "font.size": 10}
TRAIN, TRAIN_LIGHT, VAL, TEST = "#4c8dc4", "#c6dcee", "#d1495b", "#5c946e"
RIGHT, WRONG = "#2e7d4f", "#c62f3b"

WORST = 32
SAMPLES = 96
PREDICTIONS = 96
COLUMNS = 12
MOST_PANELS = 4

# With this many classes, counts in the cells of a confusion matrix would be too small to read.
MANY_CLASSES = 25


def draw(folder: RunFolder) -> list[Path]:
    """Make the pictures of a recorded run, from the record alone; the files written.

    Without kept weights or test images, there are only the curves.

    Raises:
        ConfigError: the data are missing or have changed, or the weights are lost or damaged.
    """
    figures = {"curves.png": curves(folder.journal(), folder.status(), folder.config())}
    if checkpoint.stay(folder) and len(split := prediction.test_split(folder)):
        facts = folder.facts()
        outputs = prediction.outputs(prediction.predictor(folder), split.inputs)
        if "targets" in facts:
            figures["predicted.png"] = predicted(split.targets, outputs, facts["targets"])
            figures["worst.png"] = largest_errors(split, outputs, facts)
        else:
            figures["confusion.png"] = confusion(split.targets, outputs.argmax(1), facts["classes"])
            figures["worst.png"] = worst(split, outputs, facts["classes"])
    folder.pictures.mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_atomically(folder.pictures / name, png(figure))
    return [folder.pictures / name for name in figures]


def save(figure: Figure, path: Path) -> None:
    """Write a picture to the file that `output` names.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png(figure))
    except OSError as error:
        raise ConfigError(f"output={path}: cannot be written: {error.strerror}") from error


def png(figure: Figure) -> bytes:
    texts = [item for item in figure.findobj(Text) if isinstance(item, Text)]
    used = {font_with(char) for text in texts for char in text.get_text()} - {None, FONT}
    for text in texts if used else ():
        text.set_fontfamily([FONT, *sorted(filter(None, used))])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@matplotlib.rc_context(STYLE)
def curves(journal: list[dict[str, float]], status: Status, cfg: DictConfig) -> Figure:
    """Loss and another metric against the epoch, in training, in validation and, if journaled, in test.

    The other is the objective; where the loss is, what judges, or the first that there is.
    """
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    optimizer = str(cfg.optimizer._target_).rpartition(".")[2]
    title = legible(
        f"{cfg.model.name} on {cfg.data.name}, {optimizer}, lr {cfg.optimizer.lr:g}, seed {cfg.seed}"
    )
    if status.test:
        title += f": test {tested(status)}"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    there = [key.removeprefix("val_") for line in journal for key in line if key.startswith("val_")]
    candidates = [status.selected.name, status.tested.name, *there, ACCURACY.name]
    other = metric_of(next(name for name in candidates if name != LOSS.name), status.metrics)
    loss, second = figure.subplots(1, 2)
    for axes, metric in ((loss, LOSS), (second, other)):
        panel(axes, journal, metric, status.best_epoch)
    scale_loss(loss)
    if other.unit == "%":
        scale_share(second, other.sign)
    elif other.sign < 0:
        scale_loss(second)
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def panel(axes: Axes, journal: list[dict[str, float]], metric: Metric, best: int | None) -> None:
    """The curves of a metric, with the `best` epoch marked."""
    what = metric.name
    axes.set_title(legible(metric.words))
    axes.set_xlabel("epoch")
    axes.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot(*series(journal, f"train_{what}"), color=TRAIN_LIGHT, lw=1, label="training, as it went")
    for key, label, color, width in (
        (f"epoch_train_{what}", "training, mean of the epoch", TRAIN, 1.6),
        (f"epoch_test_{what}", "test", TEST, 1.6),
        (f"val_{what}", "validation", VAL, 2.4),
    ):
        epochs, values = series(journal, key)
        if not epochs:
            continue
        marker = "o" if len(epochs) <= 25 else ""
        axes.plot(epochs, values, color=color, lw=width, marker=marker, ms=2 + width, label=label)
        if key == f"val_{what}" and best in epochs:
            value = values[epochs.index(best)]
            axes.plot(best, value, "o", ms=12, mfc="none", mec=INK, label=f"best epoch: {best}")


def scale_loss(axes: Axes) -> None:
    """Logarithmic if the loss falls to less than a third."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > 3 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def scale_share(axes: Axes, sign: int) -> None:
    """From a little beyond the worst epoch to the best there is: the steep start may leave the panel."""
    values = [sign * np.asarray(line.get_ydata(), float) for line in axes.get_lines()[1:]]
    best, end = (1.0, 0.0) if sign > 0 else (0.0, -1.0)
    lowest = float(min((np.min(some) for some in values if len(some)), default=end))
    margin = 0.15 * (best - lowest) + 0.002
    axes.set_ylim(*sorted((sign * max(end, lowest - margin), sign * (best + margin / 5))))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def series(journal: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    lines = [line for line in journal if line.get(key) is not None]
    return [line["epoch"] for line in lines], [line[key] for line in lines]


@matplotlib.rc_context(STYLE | {"axes.spines.right": True, "axes.spines.top": True})
def confusion(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> Figure:
    """Counts of (true, predicted) class; colours are shares of the true class."""
    size = len(classes)
    counts = (labels * size + predicted).bincount(minlength=size**2).view(size, size).numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    side = min(14.0, 2.5 + 0.5 * size)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    right, total = int(counts.trace()), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} test images correct: {right / total:.2%}", color=INK)
    # The root of the share, for a few errors in a thousand to be seen.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    figure.colorbar(image, shrink=0.8, format=PercentFormatter(1), label="share of the true class")
    ticks = range(0, size, math.ceil(size / 50))
    names = [shortened(classes[tick]) for tick in ticks]
    turned = max(map(len, names)) > 3
    axes.set_xticks(ticks, names, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size < MANY_CLASSES:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.4 else INK
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    return figure


def worst(split: Split, probabilities: Tensor, classes: Sequence[str]) -> Figure:
    """The examples with the highest cross-entropy: true class, predicted class, its probability."""
    # The loss is a function of this, and unlike the loss it is finite.
    of_truth = probabilities.gather(1, split.targets[:, None])[:, 0]
    order = of_truth.argsort(stable=True)[:WORST]
    best, predicted = probabilities[order].max(1)
    captions, right = [], []
    for label, guess, probability in zip(
        split.targets[order].tolist(), predicted.tolist(), best.tolist(), strict=True
    ):
        captions.append(verdict(classes[guess], probability, classes[label]))
        right.append(label == guess)
    title = (
        f"Highest loss of {len(split):,} test {noun(split.inputs)}: true → predicted, with its probability"
    )
    return gallery(split.inputs[order], order.tolist(), captions, title, right)


@matplotlib.rc_context(STYLE)
def predicted(targets: Tensor, outputs: Tensor, names: Sequence[str]) -> Figure:
    """Predicted against true values (N, T), a panel for each of the first targets."""
    count = min(len(names), MOST_PANELS)
    figure = Figure(figsize=(4.8 * count + 0.4, 4.8), layout="constrained")
    for column, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        true, found = targets[:, column].double().numpy(), outputs[:, column].double().numpy()
        error = found - true
        r2 = 1 - (error**2).sum() / max(((true - true.mean()) ** 2).sum(), 1e-300)
        rmse = (error**2).mean() ** 0.5
        axes.set_title(f"{shortened(names[column])}: R² {r2:.4f}, RMSE {rmse:.4g}", color=INK)
        low, high = (float(bound(np.concatenate([true, found]))) for bound in (np.min, np.max))
        axes.plot([low, high], [low, high], color="#999999", lw=1, zorder=1)
        axes.scatter(true, found, s=12, alpha=max(0.15, min(0.8, 200 / len(true))), color=VAL, lw=0, zorder=2)
        axes.set(xlabel="true", ylabel="predicted")
        axes.set_aspect("equal", "datalim")
        axes.grid(True)
    return figure


def largest_errors(split: Split, outputs: Tensor, facts: Mapping[str, Any]) -> Figure:
    """The examples with the largest squared error, in deviations of each target."""
    scale = torch.tensor(facts["target_std"])
    order = ((outputs - split.targets) / scale).square().sum(1).argsort(descending=True, stable=True)[:WORST]
    pairs = (prediction.in_words(values[order], facts) for values in (split.targets, outputs))
    captions = [f"{true} → {found}" for true, found in zip(*pairs, strict=True)]
    title = f"Largest errors of {len(split):,} test {noun(split.inputs)}: true → predicted"
    return gallery(split.inputs[order], order.tolist(), captions, title)


def noun(inputs: Tensor) -> str:
    """What examples are, in a sentence."""
    return "images" if inputs.ndim == 4 else "rows"


def gallery(
    inputs: Tensor,
    numbers: Sequence[int],
    captions: Sequence[str],
    title: str,
    right: Sequence[bool | None] | None = None,
) -> Figure:
    """Test examples with their captions: images as such, features as what `predict` calls them."""
    if inputs.ndim == 4:
        return grid(prediction.as_pictures(inputs), captions, title, columns=8, right=right)
    figure = Figure(figsize=(7.5, 0.7 + 0.24 * len(captions)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(0.15, 0, title, color=INK, fontsize=11)
    for line, (number, caption) in enumerate(zip(numbers, captions, strict=True)):
        color = {None: INK, True: RIGHT, False: WRONG}[None if right is None else right[line]]
        axes.text(0.15, line + 1.5, f"test:{number}", color=INK, fontsize=9)
        axes.text(1.4, line + 1.5, legible(" ".join(caption.split())), color=color, fontsize=9)
    axes.set(xlim=(0, 7.5), ylim=(len(captions) + 1.5, -1))
    return figure


def predictions(results: Sequence[Prediction]) -> Figure | None:
    """Images as the network saw them, each with what it says and what is true; None of features."""
    shown = [result for result in results[:PREDICTIONS] if result.image is not None]
    if not shown:
        return None
    title = "As the network saw them" + (
        f": the first {len(shown)} of {len(results):,}" if len(results) > len(shown) else ""
    )
    captions = []
    for result in shown:
        name = shortened(Path(result.name).name, 15)
        captions.append(f"{name}\n{verdict(result.label, result.probability, result.true)}")
    right = [
        None if result.true is None or result.probability is None else result.label == result.true
        for result in shown
    ]
    images = torch.stack([result.image for result in shown if result.image is not None])
    return grid(images, captions, title, columns=8, right=right)


def samples(data: Data) -> Figure:
    """Training images, equally many of each class; with up to 12 classes, each has its column."""
    images = prediction.as_pictures(data.train.inputs)
    if data.task == "regression":
        numbers = prediction.in_words(data.train.targets[:SAMPLES], data.facts())
        captions = [shortened(text, 16) for text in numbers]
        title = f"{legible(data.name)}: {len(captions)} of {len(data.train):,} training images"
        return grid(images[:SAMPLES], captions, title, COLUMNS)
    count = len(data.classes)
    columns = COLUMNS // count * count or COLUMNS
    of_class = [(data.train.targets == label).nonzero()[:, 0] for label in range(min(count, SAMPLES))]
    rounds = range(SAMPLES // columns * columns // len(of_class))
    order = [int(index[turn]) for turn in rounds for index in of_class if turn < len(index)]
    captions = [shortened(data.classes[label], 16) for label in data.train.targets[order].tolist()]
    title = f"{legible(data.name)}: {len(order)} of {len(data.train):,} training images"
    return grid(images[order], captions, title, columns)


def verdict(label: str, probability: float | None, true: str | None) -> str:
    """`true → label` and the probability, in two or three lines if they are long."""
    if probability is None:
        return label if true is None else f"{true} → {label}"
    label, true = shortened(label, 14), true and shortened(true, 14)
    if true is None:
        return f"{label}  {probability:.1%}"
    gap = " " if len(true) + len(label) < 12 else "\n"
    return f"{true}{gap}→ {label}\n{probability:.1%}"


def legible(text: str) -> str:
    """The text with `\\u4e2d` for a character that no font on this system has."""
    return "".join(
        char if char == "\n" or font_with(char) else char.encode("unicode_escape").decode()
        for char in printable(text)
    )


@cache
def font_with(char: str) -> str | None:
    """The family of a font on this system that has the character; matplotlib's own font first."""
    fonts = sorted(fontManager.ttflist, key=lambda font: (font.name != FONT, font.style != "normal"))
    # The last-resort font has a box for every character.
    names = (font.name for font in fonts if ord(char) in characters(font.fname, font.name))
    return next(names, None)


@cache
def characters(file: str, family: str) -> Collection[int]:
    return () if family.startswith("Last Resort") else FT2Font(file).get_charmap().keys()


def shortened(text: str, length: int = 20) -> str:
    """The text, without its middle if it is too long."""
    text, half = legible(text), length // 2
    return text if len(text) <= length else f"{text[: length - half - 1]}…{text[-half:]}"


@matplotlib.rc_context(STYLE)
def grid(
    images: Tensor,
    captions: Sequence[str],
    title: str,
    columns: int,
    right: Sequence[bool | None] | None = None,
) -> Figure:
    """Images, uint8 (N, C, H, W), each below its caption, whose colour says whether it is `right`."""
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    # In inches: a cell's image, the text above it, the gap; the title.
    side, text, head = 0.95, 0.16 * lines + 0.06, 0.45
    width, height = max(columns * (side + 0.15), 5.0) + 0.15, rows * (side + text) + head + 0.1
    figure = Figure(figsize=(width, height))
    # One for all images, in inches: one for each would take seconds.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(0.15, height - 0.12, title, va="top", color=INK, fontsize=11)
    colors = {None: INK, True: RIGHT, False: WRONG}
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left = 0.15 + column * (side + 0.15)
        bottom = height - head - (row + 1) * (side + text)
        pixels = image.permute(1, 2, 0).numpy()  # imshow wants (H, W, 3) or (H, W)
        axes.imshow(
            pixels if len(image) == 3 else pixels[:, :, 0],
            extent=(left, left + side, bottom, bottom + side),
            cmap="gray",
            vmin=0,
            vmax=255,
        )
        color = colors[None if right is None else right[index]]
        centre, top = left + side / 2, bottom + side + 0.03
        axes.text(centre, top, caption, ha="center", va="bottom", fontsize=8, color=color)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    return figure
