"""A run's model as a file that does not need fairsweep: from stored inputs to probabilities or numbers."""

import logging
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairsweep.config import ConfigError
from fairsweep.runs import inputs, prediction
from fairsweep.runs.folder import RunFolder

# How many images the file's predictions are compared on.
COMPARED = 100

# The largest difference of a probability that rounding explains.
TOLERANCE = 1e-3


class Exported(NamedTuple):
    """input, output: shapes and types. difference: the largest, of a probability, over `compared` images."""

    file: Path
    input: str
    output: str
    difference: float
    compared: str


def write(folder: RunFolder, kind: str, output: Path | None) -> Exported:
    """Export a run's tested weights, and compare the file's predictions with the run's.

    Args:
        kind: one of `inputs.SUFFIXES`.
        output: the file; None: one in `<record.dir>/exports/`.

    Raises:
        ConfigError: the model cannot be exported in this format, or the file cannot be written.
    """
    file = output or folder.path.parents[1] / "exports" / f"{folder.signature}{inputs.SUFFIXES[kind]}"
    model = prediction.predictor(folder)
    images, compared = examples(folder)
    partial = file.with_name(f".{file.name}")  # a failed export leaves an older file alone
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # torch does not say why it cannot write
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = answers_of_export(model, kind, partial, images)
        expected = prediction.outputs(model, images)
        # Of numbers, relative to the largest.
        size = float(expected.abs().max()) if "targets" in folder.facts() else 1.0
        difference = float((answers - expected).abs().max()) / (size or 1.0)
        if difference > TOLERANCE:
            raise ValueError(f"the file's predictions differ from the run's by {difference:.1e}")
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"output={file}: cannot be written: {error.strerror}") from error
    except Exception as error:  # exporters raise many kinds for a model that they do not support
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"format={kind}: cannot export this model: {reason}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    shape, facts = ", ".join(map(str, images.shape[1:])), folder.facts()
    given = "" if "dtype" in facts else ", pixel values 0 to 255"
    names = facts.get("targets") or facts["classes"]
    return Exported(
        file,
        f"float32 (N, {shape}){given}",
        f"float32 (N, {len(names)}), {', '.join(names) if 'targets' in facts else 'probabilities'}",
        difference,
        compared,
    )


def examples(folder: RunFolder) -> tuple[Tensor, str]:
    """Inputs as they are stored, and what they are: the run's test data, or noise if they are not here."""
    with suppress(ConfigError):  # the data may not be here
        images = prediction.test_split(folder).inputs[:COMPARED]
        if len(images) > 1:
            return images, f"{len(images)} test {'images' if images.ndim == 4 else 'rows'}"
    facts, generator = folder.facts(), torch.Generator().manual_seed(0)
    shape = (COMPARED, *facts["shape"])
    if "dtype" in facts:
        axes = (-1, *[1] * (len(shape) - 2))
        mean, std = (torch.tensor(facts[name]).view(axes) for name in ("mean", "std"))
        noise = torch.randn(shape, generator=generator) * std + mean
        return noise, f"{COMPARED} inputs of noise: the run's test data are not here"
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noise, f"{COMPARED} noise images: the run's test images are not here"


def answers_of_export(model: nn.Module, kind: str, file: Path, images: Tensor) -> Tensor:
    """Export the model to a file; the predictions of the file, read again, for the images."""
    pixels = images.float()
    batch = {0: torch.export.Dim.DYNAMIC}
    if kind == "torchscript":
        script: Any = torch.jit  # it comes without types
        script.trace(model, pixels[:2]).save(str(file))
        loaded = script.load(str(file))
    elif kind == "pt2":
        torch.export.save(torch.export.export(model, (pixels[:2],), dynamic_shapes=(batch,)), file)
        loaded = torch.export.load(file).module()
    else:
        import onnxruntime

        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.onnx.export(
            model,
            (pixels[:2],),
            file,
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes=(batch,),
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
    answers: Tensor = loaded(pixels)
    return answers
