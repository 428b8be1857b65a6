"""`src/show.py`: class counts, the model's layers, a picture of samples; and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairsweep.config import ROOT


def show(*words: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    script = [sys.executable, *options, str(ROOT / "src" / "show.py"), *words]
    return subprocess.run(
        script, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "COLUMNS": "80"}
    )


def test_it_tells_counts_and_layers_and_writes_samples(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, count in (("[bold]\x1b[2J", 12), ("dogs", 6)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(count):
            noise = random.integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "dogs" / "1.heic").touch()
    data = [
        "data=image_folder",
        f"data.root={tmp_path}/images",
        "data.channels=3",
        "data.size=16",
        "data.test_size=3",
        "data.val_size=3",
        "data.name='[bold]pets'",
    ]
    done = show(f"record.dir={tmp_path}/outputs", *data, "model=cnn", "model.widths=[4,8]", "model.hidden=[]")
    assert done.returncode == 0, done.stderr
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    for row in (["[bold]\\x1b[2J", "8", "2", "2"], ["dogs", "4", "1", "1"], ["all", "12", "3", "3"]):
        assert row in rows
    assert done.stdout.startswith(
        f"data.root={tmp_path}/images: 1 file of other types not read: 1 .heic (1.heic)"
    )
    assert "[bold]pets: images of" in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:-1])) <= 80
    # Two convolutions and a linear layer on 8 channels of 4 x 4.
    parameters = (3 * 9 + 1) * 4 + (4 * 9 + 1) * 8 + (8 * 4 * 4 + 1) * 2
    assert f"Total params: {parameters}" in done.stdout
    assert "[1, 8, 4, 4]" in done.stdout
    picture = tmp_path / "outputs" / "samples_[bold]pets.png"
    assert str(picture) in done.stdout
    assert np.asarray(Image.open(picture).convert("L")).std() > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=digit"], "data=digit: no such choice; did you mean 'digits'?"),
        (["data=image_folder"], "data.root"),
        (["data.val_size=-1"], "data.val_size=-1: must be"),
        (["model.widths=[0]"], "model.widths=[0]: must be"),
        (["model._target_=os.system"], "model._target_="),
        (["data.name=../../victim"], 'data.name="../../victim": must be a name without slashes'),
        (["data=image_folder", "data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["output=samples"], "output=samples: must be the name of a file that ends in .png"),
    ],
)
def test_a_mistake_is_one_line_without_torch(words: list[str], message: str, tmp_path: Path) -> None:
    done = show(f"record.dir={tmp_path}", *words, options=("-X", "importtime"))
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert "| torch\n" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_too_deep_for_the_images_is_one_line(tmp_path: Path) -> None:
    done = show(f"record.dir={tmp_path}", "model=cnn", "model.widths=[4,4,4,4,4,4]")
    assert done.returncode == 2
    assert done.stderr.startswith("error: model")
    assert done.stderr.count("\n") == 1
