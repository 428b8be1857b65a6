import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from fairsweep import data
from fairsweep.config import ROOT, RULES, ConfigError, leaves
from fairsweep.launch import origins
from fairsweep.runs import session
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.training import dataset, sources
from fairsweep.training.dataset import Data
from fairsweep.training.source import Source, Split
from fairsweep.training.sources import IDX_FILES, fingerprint, note

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def prepare(source: Source, **settings: Any) -> Data:
    defaults = {
        "val_size": 0.2,
        "val_seed": 0,
        "test_size": 0.2,
        "limit": None,
        "mean": None,
        "std": None,
    }
    return dataset.prepare("some", source, "f00d", **defaults | settings)


def numbered(counts: list[int], channels: int = 1) -> Split:
    """Images that tell themselves apart: the first two pixels are the index; sorted by class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.zeros(len(labels), channels, 8, 8, dtype=torch.uint8)
    index = torch.arange(len(labels))
    images[:, :, 0, 0], images[:, :, 0, 1] = (index // 256)[:, None], (index % 256)[:, None]
    return Split(images, labels)


def indices(split: Split) -> list[int]:
    pixels = split.inputs[:, 0, 0].long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def write_idx(path: Path, array: Pixels) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_dataset(folder: Path, suffix: str = "", train: int = 40, test: int = 20) -> None:
    random = np.random.default_rng(0)
    for (images, labels), count in zip((IDX_FILES[:2], IDX_FILES[2:]), (train, test), strict=True):
        write_idx(folder / (images + suffix), random.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(folder / (labels + suffix), np.arange(count, dtype=np.uint8) % 10)


def write_images(root: Path, classes: dict[str, int], suffix: str = ".png") -> None:
    for grey, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((28, 28), 20 * grey + index, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}{suffix}")


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(dataset: str, root: str) -> None:
        raise AssertionError(f"a download of {dataset} was tried")

    monkeypatch.setattr(data, "download", fail)


# Sources


def test_digits_have_the_form_of_mnist() -> None:
    train, test, classes = data.digits()[:3]
    assert train.inputs.shape == (1797, 1, 28, 28)
    assert train.inputs.dtype == torch.uint8
    assert train.targets.dtype == torch.int64
    assert test is None
    assert classes == tuple("0123456789")
    assert train.targets[:10].tolist() == list(range(10))
    assert train.inputs.max() == 255
    frame = train.inputs.clone()
    frame[:, :, 4:24, 4:24] = 0
    assert frame.max() == 0
    assert prepare(data.digits()).facts()["extent"] == pytest.approx(20 / 28, abs=0.08)


def test_digits_and_fingerprints_import_neither_sklearn_nor_torch() -> None:
    code = (
        "import sys; from fairsweep.training.sources import fingerprint;"
        "assert fingerprint({'_target_': 'fairsweep.data.digits'});"
        "assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules);"
        "from fairsweep.data import digits; digits();"
        "assert not {'sklearn', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


def test_real_mnist_is_read_whole(real_mnist: str, no_download: None) -> None:
    source = data.mnist(real_mnist)
    assert source.train.inputs.shape == (60000, 1, 28, 28)
    assert source.test is not None
    assert len(source.test) == 10000
    assert source.train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    ready = prepare(source, val_size=0)
    assert ready.mean == pytest.approx((0.13066047,), abs=1e-7)
    assert ready.std == pytest.approx((0.30810780,), abs=1e-7)
    assert ready.facts()["background"] == "dark"
    assert ready.facts()["extent"] == pytest.approx(20 / 28, abs=0.02)


def test_an_altered_mnist_file_is_refused(real_mnist: str, tmp_path: Path) -> None:
    for name in IDX_FILES:
        (tmp_path / name).write_bytes((Path(real_mnist) / "MNIST" / "raw" / name).read_bytes())
    labels = tmp_path / IDX_FILES[3]
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{labels} .*MD5 is \w+, expected 27ae3e4e"):
        data.mnist(str(tmp_path))


def test_mnist_is_not_taken_for_another_data_set(real_mnist: str) -> None:
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte is MNIST's.*KMNIST"):
        data.mnist(str(Path(real_mnist) / "MNIST" / "raw"), "KMNIST")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "raw", "."])
def test_idx_files_are_read_where_they_lie(
    tmp_path: Path, folder: str, suffix: str, no_download: None
) -> None:
    write_dataset(tmp_path / folder, suffix)
    train, test, classes = data.mnist(str(tmp_path), "FashionMNIST")[:3]
    assert train.inputs.shape == (40, 1, 28, 28)
    assert train.inputs[0, 0, 0, 0] == np.random.default_rng(0).integers(0, 256, (1,), np.uint8)[0]
    assert test is not None
    assert test.targets.tolist() == [*range(10), *range(10)]
    assert classes[9] == "Ankle boot"


def cut_short(folder: Path) -> None:
    path = folder / IDX_FILES[0]
    path.write_bytes(path.read_bytes()[:-1])


def cut_within_header(folder: Path) -> None:
    (folder / IDX_FILES[0]).write_bytes(bytes((0, 0, 8, 3, 0, 0)))


def swap_magic(folder: Path) -> None:
    (folder / IDX_FILES[1]).write_bytes((folder / IDX_FILES[0]).read_bytes())


def drop_one(folder: Path) -> None:
    (folder / IDX_FILES[2]).unlink()


def empty_one(folder: Path) -> None:
    (folder / IDX_FILES[3]).write_bytes(b"")


def label_too_large(folder: Path) -> None:
    write_idx(folder / IDX_FILES[3], np.full(20, 10, np.uint8))


def labels_too_few(folder: Path) -> None:
    write_idx(folder / IDX_FILES[1], np.zeros(39, np.uint8))


def other_size(folder: Path) -> None:
    write_idx(folder / IDX_FILES[0], np.zeros((40, 32, 32), np.uint8))


def cut_gzip(folder: Path) -> None:
    path = folder / IDX_FILES[0]
    (folder / f"{IDX_FILES[0]}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()


def not_gzip(folder: Path) -> None:
    (folder / IDX_FILES[0]).rename(folder / f"{IDX_FILES[0]}.gz")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_short, r"train-images-idx3-ubyte is truncated .*31375 bytes, expected 31376"),
        (cut_within_header, r"train-images-idx3-ubyte is truncated .*6 bytes, expected 16"),
        (swap_magic, r"train-labels-idx1-ubyte is not an idx .*0x00000803, expected 0x00000801"),
        (drop_one, r"data.root=.* has no t10k-images-idx3-ubyte .*KMNIST downloaded"),
        (empty_one, r"t10k-labels-idx1-ubyte is not an idx file .*expected 0x00000801"),
        (label_too_large, r"t10k-labels-idx1-ubyte has a label 10, expected 0 to 9"),
        (labels_too_few, r"40 x 28 x 28 pixels for 39 labels"),
        (other_size, r"40 x 32 x 32 pixels .*expected 40 x 28 x 28"),
        (cut_gzip, r"train-images-idx3-ubyte.gz cannot be read"),
        (not_gzip, r"train-images-idx3-ubyte.gz cannot be read: Not a gzipped file"),
    ],
)
def test_damaged_files_are_named_and_never_replaced(
    tmp_path: Path, no_download: None, damage: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "KMNIST" / "raw"
    write_dataset(folder)
    damage(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(ConfigError, match=told):
        data.mnist(str(tmp_path), "KMNIST")
    assert sorted(folder.iterdir()) == before


def test_a_download_leaves_all_four_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = False

    def fake(root: str, download: bool) -> None:
        assert download
        write_dataset(Path(root) / "KMNIST" / "raw")
        if not complete:
            (Path(root) / "KMNIST" / "raw" / IDX_FILES[3]).unlink()
            raise RuntimeError("Error downloading:\nno network")

    monkeypatch.setattr("torchvision.datasets.KMNIST", fake)
    root = tmp_path / "new"
    told = r"data.root=.*KMNIST .*cannot be downloaded \(no network\); .*train-images-idx3-ubyte"
    with pytest.raises(ConfigError, match=told):
        data.mnist(str(root), "KMNIST")
    assert list(tmp_path.iterdir()) == []  # the root may be a typing error
    complete = True
    assert len(data.mnist(str(root), "KMNIST").train) == 40
    assert [path.name for path in root.iterdir()] == ["KMNIST"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_names_with_a_dot_are_read_and_hashed_as_those_with_a_dash(tmp_path: Path, suffix: str) -> None:
    write_dataset(tmp_path / "dash")
    write_dataset(tmp_path / "dot", suffix)
    for path in (tmp_path / "dot").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    hashes = {
        fingerprint({"_target_": "fairsweep.data.mnist", "dataset": "KMNIST", "root": str(tmp_path / name)})
        for name in ("dash", "dot")
    }
    assert len(hashes) == 1
    assert len(data.mnist(str(tmp_path / "dot"), "KMNIST").train) == 40


def test_a_data_set_that_the_system_installed_is_read_in_place(
    tmp_path: Path, no_download: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SYSTEM_DATA", tmp_path / "system")
    write_dataset(tmp_path / "system" / "fashion-mnist", ".gz")
    assert len(data.mnist(str(tmp_path / "mine"), "FashionMNIST").train) == 40
    assert not (tmp_path / "mine").exists()


# Image folders


@pytest.mark.parametrize(
    "suffix", [".png", ".bmp", ".gif", ".JPG", ".jfif", ".tiff", ".webp", ".pgm", ".jp2"]
)
def test_image_folder_reads_common_formats(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, {"b": 3, "a": 2}, suffix)
    train, test, classes = data.image_folder(str(tmp_path))[:3]
    assert test is None
    assert classes == ("a", "b")
    assert train.targets.tolist() == [0, 0, 1, 1, 1]
    greys = train.inputs.float().mean(dim=(1, 2, 3))
    assert torch.allclose(greys, torch.tensor([20.0, 21, 0, 1, 2]), atol=2)


def test_image_folder_turns_colours_and_sizes_into_what_is_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 1, "b": 1})
    Image.new("RGB", (300, 200), (200, 100, 0)).save(tmp_path / "a" / "0.jpg")
    Image.new("RGBA", (5, 9), (0, 0, 0, 0)).save(tmp_path / "b" / "0.png")
    deep = np.full((28, 28), 257 * 77, np.uint16)
    Image.fromarray(deep).save(tmp_path / "b" / "16bit.png")
    train = data.image_folder(str(tmp_path), channels=3, size=14).train
    assert train.inputs.shape == (4, 3, 14, 14)
    colour = torch.tensor([200, 100, 0])[:, None, None]
    assert (train.inputs[0].int() - colour).abs().max() <= 3
    assert (train.inputs[2] == 255).all()  # transparent
    assert (train.inputs[3] == 77).all()
    grey = data.image_folder(str(tmp_path), channels=1, size=20).train
    assert grey.inputs.shape == (4, 1, 20, 20)
    assert grey.inputs[0].float().mean().item() == pytest.approx(118.5, abs=2)


@pytest.mark.parametrize("names", [("train", "test"), ("training", "testing")])
def test_train_and_test_folders_are_the_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    classes = dict.fromkeys(map(str, range(11)), 4)
    write_images(tmp_path / names[0], classes)
    write_images(tmp_path / names[1], dict.fromkeys(classes, 2))
    (tmp_path / ".cache").mkdir()
    (tmp_path / names[0] / "3" / ".DS_Store").write_bytes(b"x")
    (tmp_path / names[0] / "3" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "README.md").touch()
    for name in ("1.heic", "2.HEIC", "\x1b[2J.heic"):
        (tmp_path / names[1] / "3" / name).touch()
    cfg = {"_target_": "fairsweep.data.image_folder", "root": str(tmp_path)}
    assert note(cfg) == (
        f"data.root={tmp_path}: 5 files of other types not read: 3 .heic, 1 .md, 1 .db "
        r"(README.md, Thumbs.db, \x1b[2J.heic, ...)"
    )
    source = data.image_folder(str(tmp_path))
    assert source.classes == tuple(map(str, range(11)))  # 10 after 9
    assert source.train.targets.bincount().tolist() == [4] * 11
    assert source.test is not None
    ready = prepare(source, test_size=0.9)
    assert len(ready.test) == 22
    assert len(ready.train) + len(ready.val) == 44


def test_files_that_are_not_read_are_named_once_by_a_run_and_by_a_sweep(
    tmp_path: Path, compose: Callable[..., DictConfig]
) -> None:
    root = tmp_path / "images"
    write_images(root, {"a": 20, "b": 20})
    (root / "a" / "1.heic").touch()
    quick = ("model=mlp", "trainer=smoke", "trainer.batch_size=8", "record.pictures=none")
    cfg = compose("data=image_folder", f"data.root={root}", *quick)
    output = StringIO()
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(file=output, width=500)))
    told = f"data.root={root}: 1 file of other types not read: 1 .heic (1.heic)"
    assert output.getvalue().count(told) == 1
    assert told in (outcome.folder.path / "run.log").read_text()
    other = OmegaConf.merge(cfg, {"seed": 1, "data": {"size": 14}})
    assert origins.notes(json.dumps(OmegaConf.to_container(c)) for c in (cfg, other, compose())) == [told]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path, {"train": 2, "plane": 2})
    assert data.image_folder(str(tmp_path)).classes == ("plane", "train")


def no_folder(root: Path) -> None:
    (root / "a").rename(root.parent / "elsewhere")
    (root / "b").rename(root / "train")


def class_without_images(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "empty" / "1\x1b.heic").touch()
    (root / "empty" / ".hidden.png").write_bytes(b"x")


def broken_images(root: Path) -> None:
    for index in range(5):
        (root / "a" / f"broken{index}.png").write_bytes(b"no image")
    whole = (root / "b" / "0.png").read_bytes()
    (root / "b" / "0.png").write_bytes(whole[: len(whole) // 2])


def nested(root: Path) -> None:
    write_images(root / "a", {"inner": 1})


def loose(root: Path) -> None:
    (root / "a" / "0.png").rename(root / "loose.png")


def more_than_two_parts(root: Path) -> None:
    for part in ("train", "test", "val"):
        write_images(root / part, {"a": 1, "b": 1})


def val_without_test(root: Path) -> None:
    for part in ("train", "val"):
        write_images(root / part, {"a": 1, "b": 1})


def other_test_classes(root: Path) -> None:
    for name in ("a", "b"):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()
    write_images(root / "train", {"a": 1, "b": 1})
    write_images(root / "test", {"a": 1, "c": 1})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (no_folder, r"has 1 class folder\(s\); must have two or more"),
        (class_without_images, r"class \S+/empty has no images .*, only 1\\x1b.heic; add some"),
        (
            broken_images,
            r"6 unreadable images: \S+broken0.png, \S+1.png, \S+2.png, \.\.\. \(must be an image in one of",
        ),
        (nested, r"a/inner is a folder within the class a; .*<root>/<class>/<image>"),
        (loose, r"loose.png belongs to no class"),
        (
            more_than_two_parts,
            r"has a, b, test, train, val; must be one folder for training and one for test",
        ),
        (val_without_test, r"has a, b, train, val, but no test; .* use data.root=\S+/train; .*to test$"),
        (other_test_classes, r"train and test differ in their classes: b, c"),
    ],
)
def test_a_folder_that_is_not_in_order_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    root = tmp_path / "images"
    write_images(root, {"a": 2, "b": 2})
    damage(root)
    with pytest.raises(ConfigError, match=told):
        data.image_folder(str(root))


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.root=\S+/none: no such folder"):
        data.image_folder(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"has 0 class folder\(s\)"):
        data.image_folder(str(tmp_path))


# Splits and statistics


def test_splits_are_disjoint_complete_stratified_and_fixed_by_val_seed() -> None:
    source = Source(numbered([100, 50, 10]), None, ("a", "b", "c"))
    ready = prepare(source)
    parts = [indices(part) for part in (ready.train, ready.val, ready.test)]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(160))
    assert ready.test.targets.bincount().tolist() == [20, 10, 2]
    assert ready.val.targets.bincount().tolist() == pytest.approx([16, 8, 2], abs=1)
    for part in (ready.train, ready.val, ready.test):
        assert torch.equal(source.train.targets[indices(part)], part.targets)
    again = prepare(source)
    assert [indices(part) for part in (again.train, again.val, again.test)] == parts
    assert indices(prepare(source, val_seed=1).val) != parts[1]


def test_an_official_test_split_is_left_as_it_is() -> None:
    test = numbered([3, 4])
    ready = prepare(Source(numbered([20, 20]), test, ("a", "b")), val_size=7)
    assert ready.test is test
    assert (len(ready.train), len(ready.val)) == (33, 7)


def test_size_zero_is_an_empty_split() -> None:
    ready = prepare(Source(numbered([20, 20]), None, ("a", "b")), val_size=0, test_size=0)
    assert (len(ready.train), len(ready.val), len(ready.test)) == (40, 0, 0)
    assert ready.val.inputs.shape == (0, 1, 8, 8)


def test_a_limit_keeps_all_classes_and_the_splits_apart() -> None:
    source = Source(numbered([400, 300, 4]), None, ("a", "b", "c"))
    whole, small = prepare(source), prepare(source, limit=20)
    for name in ("train", "val", "test"):
        part = getattr(small, name)
        assert len(part) == 20
        assert set(indices(part)) <= set(indices(getattr(whole, name)))
    assert all(small.train.targets.bincount() >= 1)
    assert small.train.targets.bincount()[:2].tolist() == pytest.approx([11, 8], abs=1)
    assert indices(prepare(source, limit=10**6).train) == indices(whole.train)


@pytest.mark.parametrize(
    ("key", "size"), [("val_size", 64), ("val_size", 63), ("val_size", 0.999), ("test_size", 80)]
)
def test_a_cut_that_leaves_too_little_is_refused(key: str, size: float) -> None:
    source = Source(numbered([40, 40]), None, ("a", "b"))
    with pytest.raises(ConfigError, match=rf"data.{key}={size}: must leave 2 or more of the \d\d"):
        prepare(source, **{key: size})


def test_statistics_are_those_of_the_training_split_exactly() -> None:
    images = torch.randint(0, 256, (2500, 3, 8, 8), dtype=torch.uint8)
    ready = prepare(Source(Split(images, torch.arange(2500) % 5), None, tuple("abcde")))
    scaled = ready.train.inputs.double() / 255
    dims = (0, 2, 3)
    assert ready.mean == pytest.approx(scaled.mean(dims).tolist(), rel=1e-12)
    assert ready.std == pytest.approx(scaled.std(dims, correction=0).tolist(), rel=1e-12)


def test_mean_and_std_can_be_given() -> None:
    source = Source(numbered([20, 20], channels=3), None, ("a", "b"))
    ready = prepare(source, mean=0.5, std=[0.1, 0.2, 1])
    assert ready.mean == (0.5, 0.5, 0.5)
    assert ready.std == (0.1, 0.2, 1.0)
    assert prepare(source, mean=0.5).std == prepare(source).std


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mean": [0.1, 0.2]}, r"data.mean=\[0.1, 0.2\]: .*one for each of the 1 channel"),
        ({"mean": 33.3}, r"data.mean=33.3: must be from 0 to 1"),
        ({"std": float("nan")}, r"data.std=nan: must be from 0 to 1"),
        ({"std": 0}, r"data.std=0: must be above 0"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        prepare(Source(numbered([20, 20]), None, ("a", "b")), **settings)


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (
            torch.rand(6, 1, 8, 8).double(),
            torch.arange(6) % 2,
            r"inputs of torch.float64 \(6, 1, 8, 8\); must be one or more torch.uint8",
        ),
        (np.zeros((6, 1, 8, 8), np.uint8), torch.arange(6) % 2, "inputs of uint8 .*; must be one or more"),
        (
            torch.zeros(0, 1, 8, 8, dtype=torch.uint8),
            torch.arange(0),
            r"inputs of torch.uint8 \(0, 1, 8, 8\); must be one or more",
        ),
        (
            numbered([3, 3]).inputs,
            torch.arange(5) % 2,
            r"targets of torch.int64 \(5,\); must be torch.int64 \(6,\)",
        ),
        (numbered([3, 3]).inputs, torch.rand(6), "targets of torch.float32 .*must be torch.int64"),
        (numbered([3, 3]).inputs, torch.arange(6), "labels from 0 to 5; must be 0 to 1, one for each class"),
        (numbered([3, 3]).inputs, torch.arange(6) - 5, "labels from -5 to 0; must be 0 to 1"),
    ],
)
def test_a_source_that_is_not_what_training_expects_is_refused(
    images: torch.Tensor, labels: torch.Tensor, told: str
) -> None:
    good, bad = numbered([3, 3]), Split(images, labels)
    for source in (Source(bad, None, ("a", "b")), Source(good, bad, ("a", "b"))):
        with pytest.raises(ConfigError, match=f"data: {told}"):
            source.check()


def test_splits_of_different_shapes_and_images_without_channels_are_refused() -> None:
    flat = Split(torch.zeros(4, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    for train, test in ((numbered([2, 2]), numbered([2, 2], channels=3)), (flat, None)):
        with pytest.raises(ConfigError, match=r"data: (test )?inputs of torch.uint8 \(4, .*; must be"):
            Source(train, test, ("a", "b")).check()


def test_augmentation_beyond_the_image_is_refused() -> None:
    ready = prepare(Source(numbered([20, 20]), None, ("a", "b")))
    for name in ("shift", "crop", "cutout"):
        with pytest.raises(ConfigError, match=rf"data.augment.{name}=8: must be below 8"):
            ready.augmented(**{name: 8})


def test_images_without_any_contrast_are_refused() -> None:
    blank = Split(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10) % 2)
    with pytest.raises(ConfigError, match=r"data.std=null: all training pixels .* are equal"):
        prepare(Source(blank, None, ("a", "b")))


@pytest.mark.parametrize(("background", "ink", "told"), [(0, 255, "dark"), (240, 10, "light")])
def test_facts_tell_background_and_extent(background: int, ink: int, told: str) -> None:
    images = torch.full((20, 3, 20, 40), background, dtype=torch.uint8)
    images[:, :, 5:15, 10:14] = ink  # half the height, a tenth of the width
    ready = prepare(Source(Split(images, torch.arange(20) % 2), None, ("a", "b")))
    facts = json.loads(json.dumps(ready.facts()))
    assert facts["background"] == told
    assert facts["extent"] == 0.5
    assert facts["shape"] == [3, 20, 40] == list(ready.shape)
    assert facts["classes"] == ["a", "b"]
    assert (facts["name"], facts["fingerprint"]) == ("some", "f00d")
    assert facts["mean"] == list(ready.mean)


def test_data_moves_as_a_whole() -> None:
    moved = prepare(Source(numbered([20, 20]), None, ("a", "b"))).to("meta")
    for part in (moved.train, moved.val, moved.test):
        assert part.inputs.device.type == part.targets.device.type == "meta"


# Fingerprints


def test_a_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    def of(folder: str) -> str | None:
        root = str(tmp_path / folder)
        return fingerprint({"_target_": "fairsweep.data.mnist", "dataset": "KMNIST", "root": root})

    write_dataset(tmp_path / "one" / "KMNIST" / "raw")
    write_dataset(tmp_path / "two", ".gz")
    assert of("one") == of("two")
    assert of("one") is not None
    assert of("none") is None
    label_too_large(tmp_path / "one" / "KMNIST" / "raw")
    assert of("one") != of("two")
    drop_one(tmp_path / "one" / "KMNIST" / "raw")
    with pytest.raises(ConfigError, match="has no t10k-images"):
        of("one")
    cut = tmp_path / "two" / f"{IDX_FILES[0]}.gz"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="cannot be read"):
        of("two")


def test_a_folders_fingerprint_follows_names_content_and_settings(tmp_path: Path) -> None:
    def of(folder: str, size: int = 28) -> str | None:
        root = str(tmp_path / folder)
        target = "fairsweep.data.image_folder"
        return fingerprint({"_target_": target, "root": root, "channels": 1, "size": size})

    for folder in ("one", "two"):
        write_images(tmp_path / folder, {"a": 2, "b": 2})
    (tmp_path / "two" / ".hidden").write_bytes(b"x")
    assert of("one") == of("two")
    assert of("one") != of("one", size=14)
    (tmp_path / "two" / "a" / "0.png").rename(tmp_path / "two" / "b" / "7.png")
    assert of("one") != of("two")
    with pytest.raises(ConfigError, match="no such folder"):
        of("none")


def test_names_of_classes_and_images_need_not_be_text(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "b").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    cfg = {"_target_": "fairsweep.data.image_folder", "root": str(tmp_path), "channels": 1, "size": 28}
    assert fingerprint(cfg) is not None
    facts = prepare(data.image_folder(str(tmp_path)), val_size=0, test_size=0).facts()
    assert json.loads(json.dumps(facts))["classes"] == ["a", "caf\udce9"]


def test_fingerprints_of_unknown_sources_are_unknown() -> None:
    assert fingerprint({"_target_": "fairsweep.data.something"}) is None


# Configuration


def composed(choice: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        group = hydra_compose(f"data/{choice}").data
    assert isinstance(group, DictConfig)
    return group


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("digits", {"_target_": "fairsweep.data.digits", "val_size": 0.2}),
        ("mnist", {"_target_": "fairsweep.data.mnist", "dataset": "MNIST", "val_size": 5000}),
        (
            "fashion_mnist",
            {"_target_": "fairsweep.data.mnist", "dataset": "FashionMNIST", "val_size": 5000},
        ),
        ("kmnist", {"_target_": "fairsweep.data.mnist", "dataset": "KMNIST", "val_size": 5000}),
        (
            "image_folder",
            {"_target_": "fairsweep.data.image_folder", "channels": 1, "size": 28, "val_size": 0.2},
        ),
    ],
)
def test_each_data_set_composes(
    choice: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRSWEEP_DATA", raising=False)
    group = composed(choice)
    common = {
        "name": choice,
        "val_seed": 0,
        "test_size": 0.2,
        "limit": None,
        "mean": None,
        "std": None,
        "augment": {"shift": 0, "rotate": 0, "flip": False, "crop": 0, "cutout": 0},
    }
    if "dataset" in group:
        expected = expected | {"root": str(ROOT / "outputs" / "data")}
    if choice == "image_folder":
        assert OmegaConf.is_missing(group, "root")
        group.root = "somewhere"
        expected = expected | {"root": "somewhere"}
    values = OmegaConf.to_container(group, resolve=True)
    assert values == expected | common
    for key, value in leaves({"data": values}).items():
        assert RULES[key].holds(value), key


def test_the_data_folder_can_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSWEEP_DATA", "/somewhere/else")
    assert composed("kmnist").root == "/somewhere/else"
