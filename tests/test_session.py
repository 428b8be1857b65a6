"""Whole runs as a user starts them: reused, resumed, stopped, killed; the folder tells what happened."""

import gc
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, unhurried
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from fairsweep.config import ROOT, resolved
from fairsweep.models import MLP
from fairsweep.runs import checkpoint, identity, session
from fairsweep.runs.folder import Place, RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import Outcome, Run
from fairsweep.runs.progress import Progress, summary
from fairsweep.training import estimate, loop, process
from fairsweep.training.lane import Lane
from fairsweep.training.memory import is_out_of_memory

Compose = Callable[..., DictConfig]

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=2", "trainer.threads=1")
# Long enough to be hit in the middle, with all that a resume must restore.
LONG = (
    "model=mlp",
    "model.widths=[16]",
    "model.dropout=0.2",
    "data.augment.shift=1",
    "scheduler=cosine",
    "data.limit=320",
    "trainer.epochs=30",
    "trainer.batch_size=16",
    "trainer.log_every=5",
    "trainer.threads=1",
)
TIMES = ("time", "epoch_seconds", "images_per_second")


# What is changed in a command before it starts


def eager() -> None:
    """A checkpoint at every line of the journal, instead of every ten seconds."""
    session.CHECKPOINT_SECONDS = 0


def late() -> None:
    """No checkpoint but at the end."""
    session.CHECKPOINT_SECONDS = 1000


def on_a_full_disk() -> None:
    eager()
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


class Trainer:
    """Runs configurations in this process and keeps what was told."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.output = StringIO()

    def __call__(self, *overrides: str) -> Outcome:
        progress = Progress(Console(file=self.output, width=500))
        (outcome,) = session.run(
            [RunSpec(self.compose(*QUICK, "record.pictures=none", *overrides))], progress
        )
        return outcome


def run_many(
    configs: list[DictConfig], lanes: int | None = 1, output: StringIO | None = None
) -> list[Outcome]:
    """As runs of a sweep; what is told goes to `output`."""
    wanted = [
        RunSpec(cfg, Place("s0", "/sweeps/s0", [{"trial": number}]), single=False)
        for number, cfg in enumerate(configs)
    ]
    return session.run(wanted, Progress(Console(file=output or StringIO(), width=500), quiet=True), lanes)


def test_a_run_with_a_time_limit_trains_alone_and_the_status_says_which_seconds_are_shared(
    compose: Compose,
) -> None:
    def shared(*limits: str) -> list[bool]:
        configs = [
            compose(
                *QUICK,
                f"seed={number}",
                f"trainer.max_seconds={limit}",
                f"record.dir={directory}{len(limits)}",
            )
            for number, limit in enumerate(limits)
        ]
        outcomes = run_many(configs, lanes=2)
        assert [outcome.status.name for outcome in outcomes] == ["finished"] * len(limits)
        return [outcome.status.shared for outcome in outcomes]

    directory = compose().record.dir
    assert shared("null", "null") == [True, True]
    assert shared("null", "1000", "null") == [False, False, False]


@pytest.fixture
def train(compose: Compose) -> Trainer:
    return Trainer(compose)


def start(outputs: Path, *overrides: str, before: Callable[[], None] = eager) -> Command:
    words = (f"record.dir={outputs}", "record.pictures=none", "tracking=none", *overrides)
    return Command(outputs, words, before)


def the_run(outputs: Path) -> RunFolder:
    (path,) = (outputs / "runs").glob("[0-9a-f]*")
    return RunFolder(path)


def wait_for_lines(command: Command, outputs: Path, lines: int) -> None:
    """Wait until the run's journal has N lines."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        journals = list((outputs / "runs").glob("*/journal.jsonl"))
        if journals and journals[0].read_bytes().count(b"\n") >= lines:
            return
        assert command.process.is_alive(), command.wait()
        time.sleep(0.005)
    raise AssertionError("the run does not get on")


def figures(folder: RunFolder) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in folder.journal()]


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    assert one.signature == other.signature
    assert figures(one) == figures(other)
    assert one.status().objective == other.status().objective
    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.read(folder.path / name)["model"] for folder in (one, other))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), key


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The LONG run as it ends when nothing stops it."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    answer = start(outputs, *LONG).wait()
    assert answer.status == 0, answer
    return the_run(outputs)


def test_a_run_leaves_the_full_record(train: Trainer) -> None:
    outcome = train()
    folder, status = outcome.folder, outcome.status
    assert status.name == "finished"
    assert not outcome.reused
    assert outcome.status.ranked_objective == status.objective
    assert folder.config() == resolved(train.compose(*QUICK, "record.pictures=none"))
    last = folder.journal()[-1]
    assert (last["objective"], last["test_accuracy"]) == (status.objective, status.test["accuracy"])
    assert {"code", "data", "device", "threads", "git", "versions", "command", "hostname"} <= asdict(
        status
    ).keys()
    assert {path.name for path in folder.path.iterdir()} - {"code.patch"} == {
        "best.pt", "config.yaml", "data.json", "journal.jsonl", "last.pt", "run.log", "status.json",
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 200])
def test_a_run_fits_its_terminal(width: int, compose: Compose, kept: Path) -> None:
    cfg = compose(*QUICK, "record.pictures=none")
    console = Console(file=StringIO(), width=width, record=True)  # a recorded bar would not be erased
    (outcome,) = session.run([RunSpec(cfg)], Progress(console))
    summary(console, outcome.folder, outcome.status, outcome.reused, cfg)
    console.save_svg(str(kept / f"run_{width}.svg"), clear=False)
    text = console.export_text()
    figures = re.findall(r"epoch [12]/2  train .* val .*images/s|objective  .*|test  .*", text)
    assert [line.split()[0] for line in figures] == ["epoch", "epoch", "objective", "test"]
    assert f"val_accuracy {outcome.status.ranked_objective:.4f}" in figures[2]
    assert f"accuracy {outcome.status.test['accuracy']:.2%}" in figures[3]
    assert all(len(line) <= 80 for line in figures)


def test_the_same_run_again_is_reused_and_not_trained(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train()
    before = (first.folder.path / "journal.jsonl").read_bytes()
    monkeypatch.setattr(session.Job, "__init__", None)
    again = train("trainer.log_every=7", "trainer.device=cpu")
    assert again.reused
    assert again.status == first.status
    assert (first.folder.path / "journal.jsonl").read_bytes() == before


def test_a_finished_run_is_shown_without_importing_torch(tmp_path: Path) -> None:
    assert start(tmp_path, *QUICK).wait().status == 0
    code = (
        "import runpy, sys; sys.path.insert(0, 'src'); sys.argv[0] = 'src/train.py'; "
        "runpy.run_path('src/train.py', run_name='__main__'); print('torch' in sys.modules)"
    )
    words = [f"record.dir={tmp_path}", "record.pictures=none", "tracking=none", *QUICK]
    again = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    output = again.stdout.decode()
    assert "reused" in output
    assert output.splitlines()[-1] == "False"


def test_rerun_trains_anew_and_keeps_the_old_folder(train: Trainer) -> None:
    first = train()
    second = train("rerun=true")
    assert not second.reused
    assert second.status.started > first.status.started
    (old,) = (first.folder.path.parent / ".history").iterdir()
    assert RunFolder(old).status() == first.status
    assert figures(RunFolder(old)) == figures(second.folder)


def test_a_run_of_other_code_is_trained_again_unless_any_will_do(train: Trainer) -> None:
    first = train()
    first.folder.set_status(code="another")
    assert train("reuse=any").reused
    second = train()
    assert not second.reused
    assert second.status.code == first.status.code
    assert "the training code has changed since: training again" in train.output.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_ends_as_interrupted_and_goes_on_with_the_same_bits(
    tmp_path: Path, undisturbed: RunFolder, number: signal.Signals
) -> None:
    command = start(tmp_path, *LONG, before=partial(unhurried, late))
    wait_for_lines(command, tmp_path, 20)
    command.send(number)
    answer = command.wait()
    assert answer.status == 130, answer
    assert "interrupted" in answer.stdout
    folder = the_run(tmp_path)
    status = folder.status()
    assert status.name == "interrupted"
    assert 0 < status.step < undisturbed.status().step

    answer = start(tmp_path, *LONG).wait()
    assert answer.status == 0, answer
    assert f"resuming after step {status.step} of" in answer.stdout
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, undisturbed: RunFolder) -> None:
    chance = random.Random(0)
    lines = len(undisturbed.journal())
    for kill in range(4):
        command = start(tmp_path, *LONG)
        wait_for_lines(command, tmp_path, lines * (kill + 1) // 6)
        time.sleep(chance.random() * 0.05)
        command.kill()
        assert the_run(tmp_path).status().name == "running"
    answer = start(tmp_path, *LONG).wait()
    assert answer.status == 0, answer
    assert "resuming after step" in answer.stdout
    assert_same_run(the_run(tmp_path), undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: RunFolder
) -> None:
    """Moments in time, not in the journal: in the imports, in a write, between checkpoint and status."""
    chance = random.Random(1)
    for _ in range(20):
        command = start(tmp_path, *LONG)
        time.sleep(chance.random() * 1.5)
        command.kill()
    answer = start(tmp_path, *LONG).wait()
    assert answer.status == 0, answer
    assert_same_run(the_run(tmp_path), undisturbed)


def test_a_second_process_waits_and_takes_the_run_over(tmp_path: Path) -> None:
    first = start(tmp_path, *LONG, before=partial(unhurried, eager))
    wait_for_lines(first, tmp_path, 3)
    second = start(tmp_path, *LONG)
    answers = [command.wait() for command in (first, second)]
    assert [answer.status for answer in answers] == [0, 0], answers
    assert "is being trained by another process; waiting for it" in answers[1].stdout
    assert "reused" in answers[1].stdout
    steps = [line["step"] for line in the_run(tmp_path).journal() if "train_loss" in line]
    assert steps == sorted(set(steps))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def make_foreign(path: Path) -> None:
    state = checkpoint.read(path)
    torch.save({**state, "signature": "0123456789abcdef"}, path)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(damage, "damaged"), (lambda path: path.write_bytes(b""), "damaged"), (make_foreign, "another run's")],
)
def test_an_unusable_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, undisturbed: RunFolder, spoil: Callable[[Path], None], told: str
) -> None:
    command = start(tmp_path, *LONG, before=partial(unhurried, eager))
    wait_for_lines(command, tmp_path, 30)
    command.kill()
    folder = the_run(tmp_path)
    last, previous = folder.path / "last.pt", folder.path / "previous.pt"
    if not last.exists():  # killed between the two renames of a checkpoint
        last.write_bytes(previous.read_bytes())
    before = checkpoint.read(previous)["step"]
    spoil(last)
    output = start(tmp_path, *LONG).wait().stdout
    assert told in output
    assert f"resuming after step {before} of" in output
    assert told in (folder.path / "run.log").read_text()
    assert_same_run(folder, undisturbed)


def test_without_a_usable_checkpoint_the_run_begins_again(tmp_path: Path, undisturbed: RunFolder) -> None:
    command = start(tmp_path, *LONG, before=partial(unhurried, eager))
    wait_for_lines(command, tmp_path, 30)
    command.kill()
    for path in the_run(tmp_path).path.glob("*.pt"):
        damage(path)
    assert start(tmp_path, *LONG).wait().status == 0
    assert_same_run(the_run(tmp_path), undisturbed)


def test_a_resume_keeps_the_threads_of_the_checkpoint(train: Trainer) -> None:
    train("trainer.stop_epoch=1")
    try:
        torch.set_num_threads(2)
        finished = train("trainer.threads=2")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert finished.status.threads == 1


def test_a_paused_run_goes_on_by_the_same_command_without_the_stop(train: Trainer) -> None:
    paused = train("trainer.stop_epoch=1")
    assert (paused.status.name, paused.status.epoch) == ("paused", 1)
    assert paused.status.ranked_objective is None
    assert train("trainer.stop_epoch=1").status.name == "paused"
    finished = train()
    assert finished.folder.signature == paused.folder.signature
    assert (finished.status.name, finished.status.epoch) == ("finished", 2)


def test_a_diverged_run_is_final_and_has_the_worst_objective(train: Trainer) -> None:
    wild = ("optimizer=sgd", "optimizer.lr=1e30")
    accuracy = train(*wild)
    assert accuracy.status.name == "diverged"
    assert accuracy.status.objective is None
    assert "the loss of step" in accuracy.status.reason
    assert accuracy.status.ranked_objective == -float("inf")
    assert train(*wild, "objective=val_loss").status.ranked_objective == float("inf")
    assert train(*wild).reused


def test_a_diverged_run_exits_with_status_0(tmp_path: Path) -> None:
    answer = start(tmp_path, *QUICK, "optimizer=sgd", "optimizer.lr=1e30").wait()
    assert answer.status == 0
    assert "diverged" in answer.stdout


def test_a_failing_run_leaves_its_traceback_and_can_be_run_again(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairsweep.training.lane import Lane

    step = Lane.train_step

    def broken(lane: Lane, index: torch.Tensor) -> None:
        if lane.step == 5:
            raise RuntimeError("out of luck")
        step(lane, index)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "train_step", broken)
        failed = train()
    assert failed.status.name == "failed"
    assert failed.status.reason == "RuntimeError: out of luck"
    log = (failed.folder.path / "run.log").read_text()
    assert "Traceback" in log
    assert "out of luck" in log
    again = train()
    assert again.status.name == "finished"
    assert not again.reused


@pytest.mark.parametrize(
    ("keep", "files"),
    [
        ("auto", {"last.pt", "best.pt"}),
        ("weights", {"last.pt", "best.pt"}),
        ("all", {"last.pt", "best.pt", "epoch_0001.pt", "epoch_0002.pt"}),
        ("none", set()),
    ],
)
def test_record_keep_says_which_weights_stay(train: Trainer, keep: str, files: set[str]) -> None:
    folder = train(f"record.keep={keep}").folder
    assert {path.name for path in folder.path.glob("*.pt")} == files
    for name in files:
        kept = torch.load(folder.path / name, weights_only=True)
        assert kept.keys() <= {"model", "step", "signature", "journal_bytes"}


def test_a_run_starts_from_the_weights_of_another(train: Trainer, tmp_path: Path) -> None:
    source = train("trainer.test_weights=last").folder
    by_name = train("seed=1", f"trainer.weights={source.signature}")
    assert by_name.status.name == "finished"
    assert train("seed=1", "trainer.weights=latest", "rerun=false").folder.signature != source.signature
    copied = tmp_path / "somewhere.pt"
    copied.write_bytes((source.path / "last.pt").read_bytes())
    by_file = train("seed=1", f"trainer.weights={copied}")
    assert by_file.folder.signature == by_name.folder.signature, "the content counts, not the path"
    assert by_file.reused
    plain = tmp_path / "plain.pth"  # as others save it
    torch.save(torch.load(source.path / "last.pt", weights_only=True)["model"], plain)
    by_state = train("seed=1", f"trainer.weights={plain}")
    weights = [torch.load(run.folder.path / "last.pt", weights_only=True) for run in (by_state, by_name)]
    assert all(torch.equal(value, weights[1]["model"][name]) for name, value in weights[0]["model"].items())


def test_equal_configurations_are_trained_once(compose: Compose) -> None:
    cfg = compose(*QUICK, "record.pictures=none")
    first, second = run_many([cfg, cfg.copy()])
    assert first.folder.path == second.folder.path
    assert first.status.name == "finished"


def test_a_run_that_cannot_be_built_fails_and_its_neighbours_train(compose: Compose) -> None:
    configs = [compose(*QUICK), compose(*QUICK, "trainer.batch_size=500"), compose(*QUICK, "seed=1")]
    outcomes = run_many(configs)
    assert [outcome.status.name for outcome in outcomes] == ["finished", "failed", "finished"]
    failed = outcomes[1]
    assert failed.status.ranked_objective is None
    assert "trainer.batch_size=500" in failed.status.reason
    assert "Traceback" in (failed.folder.path / "run.log").read_text()


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_run_whose_folder_cannot_be_written_fails_and_its_neighbours_train(
    compose: Compose, tmp_path: Path, lanes: int
) -> None:
    configs = [compose(*QUICK, f"seed={seed}") for seed in range(4)]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / identity.identify(RunSpec(configs[1])).signature).touch()
    outcomes = run_many(configs, lanes)
    assert [outcome.status.name for outcome in outcomes] == [
        "finished",
        "failed",
        "finished",
        "finished",
    ]
    assert "cannot write to" in outcomes[1].status.reason


def test_a_run_whose_checkpoint_does_not_fit_fails_and_its_neighbours_train(compose: Compose) -> None:
    configs = [compose(*QUICK, "trainer.epochs=4", f"seed={seed}") for seed in range(3)]
    paused = compose(*QUICK, "trainer.epochs=4", "seed=1", "trainer.stop_epoch=1")
    (outcome,) = run_many([paused])
    state = checkpoint.read(outcome.folder.path / "last.pt")
    state["model"] = {name: value[:1] for name, value in state["model"].items()}
    checkpoint.write(outcome.folder, "last.pt", state)
    outcomes = run_many(configs, lanes=3)
    assert [outcome.status.name for outcome in outcomes] == ["finished", "failed", "finished"]
    assert "size mismatch" in outcomes[1].status.reason


def test_when_the_disk_gets_full_runs_in_training_end_and_the_others_fail_until_there_is_room(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [compose(*QUICK, f"seed={seed}") for seed in range(4)]
    room = iter([10**9, 10**9])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, next(room, 4096)))
        outcomes = run_many(configs, lanes=4)
    assert [outcome.status.name for outcome in outcomes] == ["finished", "finished", "failed", "failed"]
    assert "its disk is full" in outcomes[3].status.reason
    assert {outcome.status.name for outcome in run_many(configs)} == {"finished"}


def test_runs_that_do_not_fit_a_device_together_train_in_smaller_numbers(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five at once are too many, three as well; the bits are those of each alone."""
    step, training = Lane.train_step, set[Lane]()

    def short_of_memory(lane: Lane, index: torch.Tensor) -> None:
        training.add(lane)
        if len([other for other in training if other.ending is None]) > 2 and lane.step > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(lane, index)

    configs = [compose(*QUICK, "trainer.log_every=1", f"seed={seed}") for seed in range(6)]
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "train_step", short_of_memory)
        fused = run_many(configs, lanes=5)
    assert [outcome.status.name for outcome in fused] == ["finished"] * 6
    journals = [figures(outcome.folder) for outcome in fused]
    solo = run_many([OmegaConf.merge(cfg, {"rerun": True}) for cfg in configs])
    assert [figures(outcome.folder) for outcome in solo] == journals


def short_beside(lanes: int, seeds: range) -> Callable[[Lane, torch.Tensor], None]:
    """A `train_step` for which memory is short for these runs if more than this many lanes train at once."""
    step = Lane.train_step

    def train_step(lane: Lane, index: torch.Tensor) -> None:
        if lane.beside > lanes and lane.seed in seeds and lane.step > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(lane, index)

    return train_step


def test_several_runs_that_lack_memory_at_once_halve_their_number_once(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "train_step", short_beside(5, range(5, 8)))
    configs = [compose(*QUICK, "trainer.log_every=1", f"seed={seed}") for seed in range(8)]
    told = StringIO()
    outcomes = run_many(configs, lanes=8, output=told)
    assert {outcome.status.name for outcome in outcomes} == {"finished"}
    assert told.getvalue().count("do not fit into") == 1
    assert "8 runs at once do not fit into the device's memory; continuing with 4" in told.getvalue()


def test_runs_of_which_each_only_lacks_memory_beside_the_other_train_alone(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "train_step", short_beside(1, range(2)))
    outcomes = run_many([compose(*QUICK, f"seed={seed}") for seed in range(2)], lanes=2)
    assert {outcome.status.name for outcome in outcomes} == {"finished"}


def test_a_model_for_which_there_is_no_memory_at_present_is_no_mistake_of_its_configuration(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, living = MLP.forward, list[Lane]()

    def short_of_memory(model: MLP, images: torch.Tensor) -> torch.Tensor:
        if not model.training or torch.is_grad_enabled():
            return forward(model, images)
        # The batch that is tried when a lane is built.
        if len([lane for lane in living if lane.ending is None]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, images)

    build = Lane.__init__

    def built(lane: Lane, *args: Any, **kwargs: Any) -> None:
        build(lane, *args, **kwargs)
        living.append(lane)

    monkeypatch.setattr(MLP, "forward", short_of_memory)
    monkeypatch.setattr(Lane, "__init__", built)
    outcomes = run_many([compose(*QUICK, f"seed={seed}") for seed in range(3)], lanes=3)
    assert {outcome.status.name for outcome in outcomes} == {"finished"}


def test_of_runs_one_by_one_only_that_in_training_is_in_memory(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, made, alive = Lane.__init__, list[weakref.ref[Lane]](), list[int]()

    def counted(lane: Lane, *args: Any, **kwargs: Any) -> None:
        alive.append(sum(other() is not None for other in made))
        build(lane, *args, **kwargs)
        made.append(weakref.ref(lane))

    monkeypatch.setattr(Lane, "__init__", counted)
    gc.disable()
    try:
        run_many([compose(*QUICK, f"seed={seed}") for seed in range(4)])
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]


def test_a_device_is_asked_for_memory_again_only_when_something_has_changed(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[int, int]]()

    def for_two(lanes: list[Lane]) -> bool:
        asked.append((len(lanes), sum(lane.is_settled() for lane in lanes)))
        return len(lanes) < 2

    monkeypatch.setattr(loop, "fits_one_more", for_two)
    configs = [compose(*QUICK, "trainer.log_every=1", f"seed={seed}") for seed in range(3)]
    outcomes = run_many(configs, lanes=None)
    assert [outcome.status.name for outcome in outcomes] == ["finished"] * 3
    assert asked == [(1, 0), (2, 0), (2, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 MiB",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_that_memory_is_short_is_seen_in_what_torch_cuda_and_cublas_say(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    broken_off = RuntimeError("operation failed due to a previous error during capture")
    broken_off.__context__ = RuntimeError(text)
    assert is_out_of_memory(broken_off)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_run_for_which_there_is_no_memory_at_present_waits(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, lanes = Lane.__init__, list[Lane]()

    def short_of_memory(lane: Lane, *args: Any, **kwargs: Any) -> None:
        if sum(other.ending is None for other in lanes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        build(lane, *args, **kwargs)
        lanes.append(lane)

    monkeypatch.setattr(Lane, "__init__", short_of_memory)
    outcomes = run_many([compose(*QUICK, f"seed={seed}", "rerun=true") for seed in range(5)], lanes=4)
    assert [outcome.status.name for outcome in outcomes] == ["finished"] * 5
    assert len(lanes) == 5


def test_a_run_that_does_not_fit_a_device_alone_fails(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Lane, "train_step", short_of_memory)
    outcomes = run_many([compose(*QUICK, f"seed={seed}") for seed in range(3)], lanes=3)
    assert {outcome.status.name for outcome in outcomes} == {"failed"}
    assert {outcome.status.reason for outcome in outcomes} == {"OutOfMemoryError: CUDA out of memory"}


def test_a_run_that_failed_at_once_is_trained_when_its_cause_has_gone(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any) -> None:
        raise MemoryError("no room")

    def run() -> Outcome:
        (outcome,) = run_many([compose(*QUICK)])
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr("fairsweep.training.build.model", out_of_memory)
        assert run().status.reason == "MemoryError: no room"
    assert run().status.name == "finished"


def test_threads_of_one_run_are_not_the_next_ones(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    process.default_threads.cache_clear()
    try:
        torch.set_num_threads(2)
        assert train("trainer.threads=1").status.threads == 1
        assert train("seed=1", "trainer.threads=null").status.threads == 2
    finally:
        torch.set_num_threads(1)
        process.default_threads.cache_clear()


def test_a_corrupt_checkpoint_never_takes_the_place_of_a_good_one(train: Trainer) -> None:
    folder = train("trainer.stop_epoch=1").folder
    last, previous = folder.path / "last.pt", folder.path / "previous.pt"
    last.rename(previous)
    damage(Path(shutil.copy(previous, last)))
    state, complaints = checkpoint.load(folder)
    assert state is not None
    assert len(complaints) == 1
    checkpoint.keep_previous(folder)  # what the next write begins with
    assert checkpoint.load(folder)[0] is not None


def test_lines_that_a_resume_takes_back_are_not_durable_any_more(train: Trainer) -> None:
    folder = train("trainer.stop_epoch=1").folder
    folder.set_status(journal_bytes=10**6)  # as of a checkpoint that was found damaged since
    run = Run(identity.identify(RunSpec(train.compose(*QUICK))), print)
    job = session.Job(run, Progress(Console(file=StringIO())))
    job.begin()
    assert job.state is not None
    assert folder.status().journal_bytes == job.state["journal_bytes"]
    folder.append({"step": 99, "epoch": 9.0, "train_loss": 1.0})
    assert len(folder.journal(durable=True)) == len(folder.journal()) - 1


def test_a_journal_is_json_also_where_a_loss_is_not_finite(train: Trainer) -> None:
    folder = train("optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every=1").folder
    text = (folder.path / "journal.jsonl").read_text()
    assert '"train_loss": null' in text
    assert "NaN" not in text
    assert "Infinity" not in text


def test_pictures_can_be_had_later(train: Trainer) -> None:
    folder = train().folder
    assert not folder.pictures.exists()
    assert train("record.pictures=all").reused
    assert {path.name for path in folder.pictures.iterdir()} == {"curves.png", "confusion.png", "worst.png"}


def test_a_disk_that_refuses_ends_the_run_as_failed_with_nothing_half_written(tmp_path: Path) -> None:
    answer = start(tmp_path, *LONG, before=on_a_full_disk).wait()
    assert answer.status == 1, answer
    assert "cannot write to" in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr
    folder = the_run(tmp_path)
    assert folder.status().name == "failed"
    assert not list(folder.path.glob(".*.part"))
    assert start(tmp_path, *LONG).wait().status == 0
    assert the_run(tmp_path).status().name == "finished"


def test_outputs_lie_in_the_project_wherever_the_command_is_given(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert compose("record.dir=${project:outputs}").record.dir == str(ROOT / "outputs")


def test_the_summary_keeps_the_command_to_copy_on_one_line(train: Trainer) -> None:
    outcome, output = train(), StringIO()
    cfg = train.compose("tracking=mlflow", "tracking.uri=sqlite:////a/rather/long/path/to/a/database.db")
    summary(Console(file=output, width=40), outcome.folder, outcome.status, outcome.reused, cfg)
    assert "ui --backend-store-uri sqlite:////a/rather/long/path/to/a/database.db\n" in output.getvalue()


def test_the_time_of_a_run_of_one_step_can_be_estimated(compose: Compose) -> None:
    words = ("scheduler=onecycle", "trainer.epochs=1", "trainer.batch_size=200")
    seconds, weights = estimate.estimate(compose(*QUICK, *words))
    assert seconds > 0
    assert weights > 0
