"""Run folders on their way between machines that share no disk."""

import json
from pathlib import Path
from typing import NamedTuple

from fairsweep.files import write_atomically
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import Status, status_of

# The machine that started the sweep writes these itself.
OURS = {"config.yaml", "sweeps.json", "tracking.json"}
# The newest checkpoint is enough: it arrives whole or not at all.
SPARE = {"previous.pt"}
# These grow: only new lines are sent.
JOURNAL, LOG = "journal.jsonl", "run.log"
CHECKPOINTS = {"last.pt", "best.pt"}
# What a run resumes from.
STATE = ("config.yaml", "data.json", "sweeps.json", JOURNAL, *sorted(CHECKPOINTS | SPARE), "status.json")


class Parcel(NamedTuple):
    """What is new in a run's folder.

    files: contents by path. journal: this many bytes stay, and these follow. log: what is to be appended.
    names: all files that there are. notes: lines for the user.
    """

    signature: str
    files: dict[str, bytes]
    journal: tuple[int, bytes]
    log: bytes
    names: set[str]
    notes: list[str]

    def status(self) -> Status:
        """The run's status where it was packed."""
        return status_of(json.loads(self.files["status.json"]))


class Packer:
    """Packs what has changed in a run's folder since the last time."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.sent: dict[str, tuple[int, int]] = {}  # time and size of each file, by its path
        self.journal = self.log = 0  # bytes sent

    def has_news(self) -> bool:
        """Whether the run has begun, written a checkpoint, or ended."""
        path = self.folder.path / "status.json"
        return path.exists() and stamp(path) != self.sent.get("status.json")

    def pack(self, notes: list[str]) -> Parcel:
        paths = {
            str(path.relative_to(self.folder.path)): path
            for path in self.folder.path.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name not in OURS | SPARE
        }
        files = {}
        for name, path in paths.items():
            if name not in (JOURNAL, LOG) and self.sent.get(name) != stamp(path):
                self.sent[name] = stamp(path)
                files[name] = path.read_bytes()
        journal = self.journal, tail(self.folder.path / JOURNAL, self.journal)
        log = tail(self.folder.path / LOG, self.log)
        self.journal += len(journal[1])
        self.log += len(log)
        return Parcel(self.folder.signature, files, journal, log, set(paths), notes)


def state(folder: RunFolder) -> dict[str, bytes]:
    """What a run resumes from on another machine: contents by file name."""
    return {name: (folder.path / name).read_bytes() for name in STATE if (folder.path / name).exists()}


def put(folder: RunFolder, files: dict[str, bytes]) -> None:
    """Write what `state` read."""
    folder.path.mkdir(parents=True)
    for name, content in files.items():
        (folder.path / name).write_bytes(content)


def unpack(folder: RunFolder, parcel: Parcel) -> None:
    """Write what is new. If this is killed at any point, the run can still be resumed."""
    with (folder.path / LOG).open("ab") as file:
        file.write(parcel.log)
    kept, lines = parcel.journal
    journal = folder.path / JOURNAL
    write_atomically(journal, (journal.read_bytes()[:kept] if journal.exists() else b"") + lines)
    # The status last: it refers to the others.
    for name in sorted(parcel.files, key=lambda name: name == "status.json"):
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, parcel.files[name])
    for name in CHECKPOINTS - parcel.names | SPARE:
        (folder.path / name).unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def tail(path: Path, start: int) -> bytes:
    """The bytes of a file from this position on."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(start)
        return file.read()
