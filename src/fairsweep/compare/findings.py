"""What the tables of a study show: the numbers of each section, and how they are put in words."""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

import pandas as pd

from fairsweep.compare.load import Tables
from fairsweep.compare.statistics import Comparison, Reach
from fairsweep.wording import described

LR = "optimizer.lr"
UNITS = ("step", "seconds")

# Without it, MLflow's pages open in their view of agents and conversations.
TRAINING = "workflowType=machine_learning"

# Where `mlflow ui` listens; and the most runs that its comparison can show.
LOCAL_UI, COMPARED = "http://127.0.0.1:5000", 100


@dataclass(frozen=True)
class ReportSettings:
    """What the user of a report decides.

    Attributes:
        relevant: the smallest difference on test that matters, in units of what judges: of a share, 0.001 is
            a tenth of a point. None: 0.001 where the metric has bounds; else it is not known.
        target: the objective to be reached; None: what the worse arm has at its end.
        ui: where MLflow's user interface is, for the links; None: the tracking server, or the port at which
            `mlflow ui` listens.
    """

    relevant: float | None = None
    target: float | None = None
    ui: str | None = None


@dataclass
class Findings:
    """What the tables show.

    Attributes:
        trials: `statistics.trials`, with each trial's `values` and the text of them, `setting`.
        chosen: the best trial of each arm by validation, or the one that was confirmed.
        evidence: the runs on which the verdict stands: what they are ("confirm": fresh seeds; "untuned": an
            arm's only trial; "crossfit": each seed's trial as the other seeds choose it; "search": those that
            also chose the trial, no ground for a verdict; "": none).
        overlap: how far the judged seeds depend on each other, as `crossfit` has it. 0: not at all.
        judged: those runs, rows of `Tables.runs`.
        results: what judges each arm by seed, the worst there is where it diverged; arms without results are
            absent.
        comparisons: of each pair of arms with results; none where the evidence is "search".
        verdict: one or two sentences. best: the arm that is shown to be better than all others, if one is.
        remarks: what else the reader has to know, most of it trouble.
        curves: `Tables.curves` of the judged runs.
        target: the objective of `reached`. reached: by unit (step, seconds) and arm.
        budgets: `statistics.best_of` by arm, in units of the objective.
        tuning: what tuning gained, a row for each arm.
        units: the units of time; without seconds where the judged runs cannot be compared by these.
        axis: the key against which the objective is shown; None where no number varies.
        flat: by arm, the lowest and highest value of `axis` at which the objective is near the best.
    """

    tables: Tables
    settings: ReportSettings
    trials: pd.DataFrame
    chosen: dict[str, int]
    judged: pd.DataFrame
    evidence: str = ""
    overlap: float = 0.0
    results: dict[str, pd.Series] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    verdict: str = ""
    best: str | None = None
    remarks: list[str] = field(default_factory=list)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    target: float = math.nan
    reached: dict[str, dict[str, Reach]] = field(default_factory=dict)
    budgets: dict[str, pd.DataFrame] = field(default_factory=dict)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)
    units: tuple[str, ...] = UNITS
    axis: str | None = None
    flat: dict[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def arms(self) -> list[str]:
        """Those with runs, in the order in which the sweep names them."""
        named = [arm for sweep in self.tables.sweeps for arm in sweep.get("arms", {})]
        there = list(dict.fromkeys(self.tables.runs["arm"]))
        return [arm for arm in dict.fromkeys(named) if arm in there] + [a for a in there if a not in named]

    @property
    def is_served(self) -> bool:
        """Whether MLflow's user interface is there without anybody starting it."""
        return self.settings.ui is not None or self.tables.uri.startswith(("http:", "https:"))

    @property
    def ui(self) -> str:
        """Where MLflow's user interface is, or will be."""
        return (self.settings.ui or (self.tables.uri if self.is_served else LOCAL_UI)).rstrip("/")

    def run_url(self, experiment: str, run: str) -> str:
        """A run's page there; empty for a run that MLflow does not have."""
        return f"{self.ui}/#/experiments/{experiment}/runs/{run}?{TRAINING}" if experiment else ""

    def links(self) -> list[tuple[str, str]]:
        """To MLflow's comparison of exactly those runs that it has, and to its table of each sweep."""
        made = []
        every = self.tables.runs
        for some, text in ((self.judged, "compare the {} runs that decide"), (every, "compare all {} runs")):
            few = some[some["experiment"] != ""].drop_duplicates("run")
            if 0 < len(few) <= COMPARED:
                ids, where = (quote(json.dumps([*dict.fromkeys(few[key])])) for key in ("run", "experiment"))
                url = f"{self.ui}/#/compare-runs?runs={ids}&experiments={where}&{TRAINING}"
                made.append((text.format(len(few)), url))
        experiments = every["experiment"][every["experiment"] != ""]
        for sweep in self.tables.sweeps if len(experiments) else ():
            found = quote(f"tags.`sweep.{sweep['id']}` LIKE '%'")
            url = f"{self.ui}/#/experiments/{experiments.iloc[0]}/runs?searchFilter={found}&{TRAINING}"
            made.append((f"table of sweep {sweep['id']}", url))
        return made

    def setting(self, arm: str) -> str:
        """The chosen trial's values, as text."""
        runs = self.tables.runs
        own = runs["values"][(runs["arm"] == arm) & (runs["trial"] == self.chosen.get(arm))]
        return described(own.iloc[0]) if len(own) else ""

    def searched(self, arm: str) -> pd.DataFrame:
        """An arm's trials, by their number; none where it has no run in the search."""
        return self.trials[self.trials.index.get_level_values("arm") == arm].droplevel("arm")
