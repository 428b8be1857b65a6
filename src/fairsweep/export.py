"""A run's model as a file that needs none of our code: pixel values in, probabilities of the classes out."""

import logging
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairsweep import prediction
from fairsweep.config import ConfigError
from fairsweep.record import RunFolder

SUFFIXES = {"pt2": ".pt2", "torchscript": ".pt", "onnx": ".onnx"}

# Images whose predictions are compared.
COMPARED = 100

# Above this difference of a probability, a file computes something else.
TOLERANCE = 1e-3


class Exported(NamedTuple):
    """input, output: shapes and types. difference: the largest, of a probability, over `compared` images."""

    file: Path
    input: str
    output: str
    difference: float
    compared: str


def write(folder: RunFolder, kind: str, output: str | None) -> Exported:
    """Export a run's tested weights, and compare the file's answers with the run's own.

    Args:
        kind: one of `SUFFIXES`.
        output: the file; None: one in `<record.dir>/exports/`.

    Raises:
        ConfigError: the model cannot be exported in this format, or the file cannot be written.
    """
    if kind == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise ConfigError("format=onnx: ONNX is not installed; pip install 'fairsweep[onnx]'")
    default = folder.path.parents[1] / "exports" / f"{folder.signature}{SUFFIXES[kind]}"
    file = default if output is None else Path(output).expanduser().absolute()
    if file.suffix != SUFFIXES[kind]:
        raise ConfigError(f"output={output}: must end in {SUFFIXES[kind]} for format={kind}")
    model = prediction.classifier(folder)
    images, compared = examples(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = answers_of_export(model, kind, file, images)
    except OSError as error:
        raise ConfigError(f"output={file}: cannot be written: {error.strerror}") from error
    except Exception as error:  # the exporters raise much over a model that they cannot take
        raise ConfigError(f"format={kind}: cannot take this model: {str(error).splitlines()[0]}") from error
    difference = float((answers - prediction.probabilities(model, images)).abs().max())
    if difference > TOLERANCE:
        file.unlink()
        raise ConfigError(
            f"format={kind}: the file's predictions differ from the run's by {difference:.1e}; choose another"
        )
    shape, classes = ", ".join(map(str, images.shape[1:])), folder.facts()["classes"]
    return Exported(
        file,
        f"float32 (N, {shape}), pixel values 0 to 255",
        f"float32 (N, {len(classes)}), probabilities",
        difference,
        compared,
    )


def examples(folder: RunFolder) -> tuple[Tensor, str]:
    """Images, uint8 (N, C, H, W), and what they are: of the run's test images, or noise without them."""
    with suppress(ConfigError):  # the data may not be here
        images = prediction.test_split(folder).images[:COMPARED]
        if len(images) > 1:
            return images, f"{len(images)} test images"
    generator = torch.Generator().manual_seed(0)
    shape = (COMPARED, *folder.facts()["shape"])
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noise, f"{COMPARED} images of noise, as the run's data are not here"


def answers_of_export(model: nn.Module, kind: str, file: Path, images: Tensor) -> Tensor:
    """Export the model to a file; what the file, read again, makes of the images."""
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
