"""What it would cost to know: the seeds per arm that would show a difference, by the spread seen."""

import math

import numpy as np
import pandas as pd
from scipy import stats

from fairsweep.compare.findings import Findings
from fairsweep.compare.statistics import ALPHA, EQUAL, Comparison
from fairsweep.wording import duration

POWER = 0.8

# More seeds than this are not counted.
MOST = 10_000


def seeds(found: Findings, pair: Comparison, difference: float) -> float:
    """The fewest seeds per arm that show a difference with 80% power; inf beyond 10,000, NaN if unknown.

    Unknown where there is no interval: runs diverged, or do not differ.
    """
    if math.isnan(pair.low):
        return math.nan
    if difference <= EQUAL:
        return math.inf
    x, y = (found.results[arm] for arm in (pair.better, pair.worse))
    spread = Spread(x, y, pair.seeds > 0, found.overlap)
    alpha = ALPHA / len(found.comparisons)
    low = high = 2
    while spread.power(high, difference, alpha) < POWER:  # upwards: far beyond, scipy's noncentral t is NaN
        low, high = high + 1, 2 * high
        if low > MOST:
            return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if spread.power(middle, difference, alpha) >= POWER else (middle + 1, high)
    return low


class Spread:
    """The noise of a difference of two arms' means, by the number of seeds."""

    def __init__(self, x: pd.Series, y: pd.Series, is_paired: bool, overlap: float) -> None:
        self.overlap = overlap
        if is_paired:
            shared = x.index.intersection(y.index)
            self.variance, self.share = float(np.var(x[shared] - y[shared], ddof=1)), 1.0
        else:
            a, b = float(x.var()), float(y.var())
            self.variance, self.share = a + b, (a + b) ** 2 / (a * a + b * b)  # Welch and Satterthwaite

    def power(self, count: int, difference: float, alpha: float) -> float:
        """How often a t-test of `count` seeds per arm shows the difference, by the noncentral t."""
        free = self.share * (count - 1)
        shift = difference / math.sqrt(self.variance * (1 / count + self.overlap / (count - 1)))
        edge = float(stats.t.ppf(1 - alpha / 2, free))
        return float(stats.nct.sf(edge, free, shift) + stats.nct.cdf(-edge, free, shift))


def said(found: Findings, pair: Comparison, relevant: str) -> str:
    """What it would take to show the difference seen, and the one that matters, in a sentence.

    Args:
        relevant: the smallest difference that matters, in words; empty if it is not known.
    """
    least = found.settings.relevant
    numbers = {"a difference of the size seen": seeds(found, pair, pair.difference)}
    if least and relevant:
        numbers[f"one of {relevant}"] = seeds(found, pair, least)
    known = {what: number for what, number in numbers.items() if not math.isnan(number)}
    if not known:
        return ""
    parts = [f"{what} takes {text(number)} seeds per arm" for what, number in known.items()]
    finite = [int(number) for number in known.values() if number < math.inf]
    return f" By the spread seen, {' and '.join(parts)} (80% power){command(found, finite)}."


def text(number: float) -> str:
    """A number of seeds: `about 25`."""
    return f"over {MOST:,}" if math.isinf(number) else f"about {number:,.0f}"


def command(found: Findings, needed: list[int]) -> str:
    """How to get the smallest of these numbers of seeds, and the time it takes; empty where all are there.

    Only one of our sweeps can be repeated. Time is omitted below a second, and where runs' seconds are not
    their own.
    """
    there = {arm: len(values) for arm, values in found.results.items()}
    more = [number for number in needed if number > max(there.values())]
    if not more or len(found.tables.sweeps) != 1 or "command" not in found.tables.sweeps[0]:
        return ""
    number, key = min(more), "confirm" if found.evidence == "confirm" else "seeds"
    runs = found.tables.runs
    if found.evidence != "crossfit":
        runs = found.judged
    seconds = runs["seconds"].where(~runs["shared"]).groupby(runs["arm"]).mean()
    trials = runs.groupby("arm")["trial"].nunique()
    total = sum(seconds[arm] * trials[arm] * (number - count) for arm, count in there.items())
    time = f", about {duration(total)} of training" if total >= 1 else ""
    return f"; repeat the sweep's command with {key}={number}{time}"
