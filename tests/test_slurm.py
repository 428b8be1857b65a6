"""The slurm launcher, on a real Slurm that keeps no accounts: one machine, two cores."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException
from servers import free_port
from test_ray import running, wait_until
from test_session import LONG
from test_sweep import FOUR, QUICK, Outputs, assert_same_sweep, empty_store, others, outputs

from fairsweep.cli.entry import explain

__all__ = ["empty_store", "others", "outputs"]  # fixtures

SLURM = "hydra/launcher=slurm"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES
PartitionName=short Nodes=ALL MaxTime=60
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Callable[[], dict[str, int]]]:
    """Starts Slurm; gives a function that tells the processes of its jobs by job."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        pytest.skip("no Slurm here (Debian: slurmctld, slurmd, slurm-client)")
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    file = tmp_path / "slurm.conf"
    names = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": tmp_path}
    file.write_text(CONFIGURATION.format(ports=[free_port(), free_port()], **names))
    with pytest.MonkeyPatch.context() as patch, (tmp_path / "slurm.log").open("w") as log:
        patch.setenv("SLURM_CONF", str(file))
        daemons = [
            subprocess.Popen([name, "-D", "-f", str(file)], stdout=log, stderr=log)
            for name in ("slurmctld", "slurmd")
        ]
        try:
            wait_until(is_idle)
            yield lambda: jobs_of(file)
        finally:
            subprocess.run(["scancel", f"--user={os.getuid()}"], check=False)
            wait_until(lambda: not jobs_of(file))
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait()


def is_idle() -> bool:
    answer = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, check=False)
    return answer.stdout.strip() == b"idle"


def jobs_of(file: Path) -> dict[str, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environ = dict(
                entry.split("=", 1) for entry in (path / "environ").read_text().split("\0") if "=" in entry
            )
            command = (path / "cmdline").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        is_job = "submitit.core._submit" in command and not command.startswith(("srun", "/bin/bash"))
        if is_job and environ.get("SLURM_CONF") == str(file) and "SLURM_PROCID" in environ:
            found[environ["SLURM_JOB_ID"]] = int(path.name)
    return found


def configured(outputs: Outputs) -> Callable[[], None]:
    return Environment(os.environ["SLURM_CONF"])


class Environment:
    """Commands are forked from a process that was started before Slurm."""

    def __init__(self, conf: str) -> None:
        self.conf = conf

    def __call__(self) -> None:
        os.environ["SLURM_CONF"] = self.conf


@pytest.mark.slow
def test_a_job_that_crashes_fails_its_run_alone_and_the_same_command_makes_it_good(
    outputs: Outputs, others: Outputs, slurm: Callable[[], dict[str, int]]
) -> None:
    # Long enough that two are in training at once for seconds.
    words = (*LONG, "trainer.epochs=200", "optimizer=sgd", "optimizer.lr=0.1,0.03,0.01")
    others.sweep(*words)
    command = outputs.start(*words, SLURM, before=configured(outputs))
    wait_until(lambda: running(outputs) == len(slurm()) > 0)
    os.kill(max(slurm().values()), signal.SIGKILL)
    answer = command.wait()
    assert answer.status == 1, answer
    assert outputs.statuses == {"finished": 2, "failed": 1}
    (failed,) = (row for row in outputs.table if row["status"] == "failed")
    assert failed["reason"] == "its process died (killed, or out of memory)"

    outputs.start(*words, SLURM, before=configured(outputs)).wait()
    assert_same_sweep(outputs, others)
    outputs.assert_tracked()


@pytest.mark.slow
def test_ctrl_c_takes_jobs_back_and_their_runs_end_with_a_checkpoint(
    outputs: Outputs, slurm: Callable[[], dict[str, int]]
) -> None:
    command = outputs.start(*FOUR, SLURM, before=configured(outputs))
    outputs.wait_for_lines(10)
    time.sleep(1)
    command.send(signal.SIGINT)
    assert command.wait().status == 130
    assert slurm() == {}
    assert set(outputs.statuses) <= {"interrupted", "finished"}


@pytest.mark.slow
def test_what_slurm_refuses_is_told_in_one_line(
    outputs: Outputs, slurm: Callable[[], dict[str, int]]
) -> None:
    words = (*QUICK, SLURM, "tracking=none", "hydra.launcher.partition=nowhere")
    answer = outputs.sweep(*words, status=2, before=configured(outputs))
    *_, line = answer.stderr.splitlines()  # sbatch has its own before
    assert line.startswith(
        "error: hydra/launcher=slurm: Slurm takes no job: sbatch: error: invalid partition"
    )


@pytest.mark.slow
def test_a_job_that_slurm_will_never_start_is_told_of(
    outputs: Outputs, slurm: Callable[[], dict[str, int]]
) -> None:
    never = ("hydra.launcher.partition=short", "hydra.launcher.timeout_min=90")
    command = outputs.start(*QUICK, SLURM, "tracking=none", *never, before=configured(outputs))
    wait_until(lambda: "slurm: jobs wait: PartitionTimeLimit\n" in command.stdout)
    command.send(signal.SIGINT)
    assert command.wait().status == 130


def test_without_submitit_the_extra_is_named() -> None:
    error = MissingConfigException("", "hydra/launcher/submitit_slurm")  # as Hydra gives it
    assert "pip install 'fairsweep[slurm]'" in explain(error)
