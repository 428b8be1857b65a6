"""The tables of what a tracking store has: sweeps of any machine, or runs by experiment or filter."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairsweep import metrics
from fairsweep.compare.load import (
    CURVES,
    UNKNOWN,
    UNREADABLE,
    Tables,
    assemble,
    number,
    of_plan,
    what_is_missing,
)
from fairsweep.compare.mlflow_source import MlflowRuns
from fairsweep.config import ConfigError
from fairsweep.runs import mlflow_sweep
from fairsweep.wording import counted

if TYPE_CHECKING:
    from mlflow.entities import Run

REMEDY = "repeat the sweep's command where it was started to train or upload what is missing"


def load(
    uri: str,
    directory: str,
    sweeps: Sequence[str] = (),
    experiment: str | None = None,
    where: str | None = None,
    judge: str | None = None,
) -> Tables:
    """The tables of some sweeps; or of all runs in an experiment, or that a filter finds, or both.

    Args:
        uri: of the tracking store.
        directory: `record.dir`.
        sweeps: ids, or their beginnings; by default, without experiment and filter, the newest sweep.
        where: in MLflow's language, such as "params.`model.name` = 'two_conv'".
        judge: as `assemble` takes it.

    Raises:
        ConfigError: the store is unreachable, the sweep or experiment unknown, or there are no runs.
    """
    source = MlflowRuns(uri, directory)
    if experiment or where:
        return of_runs(source, experiment, where, judge)
    return of_sweeps(source, sweeps, judge)


def of_sweeps(source: MlflowRuns, wanted: Sequence[str], judge: str | None) -> Tables:
    """The tables of these sweeps, or of the newest."""
    named = [parent_of(source, sweep) for sweep in wanted] or [parent_of(source)]
    parents = {parent.info.run_id: parent for parent in named}.values()
    rows: list[dict[str, Any]] = []
    params: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    definitions, missing = [], []
    for parent in parents:
        sweep = parent.data.tags["fairsweep_sweep"]
        definition, plan = source.definition(parent)
        definition = {"id": sweep, **definition}
        definition["status"] = parent.data.tags.get("status", definition.get("status", "unknown"))
        definitions.append(definition)
        runs = current(source.search(f"tags.`sweep.{sweep}` LIKE '%'"), notes)
        params |= {run.info.run_id: run.data.params for run in runs}
        if plan and definition["status"] != "running":  # else it may have planned more since
            own = of_plan(plan, by_signature(runs, sweep), definition)
            missing.append(what_is_missing(own, source.name, REMEDY))
        else:
            own = [row for run in runs for row in memberships(run, sweep, notes)]
            missing.append(too_few(runs, definition, source.name, notes))
        rows += own
    what = ", ".join(d["id"] for d in definitions)
    what = f"sweep {what}" if len(definitions) == 1 else f"sweeps {what}"
    if not params:
        raise ConfigError(f"{what} in {source.name}: has no runs yet; wait for the first one")
    about = {"what": what, "uri": source.name, "notes": notes, "sweeps": definitions}
    about["missing"] = "; ".join(filter(None, missing))
    return assemble(with_seconds(source, rows), params, curves_of(source, rows), judge, **about)


def of_runs(source: MlflowRuns, experiment: str | None, where: str | None, judge: str | None) -> Tables:
    """The tables of runs, whatever sweeps they are of; the arms come from what varies."""
    given = {"experiment": experiment, "filter": where}
    what = ", ".join(f"{key}={value}" for key, value in given.items() if value)
    notes: list[str] = []
    runs = [run for run in source.search(where or "", experiment) if "signature" in run.data.tags]
    runs = current(runs, notes)
    hint = renamed(where or "")
    if not runs:
        raise ConfigError(
            f"{what} in {source.name}: finds no runs{hint}; MLflow's user interface shows what is there"
        )
    notes += [f"filter={where}{hint}."] if hint else []
    rows = [row_of(run) | {"seed": number(run.data.params.get("seed"))} for run in runs]
    params = {run.info.run_id: run.data.params for run in runs}
    about = {"what": what, "uri": source.name, "notes": notes}
    return assemble(with_seconds(source, rows), params, curves_of(source, rows), judge, **about)


def renamed(where: str) -> str:
    """What to know of a filter by a metric's name of earlier versions, which newer runs do not have."""
    for old in re.findall(r"\bmetrics?\.[`\"]?(\w+)", where):
        if metrics.tracked(old) != old:
            new = metrics.tracked(old)
            return f": `{old}` is a name of earlier versions; newer runs have metrics.`{new}`"
    return ""


def parent_of(source: MlflowRuns, sweep: str | None = None) -> "Run":
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
        raise ConfigError(f"sweep={sweep}: matches several in {source.name}: {names}")
    newest = source.search("tags.fairsweep_sweep LIKE '%'", at_most=5)
    names = ", ".join(["latest", *(run.data.tags["fairsweep_sweep"] for run in newest)])
    raise ConfigError(f"sweep={sweep}: not in {source.name} (run with tracking=none?); there are {names}")


def current(runs: "Iterable[Run]", notes: list[str]) -> "list[Run]":
    """Those that were not trained again since."""
    runs = list(runs)
    kept = [run for run in runs if run.data.tags.get("superseded") != "true"]
    if len(kept) < len(runs):
        notes.append(
            f"{counted(len(runs) - len(kept), 'run')} trained again since: the old record is omitted."
        )
    return kept


def by_signature(runs: "Iterable[Run]", sweep: str) -> dict[str, list[dict[str, Any]]]:
    """What MLflow knows of runs, as rows by signature."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run.data.tags.get("signature", ""), []).append(row_of(run, sweep))
    return found


def memberships(run: "Run", sweep: str, notes: list[str]) -> list[dict[str, Any]]:
    """A row for each role of the run in the sweep, as its tag has it; none of a tag that cannot be read."""
    try:
        members = mlflow_sweep.members_of(run.data.tags, sweep)
        return [
            row_of(run, sweep)
            | {key: member[key] for key in ("arm", "trial", "phase", "seed", "values")}
            | {"sweep": sweep}
            for member in members
        ]
    except UNREADABLE:
        notes.append(f"Run {run.info.run_id} is omitted: its tag sweep.{sweep} is not readable.")
        return []


def too_few(runs: "Sequence[Run]", definition: dict[str, Any], where: str, notes: list[str]) -> str:
    """How many runs of a sweep without a plan are missing, by the counts of its end."""
    sweep, counts = definition["id"], definition.get("counts")
    if definition["status"] == "running":
        return ""
    if not counts:
        notes.append(f"The plan of sweep {sweep} is not in {where}: missing runs would go unnoticed.")
        return ""
    total, there = sum(counts.values()), len({run.data.tags.get("signature") for run in runs})
    if there >= total:
        return ""
    return f"{total - there} of {counted(total, 'run')} of sweep {sweep} are missing in {where}; {REMEDY}"


def row_of(run: "Run", sweep: str = "") -> dict[str, Any]:
    """What MLflow knows of a run, as a row of `Tables.runs`."""
    info, tags, values = run.info, run.data.tags, run.data.metrics
    versions = [f"{key[8:]} {value}" for key, value in sorted(tags.items()) if key.startswith("version.")]
    status = tags.get("status", "unknown")
    row = UNKNOWN | {"status": status, "reason": tags.get("reason", "")}
    figures = {metrics.untracked(name): value for name, value in values.items()}
    row |= {key: value for key, value in figures.items() if key.startswith("val_")}
    if status == "finished":  # figures of its end belong to a run that has ended well
        row |= {key: figures[key] for key in figures if key == "objective" or key.startswith("test_")}
    row |= {"seconds": metrics.figure(values, "training_seconds")}
    row |= {"shared": tags.get("shared_seconds") == "true", "reused": tags.get("sweep") != sweep}
    row |= {"started": (info.start_time or math.nan) / 1000}
    row |= {"run": info.run_id, "experiment": info.experiment_id, "name": info.run_name}
    row |= {key: tags.get(key, "unknown") for key in ("signature", "device", "precision", "hostname")}
    row |= {"commit": tags.get("mlflow.source.git.commit", "unknown"), "dirty": tags.get("git_dirty", "")}
    row |= {key: tags.get(key, "unknown") for key in ("code", "data")}
    return row | {"versions": ", ".join(versions)}


def with_seconds(source: MlflowRuns, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, those of runs before `training_seconds` with the sum of their epochs' seconds."""
    recorded = [row for row in rows if row["experiment"] and math.isnan(row["seconds"])]
    sums: dict[str, float] = {}
    names = "epoch_seconds", metrics.tracked("epoch_seconds")
    for value in source.histories(list(dict.fromkeys(row["run"] for row in recorded)), names):
        sums[value["run_id"]] = sums.get(value["run_id"], 0.0) + value["value"]
    for row in recorded:
        row["seconds"] = sums.get(row["run"], math.nan)
    return rows


def curves_of(source: MlflowRuns, rows: Iterable[dict[str, Any]]) -> Callable[[Sequence[str]], pd.DataFrame]:
    """`Tables.curves`, with the figures of validation that these runs have."""
    figures = dict.fromkeys(key for row in rows for key in row if key.startswith("val_"))
    return partial(curves, source, [*figures, "epoch_seconds"])


def curves(source: MlflowRuns, figures: Sequence[str], runs: Sequence[str]) -> pd.DataFrame:
    """Figures of these runs, a row per run and epoch; see `Tables.curves`."""
    columns = {"run_id": "run", "key": "key", "step": "step", "value": "value"}
    names = {metrics.tracked(key): key for key in figures} | {key: key for key in figures}
    long = pd.DataFrame(source.histories(runs, [*names]), columns=[*columns]).rename(columns=columns)
    long["key"] = long["key"].map(names)
    # Of values that were uploaded twice for a step, the last.
    last = long.drop_duplicates(["run", "key", "step"], keep="last")
    wide = last.pivot(index=["run", "step"], columns="key", values="value").reindex(columns=figures)
    wide["seconds"] = wide["epoch_seconds"].astype(float).groupby("run").cumsum()
    wide = wide.rename_axis(columns=None).reset_index()
    return wide[[*CURVES, *(key for key in figures if key != "epoch_seconds")]]
