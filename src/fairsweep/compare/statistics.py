"""The numbers of a report: selection by validation, then differences, times and budgets.

A diverged run has the worst result there is: it ranks last, and no mean is taken over it.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from fairsweep.metrics import Metric
from fairsweep.wording import counted

CONFIDENCE, ALPHA = 0.95, 0.05

# All that selection gets to see, besides the objective as it was last.
VALIDATION = ["arm", "trial", "phase", "seed", "status", "objective"]

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
    for run in runs.loc[runs["phase"] == "search", [*VALIDATION, objective]].to_dict("records"):
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
        mean_better, mean_worse: over the runs that did not diverge; where runs are compared by pairs, over
            the seeds at which neither did. NaN where there is none.
        seeds: how many pairs of runs are compared; 0 where they are not paired.
        difference: of these means: by how much `better` is ahead.
        low, high: its 95% interval, for all pairs of arms at once (Bonferroni); NaN where there is none.
        p: of no difference; NaN where it cannot be tested.
        adjusted: p for all pairs of arms (Bonferroni), below 5% where the interval excludes 0.
        probability: that a run of the one beats a run of the other; a tie is half a win.
        method: how interval and p were found, in words.
    """

    better: str
    worse: str
    mean_better: float
    mean_worse: float
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    probability: float
    method: str

    @property
    def claimed(self) -> bool:
        """Whether a difference is shown."""
        return self.adjusted < ALPHA

    @property
    def p_text(self) -> str:
        """The adjusted p, in two digits, or as many as show on which side of 5% it is; `none` for NaN."""
        if math.isnan(self.adjusted):
            return "none"
        texts = (f"{self.adjusted:.{digits}g}" for digits in range(2, 17))
        sides = (text for text in texts if (float(text) < ALPHA) == self.claimed)
        return next(sides, f"{self.adjusted}")


def comparisons(results: Mapping[str, pd.Series], metric: Metric, overlap: float = 0.0) -> list[Comparison]:
    """All pairs of arms, the largest difference first.

    Args:
        results: an arm's test results by seed, the worst there is where the run diverged.
        metric: of the results.
        overlap: as `compare` takes it.
    """
    pairs = list(combinations(results, 2))
    made = [compare((a, results[a]), (b, results[b]), metric, len(pairs), overlap) for a, b in pairs]
    return sorted(made, key=lambda pair: (-pair.probability, -pair.difference))


def shared_seeds(results: Iterable[pd.Series]) -> pd.Index | None:
    """The seeds of which all arms have a result, if these are enough to compare by pairs of runs."""
    indices = [values.index for values in results]
    shared = reduce(pd.Index.intersection, indices)
    return shared if len(shared) >= max(2, *(len(index) / 2 for index in indices)) else None


def compare(
    first: tuple[str, pd.Series],
    second: tuple[str, pd.Series],
    metric: Metric,
    pairs: int = 1,
    overlap: float = 0.0,
) -> Comparison:
    """Two arms' results: a t-test, paired where the seeds are shared; by rank where runs diverged.

    Args:
        pairs: how many pairs of arms are compared, for all of which the intervals hold at once.
        overlap: how far the seeds depend on each other; see `crossfit`. 0: not at all.
    """
    (a, x), (b, y) = first, second
    x, y = metric.sign * x, metric.sign * y  # higher is better
    shared = shared_seeds([x, y])
    if shared is not None:
        x, y = x[shared], y[shared]
    wins = float(stats.mannwhitneyu(x, y).statistic) / (len(x) * len(y)) if len(x) and len(y) else math.nan
    ended_x, ended_y = np.isfinite(x), np.isfinite(y)
    if shared is not None:
        ended_x = ended_y = ended_x & ended_y
    means = [float(values[ended].mean()) for values, ended in ((x, ended_x), (y, ended_y))]
    lost = int(np.isinf(x).sum() + np.isinf(y).sum())
    alpha, paired = ALPHA / pairs, shared is not None
    test = by_rank(x, y, paired, alpha) if lost else by_mean(x, y, paired, alpha, overlap)
    low, high, difference = test.low, test.high, means[0] - means[1]
    if (difference if math.isnan(test.ahead) else test.ahead) < 0:
        a, b, wins, means, difference = b, a, 1 - wins, means[::-1], -difference
        low, high = -high, -low
    return Comparison(
        better=a,
        worse=b,
        mean_better=metric.sign * means[0],
        mean_worse=metric.sign * means[1],
        seeds=0 if shared is None else len(shared),
        difference=difference,
        low=max(low, -metric.width),  # no two values differ by more; NaN stays
        high=min(high, metric.width),
        p=test.p,
        adjusted=min(pairs * test.p, 1.0),
        probability=wins,
        method=test.method,
    )


class Tested(NamedTuple):
    """The outcome of a test; `ahead` is above 0 where the first arm is, NaN where the means decide that."""

    method: str
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    ahead: float = math.nan


def by_mean(x: pd.Series, y: pd.Series, paired: bool, alpha: float, overlap: float = 0.0) -> Tested:
    """A t-test of two arms' results, all of which are numbers."""
    if min(len(x), len(y)) < 2:
        return Tested("one seed, no interval")
    if paired:
        differences = (x - y).to_numpy()
        method, spread = f"paired t over {len(x)} shared seeds", np.ptp(differences)
        method += ", widened as they choose each other's trials" if overlap else ""
    else:
        method, spread = f"Welch's t over {len(x)} and {len(y)} seeds", max(np.ptp(x), np.ptp(y))
    if spread <= EQUAL:
        return Tested(f"{method}; no spread, so no interval")
    if paired:
        return Tested(method, *student(differences, 1 - alpha, overlap))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss")  # where one of them has no spread
        test = stats.ttest_ind(x, y, equal_var=False)
    bounds = test.confidence_interval(1 - alpha)
    return Tested(method, float(bounds.low), float(bounds.high), float(test.pvalue))


def by_rank(x: pd.Series, y: pd.Series, paired: bool, alpha: float) -> Tested:
    """A rank test of two arms' results, diverged runs ranking last: by pairs where these are enough."""
    lost = counted(int(np.isinf(x).sum() + np.isinf(y).sum()), "diverged run")
    end = f"{lost} ranking last; no interval"
    if paired and 0.5 ** (len(x) - 1) < alpha:  # else no outcome at all could show a difference
        with np.errstate(invalid="ignore"):
            differences = (x - y).fillna(0.0).to_numpy()  # both diverged: a tie
        p, ahead = signed_rank(differences)
        return Tested(f"Wilcoxon's signed ranks over {len(x)} shared seeds, {end}", p=p, ahead=ahead)
    test = stats.mannwhitneyu(x, y)
    ahead = float(test.statistic) / (len(x) * len(y)) - 0.5
    return Tested(f"Mann-Whitney test, {end}", p=float(test.pvalue), ahead=ahead)


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """The exact p of Wilcoxon's signed-rank test, and which side is ahead; differences may be infinite.

    Equal sizes share their ranks and zeros take no part, for which scipy's p would be an approximation.
    """
    differences = differences[np.abs(differences) > EQUAL]
    if not len(differences):
        return math.nan, 0.0
    ranks = np.round(2 * stats.rankdata(np.round(np.abs(differences), 9))).astype(int)  # halves become whole
    chance = np.ones(1)  # of each sum of positive ranks, where every sign is as likely as the other
    for rank in ranks:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    above = int(ranks[differences > 0].sum())
    p = 2 * min(chance[: above + 1].sum(), chance[above:].sum())
    return min(1.0, float(p)), float(above - ranks.sum() / 2)


def student(values: np.ndarray, confidence: float, overlap: float = 0.0) -> tuple[float, float, float]:
    """Student's t: the interval of a mean, and p of it being 0.

    Args:
        overlap: how far the values depend on each other; see `crossfit`.
    """
    count, mean = len(values), float(np.mean(values))
    error = float(np.std(values, ddof=1)) * math.sqrt(1 / count + overlap / (count - 1))
    half = error * float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return mean - half, mean + half, 2 * float(stats.t.sf(abs(mean) / error, count - 1))


def mean_interval(values: pd.Series, metric: Metric, overlap: float = 0.0) -> tuple[float, float]:
    """The 95% interval (Student's t) of a mean of test results; NaN where there is none.

    There is none where runs diverged, and where it would hold every value there can be.
    """
    ended = values[np.isfinite(values)]
    if len(ended) < 2 or len(ended) < len(values) or np.ptp(ended) <= EQUAL:
        return math.nan, math.nan
    low, high, _ = student(ended.to_numpy(), CONFIDENCE, overlap)
    if low <= metric.low and high >= metric.high:
        return math.nan, math.nan
    return max(low, metric.low), min(high, metric.high)


@dataclass(frozen=True)
class Reach:
    """When an arm's runs got to a target, the runs that never do being censored.

    Attributes:
        times: `run`, `time` and `reached`; a run that did not get there has the time until which it tried.
        curve: `time` and `share`, the estimated share that has got there (Kaplan and Meier), from (0, 0).
        median, low, high: the time by which half are there, and its 95% interval; inf where that is open.
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


def reach(
    curves: pd.DataFrame, statuses: Mapping[str, str], objective: tuple[str, Metric], target: float, unit: str
) -> Reach:
    """How long runs took until their objective was as good as a target.

    Args:
        curves: as `Tables.curves` gives them, of one arm or more.
        objective: its column, and its metric.
        statuses: of the runs to tell of. One that was trained to its end, or diverged, will never get there:
            it counts as tried for as long as the longest run. One that was stopped, until then.
        unit: `step` or `seconds`.
    """
    longest = curves[unit].max()
    (column, metric), rows = objective, []
    for run, curve in curves[curves["run"].isin(statuses)].groupby("run"):
        there = curve.loc[metric.sign * curve[column] >= metric.sign * target, unit]
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


def best_of(scores: Sequence[float]) -> pd.DataFrame:
    """The best score to expect of 1, 2, ... trials drawn from these: `low`, `median`, `high` (quartiles).

    Exact, for draws with replacement: the best of k is at most the i-th smallest of n scores with probability
    (i / n) ** k. The median instead of the mean, as diverged trials (-inf) have no mean; where it is -inf, no
    trial of half of the draws came to a result.
    """
    values = np.sort(np.asarray(scores, float))
    count = len(values)
    draws = np.arange(1, count + 1)
    quartiles = {"low": 0.25, "median": 0.5, "high": 0.75}
    table = {
        # Less a little: where a root is whole, it must not be rounded up.
        name: values[np.ceil(count * share ** (1 / draws) - 1e-9).astype(int) - 1]
        for name, share in quartiles.items()
    }
    return pd.DataFrame({**table, "trials": draws})


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
