"""The recorded runs of an output folder: one by its name, the latest, the best."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fairsweep.config import ConfigError
from fairsweep.runs import checkpoint, schema
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, warn
from fairsweep.runs.status import Status


class Finished(NamedTuple):
    """A finished run; `data`: the name of its data set."""

    folder: RunFolder
    status: Status
    data: str


def find(
    directory: str,
    which: str,
    data: str | None = None,
    objective: str | None = None,
    needs_weights: bool = True,
) -> RunFolder:
    """The folder of a recorded run: by its signature (or the beginning of it), `latest`, or `best`.

    `latest` is the finished run that ended last; `best` the finished run with the best objective, the later
    of equals, among those on the same data that select by the same figure.

    Args:
        data: only runs on this data set, given by its name or the beginning of its hash.
        objective: by which figure `best` is; None: by that of the latest.
        needs_weights: `latest` and `best` skip runs whose weights were not kept.

    Raises:
        ConfigError: there is none, or there are several; or `best`, of several data sets.
    """
    folder = Path(directory).absolute() / "runs"
    recorded = [RunFolder(path) for path in sorted(folder.glob("*")) if schema.RUN.fullmatch(path.name)]
    if which not in ("latest", "best"):
        matches = [run for run in recorded if run.signature.startswith(which)]
        if len(matches) != 1:
            raise ConfigError(
                f"run={which}: {len(matches) or 'no'} runs of that name in {folder}; "
                "allowed: latest, best, or the name of one folder there"
            )
        return matches[0]
    runs, skipped = on_data([*finished(recorded)], data), list[str]()
    runs.sort(key=lambda run: run.status.ended or 0, reverse=True)
    if which == "best" and runs:
        if len({run.status.data for run in runs}) > 1:
            raise ConfigError(
                f"run=best: the runs in {folder} are on several data sets, whose figures cannot be compared: "
                f"{named(runs)}; choose one by its name or hash, with data=..."
            )
        key = objective or runs[0].status.objective_key
        rivals = [run for run in runs if run.status.objective_key == key]
        scored = [(run.status.objective, run) for run in rivals if run.status.objective is not None]
        # Of equals, the latest stays first.
        runs = [run for _, run in sorted(scored, key=lambda pair: -pair[1].status.selected.sign * pair[0])]
    for run in runs:
        if damage := run.folder.damage():
            warn(f"{damage}; this run is skipped")
        elif needs_weights and not checkpoint.stay(run.folder):
            skipped.append(run.folder.signature)
        else:
            if skipped:
                which_ones = f"{skipped[0]}{f' and {len(skipped) - 1} more' if skipped[1:] else ''}"
                warn(f"run={which}: skipped {which_ones}, whose weights were not kept")
            return run.folder
    if skipped:
        raise ConfigError(
            f"run={which}: no finished run in {folder} has weights; train one with record.keep=weights"
        )
    raise ConfigError(f"run={which}: no finished run in {folder}; train one first")


def finished(recorded: Iterable[RunFolder]) -> Iterator[Finished]:
    """Those of these runs that have finished; that a damaged one does not count is reported."""
    for run in recorded:
        status = run.status()
        try:
            if status.name == "finished":
                yield Finished(run, status, str(run.facts()["name"]))
            elif not status.has_begun and (damage := run.damage()):
                raise Damaged(damage)
        except (Damaged, FileNotFoundError, KeyError) as error:
            warn(f"{run.damage() or error}; this run is skipped")


def on_data(runs: list[Finished], data: str | None) -> list[Finished]:
    """Those of these runs that are on a data set, given by its name or the beginning of its hash.

    Raises:
        ConfigError: there are some, but none on this one.
    """
    chosen = [run for run in runs if data is None or run.data == data or run.status.data.startswith(data)]
    if runs and not chosen:
        raise ConfigError(f"data={data}: there is no finished run on this data set; there are: {named(runs)}")
    return chosen


def named(runs: Iterable[Finished]) -> str:
    """The data sets of these runs: `digits (334c9a07), mnist (91ab3c05)`."""
    return ", ".join(sorted({f"{run.data} ({run.status.data[:8]})" for run in runs}))
