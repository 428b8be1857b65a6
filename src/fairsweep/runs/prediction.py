"""What a recorded run predicts: for its own test data, and for pictures and tables from anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.models import Predictor
from fairsweep.runs import checkpoint
from fairsweep.runs.folder import RunFolder
from fairsweep.training import build, images
from fairsweep.training.source import Split, check_finite
from fairsweep.training.sources import is_table
from fairsweep.training.tables import feature_columns, read_frame
from fairsweep.wording import printable

Pixels = NDArray[np.uint8]

BATCH = 500

# Content with at least this share of the frame fills it: nothing is cropped.
FILLS_FRAME = 0.95

# Mean difference of the channels of an image (of 255), and of the means of the training images, with colours.
COLOURED, COLOURED_TRAINING = 24, 0.01

# A smaller share of border pixels near their median is an uneven background.
EVEN_BORDER = 0.5


class Prediction(NamedTuple):
    """What a network says of an input.

    image: uint8 (C, H, W), as the network saw it; None of features.
    label: the class, or the numbers.
    probability: of the class; None of numbers.
    unlike: how an image differs from the training images.
    """

    name: str
    image: Tensor | None
    label: str
    probability: float | None
    true: str | None
    unlike: tuple[str, ...] = ()


def predictor(folder: RunFolder) -> Predictor:
    """The tested weights of a run, on the CPU, ready to predict.

    Raises:
        ConfigError: the weights were not kept, are damaged, or are another model's.
    """
    weights = checkpoint.tested_weights(folder)
    try:
        return build.predictor(folder.config(), folder.facts(), weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{folder.path}: its weights no longer fit its model "
            f"({' '.join(str(error).split())}); train it again"
        ) from error


@torch.inference_mode()
def outputs(predictor: Predictor, inputs: Tensor) -> Tensor:
    """Probabilities (N, classes), or numbers (N, targets), of inputs as they are stored (see `Split`)."""
    layout = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
    batches = (batch.to(torch.float32, memory_format=layout) for batch in torch.split(inputs, BATCH))
    return torch.cat([predictor(batch) for batch in batches])


def test_split(folder: RunFolder) -> Split:
    """The test data of a run.

    Raises:
        ConfigError: the data are missing, or have changed since the run.
    """
    data = build.data(folder.config())
    if data.fingerprint != folder.facts()["fingerprint"]:
        raise ConfigError(f"run {folder.signature}: its data ({data.name}) have changed since it was trained")
    return data.test


def classify(folder: RunFolder, wanted: range | Sequence[Path]) -> list[Prediction]:
    """Predict for test data by their numbers, for image files, or for the rows of tables, in the order given.

    Raises:
        ConfigError: a number is out of range, a file cannot be read or does not suit the run, the run has no
            weights.
    """
    facts = folder.facts()
    truth: Sequence[str | None]
    if isinstance(wanted, range):
        split = test_split(folder)
        if wanted[-1] >= len(split):
            most = f"must be at most test:{len(split) - 1}" if len(split) else "this run has no test data"
            raise ConfigError(f"input=test:{wanted[-1]}: {most}")
        names = [f"test:{number}" for number in wanted]
        inputs = split.inputs[list(wanted)]
        truth = in_words(split.targets[list(wanted)], facts)
        unlike: Sequence[tuple[str, ...]] = [()] * len(wanted)
    else:
        names, inputs, unlike = read_files(wanted, facts)
        truth = [None] * len(names)
    found = outputs(predictor(folder), inputs)
    best, labels = found.max(1)
    is_regression = "targets" in facts
    said = in_words(found if is_regression else labels, facts)
    shares = [None] * len(names) if is_regression else best.tolist()
    images = as_pictures(inputs) if inputs.ndim == 4 else [None] * len(names)
    return [Prediction(*row) for row in zip(names, images, said, shares, truth, unlike, strict=True)]


def in_words(targets: Tensor, facts: Mapping[str, Any]) -> list[str]:
    """Targets (N,) as names of classes, or (N, T) as numbers: `3.14`; of several, `width 3.14, height 2`."""
    if "targets" not in facts:
        return [facts["classes"][label] for label in targets.tolist()]
    names = facts["targets"]
    if len(names) == 1:
        return [f"{value:.6g}" for value in targets[:, 0].tolist()]
    return [
        ", ".join(f"{name} {value:.6g}" for name, value in zip(names, row, strict=True))
        for row in targets.tolist()
    ]


def read_files(
    paths: Sequence[Path], facts: Mapping[str, Any]
) -> tuple[list[str], Tensor, list[tuple[str, ...]]]:
    """The names, the inputs and the differences from training of image files, or of the rows of tables."""
    if len(facts["shape"]) == 1:
        tables = [read_rows(path, facts) for path in paths]
        names = [
            f"{path}:{row}" for path, rows in zip(paths, tables, strict=True) for row in range(len(rows))
        ]
        return names, torch.cat(tables), [()] * len(names)
    if facts.get("dtype") == "float32":
        raise ConfigError(
            f"input={paths[0]}: this run was trained on images of floats, whose scale no file has; use test:N"
        )
    if is_table(paths[0]):
        raise ConfigError(f"input={paths[0]}: this run was trained on images; give images, or test:N")
    pixels, unlike = map(list, zip(*(read(path, facts) for path in paths), strict=True))
    images = torch.stack([torch.from_numpy(image) for image in pixels])
    return [str(path) for path in paths], images, unlike


def read_rows(path: Path, facts: Mapping[str, Any]) -> Tensor:
    """The features in a table, float32 (N, F): the columns of the run's names, or all if they had none."""
    where, count = f"input={path}", facts["shape"][0]
    if not is_table(path):
        raise ConfigError(
            f"{where}: this run was trained on {count} features; give a .csv, a .parquet or test:N"
        )
    values, names = feature_columns(where, read_frame(where, path), facts["features"] or None, (), "input")
    if len(names) != count:
        raise ConfigError(f"{where}: has {len(names)} columns; must have the {count} features of this run")
    inputs = torch.from_numpy(values.copy())  # pandas may share its memory
    check_finite(where, inputs, names)
    return inputs


def as_pictures(inputs: Tensor) -> Tensor:
    """Images as uint8: floats from their least to their largest value."""
    if inputs.dtype == torch.uint8:
        return inputs
    low, high = inputs.min(), inputs.max()
    return ((inputs - low) * (255 / (high - low).clamp(min=1e-12))).round().to(torch.uint8)


def table(results: Sequence[Prediction]) -> str:
    """One aligned line for each input: name, label, probability or number and, where known, what is true."""
    names = [printable(result.name) for result in results]
    labels = [printable(result.label) for result in results]
    name_width, label_width = max(map(len, names)), max(map(len, labels))
    lines = []
    for name, label, result in zip(names, labels, results, strict=True):
        true = result.true
        if result.probability is None:
            verdict = f"  true: {printable(true)}" if true else ""
            lines.append(f"{name:<{name_width}}  {label:>{label_width}}{verdict}")
            continue
        verdict = "  correct" if true == result.label else f"  wrong: is {printable(true)}" if true else ""
        lines.append(f"{name:<{name_width}}  {label:<{label_width}}  {result.probability:7.2%}{verdict}")
    return "\n".join(lines)


def notes(results: Sequence[Prediction]) -> list[str]:
    """How images differ from the training images, each once, with how many images and the first one."""
    names: dict[str, list[str]] = {}
    for result in results:
        for difference in result.unlike:
            names.setdefault(difference, []).append(printable(Path(result.name).name))
    if len(results) == 1:
        return [*names]
    return [
        f"{len(some)} of {len(results)} images ({some[0]}{', ...' * (len(some) > 1)}): {difference}"
        for difference, some in names.items()
    ]


def read(path: Path, facts: Mapping[str, Any]) -> tuple[Pixels, tuple[str, ...]]:
    """An image file in the form of the training images, uint8 (C, H, W), and how it differed from them.

    Raises:
        ConfigError: the file cannot be read.
    """
    channels, height, width = facts["shape"]
    try:
        stored = images.load(path)
        image = images.as_bytes(stored, channels, facts.get("full_scales", images.UNRECORDED))
    except Exception as error:  # decoders raise much besides OSError over a broken file
        raise ConfigError(f"input: {path} is not a readable image: {images.reason(error)}") from error
    if channels == 1 and is_flat(image) and stored.image.has_transparency_data:
        # The picture is in its transparency alone, such as white ink on nothing; light on dark.
        image = stored.image.convert("RGBA").getchannel("A")
    unlike = tuple(differences(stored.image, image, facts))
    if channels == 1 and facts["background"] in ("dark", "light"):
        image = like_training(image, facts)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1).copy(), unlike


def differences(stored: Image.Image, image: Image.Image, facts: Mapping[str, Any]) -> Iterator[str]:
    """How an image file, as `stored` and as 8-bit `image`, differs from the training images."""
    channels, height, width = facts["shape"]
    colours = np.asarray(stored.convert("RGB").resize((64, 64)), np.int16)
    is_coloured = np.ptp(colours, axis=2).mean() > COLOURED
    if is_coloured and channels == 1:
        yield "in colour, but trained on grey images; the colours were dropped"
    if not is_coloured and np.ptp(facts["mean"]) > COLOURED_TRAINING:
        yield "grey, but trained on images in colour"
    if 2 * image.width < width or 2 * image.height < height:
        yield f"only {image.width} x {image.height} pixels, but trained on {width} x {height}; enlarged"
    if facts["background"] not in ("dark", "light"):
        return
    grey = image.convert("L")
    difference, distance, threshold = against_background(grey)
    content = distance > threshold
    edge = np.concatenate([distance[0], distance[-1], distance[:, 0], distance[:, -1]])
    if not content.any() or is_flat(grey):
        yield "blank: nothing stands out from its background"
    elif (edge <= 32).mean() < EVEN_BORDER:
        yield f"an uneven background, but trained on images with a plain {facts['background']} one"
    elif (background := "light" if difference[content].sum() < 0 else "dark") != facts["background"]:
        change = "inverted" if channels == 1 else "not inverted, the label may be wrong"
        yield f"a {background} background, but trained on images with a {facts['background']} one; {change}"


def against_background(
    grey: Image.Image,
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """How much brighter pixels are than the border's median, by sign and size; the size of content.

    The picture is slightly blurred first, against noise; the threshold is Otsu's.
    """
    blurred = grey.filter(ImageFilter.GaussianBlur(max(grey.size) / 200))
    difference = np.asarray(blurred, np.float32) - border_level(grey)
    distance = np.abs(difference)
    return difference, distance, otsu(distance)


def border_level(grey: Image.Image) -> float:
    pixels = np.asarray(grey)
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def is_flat(image: Image.Image) -> bool:
    low, high = np.asarray(image).min(), np.asarray(image).max()
    return bool(high - low < 16)


def like_training(image: Image.Image, facts: Mapping[str, Any]) -> Image.Image:
    """A grey picture with the background of the training images, and its content placed like theirs.

    The background is the median of the picture's border; content is what differs from it by more than
    Otsu's threshold, after a slight blur against noise. Where the content of the training images does not
    fill their frame (`extent`), as with handwriting, the content here is cut out, freed of background,
    scaled so that its longer side has the same share of the frame, brought to full contrast, and placed
    like theirs: by its centre of mass or the centre of its box (`centre`).
    """
    grey, level = np.asarray(image, np.float32), border_level(image)
    difference, distance, threshold = against_background(image)
    content = distance > threshold
    if not content.any():
        return Image.new("L", image.size, 0 if facts["background"] == "dark" else 255)
    light = difference[content].sum() < 0
    if facts["extent"] >= FILLS_FRAME:
        return ImageOps.invert(image) if light != (facts["background"] == "light") else image
    ink = ((level - grey) if light else (grey - level)).clip(0)
    ink[distance <= threshold / 2] = 0
    rows, columns = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    framed = place(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], facts)
    return Image.fromarray(framed if facts["background"] == "dark" else 255 - framed)


def place(ink: NDArray[np.float32], facts: Mapping[str, Any]) -> Pixels:
    """Ink, light on 0, of any size, in a frame (H, W) as the training images have theirs."""
    _, height, width = facts["shape"]
    scale = facts["extent"] * max(height, width) / max(ink.shape)
    h, w = (
        min(limit, max(1, round(side * scale)))
        for side, limit in zip(ink.shape, (height, width), strict=True)
    )
    small = np.asarray(Image.fromarray(ink).resize((w, h), Image.Resampling.BICUBIC)).clip(0)
    small = small * (255 / max(small.max(), 1e-6))
    centre = facts["centre"]
    y, x = h / 2, w / 2
    if centre["of"] == "mass":
        y = float(small.sum(1) @ (np.arange(h) + 0.5) / small.sum())
        x = float(small.sum(0) @ (np.arange(w) + 0.5) / small.sum())
    top = min(max(0, round(centre["at"][0] * height - y)), height - h)
    left = min(max(0, round(centre["at"][1] * width - x)), width - w)
    frame = np.zeros((height, width), np.uint8)
    frame[top : top + h, left : left + w] = small.round()
    return frame


def otsu(values: NDArray[np.float32]) -> float:
    """The threshold that splits values from 0 to 255 into the two groups with the least variance within."""
    counts, edges = np.histogram(values, 128, (0, 255))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum(), (counts * middles).cumsum()
    above = (below[-1] - below).clip(1)
    gap = sums / below.clip(1) - (sums[-1] - sums) / above
    return float(edges[1:][(below * (below[-1] - below) * gap**2).argmax()])
