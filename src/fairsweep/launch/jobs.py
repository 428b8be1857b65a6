"""Between Hydra's launchers and runs: the run that a job stands for, and what the launcher gets back."""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich import get_console

from fairsweep.config import ConfigError, literal
from fairsweep.runs import experiment
from fairsweep.runs.experiment import Outcome, RunFailed, Wanted
from fairsweep.runs.progress import Progress
from fairsweep.runs.record import Place

# The override of a sweep's job that holds its run.
JOB = "job"


class CannotLaunch(ConfigError):
    """The launcher cannot work at all, which is not any run's failure."""


def overrides(values: Sequence[str], cfg: dict[str, Any], place: Place, **identity: str) -> list[str]:
    """A job: the overrides of its run, followed by the run itself as it was planned.

    Hydra's launchers compose the overrides again, after files that they refer to may have changed.

    Args:
        cfg: the resolved configuration that the run is trained with.
        identity: its `signature` and `content`.
    """
    run = {"cfg": cfg, "place": place._asdict(), **identity}
    packed = base64.b64encode(zlib.compress(json.dumps(run).encode(), 1))  # no quotes, no dollars
    return [*values, f"+{JOB}='{packed.decode()}'"]


def unpacked(job: str) -> Wanted:
    """The run that the last of a job's overrides holds."""
    packed = job.removeprefix(f"+{JOB}=").strip("'")
    run = json.loads(zlib.decompress(base64.b64decode(packed)))
    return Wanted(literal(run["cfg"]), Place(**run["place"]), False, run["signature"], run["content"])


def wanted(cfg: DictConfig) -> Wanted:
    """The run of a job's configuration, as Hydra composed it."""
    if JOB in cfg:
        return unpacked(cfg[JOB])
    return Wanted(cfg, single=False)  # another sweeper made this job


def run(runs: Iterable[Wanted], lanes: int | None = 1, fail_fast: bool = False) -> list[JobReturn]:
    """Train these runs as jobs, up to `lanes` at once (see `experiment.run`).

    Raises:
        FirstFailure: a run failed, with fail_fast.
        KeyboardInterrupt: the user stopped.
    """
    outcomes = experiment.run(runs, Progress(get_console(), quiet=True), lanes, fail_fast)
    return returned(outcomes)


def returned(outcomes: Iterable[Outcome]) -> list[JobReturn]:
    """The results that Hydra gets of jobs: the objective, or the error.

    Raises:
        KeyboardInterrupt: the user stopped.
    """
    returns = []
    for outcome in outcomes:
        if outcome.status["status"] == "interrupted":
            raise KeyboardInterrupt
        failed = outcome.status["status"] == "failed"
        job = JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
        job.return_value = RunFailed(outcome.status["reason"]) if failed else outcome.objective
        returns.append(job)
    return returns
