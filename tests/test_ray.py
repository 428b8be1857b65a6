"""The ray launcher: the same runs with the same bits, on all cores or on many machines, whatever dies."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import workers
from commands import nothing
from servers import free_port
from test_cli import assert_one_line
from test_session import LONG, figures
from test_sweep import (
    ARMS,
    FOUR,
    QUICK,
    Outputs,
    assert_same_sweep,
    assert_trained_once,
    empty_store,
    others,
    outputs,
    undisturbed,
)

from fairsweep.config import ConfigError
from fairsweep.launch import parcel, pool
from fairsweep.launch.parcel import Packer
from fairsweep.launch.worker import Worker
from fairsweep.runs.folder import RunFolder

__all__ = ["empty_store", "others", "outputs", "undisturbed"]  # fixtures

RAY = "hydra/launcher=ray"
PYTHONPATH = os.pathsep.join(sys.path)
slow = pytest.mark.slow


def use(kind: type[Worker]) -> None:
    """Have all workers be of this kind."""
    pool.Worker = kind  # type: ignore[misc]


eager, unlucky, newer = (partial(use, kind) for kind in (workers.Eager, workers.Unlucky, workers.Newer))


def crowded() -> None:
    """One worker's disk is full; here the disk refuses once."""
    use(workers.Crowded)
    unpack = parcel.unpack

    def refuse(folder: RunFolder, sent: parcel.Parcel) -> None:
        parcel.unpack = unpack
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    parcel.unpack = refuse


def processes(outputs: Outputs, name: str = "") -> list[int]:
    """The processes of this sweep's Ray, less zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"FAIRSWEEP_TEST={outputs.path}".encode() in (path / "environ").read_bytes()
            title = (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if marked and title and name.encode() in title:
            found.append(int(path.name))
    return found


def marked(outputs: Outputs, change: Callable[[], None] = nothing) -> Callable[[], None]:
    """As a shell starts a command, it leads its process group; a variable marks all its processes."""
    return Marked(str(outputs.path), change)


class Marked(NamedTuple):
    path: str
    change: Callable[[], None]

    def __call__(self) -> None:
        os.setpgid(0, 0)
        os.environ["FAIRSWEEP_TEST"] = self.path
        self.change()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(outputs: Outputs) -> int:
    """How many runs are in training."""
    statuses = [folder.status().name for folder in outputs.runs.values()]
    return statuses.count("running")


def resumable(outputs: Outputs) -> int:
    """How many runs are in training of which a checkpoint has come back."""
    statuses = [folder.status() for folder in outputs.runs.values()]
    return sum(status.name == "running" and status.step > 0 for status in statuses)


def leftovers() -> set[Path]:
    return set(Path("/tmp").glob("fairsweep-ray-*"))


# What travels


def write(folder: RunFolder, status: str, journal: str, checkpoint: bytes) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "journal.jsonl").write_text(journal)
    (folder.path / "last.pt").write_bytes(checkpoint)
    folder.log(status)
    folder.set_status(name=status)


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {str(p.relative_to(folder.path)): p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}


def test_a_run_folder_arrives_as_it_is_sent_part_by_part(tmp_path: Path) -> None:
    there, here = (RunFolder(tmp_path / place / "runs" / "a1") for place in ("there", "here"))
    packer = Packer(there)
    assert not packer.has_news()
    write(there, "running", "1\n", b"one")
    here.path.mkdir(parents=True)
    parcel.unpack(here, packer.pack([]))
    assert not packer.has_news()
    write(there, "finished", "1\n2\n3\n", b"three")
    (there.path / "pictures").mkdir()
    (there.path / "pictures" / "curves.png").write_bytes(b"png")
    (there.path / "config.yaml").write_text("what it is there")
    assert packer.has_news()
    sent = packer.pack(["a note"])
    assert sent.journal == (2, b"2\n3\n")
    assert set(sent.files) == {"last.pt", "status.json", "pictures/curves.png"}
    assert sent.notes == ["a note"]
    parcel.unpack(here, sent)
    assert contents(here) == {k: v for k, v in contents(there).items() if k != "config.yaml"}
    (there.path / "last.pt").unlink()
    there.set_status(weights="runs.py clean")
    parcel.unpack(here, packer.pack([]))
    assert not (here.path / "last.pt").exists()


def test_the_status_is_written_last_so_that_it_never_promises_what_is_not_there(tmp_path: Path) -> None:
    there, here = (RunFolder(tmp_path / place / "runs" / "a1") for place in ("there", "here"))
    write(there, "running", "1\n", b"one")
    here.path.mkdir(parents=True)
    (here.path / ".last.pt.part").mkdir()  # so that it cannot be written
    with pytest.raises(OSError, match=r"last\.pt"):
        parcel.unpack(here, Packer(there).pack([]))
    assert not here.status().has_begun
    assert (here.path / "journal.jsonl").read_text() == "1\n"


# Mistakes

SETTINGS = {"address": None, "workers": None, "cpus": 1, "gpus": 0, "lanes": "auto", "retries": 3}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("address", "ray://head:10001", "auto, or host:port, or null"),
        ("address", "head", "auto, or host:port, or null"),
        ("workers", 0, "a whole number, 1 or more, or null"),
        ("cpus", 0.5, "a whole number, 1 or more"),
        ("gpus", 1.5, "a number, 0 or more; above 1 a whole number"),
        ("gpus", -1, "a number, 0 or more; above 1 a whole number"),
        ("lanes", "all", "auto, or a whole number, 1 or more"),
        ("retries", -1, "a whole number, 0 or more"),
    ],
)
def test_a_setting_that_cannot_be_is_named(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        pool.Pool(pool.RaySettings(**SETTINGS | {key: value}))
    assert str(error.value) == f"hydra.launcher.{key}={value}: must be {allowed}"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install 'fairsweep\[ray\]'"):
        pool.Pool(pool.RaySettings(**SETTINGS))


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"threads": 2, "device": "cpu"}, "trainer.threads=2: a worker has hydra.launcher.cpus=1; set"),
        ({"threads": None, "device": "cuda:1"}, "trainer.device=cuda:1: a worker has hydra.launcher.gpus=0"),
    ],
)
def test_runs_that_need_more_than_a_worker_has_are_refused(trainer: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pool.Pool(pool.RaySettings(**SETTINGS)).check(SimpleNamespace(trainer=SimpleNamespace(**trainer)))  # type: ignore[arg-type]


def test_a_mistake_is_answered_in_one_line_before_anything_is_written(outputs: Outputs) -> None:
    answer = outputs.sweep(*QUICK, RAY, "hydra.launcher.cpus=x", status=2)
    assert_one_line(answer, "error: hydra.launcher.cpus=x: must be a whole number, 1 or more\n")
    assert not (outputs.path / "sweeps").exists()


@slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hydra.launcher.cpus=512", "hydra.launcher.cpus=512: this machine has"),
        ("hydra.launcher.gpus=64", "hydra.launcher.gpus=64: this machine has"),
        ("hydra.launcher.workers=999", "hydra.launcher.workers=999: only"),
        ("hydra.launcher.address=127.0.0.1:1", "hydra.launcher.address=127.0.0.1:1: this machine is not"),
    ],
)
def test_what_ray_cannot_give_is_told_in_one_line(outputs: Outputs, setting: str, said: str) -> None:
    answer = outputs.sweep(*QUICK, RAY, "tracking=none", setting, status=2, before=marked(outputs))
    assert answer.stderr.startswith(f"error: {said}")
    assert answer.stderr.count("\n") == 1
    wait_until(lambda: processes(outputs) == [])
    assert outputs.definition["status"] == "failed"


# A cluster on one machine


class Nodes:
    """Ray on three machines that are one, each with one core and a folder of its own for temporary files."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args=self.node("head"))
        self.others = [self.cluster.add_node(**self.node(name)) for name in ("second", "third")]
        self.address: str = self.cluster.address

    def node(self, name: str) -> dict[str, Any]:
        (self.folder / name).mkdir()
        return {
            "num_cpus": 1,
            "include_dashboard": False,
            "env_vars": {"TMPDIR": str(self.folder / name), "PYTHONPATH": PYTHONPATH},
        }

    def workers(self, name: str) -> list[Path]:
        """The folders of the workers on a node."""
        return list((self.folder / name).glob("fairsweep-*"))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    made.cluster.shutdown()


SIXTY = (*LONG, "trainer.epochs=6", "optimizer=sgd", "optimizer.lr=0.1,0.03,0.01", "seed=range(20)")


@slow
def test_a_cluster_finishes_sixty_runs_though_one_of_its_machines_dies(
    outputs: Outputs, nodes: Nodes
) -> None:
    words = (*SIXTY, RAY, f"hydra.launcher.address={nodes.address}")
    command = outputs.start(*words)
    wait_until(lambda: len(outputs.runs) >= 15 and len(nodes.workers("second")) == 1)
    nodes.cluster.remove_node(nodes.others[0], allow_graceful=False)  # by kill -9
    answer = command.wait()
    assert answer.status == 0, answer
    assert outputs.statuses == {"finished": 60}
    for folder in outputs.runs.values():
        assert (folder.path / "run.log").read_text().count("finished after step") == 1
    assert not (outputs.path / "runs" / ".history").exists()
    outputs.assert_tracked()
    assert nodes.workers("head") == nodes.workers("third") == []
    outputs.sweep(*words)
    assert outputs.definition["reused"] == 60


@slow
def test_ctrl_c_ends_what_runs_on_other_machines(outputs: Outputs, nodes: Nodes) -> None:
    words = (*LONG, "trainer.epochs=100", "optimizer=sgd", "seed=range(20)")
    command = outputs.start(*words, RAY, f"hydra.launcher.address={nodes.address}")
    wait_until(lambda: running(outputs) == 3)
    command.send(signal.SIGINT)
    assert command.wait().status == 130
    assert outputs.statuses["interrupted"]
    assert set(outputs.statuses) <= {"interrupted", "finished"}
    assert [nodes.workers(name) for name in ("head", "second", "third")] == [[], [], []]
    outputs.assert_tracked()


@slow
def test_a_worker_with_other_code_is_refused_by_name(outputs: Outputs, nodes: Nodes) -> None:
    words = (*QUICK, "seed=range(8)", RAY, f"hydra.launcher.address={nodes.address}")
    answer = outputs.sweep(*words, before=marked(outputs, newer))
    refused = (
        f"worker on {socket.gethostname()} refused: its fairsweep differs from the one here (0123456789,"
    )
    assert answer.stdout.count(refused) == 2
    assert outputs.statuses == {"finished": 8}


@pytest.fixture
def guarded() -> Iterator[int]:
    """The port of a cluster that wants the token TOKEN, and says that it has two GPUs."""
    port = free_port()
    command = [
        "ray",
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=2",
        "--num-gpus=2",
        "--include-dashboard=false",
    ]
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": PYTHONPATH}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            wait_until(lambda: answers(port))
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)


TOKEN = "0123456789abcdef" * 4


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def with_token() -> None:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def telling_with_token() -> None:
    with_token()
    use(workers.Telling)


def where_no_cluster_is_known() -> None:
    os.environ["RAY_TMPDIR"] = "/nowhere"


@slow
def test_auto_is_what_ray_start_has_started_never_the_private_ray_of_another_command(
    outputs: Outputs, others: Outputs, guarded: int
) -> None:
    command = others.start(*LONG, "trainer.epochs=300", "optimizer=sgd", "seed=range(4)", RAY)
    wait_until(lambda: running(others) > 0)
    words = (*QUICK, "seed=range(2)", "tracking=none", RAY, "hydra.launcher.address=auto")
    answer = outputs.sweep(*words, status=2, before=where_no_cluster_is_known)
    assert_one_line(
        answer,
        "error: hydra.launcher.address=auto: this machine is not part of a Ray cluster",
        "/nowhere/ray/ray_current_cluster does not",
    )
    command.send(signal.SIGINT)
    command.wait()
    outputs.sweep(*words, before=with_token)
    assert outputs.statuses == {"finished": 2}


@slow
def test_workers_get_a_gpu_each_and_groups_of_runs(outputs: Outputs, guarded: int) -> None:
    words = (*QUICK, "seed=range(8)", "tracking=none", RAY, f"hydra.launcher.address=127.0.0.1:{guarded}")
    outputs.sweep(*words, "hydra.launcher.gpus=1", status=1, before=telling_with_token)
    told = {row["reason"].partition(": ")[2] for row in outputs.table}
    assert {"GPU 0, 2 runs", "GPU 1, 2 runs"} <= told


@slow
def test_workers_that_never_get_ready_are_told_of_and_not_started_for_ever(
    outputs: Outputs, nodes: Nodes
) -> None:
    """A driver that wants a token is not heard by workers that have none."""
    words = (*QUICK, "seed=range(2)", "tracking=none", RAY, f"hydra.launcher.address={nodes.address}")
    answer = outputs.sweep(*words, status=2, before=with_token)
    assert "hydra/launcher=ray: workers die as they start" in answer.stdout + answer.stderr


# One machine


@slow
def test_workers_train_the_same_bits_once_each_and_leave_nothing_behind(
    outputs: Outputs, undisturbed: Outputs
) -> None:
    before = leftovers()
    answer = outputs.sweep(*FOUR, RAY, before=marked(outputs))
    assert answer.stdout.count(": finished  val_accuracy") == 4
    assert_same_sweep(outputs, undisturbed)
    assert_trained_once(outputs)
    outputs.assert_tracked()
    wait_until(lambda: processes(outputs) == [])
    assert leftovers() == before
    for folder in outputs.runs.values():
        assert folder.config().record.dir == str(outputs.path)
        assert folder.status().command.startswith("src/train.py -m")
        assert folder.status().threads == 1

    trained = outputs.trained
    answer = outputs.sweep(*FOUR, RAY, before=marked(outputs))
    assert "4 finished; 4 reused" in answer.stdout
    assert outputs.trained == trained


@slow
def test_a_run_that_is_to_be_trained_again_starts_from_nothing(outputs: Outputs) -> None:
    words = (*QUICK, "optimizer=sgd", "optimizer.lr=0.1,0.01", "trainer.threads=1")
    outputs.sweep(*words)
    before = outputs.trained
    answer = outputs.sweep(*words, RAY, "rerun=true")
    assert answer.stdout.count("rerun=true: training again; the old run is in ") == 2
    assert all(outputs.trained[signature] > before[signature] for signature in before)
    old = [RunFolder(path) for path in (outputs.path / "runs" / ".history").iterdir()]
    assert {figures(folder)[-1]["objective"] for folder in old} == {
        figures(folder)[-1]["objective"] for folder in outputs.runs.values()
    }
    superseded = [run for run in outputs.client.search_runs(["1"]) if "superseded" in run.data.tags]
    assert len(superseded) == 2


@slow
def test_a_run_that_is_to_be_trained_again_and_cannot_be_built_stays_as_it_is(outputs: Outputs) -> None:
    words = (*QUICK, "tracking=none", "seed=range(2)")
    outputs.sweep(*words)
    before = outputs.trained
    answer = outputs.sweep(*words, RAY, "rerun=true", "trainer.device=mps", status=1)
    assert "trainer.device=mps: not available" in answer.stdout
    assert outputs.trained == before
    assert outputs.statuses == {"finished": 2}


@slow
def test_a_full_disk_here_fails_one_run_and_one_there_none(outputs: Outputs) -> None:
    words = (*QUICK, "tracking=none", "seed=range(6)", RAY)
    answer = outputs.sweep(*words, status=1, before=marked(outputs, crowded))
    assert "cannot continue: [Errno 28] No space left on device" in answer.stdout
    assert outputs.statuses["finished"] == 5


@slow
def test_all_phases_of_the_fair_sweeper_work_in_groups_that_train_side_by_side(
    outputs: Outputs, others: Outputs
) -> None:
    words = (
        *QUICK, "tracking=none", "trainer.epochs=4", ARMS, "trials=3", "seeds=2", "halving=3", "extend=true",
        "extend_steps=1", "confirm=3",
    )  # fmt: skip
    others.sweep(*words)
    outputs.sweep(*words, RAY, "hydra.launcher.lanes=3")
    assert_same_sweep(outputs, others)
    assert "pruned" in outputs.statuses


@slow
@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 2, [signal.SIGKILL]]
)
def test_stopped_in_any_way_it_leaves_no_process_and_goes_on_with_the_same_bits(
    outputs: Outputs, undisturbed: Outputs, signals: list[signal.Signals]
) -> None:
    before = leftovers()
    command = outputs.start(*FOUR, RAY, before=marked(outputs, eager))
    wait_until(lambda: running(outputs) == 2)
    assert command.process.pid is not None
    for number in signals:
        if number == signal.SIGINT:  # which a terminal sends to the whole group
            os.killpg(command.process.pid, number)
        else:
            command.send(number)
        time.sleep(0.05)
    answer = command.wait()
    wait_until(lambda: processes(outputs) == [])  # Ray's agents may take a minute to notice a kill -9
    if signal.SIGKILL not in signals:
        assert answer.status == 130
    if signals in ([signal.SIGINT], [signal.SIGTERM]):  # a second one cuts off what it meets
        assert set(outputs.statuses) <= {"interrupted", "finished"}
        assert outputs.statuses["interrupted"]
        assert leftovers() == before
        outputs.assert_tracked()

    outputs.sweep(*FOUR, RAY)
    assert_same_sweep(outputs, undisturbed)
    outputs.assert_tracked()


@slow
def test_a_worker_that_is_killed_costs_no_more_than_what_was_behind_the_last_checkpoint(
    outputs: Outputs, undisturbed: Outputs
) -> None:
    command = outputs.start(*FOUR, RAY, before=marked(outputs, eager))
    wait_until(lambda: resumable(outputs) == len(processes(outputs, "ray::Eager")) > 0)
    killed = processes(outputs, "ray::Eager")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert command.wait().status == 0
    assert_same_sweep(outputs, undisturbed)
    outputs.assert_tracked()
    logs = [(folder.path / "run.log").read_text() for folder in outputs.runs.values()]
    assert sum("its worker on" in log for log in logs) == len(killed)
    assert sum("resuming after step" in log for log in logs) == len(killed)


@slow
def test_fail_fast_ends_what_other_workers_are_at(outputs: Outputs) -> None:
    words = (*LONG, "trainer.epochs=200", RAY, "optimizer=sgd", "seed=range(2,6)", "tracking=none")
    outputs.sweep(
        *words, "hydra.launcher.retries=0", "fail_fast=true", status=1, before=marked(outputs, unlucky)
    )
    assert outputs.definition["status"] == "failed"
    assert outputs.statuses["failed"] >= 1
    assert "finished" not in outputs.statuses
    wait_until(lambda: processes(outputs) == [])


@slow
def test_a_run_that_kills_its_worker_fails_after_some_tries_and_the_others_go_on(outputs: Outputs) -> None:
    words = (
        *QUICK,
        RAY,
        "optimizer=sgd",
        "optimizer.lr=0.1,0.01",
        "seed=range(4)",
        "hydra.launcher.retries=1",
    )
    answer = outputs.sweep(*words, status=1, before=marked(outputs, unlucky))
    reasons = {row["reason"] for row in outputs.table if row["seed"] == "1"}
    assert len(reasons) == 1
    assert reasons.pop().startswith("its worker died 2 times (killed, or out of memory), last on ")
    assert {row["reason"] for row in outputs.table if row["seed"] == "2"} == {"RuntimeError: out of luck"}
    assert outputs.statuses == {"finished": 4, "failed": 4}
    assert "4 finished, 4 failed" in answer.stdout
    outputs.assert_tracked()
