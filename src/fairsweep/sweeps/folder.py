"""The sweep's folder: what was asked for, the plan of its runs, how far it is, and the table at its end."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from fairsweep.config import ConfigError, redacted
from fairsweep.files import write_atomically
from fairsweep.record import Place, RunFolder, read_json


class Row(NamedTuple):
    """One run of a sweep. A run that serves two trials has two rows."""

    signature: str
    name: str
    arm: str
    trial: int
    phase: str
    seed: int
    values: dict[str, str]

    def member(self) -> dict[str, Any]:
        """What the run is in the sweep, for its folder and for MLflow."""
        return {key: value for key, value in self._asdict().items() if key != "signature"}


class SweepFolder:
    """`<record.dir>/sweeps/<id>/`: `sweep.json`, `plan.jsonl`, `table.csv`, `report/`, and `optuna.db` of a
    search."""

    def __init__(self, path: Path, outputs: Path) -> None:
        self.path, self.outputs = path, outputs
        self.report = path / "report" / "report.html"

    def lock(self, sweep: str) -> FileLock:
        """The right to carry out this sweep, of one process at a time."""
        folder = self.outputs / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{sweep}.lock")

    def is_held(self, sweep: str) -> bool:
        """Whether a process carries this sweep out now."""
        try:
            with self.lock(sweep).acquire(timeout=0):
                return False
        except Timeout:
            return True

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
        if not self.exists():
            raise ConfigError(f"hydra.sweep.dir={self.path}: is no sweep's folder; choose another")
        found = self.read()
        if found["id"] != sweep:
            raise ConfigError(
                f"hydra.sweep.dir={self.path}: belongs to another command ({found['command']}); "
                "choose another folder, or leave hydra.sweep.dir away"
            )

    def begin(self, **definition: Any) -> None:
        """Write what the sweep is. Its first start is kept, where it had been begun before."""
        self.path.mkdir(parents=True, exist_ok=True)
        before = self.read() if self.exists() else {}
        # The plan from here on is this command's. A line that a full disk cut short goes.
        plan = self.path / "plan.jsonl"
        content = plan.read_bytes() if plan.exists() else b""
        write_atomically(plan, content[: content.rfind(b"\n") + 1] + b"{}\n")
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

    def read(self) -> dict[str, Any]:
        """The content of `sweep.json`."""
        return read_json(self.path / "sweep.json")

    def write(self, content: dict[str, Any]) -> None:
        write_atomically(self.path / "sweep.json", json.dumps(content, indent=1).encode())

    def set(self, **changes: Any) -> None:
        """Change these entries of `sweep.json`, all at once."""
        self.write(self.read() | changes)

    # The plan

    def add(self, rows: list[Row]) -> None:
        """Append runs to the plan."""
        with (self.path / "plan.jsonl").open("a") as file:
            file.write("".join(json.dumps(row._asdict()) + "\n" for row in rows))

    def rows(self) -> list[Row]:
        """The runs that the last command has planned so far."""
        rows: list[Row] = []
        for content in self._lines():
            if content:
                rows.append(Row(**content))
            else:
                rows = []
        return rows

    def leave(self) -> list[RunFolder]:
        """Take those runs out of the sweep that only earlier commands had planned; they are given back."""
        rows = self.rows()
        current = {row.signature for row in rows}
        before = dict.fromkeys(content["signature"] for content in self._lines() if content)
        left = [self.run(signature) for signature in before if signature not in current]
        for folder in left:
            if folder.path.exists():
                folder.join(Place(self.read()["id"], str(self.path), []))
        content = "".join(json.dumps(row._asdict()) + "\n" for row in rows)
        write_atomically(self.path / "plan.jsonl", b"{}\n" + content.encode())
        return [folder for folder in left if folder.status()]

    def _lines(self) -> list[dict[str, Any]]:
        content = (self.path / "plan.jsonl").read_bytes()
        return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]

    def run(self, signature: str) -> RunFolder:
        """The folder of one of the runs, whether it exists or not."""
        return RunFolder(self.outputs / "runs" / signature)

    # What came out

    def write_table(self) -> None:
        """`table.csv`: a line for each row of the plan, with how its run ended."""
        rows = self.rows()
        keys = list(dict.fromkeys(key for row in rows for key in row.values))
        figures = ("status", "objective", "test_accuracy", "test_loss", "seconds", "reason")
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["arm", "trial", "phase", "seed", *keys, *figures, "signature"])
        for row in rows:
            status = self.run(row.signature).status()
            table.writerow(
                [row.arm, row.trial, row.phase, row.seed]
                + [row.values.get(key) for key in keys]
                + [status.get(name) for name in figures]
                + [row.signature]
            )
        write_atomically(self.path / "table.csv", text.getvalue().encode())


def find(outputs: Path, which: str) -> SweepFolder:
    """The folder of a sweep, by its id (or the beginning of it) or path; or `latest`, the one last begun.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if (Path(which) / "sweep.json").is_file():
        return SweepFolder(Path(which).absolute(), outputs)
    folders = [SweepFolder(path.parent, outputs) for path in sorted(outputs.glob("sweeps/*/sweep.json"))]
    if which == "latest":
        if not folders:
            raise ConfigError(f"sweep=latest: no sweep in {outputs / 'sweeps'}; start one with train.py -m")
        return max(folders, key=lambda folder: float(folder.read()["resumed"]))
    matches = [folder for folder in folders if folder.path.name.startswith(which)]
    if len(matches) != 1:
        raise ConfigError(
            f"sweep={which}: {len(matches) or 'no'} sweeps of that name in {outputs / 'sweeps'}; "
            "allowed: latest, the name of one folder there, or a path"
        )
    return matches[0]
