"""A recorded run as a classifier: of its own test images, and of pictures from anywhere."""

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
from fairsweep.training.dataset import Split
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
    """The class a network gives an image; `image` is uint8 (C, H, W), as the network saw it.

    unlike: how the image differs from the training images.
    """

    name: str
    image: Tensor
    label: str
    probability: float
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
    """The test images of a run.

    Raises:
        ConfigError: the data are missing, or have changed since the run.
    """
    data = build.data(folder.config())
    if data.fingerprint != folder.facts()["fingerprint"]:
        raise ConfigError(f"run {folder.signature}: its data ({data.name}) have changed since it was trained")
    return data.test


def classify(folder: RunFolder, wanted: range | Sequence[Path]) -> list[Prediction]:
    """Classify test images by their numbers, or image files, in the order given.

    Raises:
        ConfigError: a number is out of range, a file cannot be read, the run has no weights.
    """
    facts = folder.facts()
    classes = facts["classes"]
    if isinstance(wanted, range):
        split = test_split(folder)
        if wanted[-1] >= len(split):
            most = f"must be at most test:{len(split) - 1}" if len(split) else "this run has no test images"
            raise ConfigError(f"input=test:{wanted[-1]}: {most}")
        names = [f"test:{number}" for number in wanted]
        images = split.inputs[list(wanted)]
        truth: list[str | None] = [classes[label] for label in split.targets[list(wanted)]]
        unlike: list[tuple[str, ...]] = [()] * len(wanted)
    else:
        names = [str(path) for path in wanted]
        pixels, unlike = map(list, zip(*(read(path, facts) for path in wanted), strict=True))
        images = torch.stack([torch.from_numpy(image) for image in pixels])
        truth = [None] * len(wanted)
    best, labels = outputs(predictor(folder), images).max(1)
    known = zip(truth, unlike, strict=True)
    rows = zip(names, images, labels.tolist(), best.tolist(), known, strict=True)
    return [
        Prediction(name, image, classes[label], probability, *more)
        for name, image, label, probability, more in rows
    ]


def table(results: Sequence[Prediction]) -> str:
    """One aligned line for each image: name, label, probability and, where known, the true label."""
    names = [printable(result.name) for result in results]
    labels = [printable(result.label) for result in results]
    name_width, label_width = max(map(len, names)), max(map(len, labels))
    lines = []
    for name, label, result in zip(names, labels, results, strict=True):
        true = result.true
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
