"""The numbers of a report: selection by validation, then differences, times and budgets.

A diverged run has the worst result there is: it ranks last, and no mean is taken over it.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95

# All that selection gets to see.
VALIDATION = ["arm", "trial", "phase", "seed", "status", "objective", "val_accuracy", "val_loss"]

# Results this close are the same: they are counts divided by the number of images.
EQUAL = 1e-9


def trials(runs: pd.DataFrame, objective: str, sign: int) -> pd.DataFrame:
    """The search's trials, from the columns `VALIDATION` alone: a row each, by (`arm`, `trial`).

    Columns: `kind`, `mean`, `low` and `high` over the seeds, `seeds` (how many these are of), `score`, higher
    for better. The kind is "diverged" where any seed diverged: no mean, the worst score; "pruned" where
    halving dropped the trial: the figures are those it had then; "incomplete" where a seed has no result
    (yet); else "finished".
    """
    found: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for run in runs.loc[runs["phase"] == "search", VALIDATION].to_dict("records"):
        value = run[objective if run["status"] == "pruned" else "objective"]
        found.setdefault((run["arm"], run["trial"]), []).append((run["status"], value))
    rows = []
    for key, results in sorted(found.items()):
        statuses = [status for status, _ in results]
        values = [value for _, value in results if not math.isnan(value)]
        kind = "finished" if len(values) == len(results) else "incomplete"
        kind = next((k for k in ("diverged", "pruned") if k in statuses), kind)
        row: dict[str, Any] = {"arm": key[0], "trial": key[1], "kind": kind, "seeds": len(values)}
        row["score"] = math.nan
        if kind == "diverged":
            row["score"] = -math.inf
        elif values:
            # The exact sum, as the sweeper has it: a tie there is one here.
            row |= {"mean": math.fsum(values) / len(values), "low": min(values), "high": max(values)}
            row["score"] = sign * row["mean"]
        rows.append(row)
    columns = ["arm", "trial", "kind", "mean", "low", "high", "seeds", "score"]
    return pd.DataFrame(rows, columns=columns).set_index(["arm", "trial"])


def select(trials: pd.DataFrame) -> dict[str, int]:
    """The best trial of each arm that has a finished one: of equals, the first."""
    ended = trials[trials["kind"] == "finished"]
    return {str(arm): int(trial) for arm, trial in ended.groupby("arm")["score"].idxmax()}


@dataclass(frozen=True)
class Comparison:
    """Two arms' results on test, `better` being ahead by the mean, or by rank where runs diverged.

    Attributes:
        difference: of the means, over the runs that did not diverge; where paired, over the shared seeds.
        low, high: its 95 % interval; NaN where there is none.
        p: of no difference; NaN where it cannot be tested.
        adjusted: p by Holm, over all pairs of arms.
        probability: that a run of the one beats a run of the other; a tie is half a win.
        method: how interval and p were found, in words.
    """

    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float
    probability: float
    method: str
    adjusted: float = math.nan

    @property
    def claimed(self) -> bool:
        """Whether a difference is shown."""
        return self.adjusted < 1 - CONFIDENCE


def comparisons(results: Mapping[str, pd.Series]) -> list[Comparison]:
    """All pairs of arms, the largest difference first.

    Args:
        results: an arm's test accuracies by seed, -inf where the run diverged.
    """
    pairs = [compare((a, results[a]), (b, results[b])) for a, b in combinations(results, 2)]
    adjusted = holm([pair.p for pair in pairs])
    made = [Comparison(**{**vars(pair), "adjusted": p}) for pair, p in zip(pairs, adjusted, strict=True)]
    return sorted(made, key=lambda pair: (-pair.probability, -pair.difference))


def compare(first: tuple[str, pd.Series], second: tuple[str, pd.Series]) -> Comparison:
    """Two arms' results: a t-test, paired where the seeds are shared; by rank where runs diverged."""
    (a, x), (b, y) = first, second
    wins = stats.mannwhitneyu(x, y) if len(x) and len(y) else None
    probability = float(wins.statistic) / (len(x) * len(y)) if wins else math.nan
    ended_x, ended_y = x[np.isfinite(x)], y[np.isfinite(y)]
    difference = float(ended_x.mean() - ended_y.mean())
    low, high, p = math.nan, math.nan, math.nan
    shared = x.index.intersection(y.index)
    if len(ended_x) < len(x) or len(ended_y) < len(y):
        lost = len(x) - len(ended_x) + len(y) - len(ended_y)
        method = f"Mann-Whitney test, {lost} diverged runs ranking last; no interval"
        p = float(wins.pvalue) if wins else math.nan
        behind = probability < 0.5
    elif 2 * len(shared) >= max(len(x), len(y)) and len(shared) >= 2:
        differences = (x[shared] - y[shared]).to_numpy()
        method, difference = f"paired t over {len(shared)} shared seeds", float(differences.mean())
        if np.ptp(differences) > EQUAL:
            low, high, p = interval(stats.ttest_1samp(differences, 0.0))
        else:
            method += "; no spread, so no interval"
        behind = difference < 0
    elif min(len(x), len(y)) >= 2:
        method = f"Welch's t over {len(x)} and {len(y)} seeds"
        if max(np.ptp(x), np.ptp(y)) > EQUAL:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Precision loss")  # where one of them has no spread
                low, high, p = interval(stats.ttest_ind(x, y, equal_var=False))
        else:
            method += "; no spread, so no interval"
        behind = difference < 0
    else:
        method, behind = "one seed only, no interval", difference < 0
    if behind:
        a, b, probability = b, a, 1 - probability
        difference, low, high = -difference, -high, -low
    low, high = max(low, -1.0), min(high, 1.0)  # accuracies differ by no more; NaN stays
    return Comparison(a, b, difference, low, high, p, probability, method)


def interval(test: Any) -> tuple[float, float, float]:
    """Interval and p of a t-test."""
    bounds = test.confidence_interval(CONFIDENCE)
    return float(bounds.low), float(bounds.high), float(test.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, which scipy does not have; NaN stays NaN."""
    tested = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    adjusted, least = [math.nan] * len(ps), 0.0
    for rank, (p, place) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = least
    return adjusted


def mean_interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % interval (Student's t) of the mean of those that did not diverge; NaN where there is none."""
    ended = values[np.isfinite(values)]
    if len(ended) < 2 or len(ended) < len(values) or np.ptp(ended) <= EQUAL:
        return math.nan, math.nan
    return interval(stats.ttest_1samp(ended, 0.0))[:2]


@dataclass(frozen=True)
class Reach:
    """When an arm's runs got to a target, the runs that never do being censored.

    Attributes:
        times: `run`, `time` and `reached`; a run that did not get there has the time until which it tried.
        curve: `time` and `share`, the estimated share that has got there (Kaplan and Meier), from (0, 0).
        median, low, high: the time by which half are there, and its 95 % interval; inf where that is open.
    """

    times: pd.DataFrame
    curve: pd.DataFrame
    median: float
    low: float
    high: float

    @property
    def share_there(self) -> float:
        """The estimated share that has got there in the end."""
        return float(self.curve["share"].iloc[-1])


def reach(curves: pd.DataFrame, statuses: Mapping[str, str], target: float, unit: str) -> Reach:
    """How long runs took to a validation accuracy.

    Args:
        curves: as `Tables.curves` gives them, of one arm or more.
        statuses: of the runs to tell of. One that was trained to its end, or diverged, will never get there:
            it counts as tried for as long as the longest run. One that was stopped, until then.
        unit: `step` or `seconds`.
    """
    longest = curves[unit].max()
    rows = []
    for run, curve in curves[curves["run"].isin(statuses)].groupby("run"):
        there = curve.loc[curve["val_accuracy"] >= target, unit]
        never = longest if statuses[run] in ("finished", "diverged") else curve[unit].max()
        rows.append((run, there.min() if len(there) else never, len(there) > 0))
    rows += [(run, longest, False) for run in statuses if run not in {row[0] for row in rows}]
    times = pd.DataFrame(rows, columns=["run", "time", "reached"]).sort_values("time")
    nothing = pd.DataFrame({"time": [0.0], "share": [0.0]})
    if not times["reached"].any():
        return Reach(times, nothing, math.inf, math.inf, math.inf)
    data = stats.CensoredData.right_censored(times["time"], ~times["reached"])
    left = stats.ecdf(data).sf
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The confidence interval is undefined"
        )  # where none or all are there
        band = left.confidence_interval(CONFIDENCE, method="log-log")
    curve = pd.DataFrame({"time": left.quantiles, "share": 1 - left.probabilities})

    def half(shares: Any) -> float:
        there = left.quantiles[shares <= 0.5]  # where the band is not defined, it is open
        return float(there[0]) if len(there) else math.inf

    bounds = half(left.probabilities), half(band.low.probabilities), half(band.high.probabilities)
    return Reach(times, pd.concat([nothing, curve]), *bounds)


def best_of(scores: Sequence[float], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The best score to expect of 1, 2, ... trials drawn from these: `low`, `median`, `high` (quartiles).

    A bootstrap over the trials. The median instead of the mean, as diverged trials (-inf) have no mean; where
    it is -inf, no trial of half of the draws came to a result.
    """
    values = np.asarray(scores, float)
    drawn = np.random.default_rng(seed).choice(values, (resamples, len(values)))
    best = np.maximum.accumulate(drawn, axis=1)
    quartiles = np.quantile(best, [0.25, 0.5, 0.75], axis=0, method="nearest")
    table = pd.DataFrame(quartiles.T, columns=["low", "median", "high"])
    return table.assign(trials=range(1, len(values) + 1))


def flat_region(profile: pd.Series, sign: int, share: float = 0.01) -> tuple[float, float]:
    """The tested values around the best one, without a gap, whose objective is within a share of the best's.

    Args:
        profile: objective by tested value, NaN where it diverged.
    """
    profile = profile.sort_index()
    best = (sign * profile).idxmax()
    near = sign * (profile[best] - profile) <= share * abs(profile[best])
    place = profile.index.get_loc(best)
    low = high = place
    while low > 0 and near.iloc[low - 1]:
        low -= 1
    while high < len(profile) - 1 and near.iloc[high + 1]:
        high += 1
    return float(profile.index[low]), float(profile.index[high])
