"""A run in MLflow: parameters, figures, files and model."""

import math
import tempfile
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fairsweep import metrics
from fairsweep.config import ConfigError, leaves, without_credentials
from fairsweep.runs import checkpoint, markers, mlflow_sweep
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import FINAL, Status
from fairsweep.runs.store import METRICS, PARAM_LENGTH, PARAMS, Note, Store, address, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient


def begin(folder: RunFolder, store: Store, status: Status, note: Note) -> dict[str, Any]:
    """The state of a run that the store has; the run is made if it is not there."""
    cfg = folder.config()
    experiment = store.experiment(cfg.tracking.experiment, note)  # first: restored, it has its runs again
    state = markers.known(folder.path, store)
    if state and state.get("started", status.started) == status.started:
        return state
    mark = f"{status.signature}-{status.started}"
    if state and state["step"] < 0:  # it failed before its first checkpoint, and was begun again
        store.client.set_tag(state["run_id"], "fairsweep_run", mark)
        markers.write_state(folder.path, store.uri, started=status.started, ended=None)
        return markers.read_state(folder.path, store.uri)
    if state:  # its checkpoints were lost
        store.client.set_tag(state["run_id"], "superseded", "true")
        store.client.set_terminated(state["run_id"], "KILLED")
    run_id = mlflow_sweep.find_run_id(
        store, experiment, "fairsweep_run", mark
    )  # from an upload that was cut short
    is_new = run_id is None
    if run_id is None:
        run_id = create(folder, store, cfg, status, mark, note)
    state = {"run_id": run_id, "experiment": experiment, "experiment_name": cfg.tracking.experiment}
    state |= {"started": status.started, "step": -1, "mlflow_status": "RUNNING", "ended": None}
    known_metrics = {} if is_new else store.client.get_run(run_id).data.metrics
    state["grouped"] = not any(metrics.tracked(key) != key for key in known_metrics)
    state["sweeps"] = folder.sweeps() if is_new else {}
    markers.write_state(folder.path, store.uri, **state)
    return state


def create(folder: RunFolder, store: Store, cfg: DictConfig, status: Status, mark: str, note: Note) -> str:
    """Make the MLflow run; its id."""
    tags = {
        "fairsweep_run": mark,
        "signature": status.signature,
        "arm": arm(cfg),
        "seed": str(cfg.seed),
        "device": status.device,
        "precision": status.precision,
        "hostname": status.hostname,
        "command": status.command,
        "code": status.code,
        "data": status.data,
        "git_dirty": status.git.get("dirty", "unknown"),
        "mlflow.source.git.commit": status.git.get("commit", "unknown"),
        "mlflow.source.name": "src/train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": mlflow_sweep.user(),
        **{f"version.{name}": number for name, number in status.versions.items()},
    }
    name = f"{cfg.model.name} {arm(cfg)} lr={cfg.optimizer.lr} seed={cfg.seed}"
    sweeps = folder.sweeps()
    tags |= mlflow_sweep.sweep_tags(sweeps)
    trained_by = sweeps.get(status.sweep or "")
    if status.sweep is not None and trained_by is not None:
        member = trained_by["members"][0]
        name = member["name"]
        tags |= {"sweep": status.sweep, "arm": member["arm"], "trial": str(member["trial"])}
        tags |= {"phase": member["phase"]}
        directory = markers.sweep_folder(trained_by["directory"], store.outputs, status.sweep)
        if directory is not None:
            tags["mlflow.parentRunId"] = mlflow_sweep.begin_sweep(
                directory, store, cfg.tracking.experiment, note
            )
    experiment = store.experiment(cfg.tracking.experiment, note)
    run = store.client.create_run(experiment, round(status.started * 1000), tags, name)
    return str(run.info.run_id)


def arm(cfg: DictConfig) -> str:
    """What a run of no sweep is compared as: its optimizer."""
    return str(cfg.optimizer._target_).rsplit(".", 1)[-1].lower()


def describe(client: "MlflowClient", run_id: str, folder: RunFolder) -> None:
    """Log the configuration and the data set; repeated, that changes nothing."""
    from mlflow.entities import Param

    values = leaves(OmegaConf.to_container(folder.config(), resolve=True))
    params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in values.items()]
    for first in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[first : first + PARAMS])
    mlflow_sweep.log_data(client, run_id, folder)


def upload(folder: RunFolder, store: Store, state: dict[str, Any], status: Status, note: Note) -> None:
    """What MLflow does not have of a record yet. Repeated after a crash in the middle, it doubles nothing."""
    client, run_id = store.client, state["run_id"]
    try:
        if status.ended is None and state["mlflow_status"] != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        if state["step"] < 0:  # or it was cut short
            describe(client, run_id, folder)
        # A run that an earlier version began to upload goes on under the names of that version.
        name_of = metrics.tracked if state.get("grouped") else str
        step = log_figures(client, run_id, folder, state["step"], status, name_of)
        if status.ended is not None:
            log_files(folder, store, run_id, status, note)
    finally:
        if status.ended is not None:
            mlflow_sweep.terminate(client, run_id, status.name, status.ended)
    if folder.status().started != status.started:
        raise FileNotFoundError(f"{folder.path}: the run is being trained again")
    markers.write_state(
        folder.path,
        store.uri,
        step=step,
        mlflow_status=mlflow_sweep.MLFLOW_STATUS.get(status.name, "KILLED"),
        ended=status.ended,
        weights=status.weights,
    )


def log_figures(
    client: "MlflowClient",
    run_id: str,
    folder: RunFolder,
    known_step: int,
    status: Status,
    name_of: Callable[[str], str],
) -> int:
    """Upload the journal after a step, and the run's status; gives the last step."""
    from mlflow.entities import Metric, RunTag

    lines = [line for line in folder.journal(durable=True) if line["step"] > known_step]
    step = int(lines[-1]["step"]) if lines else known_step
    figures = [
        Metric(name_of(key), value, round(line["time"] * 1000), int(line["step"]))
        for line in lines
        for key, value in line.items()
        if key not in ("step", "epoch", "time") and value is not None and math.isfinite(value)
    ]
    tags = [RunTag("status", status.name)]
    if status.ended is not None:
        tags.append(RunTag("reason", status.reason or "all epochs done"))
        tags.append(RunTag("shared_seconds", str(status.shared).lower()))
        if status.seconds is not None:
            now = round(status.ended * 1000)
            figures.append(Metric(name_of("training_seconds"), status.seconds, now, max(step, 0)))
    for first in range(METRICS, len(figures), METRICS):
        client.log_batch(run_id, figures[first : first + METRICS])
    client.log_batch(run_id, figures[:METRICS], tags=tags)
    return step


def log_files(folder: RunFolder, store: Store, run_id: str, status: Status, note: Note) -> None:
    """The artifacts of a run that has ended, and its model, which some runs cannot have."""
    if status.name not in (*FINAL, "failed") or not mlflow_sweep.has_artifacts(store, run_id, note):
        return
    cfg = folder.config()
    names = ["config.yaml", "data.json", "status.json", "journal.jsonl", "run.log", "code.patch"]
    weights = weights_file(folder, status, note)
    if weights is not None:
        names.append(weights.name)
    # Each request takes as long as all of these together.
    with tempfile.TemporaryDirectory() as staged:
        for name in names:
            if (folder.path / name).exists():
                (Path(staged) / name).symlink_to(folder.path / name)
        store.client.log_artifacts(run_id, staged, "record")
    if folder.pictures.is_dir():
        store.client.log_artifacts(run_id, str(folder.pictures), "pictures")
    if weights is None or not wants_model(cfg, status):
        return
    try:
        has_model(run_id, folder, store)
    except Exception as error:  # torch.export cannot take every model
        if store.is_away(error):
            raise
        folder.log(f"tracking: {without_credentials(''.join(traceback.format_exception(error)), store.uri)}")
        note(f"run {folder.signature}: its MLflow model could not be logged: {reason(error, store.uri)}")


def weights_file(folder: RunFolder, status: Status, note: Note) -> Path | None:
    """The tested weights of a run, if they stay; a note reports lost ones, and the upload goes on."""
    if status.name not in FINAL or not checkpoint.stay(folder) or status.weights == "undecided":
        return None
    try:
        return checkpoint.tested_file(folder)
    except ConfigError as error:
        note(f"{error}; this run is uploaded without its weights and model")
        return None


def wants_model(cfg: DictConfig, status: Status) -> bool:
    """Whether a run gets an MLflow model."""
    is_chosen = status.single or status.weights == "champion"
    is_wanted = cfg.tracking.log_model == "all" or (cfg.tracking.log_model == "auto" and is_chosen)
    return is_wanted and status.name == "finished"


def has_model(run_id: str, folder: RunFolder, store: Store) -> str:
    """The id of a run's MLflow model, which is logged if it is not there."""
    outputs = store.client.get_run(run_id).outputs
    if outputs is not None and outputs.model_outputs:
        model = str(outputs.model_outputs[0].model_id)
    else:
        model = log_model(run_id, folder, store.uri)
    markers.write_state(folder.path, store.uri, model=model)
    return model


def log_model(run_id: str, folder: RunFolder, uri: str) -> str:
    """Log the tested weights as an MLflow model; its id.

    It takes inputs as they are stored, as float32: pixel values 0..255, (N, C, H, W), or floats; and gives
    the probabilities of the classes, or numbers (N, T) in the unit of the targets.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    from fairsweep.training import build

    model = build.predictor(folder.config(), folder.facts(), checkpoint.tested_weights(folder))
    # Two rows: with one, the exported model would take batches of one image only.
    facts = folder.facts()
    example = np.zeros((2, *facts["shape"]), np.float32)
    if "dtype" in facts:  # floats, of any scale
        mean = np.array(facts["mean"], np.float32)
        example += mean.reshape(-1, *[1] * (len(facts["shape"]) - 1))
    with torch.inference_mode():
        outputs = model(torch.from_numpy(example)).numpy()
    mlflow.set_tracking_uri(address(uri))
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = mlflow.pytorch.log_model(
            model,
            name="model",
            input_example=example,
            signature=infer_signature(example, outputs),
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("torch", "numpy")],
        )
    return str(info.model_id)
