"""The run folder: what a run was, did and left. Every write is atomic, or an append to the journal."""

import io
import json
import math
import os
import pickle
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from fairsweep.config import OBJECTIVES, ConfigError, literal, redacted, without_credentials
from fairsweep.files import write_atomically
from fairsweep.runs import schema
from fairsweep.runs.schema import FINAL, Damaged, warn

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

    def create(self, cfg: DictConfig, facts: dict[str, Any], **status: Any) -> None:
        """Begin the record of a run at its first step."""
        self.write_config(cfg)
        write_atomically(self.path / "data.json", json.dumps(facts, indent=1).encode())
        self.truncate_journal(0)
        (self.path / "status.json").unlink(missing_ok=True)  # of an attempt that had lost its checkpoints
        now = time.time()
        self.set_status(
            status="running",
            signature=self.signature,
            started=now,
            resumed=now,
            ended=None,
            journal_bytes=0,
            **status,
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

        A run with a damaged record counts as one that never began. Of checkpoints `load_checkpoint` decides.
        """
        if not self.path.is_dir():
            return ""
        try:
            for name in ("journal.jsonl", "run.log", *CHECKPOINTS):
                if (self.path / name).is_dir():
                    return f"{self.path / name}: is a folder"
            try:
                status = schema.read_status(self.path / "status.json")
            except FileNotFoundError:
                if not self.journal_bytes() and not any((self.path / name).exists() for name in CHECKPOINTS):
                    return ""  # it was killed before its first step
                raise
            if status["signature"] != self.signature:
                return f"{self.path / 'status.json'}: is another run's"
            schema.read_config(self.path / "config.yaml")
            if not self.facts() and status["data"] != schema.UNKNOWN:
                return f"{self.path / 'data.json'}: is damaged: it is empty"
            if status["status"] in FINAL and self.journal_bytes() < status["journal_bytes"]:
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
            schema.check(self.path / "data.json", facts, schema.FACTS)
        return facts

    def status(self) -> dict[str, Any]:
        """The last status written; empty where no run has begun, or it is damaged (see `damage`)."""
        try:
            return schema.read_status(self.path / "status.json")
        except (FileNotFoundError, Damaged):
            return {}

    def set_status(self, **changes: Any) -> None:
        """Change these entries of the status, all at once."""
        content = self.status() | redacted(changes)
        write_atomically(self.path / "status.json", json.dumps(content, indent=1, allow_nan=False).encode())

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
            content = content[: self.status().get("journal_bytes", 0)]
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
        status = self.status()
        if self.journal_bytes() < status["journal_bytes"]:
            return None
        key, ended = status["objective_key"], status["status"] in FINAL
        lines = [line for line in self.journal(durable=True) if "val_loss" in line]
        reached = any(line["epoch"] >= epoch for line in lines)
        if not reached and not ended:
            return None
        lines = [line for line in lines if line["epoch"] <= epoch]
        sign = OBJECTIVES[key]
        diverged = not reached and status["status"] == "diverged"
        if diverged or any(line["val_loss"] is None for line in lines):
            return -math.inf * sign
        values = [line[key] for line in lines]
        if not values:
            return None
        return float(max(values, key=lambda v: sign * v) if self.tests_best() else values[-1])

    def truncate_journal(self, size: int) -> None:
        """Remove all lines after this many bytes."""
        with (self.path / "journal.jsonl").open("ab") as file:
            file.truncate(size)

    # Checkpoints

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write `last.pt`; the one before it stays as `previous.pt`.

        From here on the journal's lines so far are durable: a resume goes on behind them.
        """
        size = self.sync_journal()
        self.keep_previous()
        self.save("last.pt", {**state, "journal_bytes": size})
        self.set_status(journal_bytes=size, **{key: state[key] for key in ("step", "seconds", "shared")})

    def finish(self, kept: dict[str, dict[str, Any]], status: dict[str, Any]) -> None:
        """The end of a run: of its checkpoints, only these contents (by file name) stay.

        Killed at any point of this, the run can still be resumed, or is finished.
        """
        size = self.sync_journal()
        self.keep_previous()
        for name, content in kept.items():
            self.save(name, {**content, "journal_bytes": size})
        self.set_status(journal_bytes=size, **status)
        for name in {"last.pt", "best.pt", "previous.pt"} - kept.keys():
            (self.path / name).unlink(missing_ok=True)

    def keep_previous(self) -> None:
        """Make room for a new `last.pt`, and keep the old one until the new one is on the disk."""
        last = self.path / "last.pt"
        if last.exists():
            last.replace(self.path / "previous.pt")

    def sync_journal(self) -> int:
        """Bring the journal to the disk; its size in bytes."""
        with (self.path / "journal.jsonl").open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write tensors and plain values so that `torch.load(..., weights_only=True)` reads them."""
        import torch

        buffer = io.BytesIO()
        torch.save({**content, "signature": self.signature}, buffer)
        write_atomically(self.path / name, buffer.getvalue())

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that is whole and of this run, and what is wrong with those passed over.

        Those are removed, so that the next write does not put one of them in the place of a good one.
        """
        complaints: list[str] = []
        for name in ("last.pt", "previous.pt"):
            path = self.path / name
            if not path.exists():
                continue
            try:
                state = read_checkpoint(path)
                if state.get("signature") != self.signature:
                    raise ValueError("it is another run's")
                if "optimizer" in state:
                    if self.journal_bytes() < state["journal_bytes"]:
                        raise ValueError("journal.jsonl is damaged: lines before this checkpoint are missing")
                    return state, complaints
            except ValueError as error:
                complaints.append(f"{path}: {error}; it is skipped")
            path.unlink()
        return None, complaints

    def tested_weights_file(self) -> Path:
        """The checkpoint that the test figures belong to.

        Raises:
            ConfigError: the run has no test figures yet, its weights were not kept, or the file is missing.
        """
        status = self.status()
        if status.get("status") not in FINAL:
            raise ConfigError(
                f"{self.path}: has no tested weights, as it has not finished; finish it first, or "
                "choose another run"
            )
        if not self.keeps_weights():
            why = status["weights"] if status.get("weights") in schema.REMOVED else "record.keep=none"
            raise ConfigError(
                f"{self.path}: has no weights ({why}); choose another run, "
                "or train it again with record.keep=weights rerun=true"
            )
        is_best = self.tests_best() and status["best_epoch"] is not None
        path = self.path / ("best.pt" if is_best else "last.pt")
        if not path.is_file():
            raise ConfigError(
                f"{path}: is missing; train the run again with rerun=true, or choose another run"
            )
        return path

    def keeps_weights(self) -> bool:
        """Whether the run's weights stay after its end, and were not removed since."""
        kept_some = bool(self.config().record.keep != "none")
        return kept_some and self.status().get("weights") not in schema.REMOVED

    def weights_size(self) -> int:
        """The bytes of its weights and checkpoints."""
        return sum(path.stat().st_size for path in self.path.glob("*.pt"))

    def remove_weights(self, why: str) -> None:
        """Free the disk of weights and checkpoints.

        Args:
            why: one of `schema.REMOVED`.
        """
        self.set_status(weights=why)  # first: weights that are missing without a reason are a loss
        for path in self.path.glob("*.pt"):
            path.unlink()

    def tests_best(self) -> bool:
        """Whether the best weights, by the objective, are the tested ones; else the last are."""
        return bool(self.config().trainer.test_weights == "best")

    def weights(self) -> dict[str, Any]:
        """The weights that the test figures belong to.

        Raises:
            ConfigError: they were not kept, or are damaged.
        """
        return read_weights(self.tested_weights_file())


def read_weights(path: Path) -> dict[str, Any]:
    """The model's weights in a checkpoint.

    Raises:
        ConfigError: it is not there, or damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; this run keeps no weights (record.keep)")
    try:
        weights: dict[str, Any] = read_checkpoint(path)["model"]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return weights


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing is unpickled but tensors and plain values.

    Raises:
        ValueError: the file is damaged or no checkpoint of ours.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError("it is damaged or not a checkpoint") from error
    if damaged:
        raise ValueError(f"it is damaged (in {damaged})")
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError("it is not a checkpoint of fairsweep")
    return state


def folder_of(directory: str, signature: str) -> RunFolder:
    """The folder of a run, whether it exists or not."""
    return RunFolder(Path(directory).absolute() / "runs" / signature)
