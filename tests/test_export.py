"""`src/export.py`: a file that answers as the run does, or one line."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from commands import Command
from conftest import Compose
from omegaconf import OmegaConf
from rich.console import Console

from fairsweep.config import ConfigError
from fairsweep.runs import export, inputs, prediction, session
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress


@pytest.fixture
def trained(compose: Compose) -> RunFolder:
    """A run of a model with batch normalisation, which answers otherwise while it trains."""
    words = ("model=cnn", "model.widths=[4]", "model.norm=batch", "data.limit=200", "trainer.epochs=1")
    cfg = compose(*words, "tracking=none", "record.pictures=none")
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    return outcome.folder


def answers(file: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What a file makes of images, as its users call it."""
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(file))
        return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
    loaded = torch.jit.load(str(file)) if file.suffix == ".pt" else torch.export.load(file).module()
    found: torch.Tensor = loaded(pixels)
    return found


@pytest.mark.parametrize("kind", inputs.SUFFIXES)
def test_a_file_answers_as_the_run_does_for_any_number_of_images(kind: str, trained: RunFolder) -> None:
    exported = export.write(trained, kind, None)
    assert (
        exported.file == trained.path.parents[1] / "exports" / f"{trained.signature}{inputs.SUFFIXES[kind]}"
    )
    assert exported.input == "float32 (N, 1, 28, 28), pixel values 0 to 255"
    assert exported.output == "float32 (N, 10), probabilities"
    assert exported.compared == "100 test images"
    assert exported.difference < 1e-5
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), np.uint8))
    ours = prediction.outputs(prediction.predictor(trained), images)
    for number in (1, 7):
        theirs = answers(exported.file, images[:number].float())
        torch.testing.assert_close(theirs, ours[:number], atol=1e-5, rtol=0)


def test_without_its_data_a_run_is_compared_on_noise(trained: RunFolder) -> None:
    facts = trained.path / "data.json"
    facts.write_text(json.dumps(trained.facts() | {"fingerprint": "another"}))
    assert export.write(trained, "torchscript", None).compared.startswith("100 noise images")


def test_a_failed_export_is_one_line_and_leaves_an_older_file_alone(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output=.*: cannot be written"):
        export.write(trained, "pt2", tmp_path / "file" / "x.pt2")
    with pytest.raises(ConfigError, match=r"output=/proc/x.pt: cannot be written"):
        export.write(trained, "torchscript", Path("/proc/x.pt"))
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    (tmp_path / "x.pt").write_text("older")
    with pytest.raises(ConfigError, match="predictions differ from the run's by"):
        export.write(trained, "torchscript", tmp_path / "x.pt")
    monkeypatch.setattr(torch.jit, "trace", lambda *_: 1 / 0)
    with pytest.raises(ConfigError, match="format=torchscript: cannot export this model: division by zero"):
        export.write(trained, "torchscript", tmp_path / "x.pt")
    assert sorted(path.name for path in tmp_path.glob("*x.pt")) == ["x.pt"]
    assert (tmp_path / "x.pt").read_text() == "older"


def test_a_mistake_is_reported_before_the_run_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"output=x\.pt: must be the name of a file that ends in \.pt2"):
        inputs.export_file(OmegaConf.create({"format": "pt2", "output": "x.pt"}))
    monkeypatch.setattr(inputs, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fairsweep\[onnx\]'"):
        inputs.export_file(OmegaConf.create({"format": "onnx", "output": None}))


def test_the_command_prints_the_file_its_shapes_and_the_largest_difference(trained: RunFolder) -> None:
    outputs = trained.path.parents[1]
    words = (f"record.dir={outputs}", "format=torchscript")
    answer = Command(outputs, words, script="src/export.py").wait()
    assert answer.status == 0, answer
    rows = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
    assert rows["file"] == f"{outputs}/exports/{trained.signature}.pt"
    assert rows["output"] == "float32 (N, 10), probabilities"
    assert rows["difference"].startswith("at most ")
