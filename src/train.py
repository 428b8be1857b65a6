"""Train one configuration: `python src/train.py optimizer=sgd optimizer.lr=0.1`."""

import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from fairsweep import signals
from fairsweep.cli.entry import entry_point
from fairsweep.launch import jobs
from fairsweep.runs import life, reproduce, session, uploader
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress, summary

# What a shell expects of a command that did what it was asked to, failed, or was interrupted.
EXIT_STATUS = {"finished": 0, "diverged": 0, "paused": 0, "failed": 1, "interrupted": 130}


@entry_point("train", expand=reproduce.expanded)
def main(cfg: DictConfig) -> Any:
    """Train and tell; as one job of a sweep, only train. Returns the objective."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        with uploader.running(print) as is_alone:
            objective = jobs.run(cfg)
            if is_alone:  # else the sweep waits for its uploads
                life.flush(cfg)
        return objective
    progress = Progress(Console())
    with uploader.running(progress.note):
        (outcome,) = session.run([RunSpec(cfg)], progress)
        with signals.postponed():
            uploader.register(outcome.folder, cfg, progress.note)
            life.flush(cfg)
            summary(progress.console, outcome.folder, outcome.status, outcome.reused, cfg)
    if exit_status := EXIT_STATUS[outcome.status.name]:
        sys.exit(exit_status)
    return outcome.status.ranked_objective


if __name__ == "__main__":
    main()
