"""The tables that a report is made of, from the runs that a tracking store has of a sweep."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairsweep import tracking
from fairsweep.compare.mlflow_source import Source
from fairsweep.config import NOT_IN_SIGNATURE, OBJECTIVES, ConfigError

if TYPE_CHECKING:
    from mlflow.entities import Run

LAST = ("val_accuracy", "val_loss", "objective", "test_accuracy", "test_loss")
CURVES = ("val_loss", "val_accuracy", "epoch_seconds")
ENDED = ("finished", "diverged", "failed", "pruned")


@dataclass(frozen=True)
class Tables:
    """What a report is made of.

    Attributes:
        runs: a row for each thing that a run is in a sweep: `sweep`, `arm`, `trial`, `phase` (search or
            confirm), `seed`, `values` (key -> text, what the trial set), `status`, `reason`, the last
            `val_accuracy` and `val_loss`, `objective`, `test_accuracy`, `test_loss` (at the end; NaN where
            there is none), `seconds` by the clock, `started` (unix time), `reused` (trained for another
            sweep), `run`, `experiment` and `name` in MLflow, `signature`, and where it was trained:
            `device`, `precision`, `hostname`, `commit`, `dirty`, `code`, `data`, `versions`.
        params: the runs' configurations: a row for each MLflow run, a column for each dotted key, as text.
        curves: gives, for MLflow run ids, a row per run and epoch: `run`, `step`, `seconds` (of training so
            far), `val_loss`, `val_accuracy`.
        objective: what selects, `val_accuracy` or `val_loss`.
        sweeps: the sweeps' `sweep.json`, newest first; none where the runs were found by other means.
        what: the title: what was asked for.
        uri: of the tracking store, without credentials.
        notes: what the reader has to know of how the tables were made.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    curves: Callable[[Sequence[str]], pd.DataFrame]
    objective: str
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    what: str = ""
    uri: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def sign(self) -> int:
        """1 where a higher objective is better, else -1."""
        return OBJECTIVES[self.objective]


def load(
    uri: str,
    directory: str,
    sweeps: Sequence[str] = (),
    experiment: str | None = None,
    where: str | None = None,
) -> Tables:
    """The tables of some sweeps; or of all runs in an experiment, or that a filter finds, or both.

    Args:
        uri: of the tracking store.
        directory: `record.dir`.
        sweeps: ids, or their beginnings; by default, without experiment and filter, the newest sweep.
        where: in MLflow's language, such as "params.`model.name` = 'two_conv'".

    Raises:
        ConfigError: the store is away, the sweep or experiment unknown, or there are no runs.
    """
    source = Source(uri, directory)
    return of_runs(source, experiment, where) if experiment or where else of_sweeps(source, sweeps)


def of_sweeps(source: Source, wanted: Sequence[str]) -> Tables:
    """The tables of these sweeps, or of the newest."""
    named = [parent_of(source, sweep) for sweep in wanted] or [parent_of(source)]
    parents = {parent.info.run_id: parent for parent in named}.values()
    rows: list[dict[str, Any]] = []
    params: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    definitions: list[dict[str, Any]] = []
    for parent in parents:
        sweep = parent.data.tags["fairsweep_sweep"]
        definition = {"id": sweep} | source.definition(parent)
        definition["status"] = parent.data.tags.get("status", definition.get("status", "unknown"))
        definitions.append(definition)
        found = current(source.search(f"tags.`sweep.{sweep}` LIKE '[%'"), notes)
        rows += [row for run in found for row in memberships(run, sweep)]
        params |= {run.info.run_id: run.data.params for run in found}
    what = ", ".join(d["id"] for d in definitions)
    what = f"sweep {what}" if len(definitions) == 1 else f"sweeps {what}"
    if not rows:
        raise ConfigError(f"{what} in {source.name}: has no runs yet; wait for the first one")
    tables = assemble(source, rows, params, what, notes)
    if (tables.runs["arm"] == "").any():
        return replace(infer(tables), sweeps=definitions)
    arms = tables.runs.groupby("arm")["sweep"].nunique()
    if (arms > 1).any():
        tables.runs["arm"] += " [" + tables.runs["sweep"].str[:8] + "]"
        notes.append("Arms of the same name in several sweeps are told apart by the sweep's id.")
    return replace(tables, sweeps=definitions)


def of_runs(source: Source, experiment: str | None, where: str | None) -> Tables:
    """The tables of runs, whatever sweeps they are of; the arms come from what varies."""
    said = {"experiment": experiment, "filter": where}
    what = ", ".join(f"{key}={value}" for key, value in said.items() if value)
    notes: list[str] = []
    found = [r for r in source.search(where or "", experiment) if "signature" in r.data.tags]
    found = current(found, notes)
    if not found:
        raise ConfigError(f"{what} in {source.name}: finds no runs; what is there: mlflow's user interface")
    rows = [row_of(run) | {"seed": number(run.data.params.get("seed"))} for run in found]
    params = {run.info.run_id: run.data.params for run in found}
    return infer(assemble(source, rows, params, what, notes))


def parent_of(source: Source, sweep: str | None = None) -> "Run":
    """The parent run of a sweep, by its id or the beginning of it; or of the newest."""
    if sweep is None:
        if found := source.search("tags.fairsweep_sweep LIKE '%'", at_most=1):
            return found[0]
        raise ConfigError(f"sweep=latest: no sweep in {source.name}; start one with python src/train.py -m")
    if not sweep.replace("-", "").isalnum():
        raise ConfigError(f"sweep={sweep}: must be latest or the id of a sweep, letters and digits")
    found = source.search(f"tags.fairsweep_sweep LIKE '{sweep}%'", at_most=5)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.data.tags["fairsweep_sweep"] for run in found)
        raise ConfigError(f"sweep={sweep}: begins several in {source.name}: {names}")
    newest = source.search("tags.fairsweep_sweep LIKE '%'", at_most=5)
    names = ", ".join(["latest", *(run.data.tags["fairsweep_sweep"] for run in newest)])
    raise ConfigError(f"sweep={sweep}: not in {source.name} (run with tracking=none?); there are {names}")


def current(runs: "Iterable[Run]", notes: list[str]) -> "list[Run]":
    """Those that were not trained again since."""
    runs = list(runs)
    kept = [run for run in runs if run.data.tags.get("superseded") != "true"]
    if len(kept) < len(runs):
        notes.append(f"{len(runs) - len(kept)} runs were trained again since and are left out.")
    return kept


def memberships(run: "Run", sweep: str) -> list[dict[str, Any]]:
    """A row for each thing that the run is in the sweep."""
    reused = run.data.tags.get("sweep") != sweep
    return [
        row_of(run)
        | {key: member[key] for key in ("arm", "trial", "phase", "seed", "values")}
        | {"sweep": sweep, "reused": reused}
        for member in tracking.members_of(run.data.tags, sweep)
    ]


def row_of(run: "Run") -> dict[str, Any]:
    """What MLflow knows of a run, as a row of `Tables.runs`."""
    info, tags, metrics = run.info, run.data.tags, run.data.metrics
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time else math.nan
    versions = [f"{key[8:]} {value}" for key, value in sorted(tags.items()) if key.startswith("version.")]
    status = tags.get("status", "unknown")
    row = {"sweep": "", "arm": "", "trial": 0, "phase": "search", "seed": 0, "values": {}, "reused": False}
    row |= {"status": status, "reason": tags.get("reason", "")}
    row |= {key: metrics.get(key, math.nan) for key in LAST}
    if status != "finished":  # figures of its end belong to a run that has ended well
        row |= dict.fromkeys(("objective", "test_accuracy", "test_loss"), math.nan)
    row |= {"seconds": seconds, "started": info.start_time / 1000}
    row |= {"run": info.run_id, "experiment": info.experiment_id, "name": info.run_name}
    row |= {key: tags.get(key, "unknown") for key in ("signature", "device", "precision", "hostname")}
    row |= {"commit": tags.get("mlflow.source.git.commit", "unknown"), "dirty": tags.get("git_dirty", "")}
    return (
        row | {key: tags.get(key, "unknown") for key in ("code", "data")} | {"versions": ", ".join(versions)}
    )


def number(text: object) -> float:
    """The number that a text means; NaN where it means none."""
    try:
        return float(str(text))
    except ValueError:
        return math.nan


def assemble(
    source: Source,
    rows: list[dict[str, Any]],
    params: Mapping[str, dict[str, str]],
    what: str,
    notes: list[str],
) -> Tables:
    """The tables, each run counted once."""
    runs = pd.DataFrame(rows)
    runs["ended"] = runs["status"].isin(ENDED)
    # The same run on two machines is one observation: the one that ended counts, of several the last.
    order = runs.sort_values(["ended", "started"], kind="stable")
    kept = order.drop_duplicates(["signature", "sweep", "arm", "trial", "phase", "seed"], keep="last")
    if len(kept) < len(runs):
        notes.append(f"{len(runs) - len(kept)} runs are there twice, and count once.")
    runs = kept.sort_values(["arm", "trial", "phase", "seed"], kind="stable", ignore_index=True)
    objectives = sorted({p["objective"] for p in params.values() if p.get("objective") in OBJECTIVES})
    if len(objectives) > 1:
        raise ConfigError(
            f"{what}: its runs select by {' and '.join(objectives)}; choose runs of one objective"
        )
    return Tables(
        runs=runs.drop(columns="ended").fillna({"seed": 0}).astype({"seed": int, "trial": int}),
        params=pd.DataFrame.from_dict(params, orient="index"),
        curves=partial(curves, source),
        objective=objectives[0] if objectives else "val_accuracy",
        what=what,
        uri=source.name,
        notes=notes,
    )


def curves(source: Source, runs: Sequence[str]) -> pd.DataFrame:
    """Validation figures of these runs, a row per run and epoch; see `Tables.curves`."""
    columns = {"run_id": "run", "key": "key", "step": "step", "value": "value"}
    long = pd.DataFrame(source.histories(runs, CURVES), columns=[*columns]).rename(columns=columns)
    # Of values that were uploaded twice for a step, the last.
    last = long.drop_duplicates(["run", "key", "step"], keep="last")
    wide = last.pivot(index=["run", "step"], columns="key", values="value").reindex(columns=CURVES)
    wide["seconds"] = wide["epoch_seconds"].groupby("run").cumsum()
    return wide.rename_axis(columns=None).reset_index()[
        ["run", "step", "seconds", "val_loss", "val_accuracy"]
    ]


def infer(tables: Tables) -> Tables:
    """Arms and trials from what varies: the optimizer is the arm, the other keys but the seed are a trial."""
    runs, notes = tables.runs.copy(), [*tables.notes]
    settings = tables.params.drop(columns=[key for key in tables.params if no_setting(key)])
    settings = settings.loc[runs["run"]].fillna("").reset_index(drop=True)
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
            notes.append(f"Within {arm}, {', '.join(mixed)} vary: a best trial among those means little.")
    if runs["arm"].nunique() == 1:
        notes.append("The runs have no arms, and one optimizer: trials can be compared, arms cannot.")
    else:
        notes.append("The runs have no arms: the optimizer was taken for it.")
    runs["phase"] = "search"
    runs = runs.sort_values(["arm", "trial", "seed"], kind="stable", ignore_index=True)
    return replace(tables, runs=runs, notes=notes)


def by_number(text: str) -> tuple[float, str]:
    """Sorts texts, numbers first and by their size."""
    value = number(text)
    return (math.inf if math.isnan(value) else value, text)


def no_setting(key: str) -> bool:
    """Whether a key says nothing of what is trained."""
    ignored = (*NOT_IN_SIGNATURE, "seed", "objective")
    return any(key == name or key.startswith(f"{name}.") for name in ignored)
