"""Where a run comes from: code, data, packages, machine; and whether a recorded run can still be reused."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fairsweep.cli import overrides
from fairsweep.config import ROOT, named_targets, without_credentials
from fairsweep.runs.status import UNKNOWN, Status
from fairsweep.training import (
    by_task,  # noqa: F401 - registers a resolver
    targets,
)
from fairsweep.training.sources import fingerprint, text_of

if TYPE_CHECKING:
    from fairsweep.training.lane import Lane

# Longer patches are cut, in characters.
PATCH_LENGTH = 1_000_000

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "mlflow", "numpy")


def of(cfg: DictConfig, lane: "Lane | None" = None) -> dict[str, Any]:
    """The origin of a run, as its status records it. Without a lane: of a run that could not be built."""
    import torch

    named = target_names(cfg)
    return {
        "code": targets.code_hash(named),
        "data": lane.task.data.fingerprint if lane else UNKNOWN,
        "device": device_name(lane.device) if lane else str(cfg.trainer.device),
        "precision": lane.precision if lane else str(cfg.trainer.precision),
        "threads": lane.threads if lane else torch.get_num_threads(),
        "hostname": socket.gethostname(),
        "command": overrides.command(),
        "git": git_state(),
        "versions": versions() | targets.versions(named),
    }


def target_names(cfg: Mapping[Any, Any]) -> tuple[str, ...]:
    """The classes and functions that a run's configuration names, sorted."""
    return tuple(sorted({*named_targets(cfg).values()}))


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect results."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{name: version(name) for name in PACKAGES}}


def device_name(device: Any) -> str:
    """A GPU's name; cpu or mps."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@cache
def git_state() -> dict[str, str]:
    """The project's commit, and whether tracked files differ from it; empty without git."""
    if not (ROOT / ".git").exists():
        return {}
    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):  # not installed; the checkout is another user's
        return {}
    return {"commit": commit.strip(), "dirty": str(bool(changes.strip())).lower()}


def git(*words: str) -> str:
    """What a git command prints about the project."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")


@cache
def uncommitted() -> str:
    """What differs from the commit: the names of untracked code, and a patch of the tracked files.

    Ignored files, which may hold secrets, are not in it. `git apply` accepts the text as it is.
    """
    if not git_state():
        return ""
    names = git("ls-files", "--others", "--exclude-standard", "--", "src", "conf").splitlines()
    patch = without_credentials(git("diff", "--no-ext-diff", "--no-color", "--binary", "HEAD"))
    if len(patch) > PATCH_LENGTH:
        patch = f"{patch[:PATCH_LENGTH]}\n# cut after {PATCH_LENGTH:,} characters\n"
    return "".join(f"# untracked, not in this patch: {name}\n" for name in names) + patch


def stale_reason(cfg: Mapping[Any, Any], status: Status) -> str:
    """Why a recorded run cannot be reused; empty if it can. Data are part of its signature.

    Args:
        cfg: of the run that is requested now.
    """
    if not status.has_begun or cfg["reuse"] == "any":
        return ""
    if status.code != targets.code_hash(target_names(cfg)):
        return "the training code has changed since"
    if status.data == UNKNOWN:
        return "it failed before it began"
    return ""


def content(values: dict[str, Any]) -> str:
    """The hash of the data of a resolved configuration; downloads what is missing.

    Raises:
        ConfigError: the data are missing, incomplete or cannot be read.
    """
    hashes = Path(values["record"]["dir"]).absolute() / "content.json"
    return content_of(text_of(values["data"]), hashes)


@cache
def content_of(data: str, hashes: Path) -> str:
    """The same for a data configuration as JSON; hashed once per process."""
    if (known := fingerprint(json.loads(data), hashes)) is not None:
        return known
    from fairsweep.training import build

    return build.content(data)
