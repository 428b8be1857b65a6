"""Is the verdict honest? Simulated studies, through the code that judges real ones.

Two arms are the same arm: the same trials, of the same validation results, are searched; the chosen ones are
confirmed on new seeds, whose test accuracies are drawn anew for each arm. So every difference that is claimed
is a false one. Then the second arm is made better by one standard deviation between seeds, and a claim is
right. Counted is what `analysis.decide` says of 500 such studies:
- claims of a difference where there is none: at most 7% (5% is the method's own rate);
- claims where the difference is one standard deviation: at least 45% at 10 seeds;
- how often the 95% interval holds the true difference: 93 to 97%.
Seeds are shared by the arms (paired t) or not (Welch's t). Noise between seeds is drawn from stored runs, or
is normal, or skewed (a gamma of shape 2, upside down: most runs good, some bad).

The second table searches each arm anew, so that they may choose different trials: a difference between
these is real, but is none between arms. No seeds of a confirm phase can tell; the report says so.

The last one judges grids without confirm runs, where each seed's trial is chosen by the other seeds. The true
difference is the mean of 10,000 more studies: where arms have different trials or noise, it is not 0, and
only the intervals count. `rho` is the correlation of a run's test result with its validation result; 1: one
figure selects and judges.

    python tests/benchmarks/verdict.py                                  # about 16 minutes
    python tests/benchmarks/verdict.py --runs outputs/report/tables/runs.csv      # noise of your own runs
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import ROOT, heading, table

sys.path.insert(0, str(ROOT / "tests"))

from studies import Arm, study

from fairsweep.compare import crossfit, statistics
from fairsweep.compare.analysis import decide
from fairsweep.compare.findings import ReportSettings
from fairsweep.compare.load import Tables
from fairsweep.metrics import LOSS

# Test images of 359 that 60 real runs got right: two_conv on digits, 10 epochs, seeds 0 to 29, defaults of
# conf/optimizer/adam.yaml and sgd.yaml.
STORED = {
    "adam": "346 351 352 351 354 352 351 353 352 349 354 353 348 354 352 "
    "350 351 351 349 350 347 354 348 348 352 348 353 350 350 349",
    "sgd": "351 353 343 354 351 353 355 352 347 355 353 351 351 353 349 "
    "350 351 354 347 341 351 352 352 350 351 352 354 351 353 347",
}
IMAGES = 359

Random = np.random.Generator
Noise = Callable[[Random, int], np.ndarray]  # N deviations from the mean, in standard deviations


def stored(values: np.ndarray) -> Noise:
    """Draws from what runs had."""
    deviations = (values - values.mean()) / values.std()
    return lambda random, count: random.choice(deviations, count)


def skewed(random: Random, count: int) -> np.ndarray:
    return (2 - random.gamma(2, size=count)) / np.sqrt(2)


NOISES: dict[str, Noise] = {
    **{
        f"stored runs of {name}": stored(np.array(text.split(), float) / IMAGES)
        for name, text in STORED.items()
    },
    "normal": lambda random, count: random.standard_normal(count),
    "skewed": skewed,
}


SD = 0.006  # between seeds, of validation and test accuracy


def template(seeds: int, shared: bool) -> Tables:
    """A study of an arm and itself, whose figures are to be drawn."""
    arm = Arm(lrs=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1))
    tables = study({"one": arm, "same": arm}, seeds=range(3), confirm=range(100, 100 + seeds), epochs=1)
    if not shared:
        other = (tables.runs["arm"] == "same") & (tables.runs["phase"] == "confirm")
        tables.runs.loc[other, "seed"] += 1000
    return tables


def drawn(tables: Tables, noise: Noise, random: Random, shift: float, anew: bool) -> Tables:
    """The study with figures drawn; `same` is better by a shift, in standard deviations between seeds."""
    runs = tables.runs.copy()
    same = runs["arm"] == "same"
    truth = np.array([0.964, 0.968, 0.970, 0.969, 0.960])  # of the trials
    validation = truth[runs["trial"]] + SD * noise(random, len(runs))
    if not anew:  # the same trials: the same runs
        validation[same] = validation[~same]
    runs["objective"] = runs["val_accuracy"] = validation
    # The sweep confirms what selection chooses.
    chosen = statistics.select(statistics.trials(runs, "val_accuracy", 1))
    runs["trial"] = runs["trial"].where(runs["phase"] == "search", runs["arm"].map(chosen))
    runs["test_accuracy"] = truth[runs["trial"]] + SD * (noise(random, len(runs)) + shift * same)
    return replace(tables, runs=runs)


def simulate(
    tables: Tables, noise: Noise, studies: int, shift: float, anew: bool = False, seed: int = 0
) -> pd.DataFrame:
    """A row for each study: whether a difference was claimed, and whether the interval held the true one."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(studies):
        (pair,) = decide(drawn(tables, noise, random, shift, anew), ReportSettings()).comparisons
        true = SD * shift * (1 if pair.better == "same" else -1)
        rows.append((pair.claimed, pair.low <= true <= pair.high))
    return pd.DataFrame(rows, columns=["claimed", "covered"])


class Grid(NamedTuple):
    """Two arms' trials, by how far each is below the best, and the second's noise, in standard deviations."""

    one: Sequence[float]
    other: Sequence[float]
    noise: float = 1.0

    @property
    def is_equal(self) -> bool:
        """Whether the arms are the same, so that each claim is false."""
        return self.one == self.other and self.noise == 1


def falling(step: float, count: int) -> list[float]:
    return [-step * place for place in range(count)]


GRIDS = {
    "7 equal trials": Grid(falling(0, 7), falling(0, 7)),
    "7 trials, 0.1 sd apart": Grid(falling(0.1, 7), falling(0.1, 7)),
    "7 trials, 0.3 sd apart": Grid(falling(0.3, 7), falling(0.3, 7)),
    "7 trials, 3 sd apart": Grid(falling(3, 7), falling(3, 7)),
    "1 against 12, equal": Grid(falling(0, 1), falling(0, 12)),
    "1 against 12, 0.3 sd apart": Grid(falling(0.3, 1), falling(0.3, 12)),
    "3 against 12, 0.3 sd apart": Grid(falling(0.3, 3), falling(0.3, 12)),
    "7 trials, one arm 3 times as noisy": Grid(falling(0, 7), falling(0, 7), 3),
}


def judged(
    truth: Sequence[float], noise: Noise, random: Random, shape: tuple[int, int], rho: float
) -> np.ndarray:
    """An arm's test results, (studies, seeds), at the trials that the other seeds choose."""
    studies, seeds = shape
    size = (studies, len(truth), seeds)
    first, second = (noise(random, math.prod(size)).reshape(size) for _ in range(2))
    level = np.array(truth)[None, :, None]
    chosen = crossfit.picks(level + first)
    test = level + rho * first + math.sqrt(1 - rho**2) * second
    return np.take_along_axis(test, chosen[:, None, :], axis=1)[:, 0]


def crossfitted(grid: Grid, noise: Noise, studies: int, seeds: int, rho: float) -> tuple[float, float]:
    """The shares of studies that claim a difference, and whose interval holds the true one."""
    random, shape = np.random.default_rng(0), (studies + 10_000, seeds)

    def loud(random: Random, count: int) -> np.ndarray:
        return grid.noise * noise(random, count)

    x, y = judged(grid.one, noise, random, shape, rho), judged(grid.other, loud, random, shape, rho)
    true, rows = float((x - y)[studies:].mean()), []
    for a, b in zip(x[:studies], y[:studies], strict=True):
        arms = ("one", pd.Series(-a)), ("other", pd.Series(-b))  # of a figure without bounds, less is better
        pair = statistics.compare(*arms, LOSS, overlap=2.0 if rho == 1 else 1.0)
        expected = true if pair.better == "one" else -true
        rows.append((pair.claimed, pair.low <= expected <= pair.high))
    claimed, held = np.mean(rows, axis=0)
    return float(claimed), float(held)


def share(values: pd.Series) -> str:
    return f"{100 * values.mean():.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500, help="for each figure (default: %(default)s)")
    parser.add_argument(
        "--runs", type=Path, help="a report's tables/runs.csv: draw noise from its confirm runs"
    )
    parser.add_argument("--grids", action="store_true", help="the last table alone, about 6 minutes")
    args = parser.parse_args()
    noises = NOISES
    if args.runs is not None:
        runs = pd.read_csv(args.runs)
        confirm = runs[(runs["phase"] == "confirm") & runs["test_accuracy"].notna()]
        noises = {
            f"{arm} of {args.runs}": stored(g.to_numpy())
            for arm, g in confirm.groupby("arm")["test_accuracy"]
        }
    print(f"{heading()}; {args.studies} studies a figure\n")
    if not args.grids:
        fresh(noises, args.studies)
    grids(noises, args.studies)


def fresh(noises: dict[str, Noise], studies: int) -> None:
    """Verdicts on confirm runs."""
    rows, searched = [], []
    for name, noise in noises.items():
        for seeds in (3, 5, 10):
            for shared in (True, False):
                tables = template(seeds, shared)
                none = simulate(tables, noise, studies, 0.0, seed=1)
                one = simulate(tables, noise, studies, 1.0, seed=2)
                covered = pd.concat([none["covered"], one["covered"]])
                figures = [share(none["claimed"]), share(one["claimed"]), share(covered)]
                rows.append([name, seeds, "shared" if shared else "different", *figures])
            anew = simulate(template(seeds, True), noise, studies, 0.0, anew=True)
            searched.append([name, seeds, share(anew["claimed"])])
    wanted = ["", "", "wanted", "at most 7%", "at least 45% at 10 seeds", "93 to 97%"]
    head = ["noise", "seeds", "they are", "claimed, none there", "claimed, 1 sd there", "intervals that hold"]
    print(table(head, [*rows, wanted]))
    print("\nEach arm searched anew:\n")
    print(table(["noise", "seeds", "claimed"], searched))


def grids(noises: dict[str, Noise], studies: int) -> None:
    """Verdicts on grids."""
    print("\nGrids, each seed's trial chosen by the other seeds, the range over all noises:\n")
    rows = []
    for name, grid in GRIDS.items():
        for rho in (0.0, 0.6, 1.0):
            row: list[object] = [name, rho]
            for seeds in (3, 5, 10):
                made = [crossfitted(grid, noise, studies, seeds, rho) for noise in noises.values()]
                (claims, held) = zip(*made, strict=True)
                row += [ranged(claims) if grid.is_equal else "", ranged(held)]
            rows.append(row)
    heads = [f"{what}, {seeds} seeds" for seeds in (3, 5, 10) for what in ("claimed", "hold")]
    print(table(["trials", "rho", *heads], rows))


def ranged(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}%"


if __name__ == "__main__":
    main()
