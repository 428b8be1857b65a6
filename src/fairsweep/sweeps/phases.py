"""The course of a sweep: search, extension at the edges or halving, and the best of each arm on fresh seeds.

Nothing here trains or writes: the runs go to `evaluate`, and what comes next depends on their results alone.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise, zip_longest
from typing import NamedTuple

from fairsweep.config import ConfigError
from fairsweep.sweeps import search, space
from fairsweep.sweeps.arms import Arm, check_equal, check_keys
from fairsweep.sweeps.search import Study
from fairsweep.sweeps.space import Dimension
from fairsweep.wording import counted, listed

# The most runs of a sweep: see "How far it goes" in docs/server.md.
MOST_RUNS = 10_000


class Trial(NamedTuple):
    """A point of an arm's space.

    Attributes:
        number: in the arm, from 0.
        values: by key, as override texts.
        basis: what a sampler had chosen it by; see `search.Study`.
    """

    arm: str
    number: int
    values: dict[str, str]
    basis: str = ""

    def __hash__(self) -> int:
        return hash((self.arm, self.number, frozenset(self.values.items())))


class TrialRun(NamedTuple):
    """A run of a trial, in the phase `search` or `confirm`; with `stop_epoch` it pauses there."""

    trial: Trial
    phase: str
    seed: int
    stop_epoch: int | None = None


class Result(NamedTuple):
    """How a run ended, and its objective: the worst there is (infinite) if it diverged, None if it failed."""

    status: str
    objective: float | None


Evaluate = Callable[[Sequence[TrialRun]], Sequence[Result]]
Allowed = Callable[[str, Mapping[str, str]], bool]
Prune = Callable[[Sequence[TrialRun]], None]


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep goes about it.

    Attributes:
        sampler: `grid`, or a sampler of Optuna's.
        trials: per arm, in the search; None for a grid without intervals.
        seeds, confirm_seeds: of each trial in the search; of the best one after it.
        extend, extend_steps: whether each arm gets this many more trials, beyond an edge or inside.
        halving: one in this many trials stays at each rung; None: all run to their end.
        batch: trials per arm that a sampler is asked for before any of them is run.
        equal_budget: require the same number of trials in all arms.
        epochs: of a whole run.
        sign: 1 where a higher objective is better, -1 where a lower one is.
    """

    sampler: str
    trials: int | None
    seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...]
    extend: bool
    extend_steps: int
    halving: int | None
    batch: int
    equal_budget: bool
    epochs: int
    sign: int

    @property
    def selects(self) -> bool:
        """Whether the sweep chooses among trials, by validation."""
        return bool(self.confirm_seeds or self.sampler != "grid" or self.extend or self.halving)


@dataclass(frozen=True)
class TrialResult:
    """A trial with the results of its seeds, the last ones; complete if its runs were to go to their end."""

    trial: Trial
    results: tuple[Result, ...]
    complete: bool = True

    @property
    def objective(self) -> float | None:
        """The mean over the seeds; infinitely bad if one diverged, None if one failed."""
        values = [result.objective for result in self.results]
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(values) else None


@dataclass
class ArmOutcome:
    """What came of one arm.

    Attributes:
        space: the arm's own, or what it grew to.
        tried: its trials, by number.
        best: of the trials that ran to their end, the first with the best mean; None if there is none.
        confirmed: the results of the best on the fresh seeds, in their order.
    """

    arm: Arm
    space: tuple[Dimension, ...]
    tried: list[TrialResult] = field(default_factory=list)
    best: TrialResult | None = None
    confirmed: tuple[Result, ...] = ()


def rank(tried: TrialResult, sign: int) -> tuple[bool, float, int]:
    """Best first: complete trials, by their objective, then by their number."""
    value = tried.objective
    return not tried.complete, math.inf if value is None else -sign * value, tried.trial.number


def best(tried: Iterable[TrialResult], sign: int) -> TrialResult | None:
    """The best of the trials that ran to their end, the first of equals."""
    ended = [
        one for one in tried if one.complete and one.objective is not None and math.isfinite(one.objective)
    ]
    return min(ended, key=lambda one: rank(one, sign), default=None)


# Before anything is trained


def check(arms: Sequence[Arm], settings: SweepSettings) -> None:
    """Check that arms and settings make a sweep.

    Raises:
        ConfigError: they do not.
    """
    check_settings(settings)
    counts = {}
    for arm in arms:
        with naming(arm):
            check_keys(arm)
            counts[arm.name] = trial_count(arm, settings)
    check_runs(counts, settings)
    for arm in arms:
        with naming(arm):
            if settings.sampler == "grid":
                points(arm, settings)
            else:
                search.check(settings.sampler, arm)
            if settings.extend and all(dim.choices for dim in arm.space):
                raise ConfigError(
                    "hydra.sweeper.extend=true: needs a range or an interval; a list has no order"
                )
    if settings.equal_budget:
        check_equal(counts)
    if settings.halving is not None and not rungs(min(counts.values()), settings.halving, settings.epochs):
        raise ConfigError(
            f"hydra.sweeper.halving={settings.halving}: needs as many trials in each arm (there are "
            f"{min(counts.values())}), and 2 epochs or more (there are {settings.epochs})"
        )


def check_settings(settings: SweepSettings) -> None:
    """Check what can be checked without the arms.

    Raises:
        ConfigError: a number is too small, a seed comes twice, or two settings exclude each other.
    """
    seeds, confirm_seeds = settings.seeds, settings.confirm_seeds
    if not seeds:
        raise ConfigError("hydra.sweeper.seeds=[]: must be one or more")
    for name, given in (("seeds", seeds), ("confirm", confirm_seeds)):
        twice = [seed for seed, count in Counter(given).items() if count > 1]
        if twice:
            raise ConfigError(
                f"hydra.sweeper.{name}={list(given)}: has {twice[0]} twice; each seed counts once"
            )
    both = set(confirm_seeds) & set(seeds)
    if both:
        raise ConfigError(
            f"hydra.sweeper.seeds={list(seeds)}: has {min(both)}, a seed of the confirm phase, which must be "
            "fresh; take others"
        )
    numbers = {"trials": settings.trials, "batch": settings.batch, "extend_steps": settings.extend_steps}
    for name, number in numbers.items():
        if number is not None and number < 1 and (name != "extend_steps" or settings.extend):
            raise ConfigError(f"hydra.sweeper.{name}={number}: must be a whole number, 1 or more")
    if settings.trials is not None and settings.trials > MOST_RUNS:
        raise ConfigError(f"hydra.sweeper.trials={settings.trials}: must be at most {MOST_RUNS:,}")
    if settings.sampler != "grid" and settings.trials is None:
        raise ConfigError(
            f"hydra.sweeper.trials: is missing: hydra.sweeper.sampler={settings.sampler} needs it"
        )
    if settings.halving is not None:
        if settings.halving < 2:
            raise ConfigError(f"hydra.sweeper.halving={settings.halving}: must be a whole number, 2 or more")
        if not at_once(settings):
            raise ConfigError(
                f"hydra.sweeper.halving={settings.halving}: needs all trials at once, but "
                f"hydra.sweeper.sampler={settings.sampler} learns from results; take "
                f"{', '.join(search.NOT_LEARNING)}"
            )


def check_runs(trials: Mapping[str, int], settings: SweepSettings) -> None:
    """Check that a sweep with N trials in each arm is not too large.

    Raises:
        ConfigError: it has too many runs.
    """
    seeds, confirm = len(settings.seeds), len(settings.confirm_seeds)
    more = settings.extend_steps if settings.extend else 0
    runs = sum((number + more) * seeds + confirm for number in trials.values())
    if runs > MOST_RUNS:
        numbers = listed(
            [counted(sum(trials.values()) + more * len(trials), "trial"), counted(seeds, "seed")]
            + ([f"{counted(confirm, 'confirm run')} in each arm"] if confirm else [])
        )
        raise ConfigError(
            f"hydra.sweeper: {runs:,} runs, by {numbers}: must be at most {MOST_RUNS:,} in one sweep; "
            "use fewer values, trials or seeds, or several sweeps"
        )


@contextmanager
def naming(arm: Arm) -> Iterator[None]:
    """Inside, a mistake is the arm's."""
    try:
        yield
    except ConfigError as error:
        if not arm.name or str(error).startswith("hydra.sweeper.arms"):
            raise
        raise ConfigError(f"hydra.sweeper.arms.{arm.name}: {error}") from error


def known(
    arms: Sequence[Arm], settings: SweepSettings, interleave: bool = True
) -> tuple[list[TrialRun], int]:
    """The search's runs, where they do not depend on results (a grid's), and how many more there can be."""
    trials = search_trials(arms, settings, interleave) if settings.sampler == "grid" else []
    runs = [TrialRun(trial, "search", seed) for trial in trials for seed in settings.seeds]
    per_arm = len(settings.confirm_seeds)
    if settings.extend:
        per_arm += settings.extend_steps * len(settings.seeds)
    if settings.sampler != "grid":
        assert settings.trials is not None
        per_arm += settings.trials * len(settings.seeds)
    return runs, per_arm * len(arms)


def at_once(settings: SweepSettings) -> bool:
    """Whether no trial of the search depends on another's result."""
    return search.short_name(settings.sampler) in search.NOT_LEARNING


def points(arm: Arm, settings: SweepSettings) -> list[dict[str, str]]:
    """The grid of an arm; where budgets need not be equal, one without intervals is as large as it is."""
    return space.grid(arm.space, grid_trials(arm, settings))


def grid_trials(arm: Arm, settings: SweepSettings) -> int | None:
    free = not settings.equal_budget and not any(dim.is_interval for dim in arm.space)
    return None if free else settings.trials


def trial_count(arm: Arm, settings: SweepSettings) -> int:
    """How many trials an arm has in the search."""
    if settings.sampler == "grid":
        return space.grid_size(arm.space, grid_trials(arm, settings))
    assert settings.trials is not None
    return settings.trials


def search_trials(arms: Sequence[Arm], settings: SweepSettings, interleave: bool) -> list[Trial]:
    """A grid's trials: the first of each arm, the second of each, ...; or arm after arm."""
    columns = [[Trial(arm.name, n, p) for n, p in enumerate(points(arm, settings))] for arm in arms]
    return interleaved(columns) if interleave else list(chain(*columns))


def interleaved(columns: Iterable[Sequence[Trial]]) -> list[Trial]:
    """The first of each column, the second of each, and so on."""
    return [trial for row in zip_longest(*columns) for trial in row if trial is not None]


def rungs(trials: int, factor: int, epochs: int) -> list[int]:
    """The epochs after which all but a share of the trials are dropped, up to the whole run's, left out.

    As many as there are trials to drop, and epochs to tell them apart.
    """
    found: list[int] = []
    while trials >= factor ** (len(found) + 1):
        rung = math.ceil(epochs / factor ** (len(found) + 1))
        if rung == (found[0] if found else epochs):
            break
        found.insert(0, rung)
    return found


# The course


class Course:
    """A sweep that `check` has passed, on its way.

    The same results lead to the same runs, in the same order: what was stopped is started again from the
    beginning, and `evaluate` reuses finished runs.

    Args:
        evaluate: gives the results of runs, in their order; whatever it raises ends the sweep.
        study_of: opens the search of an arm; called only if a sampler is set.
        prune: ends paused runs that halving has stopped.
        allowed: whether the runs of an arm, by name, can have these values.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        settings: SweepSettings,
        evaluate: Evaluate,
        study_of: Callable[[Arm], Study],
        prune: Prune,
        allowed: Allowed,
    ) -> None:
        self.arms, self.settings, self.evaluate = arms, settings, evaluate
        self.prune, self.allowed = prune, allowed
        self.outcomes = {arm.name: ArmOutcome(arm, arm.space) for arm in arms}
        self.studies = {} if settings.sampler == "grid" else {arm.name: study_of(arm) for arm in arms}

    def run(self, interleave: bool = True) -> dict[str, ArmOutcome]:
        """Carry it out.

        Args:
            interleave: a grid's runs go by trials, so that arms advance together; else arm by arm, as in
                Hydra.
        """
        self.search(interleave)
        for _ in range(self.settings.extend_steps if self.settings.extend else 0):
            self.extend()
        self.confirm()
        return self.outcomes

    def search(self, interleave: bool) -> None:
        """Try the grid, or what the samplers propose, round by round."""
        if not self.studies:
            self.round(search_trials(self.arms, self.settings, interleave))
            return
        trials = self.settings.trials
        assert trials is not None
        size = trials if at_once(self.settings) else self.settings.batch
        for first in range(0, trials, size):
            numbers = range(first, min(first + size, trials))
            columns = [
                [proposed(name, number, study) for number in numbers] for name, study in self.studies.items()
            ]
            for tried in self.round(interleaved(columns)):
                self.tell(tried)

    def tell(self, tried: TrialResult) -> None:
        """Tell the arm's study; of a trial that was dropped, it learns nothing."""
        objective = tried.objective if tried.complete else None
        self.studies[tried.trial.arm].tell(tried.trial.number, objective)

    def round(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Run these trials, rung by rung with halving, and record their results."""
        done = self.halve(trials) if self.settings.halving is not None else self.measure(trials)
        for tried in done:
            self.outcomes[tried.trial.arm].tried.append(tried)
        return done

    def measure(self, trials: Sequence[Trial], stop_epoch: int | None = None) -> list[TrialResult]:
        """Run each trial on each seed of the search."""
        seeds = self.settings.seeds
        runs = [TrialRun(trial, "search", seed, stop_epoch) for trial in trials for seed in seeds]
        results = list(self.evaluate(runs)) if runs else []
        shares = [tuple(results[i : i + len(seeds)]) for i in range(0, len(results), len(seeds))]
        return [
            TrialResult(trial, share, stop_epoch is None) for trial, share in zip(trials, shares, strict=True)
        ]

    # Halving

    def halve(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Run all to the first rung, the better share of each arm to the next, ..., the rest to the end."""
        factor = self.settings.halving
        assert factor is not None
        fewest = min(sum(trial.arm == arm.name for trial in trials) for arm in self.arms)
        latest: dict[Trial, TrialResult] = {}
        left = list(trials)
        for rung in rungs(fewest, factor, self.settings.epochs):
            reached = self.measure(left, rung)
            latest |= {tried.trial: tried for tried in reached}
            staying = {trial for arm in self.arms for trial in self.stay(arm, reached, factor)}
            left = [trial for trial in left if trial in staying]
            dropped = [tried for tried in reached if tried.trial not in staying]
            paused = [
                TrialRun(tried.trial, "search", seed, rung)
                for tried in dropped
                for seed, result in zip(self.settings.seeds, tried.results, strict=True)
                if result.status not in ("finished", "diverged", "failed")
            ]
            if paused:
                self.prune(paused)
        latest |= {tried.trial: tried for tried in self.measure(left)}
        return [latest[trial] for trial in trials]

    def stay(self, arm: Arm, reached: list[TrialResult], factor: int) -> list[Trial]:
        """The better share of an arm's trials; a failed one never stays."""
        ours = [tried for tried in reached if tried.trial.arm == arm.name]
        ranked = sorted((tried for tried in ours if tried.objective is not None), key=self.rank)
        return [tried.trial for tried in ranked[: math.ceil(len(ours) / factor)]]

    # Extension

    def extend(self) -> None:
        """One more trial for each arm: beyond the edge if its best is at one, else inside."""
        proposed = [found for arm in self.arms if (found := self.beyond(arm) or self.inside(arm))]
        done = self.measure([trial for trial, _ in proposed])
        for tried, (trial, wider) in zip(done, proposed, strict=True):
            outcome = self.outcomes[trial.arm]
            outcome.tried.append(tried)
            if trial.arm in self.studies and wider != outcome.space:
                self.studies[trial.arm].add(trial.number, trial.values, tried.objective, wider)
            elif trial.arm in self.studies:
                self.tell(tried)
            outcome.space = wider

    def beyond(self, arm: Arm) -> tuple[Trial, tuple[Dimension, ...]] | None:
        """The best trial moved one step beyond the first edge that it is at, and the wider space.

        None if it is at no edge, or the runs cannot have the value.
        """
        outcome, best = self.outcomes[arm.name], self.best(arm)
        for place, dim in enumerate(outcome.space if best else ()):
            assert best is not None
            step = self.step(arm, place)
            direction = space.at_edge(dim, best.trial.values[dim.key], step)
            if not direction:
                continue
            grown = space.grow(dim, direction, step)
            if grown is None:
                return None
            values = {**best.trial.values, dim.key: grown[1]}
            if not self.allowed(arm.name, values):
                return None
            wider = (*outcome.space[:place], grown[0], *outcome.space[place + 1 :])
            return Trial(arm.name, len(outcome.tried), values), wider
        return None

    def inside(self, arm: Arm) -> tuple[Trial, tuple[Dimension, ...]] | None:
        """One trial more within the space: what the sampler proposes; in a grid, a point between two others.

        The first that can be, of these: between the best and its better neighbour, the best and its other
        one, any two others, good ones first; and for each, dimension by dimension. None: there is none left.
        """
        outcome, best = self.outcomes[arm.name], self.best(arm)
        number = len(outcome.tried)
        if arm.name in self.studies:
            return proposed(arm.name, number, self.studies[arm.name]), outcome.space
        gaps = []
        for place, dim in enumerate(outcome.space):
            for pair in neighbours(outcome.tried, dim):
                near, far = sorted(pair, key=self.rank)
                gaps.append(((near is not best, place, self.rank(near), self.rank(far)), dim, near, far))
        for _, dim, near, far in sorted(gaps, key=lambda gap: gap[0]):
            ends = near.trial.values[dim.key], far.trial.values[dim.key]
            middle = space.between(dim, *ends)
            if middle is not None and self.allowed(
                arm.name, values := {**near.trial.values, dim.key: middle}
            ):
                return Trial(arm.name, number, values), outcome.space
        return None

    def step(self, arm: Arm, place: int) -> float:
        """From one point to the next in a dimension of the arm, as it was before it grew.

        Samplers have no points: theirs are those that a grid with as many trials would have.
        """
        settings = self.settings
        count = settings.trials or 1
        if not self.studies:
            count = space.points_per_interval(arm.space, grid_trials(arm, settings))
        return space.spacing(arm.space[place], count)

    # The end

    def rank(self, tried: TrialResult) -> tuple[bool, float, int]:
        return rank(tried, self.settings.sign)

    def best(self, arm: Arm) -> TrialResult | None:
        """The best trial of an arm so far."""
        return best(self.outcomes[arm.name].tried, self.settings.sign)

    def confirm(self) -> None:
        """Run the best trial of each arm on the fresh seeds."""
        for arm in self.arms:
            self.outcomes[arm.name].best = self.best(arm)
        winners = [outcome for outcome in self.outcomes.values() if outcome.best is not None]
        runs = [
            TrialRun(outcome.best.trial, "confirm", seed)
            for seed in self.settings.confirm_seeds
            for outcome in winners
            if outcome.best is not None
        ]
        results = tuple(self.evaluate(runs)) if runs else ()
        for place, outcome in enumerate(winners):
            outcome.confirmed = results[place :: len(winners)]


def proposed(arm: str, number: int, study: Study) -> Trial:
    """The next trial of an arm, as its sampler proposes it."""
    proposal = study.ask(number)
    return Trial(arm, number, proposal.values, proposal.basis)


def neighbours(tried: Sequence[TrialResult], dim: Dimension) -> Iterator[tuple[TrialResult, TrialResult]]:
    """Pairs of trials that differ in this dimension of numbers alone, with none between them."""
    if dim.choices:
        return
    lines: dict[frozenset[tuple[str, str]], list[TrialResult]] = {}
    for one in tried:
        others = frozenset((key, text) for key, text in one.trial.values.items() if key != dim.key)
        lines.setdefault(others, []).append(one)
    for line in lines.values():
        yield from pairwise(sorted(line, key=lambda one: float(one.trial.values[dim.key])))
