"""Between Hydra's launchers and runs: what a job asks for, and what the launcher gets back."""

import json
from collections.abc import Iterable

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict
from rich.console import Console

from fairsweep import experiment
from fairsweep.experiment import RunFailed, Wanted
from fairsweep.progress import Progress
from fairsweep.record import Place


def override(place: Place) -> str:
    """What a run is in its sweep, as an override of its job."""
    # Quotes and dollars mean something to Hydra.
    text = json.dumps(place._asdict()).replace("'", r"\u0027").replace("$", r"\u0024")
    return f"+place='{text}'"


def wanted(cfg: DictConfig) -> Wanted:
    """The run that a job's configuration asks for."""
    place = None
    if "place" in cfg:  # else another sweeper than ours is at work
        with open_dict(cfg):
            place = Place(**json.loads(cfg.pop("place")))
    return Wanted(cfg, place, single=False)


def run(runs: Iterable[Wanted], lanes: int | None = 1) -> list[JobReturn]:
    """Train these runs as jobs, so many at once (see `experiment.run`).

    Raises:
        KeyboardInterrupt: the user stopped.
    """
    outcomes = experiment.run(runs, Progress(Console(), quiet=True), lanes)
    if any(outcome.status["status"] == "interrupted" for outcome in outcomes):
        raise KeyboardInterrupt
    returns = []
    for outcome in outcomes:
        failed = outcome.status["status"] == "failed"
        job = JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
        job.return_value = RunFailed(outcome.status["reason"]) if failed else outcome.objective
        returns.append(job)
    return returns
