"""A verdict from a grid without fresh runs: each seed's trial is chosen by the other seeds.

No run judges a trial that it helped to choose, and the luck of the selection counts: an arm that would choose
another trial with other seeds varies more. Two seeds' choices share most of their runs, so the results of the
seeds are not independent. As Nadeau and Bengio (2003) do for overlapping training sets, the variance of the
mean is taken as 1/S + `overlap` / (S - 1) of that between seeds, instead of 1/S.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from fairsweep.compare.load import Tables

LEAST_SEEDS = 3

# Samplers, as `sweep.json` may name them, whose trials are independent of each other's results.
NO_LEARNING = ("grid", "random", "RandomSampler", "qmc", "QMCSampler")


class Impossible(ValueError):
    """The reason why a grid has no cross-fitted verdict, as the report states it."""


class Crossfit(NamedTuple):
    """The runs that judge, rows of `Tables.runs`; the judge's figures by arm and seed; their `overlap`."""

    runs: pd.DataFrame
    results: dict[str, pd.Series]
    overlap: float


def fit(tables: Tables) -> Crossfit:
    """Choose each arm's trial for each seed by the other seeds' objective, and judge it at that seed.

    Raises:
        Impossible: trials differ in seeds, or have fewer than three; there is one arm, or a run that judges
            diverged.
    """
    search = tables.runs[tables.runs["phase"] == "search"]
    check(tables, search)
    judging, results = [], {}
    for arm, runs in search.groupby("arm", sort=False):
        runs = runs.sort_values(["trial", "seed"])
        seeds = np.sort(runs["seed"].unique())
        objective = runs["objective"].where(runs["status"] == "finished", tables.metric.worst)
        chosen = picks(tables.metric.sign * objective.to_numpy().reshape(-1, len(seeds)))
        if (chosen < 0).any():
            raise Impossible(f"every trial of {arm} diverged at a seed that would choose")
        rows = runs.iloc[chosen * len(seeds) + np.arange(len(seeds))]
        if lost := rows["seed"][rows["status"] == "diverged"].tolist():
            raise Impossible(f"{arm} diverged at seed {lost[0]} with the trial that the other seeds chose")
        if rows[tables.judge].isna().any():
            raise Impossible(f"runs of {arm} lack a test {tables.tested.words}")
        results[str(arm)] = pd.Series(rows[tables.judge].to_numpy(), index=seeds)
        judging.append(rows)
    # A figure that also selects shares all its luck with the choice: seeds depend more on each other.
    is_same = search["objective"].equals(search[tables.judge].rename("objective"))
    return Crossfit(pd.concat(judging, ignore_index=True), results, 2.0 if is_same else 1.0)


def check(tables: Tables, search: pd.DataFrame) -> None:
    """Check that the runs of the search are a whole grid: the same three seeds or more for each trial.

    Raises:
        Impossible: they are not.
    """
    if search["arm"].nunique() < 2:
        raise Impossible("there is only one arm")
    if search.duplicated(["arm", "trial", "seed"]).any():
        raise Impossible("a trial has several runs of one seed")
    seeds = search.groupby(["arm", "trial"])["seed"].agg(frozenset)
    if (most := max(map(len, seeds))) < LEAST_SEEDS:
        few = "one seed" if most == 1 else f"{most} seeds"
        raise Impossible(f"{few} a trial cannot both choose and judge; it takes {LEAST_SEEDS}")
    if seeds.nunique() > 1:
        raise Impossible("the trials have different seeds")
    if (search["status"] == "pruned").any():
        raise Impossible("halving stopped trials early")
    if not search["status"].isin(("finished", "diverged")).all():
        raise Impossible("some runs have no result")
    if (search["objective"].isna() & (search["status"] == "finished")).any():
        raise Impossible(f"some runs have no {tables.objective}")
    if any(sweep.get("sampler", "grid") not in NO_LEARNING for sweep in tables.sweeps):
        raise Impossible("the sampler learned from all seeds which trials to make")


def picks(scores: np.ndarray) -> np.ndarray:
    """The trial that the other seeds choose for each seed: of equals, the first; -1 where there is none.

    Args:
        scores: (..., trials, seeds), higher is better, -inf where a run diverged.

    Returns:
        (..., seeds) places of trials. A trial that diverged at a seed that chooses is not chosen.
    """
    chosen = []
    for seed in range(scores.shape[-1]):
        # Rounded, as the same figures in another order are a tie.
        means = np.round(np.delete(scores, seed, axis=-1).mean(axis=-1), 12)
        chosen.append(np.where(means.max(axis=-1) == -math.inf, -1, means.argmax(axis=-1)))
    return np.stack(chosen, axis=-1)
