"""Finds the files of a data set and hashes them; without torch, to recognize a finished run at once."""

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fairsweep.config import CUTS, ConfigError
from fairsweep.files import write_atomically
from fairsweep.wording import counted, printable

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Of torchvision's other data sets: the folder below data.root, and the files that are read.
TORCHVISION: dict[str, tuple[str, tuple[str, ...]]] = {
    "cifar10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": ("cifar-100-python", ("train", "test", "meta")),
    "svhn": ("", ("train_32x32.mat", "test_32x32.mat")),
    "emnist": (
        "EMNIST/raw",
        tuple(
            f"emnist-{{split}}-{part}-{kind}-ubyte"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
    ),
}
# Where Debian's packages install data sets, by other names; only read.
SYSTEM_DATA = Path("/usr/share/datasets")
SYSTEM_NAMES = {"MNIST": "mnist", "FashionMNIST": "fashion-mnist", "KMNIST": "kmnist"}
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

TABLE_SUFFIXES = (".csv", ".parquet")
ARRAY_SUFFIXES = (".npz", ".npy", *TABLE_SUFFIXES)

# The cache keeps this many hashes, of files that have not changed for this long.
MOST_CACHED, SETTLED_SECONDS = 100, 2.0


class ImageFiles(NamedTuple):
    """Image files, each with the index of its class; `test` is None if there is no test folder.

    passed_over: files of other types beside them, except hidden ones.
    """

    classes: tuple[str, ...]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]] | None
    passed_over: list[Path]


def digits_file() -> Path:
    """The file of scikit-learn's 1,797 digits: one line per image, 64 values from 0 to 16 and the label.

    Raises:
        ConfigError: scikit-learn is not installed, or lacks the file.
    """
    # Only looked up: importing scikit-learn takes more than a second.
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "data=digits: its images come with scikit-learn, which is not installed; pip install scikit-learn"
        )
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise ConfigError(f"data=digits: scikit-learn lacks {path}; reinstall it")
    return path


def idx_files(dataset: str, root: str) -> tuple[Path, ...] | None:
    """The four files of `dataset`, in the order of `IDX_FILES`; None if there are none.

    They are in `<root>/<dataset>/raw` (like torchvision's), `<root>/<dataset>`, `<root>/raw` or `<root>`, or
    where Debian installs data sets. Each may be a .gz, and may have a dot before `idx`, like Kaggle's.

    Raises:
        ConfigError: some of the four are missing.
    """
    top = Path(root).expanduser()
    system = SYSTEM_DATA / SYSTEM_NAMES[dataset]
    for folder in (top / dataset / "raw", top / dataset, top / "raw", top, system):
        found = {
            name: path
            for name in IDX_FILES
            for spelling in (name.replace("-idx", ".idx"), name)
            for path in (folder / f"{spelling}.gz", folder / spelling)
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


def torchvision_files(source: str, root: str, split: str | None = None) -> tuple[Path, ...] | None:
    """The files of a data set of `TORCHVISION`, as torchvision leaves them; None if there are none.

    Raises:
        ConfigError: some of them are missing.
    """
    below, names = TORCHVISION[source]
    folder = Path(root).expanduser() / below
    files = [folder / name.format(split=split) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing and len(missing) < len(files):
        raise ConfigError(
            f"data.root={root}: {folder} has no {', '.join(missing)}; add it, or remove the other files "
            "there to have the data set downloaded"
        )
    return None if missing else tuple(files)


def idx_name(path: Path) -> str:
    """Which of `IDX_FILES` a file is."""
    return path.name.removesuffix(".gz").replace(".idx", "-idx")


def open_idx(path: Path) -> BinaryIO:
    """The unpacked content of a plain or .gz file."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def image_files(root: str) -> ImageFiles:
    """The images in `<root>/<class>/`, or in `<root>/train/<class>/` and `<root>/test/<class>/`.

    The two may also be called `training` and `testing`. Classes are sorted by name, or by value
    if all are numbers; images by name. Hidden files and folders are ignored.

    Raises:
        ConfigError: no such folder, a class without images, or something that fits neither layout.
    """
    top = Path(root).expanduser()
    if not top.is_dir():
        raise ConfigError(
            f"data.root={root}: no such folder; must be a folder with one subfolder of images per class"
        )
    folders, _, others = listing(top)
    train = [folder for folder in folders if folder.name.lower() in ("train", "training")]
    test = [folder for folder in folders if folder.name.lower() in ("test", "testing")]
    if train and not test and listing(train[0])[0]:
        raise ConfigError(
            f"data.root={root}: has {', '.join(folder.name for folder in folders)}, but no test; to cut "
            f"validation and test from {train[0].name}, use data.root={train[0]}; to test on other images, "
            "rename their folder to test"
        )
    if not train or not test:
        classes, files, others = class_images(top)
        return ImageFiles(classes, files, None, others)
    if len(folders) > 2:
        raise ConfigError(
            f"data.root={root}: has {', '.join(folder.name for folder in folders)}; must be one folder for "
            "training and one for test; validation is cut from training, so move its images there"
        )
    classes, train_files, train_others = class_images(train[0])
    test_classes, test_files, test_others = class_images(test[0])
    if classes != test_classes:
        names = ", ".join(sorted({*classes} ^ {*test_classes})[:5])
        raise ConfigError(
            f"data.root={root}: {train[0].name} and {test[0].name} differ in their classes: {names}"
        )
    return ImageFiles(classes, train_files, test_files, [*others, *train_others, *test_others])


def listing(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The subfolders of a folder, its images and its other files, sorted by name, without hidden ones."""
    folders, images, others = list[Path](), list[Path](), list[Path]()
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                is_image = entry.name.lower().endswith(IMAGE_SUFFIXES)
                (folders if entry.is_dir() else images if is_image else others).append(path)
    except OSError as error:
        raise ConfigError(f"data.root: {folder} cannot be read: {error.strerror}") from error
    return folders, images, others


def class_images(top: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[Path]]:
    """The names of a folder's subfolders, all images in them with their class index, and other files."""
    folders, loose, passed_over = listing(top)
    if loose:
        raise ConfigError(
            f"data.root: {loose[0]} belongs to no class; images must be in one subfolder per class"
        )
    if len(folders) < 2:
        raise ConfigError(f"data.root: {top} has {len(folders)} class folder(s); must have two or more")
    if all(folder.name.isdecimal() for folder in folders):
        folders.sort(key=lambda folder: (int(folder.name), folder.name))
    files = []
    for index, folder in enumerate(folders):
        nested, images, others = listing(folder)
        if nested:
            raise ConfigError(
                f"data.root: {nested[0]} is a folder within the class {folder.name}; must be "
                "<root>/<class>/<image>, or the same within <root>/train and <root>/test"
            )
        if not images:
            beside = f", only {', '.join(path.name for path in others[:3])}" if others else ""
            raise ConfigError(
                f"data.root: the class {folder} has no images ({' '.join(IMAGE_SUFFIXES)}){beside}; "
                "add some or remove it"
            )
        files += [(image, index) for image in images]
        passed_over += others
    return tuple(folder.name for folder in folders), files, passed_over


def text_of(cfg: Mapping[str, Any]) -> str:
    """What is read of a data configuration, as JSON: cuts and augmentation do not change it."""
    return json.dumps({key: value for key, value in cfg.items() if key not in CUTS}, sort_keys=True)


def note(cfg: Mapping[str, Any]) -> str:
    """A note on files of a data configuration that are not read; often empty.

    Raises:
        ConfigError: the files are missing or incomplete, or do not fit the layout.
    """
    module, _, source = str(cfg["_target_"]).rpartition(".")
    if module != "fairsweep.data":
        return ""
    if source == "mnist":
        idx_files(cfg["dataset"], cfg["root"])
    if source in TORCHVISION:
        torchvision_files(source, cfg["root"], cfg.get("split"))
    if source != "image_folder":
        return ""
    return not_read(f"data.root={cfg['root']}", image_files(cfg["root"]).passed_over)


def not_read(where: str, files: Sequence[Path]) -> str:
    """How many files are not images, with some of their names; empty if there are none."""
    if not files:
        return ""
    suffixes = Counter(path.suffix.lower() or "without a suffix" for path in files)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
    names = ", ".join(path.name for path in files[:3]) + (", ..." if len(files) > 3 else "")
    return printable(f"{where}: {counted(len(files), 'file')} of other types not read: {kinds} ({names})")


def fingerprint(cfg: Mapping[str, Any], cache: Path | None = None) -> str | None:
    """A hash (32 hex digits) of the content of a data configuration, independent of its path.

    Args:
        cfg: `data` of a run's configuration.
        cache: a file that keeps hashes by the names, sizes and times of the hashed files.

    Returns:
        None if the files are still to be downloaded, or the data must be read to know.

    Raises:
        ConfigError: the files are incomplete or cannot be read.
    """
    module, _, source = str(cfg["_target_"]).rpartition(".")
    if module != "fairsweep.data":
        return None
    how = {key: cfg[key] for key in ("dataset", "channels", "size", "split") if key in cfg}
    head = json.dumps([source, how]).encode()
    try:
        if source == "digits":
            return cached(cache, head, [digits_file()], Path.read_bytes)
        if source == "mnist":
            files = idx_files(cfg["dataset"], cfg["root"])
            return None if files is None else cached(cache, head, files, unpacked)
        if source == "arrays":
            return arrays_fingerprint(cfg, cache)
        if source in TORCHVISION:
            found = torchvision_files(source, cfg["root"], cfg.get("split"))
            return None if found is None else cached(cache, head, found, Path.read_bytes)
        if source == "image_folder":
            classes, train, test, _ = image_files(cfg["root"])
            head += json.dumps([classes, len(train)]).encode()
            labels = dict(train + (test or []))

            def labelled(path: Path) -> bytes:
                content = path.read_bytes()
                # Names of files need not be UTF-8.
                return b"%d/%s/%d\n" % (labels[path], os.fsencode(path.name), len(content)) + content

            return cached(cache, head, list(labels), labelled)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data: a file cannot be read: {error}") from error
    return None


def arrays_fingerprint(cfg: Mapping[str, Any], cache: Path | None) -> str:
    """The hash of the files of `data=arrays`, and of how they are read."""
    keys = ("file", "targets_file", "test_file", "test_targets_file")
    given = [key for key in keys if cfg[key] is not None]
    how = {"files": given, **{key: cfg[key] for key in ("inputs", "target", "task")}}
    paths = [existing(f"data.{key}={cfg[key]}", cfg[key]) for key in given]
    return cached(cache, json.dumps(["arrays", how]).encode(), paths, Path.read_bytes)


def existing(where: str, file: str) -> Path:
    """The path of a file of a kind that we read."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; must be a file that ends in {', '.join(ARRAY_SUFFIXES)}")
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise ConfigError(f"{where}: must be a file that ends in {', '.join(ARRAY_SUFFIXES)}")
    return path


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return path.suffix.lower() in TABLE_SUFFIXES


def unpacked(path: Path) -> bytes:
    """The content of a plain or .gz file."""
    with open_idx(path) as file:
        return file.read()


def cached(cache: Path | None, head: bytes, files: Sequence[Path], read: Callable[[Path], bytes]) -> str:
    """The hash of `head` and what `read` returns for each file; from the cache if no file has changed."""
    stats = [path.stat() for path in files]
    stamp = hashlib.blake2b(head, digest_size=16)
    for path, stat in zip(files, stats, strict=True):
        stamp.update(repr((str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)).encode())
    key = stamp.hexdigest()
    known = read_cache(cache)
    if key in known:
        return known[key]
    digest = hashlib.blake2b(head, digest_size=16)
    for path in files:
        digest.update(read(path))
    found = digest.hexdigest()
    # A file that has just changed may change again within the resolution of its timestamp.
    is_settled = max(stat.st_ctime for stat in stats) < time.time() - SETTLED_SECONDS
    # The command may still be refused, and must then leave no folder behind.
    if cache is not None and cache.parent.is_dir() and is_settled:
        newest = dict([*known.items(), (key, found)][-MOST_CACHED:])
        with suppress(OSError):  # it only saves time
            write_atomically(cache, json.dumps(newest, indent=1).encode())
    return found


def read_cache(cache: Path | None) -> dict[str, str]:
    """The hashes in the cache file; none if it is missing or damaged."""
    try:
        content = json.loads(cache.read_bytes()) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
