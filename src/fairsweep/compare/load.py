"""The tables behind a report, assembled the same way for every source of runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from fairsweep.config import NOT_IN_SIGNATURE, ConfigError, nearest
from fairsweep.metrics import KNOWN, SPLIT, Criteria, Metric, criteria, is_known, metric_of, ordered
from fairsweep.sweeps.folder import Row
from fairsweep.wording import counted, printable

ORIGIN = ("signature", "device", "precision", "hostname", "commit", "code", "data", "versions")
ENDED = ("finished", "diverged", "failed", "pruned")
# PlannedRun runs without a record: not started yet, or lost.
UNRECORDED = ("waiting", "missing")

# What raises where a text, as of a tag, is not what it should be.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)

# The columns of `Tables.runs` but for those of metrics, with their values where nothing is known.
UNKNOWN: dict[str, Any] = {
    "sweep": "", "arm": "", "trial": 0, "phase": "search", "seed": 0, "values": {}, "status": "unknown",
    "reason": "", "objective": math.nan, "seconds": math.nan, "shared": False, "started": math.nan,
    "reused": False, "run": "", "experiment": "", "name": "", **dict.fromkeys(ORIGIN, "unknown"), "dirty": "",
}  # fmt: skip
CURVES = ["run", "step", "seconds"]


@dataclass(frozen=True)
class Tables:
    """What a report is made of.

    Attributes:
        runs: a row for each role of a run in a sweep, with the columns `UNKNOWN`: `phase` is search or
            confirm; `values` what the trial set (key -> text); `val_loss` and other metrics the last ones;
            `objective`, `test_loss` and other metrics those of the end; `seconds` of training, and whether
            other runs trained in them, too (`shared`); `started` a unix time; `reused`: trained for another
            sweep; `run`: MLflow's run id, or the signature of a run that MLflow does not have; `experiment`:
            MLflow's, empty where there is no run to link to.
        params: the runs' configurations: a row for each run, a column for each dotted key, as text.
        curves: gives, for values of `run`, a row per run and epoch: `run`, `step`, `seconds` (of training so
            far), `val_loss`, and other metrics of validation.
        objective: what selects: `val_accuracy`. judge: what compares the arms: `test_accuracy`.
        own: what the configuration says of metrics.
        sweeps: the sweeps' `sweep.json`, newest first; none where the runs were found by other means.
        what: the title, which names the request.
        uri: of the tracking store, without credentials; empty if there is none.
        missing: which planned runs have no record, and what to do; empty where none is missing.
        notes: what the reader has to know of how the tables were made.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    curves: Callable[[Sequence[str]], pd.DataFrame]
    objective: str
    judge: str = "test_accuracy"
    own: Mapping[str, Any] = field(default_factory=dict)
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    what: str = ""
    uri: str = ""
    missing: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def metric(self) -> Metric:
        """The objective's."""
        return metric_of(self.objective, self.own)

    @property
    def tested(self) -> Metric:
        """The judge's."""
        return metric_of(self.judge, self.own)

    def metrics(self) -> list[str]:
        """The names of all metrics, what judges first, the loss last."""
        keys = (str(key) for key in self.runs if SPLIT.match(str(key)))
        found = (metric_of(key, self.own).name for key in keys if is_known(key, self.own))
        return ordered([self.metric.name, *found], self.tested.name)


def of_plan(
    plan: Sequence[Row], records: Mapping[str, Sequence[dict[str, Any]]], sweep: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row of `Tables.runs` for each row of a sweep's plan, or several where several stores have the run.

    Args:
        records: what is recorded of a run, by signature.
    """
    status = "waiting" if sweep["status"] == "running" else "missing"
    return [
        UNKNOWN | record | {"sweep": sweep["id"], **row._asdict()}
        for row in plan
        for record in records.get(row.signature) or [{"run": row.signature, "status": status}]
    ]


def what_is_missing(rows: Sequence[Mapping[str, Any]], where: str, remedy: str) -> str:
    """Which runs of a sweep have no record, in a sentence; empty where all have one."""
    names = {row["signature"]: row["name"] for row in rows}
    gone = list(dict.fromkeys(row["signature"] for row in rows if row["status"] == "missing"))
    if not gone:
        return ""
    some = ", ".join(names[signature] for signature in gone[:3])
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    are = "is" if len(gone) == 1 else "are"
    of = f"{len(gone)} of {counted(len(names), 'run')} of sweep {rows[0]['sweep']}"
    return f"{of} {are} missing in {where}: {some}{more}; {remedy}"


def assemble(
    rows: Sequence[Mapping[str, Any]],
    params: Mapping[str, Mapping[str, str]],
    curves: Callable[[Sequence[str]], pd.DataFrame],
    judge: str | None = None,
    **about: Any,
) -> Tables:
    """The tables, each run counted once.

    Args:
        judge: the test figure that compares the arms; None: as the runs' records have it.
        about: the other attributes of `Tables`.

    Raises:
        ConfigError: the runs are selected, or judged, by different metrics; or no run has what is to judge.
    """
    given = judging(params, about.get("sweeps", []), about["what"], judge)
    about["notes"] = notes = list(about.get("notes", []))
    frame = pd.DataFrame.from_dict(dict(params), orient="index")
    tables = Tables(pd.DataFrame(list(rows)), frame, curves, **given._asdict(), **about)
    tables = replace(tables, runs=each_once(complete(tables), notes))
    there = [f"test_{name}" for name in tables.metrics() if tables.runs[f"test_{name}"].notna().any()]
    if judge is not None and there and judge not in there:
        raise ConfigError(f"judge={judge}: no run has it; they have {', '.join(there)}")
    if (tables.runs["arm"] == "").any():
        return infer(tables)
    arms = tables.runs.groupby("arm")["sweep"].nunique()
    if (arms > 1).any():
        tables.runs["arm"] += " [" + tables.runs["sweep"].str[:8] + "]"
        notes.append("Arms with the same name in several sweeps carry the sweep's id.")
    return tables


def judging(
    params: Mapping[str, Mapping[str, str]], sweeps: Sequence[Mapping[str, Any]], what: str, judge: str | None
) -> Criteria:
    """What the runs are selected by, and what compares them."""
    runs = [one for p in params.values() if (one := criteria(configured(p))).is_known]
    objectives, chosen = sorted({one.objective for one in runs}), {one.metric for one in runs}
    if len(objectives) > 1:
        both = " and ".join(objectives)
        raise ConfigError(f"{what}: its runs select by {both}; choose runs of one objective")
    if len(chosen) > 1:
        raise ConfigError(
            f"{what}: its runs define {objectives[0]} differently; choose those of one definition"
        )
    own = {name: about for one in runs for name, about in one.own.items()}
    recorded = [criteria(sweep).judge for sweep in sweeps if "objective" in sweep] or [
        one.judge for one in runs
    ]
    judges = sorted({judge} if judge is not None else {*recorded}) or ["test_accuracy"]
    if len(judges) > 1:
        raise ConfigError(f"{what}: its runs are judged by {' and '.join(judges)}; choose one with judge=...")
    given = Criteria(objectives[0] if objectives else "val_accuracy", judges[0], own)
    if not given.is_known:
        names = [f"test_{name}" for name in (*KNOWN, *own)]
        raise ConfigError(f"judge={judge}: there is no such metric{nearest(judges[0], names)}")
    return given


def configured(params: Mapping[str, str]) -> dict[str, Any]:
    """What a run's parameters, which are text, say of metrics."""
    own: dict[str, dict[str, Any]] = {}
    for key, text in params.items():
        group, _, path = key.partition(".")
        if group == "metrics" and path:
            name, _, argument = path.partition(".")
            own.setdefault(name, {}).update({argument: text != "False" and text} if argument else {})
    given: dict[str, Any] = {"objective": params.get("objective", ""), "metrics": own}
    if "judge" in params:
        given["judge"] = None if params["judge"] == "None" else params["judge"]
    return given


def presentable(tables: Tables) -> Tables:
    """The tables with every column, no number that is not finite, and no name that a terminal would obey."""
    sweeps = []
    for sweep in tables.sweeps:
        arms = {plain(name): about for name, about in sweep.get("arms", {}).items()}
        sweeps.append({**sweep, "arms": arms})
    return replace(tables, runs=complete(tables), sweeps=sweeps)


def columns(tables: Tables) -> dict[str, Any]:
    """`UNKNOWN` with the columns of metrics, those of validation before `objective`, those of test behind."""
    made: dict[str, Any] = {}
    names = tables.metrics()
    for key, unknown in UNKNOWN.items():
        if key == "objective":
            made |= {f"val_{name}": math.nan for name in names}
        made[key] = unknown
        if key == "objective":
            made |= {f"test_{name}": math.nan for name in names}
    return made


def complete(tables: Tables) -> pd.DataFrame:
    """The runs with all columns, each with values of its kind; what is not finite is unknown, too."""
    known, runs = columns(tables), tables.runs
    runs = runs.reindex(columns=[*known, *runs.columns.difference([*known])]).copy()
    for key, unknown in known.items():
        column = runs[key]
        if isinstance(unknown, float) or key in ("trial", "seed"):
            column = pd.to_numeric(column, errors="coerce").astype(float)
            runs[key] = column.where(column.abs() < math.inf)
            if not isinstance(unknown, float):
                runs[key] = runs[key].fillna(unknown).astype(int)
        elif isinstance(unknown, bool):
            runs[key] = column.map(lambda value: value is True or str(value) == "True").astype(bool)
        elif isinstance(unknown, dict):
            runs[key] = [values_of(value) for value in column]
        else:
            runs[key] = [plain(value) if isinstance(value, str) else unknown for value in column]
    return runs


def values_of(values: object) -> dict[str, str]:
    """What a trial set, as text that can be shown."""
    return {plain(str(k)): plain(str(v)) for k, v in values.items()} if isinstance(values, dict) else {}


def plain(text: str) -> str:
    """A text without what a terminal would obey; nearly all are."""
    return text if text.isprintable() else printable(text)


def each_once(runs: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The runs, each once in its role, in order; trials of an arm that are of the same runs are one."""
    runs = runs.assign(ended=runs["status"].isin(ENDED))
    # The same run on two machines is one observation: the one that ended counts, of several the last.
    order = runs.sort_values(["ended", "started"], kind="stable", na_position="first")
    kept = order.drop_duplicates(["signature", "sweep", "arm", "trial", "phase", "seed"], keep="last")
    if len(kept) < len(runs):
        notes.append(f"{counted(len(runs) - len(kept), 'duplicate run')} ignored.")
    runs = kept.sort_values(["arm", "trial", "phase", "seed"], kind="stable", ignore_index=True)
    first: dict[Any, int] = {}
    same = {}
    for (sweep, arm, trial), rows in runs[runs["phase"] == "search"].groupby(["sweep", "arm", "trial"]):
        same[sweep, arm, trial] = first.setdefault((sweep, arm, frozenset(rows["run"])), trial)
    keys = zip(runs["sweep"], runs["arm"], runs["trial"], strict=True)
    runs["trial"] = [same.get(key, key[2]) for key in keys]
    if repeated := len(same) - len(first):
        notes.append(f"{counted(repeated, 'duplicate trial')} ignored: same runs as an earlier trial.")
    runs = runs.drop_duplicates(["sweep", "arm", "trial", "phase", "run"], ignore_index=True)
    return runs.drop(columns="ended")


def number(text: object) -> float:
    """The number that a text means; NaN where it means none."""
    try:
        return float(str(text))
    except ValueError:
        return math.nan


def infer(tables: Tables) -> Tables:
    """Arms and trials from what varies: the optimizer is the arm, the other keys but the seed are a trial."""
    recorded = tables.runs[~tables.runs["status"].isin(UNRECORDED)]
    runs, notes = recorded.drop_duplicates("run", ignore_index=True), [*tables.notes]
    settings = tables.params.drop(columns=[key for key in tables.params if no_setting(key)])
    settings = settings.reindex(runs["run"]).fillna("").reset_index(drop=True)
    names = settings.get("optimizer._target_", pd.Series("", settings.index))
    runs["arm"] = names.str.rsplit(".").str[-1].str.lower().replace("", "all")
    for arm, rows in settings.groupby(runs["arm"]):
        inside = [key for key in rows if key != "optimizer._target_" and rows[key].nunique() > 1]
        numbers = rows[inside].apply(lambda column: column.map(by_number))
        order = numbers.groupby(inside).ngroup() if inside else pd.Series(0, rows.index)
        runs.loc[rows.index, "trial"] = order.astype(int)
        values = [dict(zip(inside, row, strict=True)) for row in rows[inside].to_numpy()]
        runs.loc[rows.index, "values"] = pd.Series(values, rows.index)
        if mixed := [key for key in inside if key.startswith(("data.", "model."))]:
            notes.append(f"Within {arm}, {', '.join(mixed)} vary, so its best trial means little.")
    if runs["arm"].nunique() == 1:
        notes.append("The runs have no arms and one optimizer: trials can be compared, arms cannot.")
    else:
        notes.append("The runs have no arms: their optimizers are compared instead.")
    runs["phase"] = "search"
    runs = runs.sort_values(["arm", "trial", "seed"], kind="stable", ignore_index=True)
    return replace(tables, runs=runs, notes=notes)


def by_number(text: str) -> tuple[float, str]:
    """Sorts texts, numbers first and by their size."""
    value = number(text)
    return (math.inf if math.isnan(value) else value, text)


def no_setting(key: str) -> bool:
    """Whether a key says nothing of what is trained."""
    ignored = (*NOT_IN_SIGNATURE, "seed", "objective", "judge", "metrics")
    return any(key == name or key.startswith(f"{name}.") for name in ignored)
