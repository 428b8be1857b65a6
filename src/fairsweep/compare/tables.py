"""The tables that people read, on the page and on the terminal."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from fairsweep.compare import analysis
from fairsweep.compare.figures import styles
from fairsweep.compare.findings import Findings
from fairsweep.compare.load import UNRECORDED, no_setting
from fairsweep.compare.statistics import Comparison
from fairsweep.metrics import Metric, metric_of
from fairsweep.wording import duration, short, shown

# What the test results of the chosen trials are of.
OF = {
    "confirm": "fresh seeds",
    "untuned": "all seeds",
    "crossfit": "chosen by the other seeds",
    "search": "search seeds",
    "": "no seeds",
}


class Cell(NamedTuple):
    """What a cell shows.

    look: `n` for a number, `wrap` for prose. key: what it is sorted by, where that is not its text. tone: a
    colour, for a dot.
    """

    text: str
    look: str = ""
    key: object = None
    url: str = ""
    tone: str = ""

    def html(self) -> str:
        content = escape(self.text)
        if self.url:
            content = Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(self.url, content)
        if self.tone:
            content = Markup('<span class="dot" style="background:{}"></span>{}').format(self.tone, content)
        look = f' class="{self.look}"' if self.look else ""
        key = "" if self.key is None else f' data-v="{escape(self.key)}"'
        return f"<td{look}{key}>{content}</td>"


@dataclass
class Table:
    """Column heads, those of numbers with a leading `#`, and rows."""

    heads: list[str]
    rows: list[list[Cell]]

    def columns(self) -> list[tuple[str, bool]]:
        """Each head and whether it is of numbers."""
        return [(head.lstrip("#"), head.startswith("#")) for head in self.heads]

    def html(self, id: str = "") -> Markup:
        """The table; with an id, it can be sorted."""
        name = f' id="{id}" class="sortable"' if id else ""
        heads = "".join(f"<th{' class=n' if n else ''}>{escape(text)}</th>" for text, n in self.columns())
        rows = "\n".join(f"<tr>{''.join(cell.html() for cell in row)}</tr>" for row in self.rows)
        body = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
        return Markup(f'<div class="scroll"><table{name}>\n{body}</table></div>')

    def markdown(self) -> str:
        """The table as GitHub and MLflow render it."""
        heads = " | ".join(text for text, _ in self.columns())
        aligned = " | ".join("---:" if is_number else "---" for _, is_number in self.columns())
        rows = [" | ".join(cell.text.replace("|", "\\|") for cell in row) for row in self.rows]
        return "\n".join(f"| {line} |" for line in (heads, aligned, *rows)) + "\n"


def figure(value: float, metric: Metric) -> Cell:
    """A figure; empty where there is none."""
    return Cell("", "n", "") if pd.isna(value) else Cell(metric.text(value), "n", value)


def number(text: object) -> Cell:
    return Cell(str(text), "n")


def arm_cell(found: Findings, arm: str, key: object = None) -> Cell:
    return Cell(arm, key=key, tone=styles(found)[arm].color)


def arms(found: Findings) -> Table:
    """A row for each arm: what was chosen, and what came of it."""
    objective, judge, metric = found.tables.objective, found.tables.judge, found.tables.tested
    content = analysis.arm_rows(found)
    counts = ("diverged", "failed", "pruned", "unfinished", *UNRECORDED, "reused")
    test = f"#test {metric.words}, {OF[found.evidence]}"
    heads = ["arm", "best trial", f"#{objective}", test, "#trials", "runs"]
    rows = []
    for row in content:
        said = []
        if not math.isnan(row[judge]):
            deviation = None if math.isnan(row["sd"]) else row["sd"]
            ended = row["judged"] - row["judged_diverged"]
            said.append(f"{metric.spread(row[judge], deviation)} (n={ended})")
        if row["judged_diverged"]:
            said.append(f"{row['judged_diverged']} diverged")
        setting = row["setting"] or ("its only one" if row["arm"] in found.chosen else "none")
        start = [arm_cell(found, row["arm"]), Cell(setting)]
        results = [figure(row[objective], found.tables.metric), number(", ".join(said))]
        of = ", ".join(f"{row[name]} {name}" for name in counts if row[name])
        runs = Cell(f"{row['runs']}: {of}" if of else str(row["runs"]), "wrap")
        rows.append([*start, *results, number(row["trials"] or ""), runs])
    return Table(heads, rows)


def pairs(found: Findings) -> Table:
    """A row for each pair of arms."""
    rows, metric = [], found.tables.tested
    for pair in found.comparisons:
        difference, low, high = (
            metric.difference(value, False, pair.mean_better)
            for value in (pair.difference, pair.low, pair.high)
        )
        difference = "none" if math.isnan(pair.difference) else difference
        interval = "none" if math.isnan(pair.low) else f"{low} to {high}"
        means = f"{metric.text(pair.mean_better)}, {metric.text(pair.mean_worse)}"
        numbers = [number(text) for text in (means, difference, interval, pair.p_text, wins(found, pair))]
        end = [Cell("yes" if pair.claimed else "no"), Cell(pair.method, "wrap")]
        rows.append([Cell(f"{pair.better} over {pair.worse}"), *numbers, *end])
    pairs = len(found.comparisons)
    adjusted = f", adjusted for {pairs} pairs (Bonferroni)" if pairs > 1 else ""
    points = ", points" if metric.unit == "%" else ""
    heads = ["pair", "#means", f"#difference{points}", f"#95% interval{adjusted}", f"#p{adjusted}"]
    heads += ["#pairs of runs won", "shown", "method"]
    return Table(heads, rows)


def wins(found: Findings, pair: Comparison) -> str:
    """How many pairs of a run of each arm the better one wins, a tie being half: `97.5 of 100`."""
    count = math.prod(pair.seeds or len(found.results[arm]) for arm in (pair.better, pair.worse))
    return f"{pair.probability * count:g} of {count}"


def flat_regions(found: Findings) -> Table:
    """Where each arm's best is, and how wide the flat region around it."""
    key = short(found.axis or "")
    rows = []
    for arm, region in found.flat.items():
        own = found.searched(arm)["place"]
        ranges = (f"{low:.4g} to {high:.4g}" for low, high in (region, (own.min(), own.max())))
        rows.append([arm_cell(found, arm), number(f"{own[found.chosen[arm]]:.4g}"), *map(number, ranges)])
    return Table(["arm", f"#best {key}", "#within 1% of the best", "#tried"], rows)


def times(found: Findings) -> Table:
    """When each arm's runs reached the target."""
    rows = []
    for arm, by_step in found.reached["step"].items():
        there = by_step.times["reached"]
        row = [arm_cell(found, arm), number(f"{there.sum()} of {len(there)}")]
        for reach in (found.reached[unit][arm] for unit in found.units):
            low, high = (f"{end:.4g}" if math.isfinite(end) else "open" for end in (reach.low, reach.high))
            row.append(number(f"{reach.median:.4g}" if math.isfinite(reach.median) else "median not reached"))
            row.append(number(f"{low} to {high}" if math.isfinite(reach.low) else "none"))
        rows.append(row)
    heads = ["#median steps", "#95% interval, steps", "#median seconds", "#95% interval, seconds"]
    return Table(["arm", "#reached", *heads[: 2 * len(found.units)]], rows)


def tuning(found: Findings) -> Table:
    """What tuning gained."""
    metric = found.tables.metric
    rows = []
    for row in found.tuning.to_dict("records"):
        cells = {
            key: figure(row[key], metric) for key in ("best", "default", "gain", "median", "gain_over_median")
        }
        for gain in ("gain", "gain_over_median"):
            if metric.unit == "%" and not math.isnan(row[gain]):
                cells[gain] = number(metric.difference(row[gain]))
        if math.isnan(row["default"]):
            cells["default"] = number(row["default_is"])
        if math.isnan(row["median"]):
            cells["median"] = number("diverged")
        rows.append([arm_cell(found, row["arm"]), Cell(row["setting"]), *cells.values()])
    heads = ["#best", "#default", "#gain over default", "#median trial", "#gain over median"]
    return Table(["arm", "best trial", *heads], rows)


def given(found: Findings) -> Table:
    """What each arm was given: fixed values, space, trials, seeds."""
    definitions = {
        arm: about for sweep in found.tables.sweeps for arm, about in sweep.get("arms", {}).items()
    }
    rows = []
    for row in analysis.arm_rows(found):
        arm = row["arm"]
        about = definitions.get(arm.split(" [")[0], {})
        values = found.tables.runs.loc[found.tables.runs["arm"] == arm, "values"]
        tried: dict[str, dict[str, None]] = {}
        for one in values:
            for key, value in one.items():
                tried.setdefault(key, {})[shown(value)] = None
        space = about.get("space") or {key: ", ".join(texts) for key, texts in tried.items()}
        said = "; ".join(f"{key}: {text}" for key, text in space.items()) or "nothing"
        counts = [number(row[key] or "") for key in ("trials", "search_seeds", "confirm_seeds")]
        fixed = ", ".join(map(str, about.get("fixed", []))) or "nothing"
        cells = [arm_cell(found, arm), Cell(fixed, "wrap"), Cell(said, "wrap"), *counts]
        rows.append([*cells, number("" if math.isnan(row["seconds"]) else duration(row["seconds"]))])
    heads = ["arm", "fixed", "space", "#trials", "#seeds a trial", "#confirm seeds", "#training time"]
    return Table(heads, rows)


def origins(found: Findings) -> Table:
    """Where the runs were trained, and by what."""
    names = {"device": "device", "precision": "precision", "hostname": "machine", "commit": "commit"}
    names |= {"dirty": "uncommitted changes", "code": "training code", "data": "data", "versions": "versions"}
    runs = found.tables.runs
    unique = runs[~runs["status"].isin(UNRECORDED)].drop_duplicates("run")
    counted = [(text, unique[column].value_counts()) for column, text in names.items()]
    rows = [
        [Cell(text), Cell(str(value), "wrap"), number(count)]
        for text, counts in counted
        for value, count in counts.items()
    ]
    return Table(["what", "which", "#runs"], rows)


def differing(found: Findings) -> Table:
    """The keys, but for those of the trials, that the arms do not share."""
    tables = found.tables
    recorded = tables.runs[tables.runs["run"].isin(tables.params.index)]
    firsts = recorded.drop_duplicates("arm").set_index("arm")["run"].reindex(found.arms)
    keys = [key for key in tables.params if not no_setting(key)]
    settings = tables.params[keys].reindex(firsts).fillna("not set")
    searched = {key for values in tables.runs["values"] for key in values}
    keys = [key for key in keys if key not in searched and settings[key].nunique() > 1]
    rows = [[Cell(key), *(Cell(value, "wrap") for value in settings[key])] for key in keys]
    return Table(["key that differs", *found.arms], rows)


def held_fixed(found: Findings) -> Table:
    """The keys that had one value in all runs."""
    rows = [[Cell(key), Cell(value, "wrap")] for key, value in sorted(analysis.fixed(found.tables).items())]
    return Table(["key", "value"], rows)


def runs(found: Findings) -> Table:
    """All runs; the test result of those that decide, only."""
    table = found.tables.runs
    keys = list(dict.fromkeys(key for values in table["values"] for key in values))
    judged = set(found.judged["run"])
    tables = found.tables
    numbers = (*(f"val_{name}" for name in tables.metrics()), "objective", tables.judge)
    heads = ["arm", "trial", "phase", "seed", *map(short, keys), "status", *(f"#{name}" for name in numbers)]
    rows = []
    for place, row in enumerate(table.to_dict("records")):
        values, seconds = row["values"], row["seconds"]
        cells = [
            arm_cell(found, row["arm"], place),
            *(Cell(str(row[key])) for key in ("trial", "phase", "seed")),
        ]
        cells += [Cell(shown(values[key]), key=values[key]) if key in values else Cell("") for key in keys]
        cells.append(Cell(row["status"] + (", reused" if row["reused"] else "")))
        if row["run"] not in judged:
            row[tables.judge] = math.nan
        for name in numbers:
            metric = tables.metric if name == "objective" else metric_of(name, tables.own)
            cells.append(figure(row[name], metric))
        text = f"{seconds:.1f}{', shared' if row['shared'] else ''}"
        cells.append(Cell("", "n", "") if pd.isna(seconds) else Cell(text, "n", seconds))
        cells.append(Cell(row["signature"][:8], url=found.run_url(row["experiment"], row["run"])))
        rows.append(cells)
    return Table([*heads, "#seconds", "run"], rows)


def frames(found: Findings) -> dict[str, pd.DataFrame]:
    """The same for programs, and more: what goes into the files."""
    table = found.tables.runs
    values = pd.DataFrame(list(table["values"]), table.index)
    compared: Iterable[dict[str, Any]] = ({**vars(p), "claimed": p.claimed} for p in found.comparisons)
    arrived = (
        reach.times.assign(arm=arm, unit=unit, target=found.target)
        for unit, by_arm in found.reached.items()
        for arm, reach in by_arm.items()
    )
    made = {
        "arms": pd.DataFrame(analysis.arm_rows(found)),
        "comparisons": pd.DataFrame(list(compared)),
        "trials": found.trials.drop(columns="values").reset_index(),
        "runs": pd.concat([table.drop(columns="values"), values], axis=1),
        "curves": found.curves,
        "tuning": found.tuning,
        "target": pd.concat([pd.DataFrame(), *arrived]),
        "budget": pd.concat([pd.DataFrame(), *(b.assign(arm=arm) for arm, b in found.budgets.items())]),
    }
    return {name: frame for name, frame in made.items() if len(frame)}
