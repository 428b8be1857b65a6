"""What an output folder holds, as tables: sweeps and single runs, one sweep's runs, what trains now."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from fairsweep.config import (
    BOOLEAN,
    TEXT,
    ConfigError,
    check_values,
    integer,
    one_of,
    or_null,
)
from fairsweep.files import is_locked
from fairsweep.look import plain_table
from fairsweep.metrics import ACCURACY, Metric
from fairsweep.runs import schema, store
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import Damaged, read_json, warn
from fairsweep.runs.status import Status
from fairsweep.sweeps import standing
from fairsweep.sweeps.folder import SweepFolder
from fairsweep.wording import age, joined, printable, size

OWN = {
    "which": or_null(TEXT), "running": BOOLEAN, "limit": or_null(integer(1)),
    "clean": BOOLEAN, "keep": one_of("best", "none"), "yes": BOOLEAN,
}  # fmt: skip

# From this width on, a verdict has a column of its own.
WIDE = 120


class ListRow(NamedTuple):
    """A line of the list.

    at: when it was begun, in seconds since 1970. figures: objective and judged figure. size: in bytes.
    """

    name: str
    at: float
    status: str
    figures: tuple[str, str]
    size: int
    what: str
    verdict: str = ""


def check(cfg: DictConfig) -> None:
    """Check every value.

    Raises:
        ConfigError: the first that is not allowed; or words that exclude each other.
    """
    check_values(cfg, OWN, {"which": "sweep"})
    store.check(cfg.tracking.uri)
    if cfg.clean and cfg.which is None:
        raise ConfigError("clean: needs sweep=...; `python src/runs.py` lists the sweeps")
    if cfg.yes and not cfg.clean:
        raise ConfigError("yes=true: confirms `clean`; write: clean sweep=... yes=true")


# Tables


def everything(outputs: Path, limit: int | None, width: int) -> Table | Text:
    """A line for each sweep and each single run, newest first."""
    sweeps = [SweepFolder(path.parent, outputs) for path in outputs.glob("sweeps/*/sweep.json")]
    runs = [RunFolder(path) for path in outputs.glob("runs/*") if schema.RUN.fullmatch(path.name)]
    single = [run for run in runs if run.status().has_begun and not run.sweeps()]
    both: list[SweepFolder | RunFolder] = [*sweeps, *single]
    begun = [(when, one) for one in both if (when := begin_of(one)) is not None]
    newest = sorted(begun, key=lambda pair: pair[0], reverse=True)
    if not newest:
        return Text(f"no sweeps or runs in {outputs}; start one with python src/train.py")
    table = columns("id", "age", "status", "best val", "test", "size", "what")
    if width >= WIDE:
        table.add_column("verdict", overflow="fold")
    for _, one in newest[:limit]:
        try:
            entry = of_one_sweep(one) if isinstance(one, SweepFolder) else of_one_run(one)
        except (Damaged, FileNotFoundError) as error:
            warn(f"{error}; {one.path.name} is not listed")
            continue
        cells = [entry.name[:8], age(time.time() - entry.at), entry.status, *entry.figures, size(entry.size)]
        ends = [entry.what, entry.verdict] if width >= WIDE else ["\n".join(filter(None, entry[-2:]))]
        table.add_row(*(Text(printable(cell)) for cell in (*cells, *ends)))
    if limit is not None and len(newest) > limit:
        table.caption = f"and {len(newest) - limit} older; limit=null shows all"
        table.caption_justify = "left"
    return table


def of_sweep(sweep: SweepFolder) -> Table:
    """A line for each run of a sweep, in the order of its plan; `champion` is the finished run to use."""
    now = standing.read(sweep)
    table = columns("id", "phase", "status", "best val", "test", "size", "run")
    for row in now.unique():
        folder, status = sweep.run(row.signature), now.statuses[row.signature]
        how = "champion" if status.weights == "champion" else state(folder, status)
        cells = [row.signature[:8], row.phase, how, *figures_of(status)]
        cells += [size(on_disk(folder.path)), row.name]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def in_training(outputs: Path) -> Table | Text:
    """A line for each run that a process trains now."""
    table = columns("id", "epoch", "for", "host", "device", "sweep", "run")
    for folder in (RunFolder(path) for path in sorted(outputs.glob("runs/*"))):
        status = folder.status()
        if state(folder, status) == "running":
            epochs = folder.config().trainer.epochs
            epoch = 1 + epochs * status.step // (status.steps or 1)
            cells = [
                folder.signature[:8],
                f"{min(epoch, epochs)}/{epochs}",
                age(time.time() - status.resumed),
            ]
            cells += [status.hostname, status.device, (status.sweep or "-")[:8], described(folder)]
            table.add_row(*(Text(printable(cell)) for cell in cells))
    return table if table.rows else Text(f"nothing trains in {outputs}")


def columns(*names: str) -> Table:
    """An empty table; its last column wraps."""
    table = plain_table(*names)
    for name, column in zip(names, table.columns, strict=True):
        column.no_wrap = name != names[-1]
        if name in ("best val", "test", "size"):
            column.justify = "right"
    return table


# Lines


def begin_of(one: SweepFolder | RunFolder) -> float | None:
    """When it was begun last; None, with a note, where its record is damaged."""
    try:
        return float(one.read()["resumed"] if isinstance(one, SweepFolder) else one.status().resumed)
    except (Damaged, FileNotFoundError) as error:
        warn(f"{error}; it is not listed")
        return None


def of_one_sweep(sweep: SweepFolder) -> ListRow:
    """A sweep, with its best run by validation."""
    content, now = sweep.read(), standing.read(sweep)
    folders = [sweep.run(signature) for signature in now.statuses]
    is_dead = content["status"] == "running" and not sweep.is_held(content["id"])
    status = "died" if is_dead else content["status"]
    scored = {
        signature: value
        for signature, one in now.statuses.items()
        if one.name == "finished" and (value := now.objective(signature)) is not None
    }
    best = max(scored, key=lambda signature: now.metric.sign * scored[signature], default="")
    bytes_ = on_disk(sweep.path) + sum(on_disk(folder.path) for folder in folders)
    figures = figures_of(now.status(best))
    what = described_sweep(content) + by(now.metric, now.tested)
    return ListRow(content["id"], content["resumed"], status, figures, bytes_, what, verdict(sweep))


def of_one_run(folder: RunFolder) -> ListRow:
    """A single run."""
    status = folder.status()
    figures = figures_of(status)
    how, what = state(folder, status), described(folder) + by(status.selected, status.tested)
    return ListRow(folder.signature, status.resumed, how, figures, on_disk(folder.path), what)


def described(folder: RunFolder) -> str:
    """`mnist · two_conv · adam lr=0.001`."""
    try:
        cfg = folder.config()
    except (Damaged, FileNotFoundError) as error:
        return str(error)
    optimizer = str(cfg.optimizer._target_).rsplit(".", 1)[-1].lower()
    return f"{cfg.data.name} · {cfg.model.name} · {optimizer} lr={cfg.optimizer.lr}"


def described_sweep(content: dict[str, Any]) -> str:
    """`mnist · two_conv · adam vs sgd`."""
    return joined(*(", ".join(content.get(key) or ()) for key in ("data", "model")), content["name"])


def state(folder: RunFolder, status: Status) -> str:
    """A run's status; `died`, where the process that trained it is gone."""
    if status.name != "running":
        return status.name
    return "running" if is_locked(folder.lock_file) else "died"


def figures_of(status: Status) -> tuple[str, str]:
    """A finished run's objective and judged figure."""
    objective, test = status.objective, status.judged
    selected = "-" if objective is None else status.selected.text(objective)
    return selected, "-" if test is None else status.tested.text(test)


def by(metric: Metric, tested: Metric) -> str:
    """What the figures are, unless they are accuracies: `, by F1`."""
    if metric == tested == ACCURACY:
        return ""
    return f", by {metric.words}" + ("" if tested == metric else f", test {tested.words}")


def verdict(sweep: SweepFolder) -> str:
    """The claim of a sweep's report, without its figures; empty where there is no report."""
    try:
        text = str(read_json(sweep.report.with_suffix(".json")).get("verdict", ""))
    except (Damaged, FileNotFoundError):
        return ""
    return text.removeprefix("So far: ").partition(":")[0].removesuffix(".")


def on_disk(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(sizes(path for path in folder.rglob("*") if path.is_file()))


def sizes(paths: Iterable[Path]) -> Iterator[int]:
    """The sizes of files; one that has just gone has none."""
    for path in paths:
        try:
            yield path.stat().st_size
        except FileNotFoundError:
            continue
