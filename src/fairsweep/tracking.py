"""From run folders to MLflow: what a folder holds is uploaded once, when the server is there to take it."""

import gc
import getpass
import json
import logging
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from fairsweep import schema, signals
from fairsweep.config import TEXT, ConfigError, leaves, without_credentials
from fairsweep.files import write_atomically
from fairsweep.record import RunFolder
from fairsweep.schema import FINAL, Damaged, read_json, read_sweep, warn
from fairsweep.wording import counted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported. A server that is away is asked again at the next checkpoint, not for
# minutes within one call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Two lines for each run of a sweep.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

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

# After a failure, the server is left alone for so long.
RETRY_SECONDS = 60.0
last_failure: dict[str, float] = {}
told: dict[str, str] = {}  # what the user knows of it


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
    if not status:  # its folder was removed
        return True
    ended = status["ended"] is not None
    state = read_state(folder.path, uri)
    marker = pending(folder.path.parents[1]) / folder.signature
    has_record = ended and state.get("ended") == status["ended"] and not again
    if has_record and state["sweeps"] == folder.sweeps():
        marker.unlink(missing_ok=True)
        return True
    broke_off = marker.exists()
    write_marker(marker, without_credentials(uri), note)
    # A single run that ends is the last chance of its command; there, asking once more is worth the wait.
    waits = not (ended and status["single"])
    if waits and time.monotonic() - last_failure.get(uri, -math.inf) < RETRY_SECONDS:
        return False

    def bring() -> None:
        client, run_id = begin(folder, uri, status, broke_off)
        tag_sweeps(client, run_id, folder, uri)
        if not has_record:
            upload(client, run_id, folder, uri, status)

    if not attempt(uri, bring, folder.log, note):
        return False
    if ended:
        marker.unlink(missing_ok=True)
    return True


def attempt(uri: str, action: Callable[[], None], log: Note, note: Note) -> bool:
    """Do something with the tracking store; False, and the reason told, where that fails."""
    # MLflow's import makes a million objects; looking for garbage among them takes nearly as long again.
    gc.disable()
    try:
        with signals.postponed():  # broken off, it would leave the database locked in this process
            action()
    except Exception as error:  # whatever tracking does, training goes on
        last_failure[uri] = time.monotonic()
        name = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        text = without_credentials(f"{name}{error}", uri)
        reason = shorten(text.splitlines()[0], 200, placeholder=" ...")
        log(f"tracking: {text}")
        if told.get(uri) != type(error).__name__:  # once, and not for each run of a sweep
            told[uri] = type(error).__name__
            note(
                f"tracking.uri={without_credentials(uri)}: {reason}. Nothing is lost: what is missing is "
                "uploaded later, by this command or the next"
            )
        return False
    finally:
        gc.enable()
    told.pop(uri, None)
    return True


def sync_pending(directory: str, cfg: DictConfig, note: Note) -> None:
    """Upload what earlier commands could not bring here. What a dead process left ends as `interrupted`."""
    outputs = Path(directory).absolute()
    if cfg.tracking.uri is None or not pending(outputs).is_dir():
        return
    last_failure.clear()
    for marker in markers(outputs):
        try:
            uri, _, place = marker.read_text(errors="replace").partition("\n")
        except OSError:  # another process has brought it
            continue
        if uri != without_credentials(cfg.tracking.uri):
            continue
        folder = RunFolder(outputs / "runs" / marker.name)
        if not (is_sweep(Path(place)) if place else folder.status()) or folder.damage():
            marker.unlink(missing_ok=True)  # the next command that has to do with it makes it anew
            continue
        try:
            with folder.lock().acquire(timeout=0):
                if place:
                    mark_sweep_dead(Path(place))
                    brought = sync_sweep(Path(place), outputs, cfg, note)
                else:
                    mark_dead(folder)
                    brought = sync(folder, cfg, note)
                if not brought:
                    return
        except Timeout:
            continue  # another process is at it


def sync_sweep(directory: Path, outputs: Path, cfg: DictConfig, note: Note) -> bool:
    """Bring the MLflow run of a sweep, its runs' parent, up to date with its folder; True if it is now."""
    uri = cfg.tracking.uri
    if uri is None:
        return True
    sweep = read_sweep(directory)
    marker = pending(outputs) / sweep["id"]
    write_marker(marker, f"{without_credentials(uri)}\n{directory}", note)

    def bring() -> None:
        from mlflow.entities import Metric, RunTag

        client, run_id = begin_sweep(directory, str(outputs), uri, cfg.tracking.experiment)
        before = {key: 0 for key in client.get_run(run_id).data.metrics if key.startswith("runs_")}
        counts = before | {f"runs_{status}": count for status, count in sweep["counts"].items()}
        figures = {**counts, "runs_reused": sweep["reused"], "best_objective": sweep["best_objective"]}
        metrics = [
            Metric(key, value, round(time.time() * 1000), 0)
            for key, value in figures.items()
            if value is not None and math.isfinite(value)
        ]
        # Not as parameters, which MLflow lets nobody change: the sweep may grow.
        tags = [RunTag(key, str(sweep[key])[:PARAM_LENGTH]) for key in SWEEP_TAGS]
        client.log_batch(run_id, metrics, tags=tags)
        if sweep["ended"] is None:
            client.update_run(run_id, status="RUNNING")
            return
        for name in ("sweep.json", "table.csv"):
            if (directory / name).exists():
                client.log_artifact(run_id, str(directory / name))
        if (directory / "report").is_dir():
            client.log_artifacts(run_id, str(directory / "report"), "report")
        client.set_terminated(
            run_id, MLFLOW_STATUS.get(sweep["status"], "KILLED"), round(sweep["ended"] * 1000)
        )

    if not attempt(uri, bring, lambda _: None, note):
        return False
    if sweep["ended"] is not None:
        marker.unlink(missing_ok=True)
    return True


def begin_sweep(directory: Path, outputs: str, uri: str, experiment: str) -> tuple["MlflowClient", str]:
    """A client, and the id of the MLflow run that is the parent of a sweep's runs, made if there is none."""
    client = connect(uri, outputs)
    number = experiment_id(uri, outputs, experiment)
    if not read_state(directory, uri):
        with FileLock(Path(outputs) / "locks" / "mlflow.lock"):
            if not read_state(directory, uri):
                sweep = read_sweep(directory)
                found = find_runs(client, number, "fairsweep_sweep", sweep["id"])
                tags = {
                    "fairsweep_sweep": sweep["id"],
                    "command": sweep["command"],
                    "mlflow.source.name": "src/train.py",
                    "mlflow.source.type": "LOCAL",
                    "mlflow.user": getpass.getuser(),
                }
                name = f"sweep {sweep['name']}"
                run_id = found or [
                    client.create_run(number, round(sweep["started"] * 1000), tags, name).info.run_id
                ]
                write_state(directory, uri, run_id=str(run_id[0]))
    return client, str(read_state(directory, uri)["run_id"])


def mark_sweep_dead(directory: Path) -> None:
    """Give a sweep that no process is at any more, as its lock is free, the ending that it missed."""
    sweep = read_sweep(directory)
    if sweep["status"] == "running":
        sweep |= {"status": "interrupted", "ended": time.time()}
        write_atomically(directory / "sweep.json", json.dumps(sweep, indent=1).encode())


def mark_dead(folder: RunFolder) -> None:
    """Give a run that nobody trains any more, as its lock is free, the ending that it missed."""
    if folder.status().get("status") == "running":
        folder.set_status(status="interrupted", reason="its process died", ended=time.time())


def pending(outputs: Path) -> Path:
    """The folder with a marker for each run that MLflow does not have whole yet."""
    return outputs / "pending"


def markers(outputs: Path) -> list[Path]:
    """The markers there; what others put into the folder is none."""
    paths = sorted(pending(outputs).iterdir()) if pending(outputs).is_dir() else []
    names = (schema.RUN, schema.SWEEP)
    return [path for path in paths if path.is_file() and any(name.fullmatch(path.name) for name in names)]


def is_sweep(directory: Path) -> bool:
    """Whether this is a sweep's folder, its definition whole."""
    try:
        read_sweep(directory)
    except (Damaged, FileNotFoundError):
        return False
    return True


def write_marker(marker: Path, text: str, note: Note) -> None:
    """Note that MLflow does not have all of something; what is to be noted is whole without it."""
    try:
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(text)
    except OSError as error:
        note(f"{marker}: cannot be written: {error.strerror}")


def read_state(path: Path, uri: str) -> dict[str, Any]:
    """What of a folder is uploaded to this URI: MLflow's run id, the last step, the ending."""
    state: dict[str, Any] = states(path).get(without_credentials(uri), {})
    return state


def states(path: Path) -> dict[str, Any]:
    """What of a folder is uploaded, by URI; of a damaged file, nothing: MLflow is asked for its runs then."""
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
    return content


def write_state(path: Path, uri: str, **changes: Any) -> None:
    """Note what is uploaded to this URI."""
    key, known = without_credentials(uri), states(path)
    known[key] = known.get(key, {}) | changes
    write_atomically(path / "tracking.json", json.dumps(known, indent=1).encode())


def begin(folder: RunFolder, uri: str, status: dict[str, Any], broke_off: bool) -> tuple["MlflowClient", str]:
    """A client, and the id of the run's MLflow run, which is made if there is none.

    Args:
        broke_off: an upload did; MLflow may have a run of which the folder knows nothing.
    """
    client = connect(uri, str(folder.path.parents[1]))
    state = read_state(folder.path, uri)
    if "run_id" not in state:
        cfg = folder.config()
        experiment = experiment_id(uri, str(folder.path.parents[1]), cfg.tracking.experiment)
        mark = f"{folder.signature}-{status['started']}"
        is_lost = (folder.path / "tracking.json").exists()  # it is damaged, or of another store
        orphans = find_runs(client, experiment, "fairsweep_run", mark) if broke_off or is_lost else []
        run_id = orphans[0] if orphans else create(client, experiment, folder, cfg, uri, status, mark)
        describe(client, run_id, folder, cfg)  # an orphan, too: it may have broken off before
        state = {"run_id": run_id, "step": -1, "mlflow_status": "RUNNING", "ended": None}
        state["sweeps"] = {} if orphans else folder.sweeps()
        write_state(folder.path, uri, **state)
    return client, str(state["run_id"])


def find_runs(client: "MlflowClient", experiment: str, tag: str, value: str) -> list[str]:
    """The ids of the MLflow runs with this tag."""
    found = client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
    return [str(run.info.run_id) for run in found]


def upload(client: "MlflowClient", run_id: str, folder: RunFolder, uri: str, status: dict[str, Any]) -> None:
    """The record that MLflow does not have yet. Repeated after a crash in the middle, it doubles nothing."""
    from mlflow.entities import Metric, RunTag

    state = read_state(folder.path, uri)
    if status["ended"] is None and state["mlflow_status"] != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    lines = [line for line in folder.journal(durable=True) if line["step"] > state["step"]]
    metrics = [
        Metric(key, value, round(line["time"] * 1000), int(line["step"]))
        for line in lines
        for key, value in line.items()
        if key not in ("step", "epoch", "time") and value is not None and math.isfinite(value)
    ]
    for first in range(METRICS, len(metrics), METRICS):
        client.log_batch(run_id, metrics[first : first + METRICS])
    tags = [RunTag("status", status["status"])]
    if status["ended"] is not None:
        tags.append(RunTag("reason", status["reason"] or "all epochs done"))
    client.log_batch(run_id, metrics[:METRICS], tags=tags)
    if status["ended"] is not None:
        end(client, run_id, uri, folder, status)
    write_state(
        folder.path,
        uri,
        step=lines[-1]["step"] if lines else state["step"],
        mlflow_status=MLFLOW_STATUS.get(status["status"], "KILLED"),
        ended=status["ended"],
    )


def tag_sweeps(client: "MlflowClient", run_id: str, folder: RunFolder, uri: str) -> None:
    """A tag for each sweep that the run belongs to, which says what it is there."""
    from mlflow.entities import RunTag

    known, sweeps = read_state(folder.path, uri)["sweeps"], folder.sweeps()
    new = {sweep: entry for sweep, entry in sweeps.items() if known.get(sweep) != entry}
    if new:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in sweep_tags(new).items()])
    for sweep in known.keys() - sweeps.keys():
        client.delete_tag(run_id, f"sweep.{sweep}")
    if known != sweeps:
        write_state(folder.path, uri, sweeps=sweeps)


def sweep_tags(sweeps: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What MLflow's tags say of these of a run's sweeps."""
    return {f"sweep.{sweep}": json.dumps(entry["members"]) for sweep, entry in sweeps.items()}


@cache
def connect(uri: str, outputs: str) -> "MlflowClient":
    """A client of a tracking store that answers; a database is made if there is none yet.

    Raises:
        ConfigError: a server is of an incompatible MLflow, or does not let us in.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic", "urllib3"):  # behind the import, which sets the first of them
        logging.getLogger(name).setLevel(logging.ERROR)
    # Several processes that create one database at once destroy it, and so does a kill.
    locks = Path(outputs) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "mlflow.lock"):
        file = database_file(uri)
        if file is not None and not file.exists():
            create_database(file, outputs)
        client = MlflowClient(uri)
        if uri.startswith(("http:", "https:")):
            check_version(uri)
        try:
            client.search_experiments(max_results=1)
        except MlflowException as error:
            if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                raise ConfigError(
                    "the server refuses the credentials; MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD must be those of one of its users"
                ) from error
            raise
    return client


def database_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for other stores."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def check_version(uri: str) -> None:
    """
    Raises:
        ConfigError: the server is of an incompatible MLflow.
    """
    from mlflow.utils import credentials, rest_utils

    credentials_of: Any = credentials.get_default_host_creds  # MLflow has no types for them
    ask: Any = rest_utils.http_request
    answer = ask(credentials_of(uri), "/version", "GET", raise_on_status=False)
    theirs, ours = answer.text.strip(), version("mlflow")
    if answer.ok and re.fullmatch(r"\d+(\.\w+)+", theirs) and theirs.split(".")[0] != ours.split(".")[0]:
        raise ConfigError(f"its MLflow is {theirs}, the one here {ours}; both must be {ours.split('.')[0]}.x")


def create_database(file: Path, outputs: str) -> None:
    """Make an empty tracking database, which is there as a whole or not at all."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    make: Any = SqlAlchemyStore  # MLflow has no types for it
    make(f"sqlite:///{part}", (Path(outputs) / "artifacts").as_uri()).engine.dispose()
    part.replace(file)


@cache
def experiment_id(uri: str, outputs: str, name: str) -> str:
    """The id of the experiment of this name, made if there is none."""
    from mlflow.exceptions import MlflowException

    client = connect(uri, outputs)
    found = client.get_experiment_by_name(name)
    if found is None:
        is_server = uri.startswith(("http:", "https:", "databricks"))
        artifacts = None if is_server else (Path(outputs) / "artifacts").as_uri()
        try:
            # Without this tag the UI shows the experiment as one of conversations.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifacts, tags))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def create(
    client: "MlflowClient",
    experiment: str,
    folder: RunFolder,
    cfg: DictConfig,
    uri: str,
    status: dict[str, Any],
    mark: str,
) -> str:
    """Make the MLflow run; its id."""
    tags = {
        "fairsweep_run": mark,
        "signature": folder.signature,
        "arm": arm(cfg),
        "seed": str(cfg.seed),
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
    sweeps = folder.sweeps()
    tags |= sweep_tags(sweeps)
    trained_by = sweeps.get(status["sweep"] or "")
    if trained_by is not None:
        member = trained_by["members"][0]
        name = member["name"]
        tags |= {"sweep": status["sweep"], "arm": member["arm"], "trial": str(member["trial"])}
        tags |= {"phase": member["phase"]}
        outputs = str(folder.path.parents[1])
        _, parent = begin_sweep(Path(trained_by["directory"]), outputs, uri, cfg.tracking.experiment)
        tags |= {"mlflow.parentRunId": parent}
    run = client.create_run(experiment, round(status["started"] * 1000), tags, name)
    return str(run.info.run_id)


def describe(client: "MlflowClient", run_id: str, folder: RunFolder, cfg: DictConfig) -> None:
    """Log the configuration and the data set; repeated, that changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    values = leaves(OmegaConf.to_container(cfg))
    params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in values.items()]
    for first in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[first : first + PARAMS])
    facts = folder.facts()
    if facts:  # else it failed before its data were read
        profile = {"shape": facts["shape"], "classes": len(facts["classes"])}
        data = Dataset(
            name=facts["name"],
            digest=facts["fingerprint"][:32] or "unknown",
            source_type="local",
            source=json.dumps({"uri": str(values.get("data.root", "scikit-learn"))}),
            profile=json.dumps(profile),
        )
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def arm(cfg: DictConfig) -> str:
    """What a run of no sweep is compared as: its optimizer."""
    return str(cfg.optimizer._target_).rsplit(".", 1)[-1].lower()


def end(client: "MlflowClient", run_id: str, uri: str, folder: RunFolder, status: dict[str, Any]) -> None:
    """The artifacts and the status of a run that has ended, for good or for now."""
    if status["status"] in (*FINAL, "failed"):
        cfg = folder.config()
        names = ["config.yaml", "data.json", "status.json", "journal.jsonl", "run.log"]
        weights = weights_file(folder, status)
        if weights is not None:
            names.append(weights.name)
        # Each request takes as long as all of these together.
        with tempfile.TemporaryDirectory() as staged:
            for name in names:
                if (folder.path / name).exists():
                    (Path(staged) / name).symlink_to(folder.path / name)
            client.log_artifacts(run_id, staged, "record")
        if folder.pictures.is_dir():
            client.log_artifacts(run_id, str(folder.pictures), "pictures")
        wanted = cfg.tracking.log_model == "all" or (cfg.tracking.log_model == "auto" and status["single"])
        if status["status"] == "finished" and wanted and weights is not None:
            outputs = client.get_run(run_id).outputs
            if outputs is None or not outputs.model_outputs:  # else from an upload that broke off later
                log_model(run_id, folder, uri)
    client.set_terminated(
        run_id, MLFLOW_STATUS.get(status["status"], "KILLED"), round(status["ended"] * 1000)
    )


def weights_file(folder: RunFolder, status: dict[str, Any]) -> Path | None:
    """The tested weights of a run that kept some; that they are lost is reported, and stops no upload."""
    if status["status"] not in FINAL or folder.config().record.keep == "none":
        return None
    try:
        folder.weights()
        return folder.tested_weights_file()
    except ConfigError as error:
        warn(f"{error}; MLflow gets this run without its weights and model")
        return None


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
    if cfg.tracking.uri is None or not (state := read_state(folder.path, cfg.tracking.uri)):
        return
    if not folder.damage():
        mark_dead(folder)
        sync(folder, cfg, note)
    try:
        connect(cfg.tracking.uri, cfg.record.dir).set_tag(state["run_id"], "superseded", "true")
    except Exception as error:  # whatever tracking does, training goes on
        note(f"tracking: MLflow run {state['run_id']} could not be marked as superseded: {error}")


@contextmanager
def find_run(run_id: str, uri: str, directory: str) -> Iterator[RunFolder]:
    """The folder of an MLflow run: the one here; or one downloaded from its artifacts, removed at the end.

    Raises:
        ConfigError: the tracking store is away, knows no such run, or has no record of it.
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
            if read_state(folder.path, uri).get("run_id") != run_id:
                downloaded = Path(client.download_artifacts(run_id, "record", downloads))
                folder = RunFolder(downloaded.rename(Path(downloads) / signature))
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"run={run_id}: not in {without_credentials(uri)}: {reason}") from error
        yield folder


def summary(cfg: DictConfig) -> list[tuple[str, str]]:
    """What to say of tracking at a command's end: how to see the runs, and how many are not there yet."""
    rows = [("compare", ui_command(cfg.tracking.uri))]
    if missing := len(markers(Path(cfg.record.dir).absolute())):
        rows.append(("to upload", f"{counted(missing, 'record')}; the next command does it"))
    return rows


def ui_command(uri: str) -> str:
    """What a user types to see the runs in MLflow's UI."""
    if uri.startswith(("http:", "https:")):
        return f"open {without_credentials(uri)}"
    mlflow = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
    return f"{mlflow} ui --backend-store-uri {shlex.quote(without_credentials(uri))}"
