"""What a report reads from MLflow: sweeps, their runs, and the curves of the runs it shows."""

import csv
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairsweep.compare.load import UNREADABLE
from fairsweep.config import ConfigError, without_credentials
from fairsweep.runs import store
from fairsweep.sweeps.folder import Row, SweepFolder
from fairsweep.wording import described

if TYPE_CHECKING:
    from mlflow.entities import Run

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# The most runs in one answer; and for curves, the most runs, and values of each.
PAGE, RUNS, VALUES = 5000, 100, 2500
KINDS = {"arms": dict, "counts": dict, "sampler": str, "name": str, "command": str}
HISTORIES = "/api/2.0/mlflow/metrics/get-history-bulk-interval"


class MlflowRuns:
    """A tracking store to read from.

    Args:
        uri: as `tracking.uri`.
        directory: `record.dir`, which holds the locks.

    Raises:
        ConfigError: here and in all methods: the store is not there or does not answer.
    """

    def __init__(self, uri: str, directory: str) -> None:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.errors = (MlflowException, SQLAlchemyError, OSError)
        self.name = without_credentials(uri)
        self.is_server = uri.startswith(("http:", "https:"))
        file = store.database_file(uri)
        if file is not None and not file.exists():
            raise ConfigError(f"tracking.uri={self.name}: no such database; train something first")
        try:
            self.client = store.connect(uri, directory)
            self.experiments = {e.experiment_id: e.name for e in self.client.search_experiments()}
        except self.errors as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> ConfigError:
        text = without_credentials(str(error)) or type(error).__name__
        reason = "does not answer" if "Max retries exceeded" in text else text.splitlines()[0][:200]
        question = "is it an MLflow database"
        if self.is_server or isinstance(error, ConnectionError):
            question = f"is the {'tracking' if self.is_server else 'database'} server running"
        return ConfigError(f"tracking.uri={self.name}: {reason}; {question}?")

    def search(self, where: str, experiment: str | None = None, at_most: int | None = None) -> "list[Run]":
        """Runs that MLflow's filter string finds, the newest first, in one experiment or in all.

        Raises:
            ConfigError: MLflow cannot read the filter, or knows no such experiment.
        """
        names = {name: number for number, name in self.experiments.items()}
        if experiment is not None and experiment not in names:
            raise ConfigError(f"experiment={experiment}: must be one of {', '.join(sorted(names))}")
        within = list(self.experiments) if experiment is None else [names[experiment]]
        found: list[Run] = []
        token = None
        try:
            while True:
                page = self.client.search_runs(
                    within,
                    where,
                    max_results=at_most or PAGE,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                found += page
                token = page.token
                if not token or at_most is not None:
                    return found
        except self.errors as error:
            if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
                raise ConfigError(f"filter={where}: {str(error).splitlines()[0]}") from error
            raise self.away(error) from error

    def definition(self, parent: "Run") -> tuple[dict[str, Any], list[Row]]:
        """The `sweep.json` and the plan of a sweep's parent run, each empty where there is none (yet)."""
        run_id = parent.info.run_id
        try:
            there = {file.path for file in self.client.list_artifacts(run_id)}
            with tempfile.TemporaryDirectory(prefix="fairsweep-") as goal:
                for name in {"sweep.json", "plan.jsonl", "table.csv"} & there:
                    self.client.download_artifacts(run_id, name, goal)
                return definition_in(Path(goal)), plan_in(Path(goal))
        except self.errors as error:
            raise self.away(error) from error

    def histories(self, runs: Sequence[str], keys: Sequence[str]) -> "Iterator[dict[str, Any]]":
        """Every value of these metrics, in their order: `run_id`, `key`, `step`, `timestamp` (ms), `value`.

        `MlflowClient.get_metric_history` would do, but it is a request for each run and key, and in SQLite it
        reads that key's values of all runs of the store, a tenth of a second with 10,000 runs. Asked for an
        interval of steps, SQLite takes the right index, and a server answers for a hundred runs at once.
        """
        chunks = [runs[first : first + RUNS] for first in range(0, len(runs), RUNS)]
        wanted = [(list(chunk), key) for chunk in chunks for key in keys]
        try:
            # A server may have several workers; a database file is read no faster by several threads.
            with ThreadPoolExecutor(4 if self.is_server else 1) as pool:
                for values in pool.map(self.history, wanted):
                    yield from values
        except self.errors as error:
            raise self.away(error) from error

    def history(self, wanted: tuple[list[str], str]) -> list[dict[str, Any]]:
        """All values of one metric in up to `RUNS` runs."""
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        runs, key = wanted
        store = self.client._tracking_client.store
        if not self.is_server:
            found = store.get_metric_history_bulk_interval(runs, key, sys.maxsize, 0, sys.maxsize)
            return [value.to_dict() for value in found]
        interval = {"start_step": 0, "end_step": 2**31 - 1, "max_results": VALUES}
        asked = {"run_ids": runs, "metric_key": key, **interval}
        ask: Callable[..., Any] = http_request  # MLflow leaves it untyped
        answer = ask(store.get_host_creds(), HISTORIES, "GET", params=asked)
        values: list[dict[str, Any]] = verify_rest_response(answer, HISTORIES).json().get("metrics", [])
        # Of a longer history than that, the server gives a sample.
        cut = [run for run, count in Counter(v["run_id"] for v in values).items() if count >= VALUES]
        values = [value for value in values if value["run_id"] not in cut]
        whole = ((run, value) for run in cut for value in self.client.get_metric_history(run, key))
        return values + [{**dict(value), "run_id": run} for run, value in whole]


def definition_in(folder: Path) -> dict[str, Any]:
    """The `sweep.json` in a folder; empty where there is none that is readable.

    It may be any version's, so that only what a report builds on has to be of its kind.
    """
    try:
        content = json.loads((folder / "sweep.json").read_bytes())
        return {key: value for key, value in content.items() if isinstance(value, KINDS.get(key, object))}
    except (OSError, *UNREADABLE):
        return {}


def plan_in(folder: Path) -> list[Row]:
    """The plan in a folder, by `plan.jsonl`, else by its table; empty where neither is readable."""
    try:
        return SweepFolder(folder, folder).rows()
    except (OSError, *UNREADABLE):
        pass
    try:
        with (folder / "table.csv").open(newline="") as file:
            return [planned(line) for line in csv.DictReader(file)]
    except (OSError, *UNREADABLE):
        return []


def planned(line: dict[str, str]) -> Row:
    """A row of the plan out of a line of `table.csv`, whose columns of values stand behind `seed`."""
    keys = list(line)
    keys = keys[keys.index("seed") + 1 : keys.index("status")]
    values = {key: line[key] for key in keys if line[key]}
    name = " ".join(f"{line['arm']} {described(values)} seed={line['seed']}".split())
    numbers = int(line["trial"]), line["phase"], int(line["seed"])
    return Row(line["signature"], name, line["arm"], *numbers, values)
