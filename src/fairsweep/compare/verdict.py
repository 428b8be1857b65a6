"""The verdict: which runs can decide, what they say of the arms, and that in a sentence or two."""

import math
from collections import Counter

import numpy as np
import pandas as pd

from fairsweep.compare import statistics
from fairsweep.compare.findings import Findings, percent, points
from fairsweep.compare.statistics import Comparison
from fairsweep.wording import counted, listed


def judge(found: Findings) -> None:
    """Find the runs that can decide, compare the arms by them, and say in words what that shows."""
    runs = found.tables.runs
    confirm, search = (runs[runs["phase"] == phase] for phase in ("confirm", "search"))
    chosen = dict(found.chosen)
    if len(confirm):
        found.evidence, rows = "confirm", confirm
        for arm in found.arms:
            confirmed = sorted(set(confirm["trial"][confirm["arm"] == arm]))
            if not confirmed or found.chosen.get(arm) in confirmed:
                continue
            scores = found.trials["score"].reindex([(arm, trial) for trial in confirmed]).fillna(-math.inf)
            chosen[arm] = confirmed[int(scores.argmax())]
            if arm in found.chosen:
                found.remarks.append(
                    f"{arm}: trial {found.chosen[arm]} is the best on validation, but trial {chosen[arm]} "
                    "was confirmed and is shown; the sweep's command again confirms the best."
                )
    elif (runs.groupby("arm")["trial"].nunique() == 1).all():
        found.evidence, rows = "untuned", runs
        chosen = dict(zip(runs["arm"], runs["trial"], strict=True))
    else:
        found.evidence, rows = "search", search
    found.chosen = chosen
    found.judged = rows[rows["trial"] == rows["arm"].map(chosen)].reset_index(drop=True)
    results: dict[str, dict[int, float]] = {}
    for row in found.judged[["arm", "seed", "status", "test_accuracy"]].to_dict("records"):
        value = -math.inf if row["status"] == "diverged" else row["test_accuracy"]
        if row["status"] in ("finished", "diverged") and not math.isnan(value):
            results.setdefault(row["arm"], {})[row["seed"]] = value
    found.results = {arm: pd.Series(results[arm]) for arm in found.arms if arm in results}
    if found.evidence != "search":
        found.comparisons = statistics.comparisons(found.results)
    running = any(sweep["status"] == "running" for sweep in found.tables.sweeps)
    found.verdict = f"So far: {say(found)}" if running else say(found)


def say(found: Findings) -> str:
    """The verdict in one or two sentences."""
    runs, results = found.tables.runs, found.results
    finished = {arm: ended for arm, values in results.items() if len(ended := values[np.isfinite(values)])}
    if (runs["status"] == "diverged").all():
        return f"No verdict: all {len(runs)} runs diverged. Try lower learning rates."
    if not found.chosen:
        text = f"No verdict: no trial is complete, with a {found.tables.objective} for each of its seeds."
        blind = runs.loc[runs["status"] == "finished", "objective"].isna().all()
        return (
            f"{text} The runs have none: they had no validation images (data.val_size=0)." if blind else text
        )
    if found.evidence == "search":
        return without_confirmation(found)
    if not finished:
        return "No verdict: of the runs that decide it, none has a test accuracy."
    if len(results) == 1:
        return of_one(found, *results)
    if all(math.isnan(pair.p) for pair in found.comparisons):
        few = min(len(values) for values in results.values()) < 2
        why = (
            "one seed only cannot tell a difference from luck" if few else "the results do not differ by seed"
        )
        means = listed(f"{arm} {percent(ended.mean())}" for arm, ended in finished.items())
        return f"No verdict: {why}. Test accuracy: {means}."
    if len(results) == 2:
        return of_two(found, found.comparisons[0])
    return of_many(found)


def of_one(found: Findings, arm: str) -> str:
    """What there is to say of the only arm that has results."""
    values = found.results[arm]
    ended, (low, high) = values[np.isfinite(values)], statistics.mean_interval(values)
    others = [name for name in found.arms if name != arm]
    why = f"no result of {listed(others)}" if others else f"one arm only, {arm}"
    span = "" if math.isnan(low) else f" (95 % interval {percent(low)} to {percent(high)})"
    setting = f"With {found.setting(arm)}, its" if found.setting(arm) else "Its"
    return (
        f"No comparison: there is {why}. {setting} mean test accuracy over {counted(len(ended), 'seed')} is "
        f"{percent(ended.mean())}{span}."
    )


def of_many(found: Findings) -> str:
    """The verdict on three arms or more."""
    results = found.results
    wins = Counter(pair.better for pair in found.comparisons)
    ended = {arm: values[np.isfinite(values)].mean() for arm, values in results.items()}
    leader = max(results, key=lambda arm: (wins[arm], ended[arm]))
    ahead = [pair for pair in found.comparisons if pair.better == leader]
    beaten = [pair.worse for pair in ahead if pair.claimed]
    named = {arm: f"{arm} ({percent(mean)})" for arm, mean in ended.items()}
    if len(beaten) == len(results) - 1:
        found.best = leader
        others = listed(named[arm] for arm in results if arm != leader)
        return (
            f"{leader} is the best of {len(results)} arms: its mean test accuracy, {percent(ended[leader])}, "
            f"is shown to be higher than that of {others}, each by itself and by Holm's correction."
        )
    still = listed((named[arm] for arm in results if arm not in (leader, *beaten)), "or")
    text = (
        f"No single best arm is shown: {named[leader]} is ahead in mean test accuracy, but no difference to "
    )
    text += f"{still} is shown"
    return f"{text}; it is better than {listed(named[arm] for arm in beaten)}." if beaten else f"{text}."


def of_two(found: Findings, pair: Comparison) -> str:
    """The verdict on two arms."""
    a, b = pair.better, pair.worse
    found.best = a if pair.claimed else None
    results = {arm: found.results[arm] for arm in (a, b)}
    means = [percent(values[np.isfinite(values)].mean()) for values in results.values()]
    claim = f"{a} is better than {b}" if pair.claimed else f"No difference shown between {a} and {b}"
    lost = {arm: int(np.isinf(values).sum()) for arm, values in results.items()}
    of = (
        listed(f"{n} of {len(results[arm])} runs of {arm}" for arm, n in lost.items() if n)
        if any(lost.values())
        else ""
    )
    diverged = f"{of} diverged; of the others, " if of else ""
    gap = f", a difference of {points(pair.difference)} points"
    if not math.isnan(pair.low):
        gap += f" (95 % interval {points(pair.low)} to {points(pair.high)}; {pair.method})"
    return (
        f"{claim}: {diverged}mean test accuracy {means[0]} against {means[1]}{'' if of else gap}."
        f"{relevance(found, pair)} A run of {a} beats one of {b} with probability {pair.probability:.2f}."
    )


def relevance(found: Findings, pair: Comparison) -> str:
    """What the interval says of the smallest difference that matters."""
    least = found.settings.relevant
    if math.isnan(pair.low):
        return ""
    matter = f"the {100 * least:.2g} points that matter"
    if max(pair.high, -pair.low) < least:
        return f" The difference is below {matter}."
    if not pair.claimed:
        return f" One of up to {points(max(pair.high, -pair.low))} points remains possible."
    return f" It may still be below {matter}." if pair.low < least else ""


def without_confirmation(found: Findings) -> str:
    """Why there is no verdict where the runs that chose the trials are all there are."""
    objective, sign = found.tables.objective, found.tables.sign
    means = found.trials["mean"].reindex(list(found.chosen.items())).droplevel("trial")
    ahead = listed(
        f"{arm} with {percent(mean) if objective == 'val_accuracy' else f'{mean:.4f}'} ({found.setting(arm)})"
        for arm, mean in means.sort_values(ascending=sign < 0).items()
    )
    why = "there are no confirm runs, and those that chose each arm's best trial cannot judge it"
    return f"No verdict: {why}. On validation: {ahead}."
