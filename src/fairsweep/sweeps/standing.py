"""How far a sweep is: its runs by status, and the best trial of each arm so far."""

from collections import Counter
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

from fairsweep.metrics import Criteria, Metric, criteria
from fairsweep.runs.schema import warn
from fairsweep.runs.status import Status
from fairsweep.sweeps.folder import Row, SweepFolder
from fairsweep.sweeps.phases import Result, Trial, TrialResult, best


class ArmStanding(NamedTuple):
    """One arm's part of a sweep.

    statuses: runs by status; those not begun count as `waiting`. best: of the trials of which every run has
    ended for good, the one with the best mean objective over its seeds. confirmed: the statuses of the
    confirm runs that have ended for good.
    """

    name: str
    statuses: Counter[str]
    trials: int
    best: Row | None
    objective: float | None
    confirmed: list[Status]


class Standing:
    """The runs of a sweep with what is known of each."""

    def __init__(self, given: Criteria) -> None:
        self.metric, self.tested = given.metric, given.tested
        self.objective_key = given.objective
        self.rows: list[Row] = []
        self.statuses: dict[str, Status] = {}
        self.reused: set[str] = set()

    def counts(self) -> Counter[str]:
        """Runs of the sweep by status, a run that serves two trials once."""
        return Counter(
            self.state(signature) for signature in dict.fromkeys(row.signature for row in self.rows)
        )

    def unique(self) -> list[Row]:
        """The first row of each run, in the order of the plan."""
        return [*{row.signature: row for row in reversed(self.rows)}.values()][::-1]

    def status(self, signature: str) -> Status:
        """The last status known of a run."""
        return self.statuses.get(signature, Status())

    def state(self, signature: str) -> str:
        return self.status(signature).name

    def objective(self, signature: str) -> float | None:
        """The objective of a run that has ended for good; the worst there is where it diverged."""
        return self.status(signature).ranked_objective

    def arm(self, name: str) -> ArmStanding:
        rows = [row for row in self.rows if row.arm == name]
        trials: dict[int, list[Row]] = {}
        for row in rows:
            if row.phase == "search":
                trials.setdefault(row.trial, []).append(row)
        chosen = best((self.trial(runs) for runs in trials.values()), self.metric.sign)
        statuses = [self.status(row.signature) for row in rows if row.phase == "confirm"]
        return ArmStanding(
            name=name,
            statuses=Counter(
                self.state(signature) for signature in dict.fromkeys(row.signature for row in rows)
            ),
            trials=len(trials),
            best=None if chosen is None else trials[chosen.trial.number][0],
            objective=None if chosen is None else chosen.objective,
            confirmed=[status for status in statuses if status.is_final],
        )

    def trial(self, runs: list[Row]) -> TrialResult:
        """A trial with what its runs have given by now."""
        row, statuses = runs[0], [self.status(run.signature) for run in runs]
        results = tuple(Result(status.name, status.ranked_objective) for status in statuses)
        return TrialResult(Trial(row.arm, row.trial, row.values), results)

    def arms(self) -> list[ArmStanding]:
        """In the order of their first runs."""
        return [self.arm(name) for name in dict.fromkeys(row.arm for row in self.rows)]

    def best_objective(self) -> float | None:
        """The best mean objective of all arms."""
        values = [arm.objective for arm in self.arms() if arm.objective is not None]
        return max(values, key=lambda value: self.metric.sign * value, default=None)


def read(folder: SweepFolder) -> Standing:
    """The standing of a sweep that may be in progress in another process."""
    standing = Standing(criteria(folder.read()))
    standing.rows = folder.rows()
    for signature in dict.fromkeys(row.signature for row in standing.rows):
        run = folder.run(signature)
        standing.statuses[signature] = run.status()
        if not standing.statuses[signature].has_begun and (damage := run.damage()):
            warn(f"{damage}; this run counts as not started")
    return standing


def spread(metric: Metric, values: Iterable[float | None]) -> str:
    """Mean and standard deviation of the values that are there, as text."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return metric.spread(fmean(known), stdev(known) if len(known) > 1 else None)
