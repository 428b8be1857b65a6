"""A team's tracking server: MLflow on PostgreSQL, which keeps the artifacts and wants a password."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import nothing
from mlflow import MlflowClient
from servers import ADMIN, PASSWORD, Postgres, Server, mlflow_server, postgres, postgresql
from test_sweep import FOUR, QUICK, Outputs, eager, empty_store, outputs

from fairsweep.config import ROOT, ConfigError
from fairsweep.runs import store, uploader

__all__ = ["empty_store", "outputs"]  # fixtures

GRID = (*QUICK, "tracking=server", "optimizer=sgd", "optimizer.lr=0.1,0.01")


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    if postgresql() is None:
        pytest.skip("no PostgreSQL here (Debian: postgresql)")
    with postgres() as made:
        yield made


@pytest.fixture
def team(database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server; this process may read it."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with mlflow_server(tmp_path, database.new_database(), auth=True) as made:
        yield made


class As:
    """A command's environment, and what is changed in it."""

    def __init__(self, team: Server, password: str, change: Callable[[], None] = nothing) -> None:
        self.uri, self.password, self.change = team.uri, password, change

    def __call__(self) -> None:
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        os.environ["MLFLOW_TRACKING_USERNAME"] = ADMIN
        os.environ["MLFLOW_TRACKING_PASSWORD"] = self.password
        self.change()


def impatient() -> None:
    """Uploads often, and soon again after a failure."""
    eager()
    uploader.RETRY_SECONDS = 0.5


class Served(Outputs):
    """Outputs whose runs are on a server."""

    def __init__(self, path: Path, uri: str) -> None:
        super().__init__(path)
        self.uri = uri

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)


@pytest.fixture
def served(outputs: Outputs, team: Server) -> Served:
    made = Served(outputs.path, team.uri)
    made.commands = outputs.commands  # which end with the test
    return made


@pytest.mark.slow
def test_a_sweep_is_on_the_server_whole_and_the_password_nowhere(served: Served, team: Server) -> None:
    served.sweep(*GRID, "record.pictures=all", before=As(team, PASSWORD))
    served.assert_tracked()
    tracked = served.tracked
    for name, run in tracked.items():
        kept = {item.path for item in served.client.list_artifacts(run.info.run_id)}
        assert kept == (
            {"record", "pictures"} if name in served.runs else {"sweep.json", "table.csv", "plan.jsonl"}
        )
        assert PASSWORD not in str(run.to_dictionary())
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    held = [
        p for folder in (served.path, team.folder / "artifacts") for p in folder.rglob("*") if p.is_file()
    ]
    assert len(held) > 40
    assert not [path for path in held if PASSWORD.encode() in path.read_bytes()]
    said = served.commands[-1].wait()
    assert PASSWORD not in said.stdout + said.stderr
    assert "View run" not in said.stdout


@pytest.mark.slow
def test_a_password_that_is_refused_is_told_once_and_the_right_one_makes_it_good(
    served: Served, team: Server
) -> None:
    answer = served.sweep(*GRID, before=As(team, "wrong"))
    assert answer.stdout.count(f"tracking.uri={team.uri}: the server refuses the credentials; MLFLOW_") == 1
    assert "Nothing is lost" in answer.stdout
    answer = served.sweep(*GRID, before=As(team, PASSWORD))
    assert "2 finished; 2 reused" in answer.stdout
    served.assert_tracked()


@pytest.mark.slow
def test_a_server_and_a_database_that_die_in_the_middle_cost_nothing(
    served: Served, team: Server, database: Postgres
) -> None:
    words = (*FOUR, "tracking=server", "trainer.epochs=60", "scheduler=constant")
    command = served.start(*words, before=As(team, PASSWORD, impatient))
    served.wait_for_lines(60)
    team.kill()
    time.sleep(1)
    team.start()
    served.wait_for_lines(500)
    database.stop()
    time.sleep(2)
    database.start()
    assert command.wait().status == 0
    served.sweep(*words, before=As(team, PASSWORD))
    served.assert_tracked()


class OldServer(BaseHTTPRequestHandler):
    """All that is asked of an MLflow of long ago before it is left alone."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(b"1.30.0")

    def log_message(self, *args: Any) -> None:
        pass


def test_a_server_of_another_mlflow_is_named(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), OldServer) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        with pytest.raises(ConfigError, match=r"its MLflow is 1\.30\.0, the one here 3\."):
            store.connect(f"http://127.0.0.1:{old.server_port}", str(tmp_path))
        old.shutdown()


def test_the_preset_takes_the_address_from_the_environment() -> None:
    command = [sys.executable, "src/train.py", "tracking=server", "--cfg", "job", "-p", "tracking"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}

    def uri(env: dict[str, str]) -> str:
        said = subprocess.run(
            [*command, "--resolve"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        return said.stdout.splitlines()[1]

    assert uri(env) == "uri: http://127.0.0.1:5000"
    assert uri(env | {"MLFLOW_TRACKING_URI": "https://there"}) == "uri: https://there"
