"""The figures of a report, as plain descriptions: `interactive.py` and `static.py` draw the same ones."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fairsweep.compare.analysis import profile
from fairsweep.compare.crossfit import NO_LEARNING
from fairsweep.compare.findings import LR, Findings
from fairsweep.compare.load import number
from fairsweep.compare.statistics import Comparison, mean_interval
from fairsweep.compare.verdict import smallest
from fairsweep.metrics import LOSS, Metric, is_known, metric_of
from fairsweep.wording import described, short

# After Paul Tol's bright scheme: told apart by the colour-blind, on white and on black.
COLORS = ("#4c8dc4", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon")
GREY = "#888888"

# Names are wrapped after this many characters.
WRAP = 24

# With this many runs or more, an arm's curves are only a mean and a range.
MANY_CURVES = 30


class Style(NamedTuple):
    color: str = GREY
    symbol: str = "circle"


@dataclass
class Layer:
    """Something drawn in a panel: `points`, a `line`, `steps`, a `band` from y to `high`, or `interval`s.

    Attributes:
        arm: decides the colour, and the symbol unless there is one of its own; grey for none.
        low, high: the ends of intervals, along x where the panel is `sideways`.
        runs: an MLflow run id, or None, for each point. texts: what each point says when pointed at, in
            lines.
        named: stands for the arm in the legend.
        size, width: in pixels.
    """

    kind: str
    x: Sequence[Any]
    y: Sequence[Any]
    arm: str = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    runs: Sequence[str | None] = ()
    texts: Sequence[str] = ()
    symbol: str = ""
    size: float = 7
    width: float = 2
    opacity: float = 1.0
    dashed: bool = False
    named: bool = False


@dataclass
class Axis:
    """An axis of a panel; `ticks` are places and their names."""

    label: str = ""
    log: bool = False
    percent: bool = False
    ticks: tuple[Sequence[float], Sequence[str]] | None = None
    range: tuple[float, float] | None = None


@dataclass
class Panel:
    """A pair of axes; `strip` holds the points that have an x alone, in a row below it: the diverged runs."""

    title: str
    x: Axis
    y: Axis
    layers: list[Layer]
    strip: list[Layer] = field(default_factory=list)
    sideways: bool = False


@dataclass
class Parallel:
    """Lines across several axes: `values` has a column for each axis, and a row for each line.

    `arms` and `rows` (of `Tables.runs`) say whose lines they are.
    """

    axes: list[Axis]
    values: pd.DataFrame
    arms: list[str]
    rows: list[int]


@dataclass
class Figure:
    """A figure of a section; its `height` in pixels of the page."""

    name: str
    title: str
    caption: str
    panels: list[Panel] = field(default_factory=list)
    height: int = 400
    parallel: Parallel | None = None
    styles: dict[str, Style] = field(default_factory=dict)


def figures(found: Findings) -> list[Figure]:
    """All figures for which there are numbers, in the order of the sections."""
    makers: list[Callable[[Findings], Figure | None]] = [
        verdict, sensitivity, curves, target, budget, tuning, parallel,
    ]  # fmt: skip
    made = [figure for maker in makers if (figure := maker(found)) is not None]
    return [replace(figure, styles=styles(found)) for figure in made]


def styles(found: Findings) -> dict[str, Style]:
    """Colour and symbol of each arm; after six arms they begin again."""
    repeated = [Style(*pair) for pair in zip(COLORS, SYMBOLS, strict=True)]
    return {arm: repeated[place % len(repeated)] for place, arm in enumerate(found.arms)}


# Parts of several


def wrapped(name: str) -> str:
    """An arm's name in lines that fit beside or below an axis."""
    return "\n".join(textwrap.wrap(name, WRAP)) or name


def widest(names: Iterable[str]) -> int:
    """The characters of the longest line of these names."""
    return max((len(line) for name in names for line in name.split("\n")), default=0)


def dots(found: Findings, rows: pd.DataFrame, x: Iterable[float], column: str, **look: Any) -> Layer:
    """A point for each run of one arm, which tells its figure; diverged ones have none."""
    texts = []
    for values, row in zip(rows["values"], rows.itertuples(), strict=True):
        value = getattr(row, column)
        said = (found.tables.tested if column == found.tables.judge else found.tables.metric).text(value)
        said = {"finished": said, "diverged": "diverged"}.get(row.status, f"{row.status}, {said}")
        where = f"{row.phase}, trial {row.trial}, seed {row.seed}"
        texts.append(f"{row.arm} {described(values)}\n{where}\n{said}")
    arm, runs = rows["arm"].iloc[0], rows["run"].tolist()
    return Layer("points", list(x), rows[column].tolist(), arm, runs=runs, texts=texts, **look)


def crosses(found: Findings, rows: pd.DataFrame, x: Iterable[float]) -> Layer:
    """The diverged runs of one arm, for a strip."""
    return replace(dots(found, rows, x, "objective", symbol="x", size=9), y=[0.0] * len(rows))


def span(values: Iterable[float], margin: float = 0.08) -> tuple[float, float]:
    """A range with some room at both ends."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = margin * (high - low) or 0.01 * abs(high) or 1.0
    return low - room, high + room


def objective_axis(found: Findings, values: Sequence[float]) -> Axis:
    """The objective: shares in percent, others on a logarithmic axis where they are far apart."""
    label = f"validation {found.tables.metric.words}"
    if found.tables.metric.unit == "%":
        return Axis(label, percent=True)
    return numeric_axis(label, values, 3)


def numeric_axis(label: str, values: Sequence[float] | pd.Series, times: float = 10) -> Axis:
    """An axis of numbers, logarithmic if the largest is more than `times` the smallest; with three ticks."""
    known = np.asarray([value for value in values if math.isfinite(value)])
    if not len(known) or known.min() <= 0 or known.max() <= times * known.min():
        return Axis(label)
    low, high = math.log10(known.min()), math.log10(known.max())
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    marks: list[float] = []
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        marks = [step * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        marks = [mark for mark in marks if low <= math.log10(mark) <= high]
        if len(marks) > 2:
            break
    return Axis(label, True, ticks=(marks, [f"{mark:g}" for mark in marks]), range=(10**low, 10**high))


# 1: the verdict


def verdict(found: Findings) -> Figure | None:
    """What judges each run, by arm; the differences with their intervals."""
    judged, judge, metric = found.judged, found.tables.judge, found.tables.tested
    finished = judged[(judged["status"] == "finished") & judged[judge].notna()]
    if not found.results:
        return None
    layers, strip, bounds = [], [], finished[judge].tolist()
    for place, (arm, results) in enumerate(found.results.items()):
        own, lost = (some[some["arm"] == arm] for some in (finished, found.judged))
        lost = lost[lost["status"] == "diverged"]
        if len(lost):
            strip.append(crosses(found, lost, spaced(place, len(lost))))
        if not len(own):
            continue
        layers.append(dots(found, own, spaced(place, len(own)), judge, opacity=0.75))
        mean, (low, high) = own[judge].mean(), mean_interval(results, metric, found.overlap)
        bounds += [low, high]
        text = f"{arm}\nmean {metric.text(mean)}"
        text += "" if math.isnan(low) else f"\n95% interval {metric.text(low)} to {metric.text(high)}"
        ends: Any = {"low": [low], "high": [high], "texts": [text]}
        layers.append(Layer("interval", [place + 0.32], [mean], arm, **ends, size=11, width=3))
    names = [wrapped(f"{arm}, n={len(results)}") for arm, results in found.results.items()]
    x = Axis(ticks=(range(len(names)), names), range=(-0.5, len(names) - 0.3))
    of = {"confirm": "each point a fresh seed", "untuned": "each point a seed", "search": "search seeds"}
    of["crossfit"] = "each seed's trial chosen by the other seeds"
    y = Axis(percent=metric.unit == "%", range=span(bounds))
    panels = [Panel(f"Test {metric.words}, {of[found.evidence]}", x, y, layers, strip)]
    caption = "Points: runs. Bars: each arm's mean and its own, unadjusted 95% interval (Student's t)."
    pairs = [pair for pair in found.comparisons if math.isfinite(pair.low)]
    if pairs:
        panels.append(differences(found, pairs))
        caption += (
            f" Differences: each pair's 95% interval{simultaneous(found)}; grey if no difference is shown."
        )
        if least := found.settings.relevant:
            caption += f" The band marks differences below {smallest(metric, least)}, too small to matter."
    return Figure("verdict", "The runs behind the verdict", caption, panels, 380)


def simultaneous(found: Findings) -> str:
    """The adjustment of the intervals and p-values of differences, if there are several pairs."""
    pairs = len(found.comparisons)
    return f", adjusted for {pairs} pairs" if pairs > 1 else ""


def spaced(place: int, count: int) -> list[float]:
    """Places side by side around one, so that no point hides another."""
    width = 0.36 * min(1, count / 4)
    return [place + width * (i / max(1, count - 1) - 0.5) for i in range(count)]


def differences(found: Findings, pairs: Sequence[Comparison]) -> Panel:
    """Pairs of arms, by how much the better one is ahead, of shares in points, and the interval."""
    metric = found.tables.tested
    scale = 100 if metric.unit == "%" else 1
    top, least = len(pairs) - 0.4, scale * (found.settings.relevant or 0.0)
    layers = [
        Layer("band", [-least, least], [-0.6, -0.6], high=[top, top], opacity=0.2),
        Layer("line", [0, 0], [-0.6, top], width=1.5),
    ]
    names, reach = [], [0.0]
    for place, pair in enumerate(pairs[::-1]):
        parts = (wrapped(pair.better), wrapped(pair.worse))[:: metric.sign]
        is_short = len(pair.better) + len(pair.worse) < WRAP
        names.append(f"{parts[0]} \N{MINUS SIGN}{' ' if is_short else chr(10)}{parts[1]}")
        difference, low, high = (scale * value for value in (pair.difference, pair.low, pair.high))
        reach += [low, high]
        text = f"{' '.join(names[-1].split())}: {metric.difference(pair.difference, like=pair.mean_better)}\n"
        ends_of = (metric.difference(end, False, pair.mean_better) for end in (pair.low, pair.high))
        text += f"95% interval {' to '.join(ends_of)}"
        text += f"{simultaneous(found)}\n{pair.method}\np = {pair.p_text}{simultaneous(found)}"
        ends: Any = {"low": [low], "high": [high], "texts": [text]}
        arm = pair.better if pair.claimed else ""
        layers.append(Layer("interval", [difference], [place], arm, **ends, size=11, width=3))
    what = "percentage points of test" if metric.unit == "%" else "difference in test"
    x = Axis(f"{what} {metric.words}", range=span(reach, 0.12))
    y = Axis(ticks=(range(len(names)), names), range=(-0.6, top))
    return Panel(f"Difference, with 95% interval{simultaneous(found)}", x, y, layers, sideways=True)


# 2: sensitivity


def sensitivity(found: Findings) -> Figure | None:
    """The objective of each trial against the axis, all of it and near the best."""
    if found.axis is None:
        return None
    runs, objective = found.tables.runs, found.tables.objective
    search = runs[runs["phase"] == "search"]
    trial_of = pd.MultiIndex.from_frame(search[["arm", "trial"]])
    search = search.assign(place=found.trials["place"].reindex(trial_of).to_numpy())
    search = search[search["place"].notna()]
    layers, strip = [], []
    for arm, rows in search.groupby("arm"):
        layers += trend(found, str(arm))
        for status, column, look in (
            ("finished", "objective", {"named": True}),
            ("pruned", objective, {"symbol": f"{styles(found)[str(arm)].symbol}-open"}),
        ):
            some = rows[(rows["status"] == status) & rows[column].notna()]
            if len(some):
                layers.append(dots(found, some, some["place"], column, size=6, opacity=0.8, **look))
        lost = rows[rows["status"] == "diverged"]
        if len(lost):
            strip.append(crosses(found, lost, lost["place"]))
        layers += best_point(found, str(arm))
    heights = [value for layer in layers if layer.kind == "points" for value in layer.y]
    name = "learning rate" if found.axis == LR else short(found.axis)
    x, y = numeric_axis(name, search["place"]), objective_axis(found, heights)
    panels = [Panel("", x, y, layers, strip)]
    best = found.trials["mean"].reindex(list(found.chosen.items())).dropna()
    if y.percent and len(best):
        sign = found.tables.metric.sign
        scores, heights = sign * best, [sign * height for height in heights]
        floor = scores.min() - max(0.02, 1.5 * (found.tables.metric.best - scores.max()))
        if min(heights) < floor:
            near = Axis(y.label, percent=True, range=upwards(sign, floor, span([floor, max(heights)])[1]))
            panels[0].title = "Whole range"
            panels.append(Panel("Near the best", x, near, layers))
    caption = (
        "Points: runs of the search. Lines and bands: the mean over seeds and its range. Star: the best "
        "trial; the bar through it covers the adjacent values whose mean is within 1% of the best. Cross: a "
        "diverged run, whose trial has no mean."
    )
    if (search["status"] == "pruned").any():
        caption += " Hollow points: runs that halving stopped early."
    return Figure("sensitivity", f"Sensitivity to {x.label}", caption, panels, 430)


def upwards(sign: int, low: float, high: float) -> tuple[float, float]:
    """A range of scores, of which higher are better, as one of values."""
    return (low, high) if sign > 0 else (-high, -low)


def trend(found: Findings, arm: str) -> list[Layer]:
    """A line through the best trial at each value, and the range over seeds; broken where runs diverged.

    None where values are as many as trials that differ in other keys too: it would jump between those.
    """
    line, own = profile(found, arm), found.searched(arm)
    others = {key for values in own["values"] for key in values} - {found.axis}
    if len(line) < 2 or (others and own["place"].nunique() > len(own) / 2):
        return []
    known = np.concatenate([[False], line["mean"].notna(), [False]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(known) > 0), np.flatnonzero(np.diff(known) < 0)
    bands = [
        Layer(
            "band", part.index.tolist(), part["low"].tolist(), arm, high=part["high"].tolist(), opacity=0.18
        )
        for start, end in zip(starts, ends, strict=True)
        if len(part := line.iloc[start:end]) > 1 and (part["high"] > part["low"]).any()
    ]
    return [*bands, Layer("line", line.index.tolist(), line["mean"].tolist(), arm)]


def best_point(found: Findings, arm: str) -> list[Layer]:
    """The best trial of an arm, and the flat region around it."""
    if arm not in found.flat:
        return []
    best, (low, high) = found.trials.loc[(arm, found.chosen[arm])], found.flat[arm]
    text = f"{arm}, best trial\n{best['setting']}\nmean {found.tables.metric.text(best['mean'])}"
    star = Layer("points", [best["place"]], [best["mean"]], arm, symbol="star", size=15, texts=[text])
    if low == high:
        return [star]
    said = [f"{arm}\nwithin 1% of the best from {low:.4g} to {high:.4g}"] * 2
    return [Layer("line", [low, high], [best["mean"]] * 2, arm, width=9, opacity=0.3, texts=said), star]


# 3: learning curves


def curves(found: Findings) -> Figure | None:
    """Validation loss and another metric of the judged runs against step and seconds."""
    panels = []
    for column, metric in (("val_loss", LOSS), *second_metric(found)):
        what = f"validation {metric.words}"
        values = found.curves[column].dropna() if len(found.curves) else pd.Series()
        if values.empty:
            continue
        y = numeric_axis(what, values, 3)
        if metric.unit == "%":
            # The steep rise at the beginning may leave the panel.
            scores = metric.sign * values
            low = max(scores.min(), scores.max() - max(0.05, 6 * (metric.best - scores.max())))
            y = Axis(what, percent=True, range=upwards(metric.sign, *span([low, scores.max()], 0.04)))
        for unit in found.units:
            layers = [layer for arm in found.arms for layer in arm_curves(found, arm, column, unit)]
            panels.append(Panel("", Axis("step" if unit == "step" else "seconds of training"), y, layers))
    if not panels:
        return None
    of = "; ".join(f"{arm} {found.setting(arm)}".strip() for arm in found.arms)
    whose = f"The best trial of each arm ({of})."
    if found.evidence == "crossfit":
        whose = "For each seed, the trial of each arm that the other seeds chose."
    caption = (
        f"{whose} Bold lines and bands: the mean and range of the seeds that did "
        "not diverge, up to where the shortest ends, at their mean time. Thin lines: runs; dotted: diverged."
    )
    return Figure("curves", "Learning curves", caption, panels, 640)


def second_metric(found: Findings) -> list[tuple[str, Metric]]:
    """What is drawn beside the loss: the objective, or where that is the loss, what judges or is there."""
    tables, curves = found.tables, found.curves
    counterpart = f"val_{tables.tested.name}"
    others = [str(key) for key in curves.columns if str(key).startswith("val_") and str(key) != "val_loss"]
    keys = [
        key for key in (tables.objective, counterpart, *others) if key in others and is_known(key, tables.own)
    ]
    return [(key, metric_of(key, tables.own)) for key in keys[:1]]


def arm_curves(found: Findings, arm: str, column: str, unit: str) -> list[Layer]:
    """The curves of one arm's judged runs, their mean and their range."""
    rows = found.judged[found.judged["arm"] == arm]
    own = found.curves[found.curves["run"].isin(rows["run"])]
    layers = []
    finished = own[own["run"].isin(rows["run"][rows["status"] == "finished"])]
    table = finished.pivot(index="step", columns="run", values=[column, "seconds"]).dropna()
    if len(table):
        figures = table[column]
        x = (table.index if unit == "step" else table["seconds"].mean(axis=1)).tolist()
        if figures.shape[1] > 1:
            low, high = figures.min(axis=1).tolist(), figures.max(axis=1).tolist()
            layers.append(Layer("band", x, low, arm, high=high, opacity=0.18))
        layers.append(Layer("line", x, figures.mean(axis=1).tolist(), arm, width=2.6, named=True))
    for diverged, some in rows.groupby(rows["status"] == "diverged"):
        if diverged or len(some) < MANY_CURVES:
            layers.append(thin_lines(some, own, column, unit, bool(diverged)))
    return layers


def thin_lines(rows: pd.DataFrame, curves: pd.DataFrame, column: str, unit: str, dashed: bool) -> Layer:
    """A thin line for each run, with gaps between them."""
    x, y, runs, texts = [], [], [], []
    by_run = dict(list(curves.groupby("run")))
    for row in rows.itertuples():
        if row.run not in by_run:
            continue
        curve = by_run[row.run]
        said = f"{row.arm} seed {row.seed}{', diverged' if dashed else ''}"
        x += [*curve[unit], math.nan]
        y += [*curve[column], math.nan]
        texts += [*(f"{said}\nstep {step}" for step in curve["step"]), ""]
        runs += [row.run] * (len(curve) + 1)
    look: Any = {"width": 1, "opacity": 0.35, "dashed": dashed}
    return Layer("line", x, y, rows["arm"].iloc[0], runs=runs, texts=texts, **look)


# 4: time to a target


def target(found: Findings) -> Figure | None:
    """The share of runs that have reached the target, against steps and seconds."""
    panels = []
    for unit, reached in found.reached.items():
        layers = []
        for arm, reach in reached.items():
            share = [*reach.curve["share"], reach.share_there]
            end = max(reach.times["time"].max(), reach.curve["time"].iloc[-1])
            layers.append(Layer("steps", [*reach.curve["time"], end], share, arm, named=True))
            layers += arrivals(found, arm, unit)
        x = Axis("steps" if unit == "step" else "seconds of training")
        panels.append(Panel("", x, Axis("fraction reached", percent=True, range=(-0.04, 1.06)), layers))
    if not panels:
        return None
    metric = found.tables.metric
    title = f"Time to {metric.text(found.target)} validation {metric.words}"
    caption = (
        "The fraction of each arm's runs that reached the target, by epoch (Kaplan-Meier estimate). Points: "
        "runs that reached it. Vertical ticks: runs that ended before. Crosses: runs that diverged."
    )
    return Figure("target", title, caption, panels, 380)


def arrivals(found: Findings, arm: str, unit: str) -> list[Layer]:
    """The runs on their arm's curve: a point where each arrived, a mark where some never did."""
    reach, judged = found.reached[unit][arm], found.judged[found.judged["arm"] == arm].set_index("run")
    times = reach.times.assign(
        seed=judged["seed"].reindex(reach.times["run"]).to_numpy(),
        diverged=(judged["status"].reindex(reach.times["run"]) == "diverged").to_numpy(),
    )
    share = reach.curve.set_index("time")["share"]
    there, lost = times[times["reached"]], times[~times["reached"]]
    points = Layer("points", [], [], arm, runs=[], texts=[], size=6)
    for time, some in there.groupby("time"):
        before, after = share[share.index < time].max(), share[share.index <= time].max()
        points.x = [*points.x, *[time] * len(some)]
        points.y = [*points.y, *np.linspace(before, after, len(some) + 1)[1:]]
        points.runs = [*points.runs, *some["run"]]
        points.texts = [
            *points.texts,
            *(f"{arm} seed {s}\nreached after {time:.4g}" for s in some["seed"]),
        ]
    marks = [points]
    for (time, diverged), some in lost.groupby(["time", "diverged"]):
        seeds = ", ".join(map(str, some["seed"][:12]))
        why = "diverged" if diverged else "did not reach it"
        text = f"{arm}: {len(some)} of {len(times)} {why}\nseeds {seeds}"
        at = share[share.index <= time].max()
        look: Any = {"symbol": "x" if diverged else "line-ns", "size": 11, "texts": [text]}
        marks.append(Layer("points", [time], [at], arm, runs=[some["run"].iloc[0]], **look))
    return marks


# 5 and 6: budget and tuneability


def budget(found: Findings) -> Figure | None:
    """The best validation objective to expect of a number of trials."""
    layers, values = [], []
    for arm, table in found.budgets.items():
        known, inner = table[table["median"].notna()], table[table["low"].notna() & table["high"].notna()]
        x, y = known["trials"].tolist(), known["median"].tolist()
        texts = [f"{arm}, {k} trials\n{found.tables.metric.text(v)}" for k, v in zip(x, y, strict=True)]
        low, high = inner["low"].tolist(), inner["high"].tolist()
        layers.append(Layer("band", inner["trials"].tolist(), low, arm, high=high, opacity=0.18))
        layers.append(Layer("line", x, y, arm, texts=texts, named=True))
        values += y
    if not values:
        return None
    y_axis = objective_axis(found, values)
    if y_axis.percent:
        sign = found.tables.metric.sign
        scores = [sign * value for value in values]
        y_axis.range = upwards(sign, *span([max(min(scores), max(scores) - 0.15), max(scores)]))
    most = max(len(table) for table in found.budgets.values())
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, most) if most <= 12 * s)
    marks = [1, *(k for k in range(step, most + 1, step) if k > 1)]
    caption = (
        "The median best result of N randomly drawn trials (exact, drawn with replacement; band: the middle "
        "50%). Diverged trials rank last; a line begins where half of the draws have a result."
    )
    if any("halving" in sweep and sweep["halving"] for sweep in found.tables.sweeps):
        caption += " Trials that halving stopped count with their last result."
    if any(sweep.get("sampler", "grid") not in NO_LEARNING for sweep in found.tables.sweeps):
        caption += (
            " The sampler learned from earlier trials, so these are not independent draws: read with care."
        )
    panel = Panel("", Axis("trials", ticks=(marks, list(map(str, marks)))), y_axis, layers)
    return Figure("budget", "Best validation result against number of trials", caption, [panel], 380)


def tuning(found: Findings) -> Figure | None:
    """What each arm's tuning gained over its default and over the middle trial."""
    table = found.tuning[::-1]
    if not len(table) or table[["gain", "gain_over_median"]].isna().all(axis=None):
        return None
    layers = []
    for place, row in enumerate(table.to_dict("records")):
        arm = row["arm"]
        kinds = {"median": "line-ns", "default": "diamond-open", "best": "star"}
        there = {kind: symbol for kind, symbol in kinds.items() if not math.isnan(row[kind])}
        ends = [row[kind] for kind in there]
        layers.append(Layer("line", [min(ends), max(ends)], [place] * 2, arm, opacity=0.5, width=4))
        for kind, symbol in there.items():
            about = f" ({row['default_is']})" if kind == "default" else ""
            text = f"{arm}, {kind}{about}\n{found.tables.metric.text(row[kind])}"
            layers.append(Layer("points", [row[kind]], [place], arm, symbol=symbol, size=15, texts=[text]))
    names = [wrapped(arm) for arm in table["arm"]]
    caption = (
        "Validation results of the search: the median trial (bar), the best (star) and the arm's default "
        "setting (hollow diamond), if it was among the trials. The best was chosen by these results, so the "
        "gains are slightly optimistic."
    )
    x = objective_axis(found, [value for layer in layers for value in layer.x])
    y = Axis(ticks=(range(len(names)), names), range=(-0.6, len(names) - 0.4))
    panel = Panel("", x, y, layers, sideways=True)
    return Figure("tuning", "What tuning gains", caption, [panel], 150 + 60 * len(names))


# 8: parallel coordinates


def parallel(found: Findings) -> Figure | None:
    """A line for each run of the search, across what its trial set and what came out."""
    runs, objective = found.tables.runs, found.tables.objective
    search = runs[runs["phase"] == "search"]
    value = search["objective"].where(search["status"] != "pruned", search[objective])
    diverged = search["status"] == "diverged"
    search, value = search[value.notna() | diverged], value[value.notna() | diverged]
    if len(search) < 2 or value.isna().all():
        return None
    values = pd.DataFrame(list(search["values"]), search.index)
    columns = {"arm": search["arm"].map(found.arms.index).astype(float)}
    axes = [Axis("arm", ticks=(range(len(found.arms)), found.arms))]
    for key in [key for key in values if values[key].nunique() > 1]:
        columns[key], axis = coordinate(short(key), values[key])
        axes.append(axis)
    if search["seed"].nunique() > 1:
        columns["seed"] = search["seed"].astype(float)
        axes.append(Axis("seed", ticks=some_of(search["seed"])))
    low, high = span(value.dropna())
    marks = np.linspace(value.min(), value.max(), 5).tolist()
    names = [f"{mark:.1%}" if found.tables.metric.unit == "%" else f"{mark:.3g}" for mark in marks]
    if diverged.any():
        worst = low - 0.1 * (high - low) if found.tables.metric.sign > 0 else high + 0.1 * (high - low)
        value = value.where(search["status"] != "diverged", worst)
        low, high, marks, names = min(low, worst), max(high, worst), [worst, *marks], ["diverged", *names]
    columns["objective"] = value
    axes.append(Axis(objective_axis(found, []).label, ticks=(marks, names), range=(low, high)))
    lines = Parallel(axes, pd.DataFrame(columns), search["arm"].tolist(), search.index.tolist())
    caption = (
        "One line per run of the search. Drag along an axis to select a range; the table below then lists "
        "only those runs. Click outside the range to reset it."
    )
    return Figure("parallel", "All settings at once", caption, height=420, parallel=lines)


def coordinate(label: str, texts: pd.Series) -> tuple[pd.Series, Axis]:
    """Values as places on an axis: numbers by size or its logarithm, others in a row; unset ones below."""
    numbers = texts.map(number)
    marks: list[float] = []
    known = numbers.dropna()
    if len(known) < texts.notna().sum():
        names = sorted(set(texts.dropna()))
        places, marks = texts.map(dict(zip(names, range(len(names)), strict=True))), list(range(len(names)))
    elif numeric_axis("", known).log:
        places = np.log10(numbers)
        marks = [*range(math.floor(places.min() + 1e-9), math.ceil(places.max() - 1e-9) + 1)]
        names = [f"{10.0**mark:g}" for mark in marks]
    else:
        places, (marks, names) = numbers, some_of(known)
    if texts.isna().any():
        below = min(marks) - 0.15 * (max(marks) - min(marks) or 1)
        places, marks, names = places.fillna(below), [below, *marks], ["not set", *names]
    return places.astype(float), Axis(label, ticks=(marks, names))


def some_of(values: pd.Series) -> tuple[list[float], list[str]]:
    """Ticks: the values, or where they are many, some in their range."""
    distinct = np.sort(values.unique())
    chosen = (distinct if len(distinct) <= 7 else np.linspace(distinct[0], distinct[-1], 5)).tolist()
    return chosen, [f"{value:.3g}" for value in chosen]
