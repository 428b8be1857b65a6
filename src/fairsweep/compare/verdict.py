"""The verdict: which runs can decide, what they say of the arms, and that in a sentence or two."""

import math
from collections import Counter

import numpy as np
import pandas as pd

from fairsweep.compare import crossfit, price, statistics
from fairsweep.compare.findings import Findings
from fairsweep.compare.load import number
from fairsweep.compare.statistics import Comparison
from fairsweep.metrics import Metric
from fairsweep.wording import counted, listed

# Below this many seeds, even a difference of three standard deviations is often not shown.
FEW_SEEDS = 5


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
                    "was confirmed and is shown; repeat the sweep's command to confirm the best."
                )
    elif (runs.groupby("arm")["trial"].nunique() == 1).all():
        found.evidence, rows = "untuned", runs
        chosen = dict(zip(runs["arm"], runs["trial"], strict=True))
    else:
        found.evidence, rows = "search", search
    found.chosen = chosen
    judged = rows[rows["trial"] == rows["arm"].map(chosen)]
    found.judged = judged.drop_duplicates(["arm", "run"], ignore_index=True)
    found.results = results_of(found)
    why = repeat_search(found)
    if (
        found.evidence != "crossfit"
        and len(found.results) > 1
        and (shared := statistics.shared_seeds(found.results.values())) is not None
    ):
        compare_shared(found, shared)
    if found.evidence != "search" and not found.tables.missing:
        found.comparisons = statistics.comparisons(found.results, found.tables.tested, found.overlap)
    in_progress = {"running", "interrupted"} & {sweep["status"] for sweep in found.tables.sweeps}
    if found.tables.missing:
        found.verdict = f"No verdict yet: {found.tables.missing}."
    else:
        text = without_confirmation(found, why) if is_search(found) else say(found)
        found.verdict = f"So far: {text}" if in_progress else text


def is_search(found: Findings) -> bool:
    """Whether there are chosen trials, and nothing that could judge them."""
    return found.evidence == "search" and bool(found.chosen)


def repeat_search(found: Findings) -> str:
    """Judge each arm with its selection: the whole verdict without confirm runs, with them a remark.

    Gives why that is not possible; empty where it was done, or nothing is to be selected.
    """
    tables = found.tables
    if found.evidence not in ("search", "confirm") or tables.missing:
        return ""
    try:
        made = crossfit.fit(tables)
    except crossfit.Impossible as error:
        return str(error)
    if found.evidence == "search":
        found.evidence, found.overlap = "crossfit", made.overlap
        found.judged, found.results = made.runs, made.results
        return ""
    pairs = statistics.comparisons(made.results, tables.tested, made.overlap)
    each = "; ".join(in_short(pair, tables.tested) for pair in pairs)
    found.remarks.append(f"With the search repeated (each seed's trial chosen by the other seeds): {each}.")
    return ""


def in_short(pair: Comparison, metric: Metric) -> str:
    """What a comparison shows, in a clause."""
    if math.isnan(pair.low):
        return f"{pair.better} and {pair.worse} cannot be compared ({pair.method})"
    like = pair.mean_better
    low, high = (metric.difference(end, False, like) for end in (pair.low, pair.high))
    numbers = f"{by(pair, metric)} (95% interval {low} to {high})"
    if pair.claimed:
        return f"{pair.better} is better than {pair.worse}, {numbers}"
    return f"no difference shown between {pair.better} and {pair.worse}, {numbers}"


def by(pair: Comparison, metric: Metric) -> str:
    """By how much the better arm's mean differs from the other's, and which way: `lower by 0.0123`."""
    if pair.difference == 0:
        return "equal"
    is_higher = (pair.difference > 0) == (metric.sign > 0)
    size = metric.difference(abs(pair.difference), like=pair.mean_better)
    return f"{'higher' if is_higher else 'lower'} by {size}"


def results_of(found: Findings) -> dict[str, pd.Series]:
    """What judges each arm's runs by seed, the worst there is where they diverged."""
    judge, worst = found.tables.judge, found.tables.tested.worst
    results: dict[str, dict[int, float]] = {}
    for row in found.judged[["arm", "seed", "status", judge]].to_dict("records"):
        value = worst if row["status"] == "diverged" else row[judge]
        if row["status"] in ("finished", "diverged") and not math.isnan(value):
            results.setdefault(row["arm"], {})[row["seed"]] = value
    return {arm: pd.Series(results[arm]) for arm in found.arms if arm in results}


def compare_shared(found: Findings, shared: pd.Index) -> None:
    """Judge only the seeds of which all arms have a result, for means and differences of the same runs."""
    unused = {arm: sorted(map(int, values.index.difference(shared))) for arm, values in found.results.items()}
    if not any(unused.values()):
        return
    each = listed(f"{arm} {seeds}" for arm, seeds in unused.items() if seeds)
    found.remarks.append(
        f"Not all arms have a result for every seed. The comparison uses the {len(shared)} seeds that all "
        f"arms share, without the results of {each}."
    )
    without = [row["seed"] in unused.get(row["arm"], ()) for row in found.judged.to_dict("records")]
    found.judged = found.judged[[not gone for gone in without]].reset_index(drop=True)
    found.results = {arm: values[shared] for arm, values in found.results.items()}


def say(found: Findings) -> str:
    """The verdict in one or two sentences."""
    runs, results, metric = found.tables.runs, found.results, found.tables.tested
    finished = {arm: ended for arm, values in results.items() if len(ended := values[np.isfinite(values)])}
    if (runs["status"] == "diverged").all():
        return f"No verdict: all {len(runs)} runs diverged. Try lower learning rates."
    if not found.chosen:
        text = f"No verdict: no trial is complete, with a {found.tables.objective} for each of its seeds."
        finished_runs = runs[runs["status"] == "finished"]
        blind = len(finished_runs) and finished_runs["objective"].isna().all()
        return f"{text} The runs have none: without validation images (data.val_size=0)?" if blind else text
    if not finished:
        sizes = found.tables.params.get("data.test_size", pd.Series(dtype=str)).map(number)
        why = " There were no test images (data.test_size=0)." if len(sizes) and (sizes == 0).all() else ""
        return f"No verdict: none of the runs that decide it has a test {metric.words}.{why}"
    if len(results) == 1:
        return of_one(found, *results)
    if all(math.isnan(pair.p) for pair in found.comparisons):
        few = min(len(values) for values in results.values()) < 2
        paired = all(pair.seeds for pair in found.comparisons)
        why = "the arms differ by the same amount at every seed" if paired else "no result differs by seed"
        if few:
            why = "one seed cannot tell a difference from luck"
        means = listed(f"{arm} {metric.text(ended.mean())}" for arm, ended in finished.items())
        return f"No verdict: {why}. Test {metric.words}: {means}."
    text = of_two(found, found.comparisons[0]) if len(results) == 2 else of_many(found)
    if found.evidence == "crossfit":
        text += " Each seed's trial was chosen by the other seeds, so this counts the luck of the selection."
    return text


def of_one(found: Findings, arm: str) -> str:
    """What there is to say of the only arm that has results."""
    values, metric = found.results[arm], found.tables.tested
    ended, (low, high) = values[np.isfinite(values)], statistics.mean_interval(values, metric)
    others = [name for name in found.arms if name != arm]
    why = f"no result of {listed(others)}" if others else f"only one arm, {arm}"
    span = f" (95% interval {metric.text(low)} to {metric.text(high)})"
    if math.isnan(low):
        span = " (too few seeds for an interval)" if len(ended) < 3 else ""
    setting = f"With {found.setting(arm)}, its" if found.setting(arm) else "Its"
    return (
        f"No comparison: there is {why}. {setting} mean test {metric.words} over "
        f"{counted(len(ended), 'seed')} is {metric.text(ended.mean())}{span}."
    )


def of_many(found: Findings) -> str:
    """The verdict on three arms or more."""
    results, pairs, metric = found.results, len(found.comparisons), found.tables.tested
    wins = Counter(pair.better for pair in found.comparisons)
    means = {
        arm: ended.mean() for arm, values in results.items() if len(ended := values[np.isfinite(values)])
    }
    leader = max(results, key=lambda arm: (wins[arm], metric.sign * means.get(arm, metric.worst)))
    ahead = [pair for pair in found.comparisons if pair.better == leader]
    beaten = [pair.worse for pair in ahead if pair.claimed]
    shown = {arm: metric.text(means[arm]) if arm in means else "all diverged" for arm in results}
    named = {arm: f"{arm} ({text})" for arm, text in shown.items()}
    if len(beaten) == len(results) - 1:
        better = "higher" if metric.sign > 0 else "lower"
        found.best = leader
        others = listed(named[arm] for arm in results if arm != leader)
        return (
            f"{leader} is the best of {len(results)} arms: its mean test {metric.words}, "
            f"{metric.text(means[leader])}, is shown to be {better} than that of "
            f"{others} (Bonferroni's correction for {pairs} pairs)."
        )
    open_ = [arm for arm in results if arm not in (leader, *beaten)]
    better = f"; it is better than {listed(named[arm] for arm in beaten)}" if beaten else ""
    if any(shown[arm] == shown[leader] for arm in open_):
        what = f"no difference between {listed(named[arm] for arm in (leader, *open_))} is shown"
        better = f"; {leader} is better than {listed(named[arm] for arm in beaten)}" if beaten else ""
    else:
        others = listed((named[arm] for arm in open_), "or")
        what = f"{named[leader]} is ahead, but no difference to {others} is shown"
    few = " with so few seeds" if is_small(found) else ""
    closest = [pair for pair in found.comparisons if leader in (pair.better, pair.worse) and not pair.claimed]
    cost = price.said(found, closest[0], matters(found)) if closest else ""
    if cost and len(closest) > 1:
        whose = f"By the spread of {closest[0].better} and {closest[0].worse}"
        cost = cost.replace("By the spread seen", whose)
    text = f"No single best arm is shown{few}: {what}{better}"
    return f"{text} (Bonferroni's correction for {pairs} pairs).{cost}"


def is_small(found: Findings) -> bool:
    """Whether seeds are so few that only a gross difference could be shown."""
    return min(len(values) for values in found.results.values()) < FEW_SEEDS


def of_two(found: Findings, pair: Comparison) -> str:
    """The verdict on two arms."""
    a, b, metric = pair.better, pair.worse, found.tables.tested
    found.best = a if pair.claimed else None
    few = is_small(found)
    claim = f"{a} is better than {b}"
    if not pair.claimed:
        claim = f"No difference shown between {a} and {b}"
        claim = f"Too few seeds to tell {a} and {b} apart" if few else claim
    lost = {arm: int(np.isinf(found.results[arm]).sum()) for arm in (a, b)}
    means = f"mean test {metric.words} {metric.text(pair.mean_better)} against {metric.text(pair.mean_worse)}"
    if not any(lost.values()):
        means += f", {by(pair, metric)}"
        if not math.isnan(pair.low):
            low, high = (metric.difference(end, False, pair.mean_better) for end in (pair.low, pair.high))
            means += f" (95% interval {low} to {high}; {pair.method})"
    else:
        runs = {arm: len(found.results[arm]) for arm in (a, b)}
        each = listed(f"{n} of {counted(runs[arm], 'run')} of {arm}" for arm, n in lost.items() if n)
        of = "over the seeds at which neither diverged, " if pair.seeds else "of the others, "
        numbers = not (math.isnan(pair.mean_better) or math.isnan(pair.mean_worse))
        means = f"{each} diverged; {of}{means}" if numbers else f"{each} diverged"
        means += f" ({pair.method})"
    # Of few seeds, one that wins everywhere would read as certainty.
    wins = f" A run of {a} beats one of {b} with probability {pair.probability:.2f}." if not few else ""
    cost = "" if pair.claimed else price.said(found, pair, matters(found))
    return f"{claim}: {means}.{relevance(found, pair)}{wins}{cost}"


def matters(found: Findings) -> str:
    """The smallest difference that matters, in words; empty if it is not known."""
    least = found.settings.relevant
    return f"the {smallest(found.tables.tested, least)} that matter" if least else ""


def relevance(found: Findings, pair: Comparison) -> str:
    """What the interval says of the smallest difference that matters."""
    metric, least = found.tables.tested, found.settings.relevant or 0.0
    if math.isnan(pair.low):
        return ""
    most = max(pair.high, -pair.low)
    matter = f"the {smallest(metric, least)} that matter{'' if metric.unit == '%' else 's'}"
    if most < least:
        return f" The difference is below {matter}."
    if not pair.claimed:
        up_to = f"A difference of up to {metric.difference(most, like=pair.mean_better)}"
        up_to = up_to if most < metric.width else "Any difference"
        return f" {up_to} remains possible."
    return f" It may still be below {matter}." if pair.low < least else ""


def smallest(metric: Metric, least: float) -> str:
    """The smallest difference that matters, as it was given: `0.1 points`."""
    return f"{100 * least:.2g} points" if metric.unit == "%" else f"{least:g}"


def without_confirmation(found: Findings, why: str) -> str:
    """Why there is no verdict where the runs that chose the trials are all there are.

    Args:
        why: they cannot choose and judge in turn.
    """
    metric = found.tables.metric
    means = found.trials["mean"].reindex(list(found.chosen.items())).droplevel("trial")
    each = listed(
        f"{arm} with {metric.text(mean)} ({found.setting(arm)})"
        for arm, mean in means.sort_values(ascending=metric.sign < 0).items()
    )
    reason = "there are no confirm runs, and the runs that chose each arm's best trial cannot judge it"
    return f"No verdict: {reason}{f': {why}' if why else ''}. On validation: {each}."
