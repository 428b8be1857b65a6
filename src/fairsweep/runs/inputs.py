"""Finds and checks the run, the images and the file that `predict` and `export` are given; without torch."""

import glob
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from omegaconf import DictConfig

from fairsweep.config import TEXT, ConfigError, Rule, check_familiar, check_values, one_of, or_null
from fairsweep.runs import checkpoint, lookup, store, tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.training import images
from fairsweep.training.sources import IMAGE_SUFFIXES, is_table, not_read

RUNS = "latest, best, a run's signature or its beginning, or an MLflow run id"
OWN = {"output": TEXT, "dataset": or_null(TEXT)}
SUFFIXES = {"pt2": ".pt2", "torchscript": ".pt", "onnx": ".onnx"}
EXPORT = {"format": one_of(*SUFFIXES), "output": or_null(TEXT)}
INPUTS = "an image file, a folder of images, a glob, a table (.csv, .parquet), test:N or test:N-M"


def check(cfg: DictConfig, own: Mapping[str, Rule] = MappingProxyType({})) -> None:
    """Check the values that have the same meaning as in a run's configuration.

    Args:
        own: rules of keys that mean something else.

    Raises:
        ConfigError: the first that is missing or not allowed.
    """
    check_values(cfg, {**OWN, **own})
    if "tracking" in cfg:  # show.py has none
        store.check(cfg.tracking.uri)


@contextmanager
def find_run(which: str, uri: str | None, directory: str, data: str | None = None) -> Iterator[RunFolder]:
    """The record of a run, here or in MLflow, that has the weights to classify with.

    Args:
        data: for `latest` and `best`, only runs on this data set, by its name or the beginning of its hash.

    Raises:
        ConfigError: there is no such run, its record is damaged, or its weights are missing.
    """
    found: AbstractContextManager[RunFolder]
    if re.fullmatch("[0-9a-f]{32}", which):
        if uri is None:
            raise ConfigError(f"run={which}: an MLflow run id needs tracking.uri, which is null")
        found = tracking.find_run(which, uri, directory)
    elif re.fullmatch("latest|best|[0-9a-f]{1,16}", which):
        found = nullcontext(lookup.find(directory, which, data))
    else:
        raise ConfigError(f"run={which}: must be {RUNS}")
    with found as folder:
        try:
            if damage := folder.damage():
                raise ConfigError(damage)
            if folder.path.parent != Path(directory).absolute() / "runs":
                check_familiar(folder.config())
            checkpoint.tested_file(folder)
        except ConfigError as error:
            raise ConfigError(f"run={which}: {error}") from error
        yield folder


def described(folder: RunFolder) -> str:
    """Model, data and judged figure of a run: `two_conv on mnist, test accuracy 99.02%`."""
    text = f"{folder.config().model.name} on {folder.facts()['name']}"
    status = folder.status()
    value = status.judged
    return text if value is None else f"{text}, test {status.tested.words} {status.tested.text(value)}"


def find_input(text: str) -> range | list[Path]:
    """The numbers of the test data, or the image files, or tables, sorted by name.

    Raises:
        ConfigError: nothing has that name, or a file is not a readable image.
    """
    if text.startswith("test:"):
        match = re.fullmatch(r"test:(\d+)(?:-(\d+))?", text)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"input={text}: must be test:N or test:N-M, counted from 0")
        return range(int(match[1]), int(match[2] or match[1]) + 1)
    if not text:
        raise ConfigError(f"input=: must be {INPUTS}")
    path = Path(text).expanduser()
    if path.is_dir():
        files = [item for item in visible(path) if item.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise ConfigError(f"input={text}: no images in this folder ({' '.join(IMAGE_SUFFIXES)})")
    elif path.is_file():
        files = [path]
    else:
        # Not pathlib's, which has no absolute patterns.
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
        files = sorted(match for match in map(Path, matches) if match.is_file())
        if not files:
            raise ConfigError(f"input={text}: no such file; must be {INPUTS}")
    for file in files:
        if is_table(file):
            continue
        try:
            with images.opened(file):
                pass
        except Exception as error:  # decoders raise much besides OSError over a broken file
            reason = images.reason(error)
            raise ConfigError(f"input={text}: {file} is not a readable image: {reason}") from error
    return files


def visible(folder: Path) -> list[Path]:
    """The contents of a folder, sorted by name, without hidden files."""
    return sorted(item for item in folder.iterdir() if not item.name.startswith("."))


def note(text: str) -> str:
    """A note on files of the input folder that are not read; often empty."""
    path = Path(text).expanduser()
    if text.startswith("test:") or not path.is_dir():
        return ""
    others = [item for item in visible(path) if item.is_file() and item.suffix.lower() not in IMAGE_SUFFIXES]
    return not_read(f"input={text}", others)


def export_file(cfg: DictConfig) -> Path | None:
    """The file that `output` names; None: not given.

    Raises:
        ConfigError: it does not suit the format, or the format needs what is not installed.
    """
    kind, output = str(cfg.format), cfg.output
    if kind == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise ConfigError("format=onnx: ONNX is not installed; pip install 'fairsweep[onnx]'")
    if output is None:
        return None
    file = Path(output).expanduser().absolute()
    if file.suffix != SUFFIXES[kind] or file.is_dir():
        raise ConfigError(f"output={output}: must be the name of a file that ends in {SUFFIXES[kind]}")
    return file


def picture_file(path: str) -> Path:
    """The file to write a picture to.

    Raises:
        ConfigError: not the name of a PNG file.
    """
    file = Path(path).expanduser().absolute()
    if file.suffix.lower() != ".png" or file.is_dir():
        raise ConfigError(f"output={path}: must be the name of a file that ends in .png")
    return file
