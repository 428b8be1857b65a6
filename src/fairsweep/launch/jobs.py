"""Runs as jobs of Hydra's launchers, which know nothing but overrides."""

import base64
import json
import zlib

from omegaconf import DictConfig
from rich import get_console

from fairsweep.config import literal, resolved
from fairsweep.runs import session
from fairsweep.runs.folder import Place
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import RunFailed
from fairsweep.runs.progress import Progress

# The override of a sweep's job that holds its run.
JOB = "job"


def packed(spec: RunSpec) -> list[str]:
    """A job: the overrides of its run, followed by the run itself as it was planned.

    Hydra's launchers compose the overrides again, after files that they refer to may have changed.
    """
    assert spec.place is not None
    identity = {"signature": spec.signature, "content": spec.content}
    run = {"cfg": resolved(spec.cfg), "place": spec.place._asdict(), **identity}
    text = base64.b64encode(zlib.compress(json.dumps(run).encode(), 1)).decode()  # no quotes, no dollars
    return [*spec.overrides, f"+{JOB}='{text}'"]


def unpacked(cfg: DictConfig) -> RunSpec:
    """The run of a job's configuration, as Hydra composed it."""
    if JOB not in cfg:
        return RunSpec(cfg, single=False)  # another sweeper made this job
    run = json.loads(zlib.decompress(base64.b64decode(cfg[JOB])))
    return RunSpec(literal(run["cfg"]), Place(**run["place"]), False, run["signature"], run["content"])


def run(cfg: DictConfig) -> float | None:
    """Train the run of a job; gives its objective.

    Raises:
        KeyboardInterrupt: the user stopped.
        RunFailed: it has failed.
    """
    (outcome,) = session.run([unpacked(cfg)], Progress(get_console(), quiet=True))
    if outcome.status.name == "interrupted":
        raise KeyboardInterrupt
    if outcome.status.name == "failed":
        raise RunFailed(outcome.status.reason)
    return outcome.status.ranked_objective
