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

from fairsweep import overrides
from fairsweep.config import CUTS, ROOT, without_credentials
from fairsweep.schema import UNKNOWN
from fairsweep.sources import fingerprint

if TYPE_CHECKING:
    from fairsweep.training import Lane

# The files that decide how a configuration trains.
CODE = (
    "build.py", "capture.py", "data.py", "images.py", "losses.py", "models.py", "sources.py", "training.py",
)  # fmt: skip

# The most of a patch that is kept with a run.
PATCH_LENGTH = 1_000_000

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
        "command": overrides.command(),
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
    """The commit of the project and whether files differ from it; empty where git does not say."""
    if not (ROOT / ".git").exists():
        return {}
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):  # not installed; the checkout is another user's
        return {}
    return {"commit": commit.stdout.strip(), "dirty": str(bool(changes.stdout.strip())).lower()}


@cache
def uncommitted() -> str:
    """The changes of tracked files since the commit, as a patch; cut at `PATCH_LENGTH` characters."""
    if git_state().get("dirty") != "true":
        return ""
    words = ["git", "-C", str(ROOT), "diff", "HEAD", "--binary"]
    found = subprocess.run(words, capture_output=True, check=False).stdout
    patch = without_credentials(found.decode(errors="replace"))
    return patch if len(patch) <= PATCH_LENGTH else f"{patch[:PATCH_LENGTH]}\n# cut: the patch is longer\n"


def stale_reason(reuse: str, status: dict[str, Any]) -> str:
    """Why a recorded run cannot be reused; empty where it can. Other data make another run."""
    if not status or reuse == "any":
        return ""
    if status["code"] != code_hash():
        return "the training code has changed since"
    if status["data"] == UNKNOWN:
        return "it failed before it began"
    return ""


def content(values: dict[str, Any]) -> str:
    """The hash of the data that a run of this resolved configuration trains on; downloads what is missing.

    Raises:
        ConfigError: the data are missing, incomplete or cannot be read.
    """
    # Cuts and augmentation do not change what is read.
    node = {key: value for key, value in values["data"].items() if key not in CUTS}
    hashes = Path(values["record"]["dir"]).absolute() / "content.json"
    return content_of(json.dumps(node, sort_keys=True), hashes)


@cache
def content_of(data: str, hashes: Path) -> str:
    """The same for a data configuration as JSON, hashed once for all runs of a process."""
    if (known := fingerprint(json.loads(data), hashes)) is not None:
        return known
    from fairsweep import build

    return build.content(data)


@cache
def code_hash() -> str:
    """A hash (16 hex digits) of the code that decides how a configuration trains."""
    content = b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)
    return hashlib.sha256(content).hexdigest()[:16]
