"""Between Hydra's launchers and runs: what a job asks for, and what the launcher gets back."""

import json
from collections.abc import Iterable, Sequence

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict
from rich import get_console

from fairsweep import experiment
from fairsweep.config import ConfigError
from fairsweep.experiment import Outcome, RunFailed, Wanted
from fairsweep.progress import Progress
from fairsweep.record import Place
from fairsweep.sweeps.compose import Composer


class CannotLaunch(ConfigError):
    """The launcher cannot work at all: that is no run's failure."""


def overrides(values: list[str], place: Place) -> list[str]:
    """A job: the overrides that make its run, and behind them what that is in its sweep."""
    # Quotes and dollars mean something to Hydra.
    text = json.dumps(place._asdict()).replace("'", r"\u0027").replace("$", r"\u0024")
    return [*values, f"+place='{text}'"]


def compose(composer: Composer, master: DictConfig, job: Sequence[str]) -> Wanted:
    """The run that a job of `overrides` asks for, without Hydra's parser having to read the last of them."""
    *values, place = job
    text = place.removeprefix("+place='").removesuffix("'")
    return Wanted(composer.run_config(master, values), Place(**json.loads(text)), single=False)


def wanted(cfg: DictConfig) -> Wanted:
    """The run that a job's configuration asks for, as Hydra has composed it."""
    place = None
    if "place" in cfg:  # else another sweeper than ours is at work
        with open_dict(cfg):
            place = Place(**json.loads(cfg.pop("place")))
    return Wanted(cfg, place, single=False)


def run(runs: Iterable[Wanted], lanes: int | None = 1, fail_fast: bool = False) -> list[JobReturn]:
    """Train these runs as jobs, so many at once (see `experiment.run`).

    Raises:
        FirstFailure: a run has failed, with fail_fast.
        KeyboardInterrupt: the user stopped.
    """
    outcomes = experiment.run(runs, Progress(get_console(), quiet=True), lanes, fail_fast)
    return returned(outcomes)


def returned(outcomes: Iterable[Outcome]) -> list[JobReturn]:
    """What Hydra gets of jobs: the objective, or the error.

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
