"""The process that uploads for a command, so that a tracking store never holds up training.

The command writes down what is missing (see `tracking.write_marker`), then asks for its upload, one line of
JSON per request. If the process is killed or the store does not answer, the next command uploads the rest.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fairsweep import signals
from fairsweep.runs import attempts, checkpoint, markers, mlflow_sweep, store, tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import read_sweep
from fairsweep.runs.store import Note
from fairsweep.wording import counted

# After an outage, the store is left alone for this long; at the command's end it is tried once more.
RETRY_SECONDS = 60.0

# The command's end waits this long for uploads before it says so.
SILENT_SECONDS = 1.0

# What ends the process ends it at once; one that does not is killed.
END_SECONDS = 5.0


class Uploader:
    """The command's side: sends requests, shows the notes that come back. The first request starts it."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.process: subprocess.Popen[str] | None = None
        self.listener: threading.Thread | None = None
        self.answers = queue.SimpleQueue[dict[str, Any] | None]()
        self.is_left = False  # to the next command, by Ctrl-C or for want of a process
        self.seen: set[Path] = set()  # runs that this command has asked the store for

    def send(self, cfg: DictConfig, what: str, path: Path, **more: Any) -> None:
        """Ask for an upload."""
        if self.is_left:
            return
        if self.process is None:
            try:
                self.process = launch()
            except OSError as error:  # the machine has no process, memory or file left for it
                self.is_left = True
                self.note(f"this command uploads nothing, the next one will: {error.strerror}")
                return
            self.listener = threading.Thread(target=self.listen, args=[self.process], daemon=True)
            self.listener.start()
        request = {
            "what": what,
            "path": str(path),
            "uri": cfg.tracking.uri,
            "experiment": cfg.tracking.experiment,
            "outputs": str(Path(cfg.record.dir).absolute()),
            **more,
        }
        assert self.process.stdin is not None
        with suppress(OSError):  # it has died: the next command uploads what is missing
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def listen(self, process: "subprocess.Popen[str]") -> None:
        """Until the process ends: show its notes, pass on its answers."""
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = json.loads(line)
                if "note" in answer:
                    self.note(answer["note"])
                else:
                    self.answers.put(answer)
        finally:
            self.answers.put(None)

    def flush(self, cfg: DictConfig) -> bool:
        """Upload what is missing, and wait for it; whether nothing is missing now.

        Ctrl-C leaves the rest to the next command.
        """
        outputs = Path(cfg.record.dir).absolute()
        missing = len(markers.waiting(outputs, cfg.tracking.uri))
        if self.is_left or (self.process is None and not missing):
            return not missing
        self.send(cfg, "flush", outputs)
        try:
            with signals.tolerated(0):
                answer = self.wait(
                    counted(missing, "record") if missing else "the rest", store.name(cfg.tracking.uri)
                )
        except KeyboardInterrupt:
            self.is_left = True
            self.close()
            return False  # the count of signals tells the command
        if answer is None:
            self.note("the process that uploads has died; the next command uploads what is missing")
            self.close()
        return answer is not None and bool(answer["whole"])

    def wait(self, what: str, where: str) -> dict[str, Any] | None:
        """The answer to the last request; None where the process has died."""
        try:
            return self.answers.get(timeout=SILENT_SECONDS)
        except queue.Empty:
            self.note(f"uploading {what} to {where}; Ctrl-C leaves that to the next command")
            return self.answers.get()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with suppress(OSError):  # it has died
            self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if self.listener is not None:
            # A thread that runs while Python shuts down can abort the process.
            self.listener.join(END_SECONDS)
            self.listener = None


current: list[Uploader] = []  # of this process: at most one


@contextmanager
def running(note: Note) -> Iterator[bool]:
    """Inside, this process uploads while it trains; inside another such block, nothing changes.

    Yields whether this is the outermost one.
    """
    if current:
        yield False
        return
    current.append(Uploader(note))
    try:
        yield True
    finally:
        current.pop().close()


# What commands ask for. Without a running uploader it is only noted, for the next `sync_pending`.


def start(cfg: DictConfig, single: bool) -> None:
    """Load MLflow while a run trains: there will be something to upload."""
    if current and cfg.tracking.uri is not None and current[0].process is None:
        has_model = cfg.tracking.log_model == "all" or (cfg.tracking.log_model == "auto" and single)
        current[0].send(cfg, "start", Path(cfg.record.dir).absolute(), model=has_model)


def sync(folder: RunFolder, cfg: DictConfig, note: Note, again: bool = False) -> None:
    """Bring a run's MLflow run up to date with its folder; see `tracking.sync`."""
    uri = cfg.tracking.uri
    if uri is None:
        return
    tracking.check_experiment(folder.path, cfg, note)
    there: bool | None = False
    if markers.is_uploaded(folder, uri) and not again:
        if current and folder.path in current[0].seen:
            return
        there = store.has_run(uri, markers.read_state(folder.path, uri)["run_id"])
        if there:
            (markers.pending(markers.outputs_of(folder)) / folder.path.name).unlink(missing_ok=True)
            return
    if there is False:
        markers.write(markers.pending(markers.outputs_of(folder)) / folder.path.name, uri, note)
    if current:
        current[0].seen.add(folder.path)
        current[0].send(cfg, "run", folder.path, again=again)


def sync_sweep(directory: Path, outputs: Path, cfg: DictConfig, note: Note) -> None:
    """Bring the MLflow run of a sweep up to date with its folder; see `tracking.sync_sweep`."""
    uri = cfg.tracking.uri
    if uri is None:
        return
    tracking.check_experiment(directory, cfg, note)
    marker = markers.pending(outputs) / read_sweep(directory)["id"]
    markers.write(marker, uri, note, directory)
    if current:
        current[0].send(cfg, "sweep", directory)


def register(folder: RunFolder | None, cfg: DictConfig, note: Note) -> None:
    """Register a finished run's model as `tracking.register` asks, after it is uploaded."""
    if (name := cfg.tracking.register) is None:
        return
    if cfg.tracking.uri is None or not current:
        note(f"tracking.register={name}: nothing is registered, as nothing is tracked (tracking.uri=null)")
    elif folder is None or folder.status().name != "finished" or not checkpoint.stay(folder):
        note(f"tracking.register={name}: nothing is registered, as there is no finished run with weights")
    else:
        current[0].send(cfg, "register", folder.path, name=name)


def sync_pending(cfg: DictConfig) -> None:
    """Upload what earlier commands could not, meanwhile."""
    outputs = Path(cfg.record.dir).absolute()
    if current and cfg.tracking.uri is not None and markers.waiting(outputs, cfg.tracking.uri):
        current[0].send(cfg, "pending", outputs)


def supersede(folder: RunFolder, cfg: DictConfig, note: Note) -> None:
    """Complete the MLflow run of a folder in the history, and tag it: another one follows."""
    uri, outputs = cfg.tracking.uri, markers.outputs_of(folder)
    if uri is None:
        return
    marker = markers.pending(outputs) / folder.path.name.partition("-")[0]
    if markers.read_state(folder.path, uri) or marker.exists():
        sync(folder, cfg, note, again=True)


def flush(cfg: DictConfig) -> bool:
    """At a command's end, and before MLflow is read: wait until all is uploaded; whether it is."""
    return not current or cfg.tracking.uri is None or current[0].flush(cfg)


# The process


def launch() -> "subprocess.Popen[str]":
    """Start it, in a session of its own: the terminal's Ctrl-C is for the command."""
    code = str(Path(__file__).parents[2])
    env = {key: value for key, value in os.environ.items() if key not in CONFUSING}
    env |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")])),
        "USER": mlflow_sweep.user(),  # libraries ask for it, too
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fairsweep.runs.uploader"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )


# What MLflow would apply to runs that do not expect it.
CONFUSING = (
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
)


class Requests:
    """The requests that wait, each record once. The process ends when the command closes the pipe."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.changed = threading.Condition()
        self.waiting: dict[tuple[str, str, str], dict[str, Any]] = {}
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in self.source:
            request = json.loads(line)
            key = request["what"], request["path"], request["uri"]
            with self.changed:
                again = self.waiting.get(key, {}).get("again", False) or request.get("again", False)
                self.waiting[key] = {**request, "again": again}
                self.changed.notify()
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
        os._exit(0)  # at any moment: what is cut short is uploaded by the next command

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting)
                request = self.waiting.pop(next(iter(self.waiting)))
            yield request


def main() -> None:
    """Carry out requests until the command closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # the time of training is measured
    tempfile.tempdir = tempfile.mkdtemp(prefix="fairsweep-")  # what is being uploaded, removed with it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print there

    def answer(**content: Any) -> None:
        with suppress(OSError):  # the command has died
            answers.write(json.dumps(content) + "\n")
            answers.flush()

    def note(text: str) -> None:
        answer(note=text)

    outages: dict[str, float] = {}
    for request in Requests(os.fdopen(os.dup(0))):
        uri = request["uri"]
        try:
            if request["what"] == "flush":
                outages.pop(uri, None)
            elif time.monotonic() < outages.get(uri, 0.0):
                continue
            whole = carry_out(request, note)
            if uri in attempts.noted:
                outages[uri] = time.monotonic() + RETRY_SECONDS
            if request["what"] == "flush":
                answer(whole=whole)
        except Exception as error:  # a fault of ours must not end the process
            note(f"tracking: {request['path']}: {store.reason(error, uri)}")
            if request["what"] == "flush":
                answer(whole=False)


def carry_out(request: dict[str, Any], note: Note) -> bool:
    """One request; whether the store has all of it now."""
    outputs, path = Path(request["outputs"]), Path(request["path"])
    target = {"uri": request["uri"], "experiment": request["experiment"]}
    cfg = OmegaConf.create({"tracking": target, "record": {"dir": str(outputs)}})
    match request["what"]:
        case "start":
            return tracking.prepare(outputs, cfg, note, request["model"])
        case "run":
            return tracking.sync(RunFolder(path), cfg, note, request["again"])
        case "register":
            return tracking.register(RunFolder(path), cfg, request["name"], note)
        case "sweep":
            return tracking.sync_sweep(path, outputs, cfg, note)
    return tracking.sync_pending(str(outputs), cfg, note)


if __name__ == "__main__":
    main()
