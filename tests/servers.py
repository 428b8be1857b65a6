"""Servers for tests: MLflow's, and PostgreSQL behind it as a team has it; started, stopped and killed."""

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ADMIN, PASSWORD = "admin", "hunter2-of-the-team"


def postgresql() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def free_port() -> int:
    """Outside of what the kernel gives to whom asks for any port, and of what Ray takes."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A command of MLflow's that serves on this port, until the block ends."""
    # Workers for what is not needed here start as slowly as the server itself.
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"],
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_for(process, f"http://127.0.0.1:{port}", log)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    """Until this MLflow server answers."""
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


class Postgres:
    """A cluster of databases in a folder of its own. PostgreSQL does not run as root."""

    def __init__(self) -> None:
        programs = postgresql()
        assert programs is not None
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # which its user must reach
        self.as_user: list[str] = []
        self.user = getpass.getuser()
        if os.getuid() == 0:
            self.user = "postgres"
            self.as_user = ["runuser", "-u", self.user, "--"]
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.run("initdb", "--auth=trust", "--encoding=UTF8", "--no-sync", "--pgdata", str(self.data))
        self.start()
        self.databases = 0

    def new_database(self) -> str:
        """The URI of an empty one."""
        self.databases += 1
        name = f"mlflow{self.databases}"
        self.run("createdb", "--host=127.0.0.1", f"--port={self.port}", name)
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{name}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, program: str, *words: str) -> None:
        command = [*self.as_user, str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd="/tmp", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        )
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "--wait", "--pgdata", str(self.data), "--log", log, "--options", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "--wait", "--mode=immediate", "--pgdata", str(self.data))

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):  # it is stopped
            self.stop()
        shutil.rmtree(self.folder)


class Server:
    """An MLflow server that keeps artifacts itself."""

    def __init__(self, folder: Path, backend: str, auth: bool = False, workers: int = 1) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", str(workers),
            "--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
        # Workers for what is not needed here start as slowly as the server itself.
        self.env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        if auth:
            self.command += ["--app-name", "basic-auth"]
            settings = folder / "auth.ini"
            settings.write_text(
                "[mlflow]\ndefault_permission = EDIT\n"
                f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = {ADMIN}\n"
                f"admin_password = {PASSWORD}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
            self.env |= {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.process, self.uri, self.folder / "server.log")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def postgres() -> Iterator[Postgres]:
    made = Postgres()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def mlflow_server(folder: Path, backend: str, auth: bool = False, workers: int = 1) -> Iterator[Server]:
    made = Server(folder, backend, auth, workers)
    try:
        yield made
    finally:
        made.kill()
