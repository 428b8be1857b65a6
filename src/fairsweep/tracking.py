"""From run folders to MLflow: what a folder holds is uploaded once, when the server is there to take it."""

import gc
import getpass
import json
import logging
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from fairsweep.config import ConfigError, leaves, without_credentials
from fairsweep.record import FINAL, RunFolder, read_json, write_atomically

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported. A server that is away is asked again at the next checkpoint, not for
# minutes within one call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

Note = Callable[[str], None]

# MLflow's word for a run's status; every other one is KILLED there.
MLFLOW_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
}

# The most that MLflow takes in one request, and of a parameter's text.
METRICS, PARAMS, PARAM_LENGTH = 1000, 100, 6000

# After a failure, a run in progress leaves the server alone for so long.
RETRY_SECONDS = 60.0
last_failure: dict[str, float] = {}


def sync(folder: RunFolder, cfg: DictConfig, note: Note, again: bool = False) -> bool:
    """Bring a run's MLflow run up to date with its folder; True if it is now.

    Uploaded are the journal's lines that a checkpoint covers, each once and with its own time, and at the
    run's end status, artifacts and model. A failure costs the run nothing: `note` tells it, and the next call
    makes it good.

    Args:
        cfg: says where to, by `tracking.uri`; what the run is, its folder says.
        again: also upload the artifacts of a run that MLflow has whole: there are new ones.
    """
    uri = cfg.tracking.uri
    if uri is None:
        return True
    status = folder.status()
    ended = status["ended"] is not None
    state = read_state(folder).get(without_credentials(uri), {})
    marker = pending(folder.path.parents[1]) / folder.signature
    if ended and state.get("ended") == status["ended"] and not again:
        marker.unlink(missing_ok=True)
        return True
    if not ended and time.monotonic() - last_failure.get(uri, -math.inf) < RETRY_SECONDS:
        return False
    # MLflow's import makes a million objects; looking for garbage among them takes nearly as long again.
    gc.disable()
    try:
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(without_credentials(uri))
        upload(folder, uri, status, state)
    except Exception as error:  # whatever tracking does, training goes on
        last_failure[uri] = time.monotonic()
        text = without_credentials(f"{type(error).__name__}: {error}")
        reason = text.splitlines()[0][:200]
        folder.log(f"tracking: {text}")
        note(
            f"tracking.uri={without_credentials(uri)}: {reason}. Nothing is lost: the journal is uploaded "
            "later in this run, or by the next command"
        )
        return False
    finally:
        gc.enable()
    if ended:
        marker.unlink(missing_ok=True)
    return True


def sync_pending(directory: str, cfg: DictConfig, note: Note) -> None:
    """Upload what earlier commands could not bring here. Runs whose process died end as `interrupted`."""
    outputs = Path(directory).absolute()
    if cfg.tracking.uri is None or not pending(outputs).is_dir():
        return
    for marker in sorted(pending(outputs).iterdir()):
        folder = RunFolder(outputs / "runs" / marker.name)
        if not folder.status():
            marker.unlink(missing_ok=True)
            continue
        if marker.read_text() != without_credentials(cfg.tracking.uri):
            continue
        try:
            with folder.lock().acquire(timeout=0):
                mark_dead(folder)
                if not sync(folder, cfg, note):
                    return
        except Timeout:
            continue  # another process is at it


def mark_dead(folder: RunFolder) -> None:
    """Give a run that nobody trains any more, as its lock is free, the ending that it missed."""
    if folder.status()["status"] == "running":
        folder.set_status(status="interrupted", reason="its process died", ended=time.time())


def pending(outputs: Path) -> Path:
    """The folder with a marker for each run that MLflow does not have whole yet."""
    return outputs / "pending"


def read_state(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What is uploaded, per tracking URI: MLflow's run id, the last step, the ending."""
    path = folder.path / "tracking.json"
    return read_json(path) if path.exists() else {}


def write_state(folder: RunFolder, uri: str, state: dict[str, Any]) -> None:
    """Note what is uploaded to this URI."""
    content = read_state(folder) | {without_credentials(uri): state}
    write_atomically(folder.path / "tracking.json", json.dumps(content, indent=1).encode())


def upload(folder: RunFolder, uri: str, status: dict[str, Any], state: dict[str, Any]) -> None:
    """All that MLflow does not have yet. Done again after a crash in the middle, it doubles nothing."""
    from mlflow.entities import Metric

    cfg = folder.config()
    client = connect(uri, str(folder.path.parents[1]))
    if "run_id" not in state:
        run_id = begin(client, experiment_id(client, cfg, uri, folder), folder, cfg, status)
        state = {"run_id": run_id, "step": -1, "mlflow_status": "RUNNING"}
        write_state(folder, uri, state)
    run_id = state["run_id"]
    if status["ended"] is None and state["mlflow_status"] != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    lines = [line for line in folder.journal(durable=True) if line["step"] > state["step"]]
    metrics = [
        Metric(key, value, round(line["time"] * 1000), int(line["step"]))
        for line in lines
        for key, value in line.items()
        if key not in ("step", "epoch", "time") and value is not None and math.isfinite(value)
    ]
    for first in range(0, len(metrics), METRICS):
        client.log_batch(run_id, metrics[first : first + METRICS])
    if lines:
        state["step"] = lines[-1]["step"]
    client.set_tag(run_id, "status", status["status"])
    state["mlflow_status"] = MLFLOW_STATUS.get(status["status"], "KILLED")
    if status["ended"] is not None:
        end(client, run_id, uri, folder, cfg, status)
    state["ended"] = status["ended"]
    write_state(folder, uri, state)


@cache
def connect(uri: str, outputs: str) -> "MlflowClient":
    """A client of a tracking store that exists; a database is made if there is none yet."""
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    # Several processes that create one database at once destroy it.
    locks = Path(outputs) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "mlflow.lock"):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def experiment_id(client: "MlflowClient", cfg: DictConfig, uri: str, folder: RunFolder) -> str:
    """The id of the experiment that `tracking.experiment` names, made if there is none."""
    from mlflow.exceptions import MlflowException

    name = cfg.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        is_server = uri.startswith(("http:", "https:", "databricks"))
        artifacts = None if is_server else (folder.path.parents[1] / "artifacts").as_uri()
        try:
            # Without this tag the UI shows the experiment as one of conversations.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifacts, tags))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def begin(
    client: "MlflowClient", experiment: str, folder: RunFolder, cfg: DictConfig, status: dict[str, Any]
) -> str:
    """Make the MLflow run, or find the one that a crash left without our note of it; its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    mark = f"{folder.signature}-{status['started']}"
    orphans = client.search_runs([experiment], f"tags.fairsweep_run = '{mark}'", max_results=1)
    if orphans:
        return str(orphans[0].info.run_id)
    tags = {
        "fairsweep_run": mark,
        "signature": folder.signature,
        "arm": arm(cfg),
        "device": status["device"],
        "precision": status["precision"],
        "hostname": status["hostname"],
        "command": status["command"],
        "code": status["code"],
        "data": status["data"],
        "git_dirty": status["git"].get("dirty", "unknown"),
        "mlflow.source.git.commit": status["git"].get("commit", "unknown"),
        "mlflow.source.name": "src/train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": getpass.getuser(),
        **{f"version.{name}": number for name, number in status["versions"].items()},
    }
    name = f"{cfg.model.name} {arm(cfg)} lr={cfg.optimizer.lr} seed={cfg.seed}"
    run = client.create_run(experiment, round(status["started"] * 1000), tags, name)
    run_id = str(run.info.run_id)
    values = leaves(OmegaConf.to_container(folder.config()))
    params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in values.items()]
    for first in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[first : first + PARAMS])
    facts = folder.facts()
    profile = {"shape": facts["shape"], "classes": len(facts["classes"])}
    data = Dataset(
        name=facts["name"],
        digest=facts["fingerprint"][:32] or "unknown",
        source_type="local",
        source=json.dumps({"uri": str(values.get("data.root", "scikit-learn"))}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    return run_id


def arm(cfg: DictConfig) -> str:
    """What a run is compared as: its optimizer."""
    return str(cfg.optimizer._target_).rsplit(".", 1)[-1].lower()


def end(
    client: "MlflowClient",
    run_id: str,
    uri: str,
    folder: RunFolder,
    cfg: DictConfig,
    status: dict[str, Any],
) -> None:
    """The artifacts and the status of a run that has ended, for good or for now."""
    client.set_tag(run_id, "reason", status["reason"] or "all epochs done")
    if status["status"] in (*FINAL, "failed"):
        names = ["config.yaml", "data.json", "status.json", "journal.jsonl", "run.log"]
        weights = folder.tested_weights_file()
        for path in (*(folder.path / name for name in names), weights):
            if path.exists() and (path != weights or status["status"] in FINAL):
                client.log_artifact(run_id, str(path), "record")
        if folder.pictures.is_dir():
            client.log_artifacts(run_id, str(folder.pictures), "pictures")
    wanted = cfg.tracking.log_model == "all" or (cfg.tracking.log_model == "auto" and status["single"])
    if status["status"] == "finished" and wanted and weights.exists():
        outputs = client.get_run(run_id).outputs
        if outputs is None or not outputs.model_outputs:  # else from an upload that broke off later
            log_model(run_id, folder, uri)
    client.set_terminated(
        run_id, MLFLOW_STATUS.get(status["status"], "KILLED"), round(status["ended"] * 1000)
    )


def log_model(run_id: str, folder: RunFolder, uri: str) -> None:
    """The tested weights as an MLflow model: pixel values 0..255 (N, C, H, W) to class probabilities."""
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    from fairsweep import build

    model = build.classifier(folder.config(), folder.facts(), folder.weights())
    # Two rows: with one, the exported model would take batches of one image only.
    example = np.zeros((2, *folder.facts()["shape"]), np.float32)
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(example)).numpy()
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            model,
            name="model",
            input_example=example,
            signature=infer_signature(example, probabilities),
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("torch", "numpy")],
        )


def supersede(folder: RunFolder, cfg: DictConfig, note: Note) -> None:
    """Complete the MLflow run of a folder that is about to be archived, and mark it: another one follows."""
    state = read_state(folder).get(without_credentials(cfg.tracking.uri or ""))
    if state is None:
        return
    mark_dead(folder)
    sync(folder, cfg, note)
    try:
        connect(cfg.tracking.uri, cfg.record.dir).set_tag(state["run_id"], "superseded", "true")
    except Exception as error:  # whatever tracking does, training goes on
        note(f"tracking: MLflow run {state['run_id']} could not be marked as superseded: {error}")


def find_run(run_id: str, uri: str, directory: str) -> RunFolder:
    """The folder of an MLflow run: the one here, or one downloaded from its artifacts.

    Raises:
        ConfigError: the tracking store is away, knows no such run, or has no record of it.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = connect(uri, directory)
        signature = client.get_run(run_id).data.tags.get("signature", "")
        folder = RunFolder(Path(directory).absolute() / "runs" / signature)
        if signature and read_state(folder).get(without_credentials(uri), {}).get("run_id") == run_id:
            return folder
        goal = tempfile.mkdtemp(prefix="fairsweep-")
        return RunFolder(Path(client.download_artifacts(run_id, "record", goal)))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run={run_id}: not in {without_credentials(uri)}: {reason}") from error


def ui_command(uri: str) -> str:
    """What a user types to see the runs in MLflow's UI."""
    if uri.startswith(("http:", "https:")):
        return f"open {without_credentials(uri)}"
    mlflow = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
    return f"{mlflow} ui --backend-store-uri {shlex.quote(without_credentials(uri))}"
