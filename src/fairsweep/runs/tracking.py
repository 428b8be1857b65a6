"""From run folders to MLflow: each folder is uploaded once, when the store takes it.

Everything here may take minutes. Commands have it done by a process of its own, see `uploader`.
"""

import math
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fairsweep.config import ConfigError, without_credentials
from fairsweep.runs import markers, mlflow_run, mlflow_sweep, schema
from fairsweep.runs.attempts import alone, attempt, reported, tell
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, read_sweep
from fairsweep.runs.status import Status
from fairsweep.runs.store import (
    PARAM_LENGTH,
    TAG_LENGTH,
    Note,
    Outage,
    Store,
    address,
    connect,
    database_file,
    name,
    opened,
    reason,
)
from fairsweep.wording import counted

if TYPE_CHECKING:
    pass


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
        state = (
            mlflow_run.begin(folder, store, status, note)
            if status.has_begun
            else markers.known(folder.path, store)
        )
        if not status.has_begun:
            pass
        elif again or state.get("ended") != status.ended or status.ended is None:
            mlflow_run.upload(folder, store, state, status, note)
        elif not markers.is_whole(state, status):  # its sweep has chosen it since
            mlflow_run.log_files(folder, store, state["run_id"], status, note)
            markers.write_state(folder.path, store.uri, weights=status.weights)
        if status.has_begun:
            mlflow_sweep.tag_sweeps(folder, store)
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
        client, run_id = (
            store.client,
            mlflow_sweep.begin_sweep(directory, store, cfg.tracking.experiment, note),
        )
        before = {key: 0 for key in client.get_run(run_id).data.metrics if key.startswith("runs_")}
        counts = before | {f"runs_{status}": count for status, count in sweep["counts"].items()}
        figures = {**counts, "runs_reused": sweep["reused"], "best_objective": sweep["best_objective"]}
        values = [
            Metric(key, value, round(time.time() * 1000), 0)
            for key, value in figures.items()
            if value is not None and math.isfinite(value)
        ]
        # Not as parameters, which MLflow lets nobody change: the sweep may grow.
        tags = [RunTag(key, str(sweep[key])[:PARAM_LENGTH]) for key in mlflow_sweep.SWEEP_TAGS]
        client.log_batch(run_id, values, tags=tags)
        if sweep["ended"] is None:
            client.update_run(run_id, status="RUNNING")
            return
        try:
            if mlflow_sweep.has_artifacts(store, run_id, note):
                for file in mlflow_sweep.SWEEP_FILES:
                    if (directory / file).exists():
                        client.log_artifact(run_id, str(directory / file))
                if (directory / "report").is_dir():
                    client.log_artifacts(run_id, str(directory / "report"), "report")
            if (directory / "report" / "verdict.md").exists():
                text = (directory / "report" / "verdict.md").read_text()
                client.set_tag(run_id, "mlflow.note.content", text[:TAG_LENGTH])
            with suppress(FileNotFoundError, Damaged):  # whoever reads the sweep reports a damaged plan
                mlflow_sweep.log_data_of(directory, outputs, client, run_id)
        finally:
            mlflow_sweep.terminate(client, run_id, sweep["status"], sweep["ended"])

    done = attempt(f"sweep {sweep['id']}", uri, outputs, action, lambda _: None, note)
    if done and sweep["ended"] is not None:
        marker.unlink(missing_ok=True)
    return done


def register(folder: RunFolder, cfg: DictConfig, name: str, note: Note) -> bool:
    """Make a run's model the `champion` of a registered model; whether it is now.

    Repeated, that changes nothing.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    def action(store: Store) -> None:
        state = markers.known(folder.path, store)
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
            model = mlflow_run.has_model(state["run_id"], folder, store)
            version = mlflow.register_model(f"models:/{model}", name).version
        store.client.set_registered_model_alias(name, "champion", version)
        note(f"registered: models:/{name}@champion is run {folder.signature} now, version {version}")

    with reported(cfg.tracking.uri, note):
        outputs = markers.outputs_of(folder)
        return attempt(f"tracking.register={name}", cfg.tracking.uri, outputs, action, folder.log, note)
    return False


def prepare(outputs: Path, cfg: DictConfig, note: Note, has_model: bool) -> bool:
    """Load what uploads need, and open the store; whether it answers."""
    with reported(cfg.tracking.uri, note), alone(outputs):
        opened(cfg.tracking.uri, outputs)
        if has_model:
            import mlflow.pytorch  # noqa: F401
        return True
    return False


def check_experiment(path: Path, cfg: DictConfig, note: Note) -> None:
    """Tell the user where to find what was uploaded before to another experiment."""
    before = markers.read_state(path, cfg.tracking.uri).get("experiment_name", cfg.tracking.experiment)
    if before != cfg.tracking.experiment:
        text = (
            f"tracking.experiment={cfg.tracking.experiment}: what is reused stays in experiment {before}, "
            "where it was uploaded before"
        )
        tell(f"{cfg.tracking.uri} {before}", text, note)


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
