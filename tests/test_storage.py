"""Examples that do not fit memory: they are kept in files, and nothing else changes."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.utils.data import TensorDataset

from fairsweep.config import ConfigError
from fairsweep.training import build, storage
from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit

Compose = Callable[..., DictConfig]

is_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def mappings(folder: Path) -> list[str]:
    """The files in a folder that this process maps; they have been deleted."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


def trained(cfg: DictConfig) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    """The weights and the figures of a run."""
    lane = Lane(cfg)
    lines = [line for event in fit([lane]) for line in event.lines]
    assert lane.ending is not None
    assert lane.ending.status == "finished", lane.ending
    figures = [{key: value for key, value in line.items() if "second" not in key} for line in lines]
    return lane.model.state_dict(), figures


@is_linux
@pytest.mark.parametrize(
    "words",
    [
        ("model=cnn", "data.limit=200", "data.augment={shift: 2, flip: true, crop: 2}"),
        ("data=arrays", "data.file=x.npy", "data.targets_file=y.npy", "model=mlp"),
    ],
    ids=["images", "features"],
)
def test_examples_in_a_file_train_to_the_same_bits(
    words: tuple[str, ...], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("x.npy", random.normal(size=(300, 5)))
    np.save("y.npy", random.normal(size=300))
    quick = (*words, "trainer.epochs=2", "trainer.batch_size=32", "trainer.device=cpu")
    weights, figures = trained(compose(*quick))
    before = len(mappings(tmp_path))
    mapped_weights, mapped_figures = trained(compose(*quick, "trainer.data_on=disk"))
    assert len(mappings(tmp_path)) > before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy"]
    assert mapped_figures == figures
    assert all(value.equal(mapped_weights[name]) for name, value in weights.items())


def folder_of_images(folder: Path) -> list[str]:
    for name, grey in (("dark", 10), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (16, 16), grey + index).save(folder / name / f"{index}.png")
    return ["data=image_folder", f"data.root={folder}", "data.size=16"]


def array_file(folder: Path) -> list[str]:
    folder.mkdir()
    np.save(folder / "x.npy", np.arange(120.0).reshape(40, 3))
    np.save(folder / "y.npy", np.arange(40) % 2)
    return ["data=arrays", f"data.file={folder / 'x.npy'}", f"data.targets_file={folder / 'y.npy'}"]


def own_dataset() -> TensorDataset:
    return TensorDataset(torch.arange(120.0).reshape(40, 3), torch.arange(40) % 2)


def own(folder: Path) -> list[str]:
    folder.mkdir()
    return ["data=other", f"data._target_={__name__}.own_dataset"]


@is_linux
@pytest.mark.parametrize("make", [folder_of_images, array_file, own])
def test_data_larger_than_memory_are_read_into_files(
    make: Callable[[Path], list[str]], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cfg = compose(*make(tmp_path / "data"))
    resident = build.data(cfg)
    build.resident.cache_clear()
    build.source.cache_clear()
    assert not mappings(tmp_path)
    monkeypatch.setattr(storage, "free_memory", lambda: 0.0)
    mapped = build.data(cfg)
    assert len(mappings(tmp_path)) == 3  # training, validation and test, each cut from what was read
    assert mapped.fingerprint == resident.fingerprint
    assert mapped.mean == resident.mean
    for split in ("train", "val", "test"):
        for part in ("inputs", "targets"):
            assert getattr(getattr(mapped, split), part).equal(getattr(getattr(resident, split), part))
    build.resident.cache_clear()


def test_a_disk_that_is_too_small_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    message = rf"1,000,000,000 examples of \(3, 1000, 1000\) take 3,000,000.0 GB.*{tmp_path}.*set TMPDIR"
    with pytest.raises(ConfigError, match=message):
        storage.mapped((10**9, 3, 1000, 1000), np.uint8)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"TMPDIR=.*nowhere: No such file"):
        storage.mapped((10, 3), np.uint8)
