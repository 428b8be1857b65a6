"""Image files: formats, orientation, and values deeper than 8 bits."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from fairsweep import data
from fairsweep.config import ConfigError
from fairsweep.runs import inputs, prediction, schema
from fairsweep.training import dataset, images

Values = np.ndarray[Any, np.dtype[Any]]

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def write(path: Path, values: Values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_classes(root: Path, of: Callable[[Values], Values], suffix: str = ".png") -> None:
    """Two classes of two images, with values from 0 to 255 as `of` gives them."""
    for number, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        write(root / f"{name}{suffix}", of(np.roll(RAMP, number, axis=0)))


def png16(path: Path, values: Values) -> None:
    """A colour PNG with 16 bits a channel, which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


DEEP: dict[str, tuple[str, Callable[[Values], Values], dict[str, int]]] = {
    "8 bits": (".png", lambda v: v, {}),
    "8 bits in 16": (".png", lambda v: v.astype(np.uint16), {"I;16": 255}),
    "8 bits in 32": (".tif", lambda v: v.astype(np.int32), {"I": 255}),
    "12 bits in 16": (".png", lambda v: np.ceil(v * (4095 / 255)).astype(np.uint16), {"I;16": 4095}),
    "12 bits in 32": (".tif", lambda v: np.ceil(v * (4095 / 255)).astype(np.int32), {"I": 4095}),
    "16 bits": (".png", lambda v: v.astype(np.uint16) * 257, {"I;16": 65535}),
    "16 bits in a PGM": (".pgm", lambda v: v.astype(np.uint16) * 257, {"I": 65535}),
    "floats": (".tif", lambda v: (v / 255).astype(np.float32), {"F": 1}),
}


@pytest.mark.parametrize("depth", DEEP)
def test_the_same_picture_at_any_depth_is_the_same_tensor(depth: str, tmp_path: Path) -> None:
    suffix, of, full_scales = DEEP[depth]
    write_classes(tmp_path, of, suffix)
    source = data.image_folder(str(tmp_path), size=16)
    for number, image in enumerate(source.train.inputs):
        assert torch.equal(image[0], torch.from_numpy(np.roll(RAMP, number, axis=0)))
    assert source.full_scales == full_scales


def test_one_scale_holds_for_all_images_of_a_kind_so_that_brightness_stays_comparable(tmp_path: Path) -> None:
    brightest = {"train/a": 200, "train/b": 4000, "test/a": 5000, "test/b": 0}
    for number, (name, value) in enumerate(brightest.items()):
        write(tmp_path / name / f"{number}.png", np.full((4, 4), value, np.uint16))
        write(tmp_path / name / "float.tif", np.full((4, 4), 0.5, np.float32))
        write(tmp_path / name / "plain.png", np.full((4, 4), 77, np.uint8))
    source = data.image_folder(str(tmp_path), size=4)
    assert source.full_scales == {"I;16": 2**14 - 1, "F": 1}
    assert source.test is not None
    greys = [part.inputs[:, 0, 0, 0].tolist() for part in (source.train, source.test)]
    assert greys == [[3, 128, 77, 62, 128, 77], [77, 128, 77, 0, 128, 77]]
    ready = dataset.prepare(
        "x", source, "", val_size=0, val_seed=0, test_size=0, limit=None, mean=None, std=None
    )
    assert json.loads(json.dumps(ready.facts()))["full_scales"] == {"I;16": 2**14 - 1, "F": 1}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            np.full((4, 4), 2**20, np.int32),
            "values from 1.04858e+06 to 1.04858e+06 in mode I; must be 0 to 65535",
        ),
        (np.full((4, 4), -3, np.int32), "values from -3 to -3 in mode I; must be"),
        (np.full((4, 4), 1.5, np.float32), "values from 1.5 to 1.5 in mode F; must be 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "values from nan to nan in mode F; must be"),
    ],
)
def test_values_without_a_known_depth_are_refused(tmp_path: Path, values: Values, told: str) -> None:
    other = np.full((4, 4), 0.5, np.float32) if values.dtype == np.float32 else RAMP.astype(np.int32)
    write(tmp_path / "a" / "0.tif", other)
    write(tmp_path / "b" / "0.tif", values)
    with pytest.raises(ConfigError) as error:
        data.image_folder(str(tmp_path), size=4)
    assert f"1 unreadable image: {tmp_path}/b/0.tif ({told}" in str(error.value)


def test_colours_of_16_bits_are_read_where_their_upper_half_holds_them(tmp_path: Path) -> None:
    for folder, factor in (("full", 257), ("twelve", 16)):
        write(tmp_path / folder / "a" / "0.png", RAMP)
        (tmp_path / folder / "b").mkdir()
        png16(tmp_path / folder / "b" / "0.png", np.stack([RAMP.astype(np.uint16) * factor] * 3, axis=2))
    train = data.image_folder(str(tmp_path / "full"), channels=3, size=16).train
    assert torch.equal(train.inputs[0], train.inputs[1])
    with pytest.raises(ConfigError, match="values from 0 to 4095 in mode RGB;16, of which only the upper 8"):
        data.image_folder(str(tmp_path / "twelve"), channels=3, size=16)
    twelve = np.stack([RAMP.astype(int) * 16] * 3, axis=2).astype(">u2")
    (tmp_path / "twelve" / "b" / "0.png").unlink()
    (tmp_path / "twelve" / "b" / "0.ppm").write_bytes(b"P6 16 16 65535\n" + twelve.tobytes())
    with pytest.raises(ConfigError, match="in mode RGB;16, of which only the upper 8"):
        data.image_folder(str(tmp_path / "twelve"), channels=3, size=16)


FACTS = {"shape": [1, 16, 16], "background": "mixed", "extent": 1.0, "mean": [0.5]}


def test_a_picture_is_scaled_as_the_training_images_were(tmp_path: Path) -> None:
    path = write(tmp_path / "picture.png", RAMP.astype(np.uint16) * 4)  # at most 1020: 10 bits of its own
    for full_scales, full in (({"I;16": 4095}, 4095), ({}, 1023)):
        read, _ = prediction.read(path, FACTS | {"full_scales": full_scales})
        assert (read[0] == RAMP.astype(int) * 4 * 255 // full).all()
    assert (prediction.read(path, FACTS)[0][0] == RAMP.astype(int) * 4 // 257).all()  # a record from before
    with pytest.raises(ConfigError, match=r"values from 0 to 1020 in mode I;16; must be 0 to 255"):
        prediction.read(path, FACTS | {"full_scales": {"I;16": 255}})


@pytest.mark.parametrize("damaged", [[], {"F": 0}, {"I;16": "4095"}])
def test_full_scales_that_no_data_set_has_are_damage(damaged: object, tmp_path: Path) -> None:
    ready = dataset.prepare(
        "x", data.digits(), "f", val_size=0, val_seed=0, test_size=0, limit=None, mean=None, std=None
    )
    facts = ready.facts()
    schema.check(tmp_path, facts, schema.FACTS)
    with pytest.raises(schema.Damaged, match="full_scales must be"):
        schema.check(tmp_path, facts | {"full_scales": damaged}, schema.FACTS)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, :20] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise for display: what is left goes to the top
    image.save(tmp_path / "turned.png", exif=exif)
    upright = images.load(tmp_path / "turned.png").image
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == 255
    assert upright.getpixel((10, 35)) == 0


def test_a_large_jpeg_is_read_small_with_the_same_picture(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (1024, 1))).save(tmp_path / "large.jpg")
    whole = images.load(tmp_path / "large.jpg").image
    small = images.load(tmp_path / "large.jpg", 56).image
    assert small.size == (128, 128)
    difference = np.asarray(whole.resize((28, 28)), int) - np.asarray(small.resize((28, 28)), int)
    assert np.abs(difference).max() <= 2


# Files that are no good


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")


def scan(path: Path) -> None:
    """A PNG that claims 14,000 pixels a side."""
    path.write_bytes(Image.new("L", (1, 1))._repr_png_() or b"")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 14_000, 14_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (postscript, "must be an image in one of the formats JPEG, PNG,"),
        (scan, "it has more than 179 megapixels; scale it down"),
        (lambda path: path.write_bytes(b"no image"), "must be an image in one of the formats JPEG, PNG,"),
    ],
)
def test_what_is_not_a_readable_image_starts_no_program_and_is_one_line_everywhere(
    make: Callable[[Path], None], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    root = tmp_path / "images"
    write_classes(root, lambda v: v)
    bad = root / "a" / "7\x1b[2J.png"
    make(bad)
    for read in (
        lambda: data.image_folder(str(root)),
        lambda: inputs.find_input(str(bad)),
        lambda: prediction.read(bad, FACTS),
    ):
        with pytest.raises(ConfigError) as error:
            read()
        assert told in str(error.value)
        assert r"a/7\x1b[2J.png" in str(error.value)
        assert "\n" not in str(error.value)
    assert not started.exists()


def test_pillows_warnings_are_not_shown(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 200
    )  # 256 are between this and twice as many, which raises
    write_classes(tmp_path, lambda v: v)
    assert len(data.image_folder(str(tmp_path)).train) == 4
    assert not recwarn.list
