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

The last table searches each arm anew, so that they may choose different trials: a difference between these is
real, but is none between arms. No seeds of a confirm phase can tell; the report says so.

    python tests/benchmarks/verdict.py                                  # about 10 minutes
    python tests/benchmarks/verdict.py --runs outputs/report/tables/runs.csv      # noise of your own runs
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, heading, table

sys.path.insert(0, str(ROOT / "tests"))

from studies import Arm, study

from fairsweep.compare import statistics
from fairsweep.compare.analysis import decide
from fairsweep.compare.findings import ReportSettings
from fairsweep.compare.load import Tables

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
    rows, searched = [], []
    for name, noise in noises.items():
        for seeds in (3, 5, 10):
            for shared in (True, False):
                tables = template(seeds, shared)
                none = simulate(tables, noise, args.studies, 0.0, seed=1)
                one = simulate(tables, noise, args.studies, 1.0, seed=2)
                covered = pd.concat([none["covered"], one["covered"]])
                figures = [share(none["claimed"]), share(one["claimed"]), share(covered)]
                rows.append([name, seeds, "shared" if shared else "different", *figures])
            anew = simulate(template(seeds, True), noise, args.studies, 0.0, anew=True)
            searched.append([name, seeds, share(anew["claimed"])])
    wanted = ["", "", "wanted", "at most 7%", "at least 45% at 10 seeds", "93 to 97%"]
    head = ["noise", "seeds", "they are", "claimed, none there", "claimed, 1 sd there", "intervals that hold"]
    print(table(head, [*rows, wanted]))
    print("\nEach arm searched anew:\n")
    print(table(["noise", "seeds", "claimed"], searched))


if __name__ == "__main__":
    main()
