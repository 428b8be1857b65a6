"""A user's own code, in a folder of their own: found, checked before it is called, part of a run's code."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import Answer, Command

from fairsweep.config import ROOT
from fairsweep.runs.folder import RunFolder

NET = """
import torch
from torch import nn

from .layers import block

class Net(nn.Module):
    def __init__(self, shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), block(shape[0] * shape[1] * shape[2], width))
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))

def by_number(inputs, num_classes, side):
    assert isinstance(num_classes, int) and side == (1, 28, 28)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, num_classes))
"""
LAYERS = """
from torch import nn

def block(fan_in, fan_out):
    return nn.Sequential(nn.Linear(fan_in, fan_out), nn.{activation}())
"""
LINEAR = """
_target_: mine.net.by_number
name: linear
inputs: ${features}
num_classes: ${classes}
side: ${shape}
"""
NETWORK = ("model=other", "model._target_=mine.net.Net", "model.name=net", "+model.width=16")
QUICK = ("tracking=none", "data.limit=100", "trainer.epochs=1", "record.pictures=none")


class Folder:
    """A folder of a user's, with a package `mine`, in which commands are given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("mine/__init__.py", "")
        self.write("mine/net.py", NET)
        self.write("mine/layers.py", LAYERS.format(activation="ReLU"))
        self.write("mine/unrelated.py", "")

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(exist_ok=True, parents=True)
        (self.path / name).write_text(text)

    def train(self, *words: str) -> Answer:
        here = partial(os.chdir, self.path)
        command = Command(self.path, (*QUICK, *words, "record.dir=outputs"), here, f"{ROOT}/src/train.py")
        return command.wait()

    @property
    def runs(self) -> list[RunFolder]:
        return [RunFolder(path) for path in sorted((self.path / "outputs" / "runs").glob("*"))]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "user").mkdir()
    return Folder(tmp_path / "user")


def test_a_model_of_ones_own_trains_and_is_trained_again_when_its_code_has_changed(folder: Folder) -> None:
    answer = folder.train(*NETWORK)
    assert (answer.status, answer.stderr) == (0, "")
    (run,) = folder.runs
    code = run.status().code
    folder.write("mine/unrelated.py", "x = 1")
    again = folder.train(*NETWORK)
    assert "reused" in again.stdout
    assert again.slow == () or "torch" not in again.slow

    folder.write("mine/layers.py", LAYERS.format(activation="Tanh"))
    changed = folder.train(*NETWORK)
    assert "the training code has changed since: training again" in " ".join(changed.stdout.split())
    assert folder.runs[0].status().code != code


def test_what_depends_on_the_data_can_be_written_in_yaml(folder: Folder) -> None:
    folder.write("my_conf/model/linear.yaml", LINEAR)
    answer = folder.train("--config-dir=my_conf", "model=linear")
    assert (answer.status, answer.stderr) == (0, "")
    (run,) = folder.runs
    assert run.config().model.num_classes == "${classes}"
    weights = torch.load(run.path / "best.pt", weights_only=True)["model"]
    assert weights["1.weight"].shape == (10, 784)


def test_a_sweep_over_a_model_of_ones_own(folder: Folder) -> None:
    answer = folder.train("-m", *NETWORK, "optimizer.lr=0.1,0.01")
    assert (answer.status, answer.stderr) == (0, "")
    assert [run.status().name for run in folder.runs] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "model._target_=nowhere.Net",
            "model._target_=nowhere.Net: no module nowhere in {here}, on PYTHONPATH",
        ),
        ("model._target_=mine.nets.Net", "mine has no nets; did you mean 'net'?"),
        ("model._target_=mine.net.Nett", "mine.net has no Nett; did you mean 'Net'?"),
        ("model._target_=os.system +model.command=ls", "model._target_=os.system: is in Python's standard"),
        ("model._target_=shutil.rmtree +model.path=mine", "shutil.rmtree: is in Python's"),
        ("model._target_=mine.other.rmtree +model.path=mine", "mine.other.rmtree: must be a Module class"),
        (
            "model._target_=mine.net.Net",
            "model (mine.net.Net): needs the argument width; add +model.width=...",
        ),
        (
            "model._target_=mine.bad.Net",
            "mine.bad cannot be imported: ModuleNotFoundError: No module named 'no'",
        ),
        ("model._target_=mine.wrong.Net", "wrong.py, line 1"),
        ("model._target_=mine.other.Abstract", "mine.other.Abstract: must be a Module class"),
        ("model._target_=mine.other.text", "must make a Module, made a str"),
        ("model._target_=mine.other.broken", "model (mine.other.broken): KeyError: 'x'"),
        (
            "model._target_=mine.net.by_number classes=3",
            "classes=3: cannot be set, it is the data's; omit it",
        ),
    ],
)
def test_what_cannot_be_the_model_is_answered_in_one_line(folder: Folder, words: str, message: str) -> None:
    folder.write("mine/bad.py", "import no")
    folder.write("mine/wrong.py", "def")
    folder.write("mine/other.py", OTHER)
    answer = folder.train("model=other", "model.name=net", *words.split())
    assert answer.status == 2
    assert answer.stderr.count("\n") == 1
    assert message.format(here=folder.path) in answer.stderr
    assert (folder.path / "mine").exists()


OTHER = """
from shutil import rmtree
from abc import abstractmethod, ABC
from torch import nn

class Abstract(nn.Module, ABC):
    @abstractmethod
    def forward(self, x): ...

def text(): return "no model"
def broken(): return {}["x"]
"""
