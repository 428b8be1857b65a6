"""Commands of the project, run as from a shell and measured from outside."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from common import ROOT

if TYPE_CHECKING:
    from fairsweep.runs.folder import RunFolder


class Command(NamedTuple):
    """A command that has ended; `started` in unix seconds, `cpu` in seconds of the processor, `peak` resident
    set in bytes."""

    started: float
    seconds: float
    cpu: float
    peak: int
    status: int
    output: str


def start(output: IO[Any], *words: str) -> subprocess.Popen[bytes]:
    """Start Python with these arguments at the project's root, as from a shell."""
    env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, stdout=output, stderr=output)


def call(*words: str) -> Command:
    """The same to its end."""
    with tempfile.TemporaryFile("w+") as output:
        started, clock = time.time(), time.perf_counter()
        process = start(output, *words)
        _, ended, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(ended)  # so that Popen does not wait for it as well
        output.seek(0)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cpu = usage.ru_utime + usage.ru_stime
        return Command(started, seconds, cpu, peak, process.returncode, output.read())


def train(*overrides: str, status: int = 0) -> Command:
    """`python src/train.py <overrides>`, which must end with this exit status."""
    command = call("src/train.py", *overrides)
    if command.status != status:
        raise SystemExit(f"exit status {command.status}, expected {status}:\n{command.output}")
    return command


def only_run(directory: Path) -> "RunFolder":
    """The one run that is recorded there."""
    from fairsweep.runs.folder import RunFolder

    (status,) = directory.glob("runs/*/status.json")
    return RunFolder(status.parent)
