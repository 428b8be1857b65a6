"""From run folders to MLflow: each folder is uploaded once, when the store takes it.

Everything here may take minutes. Commands have it done by a process of its own, see `uploader`.
"""

import getpass
import json
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from fairsweep import metrics
from fairsweep.config import ConfigError, leaves, without_credentials
from fairsweep.runs import checkpoint, markers, schema
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, read_sweep
from fairsweep.runs.status import FINAL, Status
from fairsweep.runs.store import Note, Outage, Store, address, connect, database_file, name, opened, reason
from fairsweep.wording import counted, joined

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's word for a run's status; every other one is KILLED there.
MLFLOW_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
}

# The most that MLflow takes in one request, and of the text of a parameter and of a tag.
METRICS, PARAMS, TAGS, PARAM_LENGTH, TAG_LENGTH = 1000, 100, 100, 6000, 8000

# What MLflow's tags say of a sweep; its `sweep.json` says more.
SWEEP_TAGS = (
    "status",
    "objective",
    "arms",
    "sampler",
    "trials",
    "seeds",
    "confirm_seeds",
    "extend",
    "halving",
)

SWEEP_FILES = ("sweep.json", "table.csv", "plan.jsonl")

# Notes that the user has read already, by what they are about.
noted: dict[str, str] = {}


# One record, and all that wait


def sync(folder: RunFolder, cfg: DictConfig, note: Note, again: bool = False) -> bool:
    """Bring a run's MLflow run up to date with its folder; True if it is now.

    Uploaded are the journal's lines that a checkpoint covers, each once and with its own time, and at the
    run's end status, artifacts and model. A run that was deleted in MLflow is made anew.

    Args:
        cfg: says where to, by `tracking.uri`; what the run is, its folder says.
        again: also upload the artifacts of a run that MLflow has whole: there are new ones.
    """
    if cfg.tracking.uri is None:
        return True
    with reported(cfg.tracking.uri, note):
        return upload_run(folder, cfg, note, again)
    return False


def sync_sweep(directory: Path, outputs: Path, cfg: DictConfig, note: Note) -> bool:
    """Bring the MLflow run of a sweep, its runs' parent, up to date with its folder; True if it is now."""
    if cfg.tracking.uri is None:
        return True
    with reported(cfg.tracking.uri, note):
        return upload_sweep(directory, outputs, cfg, note)
    return False


def sync_pending(directory: str, cfg: DictConfig, note: Note) -> bool:
    """Upload everything that is missing in the store; True if nothing is now.

    A record that cannot be uploaded does not keep the others from it.
    """
    outputs, uri = Path(directory).absolute(), cfg.tracking.uri
    if uri is None:
        return True
    with reported(uri, note):
        for marker in markers.waiting(outputs, uri):
            try:
                upload_marked(marker, cfg, note)
            except Outage:
                raise
            except Exception as error:  # of this record
                tell(f"{uri} {marker.name}", f"{marker.name}: is not uploaded: {reason(error, uri)}", note)
    return not markers.waiting(outputs, uri)


def upload_marked(marker: Path, cfg: DictConfig, note: Note) -> None:
    """Upload the record of a marker, unless another command is uploading it.

    Raises:
        Outage: the store does not answer.
    """
    if (folder := markers.run_of(marker)) is not None:
        if folder.status().name != "running":
            upload_run(folder, cfg, note)
    elif (sweep := markers.sweep_of(marker)) is not None:
        if read_sweep(sweep)["status"] != "running":
            upload_sweep(sweep, marker.parents[1], cfg, note)
    else:  # its folder is gone
        marker.unlink(missing_ok=True)


@contextmanager
def reported(uri: str, note: Note) -> Iterator[None]:
    """Inside, an outage of the store ends the block, and the user learns of it, once."""
    try:
        yield
        noted.pop(uri, None)
    except Outage as error:
        what = (
            f"tracking.uri={name(uri)}: {error}. Nothing is lost: what is missing is uploaded later, by this "
            "command or the next"
        )
        tell(uri, what, note)


def tell(about: str, text: str, note: Note) -> None:
    """A note that is not repeated until it changes."""
    if noted.get(about) != text:
        noted[about] = text
        note(text)


@contextmanager
def alone(outputs: Path) -> Iterator[None]:
    """Inside, no other process uploads from this output folder."""
    locks = outputs / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "uploads.lock"):
        yield


def attempt(
    what: str, uri: str, outputs: Path, action: Callable[[Store], None], log: Note, note: Note
) -> bool:
    """Change the store; False, with the reason in the log and a note, where it refuses.

    Raises:
        Outage: the store does not answer.
    """
    with alone(outputs):
        store = opened(uri, outputs)
        try:
            action(store)
        except Exception as error:
            log(f"tracking: {without_credentials(''.join(traceback.format_exception(error)), uri)}")
            if store.is_away(error):
                raise Outage(reason(error, uri)) from error
            why = f"{reason(error, uri)}; repeat the command to try again"
            tell(f"{uri} {what}", f"{what}: could not be stored in {store.name}: {why}", note)
            return False
    return True


def upload_run(folder: RunFolder, cfg: DictConfig, note: Note, again: bool = False) -> bool:
    """As `sync`.

    Raises:
        Outage: the store does not answer.
    """
    uri, outputs, damage = cfg.tracking.uri, markers.outputs_of(folder), folder.damage()
    status = folder.status() if not damage else Status()
    marker = markers.pending(outputs) / folder.path.name
    is_superseded = folder.path.parent.name == ".history"
    if not status.has_begun and not is_superseded:
        if damage:
            note(f"{damage}; the run is not uploaded")
        marker.unlink(missing_ok=True)  # whoever trains it again writes a new one
        return False
    if again or not markers.is_uploaded(folder, uri):
        markers.write(marker, uri, note)

    def action(store: Store) -> None:
        state = begin(folder, store, status, note) if status.has_begun else known(folder.path, store)
        if not status.has_begun:
            pass
        elif again or state.get("ended") != status.ended or status.ended is None:
            upload(folder, store, state, status, note)
        elif not markers.is_whole(state, status):  # its sweep has chosen it since
            log_files(folder, store, state["run_id"], status, note)
            markers.write_state(folder.path, store.uri, weights=status.weights)
        if status.has_begun:
            tag_sweeps(folder, store)
        if is_superseded and state:
            store.client.set_tag(state["run_id"], "superseded", "true")

    try:
        done = attempt(f"run {folder.path.name}", uri, outputs, action, folder.log, note)
    except FileNotFoundError:  # of its log: the folder has just moved to the history, and has a marker there
        return False
    if done and status.name != "running":
        marker.unlink(missing_ok=True)
        if status.has_begun and not markers.is_uploaded(folder, uri):  # it has changed meanwhile
            markers.write(marker, uri, note)
    return done


def upload_sweep(directory: Path, outputs: Path, cfg: DictConfig, note: Note) -> bool:
    """As `sync_sweep`.

    Raises:
        Outage: the store does not answer.
    """
    from mlflow.entities import Metric, RunTag

    uri, sweep = cfg.tracking.uri, read_sweep(directory)
    marker = markers.pending(outputs) / sweep["id"]
    markers.write(marker, uri, note, directory)

    def action(store: Store) -> None:
        client, run_id = store.client, begin_sweep(directory, store, cfg.tracking.experiment, note)
        before = {key: 0 for key in client.get_run(run_id).data.metrics if key.startswith("runs_")}
        counts = before | {f"runs_{status}": count for status, count in sweep["counts"].items()}
        figures = {**counts, "runs_reused": sweep["reused"], "best_objective": sweep["best_objective"]}
        values = [
            Metric(key, value, round(time.time() * 1000), 0)
            for key, value in figures.items()
            if value is not None and math.isfinite(value)
        ]
        # Not as parameters, which MLflow lets nobody change: the sweep may grow.
        tags = [RunTag(key, str(sweep[key])[:PARAM_LENGTH]) for key in SWEEP_TAGS]
        client.log_batch(run_id, values, tags=tags)
        if sweep["ended"] is None:
            client.update_run(run_id, status="RUNNING")
            return
        try:
            if has_artifacts(store, run_id, note):
                for file in SWEEP_FILES:
                    if (directory / file).exists():
                        client.log_artifact(run_id, str(directory / file))
                if (directory / "report").is_dir():
                    client.log_artifacts(run_id, str(directory / "report"), "report")
            if (directory / "report" / "verdict.md").exists():
                text = (directory / "report" / "verdict.md").read_text()
                client.set_tag(run_id, "mlflow.note.content", text[:TAG_LENGTH])
            with suppress(FileNotFoundError, Damaged):  # whoever reads the sweep reports a damaged plan
                log_data_of(directory, outputs, client, run_id)
        finally:
            terminate(client, run_id, sweep["status"], sweep["ended"])

    done = attempt(f"sweep {sweep['id']}", uri, outputs, action, lambda _: None, note)
    if done and sweep["ended"] is not None:
        marker.unlink(missing_ok=True)
    return done


def log_data_of(directory: Path, outputs: Path, client: "MlflowClient", run_id: str) -> None:
    """Log the data sets of a sweep's runs as its own; repeated, that changes nothing."""
    plan = schema.content_of(directory / "plan.jsonl").splitlines(keepends=True)
    rows = [schema.parsed(directory / "plan.jsonl", line, {}) for line in plan if line.endswith(b"\n")]
    folders = [RunFolder(outputs / "runs" / row["signature"]) for row in rows if row]
    for folder in {folder.status().data: folder for folder in folders}.values():
        log_data(client, run_id, folder)


def terminate(client: "MlflowClient", run_id: str, status: str, ended: float) -> None:
    """End the MLflow run of a run, or of a sweep, that has ended."""
    client.set_terminated(run_id, MLFLOW_STATUS.get(status, "KILLED"), round(ended * 1000))


def prepare(outputs: Path, cfg: DictConfig, note: Note, has_model: bool) -> bool:
    """Load what uploads need, and open the store; whether it answers."""
    with reported(cfg.tracking.uri, note), alone(outputs):
        opened(cfg.tracking.uri, outputs)
        if has_model:
            import mlflow.pytorch  # noqa: F401
        return True
    return False


# What a store has of a folder


def known(path: Path, store: Store) -> dict[str, Any]:
    """The folder's state, if the store really has that run; it may know the store by another name."""
    content = markers.states(path)
    for state in [content.pop(store.name, {}), *content.values()]:
        if state and store.has(state["run_id"]):
            if state != markers.read_state(path, store.uri):
                markers.write_state(path, store.uri, **state)
            return state
    return {}


def check_experiment(path: Path, cfg: DictConfig, note: Note) -> None:
    """Tell the user where to find what was uploaded before to another experiment."""
    before = markers.read_state(path, cfg.tracking.uri).get("experiment_name", cfg.tracking.experiment)
    if before != cfg.tracking.experiment:
        text = (
            f"tracking.experiment={cfg.tracking.experiment}: what is reused stays in experiment {before}, "
            "where it was uploaded before"
        )
        tell(f"{cfg.tracking.uri} {before}", text, note)


# A run


def begin(folder: RunFolder, store: Store, status: Status, note: Note) -> dict[str, Any]:
    """The state of a run that the store has; the run is made if it is not there."""
    cfg = folder.config()
    experiment = store.experiment(cfg.tracking.experiment, note)  # first: restored, it has its runs again
    state = known(folder.path, store)
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
    run_id = find_run_id(store, experiment, "fairsweep_run", mark)  # from an upload that was cut short
    is_new = run_id is None
    if run_id is None:
        run_id = create(folder, store, cfg, status, mark, note)
    state = {"run_id": run_id, "experiment": experiment, "experiment_name": cfg.tracking.experiment}
    state |= {"started": status.started, "step": -1, "mlflow_status": "RUNNING", "ended": None}
    known_metrics = {} if is_new else store.client.get_run(run_id).data.metrics
    state["grouped"] = not any(key in metrics.TRACKED for key in known_metrics)
    state["sweeps"] = folder.sweeps() if is_new else {}
    markers.write_state(folder.path, store.uri, **state)
    return state


def find_run_id(store: Store, experiment: str, tag: str, value: str) -> str | None:
    """The id of the MLflow run with this tag, if there is one."""
    found = store.client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


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
        "mlflow.user": user(),
        **{f"version.{name}": number for name, number in status.versions.items()},
    }
    name = f"{cfg.model.name} {arm(cfg)} lr={cfg.optimizer.lr} seed={cfg.seed}"
    sweeps = folder.sweeps()
    tags |= sweep_tags(sweeps)
    trained_by = sweeps.get(status.sweep or "")
    if status.sweep is not None and trained_by is not None:
        member = trained_by["members"][0]
        name = member["name"]
        tags |= {"sweep": status.sweep, "arm": member["arm"], "trial": str(member["trial"])}
        tags |= {"phase": member["phase"]}
        directory = markers.sweep_folder(trained_by["directory"], store.outputs, status.sweep)
        if directory is not None:
            tags["mlflow.parentRunId"] = begin_sweep(directory, store, cfg.tracking.experiment, note)
    experiment = store.experiment(cfg.tracking.experiment, note)
    run = store.client.create_run(experiment, round(status.started * 1000), tags, name)
    return str(run.info.run_id)


def user() -> str:
    """The name of who runs this; in a container there may be only a number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


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
    log_data(client, run_id, folder)


def log_data(client: "MlflowClient", run_id: str, folder: RunFolder) -> None:
    """Log the data set of a run, unless it failed before its data were read."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if folder.path.is_dir() and (facts := folder.facts()):
        profile = {"shape": facts["shape"], "classes": len(facts["classes"])}
        data = Dataset(
            name=facts["name"],
            digest=facts["fingerprint"][:32] or "unknown",
            source_type="local",
            source=json.dumps({"uri": str(folder.config().data.get("root", "scikit-learn"))}),
            profile=json.dumps(profile),
        )
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


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
            terminate(client, run_id, status.name, status.ended)
    if folder.status().started != status.started:
        raise FileNotFoundError(f"{folder.path}: the run is being trained again")
    markers.write_state(
        folder.path,
        store.uri,
        step=step,
        mlflow_status=MLFLOW_STATUS.get(status.name, "KILLED"),
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
    if status.name not in (*FINAL, "failed") or not has_artifacts(store, run_id, note):
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


def weights_file(folder: RunFolder, status: Status, note: Note) -> Path | None:
    """The tested weights of a run, if they stay; a note reports lost ones, and the upload goes on."""
    if status.name not in FINAL or not checkpoint.stay(folder) or status.weights == "undecided":
        return None
    try:
        return checkpoint.tested_file(folder)
    except ConfigError as error:
        note(f"{error}; this run is uploaded without its weights and model")
        return None


def has_artifacts(store: Store, run_id: str, note: Note) -> bool:
    """Whether the folder of a run's artifacts is to be written: not where it was before the project moved."""
    place = store.client.get_run(run_id).info.artifact_uri or ""
    if not place.startswith(("file:", "/")):
        return True
    folder = Path(url2pathname(place.removeprefix("file://"))).parents[1]
    if folder.is_dir() or folder.resolve() == (store.outputs / "artifacts").resolve():
        return True
    text = (
        f"tracking.uri={store.name}: keeps artifacts in {folder}, which does not exist (was the project "
        "moved?): figures are uploaded, files are not; make a link there to the folder that has them now"
    )
    tell(f"{store.uri} artifacts", text, note)
    return False


def log_model(run_id: str, folder: RunFolder, uri: str) -> str:
    """Log the tested weights as an MLflow model; its id.

    It takes pixel values 0..255, float32 (N, C, H, W), and gives the probabilities of the classes.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    from fairsweep.training import build

    model = build.classifier(folder.config(), folder.facts(), checkpoint.tested_weights(folder))
    # Two rows: with one, the exported model would take batches of one image only.
    example = np.zeros((2, *folder.facts()["shape"]), np.float32)
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(example)).numpy()
    mlflow.set_tracking_uri(address(uri))
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = mlflow.pytorch.log_model(
            model,
            name="model",
            input_example=example,
            signature=infer_signature(example, probabilities),
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("torch", "numpy")],
        )
    return str(info.model_id)


def register(folder: RunFolder, cfg: DictConfig, name: str, note: Note) -> bool:
    """Make a run's model the `champion` of a registered model; whether it is now.

    Repeated, that changes nothing.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    def action(store: Store) -> None:
        state = known(folder.path, store)
        if not state:
            raise ValueError("its run is not uploaded yet; repeat the command")
        mlflow.set_tracking_uri(address(store.uri))
        mlflow.set_registry_uri(address(store.uri))
        with suppress(MlflowException):  # there is none yet
            if store.client.get_model_version_by_alias(name, "champion").run_id == state["run_id"]:
                return
        mine = f"name = '{name}' and run_id = '{state['run_id']}'"
        if known_versions := store.client.search_model_versions(mine):
            version = known_versions[0].version
        else:
            model = has_model(state["run_id"], folder, store)
            version = mlflow.register_model(f"models:/{model}", name).version
        store.client.set_registered_model_alias(name, "champion", version)
        note(f"registered: models:/{name}@champion is run {folder.signature} now, version {version}")

    with reported(cfg.tracking.uri, note):
        outputs = markers.outputs_of(folder)
        return attempt(f"tracking.register={name}", cfg.tracking.uri, outputs, action, folder.log, note)
    return False


# A run's sweeps


def tag_sweeps(folder: RunFolder, store: Store) -> None:
    """A tag for each sweep that the run belongs to, which says what it is there."""
    state, sweeps = markers.read_state(folder.path, store.uri), folder.sweeps()
    known = state.get("sweeps", {})
    if known == sweeps:
        return
    before, now = sweep_tags(known), sweep_tags(sweeps)
    new = {key: value for key, value in now.items() if before.get(key) != value}
    log_tags(store.client, state["run_id"], new)
    for key in before.keys() - now.keys():
        store.client.delete_tag(state["run_id"], key)
    markers.write_state(folder.path, store.uri, sweeps=sweeps)


def log_tags(client: "MlflowClient", run_id: str, values: dict[str, str]) -> None:
    """Set these tags."""
    from mlflow.entities import RunTag

    tags = [RunTag(key, value) for key, value in values.items()]
    for first in range(0, len(tags), TAGS):
        client.log_batch(run_id, tags=tags[first : first + TAGS])


def sweep_tags(sweeps: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What MLflow's tags say of a run's sweeps: `sweep.<id>`; a long one goes on in `sweep.<id>.1`, ..."""
    tags = {}
    for sweep, entry in sweeps.items():
        text = json.dumps(entry["members"])
        for number, first in enumerate(range(0, len(text), TAG_LENGTH)):
            tags[f"sweep.{sweep}.{number}" if number else f"sweep.{sweep}"] = text[first : first + TAG_LENGTH]
    return tags


def members_of(tags: dict[str, str], sweep: str) -> list[dict[str, Any]]:
    """What a run is in a sweep, by its MLflow tags; see `sweep_tags`.

    Raises:
        ValueError: they are not what was written.
    """
    text, number = tags[f"sweep.{sweep}"], 1
    while (more := tags.get(f"sweep.{sweep}.{number}")) is not None:
        text, number = text + more, number + 1
    members: list[dict[str, Any]] = json.loads(text)
    return members


def begin_sweep(directory: Path, store: Store, experiment: str, note: Note) -> str:
    """The id of the MLflow run that is the parent of a sweep's runs, made if it is not there."""
    number = store.experiment(experiment, note)
    if state := known(directory, store):
        return str(state["run_id"])
    sweep = read_sweep(directory)
    run_id = find_run_id(store, number, "fairsweep_sweep", sweep["id"])
    if run_id is None:
        tags = {
            "fairsweep_sweep": sweep["id"],
            "command": sweep["command"],
            "mlflow.source.name": "src/train.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user(),
        }
        name = joined(sweep["name"], *(", ".join(sweep.get(key) or ()) for key in ("data", "model")))
        run_id = store.client.create_run(number, round(sweep["started"] * 1000), tags, name).info.run_id
        adopt(store, number, sweep["id"], run_id)
    markers.write_state(directory, store.uri, run_id=run_id, experiment=number, experiment_name=experiment)
    return run_id


def adopt(store: Store, experiment: str, sweep: str, parent: str) -> None:
    """Give the runs of a sweep a new parent, as the old one was deleted."""
    token = None
    while True:
        page = store.client.search_runs([experiment], f"tags.sweep = '{sweep}'", page_token=token)
        for run in page:
            store.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
        if not (token := page.token):
            return


# What users see, and how they find it


@contextmanager
def find_run(run_id: str, uri: str, directory: str) -> Iterator[RunFolder]:
    """The folder of an MLflow run: the one here; or one downloaded from its artifacts, removed at the end.

    Raises:
        ConfigError: the tracking store does not answer, has no such run, or has no record of it.
    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="fairsweep-") as downloads:
        try:
            file = database_file(uri)
            if file is not None and not file.exists():
                raise FileNotFoundError("there is no such database")
            client = connect(uri, directory)
            signature = client.get_run(run_id).data.tags.get("signature", "")
            if not schema.RUN.fullmatch(signature):
                raise FileNotFoundError("the MLflow run there was not made by fairsweep")
            folder = RunFolder(Path(directory).absolute() / "runs" / signature)
            if markers.read_state(folder.path, uri).get("run_id") != run_id:
                downloaded = Path(client.download_artifacts(run_id, "record", downloads))
                folder = RunFolder(downloaded.rename(Path(downloads) / signature))
        except (MlflowException, OSError) as error:
            text = str(error).splitlines()[0]
            raise ConfigError(f"run={run_id}: not in {name(uri)}: {text}") from error
        yield folder


def summary(cfg: DictConfig, folder: RunFolder | None = None) -> list[tuple[str, str]]:
    """What a command's end says of tracking: how to see the runs and serve a model, and what is not uploaded.

    Args:
        folder: of the run whose model is to be served.
    """
    uri = cfg.tracking.uri
    rows = [("compare", ui_command(uri))]
    if folder is not None and (model := markers.read_state(folder.path, uri).get("model")):
        served = f"models:/{model}"
        words = (f"MLFLOW_TRACKING_URI={shlex.quote(without_credentials(address(uri)))}", mlflow_command())
        rows.append(("serve", f"{' '.join(words)} models serve -m {served} --env-manager local -p 5001"))
    if missing := len(markers.waiting(Path(cfg.record.dir).absolute(), cfg.tracking.uri)):
        rows.append(("to upload", f"{counted(missing, 'record')}; the next command does it"))
    return rows


def ui_command(uri: str) -> str:
    """What a user types to see the runs in MLflow's UI."""
    if uri.startswith(("http:", "https:")):
        return f"open {without_credentials(uri)}"
    return f"{mlflow_command()} ui --backend-store-uri {shlex.quote(without_credentials(address(uri)))}"


def mlflow_command() -> str:
    """MLflow's command, as a shell finds it."""
    return "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
