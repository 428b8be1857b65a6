"""What a user's mistakes get: one line that names key, value and what is allowed, and status 2."""

import ctypes
import inspect
import json
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Answer
from omegaconf import DictConfig
from rich.console import Console

from fairsweep import models
from fairsweep.config import ROOT
from fairsweep.runs import checkpoint, identity, session
from fairsweep.runs.folder import RunFolder, folder_of
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.sweeper import SHORT

Compose = Callable[..., DictConfig]

SLOW = ("torch", "torchvision", "mlflow")


# From the configuration alone: the command line, and what the answer must contain.
REFUSED: dict[str, tuple[str, ...]] = {
    # unknown keys, groups and choices, with the nearest name
    "optimizer.lrr=0.1": ("optimizer.lrr: unknown key", "did you mean 'lr'", "allowed: _target_, betas"),
    "trainer.epoch=3": ("trainer.epoch: unknown key", "did you mean 'epochs'", "batch_size"),
    "seed.x=1": ("seed.x: unknown key; seed has no keys of its own",),
    "sed=3": ("sed: unknown key", "did you mean 'seed'", "objective"),
    "optimzer=sgd": ("optimzer: unknown key", "did you mean 'optimizer'", "scheduler"),
    "optimizer=sgdd": ("optimizer=sgdd", "did you mean 'sgd'", "allowed: adagrad, adam, adamw"),
    "data=mnits": ("data=mnits", "did you mean 'mnist'", "digits, emnist, fashion_mnist"),
    "recipe=two_con": ("recipe=two_con", "did you mean 'two_conv'", "lenet_no_relu"),
    "loss=crossentropy": ("loss=crossentropy", "did you mean 'cross_entropy'", "mse_one_hot"),
    "scheduler=linear": ("scheduler=linear", "allowed: constant, cosine, onecycle, step"),
    "data.augment.shfit=1": ("data.augment.shfit: unknown key", "did you mean 'shift'", "rotate"),
    # unknown keys that are appended, and keys that are taken out
    "+foo=1": ("foo: unknown key", "allowed: data, judge, loss, metrics"),
    "+trainer.epoch=1": ("trainer.epoch: unknown key", "did you mean 'epochs'", "batch_size"),
    "++record.a.b=1": ("record.a: unknown key", "allowed: dir, keep, pictures"),
    "~trainer": ("trainer.epochs: is missing", "a whole number, 1 or more"),
    "~seed": ("seed: is missing", "a whole number, 0 or more"),
    # types
    "seed=abc": ('seed="abc"', "a whole number, 0 or more"),
    "optimizer.lr=fast": ('optimizer.lr="fast"', "a number above 0"),
    "rerun=1": ("rerun=1", "true | false"),
    "model.widths=32": ("model.widths=32", "a list of values, each a whole number"),
    "trainer.epochs=null": ("trainer.epochs=null", "a whole number, 1 or more"),
    "trainer=1": ("trainer=1", "group=choice", "conf/<group>/"),
    "optimizer=null": ("optimizer=null", "group=choice", "conf/<group>/"),
    "optimizer.betas={a:1}": ("optimizer.betas={a:1}",),
    "optimizer.lr={a:1}": ("optimizer.lr:", "a number above 0"),
    # ranges
    "optimizer.lr=0": ("optimizer.lr=0:", "a number above 0"),
    "optimizer.lr=-0.1": ("optimizer.lr=-0.1", "a number above 0"),
    "optimizer.lr=nan": ("optimizer.lr=NaN", "a number above 0"),
    "optimizer.lr=inf": ("optimizer.lr=Infinity", "a number above 0"),
    "optimizer=sgd optimizer.momentum=1": ("optimizer.momentum=1:", "from 0 up to, but not including, 1"),
    "optimizer=sgd optimizer.momentum=-0.1": ("optimizer.momentum=-0.1", "from 0 up to, but not"),
    "optimizer=sgd optimizer.momentum=0 optimizer.nesterov=true": ("nesterov", "momentum above 0"),
    "trainer.batch_size=0": ("trainer.batch_size=0", "a whole number, 1 or more"),
    "trainer.epochs=0": ("trainer.epochs=0", "a whole number, 1 or more"),
    "trainer.epochs=1.5": ("trainer.epochs=1.5", "a whole number, 1 or more"),
    "data.val_size=-1": ("data.val_size=-1", "a share of the images below 1", "whole number"),
    "data.val_size=1.5": ("data.val_size=1.5", "a share of the images below 1", "whole number"),
    "data.val_size=0 trainer.patience=2": ("trainer.patience=2", "data.val_size above 0"),
    "scheduler.warmup=10": ("scheduler.warmup=10", "below trainer.epochs=10"),
    "trainer.stop_epoch=11": ("trainer.stop_epoch=11", "at most trainer.epochs=10"),
    # names
    "trials=3": ("trials=3: configures a sweep", "-m"),
    "hydra/launcher=ray": ("hydra/launcher=ray: configures a sweep", "-m"),
    "+sweep=adam_vs_sgd": ("+sweep=adam_vs_sgd: configures a sweep", "-m"),
    "sweep=adam_vs_sgd --config-dir conf": ("sweep=adam_vs_sgd: configures a sweep", "-m"),
    "++sweep=adam_vs_sgd --run": ("++sweep=adam_vs_sgd: configures a sweep", "-m"),
    "hydra.launcher.lanes=0": ("hydra.launcher.lanes=0: configures a sweep", "-m"),
    "trainer.device=tpu": ('trainer.device="tpu"', "auto | cuda | cuda:N | mps | cpu"),
    "trainer.precision=fp16": ('trainer.precision="fp16"', "fp32 | bf16 | auto"),
    "objective=val_acuracy": (
        'objective="val_acuracy": there is no such metric',
        "did you mean 'val_accuracy'",
    ),
    "objective=test_accuracy": ('objective="test_accuracy"', "val_accuracy | val_loss"),
    # targets
    "optimizer._target_=os.system": (
        "optimizer._target_=os.system: is in Python's standard library, which has no optimizer",
    ),
    "loss._target_=nowhere.Loss": (
        "loss._target_=nowhere.Loss: no module named 'nowhere' in",
        "on PYTHONPATH",
    ),
    "model._target_=builtins.eval": ("model._target_=builtins.eval: is in Python's",),
    "data._target_=shutil.rmtree": ("data._target_=shutil.rmtree: is in Python's",),
    "scheduler._target_=x": ('scheduler._target_="x"', "the dotted name of a class or function"),
    "+optimizer.x={_target_:os.system,command:ls}": ("optimizer", '_target_="os.system"', "none inside"),
    "optimizer=other optimizer.lr=1": ("optimizer._target_", "Missing mandatory value", "give it a value"),
    # overrides that cannot be read
    "optimizer.lr=[": ("optimizer.lr=[", "key=value"),
    "optimizer": ("optimizer: cannot be read", "key=value"),
    "a=b=c": ("a=b=c", "key=value"),
    "seed=1,2": ("seed=1,2", "--multirun"),
    "+data=mnist": ("Multiple values for data",),
    "trainer.epochs=${nowhere}": ("trainer.epochs", "nowhere", "give it a value"),
}

# Runs `src/train.py` on each of the argument lists that it reads, in one process.
CHILD = """
import contextlib, io, json, os, runpy, sys
sys.path.insert(0, "src")
for words in json.load(sys.stdin):
    os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = ["src/train.py", *words]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path("src/train.py", run_name="__main__")
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            status = repr(error)
    slow = [name for name in SLOW if name in sys.modules]
    print(json.dumps([status, out.getvalue(), err.getvalue(), slow]))
""".replace("SLOW", repr(SLOW))


def environment(**changes: str) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return plain | {"OMP_NUM_THREADS": "1"} | changes


def shell(*words: str, preexec: Callable[[], Any] | None = None, **changes: str) -> Answer:
    """`python src/train.py` as a user starts it."""
    child = subprocess.run(
        [sys.executable, "src/train.py", *words],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=preexec,
    )
    return Answer(child.returncode, child.stdout, child.stderr)


def answers(lines: list[list[str]], script: str = "src/train.py") -> list[Answer]:
    """What a script says to each of these argument lists, in one process."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("src/train.py", script)],
        cwd=ROOT,
        env=environment(),
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return [Answer(*json.loads(line)) for line in child.stdout.splitlines()]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answer to each of REFUSED; nothing was written."""
    folder = tmp_path_factory.mktemp("refusals") / "outputs"
    found = answers([[f"record.dir={folder}", *line.split()] for line in REFUSED])
    assert not folder.exists()
    return dict(zip(REFUSED, found, strict=True))


def assert_one_line(answer: Answer, *parts: str) -> None:
    assert answer.status == 2, answer
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr
    for part in parts:
        assert part in answer.stderr


@pytest.mark.parametrize("line", REFUSED)
def test_a_mistake_in_the_configuration_gets_one_line_before_torch_is_imported(
    line: str, refusals: dict[str, Answer]
) -> None:
    answer = refusals[line]
    assert_one_line(answer, *REFUSED[line])
    assert answer.stdout == ""
    assert answer.slow == []


@pytest.mark.parametrize("line", ["optimzer=sgd", "optimizer.lr=0", "optimizer=sgdd", "optimizer.lr=["])
def test_a_mistake_from_the_shell(line: str, tmp_path: Path, refusals: dict[str, Answer]) -> None:
    answer = shell(f"record.dir={tmp_path}/outputs", line)
    assert_one_line(answer, *REFUSED[line])
    assert answer[:3] == refusals[line][:3]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("line", ["optimizer.lr=0", "optimizer=sgdd", "trainer=1"])
def test_a_traceback_for_those_who_ask(line: str, tmp_path: Path) -> None:
    answer = shell(f"record.dir={tmp_path}/outputs", line, HYDRA_FULL_ERROR="1")
    assert answer.status != 0
    assert "Traceback" in answer.stderr
    assert not (tmp_path / "outputs").exists()


def test_help_tells_groups_and_keys() -> None:
    answer = shell("--help")
    assert answer.status == 0
    assert answer.stderr == ""
    for group in ("data", "model", "loss", "optimizer", "scheduler", "trainer", "tracking", "recipe"):
        assert re.search(rf"^{group}: .*\w", answer.stdout, re.MULTILINE), group
    assert "optimizer: adagrad, adam, adamw, adan, lion, muon, nadam, other, prodigy" in answer.stdout
    assert "batch_size: 64" in answer.stdout
    sweeps = answer.stdout.partition("== Sweeps (-m)")[2]
    assert {word for word in SHORT if not re.search(rf"\b{word}\b", sweeps)} == set()
    assert 'eval "$(python src/train.py -sc install=bash)"' in answer.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("optimizer=sg", {"optimizer=sgd"}),
        ("trainer.test_", {"trainer.test_weights=", "trainer.test_each_epoch="}),
        ("recipe=two", {"recipe=two_conv", "recipe=two_conv_sgd", "recipe=two_conv_sgd_slow"}),
    ],
)
def test_tab_completion(typed: str, offered: set[str]) -> None:
    line = f"python src/train.py {typed}"
    answer = shell("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert (answer.status, answer.stderr) == (0, "")
    assert set(answer.stdout.split()) == offered


# What only torch, the data or the disk can tell: still before training, and nothing is left behind


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """`python src/train.py` in this process, which has imported torch already."""

    def run(*words: str) -> Answer:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(
            sys, "argv", ["src/train.py", f"record.dir={tmp_path}/outputs", "tracking=none", *words]
        )
        capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / "src" / "train.py"), run_name="__main__")
            status: Any = 0
        except SystemExit as error:
            status = error.code
        return Answer(status, *capsys.readouterr())

    return run


class Wrong(torch.nn.Module):
    """A model that gives something else than logits; or takes other images than there are."""

    def __init__(self, shape: models.Shape, classes: int, *, channels: int = 1, outputs: int = 3) -> None:
        super().__init__()
        inputs = 2 * (shape[1] - 2) * (shape[2] - 2)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 2, 3), torch.nn.Flatten(), torch.nn.Linear(inputs, outputs)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(pixels)
        return logits


OTHER = "optimizer=other optimizer.lr=0.1 optimizer._target_=torch.optim"
LATER: dict[str, tuple[str, ...]] = {
    "trainer.batch_size=101 data.limit=100": ("trainer.batch_size=101", "at most", "100"),
    "data.val_size=2000": ("data.val_size=2000", "must leave 10 or more of the 1438 images"),
    "data.augment.shift=28": ("data.augment.shift=28", "must be below 28"),
    "data.mean=[0.1,0.2]": ("data.mean=[0.1, 0.2]", "one number or one for each"),
    "model=cnn model.widths=[4,4,4,4,4]": ("model.widths=[4, 4, 4, 4, 4]", "28x28", "use fewer blocks"),
    "model=cnn model.kernel=31 model.padding=0": ("model.widths=[32, 64]", "too small", "kernel 31"),
    "model=cnn model.widths=[]": ("model.widths=[]", "at least one block"),
    "+model.width=3": ("model.width: fairsweep.models.CNN has no such", "did you mean 'widths'", "kernel"),
    "model._target_=fairsweep.models.NN": ("fairsweep.models has no NN; did you mean 'CNN'?",),
    "~model.norm": ("model (fairsweep.models.CNN): needs the argument norm; add +model.norm=",),
    "+loss.smoothing=1": ("loss.smoothing", "has no such argument", "did you mean 'label_smoothing'"),
    "loss=mse_one_hot loss._target_=torch.nn.BCELoss": (
        "loss (torch.nn.BCELoss)",
        "does not fit outputs of torch.float32",
    ),
    "loss=mse_one_hot loss._target_=torch.nn.Los": ("loss._target_=torch.nn.Los: torch.nn has no Los",),
    "+optimizer.beta=0.9": ("optimizer.beta", "Adam has no such argument", "did you mean 'betas'"),
    f"{OTHER}.SparseAdam": ("optimizer._target_=torch.optim.SparseAdam: not supported", "use another"),
    "loss._target_=torch.load": ("loss._target_=torch.load: must be a Module class, or a function",),
    f"{OTHER}.Adum": ("optimizer._target_=torch.optim.Adum", "did you mean 'Adam'?"),
    f"{OTHER}.Muon": ("optimizer (torch.optim.Muon)",),
    "scheduler=onecycle scheduler.total_steps=3": ("scheduler.total_steps=3", "at least", "= 10"),
    "+scheduler.gamma=1": ("scheduler.gamma", "ConstantLR has no such argument", "factor"),
    "trainer.weights=nothing": ("trainer.weights=nothing", "neither a file nor a run"),
    "data=image_folder data.root=/nowhere": ("data.root=/nowhere: no such folder", "subfolder"),
    "model._target_=fairsweep.models.Wrong": ("model (fairsweep.models.Wrong)", "(2, 3)", "10 classes"),
    "model._target_=fairsweep.models.Wrong +model.channels=3": ("fairsweep.models.Wrong", "(1, 28, 28)"),
}


@pytest.mark.parametrize("line", LATER)
def test_a_mistake_that_shows_later_is_told_before_training(
    line: str, command: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "Wrong", Wrong, raising=False)
    words = line.split()
    if "Wrong" in line:
        words += [f"~model.{key}" for key in inspect.getfullargspec(models.CNN).kwonlyargs]
    answer = command(*words)
    assert_one_line(answer, *LATER[line])
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_asked_for_where_there_is_none(
    name: str, command: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = command(f"trainer.device={name}")
    assert_one_line(answer, f"trainer.device={name}: this machine has 0 CUDA devices", "cpu or auto")
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_mistake_that_shows_later_from_the_shell(tmp_path: Path) -> None:
    answer = shell(f"record.dir={tmp_path}/outputs", "tracking=none", "trainer.batch_size=5000")
    assert_one_line(answer, "trainer.batch_size=5000", "at most the number of training images, 1150")
    assert answer.stdout == ""
    assert not (tmp_path / "outputs" / "runs").exists()


# Starting weights

QUICK = ("model=mlp", "model.widths=[8]", "data.limit=100", "trainer.epochs=1", "trainer.threads=1")


@pytest.fixture
def trained(compose: Compose, tmp_path: Path) -> RunFolder:
    """A finished run in the same outputs as the commands' runs."""
    cfg = compose(f"record.dir={tmp_path}/outputs", "record.pictures=none", *QUICK)
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    assert outcome.status.name == "finished"
    return outcome.folder


def damaged(original: Path, how: str, goal: Path) -> Path:
    content = bytearray(original.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "altered":
        content[len(content) // 2] ^= 0xFF
    elif how == "text":
        content = bytearray(b"no weights at all")
    elif how == "empty":
        content.clear()
    goal.write_bytes(content)
    if how == "zip":
        with zipfile.ZipFile(goal, "w") as archive:
            archive.writestr("a.txt", "b")
    elif how == "pickle":
        torch.save({"model": Path("a")}, goal)
    elif how == "tensor":
        torch.save(torch.zeros(3), goal)
    elif how == "names":
        torch.save({"model": {"a": torch.zeros(3)}}, goal)
    elif how == "no mapping":
        torch.save({"model": [1, 2]}, goal)
    return goal


HOWS = ("truncated", "altered", "text", "empty", "zip", "pickle", "tensor", "names", "no mapping")


def test_starting_weights_that_do_not_fit_or_are_damaged(
    trained: RunFolder, command: Callable[..., Answer], tmp_path: Path
) -> None:
    runs = tmp_path / "outputs" / "runs"
    weights = checkpoint.tested_file(trained)
    answer = command("model=two_conv", f"trainer.weights={trained.signature}")
    assert_one_line(answer, f"trainer.weights={weights}", "not this model's weights")
    answer = command(*QUICK, "trainer.weights=0123abcd")
    assert_one_line(answer, "trainer.weights=0123abcd", "neither a file nor a run", "latest, best")
    for how in HOWS:
        file = damaged(weights, how, tmp_path / f"{how.replace(' ', '_')}.pt")
        assert_one_line(command(*QUICK, f"trainer.weights={file}"), f"trainer.weights={file}")
    assert [path.name for path in runs.iterdir()] == [trained.signature]


def test_starting_weights_by_run_or_file(
    trained: RunFolder, command: Callable[..., Answer], tmp_path: Path
) -> None:
    plain = ("record.pictures=none", *QUICK)
    assert command(*plain, "trainer.weights=latest").status == 0
    shutil.copy(checkpoint.tested_file(trained), tmp_path / "copy.pt")
    again = command(*plain, f"trainer.weights={tmp_path}/copy.pt")
    assert again.status == 0
    assert "reused" in again.stdout  # the same weights, the same run


# The disk


def without_root_rights() -> None:
    """In a child of root's: file permissions count from its next exec on (CAP_DAC_OVERRIDE is dropped)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    answer = shell(f"record.dir={folder}", preexec=without_root_rights)
    assert_one_line(answer, f"record.dir={folder}: is not writable", "choose another folder")
    assert list(folder.iterdir()) == []
    answer = shell(f"record.dir={folder}/new", preexec=without_root_rights)
    assert_one_line(answer, f"record.dir={folder}/new: cannot be made: Permission denied")


def test_an_output_folder_that_is_a_file(tmp_path: Path, command: Callable[..., Answer]) -> None:
    (tmp_path / "file").write_text("x")
    for folder in ("file", "file/below"):
        answer = command(f"record.dir={tmp_path}/{folder}")
        assert_one_line(answer, f'record.dir="{tmp_path}/{folder}": must be a folder, or a new path in one')
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_with_too_little_room(
    command: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 4096, 4096))
    answer = command()
    assert_one_line(answer, f"record.dir={tmp_path}/outputs", "disk is full", "50 MB needed", "make room")
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_disk_that_takes_no_byte(tmp_path: Path) -> None:
    """A quota that is used up: there seems to be room, and each write fails."""

    def no_byte() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    words = (f"record.dir={tmp_path}/outputs", "tracking=none", *QUICK)
    answer = shell(
        *words, preexec=no_byte, TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )  # else torch wants to write
    assert_one_line(answer, f"record.dir={tmp_path}/outputs", "File too large")
    assert not list((tmp_path / "outputs").glob("runs/*"))


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    words = f"record.dir={tmp_path} data=digits"
    command = f"{sys.executable} src/show.py {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""


def test_ctrl_c_before_training_is_one_word(compose: Compose, tmp_path: Path) -> None:
    cfg = compose()
    with folder_of(cfg.record.dir, identity.identify(RunSpec(cfg)).signature).lock():
        process = subprocess.Popen(
            [sys.executable, "-u", "src/train.py", f"record.dir={tmp_path}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert "waiting for it" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
