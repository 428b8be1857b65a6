"""The process that uploads: training never waits for it, and nothing is lost where it is cut short."""

import os
import resource
import signal
import socket
from pathlib import Path

import pytest
from conftest import Compose
from test_sweep import QUICK as SWEEP
from test_sweep import Outputs, outputs
from test_tracking import QUICK, Trainer, empty_store, train

from fairsweep.runs import markers, tracking, uploader

__all__ = ["empty_store", "outputs", "train"]  # fixtures


@pytest.mark.timeout(180)
def test_a_process_of_its_own_uploads_run_and_model_whatever_the_environment_says(
    train: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    folder = train("tracking=none").folder
    cfg = train.compose(*QUICK)
    values = folder.config()
    values.tracking.log_model = "all"
    folder.write_config(values)
    notes: list[str] = []
    with uploader.running(notes.append) as is_outermost:
        assert is_outermost
        with uploader.running(print) as is_outermost:
            assert not is_outermost
        uploader.sync(folder, cfg, notes.append)
        assert uploader.flush(cfg)
        assert uploader.flush(cfg)
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert not list((tmp_path / "tmp").iterdir())  # also where it was cut short
    assert all(note.startswith("uploading 1 record to sqlite:") for note in notes)
    run = train.client.get_run(markers.read_state(folder.path, cfg.tracking.uri)["run_id"])
    assert run.info.status == "FINISHED"
    assert run.outputs is not None
    assert len(run.outputs.model_outputs) == 1
    assert not list(markers.pending(folder.path.parents[1]).iterdir())


def test_what_a_killed_uploader_leaves_the_next_command_uploads(train: Trainer, tmp_path: Path) -> None:
    folder, cfg, notes = train("tracking=none").folder, train.compose(*QUICK), list[str]()
    with uploader.running(notes.append):
        uploader.sync(folder, cfg, notes.append)
        process = uploader.current[0].process
        assert process is not None
        process.kill()
        process.wait()
        assert not uploader.flush(cfg)
    assert notes[-1] == "the process that uploads has died; the next command uploads what is missing"
    assert tracking.summary(cfg)[1] == ("to upload", "1 record; the next command does it")
    assert tracking.sync_pending(str(tmp_path), cfg, notes.append)
    assert len(train.client.search_runs(["1"])) == 1


def test_no_thread_listens_while_python_shuts_down(compose: Compose, tmp_path: Path) -> None:
    """Python ends such a thread in whatever it does, which aborted one command in five."""
    with uploader.running(print):
        uploader.current[0].send(compose(), "start", tmp_path)
        listener = uploader.current[0].listener
    assert listener is not None
    assert not listener.is_alive()


def test_where_no_process_can_be_started_training_goes_on_and_the_next_command_uploads(
    train: Trainer, tmp_path: Path
) -> None:
    folder, cfg, notes = train("tracking=none").folder, train.compose(*QUICK), list[str]()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    with uploader.running(notes.append):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 4, limits[1]))
        try:
            uploader.start(cfg, single=True)
            uploader.sync(folder, cfg, notes.append)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not uploader.flush(cfg)
    assert notes == ["this command uploads nothing, the next one will: Too many open files"]
    assert tracking.summary(cfg)[1] == ("to upload", "1 record; the next command does it")
    assert tracking.sync_pending(str(tmp_path), cfg, notes.append)


def test_a_wait_for_what_was_asked_for_before_counts_no_records(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "SILENT_SECONDS", 0.0)
    cfg, notes = compose(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"), list[str]()

    def note(text: str) -> None:
        notes.append(text)
        process = uploader.current[0].process
        assert process is not None
        process.kill()

    with uploader.running(note):
        uploader.current[0].send(cfg, "start", tmp_path, model=False)
        assert not uploader.flush(cfg)
    assert notes[0].startswith(f"uploading the rest to sqlite:///{tmp_path}")


@pytest.mark.parametrize("sweep", [False, True])
def test_a_server_that_hangs_holds_up_no_training_and_ctrl_c_ends_the_wait_for_it(
    outputs: Outputs, sweep: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepts, and never answers
        uri = f"tracking.uri=http://127.0.0.1:{hanging.getsockname()[1]}"
        words = (*SWEEP, uri, "seed=range(2)") if sweep else (*SWEEP, uri, "record.pictures=none")
        command = outputs.start(*words, single=not sweep)
        while "Ctrl-C leaves that to the next command" not in command.stdout:
            assert command.process.is_alive(), command.wait()
            command.process.join(0.05)
        assert outputs.statuses == {"finished": 2 if sweep else 1}
        command.send(signal.SIGINT)
        answer = command.wait()
    assert (answer.status, answer.stderr) == (130, "interrupted\n")
    assert f"to upload  {3 if sweep else 1} record" in answer.stdout
    assert "status     finished" in answer.stdout
    assert answer.stdout.count("uploading") == 1  # the sweep's report is not waited for again
    assert "has died" not in answer.stdout
