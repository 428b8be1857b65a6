"""A user's own code, in a folder of their own: found, checked before it is called, part of a run's code."""

import os
import shutil
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


def test_a_record_from_elsewhere_may_not_name_code_of_ones_own(folder: Folder) -> None:
    folder.train(*NETWORK)
    (run,) = folder.runs
    again = folder.train(f"from={run.signature}", "trainer.epochs=2")
    assert (again.status, again.stderr) == (0, "")
    shutil.copytree(run.path, folder.path / "downloaded")
    answer = folder.train("from=downloaded", "trainer.epochs=2")
    assert answer.status == 2
    assert "model._target_=mine.net.Net: must be a class of fairsweep.models or" in answer.stderr
    assert folder.train("from=downloaded", "model._target_=mine.net.Net", "trainer.epochs=2").status == 0


def test_a_sweep_over_a_model_of_ones_own(folder: Folder) -> None:
    answer = folder.train("-m", *NETWORK, "optimizer.lr=0.1,0.01")
    assert (answer.status, answer.stderr) == (0, "")
    assert [run.status().name for run in folder.runs] == ["finished", "finished"]


PARTS = """
import torch
from torch import nn

class Sign(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.sub_(weight.grad.sign(), alpha=group["lr"])

class Half(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [lr / 2 ** (self.last_epoch // 2) for lr in self.base_lrs]

class Focal(nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, labels):
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        return ((1 - (-loss).exp()) ** self.gamma * loss).mean()

class Summed(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

class Scaled(Focal):
    def __init__(self):
        super().__init__(1.0)
        self.scale = nn.Parameter(torch.ones(()))
"""
OPTIMIZER = ("optimizer=other", "optimizer._target_=parts.Sign", "optimizer.lr=1e-3")
SCHEDULER = ("scheduler._target_=parts.Half", "~scheduler.factor", "~scheduler.total_iters")
LOSS = ("loss=other", "loss._target_=parts.Focal", "+loss.gamma=1.5", "trainer.batch_size=25")


def test_an_optimizer_a_scheduler_and_a_loss_of_ones_own(folder: Folder) -> None:
    folder.write("parts.py", PARTS)
    answer = folder.train(*OPTIMIZER, *SCHEDULER, *LOSS, "trainer.log_every=1")
    assert (answer.status, answer.stderr) == (0, "")
    (run,) = folder.runs
    assert [line["lr"] for line in run.journal() if "lr" in line] == [1e-3, 5e-4, 5e-4, 2.5e-4]
    assert "parts" not in run.status().versions
    folder.write("parts.py", PARTS + "\n# changed")
    assert "training again" in folder.train(*OPTIMIZER, *SCHEDULER, *LOSS).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("loss._target_=parts.Summed", "loss (parts.Summed): must be a mean over the batch"),
        ("loss._target_=parts.Scaled", "loss._target_=parts.Scaled: has parameters of its own"),
    ],
)
def test_a_loss_that_would_train_wrongly_is_refused(folder: Folder, words: str, message: str) -> None:
    folder.write("parts.py", PARTS)
    answer = folder.train("loss=other", words)
    assert (answer.status, answer.stderr.count("\n")) == (2, 1)
    assert message in answer.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "model._target_=nowhere.Net",
            "model._target_=nowhere.Net: no module named 'nowhere' in {here}, on PYTHONPATH",
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


def test_a_relative_import_outside_of_a_package_is_said_in_one_line(folder: Folder) -> None:
    folder.write("net.py", NET)
    folder.write("layers.py", LAYERS.format(activation="ReLU"))
    answer = folder.train("model=other", "model._target_=net.Net", "model.name=net", "+model.width=16")
    assert answer.status == 2
    assert "net.py, line 5: a relative import, which needs a package" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_module_that_a_star_import_brings_in_is_part_of_the_code(folder: Folder) -> None:
    folder.write("mine/parts/__init__.py", '__all__ = ["layers"]\n')
    folder.write(
        "mine/net.py", NET.replace("from .layers import block", "from .parts import *\nblock = layers.block")
    )
    for activation, superseded in (("ReLU", 0), ("ReLU", 0), ("Tanh", 1)):
        folder.write("mine/parts/layers.py", LAYERS.format(activation=activation))
        assert folder.train(*NETWORK).status == 0
        history = [*(folder.path / "outputs" / "runs" / ".history").glob("*")]
        assert len(history) == superseded


def test_a_broken_module_behind_a_star_import_is_answered_in_one_line(folder: Folder) -> None:
    folder.write("mine/layers.py", "def block(:\n")
    folder.write("mine/net.py", NET.replace("from .layers import block", "from .layers import *"))
    answer = folder.train(*NETWORK)
    assert answer.status == 2
    assert "mine/layers.py, line 1: " in answer.stderr
    assert "Traceback" not in answer.stderr
