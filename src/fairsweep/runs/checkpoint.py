"""Checkpoints and weights in a run's folder: what a run resumes from, and what it leaves."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from fairsweep.config import ConfigError
from fairsweep.files import write_atomically
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import REMOVED


def save(folder: RunFolder, state: dict[str, Any]) -> None:
    """Write `last.pt`; the one before it stays as `previous.pt`.

    From here on, the journal's lines so far are durable: a resume continues after them.
    """
    size = folder.sync_journal()
    keep_previous(folder)
    write(folder, "last.pt", {**state, "journal_bytes": size})
    folder.set_status(journal_bytes=size, **{key: state[key] for key in ("step", "seconds", "shared")})


def finish(folder: RunFolder, kept: dict[str, dict[str, Any]], **status: Any) -> None:
    """End a run, keeping only these checkpoints (contents by file name).

    Killed at any point, the run can still be resumed, or is finished.
    """
    size = folder.sync_journal()
    keep_previous(folder)
    for name, content in kept.items():
        write(folder, name, {**content, "journal_bytes": size})
    folder.set_status(journal_bytes=size, **status)
    for name in {"last.pt", "best.pt", "previous.pt"} - kept.keys():
        (folder.path / name).unlink(missing_ok=True)


def keep_previous(folder: RunFolder) -> None:
    """Make room for a new `last.pt`, and keep the old one until the new one is on the disk."""
    last = folder.path / "last.pt"
    if last.exists():
        last.replace(folder.path / "previous.pt")


def write(folder: RunFolder, name: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values so that `torch.load(..., weights_only=True)` reads them."""
    import torch

    buffer = io.BytesIO()
    torch.save({**content, "signature": folder.signature}, buffer)
    write_atomically(folder.path / name, buffer.getvalue())


def load(folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest usable checkpoint of this run, and what is wrong with those skipped.

    Skipped ones are removed, so that the next write does not rotate one into the place of a good one.
    """
    complaints: list[str] = []
    for name in ("last.pt", "previous.pt"):
        path = folder.path / name
        if not path.exists():
            continue
        try:
            state = read(path)
            if state.get("signature") != folder.signature:
                raise ValueError("it is another run's")
            if "optimizer" in state:
                if folder.journal_bytes() < state["journal_bytes"]:
                    raise ValueError("journal.jsonl is damaged: lines before this checkpoint are missing")
                return state, complaints
        except ValueError as error:
            complaints.append(f"{path}: {error}; it is skipped")
        path.unlink()
    return None, complaints


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing is unpickled but tensors and plain values.

    Raises:
        ValueError: the file is damaged, or neither a checkpoint of ours nor a model's `state_dict`.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError("it is damaged or not a checkpoint") from error
    if damaged:
        raise ValueError(f"it is damaged (in {damaged})")
    if isinstance(state, dict) and state and all(isinstance(value, torch.Tensor) for value in state.values()):
        state = {"model": dict(state)}  # of `model.state_dict()`, as others save it
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError("it is neither a checkpoint of fairsweep nor a state_dict")
    return state


# Weights


def tested_file(folder: RunFolder) -> Path:
    """The checkpoint that the test figures belong to.

    Raises:
        ConfigError: the run has no test figures yet, its weights were not kept, or the file is missing.
    """
    status = folder.status()
    if not status.is_final:
        raise ConfigError(
            f"{folder.path}: has no tested weights, as it has not finished; finish it first, or "
            "choose another run"
        )
    if not stay(folder):
        why = status.weights if status.weights in REMOVED else "record.keep=none"
        raise ConfigError(
            f"{folder.path}: has no weights ({why}); choose another run, "
            "or train it again with record.keep=weights rerun=true"
        )
    is_best = folder.tests_best() and status.best_epoch is not None
    path = folder.path / ("best.pt" if is_best else "last.pt")
    if not path.is_file():
        raise ConfigError(f"{path}: is missing; train the run again with rerun=true, or choose another run")
    return path


def stay(folder: RunFolder) -> bool:
    """Whether the run keeps its weights after its end, and they were not removed since."""
    return bool(folder.config().record.keep != "none") and folder.status().weights not in REMOVED


def size(folder: RunFolder) -> int:
    """The bytes of its weights and checkpoints."""
    return sum(path.stat().st_size for path in folder.path.glob("*.pt"))


def remove(folder: RunFolder, why: str) -> None:
    """Free the disk of weights and checkpoints.

    Args:
        why: one of `status.REMOVED`.
    """
    folder.set_status(weights=why)  # first: weights that are missing without a reason are a loss
    for path in folder.path.glob("*.pt"):
        path.unlink()


def tested_weights(folder: RunFolder) -> dict[str, Any]:
    """The weights that the test figures belong to.

    Raises:
        ConfigError: they were not kept, or are damaged.
    """
    return read_weights(tested_file(folder))


def read_weights(path: Path) -> dict[str, Any]:
    """The model's weights in a checkpoint.

    Raises:
        ConfigError: it is not there, or damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; this run keeps no weights (record.keep)")
    try:
        weights: dict[str, Any] = read(path)["model"]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return weights
