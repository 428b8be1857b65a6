"""A tracking store: which URIs name one, how to reach it, and whether it still has a run."""

import logging
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from filelock import FileLock

from fairsweep.config import ConfigError, sqlite_uri, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported. A server that does not answer is asked again later, not for minutes
# within one call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Two lines for each run of a sweep.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

Note = Callable[[str], None]

# The ports of the stores that a network connects to.
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
ALLOWED = (
    "sqlite:///<path of a file>, http://<host>:<port>, https://<host>, or a database such as "
    "postgresql://<user>:<password>@<host>/<name>; for example sqlite:////home/you/mlflow.db"
)
# Without this tag MLflow opens an experiment as one of conversations.
KIND = "mlflow.experimentKind"
CONNECT_SECONDS = 3.0

# The most that MLflow takes in one request, and of the text of a parameter and of a tag.
METRICS, PARAMS, TAGS, PARAM_LENGTH, TAG_LENGTH = 1000, 100, 100, 6000, 8000


class Outage(Exception):
    """The store does not answer, or refuses us: nothing can be uploaded now."""


# URIs


def check(uri: str | None) -> None:
    """Check a `tracking.uri`, without asking the store.

    Raises:
        ConfigError: it names no store that is supported.
    """
    if uri is None:
        return
    if problem := mistake(uri):
        raise ConfigError(f"tracking.uri={without_credentials(uri)}: {problem}; must be {ALLOWED}")


def mistake(uri: str) -> str:
    """What is wrong with a URI; empty where nothing is."""
    if uri.startswith("sqlite:"):
        return mistake_of_file(database_file(uri))
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme.partition("+")[0] not in PORTS:
        return "is not a supported tracking store"
    with suppress(ValueError):
        parts = urlsplit(uri)
        if not (parts.scheme.startswith("http") and not parts.hostname):
            return "" if parts.port is None or parts.port else "has a wrong port"
    hint = " (in a password, write %2F for /, %3F for ? and %23 for #)" if "@" in uri else ""
    return f"has a wrong host or port{hint}"


def mistake_of_file(file: Path | None) -> str:
    """Why there can be no SQLite database here; empty where there can."""
    if file is None:
        return "does not name a file"
    try:
        if file.is_dir():
            return "is a folder"
        if file.exists() and file.stat().st_size and file.open("rb").read(15) != b"SQLite format 3":
            return "is not an SQLite database"
        parent = next(parent for parent in file.parents if parent.exists())
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if parent.is_dir() else f"{parent} is not a folder"


def database_file(uri: str) -> Path | None:
    """The file of an SQLite database, as an absolute path without links; None for other stores."""
    if not uri.startswith("sqlite:///"):
        return None
    path = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    return Path(path).resolve() if path and path != ":memory:" else None


def name(uri: str) -> str:
    """The store of a URI, by one text however it is spelled; without credentials and settings of SQLite."""
    file = database_file(uri)
    if file is not None:
        return sqlite_uri(str(file))
    return without_credentials(uri).rstrip("/")


def address(uri: str) -> str:
    """The URI as SQLAlchemy and MLflow take it."""
    file = database_file(uri)
    if file is None:
        return uri
    settings = uri[uri.find("?") :] if "?" in uri else ""
    decodes = tuple(map(int, version("sqlalchemy").split(".")[:2])) >= (2, 1)
    return (sqlite_uri(str(file)) if decodes else f"sqlite:///{file}") + settings


# Reaching it


def connect(uri: str, outputs: str) -> "MlflowClient":
    """A client of a store that answers; a database is made if there is none yet.

    Raises:
        ConfigError: a server has an incompatible MLflow, or does not let us in.
        ConnectionError: it does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils

    for logger in ("mlflow", "alembic", "urllib3"):  # after the import, which sets the first of them
        logging.getLogger(logger).setLevel(logging.ERROR)
    internals: Any = utils
    internals.MAX_RETRY_COUNT = 1  # else it tries for minutes to open a database
    internals._make_parent_dirs_if_sqlite = (
        str  # makes folders with %20 in their names; we make the right ones
    )
    ping(uri)
    # Several processes that create one database at once destroy it, and so does a kill.
    locks = Path(outputs) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "mlflow.lock"):
        file = database_file(uri)
        is_new = file is not None and not file.exists()
        if file is not None and is_new:
            create_database(file, outputs)
        client = MlflowClient(address(uri))
        if file is not None and is_new:  # MLflow may still have the one that was there before
            client._tracking_client.store.engine.dispose()
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


def ping(uri: str) -> None:
    """Connect once to the host of a store, because its own clients try for minutes.

    Raises:
        ConnectionError: nothing answers there.
    """
    if database_file(uri) is not None:
        return
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    host = parts.hostname
    if host is None:  # a socket of this machine
        return
    if scheme in getproxies() and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, parts.port or PORTS[scheme]), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError("does not answer") from error


def check_version(uri: str) -> None:
    """
    Raises:
        ConfigError: the server has an incompatible MLflow.
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
    make(address(sqlite_uri(str(part))), (Path(outputs) / "artifacts").as_uri()).engine.dispose()
    part.replace(file)


# What it has


class Store:
    """A store that answered.

    Raises:
        Outage: it does not answer, or refuses us.
    """

    def __init__(self, uri: str, outputs: Path) -> None:
        self.uri, self.outputs, self.name = uri, outputs, name(uri)
        try:
            self.client = connect(uri, str(outputs))
        except Exception as error:  # whatever it is, nothing can be uploaded
            raise Outage(reason(error, uri)) from error
        self.file = identity(uri)

    def experiment(self, name: str, note: Note) -> str:
        """The id of the experiment of this name; made if there is none, restored if it was deleted."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            artifacts = None
            if not self.uri.startswith(("http:", "https:")):
                folder = self.outputs / "artifacts"
                folder.mkdir(parents=True, exist_ok=True)
                artifacts = folder.as_uri()
            try:
                self.client.create_experiment(name, artifacts)
            except MlflowException:  # another process was first
                if self.client.get_experiment_by_name(name) is None:
                    raise
            found = self.client.get_experiment_by_name(name)
            assert found is not None
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
            note(f"tracking.experiment={name}: had been deleted in MLflow; restored, with its runs")
        if KIND not in found.tags:
            self.client.set_experiment_tag(found.experiment_id, KIND, "custom_model_development")
        return str(found.experiment_id)

    def has(self, run_id: str) -> bool:
        """Whether a run is there, and not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def is_away(self, error: BaseException) -> bool:
        """Whether an error means that the store does not answer, rather than that it refused one record."""
        if getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE":  # as a database that is locked
            return True
        try:
            ping(self.uri)
            self.client.search_experiments(max_results=1)
        except Exception:  # whatever it is, the next record would meet it, too
            return True
        return False


stores: dict[tuple[str, Path], Store] = {}


def opened(uri: str, outputs: Path) -> Store:
    """The store of a URI. A database file that was removed or replaced meanwhile is opened anew.

    Raises:
        Outage: it does not answer, or refuses us.
    """
    known = stores.get((uri, outputs))
    if known is not None and known.file == identity(uri):
        return known
    if known is not None:
        known.client._tracking_client.store.engine.dispose()
    stores[uri, outputs] = Store(uri, outputs)
    return stores[uri, outputs]


def identity(uri: str) -> tuple[int, int] | None:
    """Tells a database file from another one at the same path; None for a server, or if there is none."""
    file = database_file(uri)
    try:
        found = file.stat() if file is not None else None
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None


def has_run(uri: str, run_id: str) -> bool | None:
    """Whether an SQLite database has a run, asked without MLflow; None where that cannot be known so."""
    file = database_file(uri)
    if file is None:
        return None
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", timeout=0, uri=True)) as database:
            query = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
            return database.execute(query, [run_id]).fetchone() is not None
    except sqlite3.Error:  # in use, or another version's
        return None


def reason(error: BaseException, uri: str) -> str:
    """What an error says, in one line, without credentials."""
    text = " ".join(without_credentials(str(error), uri).split())
    kind = "" if isinstance(error, ConfigError | Outage | ConnectionError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:300] or type(error).__name__
