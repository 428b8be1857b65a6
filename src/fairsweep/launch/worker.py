"""A worker: a process on any machine that trains runs in a folder of its own and sends back what it writes.

It serves many runs, so that slow imports happen once.
"""

import hashlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from rich.console import Console

import fairsweep
from fairsweep.config import literal
from fairsweep.launch import parcel
from fairsweep.launch.parcel import Packer, Parcel
from fairsweep.runs import provenance
from fairsweep.runs.folder import Place, folder_of
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.runs.session import Session
from fairsweep.signals import Stop


class Order(NamedTuple):
    """A run for a worker to train: its resolved configuration, and the files that it resumes from.

    content: the hash of its data, which must be the same on the worker's machine.
    weights: the content of the file `trainer.weights`, if it is set.
    """

    signature: str
    content: str
    cfg: dict[str, Any]
    place: Place | None
    files: dict[str, bytes]
    weights: bytes | None


class Identity(NamedTuple):
    """Where a worker is, and which code it has."""

    host: str
    pid: int
    code: str
    versions: dict[str, str]


class Notes(Progress):
    """Keeps notes for the user until they are sent."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True), quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def taken(self) -> list[str]:
        notes, self.notes = self.notes, []
        return notes


class Worker:
    """
    Args:
        command: of the sweep, for the records of its runs.
        directory: the working directory of that command, which relative paths start from.
        threads: compute threads of a run that does not set them.
        scratch: where to make its folder; None: among this machine's temporary files.
    """

    def __init__(self, command: list[str], directory: str, threads: int, scratch: str | None) -> None:
        sys.argv = command
        if Path(directory).is_dir():
            os.chdir(directory)
        # Torch reads them as it is imported.
        os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.scratch = scratch
        self.stop = Stop()

    @cached_property
    def outputs(self) -> Path:
        """Its folder, made with the first run: a worker that trains nothing leaves nothing behind."""
        return Path(tempfile.mkdtemp(prefix="fairsweep-ray-", dir=self.scratch))

    def identity(self) -> Identity:
        """Identify this worker, once it is ready to train."""
        import fairsweep.data
        import fairsweep.training.loop  # noqa: F401

        return Identity(socket.gethostname(), os.getpid(), source_hash(), provenance.versions())

    def train(self, orders: list[Order], lanes: int | None) -> Iterator[Parcel]:
        """Train these runs, up to `lanes` at once; yields what they write, at least how each ended."""
        packers, specs = dict[str, Packer](), list[RunSpec]()
        for order in orders:
            folder = folder_of(str(self.outputs), order.signature)
            if order.files:
                parcel.put(folder, order.files)
            packers[order.signature] = Packer(folder)
            specs.append(RunSpec(self.config(order), order.place, False, order.signature, order.content))
        notes = Notes()
        try:
            for changed in Session(specs, notes, self.stop).train(lanes):
                if packers[changed.signature].has_news():
                    yield packers[changed.signature].pack(notes.taken())
            for packer in packers.values():
                if packer.has_news():  # it ended before its first step, or had been trained before
                    yield packer.pack(notes.taken())
        finally:
            for packer in packers.values():
                shutil.rmtree(packer.folder.path, ignore_errors=True)
                self.weights(packer.folder.signature).unlink(missing_ok=True)

    def config(self, order: Order) -> DictConfig:
        """A run's configuration on this machine."""
        cfg = literal(order.cfg)
        cfg.record.dir = str(self.outputs)
        cfg.tracking.uri = None
        cfg.rerun = False  # a run to train anew comes without files
        if order.weights is not None:
            path = self.weights(order.signature)
            path.write_bytes(order.weights)
            cfg.trainer.weights = str(path)
        return cfg

    def weights(self, signature: str) -> Path:
        """The file with the weights that a run starts from."""
        return self.outputs / f"{signature}.weights"

    def end(self) -> None:
        """End the runs in training as interrupted."""
        self.stop.wanted = True

    def close(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self.outputs, ignore_errors=True)


@cache
def source_hash() -> str:
    """A hash (10 hex digits) of all our code, which must be the same on all machines."""
    folder = Path(fairsweep.__file__).parent
    content = b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))
    return hashlib.sha256(content).hexdigest()[:10]
