"""Where a run comes from: code, data, packages, machine; and whether a recorded one still is what it was."""

import hashlib
import json
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fairsweep import config
from fairsweep.config import ROOT
from fairsweep.sources import fingerprint

if TYPE_CHECKING:
    from fairsweep.training import Lane

# The files that decide how a configuration trains.
CODE = (
    "build.py", "capture.py", "data.py", "images.py", "losses.py", "models.py", "sources.py", "training.py",
)  # fmt: skip

# The fingerprint of data that were not read, as the run had failed before.
UNKNOWN = "unknown"

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "mlflow", "numpy")


def of(cfg: DictConfig, lane: "Lane | None" = None) -> dict[str, Any]:
    """What a run's status says of where it comes from; without a lane, of one that could not be built."""
    import torch

    return {
        "code": code_hash(),
        "data": lane.data.fingerprint if lane else UNKNOWN,
        "device": device_name(lane.device) if lane else str(cfg.trainer.device),
        "precision": lane.precision if lane else str(cfg.trainer.precision),
        "threads": lane.threads if lane else torch.get_num_threads(),
        "hostname": socket.gethostname(),
        "command": config.without_credentials(" ".join(sys.argv)),
        "git": git_state(),
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what comes out."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{name: version(name) for name in PACKAGES}}


def device_name(device: Any) -> str:
    """A GPU's name; cpu or mps."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@cache
def git_state() -> dict[str, str]:
    """The commit of the project and whether files differ from it; empty outside a git checkout."""
    if not (ROOT / ".git").exists():
        return {}
    commit, changes = (
        subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    return {"commit": commit.stdout.strip(), "dirty": str(bool(changes.stdout.strip())).lower()}


def stale_reason(cfg: DictConfig, status: dict[str, Any]) -> str:
    """Why what is recorded is not this run any more; empty where it still is."""
    if not status or cfg.reuse == "any":
        return ""
    if status["code"] != code_hash():
        return "the training code has changed since"
    if status["data"] == UNKNOWN:
        return "it had failed before it began"
    data = known_fingerprint(json.dumps(config.resolved(cfg)["data"], sort_keys=True))
    if data is not None and status["data"] != data:
        return "the data have changed since"
    return ""


@cache
def known_fingerprint(data: str) -> str | None:
    """The fingerprint of a data configuration, given as JSON; read once for all runs of a process."""
    return fingerprint(json.loads(data))


@cache
def code_hash() -> str:
    """A hash (16 hex digits) of the code that decides how a configuration trains."""
    content = b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)
    return hashlib.sha256(content).hexdigest()[:16]
