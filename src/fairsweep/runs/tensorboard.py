"""TensorBoard event files of a run, made from its journal, beside it."""

import shutil
import warnings
from importlib.util import find_spec

from fairsweep.config import ConfigError
from fairsweep.metrics import tracked
from fairsweep.runs.folder import RunFolder


def check_installed() -> None:
    """
    Raises:
        ConfigError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "tracking.tensorboard=true: TensorBoard is not installed; pip install -e '.[tensorboard]'"
        )


def write(folder: RunFolder) -> None:
    """Write `<run folder>/tensorboard/` anew: every figure of the journal, and the model's graph."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from fairsweep.training import build

    goal = folder.path / "tensorboard"
    shutil.rmtree(goal, ignore_errors=True)
    facts = folder.facts()
    model = build.model(
        folder.config(), tuple(facts["shape"]), len(facts.get("targets") or facts["classes"])
    ).eval()
    with SummaryWriter(str(goal)) as writer:
        with warnings.catch_warnings():
            # add_graph uses a deprecated tracer; torch has no replacement for it here.
            warnings.simplefilter("ignore", FutureWarning)
            writer.add_graph(model, torch.zeros(2, *facts["shape"]))
        for line in folder.journal():
            for key, value in line.items():
                if key not in ("step", "epoch", "time") and value is not None:
                    writer.add_scalar(tracked(key), value, int(line["step"]), walltime=line["time"])
