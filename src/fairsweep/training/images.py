"""Image files: which formats are read, and how values deeper than 8 bits become 8 bits."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from fairsweep.training import storage
from fairsweep.wording import counted

Pixels = NDArray[np.uint8]

# Pillow goes by content, not by name, and starts other programs for some formats: Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")

# Bits that a camera or scanner may use of the 16 or 32 in a file.
DEPTHS = (8, 10, 12, 14, 16)

# Full scales used before they were recorded.
UNRECORDED = {"I;16": 65535, "I": 65535, "F": 255, "RGB;16": 65535}


class Stored(NamedTuple):
    """An image as stored in its file; `kind` is the kind of values deeper than 8 bits, else empty.

    Kinds are Pillow's modes: "I;16" and "I" for integers of 16 and 32 bits, "F" for floats. "RGB;16" is any
    mode with 16 bits a channel, of which Pillow only reads the upper 8.
    """

    image: Image.Image
    kind: str


@cache
def formats() -> tuple[str, ...]:
    """The FORMATS that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def opened(path: Path) -> Iterator[ImageFile]:
    """An image file whose header has been read, in one of FORMATS.

    Raises:
        Exception: it is not a readable image; decoders raise many types of errors on broken files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow reads the image despite its warning, or raises
        with Image.open(path, formats=formats()) as file:
            yield file


def load(path: Path, enough: int | None = None) -> Stored:
    """The first frame of an image file, upright.

    A JPEG larger than `enough` pixels a side is decoded at 1/2, 1/4 or 1/8 of its size, still at least that.

    Raises:
        Exception: as `opened`.
    """
    with opened(path) as file:
        if enough is not None:
            file.draft(None, (enough, enough))
        # How a decoder knows that there are 16 bits; a PPM's by its largest value.
        upper_half = any(";16" in str(tile[3]) or tile[3] == ("RGB", 65535) for tile in file.tile)
        image = ImageOps.exif_transpose(file) if "exif" in file.info else file
        image.load()
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    return Stored(image, mode if mode in ("I;16", "I", "F") else "RGB;16" if upper_half else "")


def reason(error: Exception) -> str:
    """Why an image file is not readable, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"must be an image in one of the formats {', '.join(formats())}"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; scale it down"
    return " ".join(str(error).split()) or type(error).__name__


def limits(stored: Stored) -> tuple[float, float]:
    """The least and the largest value of an image; NaN where any is."""
    if stored.kind == "RGB;16":
        upper = np.asarray(stored.image.convert("RGB"))  # without transparency
        return int(upper.min()) * 256, int(upper.max()) * 256 + 255
    values = np.asarray(stored.image)
    return values.min().item(), values.max().item()


def full_scale(kind: str, low: float, high: float) -> int:
    """The value that becomes 255, for images whose values lie between these.

    1 for floats. For integers, the largest value of the smallest depth (8, 10, 12, 14 or 16 bits) that holds
    them.

    Raises:
        ValueError: no such depth holds them, or Pillow does not read all of their bits.
    """
    span = f"values from {low:g} to {high:g} in mode {kind}"
    if kind == "F":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{span}; must be 0 to 1 for floats")
        return 1
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"{span}; must be 0 to 65535 for integers")
    full: int = next(2**bits - 1 for bits in DEPTHS if high < 2**bits)
    if kind == "RGB;16" and full < 65535:
        raise ValueError(f"{span}, of which only the upper 8 of 16 bits are read; store them with 8 bits")
    return full


def as_bytes(stored: Stored, channels: int, scale: Mapping[str, float]) -> Image.Image:
    """An image as grey (1) or RGB (3) with 8 bits, transparent parts white.

    Integers are scaled by 255 / full scale and rounded down, floats are rounded to the nearest.

    Args:
        scale: full scales by kind; those of kinds that are not in it are the image's own.

    Raises:
        ValueError: its values exceed the full scale, or none fits them.
    """
    image, kind = stored
    if kind:
        low, high = limits(stored)
        full = scale[kind] if kind in scale else full_scale(kind, low, high)
        if not (low >= 0 and high <= full):
            raise ValueError(f"values from {low:g} to {high:g} in mode {kind}; must be 0 to {full:g}")
        if kind != "RGB;16":
            values = np.asarray(image)
            scaled = np.rint(values * (255 / full)) if kind == "F" else values.astype(np.int64) * 255 // full
            image = Image.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


class Reader:
    """Reads the image files of one data set as squares, deeper ones with one full scale for each kind."""

    def __init__(self, channels: int, size: int) -> None:
        self.channels, self.size = channels, size
        self.deep: list[tuple[Pixels, Path]] = []  # read again once all values have been seen
        self.limits: dict[str, tuple[float, float]] = {}  # by kind, over all images so far
        self.unreadable: dict[Path, str] = {}  # and why

    def read(self, paths: Sequence[Path]) -> Pixels:
        """These images, uint8 (N, C, H, W); deep or unreadable ones are zeros until `finish`."""
        images = storage.empty((len(paths), self.channels, self.size, self.size), np.uint8)
        # One thread: most time is spent in Python code, and a pool made it slower.
        for pixels, path in zip(images, paths, strict=True):
            with self.attempt(path):
                # Twice as large as needed, so that resizing has pixels to average.
                stored = load(path, 2 * self.size)
                if not stored.kind:
                    self.fill(pixels, stored, {})
                    continue
                low, high = limits(stored)
                if stored.kind != "RGB;16":  # else only all images together show their depth
                    full_scale(stored.kind, low, high)
                least, largest = self.limits.get(stored.kind, (low, high))
                self.limits[stored.kind] = min(low, least), max(high, largest)
                self.deep.append((pixels, path))
        return images

    def finish(self) -> dict[str, int]:
        """Fill in the deep images; gives the full scales, by kind.

        Raises:
            ValueError: files are unreadable, or Pillow does not read all bits of their values.
        """
        scales = {kind: full_scale(kind, low, high) for kind, (low, high) in self.limits.items()}
        for pixels, path in self.deep:
            with self.attempt(path):
                self.fill(pixels, load(path), scales)
        if self.unreadable:
            paths = [*self.unreadable]
            names = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
            why = self.unreadable[paths[0]]
            count = counted(len(paths), "unreadable image")
            raise ValueError(f"{count}: {names} ({why}); repair or remove")
        return scales

    @contextmanager
    def attempt(self, path: Path) -> Iterator[None]:
        """Records an exception inside as the reason why this file is unreadable."""
        try:
            yield
        except Exception as error:  # decoders raise much besides OSError over a broken file
            self.unreadable[path] = reason(error)

    def fill(self, pixels: Pixels, stored: Stored, scales: Mapping[str, float]) -> None:
        image = as_bytes(stored, self.channels, scales)
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels[:] = np.asarray(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)
