"""Tracking stores: which URIs name one, and that it gets everything once, whatever was deleted or moved."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Compose
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf
from test_tracking import QUICK, Trainer, empty_store, history, journalled, train

from fairsweep.config import ConfigError
from fairsweep.runs import identity, life, markers, mlflow_sweep, session, store, tracking, uploader
from fairsweep.runs.folder import Place, RunFolder
from fairsweep.runs.identity import RunSpec

__all__ = ["empty_store", "train"]  # fixtures

# What names a store


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("localhost:5000", "is not a supported tracking store"),
        ("file:./mlruns", "is not a supported tracking store"),
        ("./mlruns", "is not a supported tracking store"),
        ("databricks", "is not a supported tracking store"),
        ("ftp://host/x", "is not a supported tracking store"),
        ("sqlite:rel.db", "does not name a file"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/text/x.db", "{folder}/text is not a folder"),
        ("sqlite:///{folder}/text", "is not an SQLite database"),
        ("http://", "has a wrong host or port"),
        ("http://host:port", "has a wrong host or port"),
    ],
)
def test_a_uri_of_no_store_is_refused_before_training(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "text").write_text("this is a text")
    uri, problem = uri.format(folder=tmp_path), problem.format(folder=tmp_path)
    with pytest.raises(ConfigError) as error:
        identity.identify(RunSpec(compose("tracking=mlflow", f"tracking.uri='{uri}'")))
    assert str(error.value).startswith(
        f"tracking.uri={uri}: {problem}; must be sqlite:///<path of a file>, http://"
    )
    assert "for example sqlite:////home/you/mlflow.db" in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////tmp/x.db",
        "sqlite:////tmp/x.db?timeout=30",
        "http://localhost:5000",
        "https://user:p@host/path/",
        "postgresql+psycopg:///mlflow",
        "mysql+pymysql://u:p@host:3306/x",
    ],
)
def test_a_uri_of_a_store_is_taken(uri: str) -> None:
    store.check(uri)


def test_a_store_has_one_name_however_its_uri_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    paths = (
        "outputs/x.db",
        "link/x.db",
        "outputs/../link/x.db",
        f"{tmp_path}/outputs/x.db",
        "outputs/x.db?timeout=9",
    )
    assert {store.name(f"sqlite:///{path}") for path in paths} == {f"sqlite:///{tmp_path}/outputs/x.db"}
    assert store.name("http://u:secret@host:5000/") == store.name("http://host:5000") == "http://host:5000"


@pytest.mark.timeout(60)
def test_a_database_that_nobody_serves_is_given_up_at_once(train: Trainer, compose: Compose) -> None:
    cfg = compose(*QUICK, "tracking.uri='postgresql://somebody:hunter2@127.0.0.1:9/x'")
    outcome = train("tracking=none")
    notes: list[str] = []
    assert not tracking.sync(outcome.folder, cfg, notes.append)
    (note,) = notes
    assert note.startswith("tracking.uri=postgresql://127.0.0.1:9/x: does not answer. Nothing is lost")


def test_any_folder_can_hold_the_default_database(train: Trainer, compose: Compose, tmp_path: Path) -> None:
    cfg = compose(*QUICK)
    cfg.record.dir = str(tmp_path / "100%20 of it?" / "a#b&c=d")
    Path(cfg.record.dir).mkdir(parents=True)
    shutil.move(tmp_path / "mlflow.db", cfg.record.dir)
    (outcome,) = session.run([RunSpec(cfg)], train.progress)
    assert tracking.sync_pending(cfg.record.dir, cfg, train.progress.note)
    client = MlflowClient(store.address(cfg.tracking.uri))
    run_id = markers.read_state(outcome.folder.path, cfg.tracking.uri)["run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run_id)] == ["record"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100%20 of it?"]
    shown = tracking.ui_command(cfg.tracking.uri)
    assert "/100%2520 of it%3F/a#b&c=d/mlflow.db" in shown


# What was deleted, moved, or uploaded elsewhere


class Swept:
    """A run that a sweep trained, and the sweep, in MLflow."""

    def __init__(self, train: Trainer, tmp_path: Path) -> None:
        self.train, self.outputs = train, tmp_path
        self.cfg = train.compose(*QUICK)
        self.sweep = tmp_path / "sweeps" / "s1234"
        self.sweep.mkdir(parents=True)
        definition = dict.fromkeys(mlflow_sweep.SWEEP_TAGS, "") | {
            "id": "s1234", "name": "grid", "command": "train.py -m", "directory": str(self.sweep),
            "objective": "val_accuracy", "overrides": [], "named_arms": False, "arms": {}, "seeds": [0],
            "weights": {}, "confirm_seeds": [], "started": 1.0, "resumed": 1.0, "ended": 2.0,
            "status": "finished", "counts": {"finished": 1}, "reused": 0, "best_objective": 0.5,
        }  # fmt: skip
        (self.sweep / "sweep.json").write_text(json.dumps(definition))
        self.place = Place("s1234", str(self.sweep), [member(0)])
        self.folder = train("tracking=none").folder
        self.folder.join(self.place)
        self.folder.set_status(sweep="s1234")
        self.repeat()

    def repeat(self) -> None:
        """As the same command does, which finds all of it finished."""
        note = self.train.progress.note
        uploader.sync(self.folder, self.cfg, note)
        uploader.sync_sweep(self.sweep, self.outputs, self.cfg, note)
        tracking.sync_pending(str(self.outputs), self.cfg, note)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(store.address(self.cfg.tracking.uri))

    def runs(self) -> tuple[Run, Run]:
        """The MLflow runs of sweep and run, of which there is one each."""
        number = self.client.get_experiment_by_name("fairsweep")
        assert number is not None
        found = self.client.search_runs([number.experiment_id])
        assert len(found) == 2
        parent, child = sorted(found, key=lambda run: "signature" in run.data.tags)
        return parent, child

    def assert_whole(self) -> None:
        parent, child = self.runs()
        assert parent.info.status == child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert history(self.client, child.info.run_id, self.folder) == journalled(self.folder)
        assert mlflow_sweep.members_of(child.data.tags, "s1234") == [member(0)]
        kept = {item.path for item in self.client.list_artifacts(child.info.run_id, "record")}
        assert "record/best.pt" in kept
        assert not list(markers.pending(self.outputs).iterdir())
        state = markers.read_state(self.folder.path, self.cfg.tracking.uri)
        assert (state["run_id"], state["experiment"]) == (child.info.run_id, child.info.experiment_id)


def member(trial: int) -> dict[str, Any]:
    return {
        "name": f"adam trial={trial}",
        "arm": "adam",
        "trial": trial,
        "phase": "search",
        "seed": 0,
        "values": {},
    }


@pytest.fixture
def swept(train: Trainer, tmp_path: Path) -> Swept:
    return Swept(train, tmp_path)


def test_whatever_is_deleted_in_mlflow_is_there_again_once(swept: Swept, empty_store: Path) -> None:
    swept.assert_whole()
    database = swept.outputs / "mlflow.db"

    def delete_for_good() -> None:
        client = swept.client
        client.delete_run(swept.runs()[1].info.run_id)
        client._tracking_client.store._hard_delete_run(state()["run_id"])

    def state() -> dict[str, Any]:
        return markers.read_state(swept.folder.path, swept.cfg.tracking.uri)

    def replace_database() -> None:
        database.unlink()
        shutil.copy(empty_store, database)

    deletions = {
        "nothing": lambda: None,
        "experiment": lambda: swept.client.delete_experiment(swept.runs()[0].info.experiment_id),
        "run": lambda: swept.client.delete_run(swept.runs()[1].info.run_id),
        "run, for good": delete_for_good,
        "parent run": lambda: swept.client.delete_run(swept.runs()[0].info.run_id),
        "both": lambda: [swept.client.delete_run(run.info.run_id) for run in swept.runs()],
        "database": database.unlink,
        "database, for an empty one": replace_database,
        "what the folder knows": (swept.folder.path / "tracking.json").unlink,
    }
    for entity, delete in deletions.items():
        delete()
        swept.repeat()
        try:
            swept.assert_whole()
        except Exception as error:
            raise AssertionError(f"{entity} was deleted") from error
    assert (
        "tracking.experiment=fairsweep: had been deleted in MLflow; restored" in swept.train.output.getvalue()
    )


def test_a_moved_project_is_recognised_and_nothing_is_uploaded_twice(swept: Swept) -> None:
    ids = [run.info.run_id for run in swept.runs()]
    old = swept.outputs / "old"
    old.mkdir()
    for name in ("runs", "sweeps", "mlflow.db", "artifacts", "locks", "pending"):
        shutil.move(swept.outputs / name, old / name)
    swept.outputs = old
    swept.cfg.record.dir = str(old)
    swept.folder, swept.sweep = RunFolder(old / "runs" / swept.folder.signature), old / "sweeps" / "s1234"
    swept.repeat()
    assert [run.info.run_id for run in swept.runs()] == ids
    swept.folder.set_status(ended=time.time())  # as if it had been resumed
    swept.repeat()
    assert [run.info.run_id for run in swept.runs()] == ids
    assert not (old.parent / "artifacts").exists()
    gone = old.parent / "artifacts"
    assert swept.train.output.getvalue().count(f"keeps artifacts in {gone}, which does not exist") == 1
    gone.symlink_to(old / "artifacts")
    swept.assert_whole()


def test_what_could_not_be_uploaded_before_a_move_is_uploaded_after_it(swept: Swept) -> None:
    note = swept.train.progress.note
    swept.folder.join(Place("s5678", "gone", [member(1)]))
    uploader.sync(swept.folder, swept.cfg, note)
    assert len(markers.waiting(swept.outputs, swept.cfg.tracking.uri)) == 1
    new = swept.outputs.with_name("moved")
    swept.outputs.rename(new)
    swept.cfg.record.dir = str(new)
    assert len(markers.waiting(new, swept.cfg.tracking.uri)) == 1
    assert tracking.sync_pending(str(new), swept.cfg, note)
    assert "sweep.s5678" in swept.runs()[1].data.tags


def test_a_run_of_many_trials_has_them_all_in_its_tags(swept: Swept) -> None:
    many = [member(trial) for trial in range(200)]
    swept.folder.join(swept.place._replace(members=many))
    swept.repeat()
    tags = swept.runs()[1].data.tags
    assert mlflow_sweep.members_of(tags, "s1234") == many
    assert len([key for key in tags if key.startswith("sweep.")]) > 1
    swept.folder.join(swept.place)
    swept.repeat()
    swept.assert_whole()
    assert [key for key in swept.runs()[1].data.tags if key.startswith("sweep.")] == ["sweep.s1234"]


def test_another_experiment_does_not_hide_what_was_recorded_before(swept: Swept) -> None:
    swept.cfg.tracking.experiment = "b"
    swept.repeat()
    swept.repeat()
    said = swept.train.output.getvalue()
    assert said.count("tracking.experiment=b: what is reused stays in experiment fairsweep") == 1
    swept.assert_whole()


# What belongs to one record


def test_a_record_that_mlflow_refuses_does_not_block_the_others(train: Trainer, tmp_path: Path) -> None:
    first, second, third = sorted(
        (train("tracking=none", f"seed={seed}").folder for seed in range(3)), key=lambda folder: folder.path
    )
    cfg = OmegaConf.load(first.path / "config.yaml")
    OmegaConf.update(cfg, f"model.{'x' * 300}", 1, force_add=True)
    (first.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    second.append({"step": 99, "epoch": 9.0, "no*name": 1.0})
    second.set_status(journal_bytes=second.journal_bytes())
    for folder in (first, second, third):
        uploader.sync(RunFolder(folder.path), train.compose(*QUICK), train.progress.note)
    assert not tracking.sync_pending(str(tmp_path), train.compose(*QUICK), train.progress.note)
    said = train.output.getvalue()
    for folder in (first, second):
        assert said.count(f"run {folder.signature}: could not be stored in sqlite:") == 1
        assert "tracking: Traceback" in (folder.path / "run.log").read_text()
    assert "Nothing is lost" not in said
    runs = {run.data.tags["signature"]: run for run in train.client.search_runs(["1"])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert history(train.client, runs[third.signature].info.run_id, third) == journalled(third)
    waiting = markers.waiting(tmp_path, train.compose(*QUICK).tracking.uri)
    assert {marker.name for marker in waiting} == {first.signature, second.signature}


def test_strange_files_among_the_markers_change_nothing(train: Trainer, tmp_path: Path) -> None:
    markers.pending(tmp_path).mkdir()
    (markers.pending(tmp_path) / ".DS_Store").write_bytes(b"\xff\xfe")
    (markers.pending(tmp_path) / "folder").mkdir()
    outcome = train()
    assert train.run(outcome).info.status == "FINISHED"


def test_a_model_that_cannot_be_exported_costs_no_more_than_the_model(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fairsweep.training import build

    class Undecided(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] if images.sum() < 0 else images.flatten(1)[:, 10:20]

    monkeypatch.setattr(build, "predictor", lambda *_: Undecided())
    outcome = train("tracking.log_model=all")
    run = train.run(outcome)
    assert run.info.status == "FINISHED"
    assert run.info.end_time == round(outcome.status.ended * 1000)
    assert train.client.list_artifacts(run.info.run_id, "record")
    assert f"run {outcome.folder.signature}: its MLflow model could not be logged" in train.output.getvalue()
    assert not list(markers.pending(outcome.folder.path.parents[1]).iterdir())


def test_a_user_without_a_name_can_upload(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # as in a container
    run = train.run(train())
    assert (run.info.status, run.data.tags["mlflow.user"]) == ("FINISHED", "54321")


def test_the_marker_of_a_sweep_may_name_any_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "locks").mkdir(parents=True)
    marker = markers.pending(tmp_path / "outputs") / "s0123456789a"
    uri, folder = "sqlite:////tmp/x.db", Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))
    markers.write(marker, uri, print, folder)
    assert markers.waiting(tmp_path / "outputs", uri) == [marker]
    assert os.fsencode(folder) in marker.read_bytes()
    for damage in (b"\xff\n\xff", b"\0\n\0", b"\0\n" + b"x" * 5000):
        marker.write_bytes(damage)
        assert not markers.waiting(tmp_path / "outputs", uri)
        life.end_dead(tmp_path / "outputs")
