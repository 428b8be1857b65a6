"""What waits to be uploaded: a marker for each record that a store lacks, and what each folder knows."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from fairsweep.config import TEXT, without_credentials
from fairsweep.files import write_atomically
from fairsweep.runs import schema
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, read_json, read_sweep, warn
from fairsweep.runs.status import Status
from fairsweep.runs.store import Note, Store, name

# What waits to be uploaded


def pending(outputs: Path) -> Path:
    """The folder with a marker for each run and sweep that a store does not have whole yet."""
    return outputs / "pending"


def write(marker: Path, uri: str, note: Note, directory: Path | None = None) -> None:
    """Note that a store does not have all of something, which is recorded without it, too.

    Args:
        directory: of a sweep.
    """
    try:
        marker.parent.mkdir(exist_ok=True)
        lines = [store_name(uri, marker.parents[1]), *([str(directory)] if directory is not None else [])]
        marker.write_bytes(os.fsencode("\n".join(lines)))  # names of folders need not be UTF-8
    except OSError as error:
        note(f"{marker}: cannot be written: {error.strerror}")


def store_name(uri: str, outputs: Path) -> str:
    """The store's name; of a database in the output folder by its place there, as both may be moved."""
    prefix = f"sqlite:///{outputs.resolve()}/"
    return name(uri).replace(prefix, "sqlite:///", 1)


def waiting(outputs: Path, uri: str) -> list[Path]:
    """The markers of what this store does not have yet."""
    names = {store_name(uri, outputs), name(uri), without_credentials(uri)}
    return [marker for marker, text in all_of(outputs).items() if text.partition("\n")[0] in names]


def all_of(outputs: Path) -> dict[Path, str]:
    """All markers, with their texts; whatever else is in their folder is passed over."""
    found = {}
    for path in sorted(pending(outputs).iterdir()) if pending(outputs).is_dir() else []:
        if re.fullmatch(r"[a-z][0-9a-f]+(-[0-9]+)?", path.name):
            with suppress(OSError):  # another process has just uploaded it
                found[path] = os.fsdecode(path.read_bytes())
    return found


def run_of(marker: Path) -> RunFolder | None:
    """The folder of a marker's run, also in the history; None of a sweep, or where it is gone."""
    runs = marker.parents[1] / "runs"
    paths = (runs / marker.name, runs / ".history" / marker.name)
    return next((RunFolder(path) for path in paths if path.is_dir()), None)


def sweep_of(marker: Path) -> Path | None:
    """The folder of a marker's sweep; None where it is a run's, or the folder is gone."""
    place = os.fsdecode(marker.read_bytes()).partition("\n")[2]
    return sweep_folder(place, marker.parents[1], marker.name) if place else None


def sweep_folder(directory: str, outputs: Path, sweep: str) -> Path | None:
    """The folder of a sweep, also after the output folder was moved; None where it is gone."""
    for path in (Path(directory), outputs / "sweeps" / sweep):
        with suppress(Damaged, FileNotFoundError, ValueError):  # of a damaged marker, it may hold zeros
            if read_sweep(path)["id"] == sweep:
                return path
    return None


def outputs_of(folder: RunFolder) -> Path:
    """The output folder of a run, which may have been trained again since."""
    return folder.path.parents[2 if folder.path.parent.name == ".history" else 1]


# What a folder knows of its upload


def read_state(path: Path, uri: str) -> dict[str, Any]:
    """What of a folder is uploaded to this store: MLflow's ids of experiment and run, last step, ending."""
    return states(path).get(name(uri), {})


def states(path: Path) -> dict[str, dict[str, Any]]:
    """What of a folder is uploaded, by the store's name; of a damaged file, nothing: MLflow is asked then."""
    file = path / "tracking.json"
    try:
        content = read_json(file)
        for state in content.values():
            schema.check(file, state, {"run_id": TEXT})
    except FileNotFoundError:
        return {}
    except Damaged as error:
        warn(f"{error}; what was uploaded is looked up in MLflow")
        return {}
    return {name(uri): state for uri, state in content.items()}


def write_state(path: Path, uri: str, **changes: Any) -> None:
    """Note what is uploaded to this store."""
    content = states(path)
    state = content.get(name(uri), {}) | changes
    # The same store by another name, as before the project was moved.
    others = {key: other for key, other in content.items() if other["run_id"] != state["run_id"]}
    write_atomically(path / "tracking.json", json.dumps({**others, name(uri): state}, indent=1).encode())


def is_uploaded(folder: RunFolder, uri: str) -> bool:
    """Whether this store has all of a run, as far as the folder knows."""
    status, state = folder.status(), read_state(folder.path, uri)
    return (
        is_whole(state, status)
        and state.get("started", status.started) == status.started
        and state.get("sweeps") == folder.sweeps()
    )


def is_whole(state: dict[str, Any], status: Status) -> bool:
    """Whether the store has the run's end and, of a run that its sweep has chosen since, its weights."""
    weights = status.weights
    has_weights = weights not in ("kept", "champion") or state.get("weights") == weights
    return status.ended is not None and state.get("ended") == status.ended and has_weights


def known(path: Path, store: Store) -> dict[str, Any]:
    """The folder's state, if the store really has that run; it may know the store by another name."""
    content = states(path)
    for state in [content.pop(store.name, {}), *content.values()]:
        if state and store.has(state["run_id"]):
            if state != read_state(path, store.uri):
                write_state(path, store.uri, **state)
            return state
    return {}
