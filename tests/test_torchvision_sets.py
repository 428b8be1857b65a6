"""CIFAR, SVHN and EMNIST from small files in their true formats."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from omegaconf import DictConfig
from torchvision import datasets

from fairsweep import data
from fairsweep.config import ConfigError
from fairsweep.training import build
from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit
from fairsweep.training.sources import fingerprint, torchvision_files

Compose = Callable[..., DictConfig]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_cifar(root: Path, patch: pytest.MonkeyPatch, kind: type[datasets.CIFAR10], count: int = 20) -> Path:
    """Batches of `count` images, whose pixels are their numbers, and checksums that are right for them."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    labels = "labels" if kind is datasets.CIFAR10 else "fine_labels"
    classes = [f"class {number}" for number in range(10)]
    files = [name for name, _ in [*kind.train_list, *kind.test_list]]
    for number, name in enumerate(files):
        images = np.zeros((count, 3, 32, 32), np.uint8)
        images[:, 0, 0, :] = np.arange(32)  # red, in the first row
        images[:, 1, 1, :] = 9
        images[:, 2] = number
        batch = {"data": images.reshape(count, -1), labels: [one % 10 for one in range(count)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: classes}))
    for which in ("train_list", "test_list"):
        patch.setattr(kind, which, [[name, md5(folder / name)] for name, _ in getattr(kind, which)])
    patch.setattr(kind, "meta", kind.meta | {"md5": md5(meta)})
    return folder


@pytest.mark.parametrize(
    ("read", "kind", "batches"), [(data.cifar10, datasets.CIFAR10, 5), (data.cifar100, datasets.CIFAR100, 1)]
)
def test_cifar_is_read_by_channel_row_and_column(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[str], Any],
    kind: type[datasets.CIFAR10],
    batches: int,
) -> None:
    write_cifar(tmp_path, monkeypatch, kind)
    source = read(str(tmp_path))
    source.check()
    assert source.train.inputs.shape == (20 * batches, 3, 32, 32)
    assert source.train.inputs[0, 0, 0].tolist() == [*range(32)]
    assert source.train.inputs[:, 2, 5, 5].unique().tolist() == [*range(batches)]
    assert source.test.targets.tolist() == [one % 10 for one in range(20)]
    assert source.classes == tuple(f"class {number}" for number in range(10))


class Marker:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_an_altered_pickle_of_cifar_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    for name in ("data_batch_3", "batches.meta"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Marker(tmp_path / "loaded")))
        with pytest.raises(ConfigError, match=r"cifar10 cannot be read \(Dataset.* corrupted"):
            data.cifar10(str(tmp_path))
        assert not (tmp_path / "loaded").exists()
        (folder / name).write_bytes(before)


def test_a_missing_batch_is_named_without_reading_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    (folder / "data_batch_2").unlink()
    with pytest.raises(ConfigError, match=r"data.root=.* has no data_batch_2; add it, or remove"):
        torchvision_files("cifar10", str(tmp_path))


def test_svhn_calls_the_digit_zero_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((32, 32, 3, 12), np.uint8)
    images[1, 2, 0, :] = np.arange(12)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": images, "y": (np.arange(12) % 10 + 1)[:, None].astype(np.uint8)})
        entry = [*datasets.SVHN.split_list[split][:2], md5(path)]
        monkeypatch.setitem(datasets.SVHN.split_list, split, entry)
    source = data.svhn(str(tmp_path))
    source.check()
    assert source.train.inputs[:, 0, 1, 2].tolist() == [*range(12)]
    assert source.train.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    (tmp_path / "test_32x32.mat").write_bytes(b"altered")
    with pytest.raises(ConfigError, match="svhn cannot be read"):
        data.svhn(str(tmp_path))


def write_emnist(root: Path, split: str, labels: list[int]) -> None:
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 3, 20] = 255  # stored by column and row
    for part in ("train", "test"):
        for kind, array in (("images-idx3", images), ("labels-idx1", np.array(labels, np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"emnist-{split}-{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


def test_emnist_is_turned_upright_and_letters_count_from_a(tmp_path: Path) -> None:
    write_emnist(tmp_path, "letters", [1, 2, 26])
    source = data.emnist(str(tmp_path), "letters")
    source.check()
    assert source.train.inputs[0, 0].nonzero().tolist() == [[20, 3]]
    assert [source.classes[label] for label in source.train.targets] == ["a", "b", "z"]
    write_emnist(tmp_path, "digits", [0, 9])
    assert data.emnist(str(tmp_path), "digits").train.targets.tolist() == [0, 9]


def test_a_fingerprint_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    cfg = {"_target_": "fairsweep.data.cifar10", "root": str(tmp_path)}
    before = fingerprint(cfg)
    assert before == fingerprint(cfg)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes() + b"x")
    assert fingerprint(cfg) != before
    assert fingerprint(cfg | {"root": str(tmp_path / "none")}) is None


def test_a_model_trains_on_augmented_cifar(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path / "data", monkeypatch, datasets.CIFAR10)
    cfg = compose(
        "data=cifar10", f"data.root={tmp_path}/data", "data.val_size=20", "model=cnn", "model.widths=[4]",
        "data.augment={flip: true, crop: 4, cutout: 8}", "trainer.epochs=1", "trainer.batch_size=20",
    )  # fmt: skip
    lane = Lane(cfg)
    assert build.data(cfg).shape == (3, 32, 32)
    for _ in fit([lane]):
        pass
    assert lane.ending is not None
    assert lane.ending.status == "finished"
    assert all(torch.isfinite(weight).all() for weight in lane.model.parameters())
