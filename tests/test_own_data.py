"""Data of a user's own function: what it may return, that it is read once, and what is refused."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch.utils.data import Dataset

from fairsweep.config import ConfigError
from fairsweep.runs import identity, session
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.training import build, own_data
from fairsweep.training.dataset import Data
from fairsweep.training.lane import Lane

Compose = Callable[..., DictConfig]

# A package of the user's own.
SOURCE = """
import random
import numpy as np
import torch
from PIL import Image
from pathlib import Path
from torch.utils.data import Dataset, IterableDataset, TensorDataset

X = np.random.default_rng(0).normal(size=(60, 3))
Y = X @ [1.0, 2.0, 3.0]

def pair():
    return X, Y

def tensors(rows=60):
    return torch.tensor(X[:rows]), torch.arange(rows) % 3

def both():
    return (X[:40], Y[:40]), (X[40:], Y[40:])

def named():
    return {"train": (X, np.arange(60) % 2), "classes": ["cat", "dog"]}

def counted(folder):
    with open(f"{folder}/calls", "a") as file:
        file.write("x")
    return X, Y

def drawn():
    return np.random.normal(size=(60, 3)) + random.random(), torch.rand(60)

class Pictures(Dataset):
    classes = ["dark", "light"]

    def __init__(self, mode="L", count=60, noise="", side=8):
        self.mode, self.count, self.noise, self.side = mode, count, noise, side

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        value = 100 * (index % 2) + index
        size = (self.side, self.side + (index if self.side == 9 else 0))
        image = Image.new(self.mode, size, value if self.mode != "RGB" else (value, index, index + 7))
        if self.noise == "torch":
            return torch.rand(1, 8, 8), index % 2
        if self.noise == "numpy":
            return np.random.rand(1, 8, 8), index % 2
        if self.noise == "random":
            return np.full((1, 8, 8), random.random()), index % 2
        if self.noise == "broken" and index > 40:
            raise OSError("the disk is gone")
        return image, index % 2

def splits(**options):
    return Pictures(**options), Pictures(count=20, **options)

class Rows(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, index):
        return torch.tensor(X[index]), Y[index]

class Stream(IterableDataset):
    def __iter__(self):
        return iter([])

def stream():
    return Stream()

def texts():
    return ["a", "b"]

def nothing():
    return None

def triples():
    return TensorDataset(torch.zeros(9, 3), torch.zeros(9), torch.zeros(9))

def later():
    return {"training": (X, Y)}
"""


@pytest.fixture
def own(tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """Composes a run on the data of a function in the user's package `mine`."""
    folder = tmp_path / "home"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "data.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    for cache in (build.source, build.resident, build.task_of):
        cache.cache_clear()
    small = ("data=other", "model=mlp", "model.widths=[]", "trainer.batch_size=10", "trainer.epochs=2")
    return lambda name, *words: compose(*small, f"data._target_=mine.data.{name}", *words)


def data_of(cfg: DictConfig) -> Data:
    return build.data(identity.identify(RunSpec(cfg)).cfg)


def test_a_function_may_return_arrays_tensors_splits_or_a_dict(own: Callable[..., DictConfig]) -> None:
    data = data_of(own("pair"))
    assert (data.task, data.shape, len(data.test)) == ("regression", (3,), 12)
    assert data.train.inputs.dtype == data.train.targets.dtype == torch.float32
    data = data_of(own("tensors", "+data.rows=30"))
    assert (data.classes, len(data.test)) == (("0", "1", "2"), 6)
    assert len(data_of(own("both")).test) == 20
    assert data_of(own("named")).classes == ("cat", "dog")
    assert data_of(own("tensors", "data.task=regression")).target_names == ("target",)


def test_a_dataset_is_read_in_order_with_its_transforms(own: Callable[..., DictConfig]) -> None:
    words = ("data.val_size=0", "data.test_size=0")
    data = data_of(own("Pictures", *words))
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.inputs[:, 0, 0, 0].tolist() == [100 * (index % 2) + index for index in range(60)]
    assert data.classes == ("dark", "light")
    colour = data_of(own("Pictures", "+data.mode=RGB", *words))
    assert colour.train.inputs[5, :, 0, 0].tolist() == [105, 5, 12]
    assert len(data_of(own("splits")).test) == 20
    rows = data_of(own("Rows", *words))
    assert (rows.task, rows.shape) == ("regression", (3,))
    assert torch.equal(rows.train.targets, data_of(own("pair", *words)).train.targets)


def test_a_run_on_own_data_is_trained_once_and_named_by_their_content(
    own: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = own("counted", f"+data.folder={tmp_path}", "record.pictures=none")
    (first,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    assert first.status.name == "finished", first.status.reason
    assert cfg.objective == "val_rmse"
    for seed in (1, 2):
        Lane(identity.identify(RunSpec(own("counted", f"+data.folder={tmp_path}", f"seed={seed}"))).cfg)
    assert (tmp_path / "calls").read_text() == "x"  # read once, however many runs are on them
    (again,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    assert again.folder.path == first.folder.path


def test_a_functions_random_numbers_are_the_same_each_time_and_its_own(
    own: Callable[..., DictConfig],
) -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - what the function uses
    expected = torch.rand(3), random.random()
    torch.manual_seed(1)
    random.seed(1)
    one = data_of(own("drawn")).fingerprint
    assert (torch.rand(3).equal(expected[0]), random.random()) == (True, expected[1])
    for cache in (build.source, build.resident, build.task_of):
        cache.cache_clear()
    assert data_of(own("drawn")).fingerprint == one


@pytest.mark.parametrize(
    ("words", "told"),
    [
        *(
            (("Pictures", f"+data.noise={name}"), "training item 0 changes each time .*data.augment")
            for name in ("torch", "numpy", "random")
        ),
        (("Pictures", "+data.noise=broken"), "item .* of training cannot be read: OSError: the disk is gone"),
        (("Pictures", "+data.mode=P"), "item 0 of training is an image of mode P; convert it to L or RGB"),
        (
            ("Pictures", "+data.side=9"),
            r"item 1 of training is uint8 \(10, 9\), item 0 uint8 \(9, 9\); must be",
        ),
        (("Pictures", "+data.count=0"), "training data are an empty Dataset"),
        (("stream",), "an iterable Dataset; must be map-style"),
        (("texts",), "returned a list of str .*must be training data, .training, test., or a dict"),
        (("nothing",), "returned NoneType .*; must be"),
        (("triples",), "item 0 of training is a tuple of .*; must be a pair"),
        (("later",), "returned a dict of training; must be"),
        (("tensors", "+data.row=3"), "data.row: mine.data.tensors has no such argument; did you mean 'rows'"),
        (("missing",), "mine.data has no missing"),
        (("X",), "data._target_=mine.data.X: must be a class, or a function"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    words: tuple[str, ...], told: str, own: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        data_of(own(*words))
    assert "\n" not in str(caught.value)


class Seldom(Dataset[tuple[torch.Tensor, int]]):
    """Every tenth item is another each time."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(4) if index % 10 == 9 else torch.ones(4), index % 2


def test_a_transform_that_is_seldom_random_is_found() -> None:
    with pytest.raises(ConfigError, match=r"training item 9 changes each time it is read"):
        own_data.as_source(Seldom(), "auto")
