"""How a run stands: the content of its `status.json`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from fairsweep import config
from fairsweep.config import BOOLEAN, TEXT, Rule, integer, one_of, or_null
from fairsweep.metrics import Metric, is_known, metric_of
from fairsweep.runs.schema import (
    ANY_TEXT,
    COUNT,
    JUDGING,
    MAPPING,
    NUMBER,
    SIGNATURE,
    Damaged,
    check,
    read_json,
)

Name = Literal["waiting", "running", "finished", "diverged", "failed", "paused", "pruned", "interrupted"]

# Those that a file may have: a run that has not begun has no file.
RECORDED = get_args(Name)[1:]
FINAL = ("finished", "diverged")

# Why the weights of a run that had kept some are gone.
REMOVED = ("record.keep=auto", "runs.py clean")

# The fingerprint of data that were not read, as the run had failed before.
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """How a run stands.

    Attributes:
        name: "status" in the file; `waiting` if the run has not begun.
        started, resumed, ended: seconds since 1970.
        journal_bytes: of the journal, those that a checkpoint covers.
        single: it was asked for alone, not by a sweep.
        trained_by: the command of a sweep that trains it, or did last.
        sweep: the first sweep that asked for it.
        objective: at the tested weights; None unless it finished, with validation.
        judge: the test figure that compares it, `test_accuracy`. metrics: of its configuration.
        test: figures of the tested weights, by metric; in the file `test_accuracy` and so on.
        code, data: hashes of what trains, and of what it trains on.
        shared: whether other runs trained beside it, so that `seconds` are shares.
        steps: of the whole run. step, epoch, seconds: done so far.
        weights: `undecided`, `kept` or `champion` in a sweep with `record.keep=auto`; or why they are gone.
    """

    name: Name = "waiting"
    reason: str = ""
    signature: str = ""
    started: float = 0.0
    resumed: float = 0.0
    ended: float | None = None
    journal_bytes: int = 0
    single: bool = False
    trained_by: str | None = None
    sweep: str | None = None
    objective_key: str = "val_accuracy"
    objective: float | None = None
    judge: str = "test_accuracy"
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    code: str = ""
    data: str = UNKNOWN
    device: str = ""
    precision: str = ""
    threads: int = 1
    hostname: str = ""
    command: str = ""
    git: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    shared: bool = False
    steps: int | None = None
    step: int = 0
    seconds: float | None = None
    epoch: int = 0
    best_epoch: int | None = None
    test: dict[str, float] = dataclasses.field(default_factory=dict)
    weights: str | None = None

    @property
    def has_begun(self) -> bool:
        return self.name != "waiting"

    @property
    def is_final(self) -> bool:
        """Whether the run ended for good."""
        return self.name in FINAL

    @property
    def ranked_objective(self) -> float | None:
        """The objective as sweeps rank it: the worst there is if it diverged, None if it is not final."""
        if self.name == "diverged":
            return self.selected.worst
        return self.objective if self.is_final else None

    @property
    def selected(self) -> Metric:
        """The objective's metric."""
        return metric_of(self.objective_key, self.metrics)

    @property
    def tested(self) -> Metric:
        """The judge's metric."""
        return metric_of(self.judge, self.metrics)

    @property
    def judged(self) -> float | None:
        """What a comparison judges it by; None unless it finished, with test data."""
        return self.test.get(self.tested.name)

    def text(self) -> str:
        """The content of the file; entries that are not known yet are left out."""
        values = dataclasses.asdict(self)
        values |= {f"test_{name}": value for name, value in values.pop("test").items()}
        known = {key: value for key, value in values.items() if value is not None or key in RULES}
        return json.dumps({"status": known.pop("name"), **known}, indent=1, allow_nan=False)


RULES: Mapping[str, Rule] = {
    "status": one_of(*RECORDED),
    "signature": SIGNATURE,
    "started": NUMBER,
    "resumed": NUMBER,
    "ended": or_null(NUMBER),
    "journal_bytes": COUNT,
    "single": BOOLEAN,
    "trained_by": or_null(ANY_TEXT),
    "sweep": or_null(ANY_TEXT),
    "objective_key": config.RULES["objective"],
    "objective": or_null(NUMBER),
    "code": TEXT,
    "data": ANY_TEXT,
    "device": TEXT,
    "precision": TEXT,
    "threads": integer(1),
    "shared": or_null(BOOLEAN),  # records from before lack it
    "hostname": ANY_TEXT,
    "command": ANY_TEXT,
    "git": MAPPING,
    "versions": MAPPING,
}
# What a status says besides, once a run trains, or has ended.
PROGRESS: Mapping[str, Rule] = {"steps": integer(1), "step": COUNT, "seconds": NUMBER}
OPTIONAL: Mapping[str, Rule] = {
    **PROGRESS,
    "shared": BOOLEAN,
    "weights": one_of("undecided", "kept", "champion", *REMOVED),
    **JUDGING,
}
ENDING: Mapping[str, Rule] = {"ended": NUMBER, "reason": ANY_TEXT}
FINAL_FIGURES: Mapping[str, Rule] = {
    **PROGRESS,
    "epoch": COUNT,
    "best_epoch": or_null(integer(1)),
}


def read_status(path: Path) -> Status:
    """A run's `status.json`.

    Raises:
        Damaged: it cannot be read, or lacks something.
        FileNotFoundError: there is no such file.
    """
    content = read_json(path, RULES)
    if content["status"] != "running":
        check(path, content, ENDING)
    if content["status"] in FINAL:
        check(path, content, FINAL_FIGURES)
    check(path, content, {key: rule for key, rule in OPTIONAL.items() if key in content})
    check(path, content, {key: or_null(NUMBER) for key in content if key.startswith("test_")})
    status = status_of(content)
    for key in (status.objective_key, status.judge):
        if not is_known(key, status.metrics):
            raise Damaged(f"{path}: is damaged: {key} is of no metric")
    return status


def status_of(content: Mapping[str, Any]) -> Status:
    """The status of a file's content."""
    fields = {field.name for field in dataclasses.fields(Status)}
    known = {key: value for key, value in content.items() if key in fields}  # later versions may write more
    own = content.get("metrics", {})
    keys = [key for key in content if key.startswith("test_") and is_known(key, own)]
    test = {key.removeprefix("test_"): content[key] for key in keys if content[key] is not None}
    return Status(**{**known, "name": content["status"], "test": test})
