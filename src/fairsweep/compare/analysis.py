"""From tables to findings: selection, verdict and the numbers of every section."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fairsweep.compare import statistics
from fairsweep.compare.findings import LR, Findings, ReportSettings
from fairsweep.compare.load import CURVES, ENDED, UNRECORDED, Tables, no_setting, number, presentable
from fairsweep.compare.remarks import remarks
from fairsweep.compare.verdict import judge
from fairsweep.config import ConfigError
from fairsweep.wording import described


def find(tables: Tables, settings: ReportSettings) -> Findings:
    """All that a report tells.

    Raises:
        ConfigError: there is no run with a result to tell of.
    """
    found = decide(tables, settings)
    found.remarks += remarks(found)
    recorded = found.judged[~found.judged["status"].isin(UNRECORDED)]
    if len(recorded):
        found.curves = finite(tables.curves(recorded["run"].drop_duplicates().tolist()), tables.objective)
    timed(found)
    time_to_target(found)
    found.budgets = budgets(found)
    found.tuning = tuning(found)
    sensitivity(found)
    return found


def decide(tables: Tables, settings: ReportSettings) -> Findings:
    """The verdict alone.

    Raises:
        ConfigError: there is no run with a result to tell of.
    """
    tables = presentable(tables)
    if settings.relevant is None:
        settings = replace(settings, relevant=tables.tested.relevant)
    check(tables, settings)
    runs = tables.runs
    if not runs["status"].isin(["finished", "diverged", "pruned"]).any():
        counts = ", ".join(f"{count} {status}" for status, count in Counter(runs["status"]).items())
        raise ConfigError(f"{tables.what}: no run has a result yet ({counts}); wait, or see their logs")
    found = Findings(tables, settings, trials_of(tables), {}, runs.head(0), remarks=[*tables.notes])
    found.chosen = statistics.select(found.trials)  # nothing so far has seen a test figure
    judge(found)
    return found


def check(tables: Tables, settings: ReportSettings) -> None:
    """Check that the settings suit the metrics.

    Raises:
        ConfigError: one is none of their values.
    """
    (objective, tested), target = (tables.metric, tables.tested), settings.target
    if target is not None and not objective.low <= target <= objective.high:
        allowed = f"from {objective.low:g} to {objective.high:g}"
        raise ConfigError(f"target={target:g}: must be {allowed}, as {tables.objective} is")
    if settings.relevant is not None and settings.relevant > tested.width:
        allowed = f"a difference of {tables.judge}, from 0 to {tested.width:g}"
        raise ConfigError(f"relevant={settings.relevant:g}: must be {allowed}")


def trials_of(tables: Tables) -> pd.DataFrame:
    """The search's trials with their values; those of an arm that has none in the search are left out."""
    table = statistics.trials(tables.runs, tables.objective, tables.metric.sign)
    values = dict(
        zip(zip(tables.runs["arm"], tables.runs["trial"], strict=True), tables.runs["values"], strict=True)
    )
    table["values"] = [values[key] for key in table.index]
    table["setting"] = [described(values) for values in table["values"]]
    return table


def finite(curves: pd.DataFrame, objective: str) -> pd.DataFrame:
    """The curves, with those of the loss and the objective first; what is not finite is unknown."""
    figures = dict.fromkeys(["val_loss", objective, *curves.columns.drop(CURVES)])
    curves = curves.reindex(columns=[*CURVES, *figures])
    numbers = curves[["seconds", *figures]].astype(float)
    return curves.assign(**numbers.where(numbers.abs() < math.inf))


def timed(found: Findings) -> None:
    """Decide whether the judged runs can be compared by seconds: if each has its own, and trained alone."""
    if found.judged["shared"].any() or found.curves.empty or found.curves["seconds"].isna().any():
        found.units = ("step",)


def time_to_target(found: Findings) -> None:
    """Set the target, and when each arm's judged runs got there."""
    objective, metric = found.tables.objective, found.tables.metric
    if found.curves.empty or found.curves[objective].isna().all():
        return
    last = found.curves.groupby("run")[objective].last()
    final = {
        str(arm): last.reindex(rows["run"][rows["status"] == "finished"]).mean()
        for arm, rows in found.judged.groupby("arm")
    }
    known = [value for value in final.values() if not math.isnan(value)]
    if found.settings.target is None and not known:
        return
    worst = min(known, key=lambda value: metric.sign * value, default=math.nan)
    found.target = worst if found.settings.target is None else found.settings.target
    for unit in found.units:
        found.reached[unit] = {
            str(arm): statistics.reach(
                found.curves,
                dict(rows[["run", "status"]].to_numpy()),
                (objective, metric),
                found.target,
                unit,
            )
            for arm, rows in found.judged.groupby("arm")
        }


def budgets(found: Findings) -> dict[str, pd.DataFrame]:
    """The best objective to expect of each number of trials, by arm with two trials or more."""
    made = {}
    for arm, rows in found.trials.dropna(subset="score").groupby("arm"):
        if len(rows) > 1:
            table = statistics.best_of(rows["score"].tolist())
            quartiles = (
                table[["low", "median", "high"]].where(lambda t: t > -math.inf) * found.tables.metric.sign
            )
            made[str(arm)] = quartiles.assign(trials=table["trials"])
    return made


def tuning(found: Findings) -> pd.DataFrame:
    """What tuning gained: the chosen trial over the arm's default, and over the middle one of its trials.

    Tunability as Probst et al. (2019) define it: what the best setting gains over the default. The default
    counts where it was among the trials; it is not guessed from others. The gain over the median trial is
    what a search gains over one draw from the space.
    """
    rows = []
    sign = found.tables.metric.sign
    for arm, trial in found.chosen.items():
        if (arm, trial) not in found.trials.index or math.isnan(found.trials.loc[(arm, trial), "mean"]):
            continue
        own = found.searched(arm)
        setting, default = default_of(found, arm)
        base = math.nan if default is None else own.loc[default, "mean"]
        kind = "not tried" if default is None else own.loc[default, "kind"]
        best = float(own.loc[trial, "mean"])
        middle = float(sign * own["score"].dropna().quantile(0.5, interpolation="lower"))
        rows.append(
            {
                "arm": arm,
                "setting": own.loc[trial, "setting"],
                "best": best,
                "default": base,
                "default_is": f"{described(setting)} {kind}".strip(),
                "gain": sign * (best - base),
                "median": middle if math.isfinite(middle) else math.nan,
                "gain_over_median": sign * (best - middle) if math.isfinite(middle) else math.nan,
            }
        )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["arm", "gain"])


def default_of(found: Findings, arm: str) -> tuple[dict[str, str], int | None]:
    """What an arm's keys are by default, as `sweep.json` has it, and the trial that has those values."""
    about = [sweep.get("arms", {}).get(arm, {}).get("default", {}) for sweep in found.tables.sweeps]
    default: dict[str, str] = next(filter(None, about), {})
    for trial, values in found.searched(arm)["values"].items():
        same = [v == default.get(key) or number(v) == number(default.get(key)) for key, v in values.items()]
        if same and all(same):
            return default, int(trial)
    return default, None


def sensitivity(found: Findings) -> None:
    """Choose the axis, set each trial's place on it, and find the flat regions around the best."""
    trials = found.trials
    values = pd.DataFrame(list(trials["values"]), trials.index)
    numeric = values.map(number) if len(values.columns) else values
    spread = numeric.nunique()
    keys = [key for key in numeric if spread[key] > 1 and numeric[key].notna().sum() > 1]
    if not keys:
        return
    found.axis = LR if LR in keys else max(keys, key=lambda key: spread[key])
    place = numeric[found.axis]
    if found.axis in found.tables.params:  # an arm that does not vary it has one value of it
        firsts = found.tables.runs.drop_duplicates(["arm", "trial"]).set_index(["arm", "trial"])["run"]
        own = found.tables.params[found.axis].reindex(firsts.reindex(trials.index)).map(number)
        place = place.fillna(pd.Series(own.to_numpy(), trials.index))
    trials["place"] = place
    for arm in found.chosen:
        line = profile(found, arm)
        if line["mean"].notna().any():
            found.flat[arm] = statistics.flat_region(line["mean"], found.tables.metric.sign)


def profile(found: Findings, arm: str) -> pd.DataFrame:
    """The best trial of an arm at each value of `axis`; a value at which all diverged has no mean."""
    own = found.searched(arm).dropna(subset=["place", "score"])
    return own.sort_values("score").groupby("place").tail(1).set_index("place").sort_index()


def fixed(tables: Tables) -> dict[str, str]:
    """The keys that decide what is trained and had one value in all runs."""
    settings = tables.params[[key for key in tables.params if not no_setting(key)]]
    return {
        str(key): str(settings[key].iloc[0]) for key in settings if settings[key].nunique(dropna=False) == 1
    }


def seconds_of(runs: pd.DataFrame) -> float:
    """The training seconds of all these runs; NaN where one has none of its own."""
    unknown = runs["seconds"].isna() & (runs["status"] == "finished")
    return math.nan if (unknown | runs["shared"]).any() else float(runs["seconds"].sum())


def arm_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of the arms: what each was given, and what came out."""
    rows = []
    runs, trials = found.tables.runs, found.trials
    for arm in found.arms:
        own = runs[runs["arm"] == arm]
        search, confirm = own[own["phase"] == "search"], own[own["phase"] == "confirm"]
        values = found.results.get(arm, pd.Series(dtype=float))
        ended = values[np.isfinite(values)]
        low, high = statistics.mean_interval(values, found.tables.tested, found.overlap)
        chosen = (arm, found.chosen.get(arm))
        unique = own.drop_duplicates("run")
        statuses = Counter(unique["status"])
        rows.append(
            {
                "arm": arm,
                "setting": found.setting(arm),
                found.tables.objective: float(trials["mean"].get(chosen, math.nan)),
                found.tables.judge: float(ended.mean()) if len(ended) else math.nan,
                "sd": float(ended.std()) if len(ended) > 1 else math.nan,
                "low": low,
                "high": high,
                "judged": len(values),
                "judged_diverged": len(values) - len(ended),
                "trials": search["trial"].nunique(),
                "search_seeds": search["seed"].nunique(),
                "confirm_seeds": confirm["seed"].nunique(),
                "runs": len(unique),
                **{status: statuses[status] for status in ("finished", "diverged", "failed", "pruned")},
                "unfinished": sum(n for status, n in statuses.items() if status not in (*ENDED, *UNRECORDED)),
                **{status: statuses[status] for status in UNRECORDED},
                "reused": int(unique["reused"].sum()),
                "seconds": seconds_of(unique),
            }
        )
    return rows
