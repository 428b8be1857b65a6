"""Train one configuration: `python src/train.py optimizer=sgd optimizer.lr=0.1`."""

import json
import sys

from omegaconf import DictConfig, open_dict
from rich.console import Console

from fairsweep import experiment, tracking
from fairsweep.cli import entry_point
from fairsweep.progress import Progress, summary
from fairsweep.record import Place

# What a shell expects of a command that did what it was asked to, failed, or was interrupted.
EXIT_STATUS = {"finished": 0, "diverged": 0, "paused": 0, "failed": 1, "interrupted": 130}


@entry_point("train")
def main(cfg: DictConfig) -> float | None:
    """Train and tell; as one run of a sweep, only train. Returns the objective."""
    if "place" in cfg:  # the sweeper has put it there
        return one_of_many(cfg)
    progress = Progress(Console())
    (outcome,) = experiment.run([cfg], progress)
    tracking.sync_pending(cfg.record.dir, cfg, progress.note)
    summary(progress.console, outcome, cfg)
    if exit_status := EXIT_STATUS[outcome.status["status"]]:
        sys.exit(exit_status)
    return outcome.objective


def one_of_many(cfg: DictConfig) -> float | None:
    """One run of a sweep. Raises where it failed, so that its job counts as failed, or was interrupted."""
    with open_dict(cfg):
        place = Place(**json.loads(cfg.pop("place")))
    (outcome,) = experiment.run([cfg], Progress(Console(), quiet=True), [place])
    if outcome.status["status"] == "failed":
        raise experiment.RunFailed(outcome.status["reason"])
    if outcome.status["status"] == "interrupted":
        raise KeyboardInterrupt
    return outcome.objective


if __name__ == "__main__":
    main()
