"""Free the disk of a sweep's weights, pictures and MLflow artifacts; its results stay."""

import shutil
from pathlib import Path
from typing import Any

from filelock import Timeout
from omegaconf import DictConfig

from fairsweep.config import ConfigError
from fairsweep.runs import attempts, checkpoint, markers
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import FINAL
from fairsweep.runs.store import Note, Store, opened
from fairsweep.sweeps import listing, standing, weights
from fairsweep.sweeps.folder import SweepFolder
from fairsweep.wording import counted, listed, size

# What a run can do without once it has ended; its results are in its other files.
SPARE = ("*.pt", "pictures/*", "tensorboard/*")


def clean(sweep: SweepFolder, cfg: DictConfig, note: Note) -> None:
    """Free what `keep` does not keep, if `yes`; else say what that would be.

    Runs that have not ended keep their checkpoints; runs of other sweeps, too, keep everything.

    Raises:
        ConfigError: the sweep is in progress, or its record is damaged.
    """
    content = sweep.read()
    if sweep.is_held(content["id"]):
        raise ConfigError(f"sweep={content['id']}: is in progress; stop it first, or wait for its end")
    now = standing.read(sweep)
    kept = weights.choose(now).best if cfg.keep == "best" else frozenset()
    chosen, reasons = list[RunFolder](), dict[str, int]()
    for signature, status in now.statuses.items():
        folder = sweep.run(signature)
        if signature in kept:
            why = "kept, as the best and confirmed runs (keep=none frees them, too)"
        elif status.name not in (*FINAL, "pruned"):
            why = "not ended; repeating the sweep's command continues them"
        elif len(folder.sweeps()) > 1:
            why = "part of other sweeps, too"
        else:
            chosen += [folder] if freed(folder) else []
            continue
        reasons[why] = reasons.get(why, 0) + 1
    for why, number in reasons.items():
        note(f"{counted(number, 'run')} untouched: {why}")
    if not chosen:
        note(f"sweep {content['id']}: nothing to free")
        return
    uri = cfg.tracking.uri
    uploaded = [folder for folder in chosen if uri is not None and markers.read_state(folder.path, uri)]
    what = f"{counted(len(chosen), 'run')}, {size(sum(map(freed, chosen)))}"
    what += ", their MLflow artifacts too" if uploaded else ""
    if not cfg.yes:
        note(f"{what}; add yes=true to free them. Their results and the report stay.")
        return
    if uploaded and not remove_artifacts(uploaded, sweep.outputs, uri, note):
        note(f"nothing freed: the MLflow artifacts of {counted(len(uploaded), 'run')} cannot be removed now")
        return
    for folder in chosen:
        remove_files(folder)
    note(f"freed: {what}")


def spare_files(folder: RunFolder) -> list[Path]:
    return [path for pattern in SPARE for path in folder.path.glob(pattern)]


def freed(folder: RunFolder) -> int:
    """The bytes that cleaning a run frees."""
    return sum(listing.sizes(spare_files(folder)))


def remove_files(folder: RunFolder) -> None:
    """Remove a run's spare files, unless another process has just begun to train it."""
    try:
        with folder.lock().acquire(timeout=0):
            checkpoint.remove(folder, "runs.py clean")
            for name in ("pictures", "tensorboard"):
                shutil.rmtree(folder.path / name, ignore_errors=True)
    except Timeout:
        return


def remove_artifacts(folders: list[RunFolder], outputs: Path, uri: str, note: Note) -> bool:
    """Remove weights, pictures and models from the store; whether it answered."""
    with attempts.reported(uri, note), attempts.alone(outputs):
        store = opened(uri, outputs)
        for folder in folders:
            run_id = markers.read_state(folder.path, uri)["run_id"]
            if store.has(run_id) and remove_artifacts_of(run_id, store, note):
                markers.write_state(folder.path, uri, model=None)
        return True
    return False


def remove_artifacts_of(run_id: str, store: Store, note: Note) -> bool:
    """Remove one MLflow run's weights, pictures and models; False if its model is registered, and stays."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run = store.client.get_run(run_id)
    artifacts: Any = get_artifact_repository(run.info.artifact_uri)
    held = [item.path for folder in ("record", "") for item in store.client.list_artifacts(run_id, folder)]
    for path in held:
        if path == "pictures" or path.endswith(".pt"):
            artifacts.delete_artifacts(path)
    registered = store.client.search_model_versions(f"run_id = '{run_id}'")
    if registered:
        names = listed(sorted({f"models:/{version.name}/{version.version}" for version in registered}))
        note(f"{names}: registered, so this MLflow model stays")
        return False
    for output in (run.outputs.model_outputs if run.outputs else None) or ():
        model = store.client.get_logged_model(output.model_id)
        files: Any = get_artifact_repository(model.artifact_location)
        files.delete_artifacts()
        store.client.delete_logged_model(output.model_id)
    return True
