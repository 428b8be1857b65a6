"""Which weights stay when a sweep ends, and which run is its champion."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from filelock import Timeout

from fairsweep.runs import checkpoint
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, read_sweep
from fairsweep.sweeps.folder import SweepFolder
from fairsweep.sweeps.standing import Standing


class Choice(NamedTuple):
    """The runs of a sweep whose weights matter, by signature.

    best: the runs of each arm's best trial, and all confirm runs. champion: the one of them to use.
    """

    best: frozenset[str]
    champion: str | None


def choose(standing: Standing, best_arm: str | None = None) -> Choice:
    """Choose the best trial of each arm, and in one arm the champion, by validation.

    Args:
        best_arm: the champion's arm, which the verdict names; None: the one that is ahead.
    """
    best: dict[str, list[str]] = {}
    for arm in standing.arms():
        if arm.best is not None:
            rows = [row for row in standing.rows if row.arm == arm.name]
            confirmed = [row.signature for row in rows if row.phase == "confirm"]
            searched = [row.signature for row in rows if row.trial == arm.best.trial]
            best[arm.name] = [*confirmed, *searched]
    if best_arm is None:
        best_arm = ahead(standing)
    candidates = {
        signature: objective
        for signature in best.get(best_arm or "", ())
        if standing.state(signature) == "finished"
        and (objective := standing.objective(signature)) is not None
    }
    champion = max(
        candidates, key=lambda signature: standing.metric.sign * candidates[signature], default=None
    )
    return Choice(frozenset(signature for each in best.values() for signature in each), champion)


def ahead(standing: Standing) -> str | None:
    """The arm with the best mean objective: over fresh seeds if all arms have some, else over the search."""
    arms = standing.arms()
    searched = {arm.name: arm.objective for arm in arms if arm.objective is not None}
    fresh = {
        arm.name: [value for status in arm.confirmed if (value := status.ranked_objective) is not None]
        for arm in arms
        if arm.name in searched
    }
    means = {name: fmean(values) for name, values in fresh.items()} if all(fresh.values()) else searched
    return max(means, key=lambda name: standing.metric.sign * means[name], default=None)


def settle(sweep: SweepFolder, standing: Standing, choice: Choice, is_complete: bool) -> Iterator[RunFolder]:
    """Carry out `record.keep=auto` at a sweep's end.

    Marks the runs whose weights stay, and removes the other weights if the sweep is complete: an incomplete
    one may still choose them. Yields the runs that have more to upload now.
    """
    for row in standing.unique():
        folder = sweep.run(row.signature)
        status, mark = folder.status(), "champion" if row.signature == choice.champion else "kept"
        now = status.weights
        is_former = now == "champion" != mark and len(folder.sweeps()) == 1  # before the sweep grew
        if now == mark or not (is_former or now in ("undecided", "kept")):
            continue
        try:
            with folder.lock().acquire(timeout=0):
                if row.signature in choice.best and status.is_final:
                    folder.set_status(weights=mark)
                    yield folder
                elif is_former:
                    folder.set_status(weights=mark)
                elif is_complete and not is_needed(folder, sweep.path):
                    checkpoint.remove(folder, "record.keep=auto")
        except Timeout:  # another command trains it
            continue


def is_needed(folder: RunFolder, directory: Path) -> bool:
    """Whether another sweep that is not complete may still choose this run."""
    for entry in folder.sweeps().values():
        if Path(entry["directory"]).resolve() == directory.resolve():
            continue
        try:
            if read_sweep(Path(entry["directory"]))["status"] != "finished":
                return True
        except (Damaged, FileNotFoundError):  # its results are gone with it
            continue
    return False
