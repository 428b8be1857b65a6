"""Where the images lie, and a hash of them; without torch, to know a finished run again at once."""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fairsweep.config import ConfigError

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


class ImageFiles(NamedTuple):
    """Image files, each with the index of its class; `test` is None where there is no such part."""

    classes: tuple[str, ...]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]] | None


def digits_file() -> Path:
    """The file of scikit-learn's 1,797 digits: one line an image, 64 values 0..16 and the label.

    Raises:
        ConfigError: scikit-learn is not installed, or has no such file.
    """
    # Only looked up: importing scikit-learn takes more than a second.
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ConfigError("data=digits: its images come with scikit-learn, which is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise ConfigError(f"data=digits: scikit-learn has no file {path}; install it again")
    return path


def idx_files(dataset: str, root: str) -> tuple[Path, ...] | None:
    """The four files of `dataset`, in the order of `IDX_FILES`; None where there is none of them.

    They lie in `<root>/<dataset>/raw` (as torchvision's do), `<root>/raw` or `<root>`, also as .gz.

    Raises:
        ConfigError: some of the four are missing.
    """
    top = Path(root).expanduser()
    for folder in (top / dataset / "raw", top / "raw", top):
        found = {
            name: path
            for name in IDX_FILES
            for path in (folder / f"{name}.gz", folder / name)
            if path.is_file()
        }
        if found:
            if missing := [name for name in IDX_FILES if name not in found]:
                raise ConfigError(
                    f"data.root={root}: {folder} has no {', '.join(missing)} (nor as .gz); add it, "
                    f"or remove the other files there to have {dataset} downloaded"
                )
            return tuple(found[name] for name in IDX_FILES)
    return None


def open_idx(path: Path) -> BinaryIO:
    """The unpacked content of a plain or .gz file."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def image_files(root: str) -> ImageFiles:
    """The images in `<root>/<class>/`, or in `<root>/train/<class>/` and `<root>/test/<class>/`.

    The two may also be called `training` and `testing`. Classes are sorted by name, or by value
    where all are numbers; images by name. Hidden and other files than images are ignored.

    Raises:
        ConfigError: no such folder, a class without images, or something that fits neither layout.
    """
    top = Path(root).expanduser()
    if not top.is_dir():
        raise ConfigError(
            f"data.root={root}: no such folder; name one that has a sub-folder of images per class"
        )
    folders, _ = listing(top)
    train = [folder for folder in folders if folder.name.lower() in ("train", "training")]
    test = [folder for folder in folders if folder.name.lower() in ("test", "testing")]
    if not train or not test:
        return ImageFiles(*class_images(top), None)
    if len(folders) > 2:
        raise ConfigError(
            f"data.root={root}: holds {', '.join(folder.name for folder in folders)}; beside one "
            "folder for training and one for test (validation is cut from training) nothing is read"
        )
    classes, train_files = class_images(train[0])
    test_classes, test_files = class_images(test[0])
    if classes != test_classes:
        names = ", ".join(sorted({*classes} ^ {*test_classes})[:5])
        raise ConfigError(
            f"data.root={root}: {train[0].name} and {test[0].name} differ in their classes: {names}"
        )
    return ImageFiles(classes, train_files, test_files)


def listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sub-folders of a folder and its images, by name, without what is hidden."""
    folders, images = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                    images.append(Path(entry.path))
    except OSError as error:
        raise ConfigError(f"data.root: {folder} cannot be read: {error.strerror}") from error
    return folders, images


def class_images(top: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """The names of a folder's sub-folders, and all images in them with the index of theirs."""
    folders, loose = listing(top)
    if loose:
        raise ConfigError(f"data.root: {loose[0]} is in no class; images must be in one sub-folder per class")
    if len(folders) < 2:
        raise ConfigError(f"data.root: {top} has {len(folders)} class folder(s), expected two or more")
    if all(folder.name.isdecimal() for folder in folders):
        folders.sort(key=lambda folder: (int(folder.name), folder.name))
    files = []
    for index, folder in enumerate(folders):
        nested, images = listing(folder)
        if nested:
            raise ConfigError(
                f"data.root: {nested[0]} is a folder within the class {folder.name}; expected are "
                "<root>/<class>/<image>, or the same within <root>/train and <root>/test"
            )
        if not images:
            raise ConfigError(
                f"data.root: the class {folder} has no images ({' '.join(IMAGE_SUFFIXES)}); "
                "add some or remove it"
            )
        files += [(image, index) for image in images]
    return tuple(folder.name for folder in folders), files


def fingerprint(cfg: Mapping[str, Any]) -> str | None:
    """A hash (32 hex digits) of the content behind a data configuration, wherever it lies.

    None where the files are still to be downloaded, or where the source is unknown here.

    Raises:
        ConfigError: the files are incomplete or cannot be read.
    """
    source = str(cfg["_target_"]).rpartition(".")[2]
    how = {key: cfg[key] for key in ("dataset", "channels", "size") if key in cfg}
    digest = hashlib.blake2b(json.dumps([source, how]).encode(), digest_size=16)
    try:
        if source == "digits":
            digest.update(digits_file().read_bytes())
        elif source == "mnist":
            files = idx_files(cfg["dataset"], cfg["root"])
            if files is None:
                return None
            for path in files:
                with open_idx(path) as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
        elif source == "image_folder":
            classes, train, test = image_files(cfg["root"])
            digest.update(json.dumps([classes, len(train)]).encode())
            for path, label in train + (test or []):
                content = path.read_bytes()
                digest.update(f"{label}/{path.name}/{len(content)}\n".encode())
                digest.update(content)
        else:
            return None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data.root: a file cannot be read: {error}") from error
    return digest.hexdigest()
