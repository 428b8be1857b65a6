"""MNIST as it is often passed around: a folder of JPEG files per digit."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def write_jpegs(data: Path, goal: Path, train: int = 60_000, test: int = 10_000) -> None:
    """The first MNIST images as `<goal>/training/<digit>/<n>.jpg` and `<goal>/testing/...`; once."""
    if goal.exists():
        return
    print(f"writing {train + test} JPEGs to {goal}", file=sys.stderr, flush=True)
    scratch = goal.with_name(goal.name + ".part")  # what a kill leaves is not taken for the whole
    for name, prefix, count in (("training", "train", train), ("testing", "t10k", test)):
        pixels = np.fromfile(data / f"MNIST/raw/{prefix}-images-idx3-ubyte", np.uint8, offset=16)
        labels = np.fromfile(data / f"MNIST/raw/{prefix}-labels-idx1-ubyte", np.uint8, offset=8)
        for digit in range(10):
            (scratch / name / str(digit)).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(pixels.reshape(-1, 28, 28)[:count]):
            Image.fromarray(image).save(scratch / name / str(labels[index]) / f"{index:05}.jpg")
    scratch.rename(goal)
