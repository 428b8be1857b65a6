"""What MLflow holds of a run, read back through its own interface."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from servers import free_port, serving

from fairsweep import metrics
from fairsweep.config import ROOT, leaves
from fairsweep.metrics import tracked
from fairsweep.runs import attempts, checkpoint, markers, mlflow_run, session, store, tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import Outcome
from fairsweep.runs.progress import Progress
from fairsweep.runs.schema import read_json
from fairsweep.training import build

Compose = Callable[..., DictConfig]

QUICK = (
    "model=mlp",
    "model.widths=[16]",
    "data.limit=200",
    "trainer.epochs=2",
    "trainer.threads=1",
    "trainer.log_every=3",
    "tracking=mlflow",
    "tracking.log_model=none",
    "record.pictures=none",
)


def mlflow_id(folder: RunFolder) -> str:
    """The id of the run's MLflow run, in the one store that it was uploaded to."""
    (state,) = read_json(folder.path / "tracking.json").values()
    return str(state["run_id"])


class Trainer:
    def __init__(self, compose: Compose, folder: Path) -> None:
        self.compose, self.output = compose, StringIO()
        self.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        self.progress = Progress(Console(file=self.output, width=500))

    def __call__(self, *overrides: str) -> Outcome:
        cfg = self.compose(*QUICK, *overrides)
        (outcome,) = session.run([RunSpec(cfg)], self.progress)
        tracking.sync_pending(cfg.record.dir, cfg, self.progress.note)
        return outcome

    def run(self, outcome: Outcome) -> Run:
        return self.client.get_run(mlflow_id(outcome.folder))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without runs: to make one takes seconds, to copy one does not."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def train(compose: Compose, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    shutil.copy(empty_store, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which MLflow sets when a model is logged
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    attempts.noted.clear()
    store.stores.clear()
    return Trainer(compose, tmp_path)


def history(client: MlflowClient, run_id: str, folder: RunFolder) -> dict[str, list[tuple[int, int, float]]]:
    keys = {key for line in folder.journal() for key in line} - {"step", "epoch", "time"}
    return {
        key: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, tracked(key)))
        for key in sorted(keys)
    }


def journalled(folder: RunFolder, durable: bool = False) -> dict[str, list[tuple[int, int, float]]]:
    lines = folder.journal(durable)
    keys = {key for line in lines for key in line} - {"step", "epoch", "time"}
    return {
        key: sorted((int(x["step"]), round(x["time"] * 1000), x[key]) for x in lines if key in x)
        for key in sorted(keys)
    }


def test_mlflow_holds_parameters_metrics_tags_data_and_artifacts_of_a_run(train: Trainer) -> None:
    outcome = train("record.pictures=all")
    run, folder = train.run(outcome), outcome.folder
    assert run.info.status == "FINISHED"
    assert run.info.start_time == round(outcome.status.started * 1000)
    assert run.info.end_time == round(outcome.status.ended * 1000)

    values = leaves(OmegaConf.to_container(folder.config()))
    assert run.data.params == {key: str(value) for key, value in values.items()}
    assert run.data.params["optimizer.lr"] == "0.001"

    held = history(train.client, run.info.run_id, folder)
    assert held == journalled(folder)
    assert {
        "train_loss", "train_accuracy", "lr", "epoch_train_loss", "epoch_train_accuracy", "val_loss",
        "val_accuracy", "images_per_second", "epoch_seconds", "test_loss", "test_accuracy", "objective",
    } == held.keys()  # fmt: skip
    assert [step for step, _, _ in held["train_loss"]] == [3, 4, 6, 8]
    assert run.data.metrics["test/accuracy"] == outcome.status.test["accuracy"]
    assert run.data.metrics["time/training_seconds"] == outcome.status.seconds

    tags = run.data.tags
    assert tags["signature"] == folder.signature
    assert tags["status"] == "finished"
    assert tags["arm"] == "adam"
    assert tags["shared_seconds"] == "false"
    assert tags["device"] == "cpu"
    assert tags["version.torch"] == torch.__version__.split("+")[0]
    assert {"command", "git_dirty", "mlflow.source.git.commit", "hostname", "precision"} <= tags.keys()

    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", folder.facts()["fingerprint"])
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]

    artifacts = {
        item.path
        for name in ("record", "pictures")
        for item in train.client.list_artifacts(run.info.run_id, name)
    }
    assert artifacts - {"record/code.patch"} == {
        "record/config.yaml", "record/data.json", "record/status.json", "record/journal.jsonl",
        "record/run.log", "record/best.pt",
        "pictures/curves.png", "pictures/confusion.png", "pictures/worst.png",
    }  # fmt: skip


def test_a_run_taken_over_is_not_uploaded_again(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    monkeypatch.setattr(mlflow_run, "upload", None)
    assert train().reused
    assert "Nothing is lost" not in train.output.getvalue()


def test_every_ending_has_its_status_in_mlflow(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairsweep.training.lane import Lane

    def broken(lane: Lane, index: torch.Tensor) -> None:
        raise RuntimeError("out of luck")

    diverged = train("optimizer=sgd", "optimizer.lr=1e30")
    paused = train("seed=1", "trainer.stop_epoch=1")
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "train_step", broken)
        failed = train("seed=2")
    statuses = {
        outcome.status.name: (run.info.status, run.data.tags["status"])
        for outcome in (diverged, paused, failed)
        for run in [train.run(outcome)]
    }
    assert statuses == {
        "diverged": ("FINISHED", "diverged"),
        "paused": ("KILLED", "paused"),
        "failed": ("FAILED", "failed"),
    }
    assert "the loss of step" in train.run(diverged).data.tags["reason"]
    logs = train.client.list_artifacts(train.run(failed).info.run_id, "record")
    assert "record/run.log" in {item.path for item in logs}


def test_values_that_are_not_finite_are_left_out(train: Trainer) -> None:
    outcome = train("optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every=1")
    assert any(line["train_loss"] is None for line in outcome.folder.journal())
    run = train.run(outcome)
    values = train.client.get_metric_history(run.info.run_id, "train/loss")
    assert values
    assert all(math.isfinite(metric.value) and metric.value < 1e300 for metric in values)


def test_a_resumed_run_goes_on_in_its_mlflow_run_and_tells_no_step_twice(train: Trainer) -> None:
    paused = train("trainer.stop_epoch=1")
    run_id = train.run(paused).info.run_id
    finished = train()
    run = train.run(finished)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert history(train.client, run_id, finished.folder) == journalled(finished.folder)


def test_an_upload_repeated_after_a_crash_doubles_nothing(train: Trainer) -> None:
    outcome = train()
    run_id = train.run(outcome).info.run_id
    # As if killed between the upload and our note of it.
    (outcome.folder.path / "tracking.json").unlink()
    marker = markers.pending(outcome.folder.path.parents[1]) / outcome.folder.signature
    marker.write_text(f"sqlite:///{outcome.folder.path.parents[1]}/mlflow.db")
    train()
    assert train.run(outcome).info.run_id == run_id
    assert history(train.client, run_id, outcome.folder) == journalled(outcome.folder)
    assert len(train.client.search_runs(["1"])) == 1


def test_a_model_is_not_logged_twice_by_a_repeated_upload(train: Trainer) -> None:
    outcome = train("tracking.log_model=all")
    run_id = train.run(outcome).info.run_id
    (outcome.folder.path / "tracking.json").unlink()
    train("tracking.log_model=all")
    outputs = train.client.get_run(run_id).outputs
    assert outputs is not None
    assert len(outputs.model_outputs) == 1


def test_a_late_upload_tells_of_the_run_and_not_of_the_command_that_uploads(
    train: Trainer, tmp_path: Path
) -> None:
    away = "tracking.uri=http://127.0.0.1:1"
    late = train(away, "optimizer=sgd", "optimizer.lr=0.3", "seed=7").folder
    train()
    assert markers.pending(tmp_path).joinpath(late.signature).exists(), "it waits for its own server"
    assert len(train.client.search_runs(["1"])) == 1
    markers.pending(tmp_path).joinpath(late.signature).write_text(f"sqlite:///{tmp_path}/mlflow.db")
    train()
    run = train.client.get_run(markers.read_state(late.path, f"sqlite:///{tmp_path}/mlflow.db")["run_id"])
    assert run.info.run_name == "mlp sgd lr=0.3 seed=7"
    assert run.data.tags["arm"] == "sgd"


def test_a_killed_run_that_is_trained_again_is_closed_in_mlflow(train: Trainer) -> None:
    paused = train("trainer.stop_epoch=1")
    old = train.run(paused).info.run_id
    train.client.update_run(old, status="RUNNING")
    paused.folder.set_status(name="running", ended=None, code="another")
    train()
    run = train.client.get_run(old)
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")
    assert run.data.tags["superseded"] == "true"


def test_a_run_that_begins_again_without_its_checkpoints_has_an_mlflow_run_of_its_own(train: Trainer) -> None:
    old = train.run(train("trainer.stop_epoch=1"))
    outcome = train("trainer.stop_epoch=1")
    for path in outcome.folder.path.glob("*.pt"):
        path.unlink()
    outcome = train()
    new = train.run(outcome)
    assert history(train.client, new.info.run_id, outcome.folder) == journalled(outcome.folder)
    old = train.client.get_run(old.info.run_id)
    assert (old.info.status, old.data.tags["superseded"]) == ("KILLED", "true")
    assert "superseded" not in new.data.tags


def test_a_superseded_run_is_tagged(train: Trainer) -> None:
    old = train.run(train())
    new = train.run(train("rerun=true"))
    assert new.info.run_id != old.info.run_id
    assert train.client.get_run(old.info.run_id).data.tags["superseded"] == "true"
    assert "superseded" not in new.data.tags


def test_only_lines_that_a_checkpoint_covers_are_uploaded(train: Trainer, compose: Compose) -> None:
    outcome = train("trainer.stop_epoch=1")
    covered = journalled(outcome.folder)
    outcome.folder.append({"step": 99, "epoch": 9.0, "train_loss": 1.0})
    outcome.folder.set_status(ended=time.time())
    assert tracking.sync(outcome.folder, compose(*QUICK), print)
    assert history(train.client, train.run(outcome).info.run_id, outcome.folder) == covered


def test_the_mlflow_model_gives_the_probabilities_of_predict(train: Trainer) -> None:
    outcome = train("tracking.log_model=auto")
    folder = outcome.folder
    run_id = train.run(outcome).info.run_id
    mlflow.set_tracking_uri(f"sqlite:///{folder.path.parents[1]}/mlflow.db")
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    images = build.data(folder.config()).test.inputs[:5].numpy().astype(np.float32)
    with torch.inference_mode():
        ours = build.predictor(folder.config(), folder.facts(), checkpoint.tested_weights(folder))(
            torch.from_numpy(images)
        )
    np.testing.assert_allclose(model.predict(images), ours.numpy(), rtol=1e-5, atol=1e-7)
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 1, 28, 28)
    example = model.input_example
    assert example is not None
    assert np.asarray(example).shape == (2, 1, 28, 28)
    requirements = Path(
        model.metadata.get_model_info().model_uri
        and mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model/requirements.txt")
    ).read_text()
    assert f"torch=={torch.__version__.split('+')[0]}" in requirements


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_models_predict_opens_the_model(train: Trainer, tmp_path: Path) -> None:
    outcome = train("tracking.log_model=auto")
    folder = outcome.folder
    images = build.data(folder.config()).test.inputs[:3].numpy().astype(np.float32)
    (tmp_path / "in.json").write_text(json.dumps({"inputs": images.tolist()}))
    subprocess.run(
        [
            sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "local",
            "-m", f"runs:/{train.run(outcome).info.run_id}/model",
            "-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json"),
        ],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        check=True,
        capture_output=True,
    )  # fmt: skip
    theirs = json.loads((tmp_path / "out.json").read_text())["predictions"]
    with torch.inference_mode():
        ours = build.predictor(folder.config(), folder.facts(), checkpoint.tested_weights(folder))(
            torch.from_numpy(images)
        )
    np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.timeout(600)
def test_a_server_that_is_away_costs_nothing_and_gets_all_from_the_next_command(
    train: Trainer, tmp_path: Path
) -> None:
    port = free_port()
    uri = f"tracking.uri=http://127.0.0.1:{port}"
    outcome = train(uri)
    assert outcome.status.name == "finished"
    assert "Nothing is lost" in train.output.getvalue()
    assert [marker.name for marker in markers.pending(tmp_path).iterdir()] == [outcome.folder.signature]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination", str(tmp_path / "served"),
    ]  # fmt: skip
    with serving(command, port, tmp_path / "server.log"):
        train(uri, "seed=1")
        client = MlflowClient(f"http://127.0.0.1:{port}")
        run = client.get_run(mlflow_id(outcome.folder))
        assert run.info.status == "FINISHED"
        assert history(client, run.info.run_id, outcome.folder) == journalled(outcome.folder)
        assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"record"}
        client.delete_run(run.info.run_id)
        assert tracking.sync(outcome.folder, train.compose(*QUICK, uri), print)
        again = client.get_run(mlflow_id(outcome.folder))
        assert again.info.run_id != run.info.run_id
        assert history(client, again.info.run_id, outcome.folder) == journalled(outcome.folder)
    assert not list(markers.pending(tmp_path).iterdir())


def test_a_marker_that_cannot_be_written_costs_neither_run_nor_upload(
    train: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if path.parent == markers.pending(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    outcome = train()
    assert outcome.status.name == "finished"
    assert tracking.sync(outcome.folder, train.compose(*QUICK), print)
    assert train.run(outcome).info.status == "FINISHED"
    assert "pending" in train.output.getvalue()


def test_an_upload_that_broke_off_early_is_made_whole(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("503")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_run, "describe", refuse)
        outcome = train()
    assert "could not be stored in sqlite:" in train.output.getvalue()
    run = train.run(train())
    assert run.data.params["seed"] == "0"
    assert len(run.inputs.dataset_inputs) == 1
    assert len(train.client.search_runs([run.info.experiment_id])) == 1
    assert run.data.tags["signature"] == outcome.folder.signature


def test_a_marker_that_another_process_takes_away_is_passed_over(train: Trainer, tmp_path: Path) -> None:
    markers.pending(tmp_path).mkdir()
    (markers.pending(tmp_path) / "0gone").symlink_to("nowhere")  # is listed, but cannot be read
    assert train().status.name == "finished"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_printed_command_opens_the_ui_on_the_run(train: Trainer, tmp_path: Path) -> None:
    outcome = train()
    port = free_port()
    command = tracking.ui_command(f"sqlite:///{tmp_path}/mlflow.db").split()
    assert "ui" in command
    with serving(command, port, tmp_path / "ui.log"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search",
            json.dumps({"experiment_ids": ["1"]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            (run,) = json.load(answer)["runs"]
    assert run["info"]["run_id"] == train.run(outcome).info.run_id


@pytest.mark.parametrize("processes", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_processes_that_open_a_store_that_does_not_exist_yet_all_succeed(
    tmp_path: Path, processes: int
) -> None:
    code = (
        "import sys; sys.path.insert(0, 'src'); from fairsweep.runs import store; "
        "client = store.connect(sys.argv[1], sys.argv[2]); print(len(client.search_experiments()))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    results = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * processes, results
    assert {output.strip() for output, _ in results} == {"1"}


def test_credentials_of_a_tracking_uri_are_written_nowhere(train: Trainer, tmp_path: Path) -> None:
    train("tracking.uri=http://somebody:hunter2@127.0.0.1:1")
    assert "hunter2" not in train.output.getvalue()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_tensorboard_files_hold_the_journal_and_the_graph(train: Trainer) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train("tracking.tensorboard=true").folder
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert events.Graph().node
    expected = {tracked(key): points for key, points in journalled(folder).items()}
    assert set(events.Tags()["scalars"]) == expected.keys()
    for key, points in expected.items():
        held = [(event.step, event.value) for event in events.Scalars(key)]
        assert held == [(step, pytest.approx(value, rel=1e-6)) for step, _, value in points]


def test_without_tracking_mlflow_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.path.insert(0, 'src'); sys.argv[0] = 'src/train.py'; "
        "runpy.run_path('src/train.py', run_name='__main__'); assert 'mlflow' not in sys.modules"
    )
    overrides = [override for override in QUICK if not override.startswith("tracking")]
    command = [sys.executable, "-c", code, f"record.dir={tmp_path}", "tracking=none", *overrides]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_a_run_that_an_earlier_version_began_to_upload_keeps_the_names_of_its_metrics(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(metrics, "tracked", str)
        outcome = train("trainer.stop_epoch=1")
    state = outcome.folder.path / "tracking.json"
    state.write_text(state.read_text().replace('"grouped": true', '"grouped": false'))
    before = train.run(outcome).data.metrics
    assert "val_accuracy" in before
    names = set(train.run(train()).data.metrics)
    assert before.keys() < names
    assert not any("/" in name for name in names)


def test_an_experiment_opens_as_one_of_models_unless_someone_chose_another_kind(train: Trainer) -> None:
    for name, kind in (("plain", None), ("chosen", "genai")):
        tags = {store.KIND: kind} if kind else {}
        train.client.create_experiment(name, tags=tags)
        train(f"tracking.experiment={name}", f"seed={len(name)}")
    kinds = [train.client.get_experiment_by_name(name).tags[store.KIND] for name in ("plain", "chosen")]
    assert kinds == ["custom_model_development", "genai"]
