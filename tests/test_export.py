"""`src/export.py`: a file that answers as the run does, or one line."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from commands import Command
from conftest import Compose
from rich.console import Console

from fairsweep import experiment, export, prediction
from fairsweep.config import ConfigError
from fairsweep.experiment import Wanted
from fairsweep.progress import Progress
from fairsweep.record import RunFolder


@pytest.fixture
def trained(compose: Compose) -> RunFolder:
    """A run of a model with batch normalisation, which answers otherwise while it trains."""
    words = ("model=cnn", "model.widths=[4]", "model.norm=batch", "data.limit=200", "trainer.epochs=1")
    cfg = compose(*words, "tracking=none", "record.pictures=none")
    (outcome,) = experiment.run([Wanted(cfg)], Progress(Console(quiet=True)))
    return outcome.folder


def answers(file: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What a file makes of images, as its users call it."""
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(file))
        return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
    loaded = torch.jit.load(str(file)) if file.suffix == ".pt" else torch.export.load(file).module()
    found: torch.Tensor = loaded(pixels)
    return found


@pytest.mark.parametrize("kind", export.SUFFIXES)
def test_a_file_answers_as_the_run_does_for_any_number_of_images(kind: str, trained: RunFolder) -> None:
    exported = export.write(trained, kind, None)
    assert (
        exported.file == trained.path.parents[1] / "exports" / f"{trained.signature}{export.SUFFIXES[kind]}"
    )
    assert exported.input == "float32 (N, 1, 28, 28), pixel values 0 to 255"
    assert exported.output == "float32 (N, 10), probabilities"
    assert exported.compared == "100 test images"
    assert exported.difference < 1e-5
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), np.uint8))
    ours = prediction.probabilities(prediction.classifier(trained), images)
    for number in (1, 7):
        theirs = answers(exported.file, images[:number].float())
        torch.testing.assert_close(theirs, ours[:number], atol=1e-5, rtol=0)


def test_without_its_data_a_run_is_compared_on_noise(trained: RunFolder) -> None:
    facts = trained.path / "data.json"
    facts.write_text(json.dumps(trained.facts() | {"fingerprint": "another"}))
    assert export.write(trained, "torchscript", None).compared.startswith("100 images of noise")


def test_what_cannot_be_exported_is_one_line_and_leaves_no_file(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"output=x\.pt: must end in \.pt2 for format=pt2"):
        export.write(trained, "pt2", "x.pt")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output=.*: cannot be written"):
        export.write(trained, "pt2", str(tmp_path / "file" / "x.pt2"))
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="predictions differ from the run's by"):
        export.write(trained, "torchscript", str(tmp_path / "x.pt"))
    assert not (tmp_path / "x.pt").exists()
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fairsweep\[onnx\]'"):
        export.write(trained, "onnx", None)


def test_the_command_prints_the_file_its_shapes_and_the_largest_difference(trained: RunFolder) -> None:
    outputs = trained.path.parents[1]
    words = (f"record.dir={outputs}", "format=torchscript")
    answer = Command(outputs, words, script="src/export.py").wait()
    assert answer.status == 0, answer
    rows = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
    assert rows["file"] == f"{outputs}/exports/{trained.signature}.pt"
    assert rows["output"] == "float32 (N, 10), probabilities"
    assert rows["difference"].startswith("at most ")
