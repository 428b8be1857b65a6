"""The sweep's folder: the request, the plan of its runs, its progress, and the table at its end."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from fairsweep.config import ConfigError, redacted
from fairsweep.files import is_locked, write_atomically
from fairsweep.metrics import criteria, ordered
from fairsweep.runs import schema
from fairsweep.runs.folder import Place, RunFolder
from fairsweep.runs.schema import Damaged, warn
from fairsweep.runs.status import Status
from fairsweep.runs.store import Note

T = TypeVar("T")


class Row(NamedTuple):
    """One run of a sweep. A run that serves two trials has two rows."""

    signature: str
    name: str
    arm: str
    trial: int
    phase: str
    seed: int
    values: dict[str, str]
    basis: str = ""  # of a sampler's proposal; see `search.Study`

    def member(self) -> dict[str, Any]:
        """What the run is in the sweep, for its folder and for MLflow."""
        return {key: value for key, value in self._asdict().items() if key not in ("signature", "basis")}


class ReportSummary(NamedTuple):
    """What a sweep's end shows of its report: where it is, or why there is none; the verdict and its remarks;
    the best arm, if the verdict names one."""

    where: str
    verdict: str = ""
    remarks: Sequence[str] = ()
    best: str | None = None


class SweepFolder:
    """`<record.dir>/sweeps/<id>/`: `sweep.json`, `plan.jsonl`, `table.csv`, `report/`."""

    def __init__(self, path: Path, outputs: Path) -> None:
        self.path, self.outputs = path, outputs
        self.has_planned = False  # since this command began
        self.report = path / "report" / "report.html"

    def lock(self, sweep: str) -> FileLock:
        """The right to carry out this sweep, of one process at a time."""
        folder = self.outputs / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{sweep}.lock")

    @contextmanager
    def alone(self, sweep: str, note: Note) -> Iterator[None]:
        """Inside, no other process carries out this sweep."""
        lock = self.lock(sweep)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"sweep {sweep} is running in another process; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def is_held(self, sweep: str) -> bool:
        """Whether a process runs this sweep now."""
        return is_locked(self.outputs / "locks" / f"{sweep}.lock")

    def exists(self) -> bool:
        """Whether the sweep was begun."""
        return (self.path / "sweep.json").exists()

    def check_owner(self, sweep: str) -> None:
        """
        Raises:
            ConfigError: the folder belongs to another sweep, or to something else.
        """
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if self.path.name == sweep:  # and so nobody else's, even where its sweep.json is damaged
            return
        if not self.exists():
            raise ConfigError(f"hydra.sweep.dir={self.path}: is not a sweep's folder; choose another")
        found = self.read()
        if found["id"] != sweep:
            raise ConfigError(
                f"hydra.sweep.dir={self.path}: belongs to another command ({found['command']}); "
                "choose another folder, or omit hydra.sweep.dir"
            )

    def begin(self, **definition: Any) -> None:
        """Write what the sweep is. Its first start is kept, where it had been begun before.

        What is damaged of the earlier command is rewritten. Its plan stays until this one has a run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "plan.jsonl").touch()
        before = self.before()
        self.write(
            {
                **redacted(definition),
                "directory": str(self.path),
                "started": before.get("started", time.time()),
                "resumed": time.time(),
                "ended": None,
                "status": "running",
                "counts": {},
                "reused": 0,
                "best_objective": None,
            }
        )

    def before(self) -> dict[str, Any]:
        """The `sweep.json` of an earlier command; nothing where there is none, or it is damaged."""
        return usable(self.read, {})

    def read(self) -> dict[str, Any]:
        """The content of `sweep.json`.

        Raises:
            Damaged: it cannot be used.
        """
        return schema.read_sweep(self.path)

    def write(self, content: dict[str, Any]) -> None:
        write_atomically(self.path / "sweep.json", json.dumps(content, indent=1).encode())

    def set(self, **changes: Any) -> None:
        """Change these entries of `sweep.json`, all at once."""
        self.write(self.read() | changes)

    # The plan

    def add(self, rows: list[Row]) -> None:
        """Append runs to the plan, which is this command's from the first of them on."""
        if not self.has_planned:
            lines: list[dict[str, Any]] = usable(self._lines, [])
            self._write_lines([*lines, {}])
            self.has_planned = True
        with (self.path / "plan.jsonl").open("a") as file:
            file.write("".join(json.dumps(row._asdict()) + "\n" for row in rows))

    def rows(self) -> list[Row]:
        """The runs that the last command has planned so far.

        Raises:
            Damaged: the plan cannot be used, or has lost some of them.
        """
        rows: list[Row] = []
        for content in self._lines():
            if content:
                rows.append(Row(**content))
            else:
                rows = []
        sweep = self.read()
        if sweep["ended"] is not None and len({row.signature for row in rows}) < sum(
            sweep["counts"].values()
        ):
            raise Damaged(f"{self.path / 'plan.jsonl'}: is damaged: lines are missing")
        return rows

    def proposals(self, arm: str) -> dict[int, list[tuple[dict[str, str], str]]]:
        """The values and bases that samplers proposed for an arm, by number; the latest last."""
        found: dict[int, list[tuple[dict[str, str], str]]] = {}
        lines: list[dict[str, Any]] = usable(self._lines, [])
        for line in lines:
            if line and line["arm"] == arm and line.get("basis"):
                found.setdefault(line["trial"], []).append((line["values"], line["basis"]))
        return found

    def leave(self) -> Iterator[RunFolder]:
        """Take those runs out of the sweep that only earlier commands had planned; give each, under its lock.

        What another process trains now stays in the plan of those commands, for the next one to take out.
        """
        sweep, rows = self.read()["id"], self.rows()
        current = {row.signature for row in rows}
        busy = []
        for line in [line for line in self._lines() if line and line["signature"] not in current]:
            folder = self.run(line["signature"])
            if not folder.path.exists():
                continue
            try:
                with folder.lock().acquire(timeout=0):
                    if sweep in folder.sweeps():
                        folder.join(Place(sweep, str(self.path), []))
                        yield folder
            except Timeout:
                busy.append(line)
        self._write_lines([*busy, {}, *(row._asdict() for row in rows)])

    def _write_lines(self, lines: Iterable[dict[str, Any]]) -> None:
        content = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(self.path / "plan.jsonl", content.encode())

    def _lines(self) -> list[dict[str, Any]]:
        """The plan's lines: runs, and an empty one where a command began. One that was cut short is skipped.

        Raises:
            Damaged: a line is something else.
        """
        path = self.path / "plan.jsonl"
        content = schema.content_of(path)
        lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        return [schema.parsed(path, line, {} if line == b"{}\n" else schema.ROW) for line in lines]

    def run(self, signature: str) -> RunFolder:
        """The folder of one of the runs, whether it exists or not."""
        return RunFolder(self.outputs / "runs" / signature)

    # What came out

    def write_table(self, status_of: Callable[[str], Status]) -> None:
        """`table.csv`: a line for each row of the plan, with how its run ended."""
        rows = self.rows()
        keys = list(dict.fromkeys(key for row in rows for key in row.values))
        statuses = {row.signature: status_of(row.signature) for row in rows}
        names = ordered(
            (name for status in statuses.values() for name in status.test), criteria(self.read()).tested.name
        )
        tested = [f"test_{name}" for name in names]
        figures = ("status", "objective", *tested, "seconds", "reason")
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["arm", "trial", "phase", "seed", *keys, *figures, "signature"])
        for row in rows:
            status = statuses[row.signature]
            found = {**asdict(status), "status": status.name if status.has_begun else None}
            found |= {key: status.test.get(name) for key, name in zip(tested, names, strict=True)}
            table.writerow(
                [row.arm, row.trial, row.phase, row.seed]
                + [row.values.get(key) for key in keys]
                + [found[name] for name in figures]
                + [row.signature]
            )
        write_atomically(self.path / "table.csv", text.getvalue().encode())


def usable(read: Callable[[], T], otherwise: T) -> T:
    """What is read of an earlier command; something else, where that is not there or damaged."""
    try:
        return read()
    except FileNotFoundError:
        return otherwise
    except Damaged as error:
        warn(f"{error}; rewriting it")
        return otherwise


def find(outputs: Path, which: str) -> SweepFolder:
    """The folder of a sweep, by its id (or the beginning of it) or path; or `latest`, the one last begun.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if (Path(which) / "sweep.json").is_file():
        return SweepFolder(Path(which).absolute(), outputs)
    folders = [SweepFolder(path.parent, outputs) for path in sorted(outputs.glob("sweeps/*/sweep.json"))]
    if which == "latest":
        begun: dict[float, SweepFolder] = {}
        for folder in folders:
            try:
                begun[folder.read()["resumed"]] = folder
            except Damaged as error:
                warn(f"{error}; this sweep is skipped")
        if not begun:
            raise ConfigError(f"sweep=latest: no sweep in {outputs / 'sweeps'}; start one with train.py -m")
        return begun[max(begun)]
    matches = [folder for folder in folders if folder.path.name.startswith(which)]
    if len(matches) != 1:
        raise ConfigError(
            f"sweep={which}: {len(matches) or 'no'} sweeps of that name in {outputs / 'sweeps'}; "
            "allowed: latest, the name of one folder there, or a path"
        )
    return matches[0]
