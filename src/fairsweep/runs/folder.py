"""The run folder: what a run was, did and left. Every write is atomic, or an append to the journal."""

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from fairsweep.config import literal, redacted, without_credentials
from fairsweep.files import write_atomically
from fairsweep.runs import schema
from fairsweep.runs.schema import Damaged, warn
from fairsweep.runs.status import UNKNOWN, Status, read_status

CHECKPOINTS = ("last.pt", "previous.pt", "best.pt")


class Place(NamedTuple):
    """What a run is in a sweep.

    directory: the sweep's folder. members: name, arm, trial, phase, seed and values, for each trial that it
    is a run of. command: an id of the process that carries the sweep out now.
    """

    sweep: str
    directory: str
    members: list[dict[str, Any]]
    command: str = ""


class RunFolder:
    """`<record.dir>/runs/<signature>/`: configuration, status, journal, log, checkpoints, pictures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.signature = path.name.partition("-")[0]  # in the history, a time follows
        self.pictures = path / "pictures"
        self._config: DictConfig | None = None

    def lock(self) -> FileLock:
        """The right to write here, of one process at a time; the system takes it back when that one dies."""
        self.lock_file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.lock_file)

    @property
    def lock_file(self) -> Path:
        return self.path.parents[1] / "locks" / f"{self.signature}.lock"

    def create(self, cfg: DictConfig, facts: dict[str, Any], **known: Any) -> None:
        """Begin the record of a run at its first step; `known` are entries of its status."""
        self.write_config(cfg)
        write_atomically(self.path / "data.json", json.dumps(facts, indent=1).encode())
        self.truncate_journal(0)
        now = time.time()
        self.write_status(
            Status(name="running", signature=self.signature, started=now, resumed=now, **redacted(known))
        )

    def write_config(self, cfg: DictConfig) -> None:
        """Make the folder, and write what the run is configured to be."""
        self.path.mkdir(parents=True, exist_ok=True)
        values = redacted(OmegaConf.to_container(cfg, resolve=True))
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "config.yaml", text.encode())
        self._config = None

    def archive(self) -> Path:
        """Move the folder out of the way, to `runs/.history/`."""
        history = self.path.parent / ".history"
        history.mkdir(exist_ok=True)
        goal = history / f"{self.signature}-{time.time_ns()}"
        self.path.rename(goal)
        return goal

    # What it holds

    def damage(self) -> str:
        """What makes the record unusable, by the file's name; empty where nothing does, or no run has begun.

        A run with a damaged record counts as one that never began. Of checkpoints `checkpoint.load` decides.
        """
        if not self.path.is_dir():
            return ""
        try:
            for name in ("journal.jsonl", "run.log", *CHECKPOINTS):
                if (self.path / name).is_dir():
                    return f"{self.path / name}: is a folder"
            try:
                now = read_status(self.path / "status.json")
            except FileNotFoundError:
                if not self.journal_bytes() and not any((self.path / name).exists() for name in CHECKPOINTS):
                    return ""  # it was killed before its first step
                raise
            if now.signature != self.signature:
                return f"{self.path / 'status.json'}: is another run's"
            schema.read_config(self.path / "config.yaml")
            if not self.facts() and now.data != UNKNOWN:
                return f"{self.path / 'data.json'}: is damaged: it is empty"
            if now.is_final and self.journal_bytes() < now.journal_bytes:
                return f"{self.path / 'journal.jsonl'}: is damaged: lines are missing"
        except FileNotFoundError as error:
            return f"{error.filename}: is missing"
        except Damaged as error:
            return str(error)
        return ""

    def config(self) -> DictConfig:
        """The configuration that the run was trained with, as plain values.

        Raises:
            Damaged: it cannot be used.
        """
        if self._config is None:
            self._config = literal(schema.read_config(self.path / "config.yaml"))
        return self._config

    def facts(self) -> dict[str, Any]:
        """What is known of the run's data: `Data.facts()`; nothing, where it failed before they were read.

        Raises:
            Damaged: it cannot be used.
        """
        facts = schema.read_json(self.path / "data.json")
        if facts:
            schema.check(self.path / "data.json", facts, schema.facts_rules(facts))
        return facts

    def status(self) -> Status:
        """The last status written; that of a run that has not begun if there is none, or it is damaged."""
        try:
            return read_status(self.path / "status.json")
        except (FileNotFoundError, Damaged):
            return Status()

    def set_status(self, **changes: Any) -> None:
        """Change these entries of the status, all at once."""
        self.write_status(replace(self.status(), **redacted(changes)))

    def write_status(self, now: Status) -> None:
        write_atomically(self.path / "status.json", now.text().encode())

    # Sweeps

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """The sweeps that the run belongs to, by id: their `directory` and what it is there, `members`.

        Of a damaged file, none: the next command of each sweep notes it again.
        """
        path = self.path / "sweeps.json"
        try:
            sweeps = schema.read_json(path)
            for entry in sweeps.values():
                schema.check(path, entry, schema.MEMBERSHIP)
        except FileNotFoundError:
            return {}
        except Damaged as error:
            warn(f"{error}; repeat its sweeps to record its membership again")
            return {}
        return sweeps

    def join(self, place: Place) -> None:
        """Note what the run is in a sweep, instead of what it was there; without members, it has left."""
        known = self.sweeps()
        joined = {**known, place.sweep: {"directory": place.directory, "members": place.members}}
        if not place.members:
            del joined[place.sweep]
        if joined != known:
            write_atomically(self.path / "sweeps.json", json.dumps(joined, indent=1).encode())

    def log(self, text: str) -> None:
        """Append to the run's own log, each entry behind the time."""
        with (self.path / "run.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {without_credentials(text)}\n")

    # Journal

    def append(self, line: dict[str, float]) -> None:
        """Add a line, with the time, to the journal; what is not finite becomes null, as JSON has no NaN."""
        content = {key: value if math.isfinite(value) else None for key, value in line.items()}
        with (self.path / "journal.jsonl").open("a") as file:
            file.write(json.dumps({**content, "time": round(time.time(), 3)}, allow_nan=False) + "\n")

    def journal(self, durable: bool = False) -> list[dict[str, Any]]:
        """The journal's lines; if durable, only those that no resume will take back."""
        content = (self.path / "journal.jsonl").read_bytes()
        if durable:
            content = content[: self.status().journal_bytes]
        return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]

    def journal_bytes(self) -> int:
        """The size of the journal up to the first line that is cut short or damaged."""
        path, size = self.path / "journal.jsonl", 0
        with suppress(Damaged, FileNotFoundError):
            for line in schema.content_of(path).splitlines(keepends=True):
                if line.endswith(b"\n"):
                    schema.parsed(path, line, schema.LINE)
                    size += len(line)
        return size

    def objective_at(self, epoch: int) -> float | None:
        """The objective as it stood after this many epochs, or at the end if that came first.

        Of the best epoch until then, where the best weights are the tested ones, else of the last. The worst
        there is where the run had diverged by then. None where the run is not so far, or its journal has lost
        lines: no checkpoint counts then, and the run is trained again.
        """
        now = self.status()
        if self.journal_bytes() < now.journal_bytes:
            return None
        key = now.objective_key
        lines = [line for line in self.journal(durable=True) if "val_loss" in line]
        reached = any(line["epoch"] >= epoch for line in lines)
        if not reached and not now.is_final:
            return None
        lines = [line for line in lines if line["epoch"] <= epoch]
        metric = now.selected
        diverged = not reached and now.name == "diverged"
        if diverged or any(line["val_loss"] is None for line in lines):
            return metric.worst
        values = [line[key] for line in lines]
        if not values:
            return None
        return float(max(values, key=lambda v: metric.sign * v) if self.tests_best() else values[-1])

    def tests_best(self) -> bool:
        """Whether the best weights, by the objective, are the tested ones; else the last are."""
        return bool(self.config().trainer.test_weights == "best")

    def truncate_journal(self, size: int) -> None:
        """Remove all lines after this many bytes."""
        with (self.path / "journal.jsonl").open("ab") as file:
            file.truncate(size)

    def sync_journal(self) -> int:
        """Bring the journal to the disk; its size in bytes."""
        with (self.path / "journal.jsonl").open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()


def folder_of(directory: str, signature: str) -> RunFolder:
    """The folder of a run, whether it exists or not."""
    return RunFolder(Path(directory).absolute() / "runs" / signature)
