"""A sweep in MLflow: the parent of its runs, their membership as tags, and what both have in common."""

import getpass
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

from fairsweep.runs import markers, schema
from fairsweep.runs.attempts import tell
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import read_sweep
from fairsweep.runs.store import TAG_LENGTH, TAGS, Note, Store
from fairsweep.wording import joined

if TYPE_CHECKING:
    from mlflow import MlflowClient


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


# MLflow's word for a run's status; every other one is KILLED there.
MLFLOW_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
}


def log_data_of(directory: Path, outputs: Path, client: "MlflowClient", run_id: str) -> None:
    """Log the data sets of a sweep's runs as its own; repeated, that changes nothing."""
    plan = schema.content_of(directory / "plan.jsonl").splitlines(keepends=True)
    rows = [schema.parsed(directory / "plan.jsonl", line, {}) for line in plan if line.endswith(b"\n")]
    folders = [RunFolder(outputs / "runs" / row["signature"]) for row in rows if row]
    for folder in {folder.status().data: folder for folder in folders}.values():
        log_data(client, run_id, folder)


def log_data(client: "MlflowClient", run_id: str, folder: RunFolder) -> None:
    """Log the data set of a run, unless it failed before its data were read."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if folder.path.is_dir() and (facts := folder.facts()):
        node = folder.config().data
        place = str(node.get("root") or node.get("file") or node._target_)
        learned = "targets" if "targets" in facts else "classes"
        profile = {"shape": facts["shape"], learned: len(facts[learned])}
        data = Dataset(
            name=facts["name"],
            digest=facts["fingerprint"][:32] or "unknown",
            source_type="local",
            source=json.dumps({"uri": place}),
            profile=json.dumps(profile),
        )
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def terminate(client: "MlflowClient", run_id: str, status: str, ended: float) -> None:
    """End the MLflow run of a run, or of a sweep, that has ended."""
    client.set_terminated(run_id, MLFLOW_STATUS.get(status, "KILLED"), round(ended * 1000))


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


def find_run_id(store: Store, experiment: str, tag: str, value: str) -> str | None:
    """The id of the MLflow run with this tag, if there is one."""
    found = store.client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def user() -> str:
    """The name of who runs this; in a container there may be only a number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def begin_sweep(directory: Path, store: Store, experiment: str, note: Note) -> str:
    """The id of the MLflow run that is the parent of a sweep's runs, made if it is not there."""
    number = store.experiment(experiment, note)
    if state := markers.known(directory, store):
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
